"""A writer that is killed at any moment loses no closed file and no committed frame."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sisockdaq.nexus.reader import DataFileReader, file_state, read_master
from tests.nexus import data
from tests.nexus.writing_process import IMAGES_PER_FILE

KILLS = 20


@pytest.fixture(scope="module")
def forge() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.nexus.writing_process"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


def write_and_kill(forge: subprocess.Popen[str], folder: Path, chance: random.Random) -> tuple[int, int]:
    """Let a child write for a random time, kill it; return its committed frames and closed files."""
    assert forge.stdin is not None
    assert forge.stdout is not None
    forge.stdin.write(f"{folder}\n")
    committed = closed = 0
    killer: threading.Timer | None = None
    pid = 0
    for line in forge.stdout:
        word, _, number = line.strip().partition(" ")
        if word == "started":
            pid = int(number)
        elif word == "committed":
            committed = int(number)
            if killer is None and pid:
                killer = threading.Timer(chance.uniform(0, 0.12), os.kill, (pid, signal.SIGKILL))
                killer.start()
        elif word == "closed":
            closed = int(number)
        elif word == "ended":
            break
    return committed, closed


@pytest.mark.parametrize("number", range(KILLS))
def test_a_kill_leaves_closed_files_whole_and_the_open_one_readable(
    forge: subprocess.Popen[str], tmp_path: Path, number: int
) -> None:
    committed, closed = write_and_kill(forge, tmp_path, random.Random(number))
    assert committed > 0
    master = read_master(tmp_path / "run_master.h5")
    assert len(master.files) >= closed
    index = 0
    for name in sorted(path.name for path in tmp_path.glob("run_data_*.h5")):
        with DataFileReader(tmp_path / name) as file:
            summary = file.summary()
            expected = min(IMAGES_PER_FILE, max(0, committed - index))
            assert summary.rows >= expected
            assert summary.finished or summary.number > closed
            assert file_state(tmp_path / name, finished=summary.finished) in ("finished", "left")
            times, curves = file.times("receiver"), file.series("integrator", "curve")
            for row in range(expected):
                assert times[row] == data.frame_time(index + row)
                np.testing.assert_array_equal(curves[row], data.results(index + row)[: data.BINS])
            for row in range(expected):
                np.testing.assert_array_equal(file.image(row), data.image(0))
        index += IMAGES_PER_FILE
    assert index >= committed


def test_a_file_size_limit_of_the_system_ends_a_real_write(tmp_path: Path) -> None:
    """The kernel itself refuses (EFBIG), not a stand-in: what was committed is whole."""
    code = f"""
import resource, signal, sys
from pathlib import Path
from sisockdaq.errors import StorageError
from sisockdaq.nexus.datafile import DataFile
from tests.nexus import data
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({400_000}, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
file = DataFile(Path({str(tmp_path)!r}) / "run_data_000001.h5", data.plan(2000), "run", 1)
try:
    for index in range(2000):
        file.write_image(index, data.payload(index), data.header(index))
        file.write_results("integrator", index, data.frame_time(index), data.results(index))
        if index % 10 == 9:
            file.commit()
except StorageError as error:
    file.abandon()
    print(file.images, error)
"""
    assert resource.RLIMIT_FSIZE is not None
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    committed, _, reason = done.stdout.strip().partition(" ")
    assert "largest file size" in reason
    with DataFileReader(tmp_path / "run_data_000001.h5") as file:
        assert file.summary().rows >= int(committed) > 0
        for row in range(int(committed)):
            np.testing.assert_array_equal(file.image(row), data.image(row))
            assert file.times("integrator")[row] == data.frame_time(row)
