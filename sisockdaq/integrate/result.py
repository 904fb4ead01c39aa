"""What integration gives: one frame's curve, many frames' curves in one array, and exact averages of them.

Promises
--------
- An average is made of the sums, not of the curves: signal, variance and normalization of all frames are added bin by
  bin, and the intensity is their quotient. It is what one long exposure would have given; integers stay exact.
- Frames weigh as much as their normalization (so also as their monitor and transmission).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from sisockdaq.errors import ConfigurationError

__all__ = ["Averager", "Batch", "Result", "RingResult", "average", "quotient", "stack"]


@dataclass(frozen=True, slots=True)
class Result:
    """One frame's curve and numbers.

    Attributes
    ----------
    axis : ndarray of float64, (bins,)
        Bin centres, in `unit`. Shared by all results; read-only.
    intensity : ndarray of float64, (bins,)
        Σ signal / Σ normalization − background; NaN where no pixel counts.
    sigma : ndarray of float64, (bins,) or None
        Its standard error, by the error model, and the background's added in quadrature.
    sum_signal : ndarray, (bins,)
        Σ share · (pixel − dark); integers (uint64, int64) for integers without splitting and with a dark, if any, of
        whole numbers.
    sum_variance : ndarray of float64, (bins,) or None
        Σ share² · max(1, pixel), or of the azimuthal error model the spread within the bin (`clip`).
    sum_normalization, count : ndarray of float64, (bins,)
        Σ share · (flat × absorption × solid angle × polarization) × monitor × transmission, and Σ share, of the pixels
        that were used.
    total : int or float
        Sum of all raw pixels that are neither masked nor unusable, inside the radial range or not.
    maximum : int, float or None
        The largest of them; None where it was not asked for, NaN where there are none.
    rois : dict
        Sum of those inside each region.
    unusable : int
        Pixels that were left out because they are NaN, infinite, or have the dummy value.
    unit : str
        Name of the axis' unit, as the integrator's option; "" where it is not known.
    background, background_sigma : ndarray of float64, (bins,) or None
        What was subtracted from the intensity, and its standard error. Shared by all results of an integrator.
    """

    axis: npt.NDArray[np.float64]
    intensity: npt.NDArray[np.float64]
    sigma: npt.NDArray[np.float64] | None
    sum_signal: npt.NDArray[Any]
    sum_variance: npt.NDArray[np.float64] | None
    sum_normalization: npt.NDArray[np.float64]
    count: npt.NDArray[np.float64]
    total: float
    maximum: float | None
    rois: dict[str, float] = field(default_factory=dict)
    unusable: int = 0
    unit: str = ""
    background: npt.NDArray[np.float64] | None = None
    background_sigma: npt.NDArray[np.float64] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RingResult(Result):
    """One frame's curve of the pixels that were kept in each ring: sums, counts and errors are of those only.

    Attributes
    ----------
    deviation : ndarray of float64, (bins,)
        Standard deviation of a ring's pixels, by the error model.
    rejected : ndarray of float64, (bins,)
        How many usable pixels of each ring were left out.
    rejected_mask : ndarray of bool, shape of the image, or None
        Which; None where that was not asked for.
    """

    deviation: npt.NDArray[np.float64]
    rejected: npt.NDArray[np.float64]
    rejected_mask: npt.NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """The curves of several frames; what `Result` has once, this has as arrays with the frames first.

    Attributes
    ----------
    axis : ndarray of float64, (bins,)
    intensity, sum_normalization, count : ndarray of float64, (frames, bins)
    sum_signal : ndarray, (frames, bins)
    sigma, sum_variance : ndarray of float64, (frames, bins) or None
    total, unusable : ndarray, (frames,)
    maximum : ndarray, (frames,) or None
    rois : dict of ndarray, (frames,)
    unit, background, background_sigma
        As in `Result`.
    """

    axis: npt.NDArray[np.float64]
    intensity: npt.NDArray[np.float64]
    sigma: npt.NDArray[np.float64] | None
    sum_signal: npt.NDArray[Any]
    sum_variance: npt.NDArray[np.float64] | None
    sum_normalization: npt.NDArray[np.float64]
    count: npt.NDArray[np.float64]
    total: npt.NDArray[Any]
    maximum: npt.NDArray[Any] | None
    rois: dict[str, npt.NDArray[Any]]
    unusable: npt.NDArray[np.int64]
    unit: str = ""
    background: npt.NDArray[np.float64] | None = None
    background_sigma: npt.NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.intensity)

    def __getitem__(self, frame: int) -> Result:
        """Return one frame's result (views, no copies)."""
        if not -len(self) <= frame < len(self):
            raise IndexError(f"frame {frame} of a batch of {len(self)}")
        return Result(
            axis=self.axis,
            intensity=self.intensity[frame],
            sigma=None if self.sigma is None else self.sigma[frame],
            sum_signal=self.sum_signal[frame],
            sum_variance=None if self.sum_variance is None else self.sum_variance[frame],
            sum_normalization=self.sum_normalization[frame],
            count=self.count[frame],
            total=self.total[frame].item(),
            maximum=None if self.maximum is None else self.maximum[frame].item(),
            rois={name: values[frame].item() for name, values in self.rois.items()},
            unusable=int(self.unusable[frame]),
            unit=self.unit,
            background=self.background,
            background_sigma=self.background_sigma,
        )


def stack(results: Iterable[Result]) -> Batch:
    """Put results of one integrator into arrays with the frames first.

    Raises
    ------
    ValueError
        Without any result.
    ConfigurationError
        For results on different axes.
    """
    items = list(results)
    if not items:
        raise ValueError("no results to put together")
    first = items[0]
    for item in items[1:]:
        _check_alike(first, item)
    arrays: dict[str, Any] = {}
    for name in ("intensity", "sigma", "sum_signal", "sum_variance", "sum_normalization", "count", "maximum"):
        values = [getattr(item, name) for item in items]
        arrays[name] = None if any(value is None for value in values) else np.stack(values)
    return Batch(
        axis=first.axis,
        total=np.array([item.total for item in items]),
        rois={name: np.array([item.rois[name] for item in items]) for name in first.rois},
        unusable=np.array([item.unusable for item in items], np.int64),
        unit=first.unit,
        background=first.background,
        background_sigma=first.background_sigma,
        **arrays,
    )


class Averager:
    """Add results up, one at a time, and make one of them all; holds the sums only.

    ::

        averager = Averager()
        for image in images:
            averager.add(integrator.integrate(image))
        averager.result().intensity
    """

    def __init__(self) -> None:
        self._first: Result | None = None
        self._sums: dict[str, Any] = {}
        self.frames = 0

    def add(self, result: Result) -> None:
        """Add one result; raise `ConfigurationError` when it has another axis or background than those before."""
        if not isinstance(result, Result):
            raise TypeError(f"what is to be averaged is of type {type(result).__name__}, and must be a Result")
        if self._first is None:
            self._first = result
            self._sums = {item.name: _own(getattr(result, item.name)) for item in fields(Result)}
        else:
            _check_alike(self._first, result)
            self._add(result)
        self.frames += 1

    def _add(self, result: Result) -> None:
        sums = self._sums
        for name in ("sum_signal", "sum_normalization", "count"):
            sums[name] = sums[name] + getattr(result, name)
        both = sums["sum_variance"] is not None and result.sum_variance is not None
        sums["sum_variance"] = sums["sum_variance"] + result.sum_variance if both else None
        sums["total"] += result.total
        sums["unusable"] += result.unusable
        sums["maximum"] = _larger(sums["maximum"], result.maximum)
        sums["rois"] = {name: sums["rois"][name] + value for name, value in result.rois.items() if name in sums["rois"]}

    def result(self) -> Result:
        """Make the result of all frames so far; raise `ValueError` when there are none."""
        if self._first is None:
            raise ValueError("no results to average")
        sums = dict(self._sums)
        sums["intensity"], sums["sigma"] = quotient(
            sums["sum_signal"],
            sums["sum_variance"],
            sums["sum_normalization"],
            sums["background"],
            sums["background_sigma"],
        )
        return Result(**sums)


def average(results: Iterable[Result] | Batch) -> Result:
    """Average frames exactly: add their sums, and divide once.

    Parameters
    ----------
    results : iterable of Result, or Batch
        On one axis and, if any, with one background.

    Returns
    -------
    Result
        Its sums are those of all frames, so is `Result.total`; its maximum is the largest of all.

    Raises
    ------
    ValueError
        Without any result.
    ConfigurationError
        For different axes or backgrounds.
    """
    averager = Averager()
    for item in (results[frame] for frame in range(len(results))) if isinstance(results, Batch) else results:
        averager.add(item)
    return averager.result()


def quotient(
    signal: npt.NDArray[Any],
    variance: npt.NDArray[np.float64] | None,
    normalization: npt.NDArray[np.float64],
    background: npt.NDArray[np.float64] | None = None,
    background_sigma: npt.NDArray[np.float64] | None = None,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64] | None]:
    """Make intensity and standard error of sums; NaN where the normalization is 0."""
    sigma = None
    with np.errstate(divide="ignore", invalid="ignore"):
        intensity = signal / normalization
        if variance is not None:
            sigma = np.sqrt(variance) / normalization
    if background is not None:
        intensity = intensity - background
    if sigma is not None and background_sigma is not None:
        sigma = np.hypot(sigma, background_sigma)
    return intensity, sigma


def _check_alike(first: Result, other: Result) -> None:
    if first.axis is not other.axis and not np.array_equal(first.axis, other.axis):
        raise ConfigurationError(
            "results on different axes cannot be put together", remedy="integrate all frames with the same options"
        )
    if first.unit != other.unit:
        raise ConfigurationError(f"results in {first.unit} and in {other.unit} cannot be put together")
    for name in ("background", "background_sigma"):
        one, two = getattr(first, name), getattr(other, name)
        if one is not two and not (one is not None and two is not None and np.array_equal(one, two, equal_nan=True)):
            raise ConfigurationError(
                "results with different backgrounds cannot be put together",
                remedy="integrate all frames with the same background",
            )


def _own(value: Any) -> Any:
    return dict(value) if isinstance(value, dict) else value


def _larger(one: float | None, two: float | None) -> float | None:
    """Return the larger maximum: None where one was not asked for, the other where one is NaN (no usable pixel)."""
    if one is None or two is None:
        return None
    if one != one:
        return two
    return one if two != two else max(one, two)
