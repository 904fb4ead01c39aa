"""Following a feed: every sample delivered or accounted for, whatever is lost on the way."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sisockdaq.client._following import Follower, Gap
from sisockdaq.schema import Samples
from sisockdaq.wire import FeedEvent


def event(sequence: int, *times: float, epoch: str = "e", field: str = "x") -> FeedEvent:
    t = np.array(times, np.float64)
    return FeedEvent(epoch, sequence, t, {field: t * 10})


def test_events_in_order_are_delivered_as_they_are():
    follower = Follower("x")
    for i in range(5):
        step = follower.event(event(i + 7, i + 0.0))
        assert step is not None
        assert step.gap is None
        assert step.values.tolist() == [i * 10]


def test_a_jump_asks_for_what_is_between():
    follower = Follower("x")
    follower.event(event(0, 1.0))
    step = follower.event(event(3, 4.0, 5.0))
    assert step is not None
    assert step.gap == Gap(1.0, 4.0, 2)
    assert 1.0 < step.ask_from < 1.0 + 1e-9
    assert step.t.tolist() == [4.0, 5.0]


def test_a_new_life_of_the_node_is_a_gap_of_unknown_size():
    follower = Follower("x")
    follower.event(event(5, 1.0))
    step = follower.event(event(0, 9.0, epoch="f"))
    assert step is not None
    assert step.gap == Gap(1.0, 9.0, None)
    answered = follower.recovered(step.gap, Samples(np.array([2.0]), np.array([1.0]), covers_from=0.5))
    assert answered.recovered == 1
    assert not answered.complete
    assert "restarted" in str(answered)


def test_a_source_that_held_everything_makes_a_gap_complete():
    follower = Follower("x")
    gap = Gap(1.0, 4.0, 2)
    t = np.array([2.0, 3.0])
    assert follower.recovered(gap, Samples(t, t, covers_from=1.0)).complete
    assert not follower.recovered(gap, Samples(t, t, covers_from=2.0)).complete
    assert not follower.recovered(gap, Samples(t, t)).complete
    assert follower.recovered(gap, None) == gap


def test_events_of_other_fields_keep_the_count():
    follower = Follower("x")
    follower.event(event(0, 1.0))
    assert follower.event(event(1, 2.0, field="y")) is None
    step = follower.event(event(2, 3.0))
    assert step is not None
    assert step.gap is None


def test_late_samples_are_counted():
    follower = Follower("x")
    follower.event(event(0, 5.0))
    assert follower.event(event(1, 4.0, 5.0)) is None
    assert follower.late == 2
    assert follower.last == 5.0


@settings(max_examples=100, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=60), st.integers(1, 4))
def test_delivered_and_asked_for_cover_every_sample_once(arrives, size):
    """Events of some samples each, of which some are lost: each sample is delivered, or lies in one asked span."""
    follower = Follower("x")
    got: list[float] = []
    begun = False
    for number, comes in enumerate(arrives):
        times = [float(number * size + i) for i in range(size)]
        if not comes:
            continue
        step = follower.event(event(number, *times))
        assert step is not None
        if step.gap is not None:
            got += [float(t) for t in range(len(arrives) * size) if step.ask_from <= t < step.gap.end]
        if not begun:
            got += [float(t) for t in range(int(times[0]))]
            begun = True
        got += step.t.tolist()
    last = max((n for n, comes in enumerate(arrives) if comes), default=-1)
    assert got == [float(t) for t in range((last + 1) * size)]
