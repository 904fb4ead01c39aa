"""Kernels with bounding-box splitting: a pixel gives several neighbouring bins a share each.

A pixel adds to one entry, a group of accumulators (*lanes*) that lie together, and only after the frame the entries
are unfolded into bins. For ``pairs`` the lanes are Σ share·v and Σ v: the other bin's part is their difference. For
``runs`` they are Σ first·v, Σ last·v and Σ v: the bins between share the rest equally. With Poisson errors
Σ share²·max(1, v) of each follows. Sums are float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from sisockdaq.integrate._blocks import BLOCK, block_maximum, has_unusable

__all__ = [
    "add_pairs",
    "add_runs",
    "add_side",
    "unfold_pairs",
    "unfold_pairs_errors",
    "unfold_runs",
    "unfold_runs_errors",
]


@njit(nogil=True, cache=True)
def _add_pairs(pixels: Any, words: Any, index: Any, share: Any, banks: Any, stride: int, start: int, stop: int) -> None:
    one, two, low = np.uint64(1), np.uint64(2), np.uint64(0xFFFF)
    bank1, bank2, bank3 = np.uint64(2 * stride), np.uint64(4 * stride), np.uint64(6 * stride)
    for i in range(start >> 2, stop >> 2):
        k = np.uint64(i)
        word = words[k]
        j = k << two
        lane = (word & low) << one
        value = np.float64(pixels[j])
        banks[lane] += value * np.float64(share[j])
        banks[lane + one] += value
        j += one
        lane = (((word >> np.uint64(16)) & low) << one) + bank1
        value = np.float64(pixels[j])
        banks[lane] += value * np.float64(share[j])
        banks[lane + one] += value
        j += one
        lane = (((word >> np.uint64(32)) & low) << one) + bank2
        value = np.float64(pixels[j])
        banks[lane] += value * np.float64(share[j])
        banks[lane + one] += value
        j += one
        lane = ((word >> np.uint64(48)) << one) + bank3
        value = np.float64(pixels[j])
        banks[lane] += value * np.float64(share[j])
        banks[lane + one] += value
    for i in range(stop & ~3, stop):
        lane = np.uint64(index[i]) << one
        value = np.float64(pixels[i])
        banks[lane] += value * np.float64(share[i])
        banks[lane + one] += value


@njit(nogil=True, cache=True)
def _add_pairs_errors(pixels: Any, index: Any, share: Any, banks: Any, stride: int, start: int, stop: int) -> None:
    one, two, three = np.uint64(1), np.uint64(2), np.uint64(3)
    for i in range(start, stop):
        j = np.uint64(i)
        lane = (np.uint64(index[j]) << two) + np.uint64(4 * stride) * (j & three)
        value, near = np.float64(pixels[j]), np.float64(share[j])
        far, variance = 1.0 - near, max(value, 1.0)
        banks[lane] += value * near
        banks[lane + one] += value
        banks[lane + two] += variance * (near * near)
        banks[lane + three] += variance * (far * far)


@njit(nogil=True, cache=True)
def _add_usable_pairs(
    pixels: Any,
    index: Any,
    share: Any,
    weight: Any,
    dummy: Any,
    lanes: int,
    banks: Any,
    lost: Any,
    start: int,
    stop: int,
) -> None:
    for i in range(start, stop):
        entry, near = np.uint64(index[i]), np.float64(share[i])
        if pixels[i] == dummy or pixels[i] != pixels[i]:
            lost[entry, 0] += weight[i] * near
            lost[entry, 1] += weight[i]
            lost[entry, 2] += near
            lost[entry, 3] += 1.0
            continue
        lane = entry * np.uint64(lanes)
        value = np.float64(pixels[i])
        banks[lane] += value * near
        banks[lane + np.uint64(1)] += value
        if lanes == 4:
            far, variance = 1.0 - near, max(value, 1.0)
            banks[lane + np.uint64(2)] += variance * (near * near)
            banks[lane + np.uint64(3)] += variance * (far * far)


@njit(nogil=True, cache=True)
def add_pairs(
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
) -> Any:
    """Add all pixels up over a ``pairs`` map; arguments as in `_whole.add_whole`.

    ``banks`` is float64, (4 · stride · lanes,) with 2 lanes, or 4 with `errors`; ``lost`` is (stride, 4): the first two
    lanes of the lost weights, and of their number.
    """
    masked = np.uint16(stride - 1)
    highest = lowest
    lanes = 4 if errors else 2
    block = BLOCK if check or want_maximum else max(pixels.size, 1)
    for start in range(0, pixels.size, block):
        stop = min(start + block, pixels.size)
        careful = check and has_unusable(pixels, index, masked, dummy, start, stop)
        if want_maximum:
            highest = max(highest, block_maximum(pixels, index, masked, dummy, careful, lowest, start, stop))
        if careful:
            _add_usable_pairs(pixels, index, share, weight, dummy, lanes, banks, lost, start, stop)
        elif errors:
            _add_pairs_errors(pixels, index, share, banks, stride, start, stop)
        else:
            _add_pairs(pixels, words, index, share, banks, stride, start, stop)
    return highest


@njit(nogil=True, cache=True)
def unfold_pairs(lanes: Any, bins: int, column: int, out: Any) -> None:
    """Add the lanes ``column`` (share·v) and ``column + 1`` (v) of a ``pairs`` map to the bins in `out` (bins + 1,)."""
    for b in range(bins):
        low, high = lanes[2 * b, column], lanes[2 * b + 1, column]
        out[b] += low + (lanes[2 * b + 1, column + 1] - high)
        out[b + 1] += high + (lanes[2 * b, column + 1] - low)


@njit(nogil=True, cache=True)
def unfold_pairs_errors(lanes: Any, bins: int, out: Any) -> None:
    """Add the lanes 2 and 3 (share²·variance of the stored and of the other share) to the bins in `out`."""
    for b in range(bins):
        out[b] += lanes[2 * b, 2] + lanes[2 * b + 1, 3]
        out[b + 1] += lanes[2 * b, 3] + lanes[2 * b + 1, 2]


@njit(nogil=True, cache=True)
def _add_runs(pixels: Any, index: Any, share: Any, banks: Any, start: int, stop: int) -> None:
    one, two = np.uint64(1), np.uint64(2)
    for i in range(start, stop):
        j = np.uint64(i)
        lane = np.uint64(index[j]) << two
        value = np.float64(pixels[j])
        banks[lane] += value * np.float64(share[j, np.uint64(0)])
        banks[lane + one] += value * np.float64(share[j, one])
        banks[lane + two] += value


@njit(nogil=True, cache=True)
def _add_usable_runs(
    pixels: Any, index: Any, share: Any, weight: Any, dummy: Any, banks: Any, lost: Any, start: int, stop: int
) -> None:
    for i in range(start, stop):
        entry = np.uint64(index[i])
        first, last = np.float64(share[i, 0]), np.float64(share[i, 1])
        if pixels[i] == dummy or pixels[i] != pixels[i]:
            lost[entry, 0] += weight[i] * first
            lost[entry, 1] += weight[i] * last
            lost[entry, 2] += weight[i]
            lost[entry, 3] += first
            lost[entry, 4] += last
            lost[entry, 5] += 1.0
            continue
        lane, value = entry << np.uint64(2), np.float64(pixels[i])
        banks[lane] += value * first
        banks[lane + np.uint64(1)] += value * last
        banks[lane + np.uint64(2)] += value


@njit(nogil=True, cache=True)
def _add_runs_errors(
    pixels: Any, index: Any, share: Any, careful: bool, dummy: Any, errors: Any, start: int, stop: int
) -> None:
    one, two = np.uint64(1), np.uint64(2)
    for i in range(start, stop):
        j = np.uint64(i)
        if careful and (pixels[j] == dummy or pixels[j] != pixels[j]):
            continue
        lane = np.uint64(index[j]) << two
        first, last = np.float64(share[j, np.uint64(0)]), np.float64(share[j, one])
        between, variance = 1.0 - first - last, max(np.float64(pixels[j]), 1.0)
        errors[lane] += variance * (first * first)
        errors[lane + one] += variance * (last * last)
        errors[lane + two] += variance * (between * between)


@njit(nogil=True, cache=True)
def add_runs(
    pixels: Any,
    index: Any,
    share: Any,
    weight: Any,
    stride: int,
    check: bool,
    dummy: Any,
    want_maximum: bool,
    lowest: Any,
    banks: Any,
    errors: Any,
    lost: Any,
) -> Any:
    """Add all pixels up over a ``runs`` map; arguments as in `_whole.add_whole`.

    ``banks`` is float64, (4 · stride,), of each four the first three in use; ``errors`` the same, or empty where none
    are wanted; ``lost`` is (stride, 6): three lanes of the lost weights, and of their number.
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
            _add_usable_runs(pixels, index, share, weight, dummy, banks, lost, start, stop)
        else:
            _add_runs(pixels, index, share, banks, start, stop)
        if errors.size > 0:
            _add_runs_errors(pixels, index, share, careful, dummy, errors, start, stop)
    return highest


@njit(nogil=True, cache=True)
def unfold_runs(lanes: Any, bins: int, column: int, out: Any) -> None:
    """Add the lanes ``column`` … ``column + 2`` (first, last, all) of a ``runs`` map to the bins in `out`."""
    for entry in range(lanes.shape[0] - 2):
        span, b = entry // bins + 1, entry % bins
        if b + span > bins:
            continue
        first, last, everything = lanes[entry, column], lanes[entry, column + 1], lanes[entry, column + 2]
        out[b] += first
        if span > 1:
            out[b + span - 1] += last
        for middle in range(b + 1, b + span - 1):
            out[middle] += (everything - first - last) / (span - 2)


@njit(nogil=True, cache=True)
def unfold_runs_errors(lanes: Any, bins: int, out: Any) -> None:
    """Add the lanes of `_add_runs_errors` (share²·variance of first, last and all between) to the bins in `out`."""
    for entry in range(lanes.shape[0] - 2):
        span, b = entry // bins + 1, entry % bins
        if b + span > bins:
            continue
        out[b] += lanes[entry, 0]
        if span > 1:
            out[b + span - 1] += lanes[entry, 1]
        for middle in range(b + 1, b + span - 1):
            out[middle] += lanes[entry, 2] / ((span - 2) * (span - 2))


@njit(nogil=True, cache=True)
def add_side(
    pixels: Any,
    number: Any,
    first: Any,
    span: Any,
    share: Any,
    weight: Any,
    check: bool,
    dummy: Any,
    signal: Any,
    variance: Any,
    lost_weight: Any,
    lost_count: Any,
) -> None:
    """Add the pixels of a `SideList` to bins: `signal`, `variance` (empty: not wanted), or the lost ones'."""
    for k in range(number.size):
        i, b, n = number[k], first[k], span[k]
        lost = check and (pixels[i] == dummy or pixels[i] != pixels[i])
        value = np.float64(pixels[i])
        between = (1.0 - share[k, 0] - share[k, 1]) / (n - 2)
        for step in range(n):
            part = share[k, 0] if step == 0 else (share[k, 1] if step == n - 1 else between)
            if lost:
                lost_weight[b + step] += part * weight[i]
                lost_count[b + step] += part
                continue
            signal[b + step] += part * value
            if variance.size > 0:
                variance[b + step] += part * part * max(value, 1.0)
