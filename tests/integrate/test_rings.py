"""Rings hold the same pixels and shares as pyFAI's sparse matrix of the same geometry."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sisockdaq.integrate import Integrator
from sisockdaq.integrate.rings import Rings
from tests.integrate.geometries import Case, cases
from tests.integrate.ring_reference import make_rings
from tests.integrate.test_clip import CASE


@settings(max_examples=15, deadline=None)
@given(cases(), st.sampled_from(["no", "bbox", "full"]))
def test_they_are_the_rows_of_pyfais_matrix(case: Case, split: str) -> None:
    rings = make_rings(case, split)
    engine = case.pyfai().setup_sparse_integrator(
        case.shape, case.bins, mask=case.mask(), mask_checksum=1, unit=case.unit, split=split, algo="CSR", scale=False
    )
    weighted = np.zeros(case.shape[0] * case.shape[1], np.bool_)
    weighted[rings.pixel] = True
    kept = weighted[engine.indices] & (engine.data != 0)  # a pixel without weight is in no ring
    counted = np.concatenate([[0], np.cumsum(kept)])[engine.indptr]
    share = rings.share if rings.split else np.ones(rings.pixel.size, np.float32)
    shares = np.zeros((2, case.bins, weighted.size), np.float32) if weighted.size * case.bins < 2e6 else None
    if split != "full":
        assert np.array_equal(rings.start, counted)
        assert np.array_equal(rings.pixel, engine.indices[kept])
        np.testing.assert_allclose(share, engine.data[kept], rtol=1e-6, atol=1e-6)
    elif shares is not None:
        for number, (start, pixel, data) in enumerate(
            [(rings.start, rings.pixel, share), (counted, engine.indices[kept], engine.data[kept])]
        ):
            shares[number, np.repeat(np.arange(case.bins), np.diff(start)), pixel] = data
        np.testing.assert_allclose(shares[0], shares[1], rtol=1e-5, atol=2e-6)


def test_blocks_hold_every_ring_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for size in (1, 100, 10**6):
        monkeypatch.setattr("sisockdaq.integrate.rings.BLOCK", size)
        rings = make_rings(CASE, "bbox")
        assert [block.first for block in rings.blocks] == [0, *(block.stop for block in rings.blocks)][:-1]
        assert rings.blocks[-1].stop == rings.bins == CASE.bins
        assert rings.blocks[-1].end == rings.pixel.size
        assert all(block.end - block.begin <= max(size, rings.longest) for block in rings.blocks)


@pytest.mark.parametrize("split", ["no", "bbox", "full"])
def test_weights_that_are_no_numbers_are_in_no_ring(split: Any) -> None:
    integrator = Integrator(CASE.parameters, split=split, **CASE.options())
    weight = integrator.bin_map.normalization.copy()
    weight[::3], weight[1::5] = 0, np.nan
    dark = np.zeros(CASE.shape)
    dark[10:12] = np.inf
    rings = Rings.of(integrator.bin_map, normalization=weight, dark=dark)
    usable = np.isfinite(weight) & (weight != 0) & np.isfinite(dark.ravel())
    assert usable[rings.pixel].all()
    whole = Rings.of(integrator.bin_map)
    assert rings.pixel.size == np.count_nonzero(usable[whole.pixel])
    assert rings.nbytes < whole.nbytes + rings.dark.nbytes


def test_corrections_of_another_shape() -> None:
    integrator = Integrator(CASE.parameters, **CASE.options())
    with pytest.raises(ValueError, match="12 values do not fit the 60 × 70 pixels"):
        Rings.of(integrator.bin_map, dark=np.zeros((3, 4)))
