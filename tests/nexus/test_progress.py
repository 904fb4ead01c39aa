"""Progress over any course of an acquisition: never backwards, never an impossible time."""

from __future__ import annotations

import math
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from sisockdaq.acquisition import Request
from sisockdaq.nexus.progress import Progress
from sisockdaq.nexus.reader import DataFileReader
from tests.nexus.rig import finished, running, wait_for

STEPS = st.lists(st.tuples(st.floats(0, 10), st.integers(0, 50), st.integers(0, 5)), max_size=40)
"""Time that passes [s], frames that are written in it, frames that are lost in it."""


@given(st.integers(1, 500) | st.none(), STEPS, st.integers(0, 200))
def test_time_left_is_finite_never_negative_and_reaches_nothing(
    wanted: int | None, steps: list[tuple[float, int, int]], already: int
) -> None:
    progress, now, written, reached = Progress(), 100.0, already, already
    progress.begin(wanted, now, written=written, reached=reached)
    for passed, came, lost in steps:
        now, written, reached = now + passed, written + came, reached + came + lost
        progress.look(written, 1000 * written, reached, now)
        left = progress.time_left
        assert left is None or (math.isfinite(left) and left >= 0)
        assert (left is None) or wanted is not None
        assert math.isfinite(progress.rate)
        assert progress.rate >= 0
        if wanted is not None and reached >= wanted:
            assert left == 0


def test_frames_that_an_earlier_life_wrote_do_not_count_as_speed() -> None:
    progress = Progress()
    progress.begin(1100, 0.0, written=1000, reached=1000)
    progress.look(1010, 0, 1010, 1.0)
    assert progress.rate == 10
    assert progress.time_left == 9


def test_lost_frames_are_not_waited_for() -> None:
    progress = Progress()
    progress.begin(100, 0.0)
    progress.look(45, 0, 50, 1.0)
    assert progress.rate == 45
    assert progress.time_left == 1
    progress.look(90, 0, 100, 2.0)
    assert progress.time_left == 0


def test_what_is_told_is_in_the_file(tmp_path: Path) -> None:
    told: list[int] = []
    with running(tmp_path, source={"frame_time": 0.002}) as (sources, engine):
        sources.skip = {5, 17}
        engine.start(Request("run", 60))

        def look() -> bool:
            status = engine.status()
            told.append(status["frames_written"])
            in_file = 0
            for path in status["files"]:
                if Path(path).exists():
                    with DataFileReader(Path(path)) as reader:
                        times = reader.times("receiver")
                    in_file += int((times == times).sum())
            assert in_file >= told[-1]
            left = status["time_left"]
            assert left is None or left >= 0
            return status["state"] == "READY" and bool(status["ended"])

        wait_for(look, "the end")
        status = finished(engine)
    assert told == sorted(told)
    assert status["frames_written"] == status["record"]["stats"]["n_write_completed"] == 58
    assert status["message"] == "Completed, 2 images are missing."
