"""Cakes: what pyFAI's ``integrate2d_ng`` gives for the same options."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sisockdaq.errors import ConfigurationError, GeometryError, MaskError
from sisockdaq.integrate import Cake, Integrator
from sisockdaq.integrate._arrayfile import pack_arrays, read_arrays
from tests.integrate.geometries import Case, cases

SPLITS = ("no", "bbox", "full")
CASE = Case(
    {"distance": 0.02, "poni1": 0.0034, "poni2": 0.0041, "rot1": 0.05, "rot2": -0.02, "wavelength": 1e-10},
    (90, 110),
    40,
    "q_nm^-1",
    0.9,
    True,
    0.02,
    5,
)
"""The beam is on the image, so that pixels lie across the discontinuity, and around the beam over many azimuths."""


def flat_of(case: Case, flat: npt.NDArray[Any] | None = None) -> npt.NDArray[np.float32]:
    """Leave out the first pixel: pyFAI's full splitting begins with memory that was never written to."""
    made = np.ones(case.shape, np.float32) if flat is None else flat.astype(np.float32)
    made.flat[np.flatnonzero(~case.mask())[0]] = 0
    return made


def ours(case: Case, image: npt.NDArray[Any], split: str, azimuth_bins: int, **options: Any) -> Cake:
    factors = {name: options.pop(name) for name in ("monitor", "transmission") if name in options}
    options = {"flat": flat_of(case), **options}
    integrator = Integrator(case.parameters, split=split, **case.options(**options))  # type: ignore[arg-type]
    return integrator.integrate2d(image, azimuth_bins=azimuth_bins, **factors)


def theirs(case: Case, image: npt.NDArray[Any], split: str, azimuth_bins: int, **options: Any) -> Any:
    pyfai = options.pop("pyfai", None) or case.pyfai()
    return pyfai.integrate2d_ng(
        image,
        case.bins,
        azimuth_bins,
        unit=case.unit,
        method=(split, options.pop("engine", "csr"), "cython"),
        mask=case.mask().astype(np.int8),
        polarization_factor=case.polarization,
        correctSolidAngle=case.solid_angle,
        **{"flat": flat_of(case), **options},
    )


def agrees(cake: Cake, other: Any, *, exact: bool = False) -> None:
    np.testing.assert_allclose(cake.axis, other.radial, rtol=1e-12)
    np.testing.assert_allclose(cake.azimuth, other.azimuthal, rtol=1e-12, atol=1e-12)
    assert cake.intensity.shape == other.intensity.shape
    with np.errstate(invalid="ignore"):
        # A pixel without area in radial-azimuthal space makes NaN of pyFAI's bins.
        known = np.isfinite(other.sum_signal) & np.isfinite(other.sum_normalization)
        filled = known & (other.count != 0)  # rounding makes shares below 0 here and there
    assert known.any()
    assert np.isnan(cake.intensity[known & ~filled]).all()
    assert (cake.count[known & ~filled] == 0).all()
    if exact:
        assert np.array_equal(cake.sum_signal[known], other.sum_signal[known])
    scale = np.abs(other.intensity[filled]).max(initial=0)
    np.testing.assert_allclose(cake.sum_signal[known], other.sum_signal[known], rtol=1e-6, atol=1e-6 * scale)
    np.testing.assert_allclose(cake.sum_normalization[known], other.sum_normalization[known], rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(cake.count[known], other.count[known], rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(cake.intensity[filled], other.intensity[filled], rtol=1e-6, atol=1e-7 * scale)
    if other.sigma is not None:
        assert cake.sigma is not None
        assert cake.sum_variance is not None
        # The spread within a bin is a difference of numbers that are rounded to float32.
        np.testing.assert_allclose(
            cake.sum_variance[filled], other.sum_variance[filled], rtol=1e-6, atol=1e-7 * scale**2
        )
        np.testing.assert_allclose(cake.sigma[filled], other.sigma[filled], rtol=1e-6, atol=1e-6 * scale)


@settings(max_examples=20, deadline=None)
@given(cases(), st.sampled_from(SPLITS), st.integers(1, 400))
def test_any_geometry(case: Case, split: str, azimuth_bins: int) -> None:
    image = case.image(np.uint16)
    agrees(ours(case, image, split, azimuth_bins), theirs(case, image, split, azimuth_bins), exact=split == "no")


@settings(max_examples=15, deadline=None)
@given(
    cases(),
    st.sampled_from(SPLITS),
    st.sampled_from(["poisson", "azimuthal"]),
    st.floats(0, 0.6),
    st.floats(0, 0.9),
    st.booleans(),
)
def test_errors_and_ranges(case: Case, split: str, model: str, low: float, begin: float, cut: bool) -> None:
    image = case.image(np.int32, 30)
    whole = theirs(case, image, split, 20)
    options: dict[str, Any] = {"error_model": model}
    reach, turn = whole.radial[-1] - whole.radial[0], whole.azimuthal[-1] - whole.azimuthal[0]
    if cut and split != "full" and reach > 0 and turn > 1:
        options["radial_range"] = whole.radial[0] + low * reach, whole.radial[0] + (low + 0.4) * reach
        options["azimuth_range"] = whole.azimuthal[0] + begin * turn, whole.azimuthal[-1] - 0.05 * turn
    agrees(ours(case, image, split, 20, **options), theirs(case, image, split, 20, **options))


def test_quadrangles_in_a_range() -> None:
    image = CASE.image(np.uint16, 30)
    ranges = {"radial_range": (4.0, 9.0), "azimuth_range": (-60, 100)}
    integrator = Integrator(CASE.parameters, split="full", **CASE.options(**ranges))
    flat = np.ones(CASE.shape, np.float32)
    inside = integrator._cake(CASE.bins, 20).map.index < CASE.bins * 20
    flat.flat[np.flatnonzero(inside)[0]] = 0
    for model in ("poisson", "azimuthal"):
        options = {"flat": flat, "error_model": model, **ranges}
        agrees(ours(CASE, image, "full", 20, **options), theirs(CASE, image, "full", 20, **options))


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("model", ["poisson", "azimuthal"])
def test_corrections_and_unusable_pixels(split: str, model: str) -> None:
    rng = np.random.default_rng(1)
    image = CASE.image(np.float32, 30)
    image[rng.random(CASE.shape) < 0.05] = -7
    image[rng.random(CASE.shape) < 0.05] = -6.5
    image[10:30, 5:80] = np.nan
    dark = rng.random(CASE.shape, np.float32)
    flat = flat_of(CASE, rng.random(CASE.shape) + 0.5)
    flat[3:6, 10:20] = 0
    options = {"flat": flat, "dark": dark, "dummy": -7, "delta_dummy": 0.6, "error_model": model}
    cake = ours(CASE, image, split, 60, monitor=2.0, transmission=0.25, **options)
    engine = "csc" if model == "poisson" else "csr"  # the first's variance is without the dark, as curves have it
    agrees(cake, theirs(CASE, image, split, 60, normalization_factor=0.5, engine=engine, **options))
    used = ~CASE.mask() & (flat != 0)
    assert cake.unusable == np.count_nonzero(used & ~(np.abs(image + 7) > 0.6))


@settings(max_examples=15, deadline=None)
@given(cases(), st.sampled_from(SPLITS), st.booleans())
def test_poisson_errors_are_those_of_the_raw_pixels_whatever_the_dark(case: Case, split: str, whole: bool) -> None:
    rng = np.random.default_rng(case.seed)
    image = case.image(np.uint16, 30)
    dark = rng.integers(-3, 9, case.shape) if whole else rng.normal(3, 2, case.shape)
    options: dict[str, Any] = {"dark": dark.astype(np.float32), "error_model": "poisson"}
    cake = ours(case, image, split, 20, **options)
    agrees(cake, theirs(case, image, split, 20, engine="csc", **options), exact=split == "no" and whole)
    # As do pyFAI's curves.
    flat = {"flat": flat_of(case)}
    integrator = Integrator(case.parameters, split=split, **case.options(**flat, **options))  # type: ignore[arg-type]
    curve = integrator.integrate(image)
    other = case.pyfai().integrate1d_ng(
        image,
        case.bins,
        unit=case.unit,
        method=(split, "csc", "cython"),
        mask=case.mask().astype(np.int8),
        polarization_factor=case.polarization,
        correctSolidAngle=case.solid_angle,
        **flat,
        **options,
    )
    assert curve.sum_variance is not None
    np.testing.assert_allclose(curve.sum_variance, other.sum_variance, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("split", SPLITS)
def test_whole_darks_leave_integers(split: str) -> None:
    image, dark = CASE.image(np.uint32, 3), np.full(CASE.shape, 5)
    cake = ours(CASE, image, split, 30, dark=dark)
    agrees(cake, theirs(CASE, image, split, 30, dark=dark), exact=split == "no")
    assert (cake.sum_signal.dtype.kind == "i") == (split == "no")
    image[:40] = 9
    cake = ours(CASE, image, split, 30, dark=dark, dummy=9)
    agrees(cake, theirs(CASE, image, split, 30, dark=dark, dummy=9), exact=split == "no")


@pytest.mark.parametrize("dtype", [np.int16, np.float64, ">u4", np.bool_])
def test_types_of_images(dtype: Any) -> None:
    image = np.minimum(CASE.image(np.uint8, 3), 1 if dtype is np.bool_ else 100)
    for split in ("no", "bbox"):
        known = ours(CASE, image.astype(np.uint32), split, 30, error_model="poisson")
        cake = ours(CASE, image.astype(dtype), split, 30, error_model="poisson")
        assert np.array_equal(cake.intensity, known.intensity, equal_nan=True)
        assert np.array_equal(cake.sigma, known.sigma, equal_nan=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("model", [None, "poisson", "azimuthal"])
def test_threads_change_nothing(split: str, model: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sisockdaq.integrate._cake_map._PART", 1 << 13)
    case = replace(CASE, shape=(230, 200), parameters={**CASE.parameters, "poni1": 0.009, "poni2": 0.008})
    image = case.image(np.float32, 30)
    image[image == 25] = np.nan
    alone, *others = (ours(case, image, split, 90, error_model=model, threads=threads) for threads in (1, 2, 5))
    agrees(alone, theirs(case, image, split, 90, error_model=model))
    for cake in others:
        assert np.array_equal(cake.sum_signal, alone.sum_signal)
        assert np.array_equal(cake.intensity, alone.intensity, equal_nan=True)
        if model:
            assert np.array_equal(cake.sum_variance, alone.sum_variance)  # type: ignore[arg-type]


@pytest.mark.parametrize("split", ["no", "bbox"])
def test_a_range_across_180_degrees(split: str) -> None:
    image, pyfai = CASE.image(np.uint16), CASE.pyfai()
    pyfai.setChiDiscAtZero()
    options = {"azimuth_range": (100, 250)}
    agrees(ours(CASE, image, split, 30, **options), theirs(CASE, image, split, 30, pyfai=pyfai, **options))


def test_quadrangles_across_180_degrees() -> None:
    turned = replace(CASE, parameters={**CASE.parameters, "rot3": np.pi}, polarization=None)
    straight = replace(turned, parameters=CASE.parameters)
    image = CASE.image(np.uint16, 100)
    one = ours(straight, image, "full", 30, azimuth_range=(100, 250), radial_range=(3, 12))
    two = ours(turned, image, "full", 30, azimuth_range=(-80, 70), radial_range=(3, 12))
    np.testing.assert_allclose(one.azimuth, two.azimuth + 180, rtol=1e-6)
    np.testing.assert_allclose(one.count, two.count, rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(one.intensity, two.intensity, rtol=1e-2)


def test_one_integrator_makes_several_cakes() -> None:
    image = CASE.image(np.uint16)
    background = np.array([0.0, 100.0]), np.array([1.5, 1.5])
    integrator = Integrator(CASE.parameters, background=background, error_model="poisson", **CASE.options())
    integrator.warm_up(image.dtype, azimuth_bins=12)
    cake = integrator.integrate2d(image, azimuth_bins=12, bins=17)
    assert cake.intensity.shape == (12, 17)
    assert cake.unit == "q_nm^-1"
    assert np.nansum(cake.sum_signal) == image[~CASE.mask()].sum()
    plain = Integrator(CASE.parameters, **CASE.options()).integrate2d(image, azimuth_bins=12, bins=17)
    np.testing.assert_allclose(cake.intensity, plain.intensity - 1.5)
    for azimuth_bins in (5, 6, 7, 8, 12):
        assert integrator.integrate2d(image, azimuth_bins=azimuth_bins).intensity.shape == (azimuth_bins, 40)
    curve = integrator.integrate(image)
    cake = integrator.integrate2d(image, azimuth_bins=1)
    assert np.array_equal(cake.axis, curve.axis)
    assert np.array_equal(cake.sum_signal[0], curve.sum_signal)


@pytest.mark.parametrize("split", SPLITS)
def test_maps_are_kept_on_disk(split: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = CASE.image(np.uint16)
    first = ours(CASE, image, split, 30, cache=tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("sisockdaq.integrate._places.build_cake_map", None)
        again = ours(CASE, image, split, 30, cache=tmp_path)
        with pytest.raises(TypeError):
            ours(CASE, image, split, 31, cache=tmp_path)
    assert np.array_equal(first.intensity, again.intensity, equal_nan=True)
    for path in tmp_path.iterdir():
        arrays = read_arrays(path)
        if "more_pixel" in arrays:
            arrays["index"][5] = 1 << 30
            path.write_bytes(pack_arrays(arrays).tobytes())
    mended = ours(CASE, image, split, 30, cache=tmp_path)
    assert np.array_equal(first.intensity, mended.intensity, equal_nan=True)


def test_wrong_options_are_named() -> None:
    image = CASE.image(np.uint16)
    for bins in (0, -3, 1 << 28):
        with pytest.raises(ConfigurationError, match="azimuth_bins is"):
            ours(CASE, image, "no", bins)
    with pytest.raises(ConfigurationError, match="bins is -2"):
        Integrator(CASE.parameters, **CASE.options()).integrate2d(image, bins=-2)
    with pytest.raises(ValueError, match="the image has shape"):
        ours(CASE, image[1:], "no", 10)
    with pytest.raises(ValueError, match="monitor is 0"):
        ours(CASE, image, "no", 10, monitor=0)
    with pytest.raises(MaskError, match="hides every pixel"):
        ours(CASE, image, "no", 10, mask=np.ones(CASE.shape))
    with pytest.raises(GeometryError, match="azimuth range"):
        ours(CASE, image, "no", 10, azimuth_range=(20, 20))
