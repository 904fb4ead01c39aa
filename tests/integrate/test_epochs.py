"""Epochs and reducers: what a frame becomes under which settings, and numbers that never come twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sisockdaq.errors import ConfigurationError, GeometryError
from sisockdaq.integrate.epochs import EpochBook, hold_axes
from sisockdaq.integrate.invariants import NAMES, Invariants
from sisockdaq.integrate.reduction import Reducer, same_axes, same_cakes, same_layout
from sisockdaq.integrate.settings import IntegrationSettings, make_integrator

SHAPE = (40, 52)
PIXEL = 75e-6
PLACE = {"distance": 0.1, "poni1": 0.0015, "poni2": 0.0021, "wavelength": 1e-10}
MOVED = {**PLACE, "distance": 0.12, "poni1": 0.0011}
FILL = 65535


def reducer(**options: Any) -> Reducer:
    wanted = IntegrationSettings.model_validate({"geometry": PLACE, "bins": 30, **options})
    return Reducer(make_integrator(wanted, shape=SHAPE, pixel_size=PIXEL), wanted)


def picture(seed: int = 1) -> Any:
    return np.random.default_rng(seed).poisson(60, SHAPE).astype(np.uint16)


def test_each_method_is_the_engines_own() -> None:
    image = picture()
    image[3, 7] = 50000
    plain, median = reducer(), reducer(method="median", quantiles=(0.2, 0.7))
    clip = reducer(method="sigma_clip", clip_threshold=3.0, clip_iterations=2, error_model="azimuthal")
    engine = plain.integrator
    np.testing.assert_array_equal(plain.reduce(image).curve.intensity, engine.integrate(image).intensity)
    expected = engine.median(image, quantiles=(0.2, 0.7))
    np.testing.assert_array_equal(median.reduce(image).curve.intensity, expected.intensity)
    clipped = engine.sigma_clip(image, threshold=3.0, iterations=2)
    made = clip.reduce(image)
    np.testing.assert_array_equal(made.curve.intensity, clipped.intensity)
    assert made.numbers["rejected"] == clipped.rejected.sum() > 0
    assert list(made.numbers) == list(clip.numbers)


def test_without_an_error_model_there_are_no_errors() -> None:
    for method in ("mean", "median", "sigma_clip"):
        made = reducer(method=method, error_model=None)
        assert not made.has_errors
        assert made.reduce(picture()).curve.sigma is None


@pytest.mark.parametrize("dummy", [3.0, -1.0, 2.5, None])
def test_lost_pixels_are_left_out_whatever_the_dummy(dummy: float | None) -> None:
    image = picture()
    image[10:20] = FILL
    image[30, 5:9] = 3
    made = reducer(dummy=dummy)
    made.follow_fill(FILL)
    lost = 10 * SHAPE[1] + np.count_nonzero(image == 3) * (dummy == 3)
    result = made.reduce(image)
    assert result.numbers["unusable"] == lost
    assert result.numbers["total"] == image[(image != FILL) & ((dummy != 3) | (image != 3))].sum()
    assert image[10, 0] == FILL


def test_numbers_of_the_curve_are_those_of_its_invariants() -> None:
    ranges: dict[str, Any] = {"moments_range": (1, 8), "guinier_range": (0, 5), "guinier_points": 4, "porod_share": 0.2}
    image = picture()
    for made in (reducer(invariants=ranges), reducer(invariants=ranges, error_model=None)):
        numbers, curve = made.reduce(image).numbers, made.reduce(image).curve
        expected = Invariants(curve.axis, moments_range=(1, 8), guinier_range=(0, 5), fewest=4, tail=0.2).of(
            curve.intensity, curve.sigma
        )
        for name in NAMES:
            np.testing.assert_equal(numbers[name], expected[name])
            if made.has_errors:
                np.testing.assert_equal(numbers[f"{name}_sigma"], expected[f"{name}_sigma"])
        assert numbers["guinier_valid"] == expected.guinier_valid
        assert list(numbers) == list(made.numbers)
        assert made.numbers["I1"].unit == "I (nm^-1)^2"
    assert "I0" in reducer(invariants=True).numbers
    assert "I0" not in reducer(invariants=False).numbers
    with pytest.raises(ConfigurationError, match="no bin for moments lies between 800"):
        reducer(invariants={"moments_range": (800, 900)})


def test_cakes_are_the_engines_own() -> None:
    made = reducer(cake={"azimuth_bins": 8, "bins": 20}, azimuth_range=(-60, 90), monitor=2.0)
    result = made.reduce(picture())
    expected = made.integrator.integrate2d(picture(), azimuth_bins=8, bins=20, monitor=2.0)
    assert result.cake is not None
    np.testing.assert_allclose(result.cake.intensity, expected.intensity, rtol=1e-15)
    assert made.cake_axes is not None
    np.testing.assert_array_equal(made.cake_axes[0].values, expected.axis)
    np.testing.assert_array_equal(made.cake_axes[1], expected.azimuth)
    assert (reducer().cake_axes, reducer().reduce(picture()).cake) == (None, None)
    assert same_cakes(made, made)
    assert not same_cakes(made, reducer(cake=True))
    assert not same_cakes(made, reducer())
    assert same_cakes(reducer(), reducer())


def test_monitor_and_transmission_reach_every_curve() -> None:
    sectors = {"right": {"azimuth_range": (-20, 20)}}
    for method in ({"sectors": sectors}, {"method": "sigma_clip"}, {"method": "median"}):
        once = reducer(**method).reduce(picture())
        made = reducer(**method, monitor="ioc::i0", transmission=0.5, invariants=True)
        twice = made.reduce(picture(), {"monitor": 4.0})
        assert (twice.numbers["monitor"], twice.numbers["transmission"], twice.factor) == (4.0, 0.5, 2.0)
        assert list(twice.numbers) == list(made.numbers)
        for name, curve in once.curves().items():
            np.testing.assert_allclose(twice.curves()[name].intensity, curve.intensity / 2, rtol=1e-12)
        if "method" not in method:
            expected = made.integrator.integrate(picture(), monitor=4.0, transmission=0.5)
            np.testing.assert_array_equal(twice.curve.intensity, expected.intensity)
            np.testing.assert_array_equal(twice.curve.sigma, expected.sigma)


@pytest.mark.parametrize("value", [None, 0.0, -1.0, float("nan"), float("inf")])
def test_nothing_is_divided_by_what_is_no_monitor(value: float | None) -> None:
    made = reducer(monitor="ioc::i0", cake=True, invariants=True, sectors={"right": {"azimuth_range": (-20, 20)}})
    result = made.reduce(picture(), {} if value is None else {"monitor": value})
    assert not result.has_intensities
    np.testing.assert_equal(result.numbers["monitor"], float("nan") if value is None else value)
    assert result.cake is not None
    for each in (*result.curves().values(), result.cake):
        assert np.isnan(each.intensity).all()
        assert np.isnan(each.sigma).all()
    assert result.numbers["total"] == picture().sum()
    assert result.numbers["guinier_valid"] == 0
    assert np.isnan(result.numbers["Rg"])


def ends(made: Reducer) -> tuple[float, float]:
    axis = made.integrator.axis
    half = 0.5 * (axis[1] - axis[0])
    return float(axis[0] - half), float(axis[-1] + half)


@given(
    st.floats(0.05, 0.3),
    st.floats(-0.002, 0.006),
    st.sampled_from(["q_nm^-1", "2th_deg", "r_mm"]),
    st.sampled_from(["no", "bbox", "full"]),
)
@settings(max_examples=15, deadline=None)
def test_held_axes_are_the_running_ones(distance: float, poni1: float, unit: str, split: str) -> None:
    sectors = {"right": {"azimuth_range": [-40, 40], "bins": 11}, "mine": {"radial_range": [0.1, 0.4]}}
    options: dict[str, Any] = {"unit": unit, "split": split, "sectors": sectors}
    running = reducer(**options)
    wanted = IntegrationSettings.model_validate(
        {"geometry": {**PLACE, "distance": distance, "poni1": poni1}, "bins": 30, **options}
    )
    held = hold_axes(wanted, running)
    free = reducer(geometry=wanted.geometry, unit=unit, split=split)
    ranges = {"the radial range": ends(running), "sector mine: the radial range": (0.1, 0.4)}
    off = [name for name, (low, high) in ranges.items() if high < ends(free)[0] or low > ends(free)[1]]
    if off:  # no axis can be held on which there is no pixel
        with pytest.raises(GeometryError, match=f"^{off[0]} (begins beyond the last|ends before the first) pixel"):
            make_integrator(held, shape=SHAPE, pixel_size=PIXEL)
        return
    made = Reducer(make_integrator(held, shape=SHAPE, pixel_size=PIXEL), held)
    assert same_axes(running, made)
    assert held.model_copy(update={"radial_range": None, "sectors": wanted.sectors}) == wanted


def test_what_changes_the_layout_is_seen() -> None:
    running = reducer(radial_range=(1, 5))
    moved = reducer(radial_range=(1, 5), geometry=MOVED)
    assert same_axes(running, moved)
    assert not same_axes(running, reducer(geometry=MOVED))
    assert same_layout(running, reducer(geometry=MOVED))
    for change in ({"bins": 31}, {"error_model": None}, {"rois": {"a": (0, 0, 1, 1)}}, {"unit": "2th_deg"}):
        assert not same_layout(running, reducer(**{"radial_range": (1, 5), **change}))


def test_numbers_go_on_over_starts_and_frames_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "epochs" / "integrator.json"
    book, made = EpochBook(path), reducer()
    assert book.number == 0
    assert book.begin(made, 100.0).number == made.epoch == 1
    old = made.epoch
    moved = reducer(geometry=MOVED)
    book.begin(moved, 200.0, held="run")
    for number in (old, old, moved.epoch, 77):
        book.count(number)
    book.keep()
    again = EpochBook(path)
    assert again.listing() == book.listing()
    assert [(row["number"], row["frames"], row["held"]) for row in again.listing()] == [(1, 2, ""), (2, 1, "run")]
    assert again.listing()[1]["geometry"] == {**MOVED, "rot1": 0.0, "rot2": 0.0, "rot3": 0.0}
    assert again.begin(made, 300.0).number == 3
    assert oct(path.parent.stat().st_mode)[-3:] == "700"


def test_an_epoch_says_enough_to_make_its_curves_again() -> None:
    book, made = EpochBook(), reducer(split="bbox", error_model="azimuthal", rois={"a": (1, 2, 3, 4)})
    book.begin(made, 1.0)
    row = book.listing()[0]
    same = reducer(**{**row["settings"], "geometry": row["geometry"]})
    np.testing.assert_array_equal(same.reduce(picture()).curve.sigma, made.reduce(picture()).curve.sigma)


@pytest.mark.parametrize("text", ["", "[{]", "{}x", '[{"number": 1}]', "[1]"])
def test_a_damaged_book_begins_again(tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "book.json"
    path.write_text(text)
    book = EpochBook(path)
    assert "begin again at 1" in caplog.text
    assert book.begin(reducer(), 1.0).number == 1
    assert EpochBook(path).number == 1


def test_a_book_that_cannot_be_kept_costs_a_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    book = EpochBook(tmp_path / "file" / "book.json")
    assert book.begin(reducer(), 1.0).number == 1
    assert "cannot be kept" in caplog.text
