"""The kernels by themselves: what is compiled when, every type of pixel, and frames in parts by several threads."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest

from sisockdaq.integrate import Integrator, _blocks, _build, _split, _whole, kernels, load_geometry
from sisockdaq.integrate.geometry import locate_pixels
from sisockdaq.integrate.maps import build_map

SHAPE = (30, 41)
PLACE = {"distance": 0.1, "poni1": 0.001, "poni2": 0.0015, "wavelength": 1e-10}


def signatures(*modules: ModuleType) -> dict[str, int]:
    return {
        f"{module.__name__}.{name}": len(item.signatures)
        for module in modules
        for name, item in vars(module).items()
        if hasattr(item, "signatures")
    }


@pytest.mark.timeout(300)  # the first time, all of them are compiled here
@pytest.mark.parametrize(("split", "bins"), [("no", 30), ("bbox", 10), ("bbox", 100)])
def test_after_warming_up_nothing_is_left_to_compile(split: Any, bins: int) -> None:
    _build.warm_up()
    kernels.warm_up()
    modules = (_blocks, _build, _split, _whole)
    before = signatures(*modules)
    for dtype in (np.uint16, np.uint32):
        for model in (None, "poisson"):
            integrator = Integrator(
                PLACE,
                shape=SHAPE,
                pixel_size=75e-6,
                mask=np.eye(*SHAPE),
                split=split,
                bins=bins,
                error_model=model,  # type: ignore[arg-type]
                dummy=65535,
                maximum=True,
                rois={"all": (0, 0, 41, 30)},
            )
            integrator.integrate(np.ones(SHAPE, dtype))
    assert signatures(*modules) == before


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f4", "f8"])
@pytest.mark.parametrize("bins", [1, 2, 40])
def test_errors_of_every_type_add_one_for_pixels_below_one(dtype: str, bins: int) -> None:
    shape = (31, 301)
    image = np.random.default_rng(0).poisson(0.7, shape).astype(dtype)
    if image.dtype.kind != "u":
        image[::3] *= -1
    if dtype == "u4":
        image[0, 0] = 2**32 - 1
    integrator = Integrator(PLACE, shape=shape, pixel_size=75e-6, bins=bins, error_model="poisson")
    result = integrator.integrate(image)
    expected = np.zeros(bins)
    np.add.at(expected, integrator.bin_map.index[: image.size], np.maximum(image, 1).ravel().astype(float))
    np.testing.assert_array_equal(result.sum_variance, expected)
    assert result.total == image.sum()


@pytest.mark.parametrize("place", [0, 4095, 4096, 30 * 400 - 1])
@pytest.mark.parametrize("split", ["no", "bbox"])
def test_one_unusable_pixel_anywhere_is_found(place: int, split: Any) -> None:
    shape = (30, 400)
    image = np.full(shape, 3, np.uint16)
    image.flat[place] = 65535
    integrator = Integrator(
        PLACE, shape=shape, pixel_size=75e-6, split=split, dummy=65535, maximum=True, solid_angle=False, bins=50
    )
    result = integrator.integrate(image)
    assert (result.unusable, result.maximum, result.total) == (1, 3, 3 * (image.size - 1))
    np.testing.assert_allclose(result.intensity[~np.isnan(result.intensity)], 3, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
@pytest.mark.parametrize(("split", "bins"), [("no", 50), ("bbox", 20), ("bbox", 300), ("full", 300)])
def test_any_number_of_threads_gives_the_same_bits(split: Any, bins: int, dtype: Any) -> None:
    rng = np.random.default_rng(2)
    shape = (150, 201)
    image = (1e3 * rng.random(shape)).astype(dtype)
    image[rng.random(shape) < 0.01] = 7
    pixels = locate_pixels(load_geometry(PLACE, shape=shape, pixel_size=75e-6), "q_nm^-1", split=split)
    bin_map = build_map(pixels, rng.random(shape) < 0.02, bins=bins)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "_PART", 5000)
        for dummy in (None, 7.0):
            frame = kernels.prepare(image, dummy)
            one = kernels.sum_frame(bin_map, frame, errors=True, maximum=True)
            for threads in (2, 3, 8):
                other = kernels.sum_frame(bin_map, frame, errors=True, maximum=True, threads=threads)
                for name in ("signal", "variance", "lost_weight", "lost_count", "unusable", "total", "maximum"):
                    np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize("split", ["no", "bbox", "full"])
def test_pixels_that_begin_anywhere_in_memory_are_read(split: Any) -> None:
    memory = np.random.default_rng(3).integers(0, 99, 2 * SHAPE[0] * SHAPE[1] + 1, np.uint8)
    odd = memory[1:].view(np.uint16).reshape(SHAPE)
    integrator = Integrator(PLACE, shape=SHAPE, pixel_size=75e-6, split=split, bins=90, error_model="poisson")
    one, other = integrator.integrate(odd), integrator.integrate(odd.copy())
    np.testing.assert_array_equal(one.sum_signal, other.sum_signal)
    np.testing.assert_array_equal(one.sum_variance, other.sum_variance)


@pytest.mark.parametrize("split", ["no", "bbox", "full"])
@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinite_pixels_are_left_out_as_nan_is(split: Any, value: float) -> None:
    rng = np.random.default_rng(4)
    shape = (40, 150)
    image = rng.random(shape, np.float32) * 9
    lost = rng.random(shape) < 0.02
    integrator = Integrator(
        PLACE,
        shape=shape,
        pixel_size=75e-6,
        split=split,
        bins=60,
        error_model="poisson",
        maximum=True,
        rois={"part": (3, 2, 90, 30)},
    )
    infinite, missing = (np.where(lost, np.float32(fill), image) for fill in (value, np.nan))
    one, other = integrator.integrate(infinite), integrator.integrate(missing)
    assert one.unusable == lost.sum()
    assert (one.maximum, one.rois) == (other.maximum, other.rois) == (image[~lost].max(), one.rois)
    for name in ("intensity", "sigma", "count", "sum_normalization"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    cakes = [integrator.integrate2d(frame, azimuth_bins=9) for frame in (infinite, missing)]
    np.testing.assert_array_equal(cakes[0].intensity, cakes[1].intensity)
    np.testing.assert_array_equal(cakes[0].count, cakes[1].count)
