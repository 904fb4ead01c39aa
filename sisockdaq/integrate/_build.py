"""Compiled loops that turn pixels' radial positions into bin maps; each a line-by-line match of pyFAI's arithmetic.

Source of the rules: pyFAI ``splitBBox_common`` (the sparse engines). A position ``x`` lies at ``(x − low) / width`` on
the bins' scale, in float64 and by division; the bin is that value truncated towards zero. A pixel from ``left`` to
``right`` on that scale gives bin ``i`` the share of it that lies in ``i``; what reaches beyond the first or last bin
counts to that bin.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sisockdaq.integrate import _full
from sisockdaq.integrate._jit import compiled

__all__ = [
    "assign_bins",
    "azimuth_half_widths",
    "bounds",
    "half_widths",
    "no_values",
    "pack_pairs",
    "pack_triples",
    "spread",
    "spread_wide",
    "warm_up",
]


@compiled
def half_widths(centre: Any, corners: Any, out: Any) -> None:
    """Largest distance of a pixel's four corners (float32 grid, one larger each way) from its centre (float64)."""
    rows, columns = centre.shape
    for i in range(rows):
        for j in range(columns):
            c = centre[i, j]
            out[i, j] = max(
                max(abs(corners[i, j] - c), abs(corners[i + 1, j] - c)),
                max(abs(corners[i + 1, j + 1] - c), abs(corners[i, j + 1] - c)),
            )


@compiled
def azimuth_half_widths(centre: Any, corners: Any, out: Any) -> None:
    """As `half_widths`, for angles [rad]: the shorter way round."""
    rows, columns = centre.shape
    for i in range(rows):
        for j in range(columns):
            most = 0.0
            for corner in (corners[i, j], corners[i + 1, j], corners[i + 1, j + 1], corners[i, j + 1]):
                distance = abs(corner - centre[i, j])
                most = max(most, min(distance, 2 * np.pi - distance))
            out[i, j] = most


@compiled
def bounds(centre: Any, half_width: Any, masked: Any) -> tuple[float, float, int]:
    """Return the least and greatest edge of the pixels that are not masked, and their number."""
    low, high, number = np.inf, -np.inf, 0
    split = half_width.size > 0
    for i in range(centre.size):
        if masked[i]:
            continue
        d = half_width[i] if split else 0.0
        low = min(low, centre[i] - d)
        high = max(high, centre[i] + d)
        number += 1
    return low, high, number


@compiled
def assign_bins(
    centre: Any, azimuth: Any, ends: tuple[float, float], masked: Any, low: float, width: float, bins: int, out: Any
) -> None:
    """Write each pixel's bin, ``bins`` where it lies outside the range, ``bins + 1`` where it is masked.

    ``azimuth`` is empty where any is good; else ``ends`` are its lowest and its highest.
    """
    outside, hidden = np.uint16(bins), np.uint16(bins + 1)
    for i in range(centre.size):
        if masked[i]:
            out[i] = hidden
            continue
        if azimuth.size > 0 and (azimuth[i] < ends[0] or azimuth[i] > ends[1]):
            out[i] = outside
            continue
        number = int((centre[i] - low) / width)
        out[i] = np.uint16(number) if 0 <= number < bins else outside


@compiled
def spread(
    centre: Any,
    half_width: Any,
    azimuth: Any,
    azimuth_half_width: Any,
    ends: tuple[float, float],
    masked: Any,
    low: float,
    width: float,
    bins: int,
    first: Any,
    span: Any,
    share: Any,
) -> None:
    """Write the first bin of each pixel, how many bins it touches, and its share in the first and in the last.

    ``span`` is 0 outside the range and -1 where masked; the shares of the bins between are equal, all sum to 1. A
    range of azimuth has a pixel whole or, as in pyFAI, not at all. ``azimuth`` is empty where there is none.
    """
    for i in range(centre.size):
        if masked[i]:
            span[i] = -1
            continue
        if azimuth.size > 0:
            reach = azimuth_half_width[i]
            if azimuth[i] + reach < ends[0] or azimuth[i] - reach > ends[1]:
                span[i] = 0
                continue
        left = (centre[i] - half_width[i] - low) / width
        right = (centre[i] + half_width[i] - low) / width
        begin, end = int(left), int(right)
        if end < 0 or begin >= bins:
            span[i] = 0
            continue
        begin, end = max(begin, 0), min(end, bins - 1)
        first[i] = begin
        span[i] = end - begin + 1
        if begin == end:
            share[i, 0] = 1.0
            share[i, 1] = 0.0
        else:
            inverse = 1.0 / (right - left)
            share[i, 0] = inverse * ((begin + 1) - left)
            share[i, 1] = inverse * (right - end)


@compiled
def spread_wide(pixel: Any, span: Any, share: Any, start: Any, out: Any) -> None:
    """Write every share of the pixels of these numbers to their places in a side list, from ``start[k]`` on."""
    for k in range(pixel.size):
        i = pixel[k]
        number = span[i]
        between = (1.0 - share[i, 0] - share[i, 1]) / (number - 2) if number > 2 else 0.0
        for step in range(number):
            part = share[i, 0] if step == 0 else (share[i, 1] if step == number - 1 else between)
            out[start[k] + step] = part


@compiled
def pack_pairs(first: Any, span: Any, share: Any, bins: int, index: Any, out: Any) -> None:
    """Fill a ``pairs`` map: the smaller share of each pixel, and in the entry's lowest bit whose it is."""
    outside, hidden = np.uint16(2 * bins), np.uint16(2 * bins + 1)
    for i in range(span.size):
        out[i] = 0.0
        if span[i] < 0:
            index[i] = hidden
        elif span[i] == 0 or span[i] > 2:
            index[i] = outside
        elif share[i, 0] < share[i, 1]:
            index[i] = np.uint16(2 * first[i])
            out[i] = share[i, 0]
        else:
            index[i] = np.uint16(2 * first[i] + 1)
            out[i] = share[i, 1]


@compiled
def pack_triples(first: Any, span: Any, share: Any, bins: int, index: Any, out: Any) -> None:
    """Fill a ``triples`` map: the middle bin of each pixel, and its shares in the bins before and after that one."""
    outside, hidden = np.uint16(bins), np.uint16(bins + 1)
    for i in range(span.size):
        out[i, 0] = 0.0
        out[i, 1] = 0.0
        if span[i] < 0:
            index[i] = hidden
        elif span[i] == 0 or span[i] > 3:
            index[i] = outside
        elif span[i] == 1:
            index[i] = np.uint16(first[i])
        elif span[i] == 2 and share[i, 0] >= share[i, 1]:
            index[i] = np.uint16(first[i])
            out[i, 1] = share[i, 1]
        else:
            index[i] = np.uint16(first[i] + 1)
            out[i, 0] = share[i, 0]
            if span[i] == 3:
                out[i, 1] = share[i, 1]


def no_values() -> npt.NDArray[np.float64]:
    """Stand for half widths or azimuths that are not used."""
    return np.empty(0)


def warm_up() -> None:
    """Compile (or load from numba's cache) all of the above, for the types that they are called with."""
    image = np.zeros((1, 1))
    half_widths(image, np.zeros((2, 2), np.float32), np.zeros((1, 1)))
    azimuth_half_widths(image, np.zeros((2, 2), np.float32), np.zeros((1, 1)))
    line, masked, ends = np.zeros(1), np.zeros(1, np.bool_), (0.0, 0.0)
    bounds(line, line, masked)
    assign_bins(line, line, ends, masked, 0.0, 1.0, 1, np.zeros(4, np.uint16)[:1])
    first, span, share = np.zeros(1, np.int32), np.zeros(1, np.int32), np.zeros((1, 2))
    spread(line, line, line, line, ends, masked, 0.0, 1.0, 1, first, span, share)
    none = np.zeros(0, np.int64)
    spread_wide(none, span, share, np.zeros(1, np.int64), line)
    pack_pairs(first, span, share, 1, np.zeros(4, np.uint16), np.zeros(1, np.float32))
    pack_triples(first, span, share, 1, np.zeros(4, np.uint16), np.zeros((1, 2), np.float32))
    corners, areas = np.ones((2, 2, 2), np.float32), np.zeros(1, np.float32)
    _full.bounds_full(corners, 1, masked, 0, 1)
    _full.spread_full(corners, 1, 1, ends, masked, 0.0, 1.0, areas, first, span, share, 0, 1)
    _full.spread_full_wide(corners, 1, 1, 0.0, 1.0, areas, none, first, np.zeros(1, np.int64), line)
