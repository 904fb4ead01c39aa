"""The commands, ours and those of PyPI's package, against the same gateway."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sisockdaq.testing import wait_until
from tests.gateways.std_daq.rig import Rig

CALL = "import sys; from importlib import import_module; getattr(import_module(sys.argv.pop(1)), sys.argv.pop(1))()"
OURS, THEIRS = "sisockdaq.gateways.std_daq.cli", "std_daq_client.cli"


def run(module: str, command: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CALL, module, command, *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**os.environ, **environment},
    )


def answer(module: str, command: str, *arguments: str, **environment: str) -> Any:
    done = run(module, command, *arguments, **environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("module", [OURS, THEIRS])
def test_the_commands_do_what_the_client_does(std_daq: Rig, module: str, tmp_path: Path) -> None:
    at = ("-b", std_daq.url)
    (tmp_path / "config.json").write_text('{"bit_depth": 32}')
    assert answer(module, "set_config", str(tmp_path / "config.json"), *at)["bit_depth"] == 32
    assert answer(module, "write_async", "/data/run.h5", "7", *at)["acquisition"]["info"]["n_images"] == 7
    assert answer(module, "write_stop", *at)["acquisition"]["message"] == "Interrupted."
    assert len(answer(module, "get_logs", "-n", "3", STD_DAQ_API_URL=std_daq.url)) == 1


def test_our_own_take_the_documented_option_too(std_daq: Rig) -> None:
    for command, wanted in (
        ("get_status", std_daq.client.get_status()),
        ("get_config", std_daq.client.get_config()),
        ("get_stats", std_daq.client.get_stats()),
        ("get_deploy_status", std_daq.client.get_deployment_status()),
    ):
        assert answer(OURS, command, "--url_base", std_daq.url) == wanted


def test_a_synchronous_write_waits(std_daq: Rig) -> None:
    command = [sys.executable, "-c", CALL, OURS, "write_sync", "/data/run.h5", "2", "-b", std_daq.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        wait_until(lambda: std_daq.writer.busy, 15, "the start")
        assert process.poll() is None
        std_daq.writer.end()
        out, _ = process.communicate(timeout=15)
    assert json.loads(out)["acquisition"]["message"] == "Completed."


def test_mistakes_are_one_line(std_daq: Rig, tmp_path: Path) -> None:
    for arguments, reason in (
        (("write_async", "run.h5", "2", "-b", std_daq.url), "not absolute"),
        (("get_status", "-b", "http://127.0.0.1:9"), "cannot be asked"),
        (("get_status", "-b", "ftp://x"), "not an address"),
        (("get_status", "-b", std_daq.url + "/nothing"), "answers 404"),
        (("set_config", str(tmp_path / "none"), "-b", std_daq.url), "No such file"),
    ):
        done = run(OURS, *arguments)
        assert done.returncode == 1
        assert reason in done.stderr
        assert "Traceback" not in done.stderr
