"""Bin maps: the three layouts hold pyFAI's own matrix of pixels and bins."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sisockdaq.integrate import Integrator, load_geometry
from sisockdaq.integrate.geometry import locate_pixels
from sisockdaq.integrate.maps import BinMap, build_map

SHAPE = (60, 80)
PLACE = {"distance": 0.1, "poni1": 0.0022, "poni2": 0.0031, "rot1": 0.1, "wavelength": 1e-10}


def matrix(bin_map: BinMap) -> Any:
    """Unfold a map into the share of each pixel in each bin, (pixels, bins)."""
    pixels, bins = SHAPE[0] * SHAPE[1], bin_map.bins
    shares = np.zeros((pixels, bins + 2))  # from bin -1 on
    index = bin_map.index[:pixels].astype(int)
    for pixel in np.flatnonzero(index < bin_map.entries):
        entry = index[pixel]
        if bin_map.layout == "whole":
            shares[pixel, entry + 1] = 1
        elif bin_map.layout == "pairs":
            near, far = (entry // 2, entry // 2 + 1) if entry % 2 == 0 else (entry // 2 + 1, entry // 2)
            shares[pixel, near + 1] = bin_map.share[pixel]
            shares[pixel, far + 1] = 1 - bin_map.share[pixel]
        else:
            before, after = bin_map.share[pixel]
            shares[pixel, entry : entry + 3] = before, 1 - before - after, after
    assert not shares[:, [0, -1]].any()
    side = bin_map.side
    for k, (pixel, first) in enumerate(zip(side.pixel, side.first, strict=True)):
        part = side.share[side.start[k] : side.start[k + 1]]
        shares[pixel, first + 1 : first + 1 + part.size] = part
    return shares[:, 1:-1]


@pytest.mark.parametrize(
    ("split", "bins", "layout", "has_side"),
    [
        ("no", 200, "whole", False),
        ("bbox", 12, "pairs", False),
        ("bbox", 70, "pairs", True),
        ("bbox", 100, "triples", False),
        ("bbox", 600, "triples", True),
        ("bbox", 20_000, "triples", True),
        ("bbox", 65_534, "triples", True),
        ("full", 12, "pairs", False),
        ("full", 70, "pairs", True),
        ("full", 120, "triples", False),
        ("full", 300, "triples", True),
        ("full", 20_000, "triples", True),
        ("full", 65_534, "triples", True),
    ],
)
def test_maps_hold_pyfais_matrix(split: Any, bins: int, layout: str, has_side: bool) -> None:
    mask = np.random.default_rng(0).random(SHAPE) < 0.05
    ours = Integrator(PLACE, shape=SHAPE, pixel_size=75e-6, split=split, bins=bins, mask=mask)
    assert ours.bin_map.layout == layout
    assert (ours.bin_map.side.pixel.size > 0) == has_side
    pyfai = load_geometry(PLACE, shape=SHAPE, pixel_size=75e-6)
    image = np.random.default_rng(1).poisson(50, SHAPE).astype(np.uint32)
    expected = pyfai.integrate1d(
        image, bins, unit="q_nm^-1", method=(split, "csc", "cython"), mask=mask, error_model="poisson"
    )
    if bins <= 600:
        engine = pyfai.setup_sparse_integrator(SHAPE, bins, mask=mask, unit="q_nm^-1", split=split, algo="CSR")
        dense = np.zeros((bins, image.size))
        for b in range(bins):
            row = slice(engine.indptr[b], engine.indptr[b + 1])
            dense[b, engine.indices[row]] = engine.data[row]
        np.testing.assert_allclose(matrix(ours.bin_map), dense.T, rtol=3e-7, atol=6e-8)
    result = Integrator(
        PLACE, shape=SHAPE, pixel_size=75e-6, split=split, bins=bins, mask=mask, error_model="poisson"
    ).integrate(image)
    used = expected.count > 0
    np.testing.assert_allclose(result.intensity[used], expected.intensity[used], rtol=1e-6)
    np.testing.assert_allclose(result.sigma[used], expected.sigma[used], rtol=1e-6)
    assert result.total == image[~mask].sum()


@pytest.mark.parametrize("split", ["no", "bbox"])
def test_a_pixel_without_weight_takes_part_in_the_range_only(split: Any) -> None:
    pixels = locate_pixels(load_geometry(PLACE, shape=SHAPE, pixel_size=75e-6), "q_nm^-1", split=split)
    last = int(np.argmax(pixels.centre))
    pixels.normalization[last] = 0
    bin_map = build_map(pixels, None, bins=20)
    assert bin_map.index[last] == bin_map.masked
    assert np.count_nonzero(bin_map.index == bin_map.masked) == 1
    assert bin_map.axis[-1] + (bin_map.axis[1] - bin_map.axis[0]) / 2 >= pixels.centre[last]
