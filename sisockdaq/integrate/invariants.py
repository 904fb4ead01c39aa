"""Numbers of a curve that need no model: moments, Porod's invariant, Guinier's radius, the correlation length.

With q as it is given (1/nm, say), I the curve, Δ the width of a bin, sums over the bins of `moments_range`:

====================== ============================================ ==========================================
number                 formula                                      source
====================== ============================================ ==========================================
I0, I1, I2             Σ I Δ, Σ I q Δ, Σ I q² Δ                     SAXSdog's integral parameters, its ranges
correlation_length     π I1 / I2                                    Porod's l_c; Glatter & Kratky, Small Angle
                                                                    X-ray Scattering (1982), ch. 2
porod                  K, the mean of I q⁴ over the last bins       Porod, Kolloid-Z. 124, 83 (1951)
invariant              I2 + K / q_end + ∫ I q² from 0 by Guinier    the same; the last two are what is not
                                                                    measured
guinier_I0, Rg         ln I = ln guinier_I0 - Rg² q² / 3            Guinier & Fournet (1955)
====================== ============================================ ==========================================

SAXSdog calls the integral I0; what the field calls I(0), forward scattering, is ``guinier_I0`` here. Curves are to be
free of background.

Guinier's line is drawn from the first bin of `guinier_range` to where q·Rg reaches the limit (1.3), by weights
(I/σ)² where σ is known. It is *valid* when it has enough points, begins below q·Rg = 1, and Rg is more than three of
its standard errors; only then does it complete the invariant. Errors are those of independent bins with known σ,
Guinier's without σ from the scatter around the line.

Empty bins (NaN) count nothing; a curve without any bin has NaN for all numbers. One object may be used by several
threads at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sisockdaq.errors import ConfigurationError
from sisockdaq.integrate import _invariants as kernel
from sisockdaq.integrate._invariants import warm_up

__all__ = ["NAMES", "CurveNumbers", "Invariants", "warm_up"]

NAMES = ("I0", "I1", "I2", "correlation_length", "invariant", "porod", "guinier_I0", "Rg")
"""The numbers of each curve, in their order; each has a standard error."""

_DESCRIPTIONS = {
    "I0": "Integral of I over q.",
    "I1": "Integral of I·q over q.",
    "I2": "Integral of I·q² over q: the invariant as far as it is measured.",
    "correlation_length": "Porod's correlation length, π·I1/I2.",
    "invariant": "Integral of I·q² from 0 to infinity, by the laws of Guinier and Porod where nothing is measured.",
    "porod": "Porod's constant: mean of I·q⁴ over the last bins.",
    "guinier_I0": "Forward scattering, by the law of Guinier.",
    "Rg": "Radius of gyration, by the law of Guinier.",
}

_UNIFORM = 1e-6

_Floats = npt.NDArray[np.float64]

_NONE = np.empty((0, 0))


class CurveNumbers:
    """The numbers of one curve, or of several; `NAMES` in brackets gives one of them, ``<name>_sigma`` its error."""

    __slots__ = ("_rows",)

    def __init__(self, rows: _Floats) -> None:
        """Take what the kernel made: (NUMBERS,) of one curve, (frames, NUMBERS) of several."""
        self._rows = rows

    @property
    def values(self) -> _Floats:
        """By `NAMES`, ndarray (8,) or (frames, 8); NaN where a number is not known."""
        return self._rows[..., : kernel.ERRORS]

    @property
    def sigma(self) -> _Floats:
        """Standard errors, as `values`; NaN where one is not known."""
        return self._rows[..., kernel.ERRORS : 2 * kernel.ERRORS]

    @property
    def guinier_valid(self) -> Any:
        """Whether Guinier's line is valid: bool, or ndarray of bool (frames,)."""
        return self._rows[..., kernel.VALID] == 1.0

    @property
    def guinier_range(self) -> _Floats:
        """Return q of the first and of the last point of Guinier's line: ndarray (2,) or (frames, 2)."""
        return self._rows[..., kernel.FIRST : kernel.LAST + 1]

    @property
    def guinier_points(self) -> Any:
        """How many points the line has: int64, or ndarray (frames,)."""
        return self._rows[..., kernel.POINTS].astype(np.int64)

    @property
    def guinier_chi2(self) -> Any:
        """χ² per degree of freedom; without σ the variance of ln I around the line."""
        return self._rows[..., kernel.CHI2]

    def __getitem__(self, name: str) -> Any:
        """Return a number by its name, or its error by ``<name>_sigma``."""
        if name in NAMES:
            return self.values[..., NAMES.index(name)]
        if name.endswith("_sigma") and name.removesuffix("_sigma") in NAMES:
            return self.sigma[..., NAMES.index(name.removesuffix("_sigma"))]
        raise KeyError(name)

    def to_dict(self) -> dict[str, Any]:
        """Return numbers and errors by name, as floats of one curve or arrays of several."""
        names = (*NAMES, *(f"{name}_sigma" for name in NAMES))
        one = self.values.ndim == 1
        found: dict[str, Any] = {name: float(self[name]) if one else self[name] for name in names}
        found["guinier_valid"] = bool(self.guinier_valid) if one else self.guinier_valid
        return found


class Invariants:
    """Compute the numbers of curves along one axis.

    Parameters
    ----------
    axis : array_like, (bins,)
        q at the centres of the bins, rising.
    unit : str
        Of q; shown in `units`.
    moments_range : (float, float), optional
        Bins with a centre in [start, stop); as in SAXSdog, a stop beyond the last bin is that bin, which is left out
        then too. By default all bins but the last.
    guinier_range : (float, float), optional
        Where Guinier's line may lie; by default anywhere.
    guinier_limit : float, optional
        Largest q·Rg of the line; None for all of `guinier_range`.
    fewest : int
        Points of the line at least.
    tail : float
        Share of the moments' bins, from the last one backward, from which Porod's constant is taken; 0 for none (then
        the invariant is not extended to high q).

    Raises
    ------
    ConfigurationError
        For an axis that does not rise, or a range without bins.
    """

    def __init__(
        self,
        axis: npt.ArrayLike,
        *,
        unit: str = "nm^-1",
        moments_range: tuple[float, float] | None = None,
        guinier_range: tuple[float, float] | None = None,
        guinier_limit: float | None = 1.3,
        fewest: int = 6,
        tail: float = 0.1,
    ) -> None:
        self.axis = np.array(axis, dtype=np.float64)
        self.unit = unit
        if self.axis.ndim != 1 or self.axis.size < 3 or not np.all(np.diff(self.axis) > 0) or self.axis[0] < 0:
            raise ConfigurationError("numbers of a curve need three or more bins along a rising q that is not negative")
        if fewest < 3 or not 0 <= tail < 1 or (guinier_limit is not None and guinier_limit <= 0):
            raise ConfigurationError(
                f"fewest {fewest}, tail {tail} and limit {guinier_limit} make no sense",
                remedy="fewest of 3 or more, tail from 0 up to 1, and a limit above 0",
            )
        self._step = _widths(self.axis)
        last = float(self.axis[-1])
        start, stop = moments_range if moments_range is not None else (float(self.axis[0]), last)
        self._moments = self._bins("moments", start, min(stop, last))
        low, high = guinier_range if guinier_range is not None else (0.0, np.inf)
        self._guinier = self._bins("Guinier's law", low, high)
        self._tail = self._moments[1] - round(tail * (self._moments[1] - self._moments[0]))
        self._limit = 0.0 if guinier_limit is None else float(guinier_limit)
        self._fewest = int(fewest)

    def _bins(self, what: str, start: float, stop: float) -> tuple[int, int]:
        found = int(np.searchsorted(self.axis, start)), int(np.searchsorted(self.axis, stop))
        if found[0] >= found[1]:
            raise ConfigurationError(
                f"no bin for {what} lies between {start:g} and {stop:g}",
                remedy=f"the axis goes from {self.axis[0]:g} to {self.axis[-1]:g} {self.unit}",
            )
        return found

    @property
    def units(self) -> dict[str, str]:
        """Unit of each number; intensities are in units of their own (I)."""
        q = f"({self.unit})"
        length = self.unit.removesuffix("^-1") if self.unit.endswith("^-1") else f"1/{q}"
        powers = {"I0": f"I {q}", "I1": f"I {q}^2", "I2": f"I {q}^3", "invariant": f"I {q}^3", "porod": f"I {q}^4"}
        return {**powers, "correlation_length": length, "guinier_I0": "I", "Rg": length}

    @property
    def descriptions(self) -> dict[str, str]:
        """What each number is."""
        return dict(_DESCRIPTIONS)

    def of(self, intensity: npt.ArrayLike, sigma: npt.ArrayLike | None = None) -> CurveNumbers:
        """Return the numbers of one curve, or of several.

        Parameters
        ----------
        intensity : array_like, (bins,) or (frames, bins)
        sigma : as `intensity`, optional
            Standard errors.

        Raises
        ------
        ValueError
            For another shape.
        """
        given = np.asarray(intensity)
        curves = _rows(given)
        if curves.ndim != 2 or curves.shape[1] != self.axis.size:
            raise ValueError(f"curves of shape {given.shape} do not fit an axis of {self.axis.size} bins")
        if sigma is None:
            sigmas = _NONE
        else:
            sigmas = _rows(np.asarray(sigma))
            if sigmas.shape != curves.shape:
                raise ValueError(f"errors of shape {sigmas.shape} do not fit curves of shape {curves.shape}")
        out = np.empty((len(curves), kernel.NUMBERS))
        kernel.reduce_curves(
            self.axis,
            self._step,
            curves,
            sigmas,
            self._moments,
            self._guinier,
            self._tail,
            self._limit,
            self._fewest,
            out,
        )
        return CurveNumbers(out[0] if given.ndim == 1 else out)


def _rows(given: npt.NDArray[Any]) -> _Floats:
    """Return curves as the kernel was compiled for: contiguous and writable, or it would be compiled once more."""
    rows = np.ascontiguousarray(given if given.ndim != 1 else given[np.newaxis], dtype=np.float64)
    return rows if rows.flags.writeable else rows.copy()


def _widths(axis: _Floats) -> _Floats:
    """Return the width of each bin; bins of equal width have the first one's, as in SAXSdog."""
    steps = np.diff(axis)
    if np.all(np.abs(steps - steps[0]) <= _UNIFORM * steps[0]):
        return np.full(axis.size, axis[1] - axis[0])
    edges = np.concatenate([[axis[0] - steps[0] / 2], (axis[1:] + axis[:-1]) / 2, [axis[-1] + steps[-1] / 2]])
    widths: _Floats = np.diff(edges)
    return widths
