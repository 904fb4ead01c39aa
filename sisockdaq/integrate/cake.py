"""Cakes: images integrated in both directions, radial bins × azimuthal bins, as pyFAI's ``integrate2d_ng``.

Promises
--------
- Same as pyFAI's sparse engines in Cython: the sums of unsplit integers to the last bit, intensities and errors to
  1e-6. Differences on purpose are those of `Integrator` (a bin without pixels is NaN), and: where the azimuth's
  discontinuity was moved to 0, the range is the whole circle for every splitting, and a pixel across it counts to one
  side (`_cake_full`).
- The Poisson variance is that of the raw pixels whatever the dark, as in curves. So it is in every engine of pyFAI's
  for either, but three of its cakes' (no splitting and bbox by CSR, bbox by LUT), which pyFAI gives max(1, raw) +
  max(0, dark) because it takes them for unable to make a variance of their own.
- The number of threads changes nothing, to the last bit.
- One object may be used by several threads at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from sisockdaq.integrate import _cake, _cake_build, clip, kernels
from sisockdaq.integrate._cake_map import CakeMap, build_cake_map
from sisockdaq.integrate.background import Background
from sisockdaq.integrate.corrections import Corrections
from sisockdaq.integrate.geometry import RadialUnit
from sisockdaq.integrate.kernels import ErrorModel, Frame
from sisockdaq.integrate.result import quotient
from sisockdaq.integrate.rings import Rings, cut_in_blocks
from sisockdaq.integrate.threads import run_parts

__all__ = ["Cake", "CakeAverager", "CakeIntegrator", "CakeMap", "build_cake_map"]

_EMPTY_SHARE = 1e-9
"""A split bin is empty when lost pixels leave less than this of its weight: the rest is rounding."""

_PIECES = 4
"""Accumulators are put together in so many pieces, each by whoever is free."""


@dataclass(frozen=True, slots=True)
class Cake:
    """One frame's cake; arrays have the azimuth first, as an image with the radial axis along its rows.

    Attributes
    ----------
    axis : ndarray of float64, (radial,)
        Radial bin centres, in `unit`. Shared by all results; read-only.
    azimuth : ndarray of float64, (azimuthal,)
        Azimuthal bin centres [deg]. Shared by all results; read-only.
    intensity : ndarray of float64, (azimuthal, radial)
        Σ signal / Σ normalization − background; NaN where no pixel counts.
    sigma : ndarray of float64, (azimuthal, radial) or None
        Its standard error, by the error model, and the background's added in quadrature.
    sum_signal, sum_variance, sum_normalization, count : ndarray, (azimuthal, radial)
        As in `Result`; ``sum_variance`` is None without an error model.
    unusable : int
        Pixels that were left out because they are NaN, infinite, or have the dummy value.
    unit : str
        Name of the radial axis' unit.
    background, background_sigma : ndarray of float64, (radial,) or None
        What was subtracted from the intensity at every azimuth, and its standard error.
    """

    axis: npt.NDArray[np.float64]
    azimuth: npt.NDArray[np.float64]
    intensity: npt.NDArray[np.float64]
    sigma: npt.NDArray[np.float64] | None
    sum_signal: npt.NDArray[Any]
    sum_variance: npt.NDArray[np.float64] | None
    sum_normalization: npt.NDArray[np.float64]
    count: npt.NDArray[np.float64]
    unusable: int = 0
    unit: str = ""
    background: npt.NDArray[np.float64] | None = None
    background_sigma: npt.NDArray[np.float64] | None = None

    @property
    def nbytes(self) -> int:
        """Memory of its own at most; what cakes of one map share is counted, too."""
        arrays = self.intensity, self.sigma, self.sum_signal, self.sum_variance, self.sum_normalization, self.count
        return sum(array.nbytes for array in arrays if array is not None)


class CakeAverager:
    """Add cakes of one `CakeIntegrator` up, and make one of them all, as `Averager` does for curves.

    Attributes
    ----------
    frames : int
        That were added.
    """

    def __init__(self) -> None:
        self.frames = 0
        self._sum: Cake | None = None

    def add(self, cake: Cake) -> None:
        """Add one cake."""
        self._sum = cake if self._sum is None else _added(self._sum, cake)
        self.frames += 1

    def result(self) -> Cake:
        """Make the cake of all frames so far; raise `ValueError` when there are none."""
        if self._sum is None:
            raise ValueError("no cakes to average")
        total = self._sum
        intensity, sigma = quotient(
            total.sum_signal,
            total.sum_variance,
            total.sum_normalization,
            total.background,
            total.background_sigma,
        )
        return replace(total, intensity=intensity, sigma=sigma)


def _added(one: Cake, other: Cake) -> Cake:
    """Add sums; intensity and sigma stay those of the first."""
    variance = None
    if one.sum_variance is not None and other.sum_variance is not None:
        variance = one.sum_variance + other.sum_variance
    return replace(
        one,
        sum_signal=one.sum_signal + other.sum_signal,
        sum_variance=variance,
        sum_normalization=one.sum_normalization + other.sum_normalization,
        count=one.count + other.count,
        unusable=one.unusable + other.unusable,
    )


class CakeIntegrator:
    """Make cakes of frames over one map.

    Parameters
    ----------
    cake_map : CakeMap
        Its normalization has the corrections' weight in it.
    unit : RadialUnit
    corrections : Corrections
    background : Background, optional
        A curve, subtracted at every azimuth.
    background_scale : float

    Attributes
    ----------
    axis, azimuth : ndarray of float64
        As in `Cake`.
    count : ndarray of float64, (azimuthal, radial)
        Pixels of each bin where none is lost.
    """

    def __init__(
        self,
        cake_map: CakeMap,
        unit: RadialUnit,
        corrections: Corrections | None = None,
        background: Background | None = None,
        background_scale: float = 1.0,
    ) -> None:
        self.map = cake_map
        self.unit = unit
        self.axis = _frozen(cake_map.axis * unit.scale)
        self.azimuth = _frozen(np.rad2deg(cake_map.azimuth))
        self._corrections = corrections or Corrections()
        beside = cake_map.more_pixel, cake_map.more_first, cake_map.more_share
        self._segments = cake_map.index, cake_map.share, cake_map.lanes, *beside
        self._cut = cake_map.cut()
        self._edges, self._reach = cake_map.parts()
        self._rooms: dict[tuple[str, bool], list[npt.NDArray[Any]]] = {}
        self._lock = Lock()
        self._inverse = np.ones(cake_map.size)
        self._normalization = _frozen(self._total(cake_map.normalization))
        self._count = _frozen(self._total(np.ones(cake_map.index.size, np.float32)))
        self.count = self._count.reshape(cake_map.bins[1], cake_map.bins[0])
        self._inverse = np.divide(
            1.0, self._normalization, out=np.full(cake_map.size, np.nan), where=self._normalization != 0
        )
        self._dark = None if self._corrections.dark is None else self._total(self._corrections.dark)
        self._background, self._background_sigma = None, None
        if background is not None:
            values, sigma = background.onto(self.axis, unit, background_scale)
            self._background, self._background_sigma = _frozen(values), None if sigma is None else _frozen(sigma)

    def _total(self, weights: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        frame = kernels.prepare(weights.reshape(self.map.shape), None)
        return np.asarray(self._sum(frame, False, 1.0, 1)[0], np.float64)

    @cached_property
    def rings(self) -> Rings:
        """The pixels of every bin; made when they are first asked for."""
        bin_map = self.map
        start = np.zeros(bin_map.size + 1, np.int64)
        nothing = np.empty(0, np.int32), np.empty(0, np.float32)
        _cake_build.turn_over(*self._segments, bin_map.size, start, *nothing)
        pixel = np.empty(int(start[-1]), np.int32)
        share = np.empty(pixel.size if bin_map.split else 0, np.float32)
        if pixel.size:
            _cake_build.turn_over(*self._segments, bin_map.size, start.copy(), pixel, share)
        dark = np.empty(0, np.float32) if self._corrections.dark is None else self._corrections.dark[pixel]
        blocks = cut_in_blocks(start)
        return Rings(bin_map.shape, start, pixel, share, bin_map.normalization[pixel], dark, blocks)

    def integrate(
        self, frame: Frame, *, errors: ErrorModel | None = None, factor: float = 1.0, threads: int = 1
    ) -> Cake:
        """Make one frame's cake.

        Parameters
        ----------
        frame : Frame
            From `kernels.prepare`, of the map's shape.
        errors : str, optional
            ``poisson`` or ``azimuthal``.
        factor : float
            Multiplies the normalization.
        threads : int
            How many work on the frame.
        """
        signal, variance, intensity, sigma, unusable = self._sum(frame, errors == "poisson", 1.0 / factor, threads)
        normalization, count = self._normalization, self._count
        if errors == "azimuthal":
            variance = clip.azimuthal(self.rings, frame, threads=threads).variance
        anew = errors == "azimuthal"
        if unusable:
            signal, normalization, count = self._without_lost(frame, signal)
            anew = True
        elif self._dark is not None:
            signal = self._subtract(signal, self._dark)
            anew = True
        if factor != 1.0:
            normalization = normalization * factor
        if anew:
            intensity, sigma = quotient(signal, variance, normalization)
        return self._cake(signal, variance, normalization, count, intensity, sigma, unusable)

    def _cake(
        self, signal: Any, variance: Any, normalization: Any, count: Any, intensity: Any, sigma: Any, unusable: int
    ) -> Cake:
        shape = self.map.bins[1], self.map.bins[0]
        values = intensity.reshape(shape)
        error = None if sigma is None else sigma.reshape(shape)
        if self._background is not None:
            values = values - self._background
        if error is not None and self._background_sigma is not None:
            error = np.hypot(error, self._background_sigma)
        return Cake(
            axis=self.axis,
            azimuth=self.azimuth,
            intensity=values,
            sigma=error,
            sum_signal=signal.reshape(shape),
            sum_variance=None if variance is None else variance.reshape(shape),
            sum_normalization=normalization.reshape(shape),
            count=count.reshape(shape),
            unusable=unusable,
            unit=self.unit.name,
            background=self._background,
            background_sigma=self._background_sigma,
        )

    def _sum(self, frame: Frame, errors: bool, inverse: float, threads: int) -> tuple[Any, Any, Any, Any, int]:
        """Return signal, variance, both divided by the normalization, and the number of unusable pixels."""
        parts = len(self._edges) - 1
        dtype = np.dtype(np.float64) if self.map.split else frame.zero.dtype
        with self._room(dtype, errors) as room:
            found = run_parts(lambda part: self._add(frame, errors, part, room[part]), parts, threads)
            made = self._finish(room, errors, inverse, threads)
        return *made, sum(found)

    def _add(self, frame: Frame, errors: bool, part: int, signal: npt.NDArray[Any]) -> int:
        """Add one part of a frame to its accumulators."""
        add = partial(_cake.add_split, frame.pixels, *self._segments, self._cut)
        if not self.map.split:
            add = partial(_cake.add_whole, frame.pixels, self.map.index)
        rest = np.uint32(self.map.masked), frame.check, frame.dummy, errors, signal
        return int(add(*rest, self._edges[part], self._edges[part + 1]))

    def _finish(self, signals: npt.NDArray[Any], errors: bool, inverse: float, threads: int) -> tuple[Any, ...]:
        """Add the parts up, and divide; in pieces, each by whoever is free."""
        size = self.map.size
        # One piece of memory: from some megabytes on it comes in large pages, whose first touch costs a tenth.
        memory = np.empty((4 if errors else 2, size))
        signal, intensity = memory[0].view(signals.dtype), memory[1]
        variance, sigma = (memory[2], memory[3]) if errors else (memory[1, :0], memory[1, :0])

        def finish(piece: int) -> None:
            ends = piece * size // _PIECES, (piece + 1) * size // _PIECES
            sources = signals, errors, self._reach, self._inverse, inverse
            _cake.finish(*sources, *ends, signal, variance, intensity, sigma)

        run_parts(finish, _PIECES, threads)
        return signal, variance if errors else None, intensity, sigma if errors else None

    @contextmanager
    def _room(self, dtype: np.dtype[Any], errors: bool) -> Iterator[npt.NDArray[Any]]:
        """Lend cleared memory for accumulators, which who takes it clears: taking it anew costs as much as clearing."""
        with self._lock:
            kept = self._rooms.setdefault((dtype.str, errors), [])
            room = kept.pop() if kept else None
        if room is None:
            room = np.zeros((len(self._edges) - 1, self.map.length * (2 if errors else 1)), dtype)
        yield room
        with self._lock:  # not after an error: then it is not clear
            kept.append(room)

    def _without_lost(
        self, frame: Frame, signal: npt.NDArray[Any]
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Take unusable pixels out of the denominators, and out of the dark."""
        bin_map, dark = self.map, self._corrections.dark
        lost = np.zeros((3 if dark is not None else 2, bin_map.length))
        none = np.empty(0, np.float32)
        _cake.lose(
            frame.pixels, *self._segments, frame.dummy, bin_map.normalization, none if dark is None else dark, lost
        )
        lost = lost[:, : bin_map.size]
        count = self._count - lost[1]
        # Quadrangles around the beam can have shares below 0, in pyFAI too.
        empty = np.abs(count) <= _EMPTY_SHARE * np.abs(self._count)
        normalization = self._normalization - lost[0]
        normalization[empty] = 0.0
        count[empty] = 0.0
        if self._dark is not None:
            signal = self._subtract(signal, self._dark - lost[2])
            signal[empty] = 0  # else a rounding error, divided by no weight at all
        return signal, normalization, count

    def _subtract(self, signal: npt.NDArray[Any], dark: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
        if self._corrections.whole and signal.dtype.kind in "iu":
            return signal.astype(np.int64) - dark.astype(np.int64)
        return signal - dark


def _frozen(array: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    array.flags.writeable = False
    return array
