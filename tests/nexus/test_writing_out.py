"""Early writing to the disk: who looks at the file does not notice it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from sisockdaq.nexus import _writing_out
from sisockdaq.nexus._ordered_file import OrderedFile
from sisockdaq.nexus._writing_out import WriteOut
from sisockdaq.testing import wait_until

STEP = _writing_out._STEP


@pytest.fixture
def ordered(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, int]]]:
    """Offset and size of each order, which goes its way."""
    seen: list[tuple[int, int]] = []
    real: Any = _writing_out._order

    def note(fd: int, offset: int, size: int) -> None:
        seen.append((offset, size))
        real(fd, offset, size)

    monkeypatch.setattr(_writing_out, "_order", note)
    yield seen
    orders = _writing_out._orders()
    assert orders is not None
    wait_until(orders.empty, 30)


def test_new_ground_is_ordered_in_steps_and_pieces_of_the_structure_are_not(
    tmp_path: Path, ordered: list[tuple[int, int]]
) -> None:
    with (tmp_path / "file").open("wb") as file:
        file.truncate(4 * STEP)
        out = WriteOut(file.fileno())
        for number in range(10):
            out.wrote(number * STEP // 4, STEP // 4)
            out.wrote(40, 8)
    assert ordered == [(0, STEP), (STEP, STEP)]


def test_a_file_is_free_for_others_as_soon_as_it_is_closed(tmp_path: Path, ordered: list[tuple[int, int]]) -> None:
    path = tmp_path / "images.h5"
    images = np.random.default_rng(0).integers(0, 2**16, (40, 512, 1024), np.uint16)
    with OrderedFile(path) as file:
        data = file.hdf5.create_dataset("data", images.shape, "<u2", chunks=(1, 512, 1024))
        for number, image in enumerate(images):
            data.id.write_direct_chunk((number, 0, 0), image.tobytes())
    fd = os.open(path, os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(fd)
    assert len(ordered) == images.nbytes // STEP
    with h5py.File(path) as file:
        assert (file["data"][:] == images).all()


def test_what_finds_no_room_is_left_to_the_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_writing_out, "_orders", lambda: None)
    with (tmp_path / "file").open("wb") as file:
        out = WriteOut(file.fileno())
        for number in range(20):
            out.wrote(number * STEP, STEP)


def test_no_descriptor_stays_open(tmp_path: Path, ordered: list[tuple[int, int]]) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        out = WriteOut(file.fileno())
        for number in range(20):
            file.write(bytes(STEP // 16))
            out.wrote(number * STEP, STEP)
    assert len(ordered) == 20

    def held() -> bool:
        folder = Path("/proc/self/fd")
        return any(link.is_symlink() and str(path) == os.path.realpath(link) for link in folder.iterdir())

    wait_until(lambda: not held(), 30)
