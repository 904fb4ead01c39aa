"""The compiled passes over a raw frame: conversion, and the sums of dark frames.

The conversion goes through the frame in blocks that stay in the processor's first cache. In each block all pixels are
first taken for stage G0, which most of most frames are: that loop has no branch and runs at the speed of memory. The
others, whose places are gathered without a branch as well, are then done again with the maps of their own stage, so
that the maps of G1 and G2 are only read where they are needed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

__all__ = ["BLOCK", "add_dark", "to_floats", "to_integers", "warm_up"]

BLOCK = 512
"""Pixels of a block: 1 KiB of raw pixels, 4 KiB of each map."""

_ADC = np.uint16(0x3FFF)
_G1 = np.uint16(0x4000)
_CODE_OF_NONE = np.uint16(2)
_G2 = np.uint16(0xC000)
_ALL_ONES = np.uint16(0xFFFF)

_EXPONENT = np.int32(0x7F800000)
"""The bits of a float32 that are all set where it is infinite or NaN."""

_LOWEST = np.int32(-(2**31))

Raw = npt.NDArray[np.uint16]
Map = npt.NDArray[np.float32]

_OPTIONS: dict[str, Any] = {
    "nogil": True,
    "cache": True,
    "error_model": "numpy",
    # Sums may be taken in any order; NaN keeps its meaning.
    "fastmath": {"reassoc", "nsz", "contract"},
}


@njit(**_OPTIONS)
def _others(raw: Raw, places: npt.NDArray[np.int32]) -> int:
    """List the pixels of a block that are not in G0; return how many."""
    count = 0
    for i in range(len(raw)):
        places[count] = i
        count += raw[i] >= _G1
    return count


@njit(**_OPTIONS)
def _energy(value: np.uint16, at: int, others: Map) -> np.float32:
    """Return what a pixel that is not in G0 converts to: infinite when saturated, NaN where it says nothing.

    Without a branch: which kind of pixel comes next is anybody's guess, and looks at the memory can then overlap.
    """
    stage = value >> np.uint16(15)
    energy = (np.float32(value & _ADC) - others[stage, at, 0]) * others[stage, at, 1]
    # G1 at its lower end has not switched although it had to.
    nothing = (value == _G1) | (value == _ALL_ONES) | ((value >> np.uint16(14)) == _CODE_OF_NONE)
    energy = np.float32(np.nan) if nothing else energy
    return energy + (np.float32(np.inf) if value == _G2 else np.float32(0))  # a bad pixel stays NaN


@njit(**_OPTIONS)
def _without_value(bits: npt.NDArray[np.int32], places: npt.NDArray[np.int32]) -> int:
    """List the values of a block that are infinite or NaN, by the bits of the float32; return how many."""
    special = 0
    for i in range(len(bits)):
        special |= (bits[i] & _EXPONENT) == _EXPONENT
    if not special:
        return 0
    count = 0
    for i in range(len(bits)):
        places[count] = i
        count += (bits[i] & _EXPONENT) == _EXPONENT
    return count


@njit(**_OPTIONS)
def _convert_block(
    raw: Raw, begin: int, pedestal: Map, scale: Map, others: Map, values: Map, places: npt.NDArray[np.int32]
) -> None:
    """Convert a block of raw pixels to floats: saturated ones infinite, those that tell nothing NaN."""
    p, s = pedestal[begin : begin + BLOCK], scale[begin : begin + BLOCK]
    bits = np.uint16(0)
    for i in range(len(raw)):
        bits |= raw[i]
        values[i] = (np.float32(raw[i]) - p[i]) * s[i]
    if bits >= _G1:
        for k in range(_others(raw, places)):
            i = places[k]
            values[i] = _energy(raw[i], begin + i, others)


@njit(**_OPTIONS)
def to_floats(
    raw: Raw,
    pedestal: Map,
    scale: Map,
    others: Map,
    threshold: float,
    fill: float,
    saturation: float,
    out: Map,
    first: int,
    end: int,
) -> tuple[float, float, int, int]:
    """Convert a frame, or a part of it, to float32.

    Parameters
    ----------
    raw : ndarray of uint16, (n,)
    pedestal, scale : ndarray of float32, (n,)
        Dark level [ADU] and reciprocal gain [unit / ADU] of G0; a scale of NaN marks a bad pixel.
    others : ndarray of float32, (2, n, 2)
        Both for G1 and G2, side by side: a pixel that needs them costs one look at the memory.
    threshold : float
        Values below it become 0; -inf for none.
    fill, saturation : float
        What pixels without a value, and saturated ones, become.
    out : ndarray of float32, (n,)
    first, end : int
        The pixels to convert.

    Returns
    -------
    tuple
        Sum and maximum of the good pixels, number of pixels without a value, and of saturated ones.
    """
    places = np.empty(BLOCK + 1, np.int32)
    all_bits = out.view(np.int32)
    total, highest, empty, saturated = 0.0, np.float32(-np.inf), 0, 0
    for begin in range(first, end, BLOCK):
        stop = min(begin + BLOCK, end)
        r, o, bits = raw[begin:stop], out[begin:stop], all_bits[begin:stop]
        _convert_block(r, begin, pedestal, scale, others, o, places)
        missing = _without_value(bits, places)
        over = 0
        for k in range(missing):
            # For a while −0: nothing in the sum, and as an integer the lowest of all. Saturated pixels come first.
            i = places[k]
            if o[i] == np.float32(np.inf):
                places[k], places[over] = places[over], i
                over += 1
            o[i] = np.float32(-0.0)
        if threshold > -np.inf:
            least = np.float32(threshold)
            for i in range(len(o)):
                o[i] = o[i] if (o[i] >= least) | (bits[i] == _LOWEST) else np.float32(0)
        block, top = np.float32(0), _LOWEST
        for i in range(len(o)):
            block += o[i]
            top = max(top, bits[i])  # floats of one sign are in the order of their bits
        if top >= 0:
            for i in range(len(o)):
                if bits[i] == top:
                    highest = max(highest, o[i])
                    break
        elif missing < len(o):
            for i in range(len(o)):
                if bits[i] != _LOWEST:
                    highest = max(highest, o[i])
        for k in range(missing):
            o[places[k]] = np.float32(saturation) if k < over else np.float32(fill)
        total += block
        empty += missing - over
        saturated += over
    return total, float(highest), empty, saturated


@njit(**_OPTIONS)
def to_integers(
    raw: Raw,
    pedestal: Map,
    scale: Map,
    others: Map,
    threshold: float,
    least: float,
    most: float,
    fill: int,
    saturation: int,
    out: Any,
    first: int,
    end: int,
) -> tuple[float, float, int, int]:
    """Convert a frame to rounded integers, for example photons.

    Parameters are those of `to_floats`, and

    Parameters
    ----------
    threshold : float
        Values below it become 0, before they are rounded.
    least, most : float
        Values are brought to this range before they are rounded.
    out : ndarray of an integer type, (n,)
    """
    places = np.empty(BLOCK + 1, np.int32)
    values, rounded = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.int32)
    all_bits = values.view(np.int32)
    low, high, enough = np.float32(least), np.float32(most), np.float32(threshold)
    total, highest, empty, saturated = 0, _LOWEST, 0, 0
    for begin in range(first, end, BLOCK):
        stop = min(begin + BLOCK, end)
        r, o = raw[begin:stop], out[begin:stop]
        v, w = values[: len(r)], rounded[: len(r)]
        _convert_block(r, begin, pedestal, scale, others, v, places)
        missing = _without_value(all_bits[: len(r)], places)
        for i in range(len(v)):
            x = v[i] if v[i] >= enough else np.float32(0)
            x = x if x > low else low
            x = x if x < high else high
            w[i] = np.int32(np.floor(x + np.float32(0.5)))
        for k in range(missing):
            w[places[k]] = _LOWEST
        upper, lower, top = np.int32(0), np.int32(0), _LOWEST
        for i in range(len(w)):  # in 32 bits, which a block's halves cannot overflow
            upper += w[i] >> np.int32(16)
            lower += w[i] & np.int32(0xFFFF)
            top = max(top, w[i])
        for i in range(len(w)):
            o[i] = w[i]
        for k in range(missing):
            i = places[k]
            over = v[i] == np.float32(np.inf)
            saturated += over
            empty += not over
            o[i] = saturation if over else fill
        total += (np.int64(upper) << 16) + np.int64(lower) - missing * np.int64(_LOWEST)
        highest = max(highest, top)
    return float(total), float(highest) if highest > _LOWEST else -np.inf, empty, saturated


@njit(**_OPTIONS)
def add_dark(
    raw: Raw,
    first: Raw,
    code: int,
    count: npt.NDArray[np.uint32],
    total: npt.NDArray[np.int64],
    square: npt.NDArray[np.int64],
) -> tuple[int, int]:
    """Add a dark frame to the sums of the pixels that are in the stage of that code.

    Parameters
    ----------
    raw, first : ndarray of uint16, (n,)
        The frame, and the first one of the run: sums are of differences to it, so that squares stay small and exact.
    count, total, square : ndarray, (n,)
        Samples, sum and sum of squares of the differences.

    Returns
    -------
    tuple of int
        Pixels in that stage, and pixels in no stage at all.
    """
    inside, invalid = 0, 0
    for i in range(len(raw)):
        value = raw[i]
        nothing = (value == _ALL_ONES) | ((value >> np.uint16(14)) == _CODE_OF_NONE)
        good = (not nothing) & (value >> np.uint16(14) == code) & (value != _G1) & (value != _G2)
        difference = (np.int64(value & _ADC) - np.int64(first[i] & _ADC)) if good else np.int64(0)
        count[i] += np.uint32(good)
        total[i] += difference
        square[i] += difference * difference
        inside += good
        invalid += nothing
    return inside, invalid


def warm_up(dtypes: Iterable[npt.DTypeLike] = (np.float32, np.int32, np.uint16), *, darks: bool = True) -> None:
    """Compile what makes frames of these types, or load it from the cache: not to be left to the first frame."""
    raw = np.zeros(BLOCK, np.uint16)
    maps = np.zeros(BLOCK, np.float32), np.zeros(BLOCK, np.float32), np.zeros((2, BLOCK, 2), np.float32)
    for dtype in dtypes:
        out = np.empty(BLOCK, dtype)
        if out.dtype == np.float32:
            to_floats(raw, *maps, 0.0, 0.0, 0.0, out, 0, BLOCK)
        else:
            to_integers(raw, *maps, 0.0, 0.0, 100.0, 0, 0, out, 0, BLOCK)
    if darks:
        add_dark(raw, raw, 0, np.zeros(BLOCK, np.uint32), *np.zeros((2, BLOCK), np.int64))
