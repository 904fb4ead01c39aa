"""The index of one file: any interval as reading everything would answer it, whatever happened to the file."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sisockdaq.errors import FileUnreadable
from sisockdaq.textfiles import Form, TextFile
from sisockdaq.textfiles import file as module
from sisockdaq.textfiles.cache import BlockCache

COUNTER = iter(range(1, 10**9))


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a few lines, so that small files have many."""
    monkeypatch.setattr(module, "BLOCK_BYTES", 64)


def opened(path: Path, form: Form | None = None, cache_bytes: int = 1 << 20) -> TextFile:
    file = TextFile(path, form or Form(), BlockCache(cache_bytes))
    file.update()
    return file


def write(path: Path, text: str, *, mode: str = "w", age: float = 0.0) -> None:
    """Write so that the time of change differs from any before, as it does where writes are not a microsecond apart."""
    with path.open(mode) as stream:
        stream.write(text)
    now = time.time_ns() - int(age * 1e9) + next(COUNTER) * 1000
    os.utime(path, ns=(now, now))


def rows(file: TextFile, start: float = -1e18, end: float = 1e18) -> list[tuple[float, float]]:
    return [pair for t, v in file.read(start, end) for pair in zip(t.tolist(), v.tolist(), strict=True)]


def lines(samples: list[tuple[int, int]]) -> str:
    return "".join(f"{t} {value}\n" for t, value in samples)


samples_lists = st.lists(st.tuples(st.integers(-50, 50), st.integers(0, 9999)), max_size=60)
steps = st.lists(st.tuples(st.sampled_from(["append", "replace", "rewrite", "truncate"]), samples_lists), max_size=4)


@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(samples_lists, steps, st.integers(-60, 60), st.integers(0, 60), st.sampled_from([0, 200, 1 << 20]))
def test_any_interval_of_any_file_after_any_change(
    small_blocks: None, tmp_path: Path, first: Any, changes: Any, start: int, width: int, cache_bytes: int
) -> None:
    path = tmp_path / "f.dat"
    write(path, lines(first))
    file = opened(path, cache_bytes=cache_bytes)
    expected = list(first)

    def check() -> None:
        file.update()
        inside = [(float(t), float(v)) for t, v in expected if start <= t < start + width]
        assert rows(file, start, start + width) == inside
        assert file.span == ((min(expected)[0], max(t for t, _ in expected)) if expected else None)
        assert sum(block.rows for block in file.blocks) == len(expected)

    check()
    for kind, samples in changes:
        if kind == "append":
            expected += samples
            write(path, lines(samples), mode="a")
        elif kind == "replace":
            expected = list(samples)
            write(tmp_path / "new", lines(samples))
            (tmp_path / "new").replace(path)
        else:
            expected = expected[: len(expected) // 2] if kind == "truncate" else list(samples)
            write(path, lines(expected))
        check()


def test_a_file_is_read_once_and_then_by_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f.dat"
    n = 100_000
    write(path, "".join(f"{1_500_000_000 + i} {i % 977}\n" for i in range(n)))
    read: list[int] = []
    real = os.pread

    def counting(fd: int, size: int, offset: int) -> bytes:
        data = real(fd, size, offset)
        read.append(len(data))
        return data

    monkeypatch.setattr(os, "pread", counting)
    file = opened(path, cache_bytes=0)
    size = path.stat().st_size
    assert size <= sum(read) < size + 4096
    read.clear()
    assert len(rows(file, 1_500_050_000, 1_500_050_100)) == 100
    assert sum(read) <= 2 * module.BLOCK_BYTES
    read.clear()
    file.update()
    assert read == []  # nothing changed: nothing is opened
    write(path, "1500200000 5\n", mode="a")
    file.update()
    assert sum(read) <= module.BLOCK_BYTES + 1024
    assert rows(file, 1_500_200_000) == [(1_500_200_000.0, 5.0)]
    cached = opened(path, cache_bytes=1 << 24)
    read.clear()
    assert len(rows(cached)) == n + 1
    assert read == []  # still decoded from the making of the index


def test_what_is_appended_over_the_beginning_of_another_text_is_noticed(small_blocks: None, tmp_path: Path) -> None:
    path = tmp_path / "f.dat"
    write(path, lines([(i, i) for i in range(40)]))
    file = opened(path)
    inode = path.stat().st_ino
    write(path, lines([(i, 7) for i in range(100, 180)]))  # longer than before, the same inode
    assert path.stat().st_ino == inode
    file.update()
    assert rows(file) == [(float(i), 7.0) for i in range(100, 180)]


def test_a_line_in_the_making(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f.dat"
    write(path, "1 10\n2 20\n3 3", age=3600)
    file = opened(path)  # a file that nobody ended properly
    assert rows(file) == [(1, 10), (2, 20), (3, 3)]
    assert file.final_until == 2.0  # it may still become another number
    assert [pair for t, _ in file.read(0, 9, provisional=False) for pair in t.tolist()] == [1.0, 2.0]
    write(path, "5\n4 4", mode="a")
    file.update()
    assert rows(file) == [(1, 10), (2, 20), (3, 35)]  # it grows: what has no end is not taken
    monkeypatch.setattr(module, "REST", 0.0)
    monkeypatch.setattr(module.time, "time", lambda: time.time_ns() / 1e9 + 10)
    assert file.update()
    assert rows(file)[-1] == (4, 4)
    assert not file.update()
    write(path, "0\n", mode="a")
    file.update()
    assert rows(file)[-1] == (4, 40)


def test_a_torn_time_is_no_row(tmp_path: Path) -> None:
    path = tmp_path / "f.dat"
    write(path, "1500000000 1\n1500000060 2\n15000001 2", age=3600)
    assert len(rows(opened(path))) == 2


def test_header_broken_lines_repeats_and_lateness(small_blocks: None, tmp_path: Path) -> None:
    path = tmp_path / "f.dat"
    write(path, "# Wind.\n#  minutely\n# km/h\n10 1\n20 2\n20 3\noops\n15 4\n30 nan\n")
    file = opened(path)
    assert file.header == ["Wind.", "minutely", "km/h"]
    assert file.counts == (1, 1)
    assert file.first_broken == "oops"
    assert file.final_until == 30 - 5  # a row once came 5 s late, so another may
    write(path, "wrong too\n40 1\n", mode="a")
    file.update()
    assert file.counts == (2, 1)
    assert file.first_broken == "oops"


def test_forms(tmp_path: Path) -> None:
    path = tmp_path / "f.dat"
    form = Form(header_lines=1, skip_nan=True, to_unix=lambda t: t * 10)
    write(path, "7 8\n1 NaN\n\n2 5\n")
    file = opened(path, form)
    assert rows(file) == [(20.0, 5.0)]
    assert file.counts == (0, 0)


def test_no_text_at_all(tmp_path: Path) -> None:
    path = tmp_path / "f.dat"
    path.write_bytes(bytes(range(11, 256)) * 3000)
    file = opened(path)
    assert rows(file) == []
    assert file.counts[0] >= 1
    path.write_bytes(b"")
    file.update()
    assert (file.span, file.final_until, file.blocks) == (None, None, ())


def test_a_file_that_cannot_be_read_is_named_and_read_when_it_can(tmp_path: Path) -> None:
    path = tmp_path / "f.dat"
    file = TextFile(path, Form(), BlockCache(0))
    with pytest.raises(FileUnreadable, match=r"f\.dat cannot be read: No such file"):
        file.update()
    write(path, "1 2\n")
    file.update()
    assert rows(file) == [(1, 2)]
    path.unlink()
    path.mkdir()
    with pytest.raises(FileUnreadable, match="directory"):
        file.update()
    assert not file.known


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Any]:
    """A thread, to be started, that appends rows ``i i``."""
    path = tmp_path / "growing.dat"
    path.touch()
    count = 5000

    def run() -> None:
        with path.open("ab", buffering=0) as stream:
            for i in range(count):
                text = f"{i} {i}\n".encode()
                stream.write(text[: i % 4])  # torn, most of the time
                stream.write(text[i % 4 :])

    thread = threading.Thread(target=run)
    yield path, count, thread
    thread.join()


def test_readers_in_many_threads_see_a_growing_file_right(small_blocks: None, writer: Any) -> None:
    path, count, thread = writer
    file = opened(path, cache_bytes=4096)  # empty yet: at first sight a torn line could not be told from a whole one
    thread.start()
    wrong: list[Any] = []

    def ask() -> None:
        while thread.is_alive():
            file.update()
            found = rows(file)
            if found != [(float(i), float(i)) for i in range(len(found))]:
                wrong.append(found)

    asking = [threading.Thread(target=ask) for _ in range(3)]
    for each in asking:
        each.start()
    for each in asking:
        each.join(60)
    thread.join()
    file.update()
    assert not wrong
    assert len(rows(file)) == count
