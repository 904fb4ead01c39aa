"""Compiled loops that put pixels into the bins of a cake: unsplit, or as bounding boxes.

Source of the rules: pyFAI ``splitBBox_common`` (the sparse engines, 2-D). Radial position and azimuth each lie on a
scale of bins, as in `_build`; a pixel's share of a bin is the product of its shares along both. What reaches beyond the
first or the last bin of a scale counts to that bin, and a pixel counts when any of its box is inside.

What is written are *segments*: up to four neighbouring bins of one azimuth, with a share each. Every pixel has one of
its own; what does not fit stands in a list beside, in image order (`add_row`). Full splitting writes the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sisockdaq.integrate._jit import compiled, inner

__all__ = ["add_row", "assign_cells", "bounds_corners", "cover", "fill_boxes", "turn_over"]


@compiled
def bounds_corners(corners: Any, axis: int, columns: int, masked: Any) -> tuple[float, float]:
    """Return the least and the greatest coordinate of the corners of pixels that are not masked."""
    low, high = np.inf, -np.inf
    for i in range(masked.size):
        if masked[i]:
            continue
        row, column = i // columns, i % columns
        for k in range(4):
            if corners.ndim == 4:
                place = float(corners[row, column, k, axis])
            else:
                place = float(corners[row + (k & 1), column + (k >> 1), axis])
            low = min(low, place)
            high = max(high, place)
    return low, high


@compiled
def assign_cells(
    radial: Any,
    azimuth: Any,
    masked: Any,
    low: tuple[float, float],
    width: tuple[float, float],
    bins: tuple[int, int],
    out: Any,
) -> None:
    """Write each pixel's bin, the number of bins where it is outside, one more where it is masked.

    ``low``, ``width`` and ``bins`` are those of the radial and of the azimuthal scale; bins are numbered azimuth by
    azimuth.
    """
    outside = np.uint32(bins[0] * bins[1])
    hidden = outside + np.uint32(1)
    for i in range(radial.size):
        if masked[i]:
            out[i] = hidden
            continue
        across = int((radial[i] - low[0]) / width[0])
        along = int((azimuth[i] - low[1]) / width[1])
        inside = 0 <= across < bins[0] and 0 <= along < bins[1]
        out[i] = np.uint32(along * bins[0] + across) if inside else outside


@inner
def add_row(
    row: Any,
    number: int,
    begin: int,
    pixel: int,
    first: bool,
    lanes: int,
    index: Any,
    share: Any,
    more_pixel: Any,
    more_first: Any,
    more_share: Any,
    place: int,
) -> int:
    """Write ``number`` neighbouring bins from ``begin`` on, of the shares in ``row``, as segments.

    The first segment is the pixel's own where it has none yet; the others stand in the list from ``place`` on. Returns
    where the list goes on. Zeros at the ends are left out.
    """
    low, high = 0, number
    while low < high and row[low] == 0:
        low += 1
    while high > low and row[high - 1] == 0:
        high -= 1
    while low < high:
        size = min(lanes, high - low)
        if first:
            index[pixel] = np.uint32(begin + low)
            for k in range(size):
                share[pixel * lanes + k] = row[low + k]
            first = False
        else:
            more_pixel[place] = np.uint32(pixel)
            more_first[place] = np.uint32(begin + low)
            for k in range(lanes):
                more_share[place * lanes + k] = row[low + k] if k < size else np.float32(0)
            place += 1
        low += size
    return place


@inner
def cover(low: float, high: float, bins: int) -> tuple[int, int]:
    """Return the first and the last bin that an interval on a scale touches; none (0, -1) where it is outside."""
    begin, end = int(low), int(high)
    if end < 0 or begin >= bins:
        return 0, -1
    return max(begin, 0), min(end, bins - 1)


@inner
def _share(low: float, high: float, begin: int, end: int, b: int) -> float:
    """How much of the interval lies in a bin, not divided by its length; 1 where it touches one bin only."""
    if begin == end:
        return 1.0
    if b == begin:
        return begin + 1 - low
    return high - end if b == end else 1.0


@compiled
def fill_boxes(
    radial: Any,
    reach: Any,
    azimuth: Any,
    azimuth_reach: Any,
    masked: Any,
    low: tuple[float, float],
    width: tuple[float, float],
    bins: tuple[int, int],
    lanes: int,
    pixel: int,
    place: int,
    index: Any,
    share: Any,
    more_pixel: Any,
    more_first: Any,
    more_share: Any,
) -> tuple[int, int]:
    """Write the segments of all pixels from ``pixel`` on, as long as the list beside has room.

    ``index`` is uint32 and ``share`` float32 of zeros, with ``lanes`` a pixel. Returns the pixel and the place in the
    list where to go on; all is done when that is the number of pixels.
    """
    outside = np.uint32(bins[0] * bins[1])
    row = np.empty(bins[0], np.float32)
    for i in range(pixel, radial.size):
        if masked[i]:
            index[i] = outside + np.uint32(1)
            continue
        left, right = (radial[i] - reach[i] - low[0]) / width[0], (radial[i] + reach[i] - low[0]) / width[0]
        down = (azimuth[i] - azimuth_reach[i] - low[1]) / width[1]
        up = (azimuth[i] + azimuth_reach[i] - low[1]) / width[1]
        begin, end = cover(left, right, bins[0])
        bottom, top = cover(down, up, bins[1])
        index[i] = outside
        if end < begin or top < bottom:
            continue
        if place + (top - bottom + 1) * ((end - begin) // lanes + 1) > more_pixel.size:
            return i, place
        area = 1.0
        if begin != end:
            area *= right - left
        if bottom != top:
            area *= up - down
        inverse = 1.0 / area
        for b in range(bottom, top + 1):
            part = inverse * _share(down, up, bottom, top, b)
            for c in range(begin, end + 1):
                row[c - begin] = part * _share(left, right, begin, end, c)
            place = add_row(
                row,
                end - begin + 1,
                b * bins[0] + begin,
                i,
                index[i] == outside,
                lanes,
                index,
                share,
                more_pixel,
                more_first,
                more_share,
                place,
            )
    return radial.size, place


@compiled
def turn_over(
    index: Any,
    share: Any,
    lanes: int,
    more_pixel: Any,
    more_first: Any,
    more_share: Any,
    bins: int,
    start: Any,
    pixel: Any,
    ring_share: Any,
) -> None:
    """Write for every bin the pixels that it is made of, in image order, and their shares.

    With an empty ``pixel`` they are only counted: ``start`` is int64, (bins + 1,), zeros, and holds then where each
    bin begins. Else ``start`` is a copy of that, and moved on. ``ring_share`` is empty where pixels are not split.
    """
    counting, split = pixel.size == 0, share.size > 0
    k = 0
    for i in range(index.size):
        if index[i] < bins:
            for lane in range(lanes):
                part = share[i * lanes + lane] if split else np.float32(1)
                if part != 0:
                    _put(np.int64(index[i]) + lane, i, part, counting, start, pixel, ring_share)
        while k < more_pixel.size and more_pixel[k] == i:
            for lane in range(lanes):
                part = more_share[k * lanes + lane]
                if part != 0:
                    _put(np.int64(more_first[k]) + lane, i, part, counting, start, pixel, ring_share)
            k += 1
    if counting:
        for b in range(bins):
            start[b + 1] += start[b]


@inner
def _put(b: Any, i: int, part: Any, counting: bool, start: Any, pixel: Any, ring_share: Any) -> None:
    if counting:
        start[b + 1] += 1
        return
    place = start[b]
    start[b] += 1
    pixel[place] = i
    if ring_share.size > 0:
        ring_share[place] = part
