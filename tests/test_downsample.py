"""Fewer samples, extremes kept."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sisockdaq.downsample import by_count, by_stride, thin
from sisockdaq.schema import Samples, column

finite = st.floats(-1e6, 1e6, width=32)


@settings(max_examples=100, deadline=None)
@given(st.lists(finite, min_size=1, max_size=300), st.integers(1, 60))
def test_a_count_is_kept_with_first_last_and_extremes(values, max_points):
    y = np.array(values)
    rows = by_count(np.arange(len(y)) * 0.1 + 1.7e9, y, max_points)
    assert len(rows) <= max_points
    assert np.all(np.diff(rows) > 0)
    if max_points >= 4:
        assert rows[0] == 0
        assert rows[-1] == len(y) - 1
        assert y[rows].min() == y.min()
        assert y[rows].max() == y.max()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.floats(0.001, 3), finite), min_size=1, max_size=200), st.floats(0.1, 5))
def test_a_stride_is_kept_with_the_most_prominent(steps, stride):
    t = np.cumsum([step for step, _ in steps])
    y = np.array([value for _, value in steps])
    rows = by_stride(t, y, stride)
    assert np.all(np.diff(t[rows]) >= stride)
    distance = np.abs(y - np.median(y))
    assert distance[rows].max() == distance.max()
    # Nothing is left out that had room: whatever was left out is within two strides of a sample that stayed.
    for a, b in itertools.pairwise(rows):
        assert not np.any((t > t[a] + 2 * stride) & (t < t[b] - 2 * stride))


@pytest.mark.parametrize("height", [50.0, -50.0])
def test_a_spike_of_one_sample_in_a_million_survives(height):
    y = np.sin(np.arange(1_000_000) / 1e4)
    y[654_321] = height
    t = np.arange(1_000_000) * 0.01 + 1.7e9
    for samples in (thin(Samples(t, y), max_points=500), thin(Samples(t, y), min_stride=20.0)):
        assert len(samples) <= 501
        assert height in samples.values


def test_nan_and_infinity_do_not_hide_the_rest():
    y = np.full(1000, np.nan)
    y[10], y[500], y[501] = 3.0, np.inf, 7.0
    rows = by_count(np.arange(1000.0), y, 50)
    assert {10, 501} <= set(rows.tolist())
    assert len(by_count(np.arange(1000.0), np.full(1000, np.nan), 50)) == 50


def test_bools_strings_and_arrays():
    t = np.arange(100.0)
    flags = np.zeros(100, np.bool_)
    flags[42] = True
    assert 42 in by_count(t, flags, 10)
    words = column(["off"] * 60 + ["on"] * 40)
    np.testing.assert_array_equal(by_count(t, words, 10), [0, 60])
    assert len(by_count(t, column([str(i) for i in range(100)]), 10)) == 10
    assert len(by_count(t, np.zeros((100, 3)), 10)) == 10
    np.testing.assert_array_equal(by_count(t, np.zeros((100, 3)), 1), [99])


def test_what_is_few_enough_is_left_alone():
    samples = Samples(np.arange(5.0), np.arange(5.0))
    assert thin(samples, 5, 1.0) is samples


def test_integers_beyond_doubles_are_kept_exact():
    y = np.full(1000, 2**60, np.uint64)
    y[7] += np.uint64(1)
    rows = by_count(np.arange(1000.0), y, 10)
    assert 7 in rows


def test_a_ramp_keeps_its_length():
    """Each sample is more prominent than the one before: none may push out all that came earlier."""
    t = np.arange(10_000) * 0.0999
    rows = by_stride(t, t**2, 1.0)
    assert len(rows) > 400
    assert np.all(np.diff(t[rows]) >= 1.0)
