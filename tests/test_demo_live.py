"""The demonstration in a terminal: the table comes up, and Ctrl-C leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pexpect
import psutil
import pytest

from sisockdaq.cli._trial import free_udp_ports
from sisockdaq.router import free_port
from sisockdaq.testing.waiting import wait_until

pytestmark = pytest.mark.timeout(180)

READY = 90


def arguments(name: str) -> list[str]:
    first, second = free_udp_ports(2)
    ports = f"nodes.receiver.udp=[{{port: {first}}}, {{port: {second}}}]"
    sets = [f"site={name}", f"router.port={free_port()}", ports]
    return ["-m", "sisockdaq.cli", "demo", "--frames", "50", *(part for text in sets for part in ("--set", text))]


def members(state: Path) -> list[psutil.Process]:
    """All processes that run with this state directory."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("SISOCKDAQ_STATE") == str(state) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_the_table_comes_up_and_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    before = set(Path("/dev/shm").iterdir())
    environment = {**os.environ, "SISOCKDAQ_STATE": str(tmp_path)}
    shown = pexpect.spawn(
        sys.executable, arguments("live"), env=environment, dimensions=(40, 120), encoding="utf-8", timeout=READY
    )
    shown.expect("receiver +detector_receiver +up")
    shown.expect("frames/s")
    shown.expect("run_0001: 50 of 50")
    assert {process.name() for process in members(tmp_path)}
    shown.sendintr()
    shown.expect("stopping")
    shown.expect(pexpect.EOF)
    shown.close()
    assert (shown.exitstatus, shown.signalstatus) == (0, None)
    assert members(tmp_path) == []
    # Of this site nothing stays; what another program has there comes and goes.
    wait_until(lambda: set(Path("/dev/shm").iterdir()) <= before, 60.0, "nothing left in /dev/shm")
    assert not list(tmp_path.glob("live/run/*.sock"))


def test_json_lines_without_a_terminal_and_nothing_left_after_a_kill(tmp_path: Path) -> None:
    environment = {**os.environ, "SISOCKDAQ_STATE": str(tmp_path)}
    command = [sys.executable, *arguments("killed"), "--json"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(json.loads(line))
            if "ready" in lines[-1]:
                break
        assert lines[0]["site"] == "killed"
        up = {line["part"] for line in lines if line.get("state") == "up"}
        assert up == {"router", "hub", "receiver", "integrator", "writer", "archive", "simulator"}
        process.send_signal(signal.SIGKILL)
        process.wait()
        wait_until(lambda: not members(tmp_path), 20.0, "every part ends after its supervisor was killed")
