"""Monitor and transmission of a frame: the sample of its time, or none; and what is wrong with settings of them."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sisockdaq.integrate.factors import FrameFactors, SampleSeries
from sisockdaq.integrate.settings import FactorSettings, IntegrationSettings

ANY = {"field": "ioc::i0", "max_age": None}


def settings(**options: Any) -> IntegrationSettings:
    return IntegrationSettings.model_validate(options)


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(-9, 9)), max_size=12),
    st.integers(-5, 65),
    st.sampled_from(["nearest", "linear", "last"]),
    st.none() | st.integers(1, 20),
)
def test_a_frame_gets_the_sample_of_its_time(
    samples: list[tuple[int, int]], time: int, match: Literal["nearest", "linear", "last"], age: int | None
) -> None:
    series = SampleSeries()
    for t, value in samples:
        series.add([t], [value])
    t, values = np.array(sorted(dict(samples).items()), float).reshape(-1, 2).T
    found = series.at(time, FactorSettings(field="ioc::i0", match=match, max_age=age))
    near = np.abs(t - time) <= (math.inf if age is None else age)
    before, after = np.flatnonzero(near & (t <= time)), np.flatnonzero(near & (t >= time))
    if match == "last":
        expected = values[before[-1]] if before.size else math.nan
    elif match == "linear":
        expected = float(np.interp(time, t, values)) if before.size and after.size else math.nan
    else:
        best = np.abs(t - time).min(initial=math.inf, where=near)
        # Of two that are as near either may be it.
        assert any(found == value for value in values[near & (np.abs(t - time) == best)]) or not near.any()
        expected = found if near.any() else math.nan
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_late_samples_find_their_place_and_old_ones_leave() -> None:
    series = SampleSeries(most=3)
    series.add([1, 2, 4], [10, 20, 40])
    series.add([3, 2], [30, 21])
    series.add([math.nan], [7])
    wanted = FactorSettings.model_validate({**ANY, "match": "last"})
    assert [series.at(t, wanted) for t in (2, 3, 9)] == [21, 30, 40]
    assert math.isnan(series.at(1.5, wanted))
    assert series.newest == 4


def test_a_frame_waits_for_all_it_needs_but_not_for_ever() -> None:
    made = FrameFactors(settings(monitor="ioc::i0", transmission={**ANY, "field": "ioc::t", "match": "last"}))
    assert made.wait == 0.5
    made.series["ioc::i0"].add([10.0], [3.0])
    assert not made.settled(9.0, 0.0)
    assert made.settled(9.0, 0.5)
    assert made.why(made.of(9.0)) == "nothing has come of the transmission ioc::t"
    made.series["ioc::t"].add([9.5], [0.5])
    assert made.settled(9.5, 0.0)
    assert made.of(9.6) == {"monitor": 3.0, "transmission": 0.5}
    assert made.why(made.of(9.6)) == ""
    assert made.why(made.of(20.0)) == "the monitor ioc::i0 has no sample within 1 s of the frame"
    made.series["ioc::i0"].add([30.0], [0.0])
    assert made.why(made.of(30.0)) == "the monitor ioc::i0 is 0, not above 0"
    again = FrameFactors(settings(monitor="ioc::i0"), made.series)
    assert again.of(30.0) == {"monitor": 0.0}


def test_numbers_need_no_waiting() -> None:
    made = FrameFactors(settings(monitor=2, transmission="0.5"))
    assert (made.series, made.wait, made.settled(5.0, 0.0)) == ({}, 0.0, True)
    assert made.of(5.0) == {"monitor": 2.0, "transmission": 0.5}
    assert FrameFactors(settings()).of(5.0) == {}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (0, "must be a number above 0"),
        (float("nan"), "must be a number above 0"),
        ("i0", '"i0" is no field of a node: write it as node::field'),
        ({"field": "ioc::i0", "max_age": 0}, "greater than 0"),
        ({"field": "ioc::i0", "wait": 60}, "less than or equal to 2"),
    ],
)
def test_wrong_factors_are_named(value: Any, reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        settings(monitor=value)
