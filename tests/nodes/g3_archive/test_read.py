"""Answers: what is served is what so3g wrote."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sisockdaq.nodes.g3_archive._cache import Cache
from sisockdaq.nodes.g3_archive._read import stretches
from sisockdaq.nodes.g3_archive._worker import Worker
from sqlalchemy import URL

from sisockdaq.errors import DeadlineExceeded, FileUnreadable
from sisockdaq.testing import wait_until
from tests.nodes.g3_archive.conftest import T0, Archive, Recorder

RNG = np.random.default_rng(3)


def test_every_type_comes_back_as_it_was_written(archive: Archive) -> None:
    t = T0 + np.sort(RNG.uniform(0, 100, 500)).round(6)
    block = {
        "Temp K": RNG.normal(size=500),
        "count": RNG.integers(-(2**40), 2**40, 500),
        "flag": RNG.integers(0, 2, 500).astype(bool),
        "mode": [f"état {i % 7}" for i in range(500)],
    }
    Recorder(archive.scanner.directory / "a.g3").add(t, block).close()
    archive.scanner.look()
    listing = archive.reader.listing(1, 4e9)
    kinds = {name: entry.type for name, entry in listing.fields.items()}
    prefix = "observatory.LSA22YE."
    assert kinds == {
        prefix + "temp_k": "number", prefix + "count": "number", prefix + "flag": "bool", prefix + "mode": "string",
    }  # fmt: skip
    assert set(listing.timelines) == {prefix + "temperatures"}
    assert set(listing.timelines[prefix + "temperatures"].fields) == set(kinds)
    for name, values in block.items():
        samples = archive.get(prefix + name.lower().replace(" ", "_"))
        np.testing.assert_allclose(samples.t, t, rtol=0, atol=1e-6)
        assert samples.values.tolist() == list(values)
        assert samples.timeline == prefix + "temperatures"
    assert archive.get(prefix + "count").values.dtype == np.int64
    plain = archive.reader.samples(list(kinds), 1, 4e9, None, None).to_plain()
    assert set(plain["timeline"]) == {prefix + "temperatures"}


def test_the_layout_of_old_files_is_read(sqlite_archive: Callable[..., Archive]) -> None:
    archive = sqlite_archive()
    recorder = Recorder(archive.scanner.directory / "a.g3", version=0)
    recorder.add(T0 + np.arange(5.0), {"Channel 1": np.arange(5.0)}).close()
    archive.scanner.look()
    samples = archive.get("observatory.LSA22YE.channel_1")
    np.testing.assert_array_equal(samples.t, T0 + np.arange(5.0))
    np.testing.assert_array_equal(samples.values, np.arange(5.0))
    assert samples.timeline == "observatory.LSA22YE.block_for_Channel 1"


def test_blocks_and_providers_have_timelines_of_their_own(sqlite_archive: Callable[..., Archive]) -> None:
    archive = sqlite_archive()
    recorder = Recorder(archive.scanner.directory / "a.g3", ["observatory.a", "observatory.b"])
    recorder.add(T0 + np.arange(4.0), {"x": np.zeros(4)}, "slow", "observatory.a")
    recorder.add(T0 + np.arange(8.0) / 2, {"y": np.ones(8)}, "fast", "observatory.a")
    recorder.add(T0 + np.arange(3.0), {"x": np.full(3, 5.0)}, "slow", "observatory.b").close()
    archive.scanner.look()
    timelines = archive.reader.listing(1, 4e9).timelines
    assert {name: list(each.fields) for name, each in timelines.items()} == {
        "observatory.a.slow": ["observatory.a.x"],
        "observatory.a.fast": ["observatory.a.y"],
        "observatory.b.slow": ["observatory.b.x"],
    }
    assert archive.get("observatory.b.x").values.tolist() == [5.0] * 3
    reply = archive.reader.samples(["observatory.a.x", "observatory.b.x", "observatory.c.x"], 1, 4e9, None, None)
    assert reply.unknown == ["observatory.c.x"]
    assert {name: len(each) for name, each in reply.samples.items()} == {"observatory.a.x": 4, "observatory.b.x": 3}


def test_only_fields_with_data_in_the_span_are_listed(archive: Archive) -> None:
    directory = archive.scanner.directory
    for i, name in enumerate(["early", "both", "late"]):
        for day in {"early": [0], "late": [2], "both": [0, 2]}[name]:
            path = directory / f"{name}{day}.g3"
            Recorder(path, [f"observatory.{i}"]).add(
                T0 + 86400 * day + np.arange(10.0), {name: np.arange(10.0)}, "b", f"observatory.{i}"
            ).close()
    archive.scanner.look()

    def listed(start: float, end: float) -> set[str]:
        return set(archive.reader.listing(start, end).fields)

    assert listed(1, 4e9) == {"observatory.0.early", "observatory.1.both", "observatory.2.late"}
    assert listed(T0, T0 + 5) == {"observatory.0.early", "observatory.1.both"}
    assert listed(T0 + 86400, T0 + 86500) == set()  # between the two files of `both`
    assert listed(T0 + 86400, T0 + 3 * 86400) == {"observatory.1.both", "observatory.2.late"}
    assert listed(T0 + 9, T0 + 9) == set()
    assert listed(T0 + 10, T0 + 11) == set()


def test_only_files_that_hold_the_answer_are_opened(sqlite_archive: Callable[..., Archive], tmp_path: Path) -> None:
    archive = sqlite_archive()
    for i in range(5):
        Recorder(archive.scanner.directory / f"{i}.g3").add(
            T0 + 100 * i + np.arange(10.0), {"x": np.arange(10.0)}
        ).close()
    archive.scanner.look()
    for i in (0, 1, 3, 4):
        (archive.scanner.directory / f"{i}.g3").unlink()
    assert len(archive.get("observatory.LSA22YE.x", T0 + 150, T0 + 250)) == 10
    reply = archive.reader.samples(["observatory.LSA22YE.x"], T0, T0 + 150, None, None)
    assert len(reply.problems) == 2
    assert "0.g3" in reply.problems[0]


def test_limits_keep_a_single_spike(sqlite_archive: Callable[..., Archive]) -> None:
    archive = sqlite_archive()
    for i in range(4):
        values = np.sin(np.arange(5000) / 300)
        if i == 2:
            values[1234] = 77.0
        Recorder(archive.scanner.directory / f"{i}.g3").add(T0 + 5000 * i + np.arange(5000.0), {"x": values}).close()
    archive.scanner.look()
    for limits in ({"max_points": 100}, {"min_stride": 60.0}, {"max_points": 50, "min_stride": 60.0}):
        samples = archive.get("observatory.LSA22YE.x", **limits)
        assert len(samples) <= limits.get("max_points", 334)
        assert samples.values.max() == 77.0
        assert samples.t[samples.values.argmax()] == T0 + 10000 + 1234
        assert np.diff(samples.t).min() >= limits.get("min_stride", 1.0)
    archive.reader.max_points = 30
    assert len(archive.get("observatory.LSA22YE.x")) <= 30
    assert len(archive.get("observatory.LSA22YE.x", max_points=10)) <= 10


def test_what_was_read_is_kept_and_a_growing_file_costs_what_is_new(
    sqlite_archive: Callable[..., Archive], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sisockdaq.nodes.g3_archive._read._STRETCH", 100)
    archive = sqlite_archive()
    recorder = Recorder(archive.scanner.directory / "a.g3")
    for i in range(10):
        recorder.add(T0 + 50 * i + np.arange(50.0), {"x": np.arange(50.0)})
    archive.scanner.look()
    name = "observatory.LSA22YE.x"
    assert len(archive.get(name)) == 500
    assert archive.cache.misses == 5
    archive.get(name)
    assert archive.cache.misses == 5
    recorder.add(T0 + 500 + np.arange(50.0), {"x": np.arange(50.0)})
    archive.scanner.look()
    assert len(archive.get(name)) == 550
    assert archive.cache.misses == 6


def test_nothing_is_final_while_files_wait(sqlite_archive: Callable[..., Archive]) -> None:
    archive = sqlite_archive()
    name = "observatory.LSA22YE.x"
    Recorder(archive.scanner.directory / "a.g3").add(T0 + np.arange(10.0), {"x": np.arange(10.0)})
    archive.scanner.look()
    assert archive.get(name, T0, T0 + 5).finalized_until == T0 + 9
    archive.scanner.status.files_unknown = 1
    assert archive.get(name, T0, T0 + 5).finalized_until == T0


def test_too_much_for_the_deadline_is_said_and_goes_on_from_there(sqlite_archive: Callable[..., Archive]) -> None:
    archive = sqlite_archive()
    for i in range(3):
        Recorder(archive.scanner.directory / f"{i}.g3").add(T0 + 100 * i + np.arange(10.0), {"x": np.arange(10.0)})
    archive.scanner.look()
    archive.reader.deadline = -1.0
    with pytest.raises(DeadlineExceeded, match="0 of 3 files"):
        archive.get("observatory.LSA22YE.x")
    archive.reader.deadline = 25.0
    assert len(archive.get("observatory.LSA22YE.x")) == 30


def test_a_worker_that_hangs_is_killed(tmp_path: Path) -> None:
    worker = Worker()
    path = Recorder(tmp_path / "a.g3").add(T0 + np.arange(10.0), {"x": np.arange(10.0)}).close()
    worker.call("scan", str(path), 0, {}, 5.0, deadline=30)
    pid = worker.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(DeadlineExceeded, match=r"a\.g3"):
        worker.call("read", str(path), 0, [0], ["x"], deadline=0.3)
    assert worker.call("scan", str(path), 0, {}, 5.0, deadline=30).done
    assert worker.pid != pid
    assert worker.deaths == 1
    worker.close()


def test_a_file_over_which_the_process_dies_twice_is_at_fault(tmp_path: Path) -> None:
    worker = Worker()
    killed: set[int] = set()

    def kill_each() -> None:
        for _ in range(2):
            pid = wait_until(lambda: worker.pid if worker.pid not in killed else None, 30, "a process")
            killed.add(pid)
            os.kill(pid, 9)

    killer = threading.Thread(target=kill_each)
    killer.start()
    with pytest.raises(FileUnreadable, match=r"deadly\.g3.*SIGKILL"):
        worker.call("read", str(tmp_path / "deadly.g3"), 0, [0], ["x"], deadline=30)
    killer.join()
    assert worker.deaths == 2
    worker.close()


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory, worker: Worker) -> Iterator[tuple[Archive, np.ndarray]]:
    """Three files whose times overlap, with frames in any order, and all their times."""
    folder = tmp_path_factory.mktemp("recorded")
    begins = [0, 40, 20, 90, 70, 130, 110, 200]
    times = [T0 + begin + np.arange(25) * 0.75 for begin in begins]
    for i in range(3):
        recorder = Recorder(folder / "g3" / f"{i}.g3")
        for t in times[i::3]:
            recorder.add(t, {"x": t - T0})
        recorder.close()
    archive = Archive(URL.create("sqlite", database=str(folder / "index.sqlite")), folder / "g3", worker)
    archive.scanner.look()
    yield archive, np.unique(np.concatenate(times))
    archive.index.close()


@settings(max_examples=60, deadline=None)
@given(
    start=st.floats(-20, 250),
    length=st.floats(0, 300),
    max_points=st.none() | st.integers(1, 60),
    min_stride=st.none() | st.floats(0.1, 30),
)
def test_an_answer_is_the_interval_and_nothing_else(
    recorded: tuple[Archive, np.ndarray], start: float, length: float, max_points: int | None, min_stride: float | None
) -> None:
    archive, times = recorded
    first, last = T0 + start, T0 + start + length
    inside = times[(times >= first) & (times < last)]
    samples = archive.get("observatory.LSA22YE.x", first, last, max_points=max_points, min_stride=min_stride)
    np.testing.assert_array_equal(samples.values, samples.t - T0)
    if max_points is None and min_stride is None:
        np.testing.assert_array_equal(samples.t, inside)
        return
    assert np.isin(samples.t, inside).all()
    assert len(samples) > 0 or len(inside) == 0
    assert max_points is None or len(samples) <= max_points
    assert min_stride is None or len(samples) < 2 or np.diff(samples.t).min() >= min_stride


@given(counts=st.lists(st.integers(1, 150_000), max_size=30), more=st.integers(1, 150_000))
def test_stretches_before_the_last_stay_when_frames_come(counts: list[int], more: int) -> None:
    frames = [(i, float(i), float(i), n) for i, n in enumerate(counts)]
    cut = list(stretches(frames))
    assert [frame for part in cut for frame in part] == frames
    assert all(len(part) == 1 or sum(frame[3] for frame in part) <= 200_000 for part in cut)
    assert list(stretches([*frames, (99, 99.0, 99.0, more)]))[: len(cut) - 1] == cut[:-1]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 40)), max_size=60))
def test_the_cache_stays_within_its_limit(puts: list[tuple[int, int]]) -> None:
    cache = Cache(1500)
    for key, n in puts:
        column = (np.zeros(n), np.full(n, float(key)))
        cache.put(key, column)
        assert cache.size <= 1500
        kept = cache.get(key)
        assert kept is None or kept is column
