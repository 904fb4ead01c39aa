"""What was committed is readable after every single write that follows, so at every moment a process can be killed."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from sisockdaq.errors import StorageError
from sisockdaq.nexus import _ordered_file
from sisockdaq.nexus._ordered_file import OrderedFile, storage_error
from sisockdaq.nexus.datafile import DataFile
from tests.nexus import data

FRAMES = 150
"""More than the 64 that one node of a chunk tree holds, so that nodes are split."""


class Recorder:
    """Every change that a file sees, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.changes: list[tuple[str, int, bytes]] = []
        pwrite, ftruncate = os.pwrite, os.ftruncate

        def record_write(fd: int, buffer: Any, offset: int) -> int:
            self.changes.append(("write", offset, bytes(buffer)))
            return pwrite(fd, buffer, offset)

        def record_truncate(fd: int, length: int) -> None:
            self.changes.append(("truncate", length, b""))
            ftruncate(fd, length)

        monkeypatch.setattr(_ordered_file.os, "pwrite", record_write)
        monkeypatch.setattr(_ordered_file.os, "ftruncate", record_truncate)


def apply(content: bytearray, change: tuple[str, int, bytes]) -> None:
    kind, position, piece = change
    if kind == "truncate":
        del content[position:]
        content.extend(bytes(position - len(content)))
        return
    content.extend(bytes(max(0, position - len(content))))
    content[position : position + len(piece)] = piece


def assert_rows_whole(path: Path, rows: int) -> None:
    with h5py.File(path, "r") as file:
        images = file["/entry/data/data"]
        times = file["/entry/series/receiver/time"]
        curves = file["/entry/series/integrator/curve"]
        assert len(images) >= rows
        assert len(times) >= rows
        assert len(curves) >= rows
        np.testing.assert_array_equal(times[:rows], [data.frame_time(row) for row in range(rows)])
        for row, curve in enumerate(curves[:rows]):
            np.testing.assert_array_equal(curve, data.results(row)[: data.BINS])
        for row in {0, rows // 2, rows - 1, max(0, rows - 30)} if rows else ():
            np.testing.assert_array_equal(images[row], data.image(row))


@pytest.mark.parametrize("commit_every", [7, 90])
def test_every_moment_leaves_the_committed_rows_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, commit_every: int
) -> None:
    recorder = Recorder(monkeypatch)
    committed: list[tuple[int, int]] = []
    file = DataFile(tmp_path / "run_data_000001.h5", data.plan(400), "run", 1)
    committed.append((len(recorder.changes), 0))
    for index in range(FRAMES):
        file.write_image(
            index, data.payload(index), data.header(index, lost=index % 3 == 0), np.array([254, 255], "u1")
        )
        file.write_results("integrator", index, data.frame_time(index), data.results(index))
        if index % commit_every == commit_every - 1:
            file.commit()
            committed.append((len(recorder.changes), index + 1))
    file.close()
    monkeypatch.undo()

    copy, content, rows = tmp_path / "copy.h5", bytearray(), 0
    phases = dict(committed)
    for position, change in enumerate(recorder.changes, 1):
        apply(content, change)
        rows = phases.get(position, rows)
        is_bare_chunk = change[0] == "write" and len(change[2]) < 300 and position not in phases
        if position >= committed[0][0] and not (is_bare_chunk and position % 10):
            copy.write_bytes(content)
            assert_rows_whole(copy, rows)
    copy.write_bytes(content)
    assert_rows_whole(copy, FRAMES)
    assert bytes(content) == (tmp_path / "run_data_000001.h5").read_bytes()


@pytest.mark.parametrize("commit_every", [7, 40])
def test_a_file_goes_on_after_its_writer_died_at_any_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, commit_every: int
) -> None:
    recorder = Recorder(monkeypatch)
    path = tmp_path / "run_data_000001.h5"
    file = DataFile(path, data.plan(400), "run", 1)
    made, rows = len(recorder.changes), 0
    committed = {made: 0}
    for index in range(FRAMES):
        write(file, index)
        if index % commit_every == commit_every - 1:
            file.commit()
            committed[len(recorder.changes)] = index + 1
    file.abandon()
    changes = list(recorder.changes)
    moments = [moment for moment in range(made, len(changes)) if moment % 23 == 0 or moment in committed]
    copy, content, position = tmp_path / "copy.h5", bytearray(), 0
    for moment in moments:
        for change in changes[position:moment]:
            apply(content, change)
        position = moment
        rows = max(count for at, count in committed.items() if at <= moment)
        copy.write_bytes(content)
        again = DataFile(copy, data.plan(400), "run", 1, resume=True)
        assert again.rows >= again.images >= rows
        for index in range(rows, rows + 90):
            write(again, index)
            if index % 50 == 0:
                again.commit()
        again.close()
        assert_rows_whole(copy, rows + 90)


def write(file: DataFile, index: int) -> None:
    file.write_image(index, data.payload(index), data.header(index, lost=index % 3 == 0), np.array([254, 255], "u1"))
    file.write_results("integrator", index, data.frame_time(index), data.results(index))


def test_the_superblock_is_the_old_one_that_xds_readers_open(tmp_path: Path) -> None:
    DataFile(tmp_path / "a_data_000001.h5", data.plan(), "a", 1).close()
    content = (tmp_path / "a_data_000001.h5").read_bytes()
    assert content[:8] == b"\x89HDF\r\n\x1a\n"
    assert content[8] == 0


def test_a_reader_may_open_a_file_that_is_being_written_and_a_second_writer_may_not(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with OrderedFile(path) as file:
        file.hdf5["x"] = 1.0
        file.commit()
        with h5py.File(path, "r") as reader:
            assert reader["x"][()] == 1.0
        with pytest.raises(OSError, match="lock"):
            h5py.File(path, "r+")


def test_an_existing_file_is_refused_unless_overwriting_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    path.write_bytes(b"precious")
    with pytest.raises(StorageError, match="exists"):
        OrderedFile(path)
    assert path.read_bytes() == b"precious"
    with OrderedFile(path, overwrite=True) as file:
        file.hdf5["x"] = 1.0
    with h5py.File(path) as reader:
        assert reader["x"][()] == 1.0


def test_no_half_made_file_is_ever_seen(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    file = OrderedFile(path)
    file.hdf5["x"] = 1.0
    assert not path.exists()
    with pytest.raises(StorageError, match="another program"):
        OrderedFile(path)
    file.commit()
    assert [each.name for each in tmp_path.iterdir()] == ["a.h5"]
    file.close()
    OrderedFile(tmp_path / "b.h5").abandon()
    assert [each.name for each in tmp_path.iterdir()] == ["a.h5"]


def test_what_a_dead_writer_left_unfinished_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / ".a.h5.part").write_bytes(b"old")
    with OrderedFile(tmp_path / "a.h5") as file:
        file.hdf5["x"] = 1.0
    assert [each.name for each in tmp_path.iterdir()] == ["a.h5"]


def test_a_file_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    file = OrderedFile(tmp_path / "a.h5")
    (tmp_path / "a.h5").write_bytes(b"precious")
    with pytest.raises(StorageError, match="exists"):
        file.commit()
    file.abandon()
    assert (tmp_path / "a.h5").read_bytes() == b"precious"
    assert [each.name for each in tmp_path.iterdir()] == ["a.h5"]


def test_a_full_disk_is_named_and_the_committed_rows_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run_data_000001.h5"
    file = DataFile(path, data.plan(100), "run", 1)
    for index in range(10):
        file.write_image(index, data.payload(index), data.header(index))
        file.write_results("integrator", index, data.frame_time(index), data.results(index))
    file.commit()
    file.write_image(10, data.payload(10), data.header(10))

    def refuse(fd: int, buffer: Any, offset: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(_ordered_file.os, "pwrite", refuse)
    with pytest.raises(StorageError, match="no space left for run_data_000001"):
        file.write_image(11, data.payload(11), data.header(11))
    with pytest.raises(StorageError, match="no space left"):
        file.close()
    file.abandon()
    assert file.images == 10
    assert_rows_whole(path, 10)


@pytest.mark.parametrize("refused", range(1, 14, 2))
def test_a_commit_that_the_disk_cut_short_can_be_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: int
) -> None:
    path, count = tmp_path / "run_data_000001.h5", 0
    file = DataFile(path, data.plan(400), "run", 1)
    for index in range(FRAMES):
        write(file, index)
    pwrite = os.pwrite

    def refuse_one(fd: int, buffer: Any, offset: int) -> int:
        nonlocal count
        count += 1
        if count == refused:
            raise OSError(errno.ENOSPC, "No space left on device")
        return pwrite(fd, buffer, offset)

    monkeypatch.setattr(_ordered_file.os, "pwrite", refuse_one)
    with pytest.raises(StorageError, match="no space left"):
        file.commit()
    file.close()
    assert_rows_whole(path, FRAMES)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "no space left"),
        (errno.EDQUOT, "no space left"),
        (errno.EFBIG, "largest file size"),
        (errno.EACCES, "not writable"),
        (errno.EEXIST, "exists"),
        (errno.EIO, "cannot be written"),
    ],
)
def test_the_kernels_reason_becomes_a_sentence(code: int, words: str) -> None:
    assert words in str(storage_error(OSError(code, os.strerror(code)), Path("/data/run.h5")))
