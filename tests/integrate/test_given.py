"""What cannot be meant is refused by name, and what was tacitly taken for something else before is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pyFAI.detectors import Detector
from pyFAI.integrator.azimuthal import AzimuthalIntegrator

from sisockdaq.errors import ConfigurationError, GeometryError
from sisockdaq.integrate import Integrator, Sector, average

SHAPE = (20, 30)
PLACE = {"distance": 0.1, "poni1": 0.001, "poni2": 0.0016, "rot1": 0.2, "wavelength": 1e-10}


def small(geometry: Any = PLACE, **options: Any) -> Integrator:
    return Integrator(geometry, **{"shape": SHAPE, "pixel_size": 1e-4, "bins": 20, **options})


def picture(dtype: Any = np.uint16) -> Any:
    return np.random.default_rng(0).poisson(9, SHAPE).astype(dtype)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"geometry": None}, GeometryError, "the geometry is None .*PONI file, a mapping"),
        ({"shape": (0, 5)}, GeometryError, r"shape is \(0, 5\) .*whole numbers above 0"),
        ({"shape": (20.5, 30)}, GeometryError, r"shape is \(20\.5, 30\)"),
        ({"pixel_size": "small"}, GeometryError, "pixel_size is 'small'"),
        ({"pixel_size": 0}, GeometryError, "pixel size is 0"),
        ({"bins": "10"}, ConfigurationError, "bins is '10'"),
        ({"bins": True}, ConfigurationError, "bins is True"),
        ({"threads": 1.5}, ConfigurationError, r"threads is 1\.5"),
        ({"polarization": "h"}, ConfigurationError, "polarization is 'h', not a number"),
        ({"polarization_angle": float("inf")}, GeometryError, "polarization_angle is inf"),
        ({"radial_range": 5}, ConfigurationError, r"radial_range is 5 .*\(begin, end\)"),
        ({"radial_range": (0, float("inf"))}, GeometryError, "the radial range has no end"),
        ({"radial_range": (1e6, 2e6)}, GeometryError, "begins beyond the last pixel .*unit of the axis"),
        ({"radial_range": (-5, -1)}, GeometryError, "ends before the first pixel"),
        ({"azimuth_range": ("a", 1)}, ConfigurationError, "the begin of azimuth_range is 'a'"),
        ({"dummy": "x"}, ConfigurationError, "dummy is 'x', not a number"),
        ({"background": 5}, ConfigurationError, "the background is of type int"),
        ({"background_scale": None}, ConfigurationError, "background_scale is None"),
        ({"rois": {"a": (1, 2, 3)}}, ConfigurationError, r"region a is \(1, 2, 3\)"),
        ({"rois": [1]}, ConfigurationError, "rois is of type list"),
        ({"sectors": [Sector()]}, ConfigurationError, "sectors is of type list"),
        ({"sectors": {"s": Sector(radial_range=(900, 901))}}, GeometryError, "sector s: the radial range begins"),
        ({"cache": 3}, ConfigurationError, "cache is 3"),
    ],
)
def test_options(options: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        small(**options)


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (None, TypeError, "the image is None, not an array"),
        ("image.edf", TypeError, r"'image\.edf', not an array: read files"),
        ([[1], [1, 2]], ValueError, "not of one length"),
        (
            np.ma.masked_array(np.zeros(SHAPE), mask=np.eye(*SHAPE, dtype=bool)),
            TypeError,
            r"masked array.*filled\(value\)",
        ),
        (np.zeros((0, 0)), ValueError, r"shape \(0, 0\)"),
        (np.zeros(SHAPE, object), TypeError, "pixels of type object"),
    ],
)
def test_images(image: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        small().integrate(image)


@pytest.mark.parametrize("monitor", [None, "3", np.array([1, 2]), True, 1j])
def test_a_monitor_is_a_number(monitor: Any) -> None:
    with pytest.raises(ValueError, match=r"the monitor is .*, and must be a number above 0"):
        small().integrate(picture(), monitor=monitor)


def test_batches() -> None:
    integrator, image = small(), picture()
    assert integrator.integrate_many([image], monitor=np.array(2.0)).intensity.shape == (1, 20)
    with pytest.raises(ValueError, match="the images are one image: use integrate"):
        integrator.integrate_many(image)
    with pytest.raises(TypeError, match="the images are 5"):
        integrator.integrate_many(5)  # type: ignore[arg-type]
    for threads in (1, 2):
        with pytest.raises(ValueError, match="image 1: the image has shape"):
            small(threads=threads).integrate_many([image, image[1:]])
        with pytest.raises(ValueError, match="there are no images"):
            small(threads=threads).integrate_sum(np.zeros((0, *SHAPE)))
    with pytest.raises(TypeError, match="to be averaged is of type int"):
        average([1])  # type: ignore[list-item]


@pytest.mark.parametrize("bins", [0, 2.5, True, "x"])
def test_bins_of_cakes(bins: Any) -> None:
    with pytest.raises(ConfigurationError, match="bins is"):
        small().integrate2d(picture(), bins=bins)
    with pytest.raises(ConfigurationError, match="azimuth_bins is"):
        small().integrate2d(picture(), azimuth_bins=bins)


def test_clipping_and_medians() -> None:
    integrator, image = small(), picture()
    with pytest.raises(ConfigurationError, match="threshold is 'x'"):
        integrator.sigma_clip(image, threshold="x")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"iterations is 1\.5"):
        integrator.sigma_clip(image, iterations=1.5)  # type: ignore[arg-type]
    wrong: list[Any] = ["a", None, []]
    for quantiles in wrong:
        with pytest.raises(ConfigurationError, match="quantiles is"):
            integrator.median(image, quantiles=quantiles)
    with pytest.raises(ConfigurationError, match=r'no sector "left" .*right'):
        small(sectors={"right": Sector()}).axis_of("left")


def test_half_and_long_floats_are_integrated() -> None:
    expected = small().integrate(picture(np.float32))
    for dtype in (np.float16, np.longdouble):
        np.testing.assert_allclose(small().integrate(picture(dtype)).intensity, expected.intensity, rtol=1e-12)


def test_a_detector_of_one_row_has_a_mask() -> None:
    mask = np.arange(30)[None] % 4 == 0
    image = np.arange(30, dtype=np.uint16)[None]
    for given in (mask, mask[None]):
        assert small(shape=(1, 30), mask=given).integrate(image).total == image[~mask].sum()


@pytest.mark.parametrize("split", ["no", "bbox"])
@pytest.mark.parametrize("angle", [30.0, 90.0, -140.0])
def test_the_plane_of_polarization_may_be_turned(split: Any, angle: float) -> None:
    from pyFAI.containers import PolarizationDescription

    pyfai = AzimuthalIntegrator(0.002, 0.001, 0.0016, 0.2, detector=Detector(1e-4, 1e-4, max_shape=SHAPE))
    ours = Integrator(pyfai, bins=20, unit="2th_deg", split=split, polarization=0.9, polarization_angle=angle)
    plane = PolarizationDescription(0.9, np.deg2rad(angle))
    question = {"unit": "2th_deg", "method": (split, "csr", "cython"), "polarization_factor": plane}
    theirs = pyfai.integrate1d(picture(), 20, **question)
    np.testing.assert_allclose(ours.integrate(picture()).intensity, theirs.intensity, rtol=1e-6)
    cake = pyfai.integrate2d_ng(picture(), 20, 6, **question)
    mine = ours.integrate2d(picture(), azimuth_bins=6)
    np.testing.assert_allclose(mine.sum_normalization, cake.sum_normalization, rtol=1e-6)


def test_dark_and_flat_of_pyfais_object_are_used() -> None:
    detector = Detector(1e-4, 1e-4, max_shape=SHAPE)
    detector.set_darkcurrent(np.full(SHAPE, 2.0, np.float32))
    detector.set_flatfield(np.full(SHAPE, 0.5, np.float32))
    pyfai = AzimuthalIntegrator(0.1, 0.001, 0.0016, detector=detector, wavelength=1e-10)
    theirs = pyfai.integrate1d(picture(), 20, method=("no", "csr", "cython"))
    np.testing.assert_allclose(Integrator(pyfai, bins=20).integrate(picture()).intensity, theirs.intensity, rtol=1e-6)


def test_a_bin_with_a_share_below_zero_stays_when_pixels_are_lost() -> None:
    place = 0.0012765342478120178, 0.003105397751120299, 0.0038817471889003733
    tilt = 0.04303804794971304, -0.06448781504875929, 1.5707963267948966
    pixel = 0.00015526988755601494
    pyfai = AzimuthalIntegrator(*place, *tilt, detector=Detector(pixel, pixel, max_shape=(40, 50)))
    image = np.random.default_rng(0).poisson(9, (40, 50)).astype(np.float32)
    image[3, 5] = np.nan
    theirs = pyfai.integrate1d(image, 100, unit="2th_rad", method=("full", "csr", "cython"))
    assert (theirs.count < -1e-3).any()
    ours = Integrator(pyfai, bins=100, unit="2th_rad", split="full").integrate(image)
    np.testing.assert_allclose(ours.count, theirs.count, rtol=1e-6, atol=1e-6)
