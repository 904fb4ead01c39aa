"""The compiled passes over a raw frame: conversion, and the sums of dark frames.

The conversion goes through the frame in blocks that stay in the processor's near caches. In each block all pixels are
first taken for stage G0, which most of most frames are: that loop has no branch and runs at the speed of memory. The
others, whose places are read off words of bits, one a pixel, are then done again with the maps of their own stage, so
that the maps of G1 and G2 are only read where they are needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

__all__ = ["BLOCK", "add_dark", "to_floats", "to_integers", "warm_up"]

BLOCK = 4096
"""Pixels of a block: 8 KiB of raw pixels, 16 KiB of each map.

Small enough for the second cache, where the second look at a block finds it; large enough that what is done once a
block, some hundred nanoseconds, does not count.
"""

_ADC = np.uint16(0x3FFF)
_G1 = np.uint16(0x4000)
_CODE_OF_NONE = np.uint16(2)
_G2 = np.uint16(0xC000)
_ALL_ONES = np.uint16(0xFFFF)

_LANES = 32
"""Pixels whose stages are looked at together."""

_AT_ONCE = 3
"""Places that are noted without asking how many there are: few enough to cost less than a wrong guess would."""

_LOWEST = np.int32(-(2**31))

_NARROW = np.int32((2**31 - 1) // BLOCK)
"""A block of integers up to this size, of either sign, has a sum of 32 bits."""

Raw = npt.NDArray[np.uint16]
Map = npt.NDArray[np.float32]

_OPTIONS: dict[str, Any] = {
    "nogil": True,
    "cache": True,
    "error_model": "numpy",
    # Sums may be taken in any order; NaN keeps its meaning.
    "fastmath": {"reassoc", "nsz", "contract"},
}


P = ParamSpec("P")
R = TypeVar("R")


def _compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function; it runs without the GIL. All of them are in this file, as numba's cache looks at no other."""
    made: Callable[P, R] = njit(**_OPTIONS)(function)
    return made


def _looking(_context: Any, place: Any) -> Any:
    """Look at `_LANES` pixels at an address; return a word with a bit for each that is not in G0."""

    def build(_: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        pixels = ir.VectorType(ir.IntType(16), _LANES)
        values = builder.load(builder.inttoptr(arguments[0], pixels.as_pointer()))
        values.align = 2
        stages = builder.and_(values, ir.Constant(pixels, [0xC000] * _LANES))
        others = builder.icmp_unsigned("!=", stages, ir.Constant(pixels, [0] * _LANES))
        return builder.bitcast(others, ir.IntType(_LANES))

    return types.uint32(types.uint64), build


def _placing(_context: Any, word: Any) -> Any:
    """Return the place of the lowest bit in a word; `_LANES` where there is none."""
    defined = ir.Constant(ir.IntType(1), 0)
    return types.uint32(types.uint32), lambda _, builder, __, words: builder.cttz(words[0], defined)


def _numbering(_context: Any, word: Any) -> Any:
    """Return the number of bits in a word."""
    return types.uint32(types.uint32), lambda _, builder, __, words: builder.ctpop(words[0])


_stages: Any = intrinsic(_looking)
_lowest: Any = intrinsic(_placing)
_number: Any = intrinsic(_numbering)


@_compiled
def _without_lowest(word: Any) -> Any:
    """Clear the lowest bit in a word."""
    return np.uint32(word & np.uint32(word - np.uint32(1)))


@_compiled
def _others(raw: Raw, places: npt.NDArray[np.int32]) -> Any:
    """List the pixels of a block that are not in G0; return how many. `places` has room for `_AT_ONCE` more."""
    found, address = np.uint64(0), np.uint64(raw.ctypes.data)
    for group in range(len(raw) // _LANES):
        word = _stages(address + np.uint64(2 * _LANES * group))
        if word == 0:
            continue
        first, end, place = np.int32(_LANES * group), found + np.uint64(_number(word)), found
        for _ in range(_AT_ONCE):
            places[place] = first + np.int32(_lowest(word))
            word, place = _without_lowest(word), place + np.uint64(1)
        while word != 0:
            places[place] = first + np.int32(_lowest(word))
            word, place = _without_lowest(word), place + np.uint64(1)
        found = end
    for i in range(len(raw) // _LANES * _LANES, len(raw)):
        places[found] = i
        found += np.uint64(raw[i] >= _G1)
    return np.int64(found)


@_compiled
def _gather(
    raw: Raw, begin: int, others: Map, places: npt.NDArray[np.int32], values: Raw, dark: Map, scale: Map
) -> None:
    """Collect raw values and maps of the pixels listed: nothing else, so that many looks at the memory overlap."""
    start = np.uint64(begin)
    for k in range(len(values)):
        i = np.uint64(np.uint32(places[k]))
        value = raw[i]
        stage = np.uint64(value >> np.uint16(15))
        values[k] = value
        dark[k] = others[stage, start + i, 0]
        scale[k] = others[stage, start + i, 1]


@_compiled
def _is_saturated(value: Any, scale: Any) -> Any:
    """Whether a pixel is too bright for the last stage; not a bad one (scale 0), nor in a stage that is unknown."""
    return (value == _G2) & ((scale > np.float32(0)) | (scale < np.float32(0)))


@_compiled
def _is_empty(value: Any, scale: Any) -> Any:
    """Whether a pixel says nothing; bad ones are not asked.

    G1 at its lower end has not switched although it had to.
    """
    nothing = (value == _G1) | (value == _ALL_ONES) | ((value >> np.uint16(14)) == _CODE_OF_NONE) | (scale != scale)
    return nothing & (scale != np.float32(0))


@_compiled
def _swapped(bits: Any) -> Any:
    """Turn the bits of a float32 into an integer that is greater for the greater float, and back again."""
    return np.int32(bits ^ np.int32(np.int32(bits >> np.int32(31)) & np.int32(0x7FFFFFFF)))


@_compiled
def _rank(value: Any) -> Any:
    """Return an integer that is greater for the greater value: its maximum needs no care for NaN, so it is fast."""
    return _swapped(np.float32(value).view(np.int32))


@_compiled
def _of_rank(rank: Any) -> Any:
    """Return the value of that rank."""
    return np.int32(_swapped(rank)).view(np.float32)


@_compiled
def to_floats(
    raw: Raw,
    pedestal: Map,
    scale: Map,
    others: Map,
    bad: npt.NDArray[np.int32],
    threshold: float,
    fill: float,
    saturation: float,
    out: Map,
    first: int,
    end: int,
) -> Any:
    """Convert a frame, or a part of it, to float32.

    Parameters
    ----------
    raw : ndarray of uint16, (n,)
    pedestal, scale : ndarray of float32, (n,)
        Dark level [ADU] and reciprocal gain [unit / ADU] of G0; both 0 for a bad pixel.
    others : ndarray of float32, (2, n, 2)
        Both for G1 and G2, side by side: a pixel that needs them costs one look at the memory. Both 0 for a bad pixel,
        NaN where that stage alone is unknown.
    bad : ndarray of int32
        Places of the bad pixels, ascending.
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
    places = np.empty(BLOCK + _AT_ONCE, np.int32)
    values, dark, gain = np.empty(BLOCK, np.uint16), np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    nothing_to_say, too_bright, enough = np.float32(fill), np.float32(saturation), np.float32(threshold)
    total: Any
    empty: Any
    saturated: Any
    total, highest, empty, saturated = 0.0, np.float32(-np.inf), 0, 0
    b: Any = np.searchsorted(bad, first)
    for begin in range(first, end, BLOCK):
        stop = min(begin + BLOCK, end)
        r, o = raw[begin:stop], out[begin:stop]
        p, s = pedestal[begin:stop], scale[begin:stop]
        seen, block, top = np.uint16(0), np.float32(0), _LOWEST
        for i in range(len(r)):
            seen = np.uint16(seen | r[i])
            value = (np.float32(r[i]) - p[i]) * s[i]
            value = value if value >= enough else np.float32(0)
            o[i] = value
            in_first = r[i] < _G1
            block += value if in_first else np.float32(0)
            top = max(top, _rank(value) if in_first else _LOWEST)
        b_first = b
        while b < len(bad) and bad[b] < stop:
            b += 1
        if top <= 0 and b > b_first:
            # A bad pixel, which is 0 so far, could pass for the largest.
            clean = np.float32(-np.inf)
            for i in range(len(r)):
                if r[i] < _G1 and s[i] != np.float32(0):
                    clean = max(clean, o[i])
            highest = max(highest, clean)
        elif top > _LOWEST:
            highest = max(highest, _of_rank(top))
        if seen >= _G1:
            n = _others(r, places)
            v, d, g = values[:n], dark[:n], gain[:n]
            _gather(r, begin, others, places, v, d, g)
            over_here, empty_here = np.int32(0), np.int32(0)
            top = _LOWEST
            for k in range(n):
                value = (np.float32(v[k] & _ADC) - d[k]) * g[k]
                value = value if value >= enough else np.float32(0)
                over, nothing = _is_saturated(v[k], g[k]), _is_empty(v[k], g[k])
                kept = (not (over | nothing)) & (g[k] != np.float32(0))
                block += value if kept else np.float32(0)
                top = max(top, _rank(value) if kept else _LOWEST)
                over_here = np.int32(over_here + np.int32(over))
                empty_here = np.int32(empty_here + np.int32(nothing))
                value = nothing_to_say if nothing else value
                d[k] = too_bright if over else value
            for k in range(n):
                o[places[k]] = d[k]
            if top > _LOWEST:
                highest = max(highest, _of_rank(top))
            saturated += over_here
            empty += empty_here
        for k in range(b_first, b):
            out[bad[k]] = nothing_to_say
        empty += b - b_first
        total += block
    return total, float(highest), empty, saturated


@_compiled
def to_integers(
    raw: Raw,
    pedestal: Map,
    scale: Map,
    others: Map,
    bad: npt.NDArray[np.int32],
    threshold: float,
    least: float,
    most: float,
    fill: int,
    saturation: int,
    out: Any,
    first: int,
    end: int,
) -> Any:
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
    places = np.empty(BLOCK + _AT_ONCE, np.int32)
    values, dark, gain = np.empty(BLOCK, np.uint16), np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    numbers, empty_mark, over_mark = np.empty(BLOCK, np.int32), np.int32(fill), np.int32(saturation)
    low, high, enough = np.float32(least), np.float32(most), np.float32(threshold)
    total: Any
    empty: Any
    saturated: Any
    total, highest, empty, saturated = 0, _LOWEST, 0, 0
    b: Any = np.searchsorted(bad, first)
    for begin in range(first, end, BLOCK):
        stop = min(begin + BLOCK, end)
        r, o = raw[begin:stop], out[begin:stop]
        p, s = pedestal[begin:stop], scale[begin:stop]
        seen, narrow, top, bottom = np.uint16(0), np.int32(0), _LOWEST, np.int32(0)
        for i in range(len(r)):
            seen = np.uint16(seen | r[i])
            number = _rounded((np.float32(r[i]) - p[i]) * s[i], enough, low, high)
            o[i] = number
            in_first = r[i] < _G1
            counted = number if in_first else np.int32(0)
            narrow = np.int32(narrow + counted)
            bottom = min(bottom, counted)
            top = max(top, number if in_first else _LOWEST)
        block = np.int64(narrow)
        if top > _NARROW or bottom < -_NARROW:
            block = _sum_of_first(r, o)
        b_first = b
        while b < len(bad) and bad[b] < stop:
            b += 1
        if top <= 0 and b > b_first:
            # A bad pixel, which is 0 so far, could pass for the largest.
            top = _LOWEST
            for i in range(len(r)):
                if r[i] < _G1 and s[i] != np.float32(0):
                    top = max(top, np.int32(o[i]))
        if seen >= _G1:
            n = _others(r, places)
            v, d, g = values[:n], dark[:n], gain[:n]
            _gather(r, begin, others, places, v, d, g)
            over_here, empty_here = np.int32(0), np.int32(0)
            upper, lower = np.int32(0), np.int32(0)
            for k in range(n):
                number = _rounded((np.float32(v[k] & _ADC) - d[k]) * g[k], enough, low, high)
                over, nothing = _is_saturated(v[k], g[k]), _is_empty(v[k], g[k])
                kept = (not (over | nothing)) & (g[k] != np.float32(0))
                counted = number if kept else np.int32(0)
                # In 32 bits, which a block's halves cannot overflow.
                upper = np.int32(upper + np.int32(counted >> np.int32(16)))
                lower = np.int32(lower + np.int32(counted & np.int32(0xFFFF)))
                top = max(top, number if kept else _LOWEST)
                over_here = np.int32(over_here + np.int32(over))
                empty_here = np.int32(empty_here + np.int32(nothing))
                number = empty_mark if nothing else number
                numbers[k] = over_mark if over else number
            for k in range(n):
                o[places[k]] = numbers[k]
            block += (np.int64(upper) << 16) + np.int64(lower)
            saturated += over_here
            empty += empty_here
        for k in range(b_first, b):
            out[bad[k]] = fill
        empty += b - b_first
        total += block
        highest = max(highest, top)
    return float(total), float(highest) if highest > _LOWEST else -np.inf, empty, saturated


@_compiled
def _sum_of_first(raw: Raw, numbers: Any) -> Any:
    """Return the sum of those converted pixels that are in G0."""
    total = np.int64(0)
    for i in range(len(raw)):
        total += np.int64(numbers[i]) if raw[i] < _G1 else np.int64(0)
    return total


@_compiled
def _rounded(value: Any, enough: Any, low: Any, high: Any) -> Any:
    """Round to an integer of the range; a value that is not enough, or NaN, is 0."""
    value = value if value >= enough else np.float32(0)
    value = value if value > low else low
    value = value if value < high else high
    return np.int32(np.floor(value + np.float32(0.5)))


@_compiled
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
    level, gain, others = np.zeros(BLOCK, np.float32), np.zeros(BLOCK, np.float32), np.zeros((2, BLOCK, 2), np.float32)
    maps = level, gain, others, np.zeros(0, np.int32)
    for dtype in dtypes:
        out = np.empty(BLOCK, dtype)
        if out.dtype == np.float32:
            to_floats(raw, *maps, 0.0, 0.0, 0.0, out, 0, BLOCK)
        else:
            to_integers(raw, *maps, 0.0, 0.0, 100.0, 0, 0, out, 0, BLOCK)
    if darks:
        add_dark(raw, raw, 0, np.zeros(BLOCK, np.uint32), *np.zeros((2, BLOCK), np.int64))
