"""Archive and live, joined: every sample once, and an honest end of what is final."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sisockdaq.merge import finalized_until, merge
from sisockdaq.schema import Samples, column


def of(times, source=0.0, final=None, covers=None) -> Samples:
    t = np.array(sorted(times), np.float64)
    return Samples(t, t * 10 + source, "line", final, covers)


times = st.sets(st.floats(1e9, 2e9), max_size=30)


@settings(max_examples=100, deadline=None)
@given(times, times, times)
def test_each_time_comes_once_and_the_first_source_has_precedence(a, b, c):
    joined, problems = merge([of(a, 0.1), of(b, 0.2), of(c, 0.3)])
    assert problems == []
    assert joined.t.tolist() == sorted(a | b | c)
    for t, value in zip(joined.t.tolist(), joined.values.tolist(), strict=True):
        assert value == t * 10 + (0.1 if t in a else 0.2 if t in b else 0.3)


@settings(max_examples=60, deadline=None)
@given(times, st.floats(1e9, 2e9), st.floats(1e9, 2e9))
def test_any_seam_between_file_and_live_gives_the_whole(samples, archived_until, live_from):
    """However far the archive has come and however far back the cache reaches, as long as they meet."""
    archived = {t for t in samples if t <= max(archived_until, live_from)}
    live = {t for t in samples if t >= live_from}
    joined, _ = merge([of(archived), of(live)])
    assert joined.t.tolist() == sorted(samples)


def test_what_is_final_reaches_over_a_seam_without_a_hole():
    archive, live = of([1, 2, 3, 4], final=4.5), of([3, 4, 5, 6], final=6.0, covers=3.0)
    assert finalized_until([archive, live]) == 6.0


def test_a_hole_between_archive_and_live_may_still_be_filled():
    archive, live = of([1, 2], final=2.5), of([5, 6], final=6.0, covers=5.0)
    assert finalized_until([archive, live]) == 2.5


def test_a_source_that_does_not_say_how_far_back_it_reaches_extends_nothing():
    assert finalized_until([of([1, 2], final=2.5), of([1, 2, 3], final=3.0)]) == 2.5


def test_all_final_is_none():
    assert finalized_until([of([1]), of([2])]) is None
    assert finalized_until([of([1]), of([], final=None)]) is None
    assert finalized_until([of([])]) is None
    assert finalized_until([of([1], final=1.5), of([], final=None)]) == 1.5


def test_nothing_joined_with_nothing_is_nothing():
    joined, problems = merge([of([]), of([])])
    assert len(joined) == 0
    assert problems == []


def test_arrays_of_another_shape_than_the_newest_are_named():
    old = Samples(np.array([1.0]), np.zeros((1, 4)), "x")
    new = Samples(np.array([2.0]), np.ones((1, 5)), "x")
    joined, problems = merge([old, new])
    assert joined.values.shape == (1, 5)
    assert "(4,)" in problems[0]
    assert "(5,)" in problems[0]


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (column([1, 2]), column([2.5]), [1.0, 2.0, 2.5]),
        (column(["a", "b"]), column([None]), ["a", "b", None]),
        (column([True, False]), column([None]), [True, False, None]),
        (np.array([2**63 + 1, 1], np.uint64), np.array([-1]), [2**63 + 1, 1, -1]),
    ],
)
def test_types_are_joined_without_loss(a, b, expected):
    joined, _ = merge([Samples(np.array([1.0, 2.0]), a), Samples(np.array([3.0]), b)])
    assert joined.values.tolist() == expected


def test_repeated_times_within_one_source_are_given_once():
    joined, _ = merge([Samples(np.array([1.0, 1.0, 2.0]), np.array([5.0, 6.0, 7.0]))])
    assert joined.t.tolist() == [1.0, 2.0]
    assert joined.values.tolist() == [5.0, 7.0]
