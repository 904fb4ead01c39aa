"""What goes into series files comes out again: every type, every order, every prefix of what was written."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sisockdaq.errors import FileUnreadable, StorageError
from sisockdaq.nexus import _ordered_file
from sisockdaq.nexus.archive import Archive
from sisockdaq.nexus.index import Index
from sisockdaq.nexus.series_file import SeriesFile, is_series_file, series_name
from sisockdaq.nexus.series_plan import TablePlan, link_name, name_of_link, plan_for
from sisockdaq.nexus.series_reader import SeriesFileReader
from sisockdaq.recording.disk import Recording, last_recorded
from sisockdaq.recording.structure import Block
from sisockdaq.schema import SEPARATOR
from tests.nexus.series import ENTRIES, block, blocks
from tests.nexus.test_ordered_file import Recorder, apply

START = 1_700_000_000.0


def expected(written: Sequence[Block]) -> dict[str, tuple[list[float], list[Any]]]:
    """Return times and values by full name."""
    found: dict[str, tuple[list[float], list[Any]]] = {}
    for each in written:
        for name, values in each.data.items():
            t, items = found.setdefault(f"{each.node}{SEPARATOR}{name}", ([], []))
            t += each.t.tolist()
            items += list(values)
    return found


def assert_served(archive: Archive, written: Sequence[Block]) -> None:
    wanted = expected(written)
    assert set(archive.fields().fields) == set(wanted)
    reply = archive.get(list(wanted), 1.0, START + 1e6)
    assert (reply.unknown, reply.problems) == ([], [])
    for name, (t, items) in wanted.items():
        samples, field = reply.samples[name], name.partition(SEPARATOR)[2]
        np.testing.assert_array_equal(samples.t, t)
        assert samples.finalized_until is not None
        assert samples.finalized_until >= t[-1]
        if ENTRIES[field].type == "string":
            assert samples.values.tolist() == items
        else:
            np.testing.assert_array_equal(samples.values, np.array(items))
        listed = archive.fields().fields[name]
        assert (listed.type, listed.units, listed.description) == (
            ENTRIES[field].type, ENTRIES[field].units, ENTRIES[field].description
        )  # fmt: skip
        assert listed.axes == ENTRIES[field].axes


@settings(max_examples=10, deadline=None)
@given(written=blocks(), flushes=st.lists(st.booleans(), min_size=8, max_size=8))
def test_what_is_written_is_served_while_it_grows_and_afterwards(written: list[Block], flushes: list[bool]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, index = Path(name), Index(None)
        recording = Recording(folder, "writer", settle=0.0)
        archive = Archive(folder, index)
        waiting: list[Block] = []
        for number, (each, flush) in enumerate(zip(written, itertools.cycle(flushes), strict=False)):
            waiting.append(each)
            if flush:
                recording.write(waiting, START + number)
                waiting = []
                archive.scan()
                archive.refresh()
        assert recording.write(waiting, START + 100) >= 0
        archive.scan()
        archive.refresh()
        assert_served(archive, written)
        assert recording.samples == sum(each.samples for each in written)
        newest = last_recorded(folder, "writer")
        assert {f"{n}{SEPARATOR}{f}": t for (n, f), t in newest.items()} == {
            full: t[-1] for full, (t, _) in expected(written).items()
        }
        recording.close(START + 101)
        archive.refresh()
        assert_served(archive, written)
        assert archive.status()["files_growing"] == 0
        fresh = Archive(folder, Index(None))
        fresh.scan()
        assert_served(fresh, written)
        for each in (archive, fresh):
            each.close()


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_name_can_be_a_link(name: str) -> None:
    link = link_name(name)
    assert name_of_link(link) == name
    assert link
    assert "/" not in link
    assert link not in (".", "..")


def test_the_layout_is_what_nexus_readers_expect(tmp_path: Path) -> None:
    recording = Recording(tmp_path, "writer")
    fast = block(["voltage", "a/b %2F."], [START, START + 1], {"voltage": [1.5, 2.5], "a/b %2F.": [3, 4]})
    slow = block(["state", "curve"], [START], {"state": ["grün"], "curve": [[1, 2, 3]]})
    recording.write([fast, slow], START)
    recording.close(START)
    (path,) = tmp_path.rglob("*.h5")
    assert path == tmp_path / "series" / "2023-11-14" / "writer_series_20231114T221320.000000Z.h5"
    assert is_series_file(path.name)
    with h5py.File(path) as hdf5:
        log = hdf5["entry/series/lab/voltage"]
        assert log.attrs["NX_class"] == b"NXlog"
        assert log["time"].attrs["start"] == b"1970-01-01T00:00:00Z"
        assert log["time"].attrs["units"] == b"s"
        assert log["time"][()].tolist() == [START, START + 1]
        assert log["value"].attrs["units"] == b"V"
        assert log["value"].attrs["description"].decode() == "Höhe / 1"
        assert log["time"] == hdf5["entry/series/lab/a%2Fb %252F./time"]
        assert hdf5["entry/series/lab/state/value"].asstr()[()].tolist() == ["grün"]
        assert hdf5["entry/series/lab/curve/axis_0"][()].tolist() == [1, 2, 3]
        assert hdf5["entry"].attrs["finished"] == 1


def test_names_sort_by_time() -> None:
    times = [0.0, 999_999_999.5, 1e9, 1_700_000_000.25, 1_700_000_000.5]
    names = [series_name("w", t) for t in times]
    assert names == sorted(names)


def test_every_prefix_of_what_was_written_is_readable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the process dies between any two writes, what was committed before is there."""
    changes = Recorder(monkeypatch)
    entry = {"x": ENTRIES["voltage"], "s": ENTRIES["state"]}
    first = {"x": np.array([0.0]), "s": np.array(["a"], dtype=object)}
    tables = [TablePlan("lab", "t", tuple(plan_for(name, entry[name], values) for name, values in first.items()))] * 1
    file = SeriesFile(tmp_path / "w_series.h5", tables, "w", started=START)
    marks = []
    for row in range(0, 210, 7):
        t = START + np.arange(row, row + 7)
        texts = np.array([f"nº {i}" for i in range(row, row + 7)], dtype=object)
        file.append(0, t, {"x": np.arange(row, row + 7.0), "s": texts})
        file.commit()
        marks.append((len(changes.changes), row + 7))
    file.close()
    content, rows, copy = bytearray(), 0, tmp_path / "copy.h5"
    begun = marks[0][0]
    for number, change in enumerate(changes.changes, 1):
        apply(content, change)
        rows = next((rows for mark, rows in marks if mark == number), rows)
        if number < begun or (number % 3 and number not in dict(marks)):
            continue
        copy.write_bytes(content)
        with SeriesFileReader(copy) as reader:
            have = reader.rows("lab", "x")
            assert have >= rows
            assert reader.rows("lab", "s") >= rows
            assert reader.times(0)[:have].tolist() == [START + i for i in range(have)]
            assert reader.values("lab", "x", 0, have).tolist() == list(range(have))
            have = reader.rows("lab", "s")
            assert reader.values("lab", "s", 0, have).tolist() == [f"nº {i}" for i in range(have)]


def test_samples_that_came_late_or_twice_are_put_in_order(tmp_path: Path) -> None:
    recording = Recording(tmp_path, "writer")
    for t, v in ((5.0, 5.0), (6.0, 6.0), (4.0, 4.0), (6.0, 66.0)):
        recording.write([block(["voltage"], [START + t], {"voltage": [v]})], START)
    archive = Archive(tmp_path, Index(None))
    archive.scan()
    samples = archive.get(["lab::voltage"], START, START + 10).samples["lab::voltage"]
    assert samples.t.tolist() == [START + 4, START + 5, START + 6]
    assert samples.values.tolist() == [4.0, 5.0, 66.0]
    assert samples.finalized_until == START + 6
    recording.close(START)
    archive.close()


def test_a_growing_file_costs_only_its_new_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recording, archive = Recording(tmp_path, "writer"), Archive(tmp_path, Index(None))
    recording.write([block(["voltage"], [START], {"voltage": [0.0]})], START)
    archive.scan()
    monkeypatch.setattr(SeriesFileReader, "summary", lambda _: pytest.fail("the whole file was read again"))
    for row in range(1, 5):
        recording.write([block(["voltage"], [START + row], {"voltage": [1.0 * row]})], START)
        assert archive.refresh() == 1
        samples = archive.get(["lab::voltage"], START, START + 10).samples["lab::voltage"]
        assert samples.values.tolist() == list(range(row + 1))
    recording.close(START)
    archive.refresh()
    assert archive.refresh() == 0
    archive.close()


def test_many_files_are_opened_once_each_and_few_at_a_time(tmp_path: Path) -> None:
    recording = Recording(tmp_path, "writer", file_length=1.0)
    for row in range(100):
        items = {"voltage": [1e6 if row == 37 else 1.0 * row], "count": [row]}
        recording.write([block(["voltage", "count"], [START + row], items)], START + row)
    recording.close(START + 100)
    archive = Archive(tmp_path, Index(None))
    assert archive.scan() == 100
    for limits in ({"max_points": 20}, {"min_stride": 5.0}):
        reply = archive.get(["lab::voltage", "lab::count"], START, START + 200, **limits)
        assert len(reply.samples["lab::voltage"]) <= 21
        assert 1e6 in reply.samples["lab::voltage"].values  # a spike of one sample
    assert len(archive.pool._places) <= 64
    whole = archive.get(["lab::voltage", "lab::count"], START + 10, START + 90).samples
    assert whole["lab::count"].values.tolist() == list(range(10, 90))
    assert archive.fields(START + 50, START + 60).timelines["lab::fast"].fields == ("lab::voltage", "lab::count")
    assert archive.fields(START - 60, START - 50).fields == {}
    shutil.rmtree(tmp_path / "series")
    archive.scan()
    assert archive.fields().fields == {}
    archive.close()


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / series_name("w", START)).write_bytes(b"x" * 1000)
    with h5py.File(tmp_path / series_name("w", START + 1), "w") as hdf5:
        hdf5.create_group("entry").attrs["format"] = 99
    archive = Archive(tmp_path, Index(None))
    archive.scan()
    assert archive.status()["files_broken"] == 2
    assert any("of format 99" in reason for reason in archive.status()["problems"].values())
    with pytest.raises(FileUnreadable, match="does not exist"):
        SeriesFileReader(tmp_path / "nothing.h5")
    archive.close()


def test_a_disk_that_refuses_costs_nothing_but_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recording = Recording(tmp_path, "writer", settle=0.0)
    first = block(["voltage"], [START], {"voltage": [0.0]})
    assert recording.write([first], START) == first.nbytes
    real = _ordered_file.os.pwrite

    def refuse(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_ordered_file.os, "pwrite", refuse)
    second = block(["voltage"], [START + 1], {"voltage": [1.0]})
    with pytest.raises(StorageError, match="no space"):
        recording.write([second], START + 1)
    with pytest.raises(StorageError, match="no space"):
        recording.write([], START + 2)
    monkeypatch.setattr(_ordered_file.os, "pwrite", real)
    third = block(["voltage"], [START + 2], {"voltage": [2.0]})
    assert recording.write([third], START + 3) == second.nbytes + third.nbytes
    recording.close(START + 4)
    archive = Archive(tmp_path, Index(None))
    archive.scan()
    assert_served(archive, [first, second, third])
    archive.close()
