"""A writer that was killed and is started again: what it says of the rest of the series, and of the files there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from sisockdaq.errors import AcquisitionRefused
from sisockdaq.jungfraujoch.folder import prepare_folder
from sisockdaq.testing import wait_until
from tests.jungfraujoch.conftest import StartWriter, finished, images_of
from tests.jungfraujoch.sender import Sender, frame, image, start

BEFORE = 6


@pytest.fixture
def killed(sender: Sender, tmp_path: Path) -> Path:
    """The folder of a writer that was killed after six flushed images of a hundred, four a file."""
    command = [sys.executable, "-m", "tests.jungfraujoch.writing_process"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{sender.address} {tmp_path} legacy\n")
        child = int(process.stdout.readline().split()[1])
        try:
            sender.send(start(images=100), *(frame(index) for index in range(BEFORE)))
            while (line := process.stdout.readline()) and line.split() != ["safe", str(BEFORE)]:
                pass
            with pytest.raises(AcquisitionRefused, match="open in another program"):
                prepare_folder(tmp_path, "run", overwrite=True, shared=False)
        finally:
            os.kill(child, signal.SIGKILL)
            process.stdin.close()
    return tmp_path


def test_the_rest_of_the_series_is_not_taken_and_the_next_one_is(
    killed: Path, sender: Sender, start_writer: StartWriter
) -> None:
    writer = start_writer()
    sender.send(*(frame(index) for index in range(BEFORE, 10)))
    wait_until(lambda: writer.status()["messages"]["strays"] == 4)
    wait_until(lambda: "4 images came" in writer.status()["desynchronised_by"])
    assert "the writer was started in the middle of it" in writer.status()["desynchronised_by"]
    np.testing.assert_array_equal(_flushed(killed), [image(index) for index in range(BEFORE)])
    sender.run(range(5), prefix="next")
    assert finished(writer, "next")["message"] == "Completed."
    assert writer.status()["synchronised"]


def test_the_same_prefix_is_refused_with_what_is_there_and_what_to_do(
    killed: Path, sender: Sender, start_writer: StartWriter
) -> None:
    writer = start_writer()
    sender.run(range(5))
    message = wait_until(lambda: writer.status()["messages"]["series_refused"] and writer.status()["message"])
    for part in ("run_", "left by a writer that died", "can be read", "another file_prefix", "--overwrite"):
        assert part in message
    np.testing.assert_array_equal(_flushed(killed), [image(index) for index in range(BEFORE)])


def test_files_of_a_dead_writer_give_way_where_that_is_wanted(
    killed: Path, sender: Sender, start_writer: StartWriter
) -> None:
    writer = start_writer(overwrite=True)
    sender.run(range(5))
    assert finished(writer)["message"] == "Completed."
    np.testing.assert_array_equal(images_of(killed), [image(index) for index in range(5)])


def test_a_whole_series_is_not_called_unfinished(sender: Sender, start_writer: StartWriter) -> None:
    writer = start_writer()
    sender.run(range(5))
    finished(writer)
    sender.run(range(5))
    message = wait_until(lambda: writer.status()["messages"]["series_refused"] and writer.status()["message"])
    assert "exists in" in message
    assert "died" not in message


def _flushed(folder: Path) -> np.ndarray:
    rows = []
    for path in sorted(folder.glob("run_data_*.h5")):
        with h5py.File(path, locking=False) as file:
            rows.append(file["entry/data/data"][()])
    return np.concatenate(rows)
