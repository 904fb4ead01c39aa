"""The kernels by themselves: what is compiled when, and when zeros can be counted within a sum."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest

from sisockdaq.integrate import Integrator, _blocks, _build, _split, _whole, kernels
from sisockdaq.integrate.kernels import zero_step

SHAPE = (30, 41)
PLACE = {"distance": 0.1, "poni1": 0.001, "poni2": 0.0015, "wavelength": 1e-10}


def signatures(*modules: ModuleType) -> dict[str, int]:
    return {
        f"{module.__name__}.{name}": len(item.signatures)
        for module in modules
        for name, item in vars(module).items()
        if hasattr(item, "signatures")
    }


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


@pytest.mark.parametrize(
    ("dtype", "most", "expected"),
    [
        (np.uint8, 1000, 1 << 18),
        (np.uint16, (1 << 24) - 1, 1 << 40),
        (np.uint16, 1 << 24, None),
        (np.uint32, 65535, 1 << 48),
        (np.uint32, 65536, None),
        (np.uint64, 1, None),
        (np.int32, 1, None),
        (np.float32, 1, None),
    ],
)
def test_zeros_are_counted_within_the_sum_where_both_fit(dtype: Any, most: int, expected: int | None) -> None:
    assert zero_step(np.dtype(dtype), most) == expected


@pytest.mark.parametrize("bins", [1, 2, 40])
def test_errors_are_the_same_whether_zeros_fit_or_not(bins: int) -> None:
    shape = (300, 301)  # one bin of 90300 pixels is more than uint32 sums leave room for
    image = np.random.default_rng(0).poisson(0.7, shape).astype(np.uint32)
    image[0, 0] = 2**32 - 1
    integrator = Integrator(PLACE, shape=shape, pixel_size=75e-6, bins=bins, error_model="poisson")
    result = integrator.integrate(image)
    expected = np.zeros(bins)
    np.add.at(expected, integrator.bin_map.index[: image.size], np.maximum(image, 1).ravel().astype(float))
    np.testing.assert_array_equal(result.sum_variance, expected)
    assert result.total == image.sum(dtype=np.uint64)


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
