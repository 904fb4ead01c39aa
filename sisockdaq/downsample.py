"""Fewer samples for a picture, extremes kept.

Every function here returns *rows* (indices of samples to keep), so that nothing is invented: each sample that comes
out went in, with its own time. The promises:

- `by_count`: at most ``max_points`` rows; the first, the last, the smallest and the largest sample are among them (from
  four points on), and a single spike survives.
- `by_stride`: rows at least ``min_stride`` apart in time; where samples must go, the most prominent of its neighbours
  stays, so that the most prominent of all always survives.

Samples that are NaN or infinite are not chosen while there are finite ones and too many of them.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
from tsdownsample import MinMaxLTTBDownsampler

from sisockdaq.schema import Samples

__all__ = ["by_count", "by_stride", "thin"]

Rows = npt.NDArray[np.intp]

_LTTB: Any = MinMaxLTTBDownsampler()  # type: ignore[no-untyped-call]

_FEWEST = 4
"""Below this many points there is no room for first, last, smallest and largest."""


def thin(samples: Samples, max_points: int | None = None, min_stride: float | None = None) -> Samples:
    """Return the samples that are left under both limits (None: no limit).

    Parameters
    ----------
    samples : Samples
        Sorted by time.
    max_points : int, optional
        At most this many samples; at least 1.
    min_stride : float, optional
        Successive samples at least this far apart [s].
    """
    if min_stride is not None and min_stride > 0 and len(samples) > 1:
        rows = by_stride(samples.t, samples.values, min_stride)
        if len(rows) < len(samples):
            samples = samples.take(rows)
    if max_points is not None and len(samples) > max(max_points, 1):
        samples = samples.take(by_count(samples.t, samples.values, max(max_points, 1)))
    return samples


def by_count(t: npt.NDArray[np.float64], values: npt.NDArray[Any], max_points: int) -> Rows:
    """Choose at most ``max_points`` rows.

    Numbers and bools: MinMaxLTTB (largest triangles among each bin's extremes), with the extremes of the whole made
    sure. Strings: the first sample after each change if these fit, else evenly spaced ones. Arrays: evenly spaced.

    Parameters
    ----------
    t : ndarray of float64, (n,)
        Rising times.
    values : ndarray, (n, ...)
        The samples.
    max_points : int
        At least 1.
    """
    n = len(t)
    if n <= max_points:
        return np.arange(n)
    if values.ndim != 1:
        return _even(n, max_points)
    if values.dtype.kind == "O":
        changes = _changes(values)
        return changes if len(changes) <= max_points else changes[_even(len(changes), max_points)]
    numbers, rows = _finite(values)
    if len(rows) <= max_points:
        return rows if len(rows) else _even(n, max_points)
    if max_points < _FEWEST:
        return np.sort(_most_prominent(numbers, rows, max_points))
    ends = {0, len(rows) - 1, int(np.argmin(numbers)), int(np.argmax(numbers))}
    room = max_points - 2
    chosen = set(_triangles(t if len(rows) == n else t[rows], numbers, room)) if room > 2 else set()
    return rows[np.array(sorted(chosen | ends), dtype=np.intp)]


def by_stride(t: npt.NDArray[np.float64], values: npt.NDArray[Any], min_stride: float) -> Rows:
    """Choose rows that are at least ``min_stride`` [s] apart, the prominent before their neighbours.

    Prominence is the distance from the median; of strings, bools and arrays the first of neighbours stays.
    """
    if np.all(np.diff(t) >= min_stride):
        return np.arange(len(t))
    if values.ndim == 1 and values.dtype.kind in "iuf":
        finite = np.isfinite(values)
        middle = float(np.median(values[finite])) if finite.any() else 0.0
        prominence = np.where(finite, np.abs(values - middle), -1.0)
    else:
        prominence = np.zeros(len(t))
    candidates = _best_of_bins(t, prominence, min_stride)
    times = t[candidates]
    # Candidates are one a bin of that width, so only next neighbours can be too near.
    near = np.r_[False, np.diff(times) < min_stride, False].tolist()
    state = [True] * len(times)
    for i in np.argsort(-prominence[candidates], kind="stable").tolist():
        if state[i]:
            if near[i]:
                state[i - 1] = False
            if near[i + 1]:
                state[i + 1] = False
    kept: Rows = candidates[np.array(state)]
    return kept


def _best_of_bins(t: npt.NDArray[np.float64], prominence: npt.NDArray[np.float64], width: float) -> Rows:
    """Return the most prominent row of each stretch of ``width`` seconds: the only ones that can stay."""
    bins = np.floor((t - t[0]) / width)
    starts = np.flatnonzero(np.r_[True, bins[1:] != bins[:-1]])
    best = np.maximum.reduceat(prominence, starts)
    is_best = prominence == np.repeat(best, np.diff(np.r_[starts, len(t)]))
    first_best: Rows = np.flatnonzero(is_best)
    owner = np.searchsorted(starts, first_best, side="right")
    return first_best[np.r_[True, owner[1:] != owner[:-1]]]


def _triangles(t: npt.NDArray[np.float64], numbers: npt.NDArray[Any], n_out: int) -> list[int]:
    times = np.ascontiguousarray(t - t[0])
    with warnings.catch_warnings():
        # The library warns about memory that is not contiguous or about few points; neither changes the result.
        warnings.simplefilter("ignore")
        picked = _LTTB.downsample(times, np.ascontiguousarray(numbers), n_out=n_out)
    return [int(row) for row in picked]


def _finite(values: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], Rows]:
    """Return the finite values as a type that the library takes, and their rows."""
    numbers = values.astype(np.uint8) if values.dtype.kind == "b" else values
    if values.dtype.kind == "f":
        finite = np.isfinite(values)
        if not finite.all():
            rows = np.flatnonzero(finite)
            return numbers[rows], rows
    return numbers, np.arange(len(values))


def _most_prominent(numbers: npt.NDArray[Any], rows: Rows, n: int) -> Rows:
    distance = np.abs(numbers.astype(np.float64) - float(np.median(numbers)))
    return rows[np.argpartition(distance, -n)[-n:]]


def _changes(values: npt.NDArray[Any]) -> Rows:
    return np.flatnonzero(np.r_[True, values[1:] != values[:-1]])


def _even(n: int, max_points: int) -> Rows:
    if max_points == 1:
        return np.array([n - 1], dtype=np.intp)
    return np.unique(np.linspace(0, n - 1, max_points).round().astype(np.intp))
