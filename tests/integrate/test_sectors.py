"""Sectors, several masks, batches and averages: each curve is what an integrator of its own would give."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sisockdaq.errors import ConfigurationError, GeometryError, MaskError
from sisockdaq.integrate import Integrator, Sector, average
from sisockdaq.integrate import geometry as geometry_module
from tests.integrate.geometries import PIXEL, Case, cases

SHAPE = (61, 87)
SMALL = {"distance": 0.1, "poni1": 0.002, "poni2": 0.0031, "rot1": 0.01, "wavelength": 1e-10}


def small(**options: Any) -> Integrator:
    return Integrator(SMALL, **{"shape": SHAPE, "pixel_size": PIXEL, "bins": 40, **options})


def picture(seed: int = 0, dtype: Any = np.uint16) -> Any:
    return np.random.default_rng(seed).poisson(30, SHAPE).astype(dtype)


@settings(max_examples=15, deadline=None)
@given(cases(), st.sampled_from(["no", "bbox", "full"]), st.floats(-180, 130), st.floats(10, 359))
def test_sectors_are_pyfais(case: Case, split: Any, begin: float, span: float) -> None:
    image = case.image(np.uint16, mean=50.0)
    ends = (begin, min(begin + span, 180.0))
    sectors = {
        "wedge": Sector(azimuth_range=ends),
        "angles": Sector(unit="2th_deg", bins=33),
        "half": Sector(mask=np.arange(case.shape[1]) * np.ones((case.shape[0], 1)) > case.shape[1] / 2),
    }
    ours = Integrator(case.parameters, **case.options(split=split, sectors=sectors)).integrate_all(image)
    assert list(ours) == list(sectors)
    wedge = case.reference(image, split, azimuth_range=ends)
    same(ours["wedge"], wedge)
    method = (split, "csc", "cython")
    common: dict[str, Any] = {
        "method": method,
        "polarization_factor": case.polarization,
        "correctSolidAngle": case.solid_angle,
    }
    same(ours["angles"], case.pyfai().integrate1d(image, 33, unit="2th_deg", mask=case.mask(), **common))
    both = case.mask() | np.asarray(sectors["half"].mask)
    same(ours["half"], case.pyfai().integrate1d(image, case.bins, unit=case.unit, mask=both, **common))


def same(ours: Any, theirs: Any) -> None:
    np.testing.assert_allclose(ours.axis, theirs.radial, rtol=1e-14)
    used = theirs.count > 1e-6
    np.testing.assert_allclose(ours.intensity[used], theirs.intensity[used], rtol=1e-6)


@pytest.mark.parametrize("split", ["no", "bbox", "full"])
@pytest.mark.parametrize("ends", [(170, 190), (170, -170), (-190, -170), (530, 550)])
def test_a_range_may_go_across_the_discontinuity(split: Any, ends: Any) -> None:
    ours = small(split=split, azimuth_range=ends).integrate(picture())
    pyfai = geometry_module.load_geometry(SMALL, shape=SHAPE, pixel_size=PIXEL)
    pyfai.setChiDiscAtZero()
    theirs = pyfai.integrate1d(picture(), 40, unit="q_nm^-1", method=(split, "csc", "cython"), azimuth_range=(170, 190))
    assert np.count_nonzero(theirs.count) > 3
    same(ours, theirs)


@pytest.mark.parametrize("ends", [(-180, 180), (0, 360), (-90, 300)])
def test_a_full_circle_is_no_restriction(ends: Any) -> None:
    np.testing.assert_array_equal(
        small(azimuth_range=ends).integrate(picture()).intensity, small().integrate(picture()).intensity
    )


def test_sectors_add_up_to_the_whole() -> None:
    quarters = {
        str(begin): Sector(azimuth_range=(begin, begin + 90), radial_range=(1, 60)) for begin in (-180, -90, 0, 90)
    }
    integrator = small(sectors=quarters, radial_range=(1, 60), error_model="poisson", rois={"all": (0, 0, 87, 61)})
    parts = integrator.integrate_all(picture())
    whole = integrator.integrate(picture())
    np.testing.assert_array_equal(sum(part.sum_signal for part in parts.values()), whole.sum_signal)
    np.testing.assert_allclose(sum(part.sum_variance for part in parts.values()), whole.sum_variance, rtol=1e-14)
    assert {part.total for part in parts.values()} == {whole.total}


def test_a_sector_takes_over_what_it_does_not_say(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    from sisockdaq.integrate import _places

    original = _places.locate_pixels
    monkeypatch.setattr(
        _places, "locate_pixels", lambda *args, **more: calls.append(args[1]) or original(*args, **more)
    )
    mask = np.random.default_rng(2).random(SHAPE) < 0.1
    options: dict[str, Any] = {
        "mask": mask,
        "radial_range": (0.5, 2.5),
        "azimuth_range": (-100, 60),
        "dark": np.full(SHAPE, 2.0),
        "dummy": 31,
        "error_model": "poisson",
    }
    integrator = small(
        **options,
        sectors={
            "same": Sector(),
            "fine": Sector(bins=77),
            "angle": Sector(unit="2th_deg"),
            "other": Sector(mask=~mask * 0),
        },
    )
    assert calls == ["q_nm^-1", "2th_deg"]
    assert integrator.sectors == ("same", "fine", "angle", "other")
    parts = integrator.integrate_all(picture(), monitor=3.0)
    whole = integrator.integrate(picture(), monitor=3.0)
    for name in ("same", "other"):
        np.testing.assert_array_equal(parts[name].intensity, whole.intensity)
        np.testing.assert_array_equal(parts[name].sigma, whole.sigma)
    fine = small(**{**options, "bins": 77}).integrate(picture(), monitor=3.0)
    np.testing.assert_array_equal(parts["fine"].intensity, fine.intensity)
    angle = small(**{**options, "unit": "2th_deg", "radial_range": None}).integrate(picture(), monitor=3.0)
    np.testing.assert_array_equal(parts["angle"].axis, angle.axis)
    assert parts["angle"].unit == "2th_deg"


BAD: list[tuple[Any, type[Exception], str]] = [
    (Sector(mask=np.ones(SHAPE)), MaskError, "sector s: the mask hides every pixel"),
    (Sector(mask=np.ones((3, 4))), MaskError, r"sector s: the mask: has 3 × 4 pixels"),
    (Sector(unit="q"), GeometryError, 'sector s: "q" is not a unit'),
    (Sector(bins=0), ConfigurationError, "sector s: bins is 0"),
    (Sector(azimuth_range=(3, 3)), GeometryError, "sector s: the azimuth range from 3 to 3 is empty"),
    (Sector(azimuth_range=(0, float("nan"))), GeometryError, "from 0 to nan is empty"),
    (Sector(azimuth_range=(100, 80)), GeometryError, "goes across both 0 and 180 degrees"),
    ({"azimuth_range": (0, 10)}, ConfigurationError, "sector s is a dict"),
]


@pytest.mark.parametrize(("sector", "error", "message"), BAD)
def test_a_bad_sector_is_named(sector: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        small(sectors={"s": sector})


@pytest.mark.parametrize("threads", [1, 3])
def test_a_batch_holds_each_frames_result(threads: int) -> None:
    integrator = small(
        error_model="poisson", maximum=True, rois={"r": (3, 4, 30, 20)}, split="bbox", threads=threads, dummy=33
    )
    images = np.stack([picture(seed) for seed in range(11)])
    monitors = np.linspace(1, 2, 11)
    batch = integrator.integrate_many(images, monitor=monitors, transmission=0.5)
    assert batch.intensity.shape == batch.sum_signal.shape == (len(batch), 40) == (11, 40)
    for number, image in enumerate(images):
        alone = integrator.integrate(image, monitor=monitors[number], transmission=0.5)
        for one in (batch[number], batch[number - 11]):
            for name in ("intensity", "sigma", "sum_signal", "sum_variance", "sum_normalization", "count"):
                np.testing.assert_array_equal(getattr(one, name), getattr(alone, name))
            assert (one.total, one.maximum, one.rois, one.unusable) == (
                alone.total,
                alone.maximum,
                alone.rois,
                alone.unusable,
            )
    with pytest.raises(IndexError):
        batch[11]


@pytest.mark.parametrize("split", ["no", "bbox", "full"])
def test_an_average_is_one_long_exposure(split: Any) -> None:
    integrator = small(split=split, maximum=True, rois={"r": (3, 4, 30, 20)})
    images = [picture(seed) for seed in range(7)]
    results = [integrator.integrate(image) for image in images]
    mean = average(results)
    long = integrator.integrate(np.sum(images, 0, dtype=np.uint32))
    np.testing.assert_allclose(mean.intensity, long.intensity / 7, rtol=1e-12)
    np.testing.assert_allclose(mean.sum_normalization, long.sum_normalization * 7, rtol=1e-12)
    if split == "no":
        np.testing.assert_array_equal(mean.sum_signal, long.sum_signal)
        assert mean.sum_signal.dtype == np.uint64
    assert (mean.total, mean.rois) == (long.total, long.rois)
    assert mean.maximum == max(image.max() for image in images)
    for again in (average(integrator.integrate_many(images)), integrator.integrate_sum(iter(images))):
        np.testing.assert_array_equal(again.intensity, mean.intensity)
    np.testing.assert_array_equal(results[0].intensity, integrator.integrate(images[0]).intensity)


def test_frames_weigh_as_much_as_their_monitor() -> None:
    integrator = small(error_model="poisson")
    image = picture()
    mean = integrator.integrate_sum([image, 3 * image], monitor=[1.0, 3.0])
    np.testing.assert_allclose(mean.intensity, integrator.integrate(image).intensity, rtol=1e-12)
    variance = np.sqrt(mean.sum_variance) / mean.sum_normalization
    np.testing.assert_allclose(mean.sigma, variance, rtol=1e-14)


def test_what_cannot_be_averaged_is_refused() -> None:
    with pytest.raises(ValueError, match="no results"):
        average([])
    with pytest.raises(ValueError, match="no images"):
        small().integrate_many([])
    one, two = small().integrate(picture()), small(radial_range=(1, 9)).integrate(picture())
    with pytest.raises(ConfigurationError, match="different axes"):
        average([one, two])
    back = small(background=([0, 1000], [1, 1])).integrate(picture())
    with pytest.raises(ConfigurationError, match="different backgrounds"):
        average([one, back])


def test_each_image_needs_its_monitor() -> None:
    images = [picture()] * 3
    with pytest.raises(ValueError, match="no monitor for image 2"):
        small().integrate_many(images, monitor=[1, 2])
    with pytest.raises(ValueError, match="more values of transmission than images"):
        small(threads=2).integrate_many(images, transmission=[1, 2, 3, 4])
    with pytest.raises(ValueError, match=r"shape \(3, 4\)"):
        small(threads=2).integrate_many([picture(), np.zeros((3, 4))])
