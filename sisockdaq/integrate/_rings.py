"""Compiled loops over rings: turning a bin map over, gathering a frame by rings, clipping and sorting one ring.

The sums of a ring are made in float64 from values that were rounded to float32: so does pyFAI's CSR engine
(``sigma_clip``, ``medfilt`` and ``integrate_ng`` of its ``CSR_common``). The recurrence that it uses for the variance
within a ring gives another number in another order: there the pixels come in image order. Other sums differ in their
last bit between processors that add another number of values at once.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

__all__ = ["AZIMUTHAL", "HYBRID", "POISSON", "clip_rings", "count_entries", "fill_entries", "gather"]

POISSON, AZIMUTHAL, HYBRID = 0, 1, 2
"""Error models as the kernels take them."""

_STEP = 128
"""Pixels that are searched at once for what few of them are, several an instruction, before any is looked at alone."""

_LEAST_COUNT = 3.0
"""Chauvenet's criterion takes a ring for no smaller than this, as in pyFAI."""


@njit(nogil=True, cache=True, error_model="numpy")
def count_entries(
    layout: int,
    index: Any,
    packed: Any,
    pixels: int,
    bins: int,
    entries: int,
    side_pixel: Any,
    side_start: Any,
    side_bin: Any,
    start: Any,
) -> None:
    """Count each ring's pixels, and make of the counts where each ring begins; ``start`` is int64, (bins + 1,), zeros.

    ``layout`` is 1 for ``whole``, 2 for ``pairs`` and 3 for ``triples``; ``packed`` has the map's shares in a row.
    """
    for i in range(pixels):
        entry = int(index[i])
        if entry >= entries:
            continue
        if layout == 1:
            start[entry + 1] += 1
        elif layout == 2:
            first = entry >> 1
            start[first + 1] += 1
            if first + 1 < bins:
                start[first + 2] += 1
        else:
            for k in range(entry - (packed[2 * i] != 0), entry + 1 + (packed[2 * i + 1] != 0)):
                start[k + 1] += 1
    for k in range(side_start[side_pixel.size]):
        start[side_bin[k] + 1] += 1
    for k in range(bins):
        start[k + 1] += start[k]


@njit(nogil=True, cache=True, error_model="numpy")
def fill_entries(
    layout: int,
    index: Any,
    packed: Any,
    pixels: int,
    bins: int,
    entries: int,
    side_pixel: Any,
    side_start: Any,
    side_bin: Any,
    side_share: Any,
    place: Any,
    pixel: Any,
    share: Any,
) -> None:
    """Write each ring's pixels in image order, and their shares; ``place`` is a copy of the rings' beginnings.

    ``packed`` is the map's shares in one dimension. In ``whole`` maps nothing has a share and ``share`` is empty.
    """
    side = 0
    for i in range(pixels):
        entry = int(index[i])
        if entry >= entries:
            if side < side_pixel.size and side_pixel[side] == i:
                for k in range(side_start[side], side_start[side + 1]):
                    j = place[side_bin[k]]
                    place[side_bin[k]] += 1
                    pixel[j] = i
                    share[j] = side_share[k]
                side += 1
            continue
        if layout == 1:
            j = place[entry]
            place[entry] += 1
            pixel[j] = i
            continue
        if layout == 2:
            first, last = entry >> 1, min((entry >> 1) + 1, bins - 1)
            small = np.float64(packed[i])
            one = 1.0 - small if entry & 1 else small
            two = small if entry & 1 else 1.0 - small
        else:
            one = np.float64(packed[2 * i])
            two = np.float64(packed[2 * i + 1])
            first, last = entry - (one != 0), entry + (two != 0)
        for b in range(first, last + 1):
            j = place[b]
            place[b] += 1
            pixel[j] = i
            if layout == 3 and b == entry:
                share[j] = 1.0 - one - two
            else:
                share[j] = one if b == first else two


@njit(nogil=True, cache=True, error_model="numpy")
def gather(pixels: Any, check: bool, dummy: Any, pixel: Any, out: Any) -> None:
    """Write the value of each ring pixel as float32, and NaN for those that are unusable."""
    if check:
        for j in range(pixel.size):
            value = pixels[np.uint32(pixel[j])]
            taken = np.float32(value)
            out[j] = taken if value != dummy and abs(taken) < np.inf else np.nan
    else:
        for j in range(pixel.size):
            out[j] = np.float32(pixels[np.uint32(pixel[j])])


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "nsz"})
def _take(values: Any, weight: Any, share: Any, dark: Any, ring: Any, sums: Any) -> int:
    """Write a ring's pixels to the rows of ``ring`` and sum them up as `_add`; return how many are usable.

    Rows: share · signal, share · weight, signal / weight, share² · variance, the variance being that of Poisson errors.
    Unusable pixels (NaN) become zeros, without weight and without a place: they change no sum, and are not rejected.
    """
    # One loop without branches: the compiler takes several pixels an instruction, and memory is read once.
    split, minus = share.size > 0, dark.size > 0
    signals, weights, places, variances = (
        ring[0, : values.size],
        ring[1, : values.size],
        ring[2, : values.size],
        ring[3, : values.size],
    )
    s = v = w = w2 = c = 0.0
    used = 0
    for i in range(values.size):
        raw = values[i]
        usable = raw == raw
        taken = raw - dark[i] if minus else raw
        part = np.float64(share[i]) if split else 1.0
        part = part if usable else 0.0
        width = np.float64(raw) if raw > np.float32(1.0) else 1.0
        places[i] = np.float64(taken) / np.float64(weight[i])
        x = np.float64(taken) * part if usable else 0.0
        a = np.float64(weight[i]) * part
        width *= part * part
        signals[i], weights[i], variances[i] = x, a, width
        s += x
        v += width
        w += a
        w2 += a * a
        c += part
        used += usable
    sums[0], sums[1], sums[2], sums[3], sums[4] = s, v, w, w2, c
    return used


@njit(nogil=True, cache=True, error_model="numpy")
def _strike(ring: Any, i: int) -> None:
    """Let a pixel of a ring count for nothing, and lie nowhere."""
    ring[0, i] = 0.0
    ring[1, i] = 0.0
    ring[2, i] = np.nan
    ring[3, i] = 0.0


@njit(nogil=True, cache=True, error_model="numpy")
def _inherit(pixel: Any, carried: Any, number: int, values: Any) -> None:
    """Make the pixels unusable that the ring before this one left out. Both are in image order.

    A pixel's rings follow each other, so nothing older needs to be remembered.
    """
    low = 0
    for k in range(number):
        wanted, high = carried[k], pixel.size
        while low < high:
            middle = (low + high) >> 1
            if pixel[middle] < wanted:
                low = middle + 1
            else:
                high = middle
        if low < pixel.size and pixel[low] == wanted:
            values[low] = np.nan


@njit(nogil=True, cache=True, error_model="numpy")
def _remember(pixel: Any, ring: Any, carried: Any) -> int:
    """Note the pixels that are struck, for the next ring."""
    weights, number = ring[1, : pixel.size], 0
    for begin in range(0, pixel.size, _STEP):
        end, here = min(begin + _STEP, pixel.size), 0
        for weight in weights[begin:end]:
            here += weight == 0
        if here:
            for i in range(begin, end):
                if weights[i] == 0:
                    carried[number] = pixel[i]
                    number += 1
    return number


@njit(nogil=True, cache=True, error_model="numpy")
def _add_azimuthal(signal: Any, weight: Any, place: Any, sums: Any) -> None:
    """Sum a ring up; the variance is Σ weight² · (x - mean before) · (x - mean after), 0 for the first pixel."""
    # Only the sums up to each pixel need those before; the rest is made several pixels an instruction.
    signals, weights, means = np.empty(_STEP), np.empty(_STEP), np.empty(_STEP + 1)
    s = w = v = w2 = 0.0
    means[0] = np.nan
    for begin in range(0, signal.size, _STEP):
        end = min(begin + _STEP, signal.size)
        number, here = end - begin, weight[begin:end]
        s = _sums_up_to(signal[begin:end], s, signals)
        w = _sums_up_to(here, w, weights)
        for i in range(number):
            means[i + 1] = signals[i] / weights[i]
        more, squares = _add_spread(here, place[begin:end], means)
        v += more
        w2 += squares
        means[0] = means[number]
    sums[0], sums[1], sums[2], sums[3] = s, v, w, w2


@njit(nogil=True, cache=True, error_model="numpy")
def _sums_up_to(values: Any, total: float, out: Any) -> float:
    """Write the sum up to each value, `total` being that of those before; return the last."""
    for k in range(values.size >> 2):
        i = 4 * k
        one = values[i]
        two = one + values[i + 1]
        pair = values[i + 2] + values[i + 3]
        out[i] = total + one
        out[i + 1] = total + two
        out[i + 2] = total + (two + values[i + 2])
        total += two + pair
        out[i + 3] = total
    for i in range(values.size & ~3, values.size):
        total += values[i]
        out[i] = total
    return total


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "nsz"})
def _add_spread(weight: Any, place: Any, means: Any) -> tuple[float, float]:
    """Return Σ weight² · (x - mean before) · (x - mean after) and Σ weight²; ``means`` begins with the mean before."""
    v = w2 = 0.0
    for i in range(weight.size):
        square = weight[i] * weight[i]
        term = square * ((means[i] - place[i]) * (means[i + 1] - place[i]))
        v += term if term == term else 0.0
        w2 += square
    return v, w2


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "nsz"})
def _add_given(signal: Any, weight: Any, variance: Any, sums: Any) -> None:
    """Sum a ring up; the variance is that of the pixels."""
    s = v = w = w2 = 0.0
    for i in range(signal.size):
        s += signal[i]
        v += variance[i]
        w += weight[i]
        w2 += weight[i] * weight[i]
    sums[0], sums[1], sums[2], sums[3] = s, v, w, w2


@njit(nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "nsz"})
def _add_shares(share: Any, weight: Any) -> float:
    """Sum up the shares of pixels that have weight."""
    total = 0.0
    for i in range(share.size):
        total += np.float64(share[i]) if weight[i] != 0 else 0.0
    return total


@njit(nogil=True, cache=True, error_model="numpy")
def _add(ring: Any, size: int, used: int, azimuthal: bool, share: Any, sums: Any) -> None:
    """Write a ring's Σ signal, Σ variance, Σ weight, Σ weight² and Σ share to ``sums``; `used` of its pixels count."""
    sums[:] = 0.0
    if used == 0:
        return
    if azimuthal:
        _add_azimuthal(ring[0, :size], ring[1, :size], ring[2, :size], sums)
    else:
        _add_given(ring[0, :size], ring[1, :size], ring[3, :size], sums)
    sums[4] = _add_shares(share, ring[1, :size]) if share.size > 0 else np.float64(used)


@njit(nogil=True, cache=True, error_model="numpy")
def _reject(ring: Any, pixel: Any, mean: float, limit: float, gone: Any) -> int:
    """Strike the pixels that lie further than `limit` from `mean`; return their number."""
    bad = 0
    for begin in range(0, pixel.size, _STEP):
        end, here = min(begin + _STEP, pixel.size), 0
        places = ring[2, begin:end]
        for i in range(places.size):
            here += abs(places[i] - mean) > limit
        if here:
            bad += here
            for i in range(begin, end):
                if abs(ring[2, i] - mean) > limit:
                    _strike(ring, i)
                    if gone.size:
                        gone[np.uint32(pixel[i])] = 1
    return bad


@njit(nogil=True, cache=True, error_model="numpy")
def clip_rings(
    values: Any,
    start: Any,
    weight: Any,
    share: Any,
    dark: Any,
    pixel: Any,
    model: int,
    threshold: float,
    iterations: int,
    gone: Any,
    carried: Any,
    number: int,
    ring: Any,
    out: Any,
) -> int:
    """Clip and sum up some rings.

    Parameters
    ----------
    values, weight, share, dark, pixel : ndarray
        Of these rings only; ``start`` counts from the first of them. ``share`` and ``dark`` may be empty; ``values``
        are overwritten.
    gone : ndarray of uint8, (pixels,) or (0,)
        Where to note the pixels that are rejected.
    carried : ndarray of int32, (longest ring,)
        With split pixels: those that the ring before the first has left out, `number` of them; then those of the last.
    ring : ndarray of float64, (4, longest ring)
        Room to work in.
    out : ndarray of float64, (rings, 6)
        Σ signal, Σ variance, Σ weight, Σ weight², Σ share of the pixels that are left, and how many it rejects.

    Returns
    -------
    int
        How many are in ``carried`` now.
    """
    sums = np.zeros(5)
    split = share.size > 0
    for b in range(start.size - 1):
        first, last = start[b], start[b + 1]
        size, numbers = last - first, pixel[first:last]
        shares = share[first:last] if split else share
        darks = dark[first:last] if dark.size else dark
        if number:
            _inherit(numbers, carried, number, values[first:last])
        spread = model == AZIMUTHAL or (model == HYBRID and iterations > 0)
        used = _take(values[first:last], weight[first:last], shares, darks, ring, sums)
        if spread and used:
            _add_azimuthal(ring[0, :size], ring[1, :size], ring[2, :size], sums)
        rejected = 0
        for cycle in range(iterations):
            if sums[2] == 0 or sums[4] == 0:
                break
            mean, deviation = np.nan, np.nan
            if sums[3] > 0:
                mean, deviation = sums[0] / sums[2], np.sqrt(sums[1] / sums[3])
            cut = max(threshold, math.sqrt(2.0 * math.log(max(_LEAST_COUNT, sums[4]) / math.sqrt(2.0 * math.pi))))
            bad = _reject(ring, numbers, mean, cut * deviation, gone)
            if bad == 0 and model != HYBRID:
                break
            rejected += bad
            used -= bad
            again = model == AZIMUTHAL or (model == HYBRID and bad > 0 and cycle + 1 < iterations)
            _add(ring, size, used, again, shares, sums)
            if bad == 0:
                break
        if split and iterations:
            number = _remember(numbers, ring, carried) if used < size else 0
        out[b, :5] = sums
        out[b, 5] = rejected
    return number
