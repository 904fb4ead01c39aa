"""Medians and means between quantiles of rings: what pyFAI gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sisockdaq.errors import ConfigurationError
from sisockdaq.integrate.median import median
from sisockdaq.integrate.rings import Rings
from tests.integrate.geometries import Case, cases
from tests.integrate.ring_reference import ask, frame_of, make_rings
from tests.integrate.test_clip import CASE, spotted


def agrees(ours: Any, theirs: Any, halved: Any = False) -> None:
    """Compare all rings; those that are `halved` may have either of two pixels, or both."""
    filled = theirs.sum_normalization2 > 0
    assert np.array_equal(ours.weight2 > 0, filled)
    assert np.isnan(ours.mean[~filled]).all()
    filled &= ~(halved & ~np.isclose(ours.mean, theirs.intensity, rtol=1e-6))
    np.testing.assert_allclose(ours.mean[filled], theirs.intensity[filled], rtol=1e-6)


@settings(max_examples=25, deadline=None)
@given(cases(), st.sampled_from(["no", "bbox", "full"]), st.tuples(st.integers(0, 100), st.integers(0, 100)))
def test_between_quantiles(case: Case, split: str, percent: tuple[int, int]) -> None:
    image = spotted(case)
    quantiles = (percent[0] / 100.0, percent[1] / 100.0)
    ours = median(make_rings(case, split), frame_of(image), quantiles=quantiles)
    theirs, _ = ask(case, "medfilt1d_ng", image, split, percentile=percent)
    agrees(ours, theirs)


@settings(max_examples=25, deadline=None)
@given(cases(), st.sampled_from(["no", "bbox", "full"]), st.sampled_from([np.uint16, np.int32, np.float32]))
def test_median_of_counts_with_equal_values(case: Case, split: str, dtype: Any) -> None:
    image = case.image(dtype)
    theirs, _ = ask(case, "medfilt1d_ng", image, split)
    rings = make_rings(case, split)
    agrees(median(rings, frame_of(image)), theirs, halved(rings, image))


def halved(rings: Rings, image: Any) -> Any:
    """Tell the rings with two halves of the same weight but for rounding: one median or two, as the order has it."""
    found = np.zeros(rings.bins, np.bool_)
    for ring in range(rings.bins):
        part = slice(rings.start[ring], rings.start[ring + 1])
        values = image.ravel()[rings.pixel[part]] / rings.weight[part]
        weights = rings.weight[part].astype(np.float64) * (rings.share[part] if rings.split else 1.0)
        sums = np.cumsum(weights[np.argsort(values, kind="stable")])
        found[ring] = sums.size > 0 and bool((np.abs(sums / sums[-1] - 0.5) < 1e-6).any())
    return found


def test_long_rings_and_their_errors() -> None:
    case = Case({**CASE.parameters, "distance": 0.1}, (300, 310), 8, "2th_deg", 0.9, True, 0.02, 3)
    image = spotted(case)
    image -= 40  # values of both signs
    rings = make_rings(case, "no")
    assert np.diff(rings.start).max() > 3000
    for quantiles in (0.5, (0.1, 0.9)):
        percent = 50 if quantiles == 0.5 else (10, 90)
        ours = median(rings, frame_of(image), quantiles=quantiles)  # type: ignore[arg-type]
        theirs, _ = ask(case, "medfilt1d_ng", image, "no", percentile=percent, error_model="poisson")
        np.testing.assert_allclose(ours.mean, theirs.intensity, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(ours.error, theirs.sem, rtol=1e-6)
        np.testing.assert_allclose(ours.deviation, theirs.std, rtol=1e-6)


def test_unusable_pixels_are_as_masked_ones() -> None:
    image = spotted(CASE)
    bad = np.random.default_rng(4).random(CASE.shape) < 0.3
    image[bad] = np.nan
    rings = make_rings(CASE, "bbox")
    weight = np.zeros(image.size, np.float32)
    weight[rings.pixel] = rings.weight
    weight[bad.ravel()] = 0
    masked = make_rings(CASE, "bbox", normalization=weight)
    assert np.array_equal(median(rings, frame_of(image)).signal, median(masked, frame_of(spotted(CASE))).signal)
    nothing = median(rings, frame_of(np.full(CASE.shape, np.nan)))
    assert np.isnan(nothing.mean).all()


def test_dark_and_flat() -> None:
    rng = np.random.default_rng(1)
    dark, flat = rng.random(CASE.shape, np.float32), rng.random(CASE.shape, np.float32) + 0.5
    image = spotted(CASE)
    plain = make_rings(CASE, "no")
    weight = np.zeros(image.size, np.float32)
    weight[plain.pixel] = plain.weight
    rings = make_rings(CASE, "no", normalization=weight * flat.ravel(), dark=dark)
    theirs, _ = ask(CASE, "medfilt1d_ng", image, "no", percentile=(20, 80), dark=dark, flat=flat)
    agrees(median(rings, frame_of(image), quantiles=(0.2, 0.8)), theirs)


def test_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sisockdaq.integrate.rings.BLOCK", 300)
    rings, frame = make_rings(CASE, "bbox"), frame_of(spotted(CASE))
    alone, together = median(rings, frame), median(rings, frame, threads=3)
    assert np.array_equal(alone.signal, together.signal)


@pytest.mark.parametrize("quantiles", [-0.1, 1.5, (0.2, 3), (0.1, 0.2, 0.3), float("nan")])
def test_wrong_quantiles(quantiles: Any) -> None:
    with pytest.raises(ConfigurationError, match="quantiles is"):
        median(make_rings(CASE, "no"), frame_of(spotted(CASE)), quantiles=quantiles)
