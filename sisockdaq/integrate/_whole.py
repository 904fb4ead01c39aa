"""Kernels without pixel splitting: every pixel counts to one bin.

The hot loop reads four bin numbers as one uint64 and adds the four pixels, in their own integer type, to four separate
banks of accumulators: no addition waits for the one before, even where neighbouring pixels share a bin. All index
arithmetic is unsigned; with signed indices the compiled code would first test each for being negative. Integer sums are
exact (modulo 2⁶⁴).

With Poisson errors each entry has two accumulators (*lanes*), Σ v and Σ max(1, v), that are added to at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sisockdaq.integrate._blocks import BLOCK, block_maximum, four_places, has_unusable
from sisockdaq.integrate._jit import compiled, inner
from sisockdaq.integrate._lanes import add_four_whole, add_lanes

__all__ = ["add_whole"]


@inner
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


@inner
def _add_errors(pixels: Any, words: Any, index: Any, banks: Any, stride: int, start: int, stop: int) -> None:
    for i in range(start >> 2, stop >> 2):
        k = np.uint64(i)
        add_four_whole(pixels, k << np.uint64(2), four_places(words[k], stride), banks)
    number = banks.dtype.type
    for i in range(stop & ~3, stop):
        value = number(pixels[i])
        add_lanes(banks, np.uint64(index[i]) << np.uint64(1), (value, max(value, number(1))))


@inner
def _add_usable(
    pixels: Any,
    index: Any,
    masked: Any,
    weight: Any,
    dummy: Any,
    errors: bool,
    banks: Any,
    lost: Any,
    start: int,
    stop: int,
) -> int:
    number = banks.dtype.type
    found = 0
    for i in range(start, stop):
        entry = np.uint64(index[i])
        if pixels[i] == dummy or pixels[i] != pixels[i]:
            lost[entry, 0] += weight[i]
            lost[entry, 1] += 1.0
            found += index[i] != masked
            continue
        value = number(pixels[i])
        if errors:
            add_lanes(banks, entry << np.uint64(1), (value, max(value, number(1))))
        else:
            banks[entry] += value
    return found


@compiled
def add_whole(
    pixels: Any,
    words: Any,
    index: Any,
    share: Any,
    weight: Any,
    stride: int,
    check: bool,
    dummy: Any,
    want_maximum: bool,
    lowest: Any,
    errors: bool,
    banks: Any,
    lost: Any,
    begin: int,
    end: int,
) -> Any:
    """Add the pixels from ``begin`` (a multiple of four) up to ``end``; return maximum and number of unusable ones.

    Parameters
    ----------
    pixels : ndarray of any number type, (n,)
    words : ndarray of uint64, (⌈n / 4⌉,)
        The same memory as `index`.
    index : ndarray of uint16, (4 ⌈n / 4⌉,)
        As `BinMap.index`; the largest value is ``stride - 1`` (masked).
    share : ndarray
        Not used here; of pixels that are split.
    weight : ndarray of float32, (n,)
        Added to ``lost[entry, 0]`` for each unusable pixel, as 1 is to ``lost[entry, 1]``.
    check : bool
        Whether to look for pixels that equal `dummy` or are NaN.
    want_maximum : bool
        Whether the maximum is wanted; else `lowest` is returned.
    errors : bool
        Whether there is a second lane.
    banks : ndarray of uint64, int64 or float64, (4 · stride · lanes,)
        The type that holds sums of `pixels`.
    lost : ndarray of float64, (stride, 2)
    """
    masked = np.uint16(stride - 1)
    highest, unusable = lowest, 0
    block = BLOCK if check or want_maximum else max(end - begin, 1)
    for start in range(begin, end, block):
        stop = min(start + block, end)
        careful = check and has_unusable(pixels, index, masked, dummy, start, stop)
        if want_maximum:
            highest = max(highest, block_maximum(pixels, index, masked, dummy, careful, lowest, start, stop))
        if careful:
            unusable += _add_usable(pixels, index, masked, weight, dummy, errors, banks, lost, start, stop)
        elif errors:
            _add_errors(pixels, words, index, banks, stride, start, stop)
        else:
            _add(pixels, words, index, banks, stride, start, stop)
    return highest, unusable
