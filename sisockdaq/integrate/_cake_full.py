"""Full splitting of pixels over a cake: the share of each pixel's quadrangle in every bin, in pyFAI's arithmetic.

Source of the rules: pyFAI ``splitpixel_common`` and ``regrid_common`` (the sparse engines, 2-D). A pixel is the
quadrangle of its corners in radial–azimuthal space; corners beyond the range are moved to its ends. Under each edge,
column by column of radial bins, lies an area down to the pixel's lowest azimuthal bin; it is poured into the bins of
the column from below, with the sign of the edge's direction, and what is left of the four edges is the pixel's area in
each bin. Areas are float32 at the same steps as pyFAI's, so that shares agree to the last bits.

A pixel across the azimuth's discontinuity counts to the side where most of its corners are. (pyFAI arrives there with
a period of 360 for angles in radians: three corners of four outweigh the one that is 360 away.) Where the discontinuity
is at 0, pyFAI's rule spreads such a pixel over the whole circle; here it is as at π.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sisockdaq.integrate._cake_build import add_row
from sisockdaq.integrate._jit import compiled, inner

__all__ = ["fill_quadrangles"]

_PERIOD = 360.0
_TURN = 2 * np.pi


@inner
def _take(corners: Any, columns: int, pixel: int, sign: float, at_pi: bool, out: Any) -> None:
    """Write a pixel's corners to ``out`` (4, 2), with azimuths on one side of the discontinuity."""
    row, column = pixel // columns, pixel % columns
    for k in range(4):
        # 0 top left, 1 bottom left, 2 bottom right, 3 top right
        down, along = int(k == 1 or k == 2), int(k >= 2)
        for axis in range(2):
            if corners.ndim == 4:
                out[k, axis] = float(corners[row, column, k, axis])
            else:
                out[k, axis] = float(corners[row + down, column + along, axis])
    area = 0.5 * ((out[2, 0] - out[0, 0]) * (out[3, 1] - out[1, 1])) - (
        (out[2, 1] - out[0, 1]) * (out[3, 0] - out[1, 0])
    )
    if sign * area <= 0:
        return
    middle = 0.0 if at_pi else 0.5 * _TURN
    total = 0.0
    for k in range(4):
        if out[k, 1] < middle:
            out[k, 1] += _PERIOD
        total += out[k, 1]
    if 0.25 * total > 0.5 * _PERIOD:
        for k in range(4):
            out[k, 1] -= _PERIOD


@inner
def _pour(box: Any, column: int, height: int, area: Any, width: Any) -> None:
    """Pour an area into a column of the box from below; ``width`` is what a bin of it takes."""
    left = np.float32(abs(area))
    sign = np.float32(1.0) if area > 0 else np.float32(-1.0)
    begin = column * height
    h = 0
    while left > 0 and h < height:
        if width > left:
            width = left
            left = np.float32(-1.0)
        box[begin + h] += sign * width
        left = np.float32(left - width)
        h += 1


@inner
def _under(begin: float, end: float, slope: Any, offset: Any) -> Any:
    """Area under a line, as float32."""
    return np.float32((end - begin) * (0.5 * np.float64(slope) * (end + begin) + np.float64(offset)))


@inner
def _under_part(begin: float, end: float, slope: Any, offset: Any) -> Any:
    """Area under a line whose one end is at the end of a bin, where pyFAI takes both ends as float32."""
    b, e = np.float32(begin), np.float32(end)
    return np.float32(np.float64(e - b) * (0.5 * np.float64(slope) * np.float64(e + b) + np.float64(offset)))


@inner
def _add_edge(box: Any, height: int, x0: float, y0: float, x1: float, y1: float) -> None:
    """Add the area under the edge from (x0, y0) to (x1, y1), all at least 0, to the columns that it crosses."""
    if x0 == x1:
        return
    slope = np.float32((y1 - y0) / (x1 - x0))
    offset = np.float32(y1 - np.float64(slope) * x1)
    one = np.float32(1.0)
    if x0 < x1:
        p = np.ceil(x0)
        if p > x1:
            _pour(box, int(x0), height, _under(x0, x1, slope, offset), np.float32(x1 - x0))
            return
        if p > x0:
            _pour(box, int(p) - 1, height, _under_part(x0, p, slope, offset), np.float32(p - x0))
        for i in range(int(p), int(np.floor(x1))):
            _pour(box, i, height, _under(float(i), float(i + 1), slope, offset), one)
        p = np.floor(x1)
        if x1 > p:
            _pour(box, int(p), height, _under_part(p, x1, slope, offset), np.float32(x1 - p))
        return
    p = np.floor(x0)
    if x1 > p:
        _pour(box, int(x0), height, _under(x0, x1, slope, offset), np.float32(x0 - x1))
        return
    if p < x0:
        _pour(box, int(p), height, _under_part(x0, p, slope, offset), np.float32(x0 - p))
    for i in range(int(x0), int(np.ceil(x1)), -1):
        _pour(box, i - 1, height, _under(float(i), float(i - 1), slope, offset), one)
    p = np.ceil(x1)
    if x1 < p:
        _pour(box, int(x1), height, _under_part(p, x1, slope, offset), np.float32(p - x1))


@compiled
def fill_quadrangles(
    corners: Any,
    columns: int,
    orientation: int,
    at_pi: bool,
    masked: Any,
    low: tuple[float, float],
    high: tuple[float, float],
    limit: float,
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
    """As `_cake_build.fill_boxes`, for quadrangles.

    ``high`` are the ends of both ranges, ``limit`` is that of the azimuth, widened as the bins are.
    """
    outside = np.uint32(bins[0] * bins[1])
    sign = -1.0 if orientation == 2 or orientation == 4 else 1.0
    corner = np.empty((4, 2))
    box = np.zeros(256, np.float32)
    row = np.empty(bins[0] + 1, np.float32)
    ends = np.empty((2, 2))
    for i in range(pixel, masked.size):
        if masked[i]:
            index[i] = outside + np.uint32(1)
            continue
        index[i] = outside
        _take(corners, columns, i, sign, at_pi, corner)
        if not _to_scale(corner, ends, low, high, limit, width):
            continue
        across, along = int(np.floor(ends[0, 0])), int(np.floor(ends[1, 0]))
        wide, tall = int(np.ceil(ends[0, 1])) - across, int(np.ceil(ends[1, 1])) - along
        if place + tall * (wide // lanes + 1) > more_pixel.size:
            return i, place
        height = tall + 1
        if (wide + 1) * height > box.size:
            box = np.zeros(2 * (wide + 1) * height, np.float32)
        for k in range(4):
            corner[k, 0] -= across
            corner[k, 1] -= along
        for k in range(4):
            n = (k + 1) % 4
            _add_edge(box, height, corner[k, 0], corner[k, 1], corner[n, 0], corner[n, 1])
        area = 0.0
        for c in range(wide):
            for b in range(tall):
                area += np.float64(box[c * height + b])
        if area == 0 and wide > 0 and tall > 0:
            # Without area, where pyFAI has NaN: all of it counts to its first bin.
            box[0] = np.float32(1.0)
            area = 1.0
        inverse = 1.0 / area if area != 0 else 0.0
        for b in range(tall):
            for c in range(wide):
                row[c] = np.float64(box[c * height + b]) * inverse
            place = add_row(
                row,
                wide,
                (along + b) * bins[0] + across,
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
        box[: (wide + 1) * height] = np.float32(0.0)
    return masked.size, place


@inner
def _to_scale(corner: Any, ends: Any, low: Any, high: Any, limit: float, width: Any) -> bool:
    """Bring corners inside the range and onto the bins' scales; ``ends`` (2, 2) are then their least and greatest.

    False where the pixel is outside.
    """
    for axis in range(2):
        least = min(min(corner[0, axis], corner[1, axis]), min(corner[2, axis], corner[3, axis]))
        most = max(max(corner[0, axis], corner[1, axis]), max(corner[2, axis], corner[3, axis]))
        if most < low[axis]:
            return False
        if axis == 0 and least > high[axis]:
            return False
        if axis == 1 and least >= limit:
            return False
    for axis in range(2):
        ends[axis, 0], ends[axis, 1] = np.inf, -np.inf
        for k in range(4):
            place = (min(max(corner[k, axis], low[axis]), high[axis]) - low[axis]) / width[axis]
            corner[k, axis] = place
            ends[axis, 0] = min(ends[axis, 0], place)
            ends[axis, 1] = max(ends[axis, 1], place)
    return True
