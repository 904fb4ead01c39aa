"""Kernels that split pixels: a pixel gives several neighbouring bins a share each.

A pixel adds to one entry, a group of accumulators (*lanes*) that lie together, and only after the frame the entries
are unfolded into bins. For ``pairs`` the lanes are Σ share·v and Σ v: the other bin's part is their difference. For
``triples`` they are Σ before·v, Σ after·v and Σ v: the bin in the middle has the rest. With Poisson errors
Σ share²·max(1, v) of each follows. Sums are float64. Arguments of all kernels are as in `_whole.add_whole`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sisockdaq.integrate._blocks import BLOCK, block_maximum, four_places, has_unusable, unusable
from sisockdaq.integrate._jit import compiled, inner
from sisockdaq.integrate._lanes import add_four_pairs, add_four_triples, add_lanes

__all__ = [
    "add_pairs",
    "add_side",
    "add_triples",
    "unfold_pairs",
    "unfold_pairs_errors",
    "unfold_triples",
    "unfold_triples_errors",
]


@inner
def _pair(banks: Any, place: Any, pixel: Any, near: Any) -> None:
    """Add one pixel to the two lanes of its entry, which is the ``place``-th."""
    value = np.float64(pixel)
    add_lanes(banks, place << np.uint64(1), (value * np.float64(near), value))


@inner
def _pair_errors(banks: Any, place: Any, pixel: Any, near: Any) -> None:
    """As `_pair`, with the lanes of the variance."""
    value, share = np.float64(pixel), np.float64(near)
    rest, variance = 1.0 - share, max(value, 1.0)
    lanes = (value * share, value, variance * share * share, variance * rest * rest)
    add_lanes(banks, place << np.uint64(2), lanes)


@inner
def _add_pairs(
    pixels: Any, words: Any, index: Any, share: Any, errors: bool, banks: Any, stride: int, start: int, stop: int
) -> None:
    if errors:
        for i in range(start >> 2, stop >> 2):
            k = np.uint64(i)
            add_four_pairs(pixels, share, True, k << np.uint64(2), four_places(words[k], stride), banks)
    else:
        for i in range(start >> 2, stop >> 2):
            k = np.uint64(i)
            add_four_pairs(pixels, share, False, k << np.uint64(2), four_places(words[k], stride), banks)
    for i in range(stop & ~3, stop):
        if errors:
            _pair_errors(banks, np.uint64(index[i]), pixels[i], share[i])
        else:
            _pair(banks, np.uint64(index[i]), pixels[i], share[i])


@inner
def _add_usable_pairs(
    pixels: Any,
    index: Any,
    share: Any,
    masked: Any,
    weight: Any,
    dummy: Any,
    errors: bool,
    banks: Any,
    lost: Any,
    start: int,
    stop: int,
) -> int:
    found = 0
    for i in range(start, stop):
        entry = np.uint64(index[i])
        if unusable(pixels[i], dummy):
            near = np.float64(share[i])
            lost[entry, 0] += weight[i] * near
            lost[entry, 1] += weight[i]
            lost[entry, 2] += near
            lost[entry, 3] += 1.0
            found += index[i] != masked
        elif errors:
            _pair_errors(banks, entry, pixels[i], share[i])
        else:
            _pair(banks, entry, pixels[i], share[i])
    return found


@compiled
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
    begin: int,
    end: int,
) -> Any:
    """Add pixels up over a ``pairs`` map.

    ``banks`` is float64, (4 · stride · lanes,) with 2 lanes, or 4 with `errors`; ``lost`` is (stride, 4): the first two
    lanes of the lost weights, and of their number.
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
            unusable += _add_usable_pairs(pixels, index, share, masked, weight, dummy, errors, banks, lost, start, stop)
        else:
            _add_pairs(pixels, words, index, share, errors, banks, stride, start, stop)
    return highest, unusable


@compiled
def unfold_pairs(lanes: Any, bins: int, column: int, out: Any) -> None:
    """Add the lanes ``column`` (share·v) and ``column + 1`` (v) of a ``pairs`` map to the bins in `out` (bins + 1,)."""
    for b in range(bins):
        low, high = lanes[2 * b, column], lanes[2 * b + 1, column]
        out[b] += low + (lanes[2 * b + 1, column + 1] - high)
        out[b + 1] += high + (lanes[2 * b, column + 1] - low)


@compiled
def unfold_pairs_errors(lanes: Any, bins: int, out: Any) -> None:
    """Add the lanes 2 and 3 (share²·variance of the stored and of the other share) to the bins in `out`."""
    for b in range(bins):
        out[b] += lanes[2 * b, 2] + lanes[2 * b + 1, 3]
        out[b + 1] += lanes[2 * b, 3] + lanes[2 * b + 1, 2]


@inner
def _triple(banks: Any, place: Any, pixel: Any, before: Any, after: Any) -> None:
    """Add one pixel to the lanes of its entry, which is the ``place``-th; of four the last is not used."""
    value = np.float64(pixel)
    lanes = (value * np.float64(before), value * np.float64(after), value, 0.0)
    add_lanes(banks, place << np.uint64(2), lanes)


@inner
def _triple_errors(banks: Any, place: Any, pixel: Any, before: Any, after: Any) -> None:
    """As `_triple`, with the lanes of the variance (before, after, middle); of eight the fourth and eighth are idle."""
    value, begin, end = np.float64(pixel), np.float64(before), np.float64(after)
    middle, variance = 1.0 - begin - end, max(value, 1.0)
    lanes = (
        value * begin,
        value * end,
        value,
        0.0,
        variance * begin * begin,
        variance * end * end,
        variance * middle * middle,
        0.0,
    )
    add_lanes(banks, place << np.uint64(3), lanes)


@inner
def _add_triples(
    pixels: Any, words: Any, index: Any, share: Any, errors: bool, banks: Any, stride: int, start: int, stop: int
) -> None:
    if errors:
        for i in range(start >> 2, stop >> 2):
            k = np.uint64(i)
            add_four_triples(pixels, share, True, k << np.uint64(2), four_places(words[k], stride), banks)
    else:
        for i in range(start >> 2, stop >> 2):
            k = np.uint64(i)
            add_four_triples(pixels, share, False, k << np.uint64(2), four_places(words[k], stride), banks)
    for i in range(stop & ~3, stop):
        if errors:
            _triple_errors(banks, np.uint64(index[i]), pixels[i], share[i, 0], share[i, 1])
        else:
            _triple(banks, np.uint64(index[i]), pixels[i], share[i, 0], share[i, 1])


@inner
def _add_usable_triples(
    pixels: Any,
    index: Any,
    share: Any,
    masked: Any,
    weight: Any,
    dummy: Any,
    errors: bool,
    banks: Any,
    lost: Any,
    start: int,
    stop: int,
) -> int:
    found = 0
    for i in range(start, stop):
        entry = np.uint64(index[i])
        if unusable(pixels[i], dummy):
            before, after = np.float64(share[i, 0]), np.float64(share[i, 1])
            lost[entry, 0] += weight[i] * before
            lost[entry, 1] += weight[i] * after
            lost[entry, 2] += weight[i]
            lost[entry, 3] += before
            lost[entry, 4] += after
            lost[entry, 5] += 1.0
            found += index[i] != masked
        elif errors:
            _triple_errors(banks, entry, pixels[i], share[i, 0], share[i, 1])
        else:
            _triple(banks, entry, pixels[i], share[i, 0], share[i, 1])
    return found


@compiled
def add_triples(
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
    """Add pixels up over a ``triples`` map.

    ``banks`` is float64, (4 · stride · lanes,) with 4 lanes, or 8 with `errors`; ``lost`` is (stride, 6): three lanes
    of the lost weights, and of their number.
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
            unusable += _add_usable_triples(
                pixels, index, share, masked, weight, dummy, errors, banks, lost, start, stop
            )
        else:
            _add_triples(pixels, words, index, share, errors, banks, stride, start, stop)
    return highest, unusable


@compiled
def unfold_triples(lanes: Any, bins: int, column: int, out: Any) -> None:
    """Add the lanes from ``column`` on (before, after, all) of ``triples`` to bins 1, 2 … of `out`, (bins + 2,)."""
    for b in range(bins):
        before, after = lanes[b, column], lanes[b, column + 1]
        out[b] += before
        out[b + 1] += lanes[b, column + 2] - before - after
        out[b + 2] += after


@compiled
def unfold_triples_errors(lanes: Any, bins: int, out: Any) -> None:
    """Add the lanes 4 … 6 (share²·variance before, after and in the middle) to bins 1, 2 … in `out` (bins + 2)."""
    for b in range(bins):
        out[b] += lanes[b, 4]
        out[b + 1] += lanes[b, 6]
        out[b + 2] += lanes[b, 5]


@compiled
def add_side(
    pixels: Any,
    number: Any,
    first: Any,
    begin: Any,
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
        i, b = number[k], first[k]
        lost = check and unusable(pixels[i], dummy)
        value = np.float64(pixels[i])
        for step in range(begin[k + 1] - begin[k]):
            part = share[begin[k] + step]
            if lost:
                lost_weight[b + step] += part * weight[i]
                lost_count[b + step] += part
                continue
            signal[b + step] += part * value
            if variance.size > 0:
                variance[b + step] += part * part * max(value, 1.0)
