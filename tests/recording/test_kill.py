"""A recorder that is killed at any moment loses nothing that it had flushed, and goes on where it was."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sisockdaq.nexus.archive import Archive
from sisockdaq.nexus.index import Index
from sisockdaq.recording.disk import Recording, last_recorded
from tests.recording.writing_process import START, block, text


@pytest.fixture(scope="module")
def forge() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.recording.writing_process"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


def write_and_kill(forge: subprocess.Popen[str], folder: Path, chance: random.Random) -> int:
    """Let a child record for a random time, kill it; return how many rows it said were flushed."""
    assert forge.stdin is not None
    assert forge.stdout is not None
    forge.stdin.write(f"{folder}\n")
    committed = pid = 0
    killer: threading.Timer | None = None
    for line in forge.stdout:
        word, _, number = line.strip().partition(" ")
        if word == "started":
            pid = int(number)
        elif word == "committed":
            committed = int(number)
            if killer is None and pid:
                killer = threading.Timer(chance.uniform(0, 0.3), os.kill, (pid, signal.SIGKILL))
                killer.start()
        elif word == "ended":
            break
    return committed


@pytest.mark.parametrize("number", range(8))
def test_a_kill_loses_nothing_that_was_flushed(forge: subprocess.Popen[str], tmp_path: Path, number: int) -> None:
    committed = write_and_kill(forge, tmp_path, random.Random(number))
    assert committed > 0
    archive = Archive(tmp_path, Index(None))
    archive.scan()
    status = archive.status()
    assert (status["files_broken"], status["files_growing"]) == (0, 0)
    samples = archive.get(["lab::x", "lab::s"], START, START + 1e9).samples
    rows = len(samples["lab::x"])
    assert rows >= committed
    assert samples["lab::x"].t.tolist() == [START + row for row in range(rows)]
    assert samples["lab::x"].values.tolist() == [row * 0.5 for row in range(rows)]
    assert samples["lab::s"].values.tolist() == [text(row) for row in range(len(samples["lab::s"]))]
    newest = last_recorded(tmp_path, "writer")
    assert newest["lab", "x"] == START + rows - 1
    # The next life goes on from there; what both have is served once.
    again = Recording(tmp_path, "writer")
    again.write([block(rows - 2, rows + 10)], START + 2e6)
    again.close(START + 2e6)
    archive.scan()
    assert len(archive.get(["lab::x"], START, START + 1e9).samples["lab::x"]) == rows + 10
    archive.close()
