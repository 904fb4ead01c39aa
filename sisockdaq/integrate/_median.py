"""Compiled loops that sort a ring's pixels by their value and take those between two quantiles of its weight.

Source of the rules: pyFAI's ``CsrIntegrator.medfilt``. Values, weights and their running sum are float32 as there (the
sum is made in float64 and then rounded), because where a quantile falls between two pixels depends on it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

__all__ = ["take_quantiles"]

_NARROW, _WIDE = 8, 11
"""Bits of a key by which a short and a long ring are dealt out at once."""

_LONG = 1500
"""From so many pixels on, three rounds with long tables are faster than four with short ones."""

_SHORT = 24
"""Up to so many pixels, putting each in its place is faster than any table."""


@njit(nogil=True, cache=True, error_model="numpy")
def _keys(values: Any, weight: Any, dark: Any, place: Any, bits: Any, keys: Any) -> int:
    """Write a key for each usable pixel, in whose order their values rise: 32 bits of value above 32 of number.

    ``bits`` is the memory of ``place`` (float32) as uint32.
    """
    high, sign = np.uint32(0xFFFFFFFF), np.uint32(0x80000000)
    zero, n = np.float32(0.0), 0
    if dark.size:
        for i in range(values.size):
            place[i] = (values[i] - dark[i]) / weight[i] + zero  # -0 becomes 0
    else:
        for i in range(values.size):
            place[i] = values[i] / weight[i] + zero
    for i in range(values.size):
        word = bits[i]
        ordered = word ^ (high if word & sign else sign)
        keys[n] = (np.uint64(ordered) << np.uint64(32)) | np.uint64(i)
        n += values[i] == values[i]
    return n


@njit(nogil=True, cache=True, error_model="numpy")
def _insert(keys: Any) -> None:
    for i in range(1, keys.size):
        key, j = keys[i], i
        while j > 0 and keys[j - 1] > key:
            keys[j] = keys[j - 1]
            j -= 1
        keys[j] = key


@njit(nogil=True, cache=True, error_model="numpy")
def _deal(keys: Any, other: Any, table: Any, shift: Any, width: Any) -> bool:
    """Order by some bits into ``other``, equal ones staying in their order; return False when all are equal."""
    mask = (np.uint64(1) << width) - np.uint64(1)
    size = 1 << int(width)
    for d in range(size):
        table[d] = 0
    for i in range(keys.size):
        table[(keys[i] >> shift) & mask] += 1
    if table[(keys[0] >> shift) & mask] == keys.size:
        return False
    before = 0
    for d in range(size):
        number = table[d]
        table[d] = before
        before += number
    for i in range(keys.size):
        d = (keys[i] >> shift) & mask
        other[table[d]] = keys[i]
        table[d] += 1
    return True


@njit(nogil=True, cache=True, error_model="numpy")
def _sort(keys: Any, other: Any, table: Any) -> bool:
    """Sort by the upper 32 bits; return whether the sorted keys are in ``other``. Equal values keep their order."""
    if keys.size <= _SHORT:
        _insert(keys)
        return False
    width = np.uint64(_WIDE if keys.size >= _LONG else _NARROW)
    shift, swapped = np.uint64(32), False
    while shift < np.uint64(64):
        bits = min(width, np.uint64(64) - shift)
        if swapped:
            swapped ^= _deal(other, keys, table, shift, bits)
        else:
            swapped ^= _deal(keys, other, table, shift, bits)
        shift += width
    return swapped


@njit(nogil=True, cache=True, error_model="numpy")
def _sum_between(
    order: Any, values: Any, weight: Any, share: Any, dark: Any, low: float, high: float, upto: Any, out: Any
) -> None:
    """Sum the pixels between two quantiles, or that a quantile goes through where both are the same."""
    one, total = np.float32(1.0), 0.0
    split = share.size > 0
    for k in range(order.size):
        i = np.uint32(order[k])
        total += np.float64(weight[i] * share[i] if split else weight[i])
        upto[k] = np.float32(total)
    first, last = np.float32(low * total), np.float32(high * total)
    s = v = w = w2 = c = 0.0
    before, chosen = np.float32(0.0), 0
    for k in range(order.size):
        after = upto[k]
        if (first <= before and after <= last) or (first >= before and after >= last):
            i = np.uint32(order[k])
            part = share[i] if split else one
            signal = values[i] - dark[i] if dark.size else values[i]
            a = np.float64(weight[i] * part)
            s += np.float64(signal * part)
            v += np.float64(max(values[i], one) * part * part)
            w += a
            w2 += a * a
            c += np.float64(part)
            chosen += 1
        before = after
    out[0], out[1], out[2], out[3], out[4], out[5] = s, v, w, w2, c, order.size - chosen


@njit(nogil=True, cache=True, error_model="numpy")
def take_quantiles(
    values: Any,
    start: Any,
    weight: Any,
    share: Any,
    dark: Any,
    low: float,
    high: float,
    keys: Any,
    other: Any,
    place: Any,
    bits: Any,
    out: Any,
) -> None:
    """Sum up some rings' pixels between the quantiles `low` and `high`.

    Parameters
    ----------
    values, weight, share, dark : ndarray of float32
        Of these rings only; ``start`` counts from the first of them. ``share`` and ``dark`` may be empty.
    keys, other : ndarray of uint64, (longest ring,)
    place, bits : ndarray of float32 and uint32, (longest ring,)
        Room to work in; the last two are the same memory.
    out : ndarray of float64, (rings, 6)
        As of `_rings.clip_rings`, with the variance of Poisson statistics.
    """
    table = np.empty(1 << _WIDE, np.int64)
    for b in range(start.size - 1):
        first, last = start[b], start[b + 1]
        shares = share[first:last] if share.size else share
        darks = dark[first:last] if dark.size else dark
        n = _keys(values[first:last], weight[first:last], darks, place, bits, keys)
        out[b, :] = 0.0
        if n == 0:
            continue
        order = other[:n] if _sort(keys[:n], other[:n], table) else keys[:n]
        _sum_between(order, values[first:last], weight[first:last], shares, darks, low, high, place, out[b])
