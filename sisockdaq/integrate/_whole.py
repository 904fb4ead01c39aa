"""Kernels without pixel splitting: every pixel counts to one bin.

The hot loop reads the numbers of four couples (`_couples`) as one uint64 and adds two pixels at a time, in their own
integer type. All index arithmetic is unsigned; with signed indices the compiled code would first test each for being
negative. Integer sums are exact (modulo 2⁶⁴). Pixels are added one by one where a block has unusable ones, where the
map has no couples, and at the end of a frame.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sisockdaq.integrate._blocks import BLOCK, block_maximum, has_unusable, unusable
from sisockdaq.integrate._jit import compiled, inner
from sisockdaq.integrate._lanes import add_four_couples, add_lanes

__all__ = ["ERRORS", "PACKED", "SUMS", "add_whole", "single_lanes"]

SUMS, ERRORS, PACKED = 0, 1, 2
"""What is added of a pixel: v; v and max(1, v); or the same, but v and zeros packed into one in couples."""


@compiled
def single_lanes(stride: int) -> int:
    """Return how many accumulators come before those of couples: two an entry, up to a line of the cache."""
    return (2 * stride + 7) // 8 * 8


@inner
def _add_couples(pixels: Any, words: Any, kind: int, banks: Any, start: int, stop: int) -> None:
    first, last = start >> 3, stop >> 3
    if kind == PACKED:
        for i in range(first, last):
            k = np.uint64(i)
            add_four_couples(pixels, "packed", k << np.uint64(3), words[k], banks)
    elif kind == ERRORS:
        for i in range(first, last):
            k = np.uint64(i)
            add_four_couples(pixels, "errors", k << np.uint64(3), words[k], banks)
    else:
        for i in range(first, last):
            k = np.uint64(i)
            add_four_couples(pixels, "sums", k << np.uint64(3), words[k], banks)


@inner
def _add_single(pixels: Any, i: Any, entry: Any, kind: int, banks: Any) -> None:
    number = banks.dtype.type
    value = number(pixels[i])
    if kind == SUMS:
        banks[entry] += value
    else:
        add_lanes(banks, entry << np.uint64(1), (value, max(value, number(1))))


@inner
def _add_usable(
    pixels: Any,
    index: Any,
    masked: Any,
    weight: Any,
    dummy: Any,
    kind: int,
    banks: Any,
    lost: Any,
    start: int,
    stop: int,
) -> int:
    found = 0
    for i in range(start, stop):
        entry = np.uint64(index[i])
        if unusable(pixels[i], dummy):
            lost[entry, 0] += weight[i]
            lost[entry, 1] += 1.0
            found += index[i] != masked
        else:
            _add_single(pixels, i, entry, kind, banks)
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
    kind: int,
    banks: Any,
    lost: Any,
    begin: int,
    end: int,
) -> Any:
    """Add the pixels from ``begin`` (a multiple of eight) up to ``end``; return maximum and number of unusable ones.

    Parameters
    ----------
    pixels : ndarray of any number type, (n,)
    words : ndarray of uint64, (⌊n / 8⌋,) or (0,)
        As `Couples.words`. (Other layouts: four items of `index` each.)
    index : ndarray of uint16, (4 ⌈n / 4⌉,)
        As `BinMap.index`; the largest value is ``stride - 1`` (masked).
    share : ndarray
        Not used here; of pixels that are split.
    weight : ndarray of float32, (n,)
        Added to ``lost[entry, 0]`` for each unusable pixel, as 1 is to ``lost[entry, 1]``.
    check : bool
        Whether to look for pixels that equal `dummy`, or are NaN or infinite.
    want_maximum : bool
        Whether the maximum is wanted; else `lowest` is returned.
    kind : int
        `SUMS`, `ERRORS` or `PACKED`. (Other layouts: whether there are errors.)
    banks : ndarray of uint64, int64 or float64, (single_lanes(stride) + lanes · couples,)
        The type that holds sums of `pixels`: those of single pixels, one or two an entry, then those of couples.
    lost : ndarray of float64, (stride, 2)
    """
    masked = np.uint16(stride - 1)
    highest, unusable = lowest, 0
    single, coupled = banks[: single_lanes(stride)], banks[single_lanes(stride) :]
    block = BLOCK if check or want_maximum else max(end - begin, 1)
    for start in range(begin, end, block):
        stop = min(start + block, end)
        careful = check and has_unusable(pixels, index, masked, dummy, start, stop)
        if want_maximum:
            highest = max(highest, block_maximum(pixels, index, masked, dummy, careful, lowest, start, stop))
        if careful:
            unusable += _add_usable(pixels, index, masked, weight, dummy, kind, single, lost, start, stop)
            continue
        whole = start if words.size == 0 else stop & ~7
        _add_couples(pixels, words, kind, coupled, start, whole)
        for i in range(np.uint64(whole), np.uint64(stop)):
            _add_single(pixels, i, np.uint64(index[i]), kind, single)
    return highest, unusable
