"""A stream writer that is killed at any moment loses no closed file and no flushed image."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import cbor2
import h5py
import numpy as np
import pytest

from tests.jungfraujoch.sender import Sender, frame, image, payload, start, tagged

KILLS = 20
KILLS_OF_OTHERS = 6
"""Kills of writers that make other masters than the usual."""
PER_FILE = 50
IMAGES = 4000
PATTERNS = 100
"""After so many the pixels of `image` repeat."""
EXPECTED = [image(index) for index in range(PATTERNS)]


@pytest.fixture(scope="module")
def forge() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.jungfraujoch.writing_process"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture(scope="module")
def messages() -> list[bytes]:
    packed = [tagged(image(index), ("bslz4", payload(image(index)))) for index in range(PATTERNS)]
    images = [cbor2.dumps(frame(index, packed[index % PATTERNS])) for index in range(IMAGES)]
    return [cbor2.dumps(start(images=IMAGES, per_file=PER_FILE)), *images]


def write_and_kill(
    forge: subprocess.Popen[str],
    sender: Sender,
    messages: list[bytes],
    folder: Path,
    chance: random.Random,
    master: str = "legacy",
) -> tuple[int, int]:
    """Let a child write for a random time and kill it; return its flushed images and closed files."""
    assert forge.stdin is not None
    assert forge.stdout is not None
    forge.stdin.write(f"{sender.address} {folder} {master}\n")
    sender.send(*messages)  # waits for the connection
    safe = closed = pid = 0
    killer: threading.Timer | None = None
    for line in forge.stdout:
        word, _, number = line.strip().partition(" ")
        if word == "started":
            pid = int(number)
        elif word == "safe":
            safe = int(number)
            if killer is None:
                killer = threading.Timer(chance.uniform(0, 0.3), os.kill, (pid, signal.SIGKILL))
                killer.start()
        elif word == "closed":
            closed = int(number)
        elif word == "ended":
            break
    return safe, closed


@pytest.mark.parametrize("number", range(KILLS))
def test_a_kill_costs_nothing_that_was_flushed(
    forge: subprocess.Popen[str], messages: list[bytes], sender: Sender, tmp_path: Path, number: int
) -> None:
    safe, closed = write_and_kill(forge, sender, messages, tmp_path, random.Random(number))
    check_data_files(tmp_path, safe, closed)


@pytest.mark.parametrize("number", range(KILLS_OF_OTHERS))
def test_a_kill_costs_a_virtual_dataset_at_most_what_came_since_its_last_master(
    forge: subprocess.Popen[str], messages: list[bytes], sender: Sender, tmp_path: Path, number: int
) -> None:
    """The master is made anew every few seconds; the data files have everything."""
    safe, closed = write_and_kill(forge, sender, messages, tmp_path, random.Random(100 + number), "vds")
    check_data_files(tmp_path, safe, closed)
    with h5py.File(tmp_path / "run_master.h5", locking=False) as file:
        images = file["entry/data/data"][:safe]
    assert len(images) > 0
    for index, pixels in enumerate(images):
        np.testing.assert_array_equal(pixels, EXPECTED[index % PATTERNS])


@pytest.mark.parametrize("number", range(KILLS_OF_OTHERS))
def test_one_file_of_all_images_has_what_was_flushed(
    forge: subprocess.Popen[str], messages: list[bytes], sender: Sender, tmp_path: Path, number: int
) -> None:
    safe, _ = write_and_kill(forge, sender, messages, tmp_path, random.Random(200 + number), "integrated")
    assert safe > 0
    with h5py.File(tmp_path / "run_master.h5", locking=False) as file:
        images = file["entry/data/data"][:safe]
    assert len(images) == safe
    for index, pixels in enumerate(images):
        np.testing.assert_array_equal(pixels, EXPECTED[index % PATTERNS])


def check_data_files(folder: Path, safe: int, closed: int) -> None:
    """Compare all images that were flushed, in the files that hold them."""
    assert safe > 0
    found = 0
    for path in sorted(folder.glob("run_data_*.h5")):
        with h5py.File(path, locking=False) as file:
            rows, first = file["entry/data/data"], int(file["entry"].attrs["first_index"])
            assert file["entry"].attrs["finished"] == 1 or int(path.stem[-6:]) > closed
            assert len(rows) >= min(PER_FILE, max(0, safe - first))
            for row, pixels in enumerate(rows[: max(0, safe - first)]):
                np.testing.assert_array_equal(pixels, EXPECTED[(first + row) % PATTERNS])
            found += min(len(rows), max(0, safe - first))
    assert found == safe
