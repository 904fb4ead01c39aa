"""Curves against pyFAI's over random geometries, and what the integrator says of bad input."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sisockdaq.errors import ConfigurationError, GeometryError, MaskError
from sisockdaq.integrate import Integrator
from tests.integrate.geometries import PIXEL, Case, cases

INTEGERS = [np.uint8, np.uint16, np.uint32, np.int16, np.int32]
SMALL = {"distance": 0.1, "poni1": 0.002, "poni2": 0.0031, "rot1": 0.05, "wavelength": 1e-10}
SHAPE = (61, 87)


def small(**options: Any) -> Integrator:
    return Integrator(SMALL, **{"shape": SHAPE, "pixel_size": PIXEL, "bins": 40, **options})


def same(ours: Any, theirs: Any, used: Any, relative: float) -> None:
    np.testing.assert_allclose(np.asarray(ours)[used], np.asarray(theirs)[used], rtol=relative, atol=0)


@settings(max_examples=25, deadline=None)
@given(cases(), st.sampled_from(INTEGERS))
def test_without_splitting_the_sums_are_pyfais(case: Case, dtype: Any) -> None:
    image = case.image(dtype)
    result = Integrator(case.parameters, **case.options(error_model="poisson")).integrate(image)
    expected = case.reference(image, "no", error_model="poisson")
    np.testing.assert_array_equal(result.axis, expected.radial)
    np.testing.assert_array_equal(result.sum_signal.astype(np.float64), expected.sum_signal)
    np.testing.assert_array_equal(result.count, expected.count)
    np.testing.assert_array_equal(result.sum_variance, expected.sum_variance)
    used = expected.count > 0
    assert np.isnan(result.intensity[~used]).all()
    same(result.intensity, expected.intensity, used, 1e-6)
    same(result.sigma, expected.sigma, used, 1e-6)
    assert result.total == image[~case.mask()].sum()


@settings(max_examples=25, deadline=None)
@given(cases(), st.sampled_from([*INTEGERS, np.float32, np.float64]))
def test_bounding_boxes_are_pyfais(case: Case, dtype: Any) -> None:
    image = case.image(dtype, mean=100.0 if dtype != np.uint8 else 20.0)
    result = Integrator(case.parameters, **case.options(split="bbox", error_model="poisson")).integrate(image)
    expected = case.reference(image, "bbox", error_model="poisson")
    np.testing.assert_array_equal(result.axis, expected.radial)
    used = expected.count > 0
    same(result.sum_signal, expected.sum_signal, used, 1e-6)
    same(result.intensity, expected.intensity, used, 1e-6)
    same(result.sigma, expected.sigma, used, 1e-6)
    assert np.isnan(result.intensity[~used]).all()
    assert result.total == pytest.approx(float(image[~case.mask()].sum(dtype=np.float64)), rel=1e-12)


@settings(max_examples=15, deadline=None)
@given(cases(), st.sampled_from(["no", "bbox"]), st.sampled_from([np.uint16, np.uint32, np.int32, np.float32]))
def test_dummy_pixels_are_left_out_as_in_pyfai(case: Case, split: Any, dtype: Any) -> None:
    image = case.image(dtype)
    dummy = 1e6 if dtype == np.float32 else 60000
    rng = np.random.default_rng(case.seed)
    image[rng.random(case.shape) < 0.1] = dummy
    image[case.shape[0] // 2 :, : case.shape[1] // 2] = dummy
    options = case.options(split=split, error_model="poisson", dummy=dummy, maximum=True)
    result = Integrator(case.parameters, **options).integrate(image)
    expected = case.reference(image, split, error_model="poisson", dummy=float(dummy))
    used = expected.count > 1e-6
    same(result.count, expected.count, used, 1e-5)
    same(result.intensity, expected.intensity, used, 1e-6)
    same(result.sigma, expected.sigma, used, 1e-6)
    good = image[~case.mask() & (image != dummy)]
    assert result.total == good.sum(dtype=np.float64)
    assert result.unusable == np.count_nonzero((image == dummy) & ~case.mask())
    if good.size:
        assert result.maximum == good.max()
    else:
        assert np.isnan(result.maximum)


@settings(max_examples=10, deadline=None)
@given(cases(), st.sampled_from(["no", "bbox"]))
def test_nan_is_left_out_as_in_pyfai(case: Case, split: Any) -> None:
    image = case.image(np.float32)
    image[3::5, 2::3] = np.nan
    result = Integrator(case.parameters, **case.options(split=split)).integrate(image)
    expected = case.reference(image, split)
    used = expected.count > 1e-6
    same(result.intensity, expected.intensity, used, 1e-6)
    assert result.sigma is None
    assert result.total == np.nansum(image[~case.mask()], dtype=np.float64)


@settings(max_examples=15, deadline=None)
@given(cases(), st.sampled_from(["no", "bbox"]), st.floats(0, 0.6), st.floats(0.1, 0.6))
def test_a_radial_range_is_pyfais(case: Case, split: Any, begin: float, length: float) -> None:
    image = case.image(np.uint16)
    whole = Integrator(case.parameters, **case.options(split=split)).axis
    span = whole[-1] - whole[0]
    ends = (whole[0] + begin * span, whole[0] + (begin + length) * span)
    result = Integrator(case.parameters, **case.options(split=split, radial_range=ends)).integrate(image)
    expected = case.reference(image, split, radial_range=ends)
    np.testing.assert_allclose(result.axis, expected.radial, rtol=1e-14)
    used = expected.count > 0
    same(result.intensity, expected.intensity, used, 1e-6)
    same(result.sum_signal, expected.sum_signal, used, 1e-6)
    assert result.total == image[~case.mask()].sum()


@pytest.mark.parametrize("split", ["no", "bbox"])
@pytest.mark.parametrize("dtype", [*INTEGERS, np.int64, np.uint64, np.float64, np.bool_])
def test_any_layout_in_memory_gives_the_same(split: Any, dtype: Any) -> None:
    image = np.random.default_rng(4).integers(0, 2 if dtype == np.bool_ else 90, SHAPE).astype(dtype)
    integrator = small(split=split, error_model="poisson", maximum=True)
    expected = integrator.integrate(image.astype(np.float64))
    frozen = image.copy()
    frozen.flags.writeable = False
    swapped = image.astype(image.dtype.newbyteorder(">"))
    for variant in (image, frozen, np.asfortranarray(image), swapped, np.repeat(image, 2, axis=1)[:, ::2]):
        result = integrator.integrate(variant)
        np.testing.assert_allclose(result.sum_signal.astype(np.float64), expected.sum_signal, rtol=1e-14)
        np.testing.assert_allclose(result.sum_variance, expected.sum_variance, rtol=1e-14)
        assert (result.total, result.maximum) == (expected.total, expected.maximum)


def test_large_integers_are_summed_exactly() -> None:
    image = np.full(SHAPE, 2**32 - 2, np.uint32)
    image[::2] = 2**24 + 1
    result = small(error_model="poisson").integrate(image)
    assert int(result.sum_signal.sum()) == result.total == int(image.sum(dtype=np.uint64))
    np.testing.assert_array_equal(result.sum_variance, result.sum_signal.astype(np.float64))


def test_negative_pixels_are_summed() -> None:
    image = np.random.default_rng(0).integers(-1000, 1000, SHAPE).astype(np.int32)
    result = small(maximum=True).integrate(image)
    assert (result.total, result.maximum) == (image.sum(), image.max())
    assert result.sum_signal.dtype == np.int64


def test_a_marker_that_the_type_cannot_hold_marks_nothing() -> None:
    image = np.full(SHAPE, 7, np.uint16)
    for dummy in (-1, 65536, 7.5):
        result = small(dummy=dummy).integrate(image)
        assert result.unusable == 0
        assert result.total == 7 * image.size


def test_only_unusable_pixels_leave_a_curve_of_nan() -> None:
    image = np.full(SHAPE, 65535, np.uint16)
    for split in ("no", "bbox"):
        result = small(split=split, dummy=65535, maximum=True, error_model="poisson").integrate(image)
        assert np.isnan(result.intensity).all()
        assert np.isnan(result.sigma).all()
        assert result.total == 0
        assert np.isnan(result.maximum)
        assert result.unusable == image.size


@pytest.mark.parametrize("split", ["no", "bbox"])
def test_regions_sum_what_is_usable(split: Any) -> None:
    rng = np.random.default_rng(1)
    image = rng.integers(0, 9, SHAPE).astype(np.uint16)
    image[5, 10:20] = 65535
    mask = rng.random(SHAPE) < 0.1
    boxes = {"whole": (0, 0, 87, 61), "corner": (80, 58, 87, 61), "lost": (8, 4, 30, 7)}
    result = small(mask=mask, dummy=65535, rois=boxes, split=split).integrate(image)
    good = np.where(mask | (image == 65535), 0, image)
    for name, (x0, y0, x1, y1) in boxes.items():
        assert result.rois[name] == good[y0:y1, x0:x1].sum()
    assert result.rois["whole"] == result.total


def test_threads_may_share_an_integrator() -> None:
    integrator = small(split="bbox", error_model="poisson")
    images = [np.random.default_rng(seed).poisson(5, SHAPE).astype(np.uint32) for seed in range(24)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(integrator.integrate, images))
    for image, result in zip(images, results, strict=True):
        np.testing.assert_array_equal(result.intensity, integrator.integrate(image).intensity)


def test_a_poni_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "detector.poni"
    Case(SMALL, SHAPE, 40, "q_nm^-1", None, True, 0.0, 0).pyfai().save(str(path))
    image = np.random.default_rng(3).poisson(9, SHAPE).astype(np.uint16)
    from_file = Integrator(path, bins=40).integrate(image)
    np.testing.assert_array_equal(from_file.intensity, small().integrate(image).intensity)


@pytest.mark.parametrize("name", ["Eiger2_1M", "Pilatus100k", "Xpad_flat"])
def test_known_detectors_bring_their_own_mask_and_pixel_places(name: str) -> None:
    from pyFAI.detectors import detector_factory
    from pyFAI.integrator.azimuthal import AzimuthalIntegrator

    pyfai = AzimuthalIntegrator(0.1, 0.02, 0.03, 0.1, detector=detector_factory(name), wavelength=1e-10)
    image = np.random.default_rng(3).poisson(9, pyfai.detector.shape).astype(np.uint32)
    for split in ("no", "bbox"):
        result = Integrator(pyfai, bins=300, split=split, polarization=0.9).integrate(image)  # type: ignore[arg-type]
        expected = pyfai.integrate1d(
            image, 300, unit="q_nm^-1", method=(split, "csc", "cython"), polarization_factor=0.9
        )
        used = expected.count > 0
        same(result.intensity, expected.intensity, used, 1e-6)
        same(result.count, expected.count, used, 1e-6)


BAD_OPTIONS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"mask": np.ones(SHAPE)}, MaskError, "hides every pixel"),
    ({"mask": np.zeros((3, 4))}, MaskError, r"3 × 4 pixels .*the images have 61 × 87"),
    ({"mask": "nowhere.edf"}, MaskError, r"nowhere\.edf: no such mask"),
    ({"bins": 0}, ConfigurationError, "bins is 0"),
    ({"bins": 10.5}, ConfigurationError, r"bins is 10\.5 .*whole number"),
    ({"mask": np.full(SHAPE, np.nan)}, MaskError, "hides every pixel"),
    ({"azimuth_range": (20.0, 20.0)}, GeometryError, "azimuth range from 20 to 20 is empty"),
    ({"bins": 65535}, ConfigurationError, "from 1 to 65534"),
    ({"bins": 65535, "split": "bbox"}, ConfigurationError, "from 1 to 65534"),
    ({"unit": "q_nm"}, GeometryError, '"q_nm" is not a unit .*q_nm'),
    ({"split": "pseudo"}, ConfigurationError, '"pseudo" is not a splitting .*no, bbox, full'),
    ({"error_model": "gauss"}, ConfigurationError, '"gauss" is not an error model'),
    ({"polarization": 1.5}, GeometryError, r"polarization is 1\.5"),
    ({"radial_range": (3.0, 3.0)}, GeometryError, "is empty"),
    ({"radial_range": (float("nan"), 3.0)}, GeometryError, "is empty"),
    ({"rois": {"direct": (0, 0, 88, 10)}}, ConfigurationError, r"region direct is \[0, 0, 88, 10\]"),
    ({"pixel_size": None}, GeometryError, "no pixel size"),
    ({"shape": None}, GeometryError, "names no image shape"),
]


@pytest.mark.parametrize(("options", "error", "message"), BAD_OPTIONS)
def test_bad_options_are_refused_with_the_reason(options: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        small(**options)


def test_an_image_of_another_shape_or_type_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(3, 4\), this integrator is for \(61, 87\)"):
        small().integrate(np.zeros((3, 4), np.uint16))
    with pytest.raises(ValueError, match=r"shape \(2, 61, 87\)"):
        small().integrate(np.zeros((2, *SHAPE), np.uint16))
    with pytest.raises(ValueError, match=r"shape \(2,\)"):
        small().integrate([1, 2])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="complex128"):
        small().integrate(np.zeros(SHAPE, complex))
    with pytest.raises(TypeError, match="<U1"):
        small().integrate(np.full(SHAPE, "a"))
