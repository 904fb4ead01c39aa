"""From a frame to all that the settings ask of it: its curve, its sectors' curves, and its numbers.

The live node and ``sisockdaq integrate`` both reduce frames by a `Reducer`, so the same settings give the same numbers,
to the last bit. One `Reducer` may be used by several threads at once.

Where the settings ask for a monitor or a transmission, curves and cakes are divided by it after the sums were made
(`Reducer.normalized`), so that a frame may be summed before its monitor is known. A frame without a usable one has
its sums, totals and regions, and NaN for all intensities.

`Reducer.curves` and `Reducer.numbers` say what each frame's `Reduced` holds, before there is any frame: that is what
fields are declared and files are laid out from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from sisockdaq.integrate.cake import Cake
from sisockdaq.integrate.factors import is_usable
from sisockdaq.integrate.geometry import RadialUnit
from sisockdaq.integrate.integrator import Integrator
from sisockdaq.integrate.invariants import NAMES, Invariants
from sisockdaq.integrate.result import Result, RingResult, quotient
from sisockdaq.integrate.settings import FACTORS, FactorSettings, IntegrationSettings

__all__ = ["CurveAxis", "Number", "Reduced", "Reducer", "same_axes", "same_cakes", "same_layout"]


@dataclass(frozen=True, slots=True)
class CurveAxis:
    """The axis of a curve; `values` (bins,) in `unit`."""

    values: npt.NDArray[np.float64]
    unit: RadialUnit


@dataclass(frozen=True, slots=True)
class Number:
    """What one of a frame's numbers means."""

    description: str
    unit: str | None = None


@dataclass(frozen=True, slots=True)
class Reduced:
    """What a frame has become.

    Attributes
    ----------
    epoch : int
        Number of the calibration (and of all other settings) that it was made with.
    curve : Result
        Of the whole image.
    sectors : dict of Result
        Of its parts, by the names of the settings.
    numbers : dict of float
        As `Reducer.numbers` describes them, in its order. A ``monitor`` or ``transmission`` that is not above 0 (NaN:
        there was none) says that the frame has no intensities.
    cake : Cake or None
        Of the whole image, where the settings ask for one.
    """

    epoch: int
    curve: Result
    sectors: dict[str, Result] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)
    cake: Cake | None = None

    @property
    def has_intensities(self) -> bool:
        """Whether the frame could be divided by its monitor and transmission, where it was to be."""
        return all(is_usable(self.numbers[name]) for name in FACTORS if name in self.numbers)

    @property
    def factor(self) -> float:
        """What the frame was divided by beside its pixels' weights."""
        return math.prod(self.numbers[name] for name in FACTORS if name in self.numbers)

    def curves(self) -> dict[str, Result]:
        """Return all curves by the names of `Reducer.curves`."""
        return {"curve": self.curve, **{_curve_name(name): result for name, result in self.sectors.items()}}


class Reducer:
    """Reduce frames as settings say.

    Parameters
    ----------
    integrator : Integrator
        Made by `make_integrator` of the same settings.
    settings : IntegrationSettings
    epoch : int
        Goes into each `Reduced`.

    Attributes
    ----------
    epoch : int
    cake_axes : (CurveAxis, ndarray of float64) or None
        Radial axis and azimuths [deg] of each frame's cake, where there is one.
    """

    def __init__(self, integrator: Integrator, settings: IntegrationSettings, epoch: int = 0) -> None:
        self.integrator = integrator
        self.settings = settings
        self.epoch = epoch
        self._fill: float | None = None
        self._reduce = self._way()
        self._invariants = self._curve_numbers()
        first = self._cake_of(np.zeros(integrator.shape, np.uint16))  # makes its map, too
        self.cake_axes = None if first is None else (CurveAxis(first.axis, integrator.unit), first.azimuth)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the images."""
        return self.integrator.shape

    @property
    def has_errors(self) -> bool:
        """Whether each curve has a sigma."""
        return self.settings.error_model is not None

    @property
    def curves(self) -> dict[str, CurveAxis]:
        """The curves of each frame, by name: ``curve``, and ``curve_<name>`` of each sector."""
        whole = CurveAxis(self.integrator.axis, self.integrator.unit)
        sectors = {_curve_name(name): CurveAxis(*self.integrator.axis_of(name)) for name in self.integrator.sectors}
        return {"curve": whole, **sectors}

    @property
    def numbers(self) -> dict[str, Number]:
        """The numbers of each frame, by name."""
        found = {
            "epoch": Number("Which calibration and settings the frame was integrated with."),
            "total": Number("Sum of all pixels that are not masked."),
            "maximum": Number("Largest of them."),
            "unusable": Number("Pixels that were left out because their packet was lost."),
        }
        found |= {name: Number(_ABOUT_FACTORS[name]) for name in self.settings.factors}
        if self.settings.method == "sigma_clip":
            found["rejected"] = Number("Pixels that were left out because they did not belong to their ring.")
        found |= {f"roi_{name}": Number(f"Sum of the pixels in the region {name}.") for name in self.settings.rois}
        return found | self._about_invariants()

    def follow_fill(self, value: float | None) -> None:
        """Leave out the pixels that a source has filled with this value, too, because they did not come."""
        self._fill = value
        if self.settings.dummy is None:
            self.integrator.dummy = value

    def warm_up(self, dtype: npt.DTypeLike) -> None:
        """Compile what frames of that type need, also those with lost packets, and touch the map's memory.

        While nobody else uses it: for a moment it takes zeros for lost.
        """
        image = np.zeros(self.shape, dtype)
        self.reduce(image)
        present, self.integrator.dummy = self.integrator.dummy, 0.0
        try:
            self.reduce(image)
        finally:
            self.integrator.dummy = present

    def reduce(self, image: npt.NDArray[Any], factors: Mapping[str, float] | None = None) -> Reduced:
        """Reduce one frame.

        Parameters
        ----------
        image : ndarray, `shape`
        factors : mapping, optional
            Its monitor and transmission, where the settings name fields for them; what is not there is missing.

        Raises
        ------
        ValueError, TypeError
            As `Integrator.integrate`.
        """
        sums = self.summed(image)
        return self.normalized(sums, factors or {}) if self.settings.factors else sums

    def summed(self, image: npt.NDArray[Any]) -> Reduced:
        """Reduce one frame without dividing it by monitor and transmission; for `normalized`."""
        image = self._without_fill(image)
        curve = self._reduce(image)
        if not self.has_errors and curve.sigma is not None:
            curve = replace(curve, sigma=None)
        sectors = self.integrator.integrate_all(image) if self.integrator.sectors else {}
        if self.settings.factors:
            return Reduced(self.epoch, curve, sectors, cake=self._cake_of(image))
        return self.reduced(curve, sectors, self._cake_of(image))

    def normalized(self, summed: Reduced, factors: Mapping[str, float]) -> Reduced:
        """Divide what `summed` gave by the frame's monitor and transmission; parameters are those of `reduce`."""
        values = {name: self._factor(name, factors) for name in self.settings.factors}
        product = math.prod(values.values())
        by = product if all(map(is_usable, values.values())) and is_usable(product) else math.nan
        curve = _divided(summed.curve, by)
        sectors = {name: _divided(each, by) for name, each in summed.sectors.items()}
        cake = None if summed.cake is None else _divided(summed.cake, by)
        return self.reduced(curve, sectors, cake, values)

    def _factor(self, name: str, factors: Mapping[str, float]) -> float:
        constant = getattr(self.settings, name)
        return float(factors.get(name, math.nan) if isinstance(constant, FactorSettings) else constant)

    def reduced(
        self,
        curve: Result,
        sectors: dict[str, Result],
        cake: Cake | None = None,
        factors: Mapping[str, float] | None = None,
    ) -> Reduced:
        """Return curves of this reducer, or averages of them, with the numbers that belong to them."""
        return Reduced(self.epoch, curve, sectors, self._numbers(curve, factors or {}), cake)

    def _cake_of(self, image: npt.NDArray[Any]) -> Cake | None:
        wanted = self.settings.cake
        if wanted is None:
            return None
        return self.integrator.integrate2d(image, azimuth_bins=wanted.azimuth_bins, bins=wanted.bins)

    def cake_count(self) -> npt.NDArray[np.float64] | None:
        """Return how many pixels (with splitting: shares) each bin of the cakes has where none is lost."""
        wanted = self.settings.cake
        return None if wanted is None else self.integrator.cake_count(wanted.azimuth_bins, wanted.bins)

    def _way(self) -> Callable[..., Result]:
        settings, integrator = self.settings, self.integrator
        if settings.method == "median":
            return lambda image: integrator.median(image, quantiles=settings.quantiles)
        if settings.method == "sigma_clip":
            return lambda image: integrator.sigma_clip(
                image,
                threshold=settings.clip_threshold,
                iterations=settings.clip_iterations,
                error_model=settings.error_model or "azimuthal",
            )
        return integrator.integrate

    def _curve_numbers(self) -> Invariants | None:
        wanted, integrator = self.settings.invariants, self.integrator
        if wanted is None:
            return None
        return Invariants(
            integrator.axis,
            unit=integrator.unit.unit,
            moments_range=wanted.moments_range,
            guinier_range=wanted.guinier_range,
            guinier_limit=wanted.guinier_limit,
            fewest=wanted.guinier_points,
            tail=wanted.porod_share,
        )

    def _about_invariants(self) -> dict[str, Number]:
        if self._invariants is None:
            return {}
        words, units = self._invariants.descriptions, self._invariants.units
        found = {name: Number(words[name], units[name]) for name in NAMES}
        if self.has_errors:
            found |= {f"{name}_sigma": Number(f"Standard error of {name}.", units[name]) for name in NAMES}
        return found | {"guinier_valid": Number("1 where Guinier's law holds: guinier_I0 and Rg mean something.")}

    def _invariants_of(self, curve: Result) -> dict[str, float]:
        if self._invariants is None:
            return {}
        found = self._invariants.of(curve.intensity, curve.sigma)
        names = [*NAMES, *(f"{name}_sigma" for name in NAMES)] if self.has_errors else NAMES
        return {**{name: float(found[name]) for name in names}, "guinier_valid": float(found.guinier_valid)}

    def _without_fill(self, image: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return an image whose filled pixels have the value that the integrator leaves out."""
        dummy, fill = self.settings.dummy, self._fill
        if dummy is None or fill is None or dummy == fill:
            return image
        filled = image == fill
        if not filled.any():
            return image
        return np.where(filled, image.dtype.type(dummy) if _holds(image.dtype, dummy) else np.nan, image)

    def _numbers(self, curve: Result, factors: Mapping[str, float]) -> dict[str, float]:
        maximum = np.nan if curve.maximum is None else float(curve.maximum)
        found = {
            "epoch": float(self.epoch),
            "total": float(curve.total),
            "maximum": maximum,
            "unusable": float(curve.unusable),
        }
        found |= {name: factors.get(name, math.nan) for name in self.settings.factors}
        if isinstance(curve, RingResult) and self.settings.method == "sigma_clip":
            found["rejected"] = float(curve.rejected.sum())
        found |= {f"roi_{name}": float(total) for name, total in curve.rois.items()}
        return found | self._invariants_of(curve)


_ABOUT_FACTORS = {
    "monitor": "Intensity of the beam, which the frame was divided by; not above 0, or NaN: it has no intensities.",
    "transmission": "The sample's, which the frame was divided by; not above 0, or NaN: it has no intensities.",
}

_Divided = TypeVar("_Divided", Result, Cake)


def _divided(one: _Divided, factor: float) -> _Divided:
    """Multiply the normalization by a factor; without any intensity where that is NaN."""
    if factor == 1.0:
        return one
    normalization = one.sum_normalization * factor
    variance = None if one.sigma is None else one.sum_variance
    intensity, sigma = quotient(one.sum_signal, variance, normalization, one.background, one.background_sigma)
    more: dict[str, Any] = {"deviation": one.deviation / factor} if isinstance(one, RingResult) else {}
    return replace(one, intensity=intensity, sigma=sigma, sum_normalization=normalization, **more)


def same_layout(one: Reducer, other: Reducer) -> bool:
    """Tell whether both give curves and numbers of the same names, lengths and units."""
    return _outline(one) == _outline(other)


def same_axes(one: Reducer, other: Reducer) -> bool:
    """Tell whether the curves of both have the same points, but for rounding."""
    mine, its = one.curves, other.curves
    return _outline(one) == _outline(other) and all(
        np.allclose(mine[name].values, its[name].values, rtol=1e-9, atol=0.0) for name in mine
    )


def same_cakes(one: Reducer, other: Reducer) -> bool:
    """Tell whether both give cakes of the same bins, but for rounding, or none."""
    mine, its = one.cake_axes, other.cake_axes
    if mine is None or its is None:
        return mine is its
    return mine[0].unit == its[0].unit and all(
        a.shape == b.shape and np.allclose(a, b, rtol=1e-9, atol=1e-9)
        for a, b in ((mine[0].values, its[0].values), (mine[1], its[1]))
    )


def _holds(dtype: np.dtype[Any], value: float) -> bool:
    """Tell whether pixels of that type can have that value."""
    if dtype.kind == "f":
        return True
    limits = np.iinfo(dtype)
    return float(value).is_integer() and limits.min <= value <= limits.max


def _outline(reducer: Reducer) -> tuple[Any, ...]:
    curves = [(name, axis.unit, axis.values.size) for name, axis in reducer.curves.items()]
    return curves, list(reducer.numbers.items()), reducer.has_errors, reducer.shape


def _curve_name(sector: str) -> str:
    return f"curve_{sector}"
