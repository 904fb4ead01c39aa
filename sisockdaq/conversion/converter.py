"""Raw frames in, energies or photons out."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sisockdaq.conversion.kernels import BLOCK, to_floats, to_integers, warm_up
from sisockdaq.conversion.pedestal import STAGES, Pedestal
from sisockdaq.errors import ConfigurationError

__all__ = ["Converter", "FrameStatistics", "Output"]

Output = Literal["keV", "photons"]

_INTEGERS = ("uint16", "int32")

_NEAR_2_31 = 2_147_483_392.0
"""Largest float32 that an int32 holds."""

_MOST_ADC = float(0x3FFF)
_ROUNDING = 1.0 + 1e-6
"""A float32 may come out this much larger than in exact numbers."""


@dataclass(frozen=True, slots=True)
class FrameStatistics:
    """Of one converted frame: sum and maximum of the pixels that have a value, and how many have none.

    ``maximum`` is -inf for a frame without a single good pixel.
    """

    total: float
    maximum: float
    empty: int
    saturated: int


class Converter:
    """Converts frames of one detector.

    Parameters
    ----------
    pedestal : Pedestal
    gains : ndarray of float, (3, ny, nx)
        Gain of each stage [ADU/keV]; those of G1 and G2 are negative.
    output : str
        "keV", or "photons" of the energy given.
    photon_energy : float, optional
        Energy of a photon [keV].
    dtype : dtype
        float32, or for photons uint16 or int32: then values are rounded to whole photons.
    threshold : float, optional
        Values below it become 0 [keV or photons]; none by default.
    fill : float, optional
        What a pixel becomes that is bad, or tells nothing. Default: NaN, the largest uint16, or the lowest int32.
    mark_saturated : bool
        Whether a saturated pixel becomes infinite, the largest uint16 but one, or the largest int32; else it becomes
        `fill`. Values too large for an integer type are brought to the largest below that mark.
    mask : ndarray of bool, (ny, nx), optional
        Further bad pixels, True.
    threads : int
        Threads for one frame; the result does not depend on it beyond the last digits of the sum.

    Raises
    ------
    ConfigurationError
        When maps do not fit together, a gain is missing altogether, or photons come without their energy.
    """

    def __init__(
        self,
        pedestal: Pedestal,
        gains: npt.ArrayLike,
        *,
        output: Output = "keV",
        photon_energy: float | None = None,
        dtype: npt.DTypeLike = np.float32,
        threshold: float | None = None,
        fill: float | None = None,
        mark_saturated: bool = True,
        mask: npt.NDArray[np.bool_] | None = None,
        threads: int = 1,
    ) -> None:
        self.shape = pedestal.shape
        self.dtype = np.dtype(dtype)
        self.output = output
        unit = _unit(output, photon_energy, self.dtype)
        adu = np.asarray(gains, np.float64)
        if adu.shape != (len(STAGES), *self.shape):
            raise ConfigurationError(
                f"the gain maps have the shape {adu.shape}, the pedestal needs {(len(STAGES), *self.shape)}",
                remedy="give the gain file of this very detector",
            )
        with np.errstate(divide="ignore", invalid="ignore"):
            scale = 1.0 / (adu * unit)
        scale[~np.isfinite(scale)] = np.nan
        bad = pedestal.bad() | (mask if mask is not None else False)
        scale[:, bad] = np.nan
        scale[~np.isfinite(pedestal.mean)] = np.nan
        self.bad = np.isnan(scale[0])
        """Pixels without a value, (ny, nx): those that were found bad or are masked, or that are unknown in G0."""
        maps = np.stack([pedestal.mean, scale], axis=-1).astype(np.float32)
        maps[:, self.bad] = 0
        maps = maps.reshape(len(STAGES), -1, 2)
        self._first = np.ascontiguousarray(maps[0, :, 0]), np.ascontiguousarray(maps[0, :, 1])
        self._others = np.ascontiguousarray(maps[1:])
        self._bad = np.flatnonzero(self.bad).astype(np.int32)
        self.fill, self.saturation, self._range = _special(self.dtype, fill)
        self._threshold = -np.inf if threshold is None else float(threshold)
        self._mark = self.saturation if mark_saturated else self.fill
        self._bounds = _bounds(maps.shape[1], threads)
        warm_up([self.dtype], darks=False)
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

    @property
    def maps(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Dark level [ADU] and reciprocal gain of G0, flat; as the kernels take them."""
        return self._first

    def limits(self) -> tuple[float, float] | None:
        """Return the lowest and the highest value that a pixel can have, `fill` and `saturation` apart.

        None when no pixel has a value. For integers they are whole numbers.
        """
        if self.bad.all():
            return None
        maps = [self._first, *((each[:, 0], each[:, 1]) for each in self._others)]
        ends = [(adc - mean) * scale for mean, scale in maps for adc in (0.0, _MOST_ADC)]
        known = [(float(np.nanmin(each)), float(np.nanmax(each))) for each in ends if np.isfinite(each).any()]
        low, high = min(each[0] for each in known), max(each[1] for each in known)
        low = min(0.0, max(low, self._threshold))
        if self.dtype == np.float32:
            return low * _ROUNDING, high * _ROUNDING
        least, most = self._range
        return max(math.floor(low), least), min(math.ceil(high), most)

    def convert(self, raw: npt.NDArray[np.uint16], out: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
        """Return the converted frame, (ny, nx) of `dtype`; into `out` where given."""
        result = np.empty(self.shape, self.dtype) if out is None else out
        self.convert_into(raw, result)
        return result

    def convert_into(
        self, raw: npt.NDArray[np.uint16], out: npt.NDArray[Any], rows: tuple[int, int] | None = None
    ) -> FrameStatistics:
        """Convert a frame into `out`; both (ny, nx) and contiguous. Return what it holds.

        With `rows`, (first, end), only these are converted and counted: a module, say, as soon as it is there.

        Raises
        ------
        ValueError
            When an array is of another shape or type.
        """
        for name, array, dtype in (("raw", raw, np.dtype(np.uint16)), ("out", out, self.dtype)):
            if array.shape != self.shape or array.dtype != dtype or not array.flags.c_contiguous:
                raise ValueError(f"{name} is {array.shape} of {array.dtype}; {self.shape} of {dtype} is needed")
        source, target = raw.reshape(-1), out.reshape(-1)
        bounds = self._bounds if rows is None else [(rows[0] * self.shape[1], rows[1] * self.shape[1])]
        parts = [self._part(source, target, begin, end) for begin, end in bounds]
        if self._pool is None:
            found = [part() for part in parts]
        else:
            found = [future.result() for future in [self._pool.submit(part) for part in parts]]
        return FrameStatistics(
            total=sum(part[0] for part in found),
            maximum=max(part[1] for part in found),
            empty=sum(part[2] for part in found),
            saturated=sum(part[3] for part in found),
        )

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()

    def _part(
        self, raw: npt.NDArray[np.uint16], out: npt.NDArray[Any], begin: int, end: int
    ) -> Callable[[], tuple[float, float, int, int]]:
        maps = *self._first, self._others, self._bad, self._threshold
        if self.dtype == np.float32:
            return lambda: to_floats(raw, *maps, self.fill, self._mark, out, begin, end)
        marks = int(self.fill), int(self._mark)
        return lambda: to_integers(raw, *maps, *self._range, *marks, out, begin, end)


def _unit(output: str, photon_energy: float | None, dtype: np.dtype[Any]) -> float:
    """Return the energy that counts as one [keV]."""
    if output not in ("keV", "photons"):
        raise ConfigurationError(f'"{output}" is not an output of the conversion (one of keV, photons)')
    if dtype != np.float32 and dtype.name not in _INTEGERS:
        raise ConfigurationError(f"frames cannot be converted to {dtype} (one of float32, {', '.join(_INTEGERS)})")
    if output == "keV":
        if dtype != np.float32:
            raise ConfigurationError("energies in keV need float32", remedy='output "photons" gives whole numbers')
        return 1.0
    if photon_energy is None or not photon_energy > 0:
        raise ConfigurationError("photons need the energy of one of them", remedy="give photon_energy, in keV")
    return float(photon_energy)


def _special(dtype: np.dtype[Any], fill: float | None) -> tuple[float, float, tuple[float, float]]:
    """Return what pixels without a value and saturated ones become, and the range of all others."""
    if dtype == np.float32:
        return float("nan") if fill is None else float(fill), float("inf"), (-np.inf, np.inf)
    limits = np.iinfo(dtype)
    signed = limits.min < 0
    empty = int(fill) if fill is not None else int(limits.min if signed else limits.max)
    saturated = int(limits.max) if signed else int(limits.max) - 1
    most = min(float(saturated - 1), _NEAR_2_31)
    return empty, saturated, (max(float(limits.min) + 1, -_NEAR_2_31) if signed else 0.0, most)


def _bounds(pixels: int, threads: int) -> list[tuple[int, int]]:
    """Share the frame out in whole blocks."""
    step = -(-pixels // (BLOCK * max(threads, 1))) * BLOCK
    return [(begin, min(begin + step, pixels)) for begin in range(0, pixels, step)]
