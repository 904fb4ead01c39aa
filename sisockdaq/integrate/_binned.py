"""One bin map with all that is summed over it once: denominators, counts, dark, and the background on its axis.

Unusable pixels (NaN, ±∞, the dummy value) are taken out of signal, dark and denominators alike. For the dark this is a
second pass over the frame, but only over frames that have such pixels.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from sisockdaq.integrate import clip, kernels
from sisockdaq.integrate.background import Background
from sisockdaq.integrate.cache import Prepared
from sisockdaq.integrate.corrections import Corrections
from sisockdaq.integrate.geometry import RadialUnit
from sisockdaq.integrate.maps import BinMap
from sisockdaq.integrate.result import Result, RingResult, quotient
from sisockdaq.integrate.rings import Rings

__all__ = ["Binned"]

_EMPTY_SHARE = 1e-9
"""A split bin is empty when lost pixels leave less than this of its weight: the rest is rounding."""


class Binned:
    """Make results of frames over one bin map.

    Parameters
    ----------
    prepared : Prepared
        The map, and its denominators.
    unit : RadialUnit
        Of the axis.
    corrections : Corrections
        Its `weight` is part of the map's normalization already.
    background : Background, optional
    background_scale : float
    """

    def __init__(
        self,
        prepared: Prepared,
        unit: RadialUnit,
        corrections: Corrections,
        background: Background | None = None,
        background_scale: float = 1.0,
    ) -> None:
        bin_map = self.map = prepared.bin_map
        self.unit = unit
        self.corrections = corrections
        self.axis = _frozen(bin_map.axis * unit.scale)
        self._normalization = _frozen(prepared.normalization)
        self.count = self._count = _frozen(prepared.count)
        self._dark: npt.NDArray[Any] | None = None
        self._dark_map: BinMap | None = None
        if corrections.dark is not None:
            self._dark = self._sum(corrections.dark)
            # What the kernels sum of unusable pixels is the map's normalization: over this map it is the dark.
            self._dark_map = replace(bin_map, normalization=corrections.dark)
        self._background, self._background_sigma = None, None
        if background is not None:
            values, sigma = background.onto(self.axis, unit, background_scale)
            self._background, self._background_sigma = _frozen(values), None if sigma is None else _frozen(sigma)
        self.used = prepared.used

    def _sum(self, weights: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        frame = kernels.prepare(weights.reshape(self.map.shape), None)
        return np.asarray(kernels.sum_frame(self.map, frame).signal, np.float64)

    @cached_property
    def rings(self) -> Rings:
        """The pixels of every bin; made when they are first asked for."""
        return Rings.of(self.map, dark=self.corrections.dark)

    def integrate(
        self,
        frame: kernels.Frame,
        *,
        errors: kernels.ErrorModel | None,
        maximum: bool,
        factor: float,
        threads: int = 1,
    ) -> Result:
        """Make one frame's result; `factor` multiplies the normalization."""
        sums = kernels.sum_frame(self.map, frame, errors=errors == "poisson", maximum=maximum, threads=threads)
        variance = sums.variance
        if errors == "azimuthal":
            variance = clip.azimuthal(self.rings, frame, threads=threads).variance
        signal, normalization, count = self._corrected(frame, sums, threads)
        if factor != 1.0:
            normalization = normalization * factor
        intensity, sigma = quotient(signal, variance, normalization, self._background, self._background_sigma)
        return Result(
            axis=self.axis,
            intensity=intensity,
            sigma=sigma,
            sum_signal=signal,
            sum_variance=variance,
            sum_normalization=normalization,
            count=count,
            total=sums.total,
            maximum=sums.maximum if sums.unusable < self.used else (np.nan if maximum else None),
            unusable=sums.unusable,
            unit=self.unit.name,
            background=self._background,
            background_sigma=self._background_sigma,
        )

    def of_rings(
        self, frame: kernels.Frame, rings: clip.RingSums, *, maximum: bool, factor: float, threads: int = 1
    ) -> RingResult:
        """Make a result of what was kept of each ring; totals and maximum are those of the whole frame."""
        whole = kernels.sum_frame(self.map, frame, maximum=maximum, threads=threads)
        normalization = rings.weight * factor
        intensity, sigma = quotient(
            rings.signal, rings.variance, normalization, self._background, self._background_sigma
        )
        return RingResult(
            axis=self.axis,
            intensity=intensity,
            sigma=sigma,
            sum_signal=rings.signal,
            sum_variance=rings.variance,
            sum_normalization=normalization,
            count=rings.count,
            total=whole.total,
            maximum=whole.maximum if whole.unusable < self.used else (np.nan if maximum else None),
            unusable=whole.unusable,
            unit=self.unit.name,
            background=self._background,
            background_sigma=self._background_sigma,
            deviation=rings.deviation / factor,
            rejected=rings.rejected,
            rejected_mask=rings.rejected_mask,
        )

    def _corrected(
        self, frame: kernels.Frame, sums: kernels.Sums, threads: int
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return the signal without dark, what the used pixels weigh in each bin, and how many they are."""
        if sums.lost_weight is None or sums.lost_count is None:
            return self._subtract(sums.signal, self._dark), self._normalization, self._count
        count = self._count - sums.lost_count
        # Quadrangles around the beam can have shares below 0, in pyFAI too.
        empty = np.abs(count) <= _EMPTY_SHARE * np.abs(self._count)
        normalization = self._normalization - sums.lost_weight
        normalization[empty] = 0.0
        count[empty] = 0.0
        if self._dark is None or self._dark_map is None:
            return sums.signal, normalization, count
        lost = kernels.sum_frame(self._dark_map, frame, threads=threads).lost_weight
        signal = self._subtract(sums.signal, self._dark if lost is None else self._dark - lost)
        signal[empty] = 0  # else a rounding error, divided by no weight at all
        return signal, normalization, count

    def _subtract(self, signal: npt.NDArray[Any], dark: npt.NDArray[np.float64] | None) -> npt.NDArray[Any]:
        if dark is None:
            return signal
        if self.corrections.whole and signal.dtype.kind in "iu":
            return signal.astype(np.int64) - dark.astype(np.int64)
        return signal - dark


def _frozen(array: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    array.flags.writeable = False
    return array
