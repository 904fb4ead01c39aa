"""The reference pages say what the code says."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    path = REPOSITORY / "docs" / "reference" / "generate.py"
    spec = importlib.util.spec_from_file_location("generate", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_site_reference_is_current(generator: ModuleType) -> None:
    current = (REPOSITORY / "docs" / "reference" / "site.md").read_text()
    assert current == generator.reference(), "run: .venv/bin/python docs/reference/generate.py"


def test_every_option_is_explained(generator: ModuleType) -> None:
    for line in generator.reference().splitlines():
        if line.startswith("| `"):
            assert not line.rstrip(" |").endswith("|"), f"no description: {line}"
            assert line.split(" | ")[-1].strip(" |"), f"no description: {line}"
