"""The compiled loop of `invariants`: one pass a curve for moments, Guinier's line and Porod's constant."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from sisockdaq.integrate._jit import compiled, inner

__all__ = [
    "CHI2",
    "CORRELATION",
    "ERRORS",
    "FIRST",
    "FORWARD",
    "INVARIANT",
    "LAST",
    "MOMENTS",
    "NUMBERS",
    "POINTS",
    "POROD",
    "RADIUS",
    "VALID",
    "reduce_curves",
]

MOMENTS, CORRELATION, INVARIANT, POROD, FORWARD, RADIUS = 0, 3, 4, 5, 6, 7
ERRORS = 8
"""Columns of a curve's numbers; the error of each of the first eight is eight columns on."""

FIRST, LAST, POINTS, CHI2, VALID = 16, 17, 18, 19, 20
NUMBERS = 21

_SIGNIFICANT = 2.0
"""Standard errors by which Guinier's limit has to be passed, to be passed: a line through few points has any slope."""

_WORTH = 3.0
"""Standard errors that a radius is to be larger than."""

_LOWEST = 1.0
"""Guinier's line is to begin below this q·Rg."""

_ROUNDS = 12

_NODES, _WEIGHTS = (each.tolist() for each in np.polynomial.legendre.leggauss(8))
_LEGENDRE_X, _LEGENDRE_W = tuple(_NODES), tuple(_WEIGHTS)


@inner
def _moments(
    q: npt.NDArray[np.float64],
    step: npt.NDArray[np.float64],
    curve: npt.NDArray[np.float64],
    sigma: npt.NDArray[np.float64],
    known: bool,
    first: int,
    last: int,
    tail: int,
    out: npt.NDArray[np.float64],
) -> None:
    """Sum powers of q over the bins from `first` up to `last`, and q⁴ I over those from `tail` on."""
    s0 = s1 = s2 = k = 0.0
    v0 = v1 = v2 = v12 = vk = v2k = 0.0
    used = tails = 0
    for i in range(first, last):
        value = curve[i]
        if not math.isfinite(value):
            continue
        used += 1
        x = q[i]
        w = step[i]
        s0 += value * w
        s1 += value * w * x
        s2 += value * w * x * x
        x4 = x * x * x * x
        if i >= tail:
            tails += 1
            k += value * x4
        if known:
            v = sigma[i] * sigma[i]
            if not math.isfinite(v):
                continue
            wv = w * w * v
            v0 += wv
            v1 += wv * x * x
            v12 += wv * x * x * x
            v2 += wv * x4
            if i >= tail:
                vk += v * x4 * x4
                v2k += w * x * x * x4 * v
    nan = math.nan
    if used == 0:
        out[:8] = nan
        out[ERRORS : ERRORS + 8] = nan
        return
    out[0], out[1], out[2] = s0, s1, s2
    out[CORRELATION] = math.pi * s1 / s2 if s2 != 0.0 else nan
    end = q[last - 1] + 0.5 * step[last - 1]
    share = 1.0 / (tails * end) if tails else 0.0
    out[POROD] = k / tails if tails else nan
    out[INVARIANT] = s2 + k * share
    if known:
        out[ERRORS], out[ERRORS + 1], out[ERRORS + 2] = math.sqrt(v0), math.sqrt(v1), math.sqrt(v2)
        relative = nan
        if s1 != 0.0 and s2 != 0.0:  # divided one by one: a product of small numbers may be 0
            relative = v1 / s1 / s1 + v2 / s2 / s2 - 2.0 * v12 / s1 / s2
        out[ERRORS + CORRELATION] = abs(out[CORRELATION]) * math.sqrt(max(relative, 0.0))
        out[ERRORS + POROD] = math.sqrt(vk) / tails if tails else nan
        out[ERRORS + INVARIANT] = math.sqrt(v2 + 2.0 * v2k * share + vk * share * share)
    else:
        out[ERRORS : ERRORS + 8] = nan


@inner
def _line(sums: npt.NDArray[np.float64], end: int, known: bool) -> tuple[float, float, float, float, float]:
    """Return intercept, slope, their variances and χ² per degree of freedom of the line through the first points."""
    s, sx, sy = sums[0, end], sums[1, end], sums[2, end]
    sxx, sxy, syy, n = sums[3, end], sums[4, end], sums[5, end], sums[6, end]
    nan = math.nan
    if n < 3.0 or s <= 0.0:
        return nan, nan, nan, nan, nan
    mean_x, mean_y = sx / s, sy / s
    xx = sxx - sx * mean_x
    if xx <= 1e-14 * sxx:
        return nan, nan, nan, nan, nan
    xy, yy = sxy - sx * mean_y, syy - sy * mean_y
    slope = xy / xx
    chi2 = max(yy - slope * xy, 0.0) / (n - 2.0)
    scale = 1.0 if known else chi2
    return mean_y - slope * mean_x, slope, scale * (1.0 / s + mean_x * mean_x / xx), scale / xx, chi2


@inner
def _guinier(
    q: npt.NDArray[np.float64],
    curve: npt.NDArray[np.float64],
    sigma: npt.NDArray[np.float64],
    known: bool,
    first: int,
    last: int,
    limit: float,
    fewest: int,
    sums: npt.NDArray[np.float64],
    places: npt.NDArray[np.int64],
    out: npt.NDArray[np.float64],
) -> None:
    """Draw the line of ln I against q², up to where q·Rg passes the limit."""
    count = 0
    threshold = limit * limit / 3.0
    for i in range(first, last):
        value = curve[i]
        if not (value > 0.0 and math.isfinite(value)):
            continue
        weight = 1.0
        if known:
            if not sigma[i] > 0.0:
                continue
            weight = (value / sigma[i]) ** 2
            if not (weight > 0.0 and math.isfinite(weight)):
                continue
        x, y = q[i] * q[i], math.log(value)
        before, count = count, count + 1
        places[count] = i
        sums[0, count] = sums[0, before] + weight
        sums[1, count] = sums[1, before] + weight * x
        sums[2, count] = sums[2, before] + weight * y
        sums[3, count] = sums[3, before] + weight * x * x
        sums[4, count] = sums[4, before] + weight * x * y
        sums[5, count] = sums[5, before] + weight * y * y
        sums[6, count] = count
        if limit > 0.0 and count > fewest:
            _, slope, _, variance, _ = _line(sums, count, known)
            if x * (-slope - _SIGNIFICANT * math.sqrt(variance)) > threshold:
                break
    most, end = count, count
    for _ in range(_ROUNDS):
        a, slope, variance_a, variance, chi2 = _line(sums, end, known)
        if limit <= 0.0 or not slope < 0.0:
            break
        wanted = most
        while wanted > fewest and q[places[wanted]] ** 2 * -slope > threshold:
            wanted -= 1
        if wanted == end:
            break
        end = min(wanted, most)
    a, slope, variance_a, variance, chi2 = _line(sums, end, known)
    while limit > 0.0 and end > fewest and slope < 0.0 and q[places[end]] ** 2 * -slope > threshold:
        end -= 1  # the rounds went to and fro between neighbours
        a, slope, variance_a, variance, chi2 = _line(sums, end, known)
    nan = math.nan
    out[FORWARD], out[RADIUS], out[ERRORS + FORWARD], out[ERRORS + RADIUS] = nan, nan, nan, nan
    out[FIRST], out[LAST], out[POINTS], out[CHI2], out[VALID] = nan, nan, end, chi2, 0.0
    if end:
        out[FIRST], out[LAST] = q[places[1]], q[places[end]]
    if not slope < 0.0:
        return
    radius = math.sqrt(-3.0 * slope)
    error = 1.5 * math.sqrt(variance) / radius
    out[FORWARD] = math.exp(a)
    out[RADIUS] = radius
    out[ERRORS + FORWARD] = out[FORWARD] * math.sqrt(variance_a)
    out[ERRORS + RADIUS] = error
    within = limit <= 0.0 or out[LAST] * radius <= limit * 1.000001
    good = end >= fewest and within and out[FIRST] * radius <= _LOWEST and radius > _WORTH * error
    out[VALID] = 1.0 if good else 0.0


@compiled
def reduce_curves(
    q: npt.NDArray[np.float64],
    step: npt.NDArray[np.float64],
    curves: npt.NDArray[np.float64],
    sigmas: npt.NDArray[np.float64],
    moments: tuple[int, int],
    guinier: tuple[int, int],
    tail: int,
    limit: float,
    fewest: int,
    out: npt.NDArray[np.float64],
) -> None:
    """Fill the numbers of each curve.

    Parameters
    ----------
    q, step : ndarray, (bins,)
        Centres and widths.
    curves : ndarray, (frames, bins)
    sigmas : ndarray, (frames, bins), or (1, bins) of anything where there are none
    moments, guinier : (int, int)
        First bin, and the one behind the last.
    tail : int
        First bin of Porod's law; `moments`' end for none.
    limit : float
        Of q·Rg; 0 for the whole range.
    fewest : int
        Points of Guinier's line.
    out : ndarray, (frames, NUMBERS)
    """
    known = sigmas.shape[0] == curves.shape[0] and sigmas.shape[1] == curves.shape[1]
    room = max(guinier[1] - guinier[0], 0) + 1
    sums = np.zeros((7, room))
    places = np.zeros(room, np.int64)
    for frame in range(curves.shape[0]):
        curve, row = curves[frame], out[frame]
        sigma = sigmas[frame] if known else curve
        _moments(q, step, curve, sigma, known, moments[0], moments[1], tail, row)
        _guinier(q, curve, sigma, known, guinier[0], guinier[1], limit, fewest, sums, places, row)
        if row[VALID] == 1.0 and moments[1] > moments[0]:
            begin = q[moments[0]] - 0.5 * step[moments[0]]
            low = 0.0
            for x, w in zip(_LEGENDRE_X, _LEGENDRE_W):  # noqa: B905 - numba knows no strict
                at = 0.5 * begin * (x + 1.0)
                low += 0.5 * begin * w * at * at * math.exp(-at * at * row[RADIUS] ** 2 / 3.0)
            row[INVARIANT] += row[FORWARD] * low
            error = row[ERRORS + FORWARD] * low
            row[ERRORS + INVARIANT] = math.sqrt(row[ERRORS + INVARIANT] ** 2 + error * error)


def warm_up() -> None:
    """Compile."""
    reduce_curves(*_example())


def _example() -> tuple[Any, ...]:
    q = np.linspace(0.1, 1.0, 10)
    return q, np.full(10, 0.1), np.exp(-q)[None], np.zeros((1, 0)), (0, 10), (0, 10), 8, 1.3, 5, np.zeros((1, NUMBERS))
