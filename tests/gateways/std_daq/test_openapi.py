"""The OpenAPI document: true to the paths, and checked by schemathesis against the running gateway."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from sisockdaq.gateways.std_daq import openapi
from sisockdaq.gateways.std_daq.pages import Pages

from tests.gateways.std_daq.rig import Rig

CHECKER = "schemathesis>=4,<5"

TOLERATED = "negative_data_rejection,missing_required_header,unsupported_method"
"""What std-daq does otherwise: a wrong request is answered with 200 and ``status: error``, as its client needs."""


def checker() -> Path:
    """Return schemathesis in an environment of its own (its anyio cannot be the project's), made once a user."""
    folder = Path(tempfile.gettempdir()) / f"sisockdaq-tests-{os.getuid()}" / f"schemathesis-{sys.version_info[1]}"
    program = folder / "bin" / "schemathesis"
    if program.exists() and (folder / "whole").exists():
        return program
    folder.parent.mkdir(mode=0o700, exist_ok=True)
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        [str(folder / "bin" / "pip"), "install", "-q", CHECKER],
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
        if done.returncode != 0:
            pytest.skip(f"schemathesis cannot be installed here: {done.stderr.strip()[-300:]}")
    (folder / "whole").touch()
    return program


def test_every_path_is_described() -> None:
    document = openapi.document()
    described = {(path, method.upper()) for path, item in document["paths"].items() for method in item}
    names = {"<count>": "{n_logs}", "<acquisition>": "{acquisition_id}", "<index>": "{i_image}"}

    def path(rule: str) -> str:
        return "/".join(names.get(part, part) for part in rule.split("/"))

    there = {
        (path(rule.rule), method)
        for rule in Pages.app.url_map.iter_rules()
        for method in rule.methods or ()
        if method in ("GET", "POST")
    }
    assert there - described == {("/", "GET"), ("/healthz", "GET"), ("/openapi.json", "GET"), ("/daq/live", "GET")}
    assert described <= there
    operations = [one.name for one in openapi.OPERATIONS]
    assert len(set(operations)) == len(operations)


def test_every_reply_is_an_envelope() -> None:
    schemas: dict[str, Any] = openapi.document()["components"]["schemas"]
    for one in openapi.OPERATIONS:
        assert {"status", "message"} <= set(schemas[one.reply.__name__]["required"])


@pytest.mark.timeout(300)
def test_schemathesis_finds_nothing_wrong(std_daq: Rig) -> None:
    program = checker()
    assert std_daq.http.get("/openapi.json")["openapi"] == "3.1.0"
    # Writes that are accepted would wait for images: the fake writer ends each at once.
    std_daq.writer.at_once = True
    command = [
        str(program), "run", f"{std_daq.url}/openapi.json", "--url", std_daq.url, "--seed", "1", "--no-color",
        "--phases", "fuzzing", "--max-examples", "8", "--request-timeout", "20", "--exclude-checks", TOLERATED,
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert std_daq.client.get_status()["state"] == "READY"
