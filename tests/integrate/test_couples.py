"""Couples stand for the pixels that they were made of, and their packed sums stay exact at the limits of their bits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sisockdaq.integrate import Integrator
from sisockdaq.integrate._couples import find_couples

PLACE = {"distance": 0.1, "poni1": 0.001, "poni2": 0.0015, "wavelength": 1e-10}

runs = st.lists(st.tuples(st.integers(0, 9), st.integers(1, 90)), min_size=1, max_size=40)


def padded(index: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    return np.concatenate([index, np.full(-index.size % 4, 11, np.uint16)])


@given(runs=runs)
def test_the_entries_of_couples_are_those_of_their_pixels(runs: list[tuple[int, int]]) -> None:
    index = np.repeat([entry for entry, _ in runs], [times for _, times in runs]).astype(np.uint16)
    index = np.tile(index, 1 + 16_000 // index.size)
    couples = find_couples(padded(index), index.size)
    numbers = couples.words.view(np.uint16)
    assert numbers.size == index.size // 8 * 4
    np.testing.assert_array_equal(couples.entries[numbers].ravel(), index[: 2 * numbers.size])
    same = numbers[1:] == numbers[:-1]
    assert not same.any(), "an addition would wait for the one before"


def test_a_number_stands_for_no_more_couples_than_16_bits_count() -> None:
    pixels = 4_000_000
    couples = find_couples(np.zeros(pixels, np.uint16), pixels)
    assert np.bincount(couples.words.view(np.uint16)).max() <= 0xFFFF


def test_where_nearly_every_couple_is_another_there_are_none() -> None:
    index = np.random.default_rng(0).integers(0, 60_000, 80_000).astype(np.uint16)
    assert find_couples(index, index.size).words.size == 0


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
@pytest.mark.parametrize("every", [1, 2, 3])
def test_the_largest_pixels_and_zeros_are_counted_exactly(
    dtype: type[np.unsignedinteger[npt.NBitBase]], every: int
) -> None:
    shape = (601, 701)
    image = np.zeros(shape, dtype)
    image.flat[::every] = np.iinfo(dtype).max
    result = Integrator(PLACE, shape=shape, pixel_size=75e-6, bins=1, error_model="poisson").integrate(image)
    lit = -(-image.size // every)
    total = lit * int(np.iinfo(dtype).max)
    assert (int(result.sum_signal[0]), result.total) == (total, total)
    assert result.sum_variance is not None
    assert result.sum_variance[0] == total + image.size - lit


def test_many_bins_are_summed_without_couples() -> None:
    shape = (150, 170)
    image = np.random.default_rng(1).integers(0, 9, shape).astype(np.uint32)
    integrator = Integrator(PLACE, shape=shape, pixel_size=75e-6, bins=30_000, error_model="poisson")
    assert integrator.bin_map.couples.words.size == 0
    result = integrator.integrate(image)
    expected = np.bincount(integrator.bin_map.index[: image.size], image.ravel(), 30_000)
    np.testing.assert_array_equal(result.sum_signal, expected)
    assert result.total == image.sum()
