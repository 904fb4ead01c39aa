"""Full pixel splitting: the share of each pixel's quadrangle that falls into each radial bin, in pyFAI's arithmetic.

Source of the rules: pyFAI ``splitpixel_common`` and ``regrid_common`` (the sparse engines, 1-D). A pixel is the
quadrangle of its corners in radial–azimuthal space. The area between each edge and the line azimuth = 0 is added to the
bins that the edge crosses, with the sign of its direction; what is left of the four is the area of the pixel in each
bin, and its share is that over the sum. Pixels across the azimuth's discontinuity are first moved to one side of it.

pyFAI adds these areas up in float32, where the azimuth itself (some radians) is large beside the pixel's extent (some
milliradians): its shares carry errors of up to some 1e-3. They are made here in the same order and the same precision,
so that curves agree to 1e-6 none the less.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sisockdaq.integrate._jit import compiled, inner

__all__ = ["bounds_full", "spread_full", "spread_full_wide"]

_PERIOD = 2 * np.pi


@inner
def _corner(corners: Any, columns: int, pixel: int, number: int, axis: int) -> float:
    """One coordinate of one corner: 0 top left, 1 bottom left, 2 bottom right, 3 top right."""
    row, column = pixel // columns, pixel % columns
    if corners.ndim == 4:
        return float(corners[row, column, number, axis])
    down = 1 if number == 1 or number == 2 else 0
    along = 1 if number >= 2 else 0
    return float(corners[row + down, column + along, axis])


@compiled
def bounds_full(corners: Any, columns: int, masked: Any, begin: int, end: int) -> tuple[float, float, int]:
    """Return the least and greatest radial position of the corners of pixels that are not masked, and their number.

    That is of the pixels from ``begin`` up to ``end``. NaN where a position is none.
    """
    low, high, number = np.inf, -np.inf, 0
    for i in range(begin, end):
        if masked[i]:
            continue
        number += 1
        for k in range(4):
            position = _corner(corners, columns, i, k, 0)
            low = min(low, position)
            high = max(high, position)
            if position != position:
                return position, position, number
    return low, high, number


@inner
def _area(a: Any) -> Any:
    """Return pyFAI's measure of the quadrangle, of which the sign matters: positive across the discontinuity only."""
    return 0.5 * ((a[2, 0] - a[0, 0]) * (a[3, 1] - a[1, 1])) - ((a[2, 1] - a[0, 1]) * (a[3, 0] - a[1, 0]))


@inner
def _take(corners: Any, columns: int, pixel: int, sign: float, low: float, width: float, out: Any) -> None:
    """Write a pixel's corners to ``out`` (4, 2): the radial position on the bins' scale, the azimuth without a jump."""
    for k in range(4):
        out[k, 0] = _corner(corners, columns, pixel, k, 0)
        out[k, 1] = _corner(corners, columns, pixel, k, 1)
    if sign * _area(out) > 0:
        for k in range(4):
            if out[k, 1] < 0:
                out[k, 1] += _PERIOD
        if 0.25 * (out[0, 1] + out[1, 1] + out[2, 1] + out[3, 1]) > 0.5 * _PERIOD:
            for k in range(4):
                out[k, 1] -= _PERIOD
    for k in range(4):
        out[k, 0] = (out[k, 0] - low) / width


@inner
def _add(areas: Any, b: int, begin: float, end: float, slope: float, offset: float) -> None:
    """Add the area under the line from ``begin`` to ``end`` to a bin, rounding the sum to float32 as pyFAI does."""
    area = (end - begin) * (0.5 * slope * (end + begin) + offset)
    areas[b] = np.float32(np.float64(areas[b]) + area)


@inner
def _add_edge(areas: Any, x0: float, y0: float, x1: float, y1: float) -> None:
    """Add the signed area under the edge from (x0, y0) to (x1, y1) to the bins that it crosses."""
    if x1 == x0:
        return
    bins = areas.size
    first, last = int(np.floor(x0)), int(np.floor(x1))
    slope = (y1 - y0) / (x1 - x0)
    offset = y0 - slope * x0
    if first == last and 0 <= first < bins:
        _add(areas, first, x0, x1, slope, offset)
    elif x1 > x0:
        if 0 <= x0 < bins:
            _add(areas, first, x0, np.floor(x0 + 1), slope, offset)
        for b in range(max(first + 1, 0), min(last, bins)):
            _add(areas, b, float(b), float(b + 1), slope, offset)
        if 0 <= x1 < bins:
            _add(areas, last, float(last), x1, slope, offset)
    else:
        if 0 <= x0 < bins:
            _add(areas, first, x0, float(first), slope, offset)
        for b in range(min(first, bins) - 1, max(last, -1), -1):
            _add(areas, b, float(b + 1), float(b), slope, offset)
        if 0 <= x1 < bins:
            _add(areas, last, np.floor(x1 + 1), x1, slope, offset)


@inner
def _areas(quadrangle: Any, areas: Any, begin: int, end: int) -> float:
    """Fill ``areas`` (zeros) for a pixel over the bins from ``begin`` up to ``end``; return their sum."""
    for k in range(4):
        n = (k + 1) % 4
        _add_edge(areas, quadrangle[k, 0], quadrangle[k, 1], quadrangle[n, 0], quadrangle[n, 1])
    total = 0.0
    for b in range(begin, end):
        total += np.float64(areas[b])
    return total


@compiled
def spread_full(
    corners: Any,
    columns: int,
    orientation: int,
    ends: tuple[float, float],
    masked: Any,
    low: float,
    width: float,
    areas: Any,
    first: Any,
    span: Any,
    share: Any,
    start: int,
    stop: int,
) -> None:
    """As `_build.spread`, for quadrangles; shares between the first and the last bin are not equal.

    Only the pixels from ``start`` up to ``stop`` are done. ``ends`` are those of the azimuth (infinite for no range: a
    pixel is inside whole or not at all); ``areas`` is float32, (bins,), zeros, and is left so.
    """
    bins = areas.size
    sign = -1.0 if orientation == 2 or orientation == 4 else 1.0
    corner = np.empty((4, 2))
    for i in range(start, stop):
        if masked[i]:
            span[i] = -1
            continue
        _take(corners, columns, i, sign, low, width, corner)
        left = min(min(corner[0, 0], corner[1, 0]), min(corner[2, 0], corner[3, 0]))
        right = max(max(corner[0, 0], corner[1, 0]), max(corner[2, 0], corner[3, 0]))
        bottom = min(min(corner[0, 1], corner[1, 1]), min(corner[2, 1], corner[3, 1]))
        top = max(max(corner[0, 1], corner[1, 1]), max(corner[2, 1], corner[3, 1]))
        if right < 0 or left >= bins or top < ends[0] or bottom > ends[1]:
            span[i] = 0
            continue
        begin, end = int(np.floor(left)), int(np.floor(right))
        share[i, 0], share[i, 1] = 1.0, 0.0
        if begin == end:
            first[i], span[i] = begin, 1
            continue
        begin, end = max(begin, 0), min(end + 1, bins)
        first[i], span[i] = begin, end - begin
        if end - begin > 1:
            total = _areas(corner, areas, begin, end)
            # A quadrangle without area, where pyFAI has NaN, counts to its first bin.
            if total != 0:
                inverse = 1.0 / total
                share[i, 0] = np.float64(areas[begin]) * inverse
                share[i, 1] = np.float64(areas[end - 1]) * inverse
            areas[begin:end] = 0.0


@compiled
def spread_full_wide(
    corners: Any,
    columns: int,
    orientation: int,
    low: float,
    width: float,
    areas: Any,
    pixel: Any,
    first: Any,
    start: Any,
    out: Any,
) -> None:
    """Write every share of the pixels of these numbers to their places in a side list, from ``start[k]`` on."""
    sign = -1.0 if orientation == 2 or orientation == 4 else 1.0
    corner = np.empty((4, 2))
    for k in range(pixel.size):
        begin, place = first[k], start[k]
        end = begin + start[k + 1] - place
        _take(corners, columns, pixel[k], sign, low, width, corner)
        total = _areas(corner, areas, begin, end)
        out[place] = 1.0
        if total != 0:
            inverse = 1.0 / total
            for b in range(begin, end):
                out[place + b - begin] = np.float64(areas[b]) * inverse
        areas[begin:end] = 0.0
