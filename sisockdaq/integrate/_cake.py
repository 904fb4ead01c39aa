"""Kernels for cakes: pixels in image order add to accumulators of hundreds of thousands of bins, by their segments.

Neighbouring pixels lie in neighbouring bins, so that the accumulators of a few image rows stay in the second level of
cache although all of them do not. (Bins in their order, each fetching its pixels, took twice as long: every bin has
another number of them, and the processor guesses wrong where each ends.) The list beside is worked on block by block
with the pixels that it belongs to, while their accumulators are near.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sisockdaq.integrate._blocks import BLOCK, has_unusable, unusable
from sisockdaq.integrate._jit import compiled, inner
from sisockdaq.integrate._lanes import AHEAD, add_four_segments, add_four_whole, add_lanes

__all__ = ["BLOCK", "add_split", "add_whole", "finish", "lose"]


@compiled
def add_whole(
    pixels: Any, index: Any, masked: Any, check: bool, dummy: Any, errors: bool, signal: Any, begin: int, end: int
) -> int:
    """Add pixels that count to one bin each; return the number of unusable ones that are not masked.

    With `errors` ``signal`` has two lanes a bin, Σ v and Σ max(1, v).
    """
    number = signal.dtype.type
    found = 0
    for start in range(begin, end, BLOCK):
        stop = min(start + BLOCK, end)
        if check and has_unusable(pixels, index, masked, dummy, start, stop):
            for i in range(start, stop):
                if unusable(pixels[i], dummy):
                    found += index[i] != masked
                    continue
                value = number(pixels[i])
                if errors:
                    add_lanes(signal, np.uint64(index[i]) << np.uint64(1), (value, max(value, number(1))))
                else:
                    signal[np.uint64(index[i])] += value
        elif errors:
            _add_whole_errors(pixels, index, signal, start, stop)
        else:
            for i in range(np.uint64(start), np.uint64(stop)):
                signal[np.uint64(index[i])] += number(pixels[i])
    return found


@inner
def _add_whole_errors(pixels: Any, index: Any, signal: Any, start: int, stop: int) -> None:
    number = signal.dtype.type
    last = start + ((stop - start) & ~3)
    for i in range(start, last, 4):
        j = np.uint64(i)
        places = (
            np.uint64(index[j]),
            np.uint64(index[j + np.uint64(1)]),
            np.uint64(index[j + np.uint64(2)]),
            np.uint64(index[j + np.uint64(3)]),
        )
        add_four_whole(pixels, j, places, signal)
    for i in range(last, stop):
        value = number(pixels[i])
        add_lanes(signal, np.uint64(index[i]) << np.uint64(1), (value, max(value, number(1))))


@inner
def _add_segments(
    pixels: Any, chosen: Any, first_bin: Any, share: Any, lanes: int, signal: Any, start: int, stop: int
) -> None:
    """Add segments; ``chosen`` has their pixels, or is None where each pixel has one of its own."""
    last = start + (max(0, min(stop, first_bin.size - AHEAD) - start) & ~3)
    if lanes == 2:
        for i in range(start, last, 4):
            add_four_segments(pixels, chosen, first_bin, share, 2, False, np.uint64(i), signal)
    elif lanes == 3:
        for i in range(start, last, 4):
            add_four_segments(pixels, chosen, first_bin, share, 3, False, np.uint64(i), signal)
    else:
        for i in range(start, last, 4):
            add_four_segments(pixels, chosen, first_bin, share, 4, False, np.uint64(i), signal)
    for i in range(np.uint64(last), np.uint64(stop)):
        value = np.float64(pixels[i if chosen is None else np.uint64(chosen[i])])
        _add_segment(value, np.uint64(first_bin[i]), share, i, lanes, False, signal)


@inner
def _add_segments_errors(
    pixels: Any, chosen: Any, first_bin: Any, share: Any, lanes: int, signal: Any, start: int, stop: int
) -> None:
    """As `_add_segments`, with two accumulators a bin: Σ share·v and Σ share²·max(1, v)."""
    last = start + (max(0, min(stop, first_bin.size - AHEAD) - start) & ~3)
    if lanes == 2:
        for i in range(start, last, 4):
            add_four_segments(pixels, chosen, first_bin, share, 2, True, np.uint64(i), signal)
    elif lanes == 3:
        for i in range(start, last, 4):
            add_four_segments(pixels, chosen, first_bin, share, 3, True, np.uint64(i), signal)
    else:
        for i in range(start, last, 4):
            add_four_segments(pixels, chosen, first_bin, share, 4, True, np.uint64(i), signal)
    for i in range(np.uint64(last), np.uint64(stop)):
        value = np.float64(pixels[i if chosen is None else np.uint64(chosen[i])])
        _add_segment(value, np.uint64(first_bin[i]), share, i, lanes, True, signal)


@inner
def _add_segment(value: float, first: Any, share: Any, i: Any, lanes: int, errors: bool, signal: Any) -> None:
    """Add one pixel's value to the ``i``-th segment."""
    width = max(value, 1.0)
    for lane in range(np.uint64(lanes)):
        part = np.float64(share[i * np.uint64(lanes) + lane])
        if errors:
            add_lanes(signal, (first + lane) << np.uint64(1), (value * part, width * (part * part)))
        else:
            signal[first + lane] += value * part


@inner
def _add_usable(
    pixels: Any,
    chosen: Any,
    first_bin: Any,
    share: Any,
    lanes: int,
    dummy: Any,
    errors: bool,
    signal: Any,
    start: int,
    stop: int,
) -> None:
    """As the two above, without unusable pixels."""
    for i in range(np.uint64(start), np.uint64(stop)):
        raw = pixels[i if chosen is None else np.uint64(chosen[i])]
        if not unusable(raw, dummy):
            _add_segment(np.float64(raw), np.uint64(first_bin[i]), share, i, lanes, errors, signal)


@compiled
def add_split(
    pixels: Any,
    index: Any,
    share: Any,
    lanes: int,
    more_pixel: Any,
    more_first: Any,
    more_share: Any,
    cut: Any,
    masked: Any,
    check: bool,
    dummy: Any,
    errors: bool,
    signal: Any,
    begin: int,
    end: int,
) -> int:
    """Add pixels that are split, from ``begin`` (a multiple of `BLOCK`) on; return the number of unusable ones.

    ``lanes`` is 2 to 4; ``cut`` says where in the list beside each block of pixels begins. With `errors` ``signal`` has
    two values a bin.
    """
    found = 0
    for start in range(begin, end, BLOCK):
        stop = min(start + BLOCK, end)
        low, high = cut[start // BLOCK], cut[start // BLOCK + 1]
        if check and has_unusable(pixels, index, masked, dummy, start, stop):
            for i in range(start, stop):
                found += unusable(pixels[i], dummy) and index[i] != masked
            _add_usable(pixels, None, index, share, lanes, dummy, errors, signal, start, stop)
            _add_usable(pixels, more_pixel, more_first, more_share, lanes, dummy, errors, signal, low, high)
        elif errors:
            _add_segments_errors(pixels, None, index, share, lanes, signal, start, stop)
            _add_segments_errors(pixels, more_pixel, more_first, more_share, lanes, signal, low, high)
        else:
            _add_segments(pixels, None, index, share, lanes, signal, start, stop)
            _add_segments(pixels, more_pixel, more_first, more_share, lanes, signal, low, high)
    return found


@compiled
def lose(
    pixels: Any,
    index: Any,
    share: Any,
    lanes: int,
    more_pixel: Any,
    more_first: Any,
    more_share: Any,
    dummy: Any,
    weight: Any,
    dark: Any,
    lost: Any,
) -> None:
    """Add up what unusable pixels take from each bin: normalization, count and, with a dark, dark: ``lost`` (3, n)."""
    split = share.size > 0
    for i in range(pixels.size):
        if not unusable(pixels[i], dummy):
            continue
        for lane in range(lanes):
            part = np.float64(share[i * lanes + lane]) if split else 1.0
            b = np.int64(index[i]) + lane
            lost[0, b] += part * weight[i]
            lost[1, b] += part
            if dark.size > 0:
                lost[2, b] += part * dark[i]
    for k in range(more_pixel.size):
        i = more_pixel[k]
        if not unusable(pixels[i], dummy):
            continue
        for lane in range(lanes):
            part = np.float64(more_share[k * lanes + lane])
            b = np.int64(more_first[k]) + lane
            lost[0, b] += part * weight[i]
            lost[1, b] += part
            if dark.size > 0:
                lost[2, b] += part * dark[i]


@compiled
def finish(
    signals: Any,
    errors: bool,
    reach: Any,
    inverse: Any,
    factor: float,
    begin: int,
    end: int,
    signal: Any,
    variance: Any,
    intensity: Any,
    sigma: Any,
) -> None:
    """Add the parts' accumulators up for the bins from ``begin`` to ``end``, clear them, and divide.

    Parameters
    ----------
    signals : ndarray, (parts, more than bins)
        With `errors` signal and variance by turns.
    reach : ndarray of int64, (parts, 2)
        The first bin that a part adds to, and the one after the last; the others are not looked at.
    inverse : ndarray of float64, (bins,)
        1 / normalization, NaN where there is none; times ``factor``.
    """
    for start in range(begin, end, BLOCK):
        stop = min(start + BLOCK, end)
        signal[start:stop] = 0
        if errors:
            variance[start:stop] = 0.0
        for part in range(reach.shape[0]):
            low, high = max(start, reach[part, 0]), min(stop, reach[part, 1])
            if low >= high:
                continue
            if errors:
                _gather(signals[part, 2 * low : 2 * high], signal[low:high], variance[low:high])
            else:
                _add(signals[part, low:high], signal[low:high])
        _divide(signal[start:stop], inverse[start:stop], factor, intensity[start:stop])
        if errors:
            _deviate(variance[start:stop], inverse[start:stop], factor, sigma[start:stop])


@inner
def _add(source: Any, out: Any) -> None:
    for b in range(out.size):
        out[b] += source[b]
        source[b] = 0


@inner
def _gather(source: Any, signal: Any, variance: Any) -> None:
    for b in range(signal.size):
        signal[b] += source[2 * b]
        variance[b] += source[2 * b + 1]
        source[2 * b] = 0
        source[2 * b + 1] = 0


@inner
def _divide(signal: Any, inverse: Any, factor: float, out: Any) -> None:
    for b in range(out.size):
        out[b] = np.float64(signal[b]) * (inverse[b] * factor)


@inner
def _deviate(variance: Any, inverse: Any, factor: float, out: Any) -> None:
    for b in range(out.size):
        out[b] = np.sqrt(variance[b]) * (inverse[b] * factor)
