"""Kernels without pixel splitting: every pixel counts to one bin.

The hot loop reads four bin numbers as one uint64 and adds the four pixels, in their own integer type, to four separate
banks of accumulators: no addition waits for the one before, even where neighbouring pixels share a bin. All index
arithmetic is unsigned; with signed indices the compiled code would first test each for being negative. Integer sums are
exact (modulo 2⁶⁴).

Poisson errors need Σ max(1, v). For unsigned pixels this is Σ v plus the number of zeros, and both fit one accumulator:
a zero adds ``zero`` = 2^s, where s bits hold any bank's sum. `kernels.zero_step` says when that fits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from sisockdaq.integrate._blocks import BLOCK, block_maximum, has_unusable

__all__ = ["add_whole", "add_whole_counting_zeros", "add_whole_variance"]


@njit(nogil=True, cache=True)
def _add(pixels: Any, words: Any, index: Any, banks: Any, stride: int, start: int, stop: int) -> None:
    two, low = np.uint64(2), np.uint64(0xFFFF)
    bank1, bank2, bank3 = np.uint64(stride), np.uint64(2 * stride), np.uint64(3 * stride)
    for i in range(start >> 2, stop >> 2):
        k = np.uint64(i)
        word = words[k]
        j = k << two
        banks[word & low] += pixels[j]
        banks[((word >> np.uint64(16)) & low) + bank1] += pixels[j + np.uint64(1)]
        banks[((word >> np.uint64(32)) & low) + bank2] += pixels[j + np.uint64(2)]
        banks[(word >> np.uint64(48)) + bank3] += pixels[j + np.uint64(3)]
    for i in range(stop & ~3, stop):
        banks[np.uint64(index[i])] += pixels[i]


@njit(nogil=True, cache=True)
def _add_usable(pixels: Any, index: Any, weight: Any, dummy: Any, banks: Any, lost: Any, start: int, stop: int) -> None:
    for i in range(start, stop):
        value, entry = pixels[i], np.uint64(index[i])
        if value == dummy or value != value:
            lost[entry, 0] += weight[i]
            lost[entry, 1] += 1.0
        else:
            banks[entry] += value


@njit(nogil=True, cache=True)
def add_whole(
    pixels: Any,
    words: Any,
    index: Any,
    weight: Any,
    stride: int,
    check: bool,
    dummy: Any,
    want_maximum: bool,
    lowest: Any,
    banks: Any,
    lost: Any,
) -> Any:
    """Add all pixels up; return the maximum (`lowest` where it is not wanted).

    Parameters
    ----------
    pixels : ndarray of any number type, (n,)
    words : ndarray of uint64, (⌈n / 4⌉,)
        The same memory as `index`.
    index : ndarray of uint16, (4 ⌈n / 4⌉,)
        As `BinMap.index`; the largest value is ``stride - 1`` (masked).
    weight : ndarray of float32, (n,)
        Added to ``lost[entry, 0]`` for each unusable pixel, as 1 is to ``lost[entry, 1]``.
    check : bool
        Whether to look for pixels that equal `dummy` or are NaN.
    banks : ndarray of uint64, int64 or float64, (4 · stride,)
        The type that holds sums of `pixels`.
    lost : ndarray of float64, (stride, 2)
    """
    masked = np.uint16(stride - 1)
    highest = lowest
    block = BLOCK if check or want_maximum else max(pixels.size, 1)
    for start in range(0, pixels.size, block):
        stop = min(start + block, pixels.size)
        careful = check and has_unusable(pixels, index, masked, dummy, start, stop)
        if want_maximum:
            highest = max(highest, block_maximum(pixels, index, masked, dummy, careful, lowest, start, stop))
        if careful:
            _add_usable(pixels, index, weight, dummy, banks, lost, start, stop)
        else:
            _add(pixels, words, index, banks, stride, start, stop)
    return highest


@njit(nogil=True, cache=True)
def _add_zeros(pixels: Any, words: Any, index: Any, banks: Any, stride: int, zero: Any, start: int, stop: int) -> None:
    one, two, low = np.uint64(1), np.uint64(2), np.uint64(0xFFFF)
    bank1, bank2, bank3 = np.uint64(stride), np.uint64(2 * stride), np.uint64(3 * stride)
    for i in range(start >> 2, stop >> 2):
        k = np.uint64(i)
        word = words[k]
        j = k << two
        a, b = np.uint64(pixels[j]), np.uint64(pixels[j + np.uint64(1)])
        c, d = np.uint64(pixels[j + np.uint64(2)]), np.uint64(pixels[j + np.uint64(3)])
        # v - 1 has the bit of `zero` only where v is 0 and the subtraction wraps around.
        banks[word & low] += a + ((a - one) & zero)
        banks[((word >> np.uint64(16)) & low) + bank1] += b + ((b - one) & zero)
        banks[((word >> np.uint64(32)) & low) + bank2] += c + ((c - one) & zero)
        banks[(word >> np.uint64(48)) + bank3] += d + ((d - one) & zero)
    for i in range(stop & ~3, stop):
        value = np.uint64(pixels[i])
        banks[np.uint64(index[i])] += value + ((value - one) & zero)


@njit(nogil=True, cache=True)
def _add_usable_zeros(
    pixels: Any, index: Any, weight: Any, dummy: Any, banks: Any, lost: Any, zero: Any, start: int, stop: int
) -> None:
    one = np.uint64(1)
    for i in range(start, stop):
        entry = np.uint64(index[i])
        if pixels[i] == dummy:
            lost[entry, 0] += weight[i]
            lost[entry, 1] += 1.0
        else:
            value = np.uint64(pixels[i])
            banks[entry] += value + ((value - one) & zero)


@njit(nogil=True, cache=True)
def add_whole_counting_zeros(
    pixels: Any,
    words: Any,
    index: Any,
    weight: Any,
    stride: int,
    check: bool,
    dummy: Any,
    want_maximum: bool,
    lowest: Any,
    banks: Any,
    lost: Any,
    zero: Any,
) -> Any:
    """As `add_whole`, for unsigned pixels; each pixel of value 0 adds `zero` (uint64)."""
    masked = np.uint16(stride - 1)
    highest = lowest
    block = BLOCK if check or want_maximum else max(pixels.size, 1)
    for start in range(0, pixels.size, block):
        stop = min(start + block, pixels.size)
        careful = check and has_unusable(pixels, index, masked, dummy, start, stop)
        if want_maximum:
            highest = max(highest, block_maximum(pixels, index, masked, dummy, careful, lowest, start, stop))
        if careful:
            _add_usable_zeros(pixels, index, weight, dummy, banks, lost, zero, start, stop)
        else:
            _add_zeros(pixels, words, index, banks, stride, zero, start, stop)
    return highest


@njit(nogil=True, cache=True)
def add_whole_variance(pixels: Any, index: Any, check: bool, dummy: Any, variance: Any) -> None:
    """Add max(1, v) of every usable pixel to ``variance`` (float64): for pixels that `zero` does not serve."""
    for i in range(pixels.size):
        value = pixels[i]
        if check and (value == dummy or value != value):
            continue
        variance[np.uint64(index[i])] += max(np.float64(value), 1.0)
