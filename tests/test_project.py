"""What holds for the repository as a whole: style, types, layers, container files, secrets."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from sisockdaq.site import load_site

REPOSITORY = Path(__file__).parents[1]
CHECKED = ["sisockdaq", "nodes", "hub", "gateways", "benchmarks", "tests", "setup.py"]


def tool(name: str, *arguments: str, cwd: Path = REPOSITORY) -> None:
    """Run a tool of the test environment; fail with what it printed."""
    program = Path(sys.executable).with_name(name)
    if not program.exists():
        pytest.skip(f"{name} is not installed here")
    done = subprocess.run([str(program), *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{name}:\n{done.stdout}{done.stderr}"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as it is laid out when installed: the top-level rooms inside ``sisockdaq``.

    Checkers follow folders, not the import hook of an editable installation.
    """
    root = tmp_path_factory.mktemp("installed")
    skip = shutil.ignore_patterns("__pycache__")
    shutil.copytree(REPOSITORY / "sisockdaq", root / "sisockdaq", ignore=skip)
    for room in ("nodes", "hub", "gateways"):
        shutil.copytree(REPOSITORY / room, root / "sisockdaq" / room, ignore=skip)
    shutil.copy(REPOSITORY / "pyproject.toml", root)
    return root


def test_style() -> None:
    tool("ruff", "check", *CHECKED)


def test_format() -> None:
    tool("ruff", "format", "--check", *CHECKED)


@pytest.mark.timeout(300)
def test_types(installed: Path) -> None:
    tool(
        "mypy",
        "--config-file",
        "pyproject.toml",
        "--cache-dir",
        str(REPOSITORY / ".mypy_cache"),
        "-p",
        "sisockdaq",
        cwd=installed,
    )


def test_layers(installed: Path) -> None:
    tool("lint-imports", "--no-cache", "--no-logo", cwd=installed)


def test_dockerfile() -> None:
    tool("hadolint", "Dockerfile")


def test_compose_schema() -> None:
    tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", "docker-compose.yml")


def test_compose_starts_every_part_of_the_demo_on_localhost_only() -> None:
    services: dict[str, Any] = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())["services"]
    site = load_site(REPOSITORY / "sites" / "demo")
    parts = {service["command"][1] for service in services.values() if service["command"][0] == "run"}
    assert parts == {"router", "hub", *site.nodes}
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
    shared = [services[name]["volumes"] for name in ("receiver", "integrator", "writer")]
    assert all("state:/state" in volumes for volumes in shared)


def tracked() -> list[Path]:
    """Files that git knows, or all where this is no checkout."""
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    return [path for name in listing.stdout.split("\0") if name and (path := REPOSITORY / name).is_file()]


def test_no_file_is_a_heap() -> None:
    """About 500 lines are the most that one thing takes."""
    code = [path for path in tracked() if path.suffix == ".py" and not path.is_relative_to(REPOSITORY / "tests")]
    lengths = {path: len(path.read_text().splitlines()) for path in code}
    assert {path: length for path, length in lengths.items() if length > 550} == {}


def test_no_secret_and_no_large_file_is_tracked() -> None:
    secret = re.compile(
        r"BEGIN [A-Z ]*PRIVATE KEY|(?:password|secret)\s*[=:]\s*[\"'][^\"'${}\s]{8,}[\"']", re.IGNORECASE
    )
    for path in tracked():
        assert path.stat().st_size < 300_000, path
        if "tests" not in path.parts:
            found = secret.search(path.read_text(errors="ignore"))
            assert found is None, f"{path}: {found}"
