"""The rules of NXazint1d and NXazint2d (nexusformat/definitions, release 2025.11).

Where the definitions contradict themselves, what is meant counts: their enumeration of units holds the names of
classes of units (``NX_PER_LENGTH``), so any unit of the class is right; the azimuthal axis is optional in them, but
named by the axes that they require.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import h5py
import numpy as np

from sisockdaq.nexus.check._homes import (
    Home,
    Role,
    Test,
    a_number,
    a_text,
    a_time,
    a_truth,
    attribute,
    field,
    group,
    homes,
    in_units,
    is_named,
    positive,
)
from sisockdaq.nexus.check._rules import Demand, Problem, Rule
from sisockdaq.nexus.check._view import View, attribute_text, child

__all__ = ["AZINT_ROLES", "AZINT_RULES"]

AZINT_ROLES = {
    "instrument": Role("", "instrument", "NXinstrument"),
    "monochromator": Role("instrument", "monochromator", "NXmonochromator"),
    "source": Role("instrument", "source", "NXsource"),
    "reduction": Role("", "reduction", "NXprocess", exact=True),
    "input": Role("reduction", "input", "NXparameters", exact=True),
    "monitor": Role("", "monitor", "NXmonitor", optional=True),
    "data": Role("", "data", "NXdata"),
}

_ANGSTROM = ("angstrom", "angstroms", "Angstrom", "Å", "A")
_PER_LENGTH = frozenset(
    {"1/nm", "nm^-1", "nm-1", "1/angstrom", "1/Angstrom", "1/A", "A^-1", "A-1", "1/Å", "Å^-1", "1/m"}
)
_ANGLE = frozenset({"deg", "degree", "degrees", "°", "rad", "radian", "radians"})
_UNITS = {"q": _PER_LENGTH, "2theta": _ANGLE}

_HC = 12.398419843320026
"""Wavelength [Å] × energy [keV]."""

_ENERGY_TOLERANCE = 1e-3
"""By how much they may differ: programs use constants of three or more digits."""


_NORM_NAME = "effective number of pixels contributing to the corresponding bin"

_AXES = {"NXazint1d": [".", "radial_axis"], "NXazint2d": [".", "azimuthal_axis", "radial_axis"]}
_INTERPRETATION = {"NXazint1d": "spectrum", "NXazint2d": "image"}

Problems = Callable[["_Definition", View], Iterator[Problem]]


@dataclass(frozen=True, slots=True)
class _Definition:
    """One of the two, and how its rules are made."""

    name: str

    @property
    def key(self) -> str:
        return self.name.removeprefix("NX")

    @property
    def by(self) -> dict[str, Demand]:
        return {self.name: "required"}

    @property
    def dimensions(self) -> int:
        return len(_AXES[self.name])

    def field(self, place: str, *tests: Test) -> Rule:
        return field(self.key, AZINT_ROLES, self.by, place, *tests)

    def attribute(self, place: str, name: str, *allowed: object) -> Rule:
        return attribute(self.key, AZINT_ROLES, self.by, place, name, allowed)

    def group(self, role: str) -> Rule:
        return group(self.key, AZINT_ROLES, self.by, role)

    def rule(self, key: str, problems: Problems, demand: Demand = "required") -> Rule:
        return Rule(f"{self.key}.{key}", {self.name: demand}, partial(problems, self))

    def homes(self, view: View) -> list[Home]:
        return homes(view, (self.name,), AZINT_ROLES)

    def data(self, view: View) -> Iterator[tuple[Home, h5py.Group]]:
        for home in self.homes(view):
            yield from ((home, data) for data in home.find("data"))


def _dataset(parent: h5py.Group, name: str) -> h5py.Dataset | None:
    found = child(parent, name)
    return found if isinstance(found, h5py.Dataset) else None


def _rank(dimensions: int) -> Test:
    def test(found: h5py.Dataset) -> Iterator[str]:
        if found.ndim != dimensions:
            yield f"has {found.ndim} dimensions instead of {dimensions}"

    return test


def _lengths(of: _Definition, view: View) -> Iterator[Problem]:
    """Axes, errors and normalization are as long as the intensities."""
    for _, data in of.data(view):
        intensity = _dataset(data, "I")
        if intensity is None or intensity.ndim != of.dimensions:
            continue
        for name, shape in _wanted(intensity.shape).items():
            found = _dataset(data, name)
            if found is not None and found.shape != shape:
                yield str(found.name), f"is {found.shape}; I is {intensity.shape}, so {shape} is needed"


def _wanted(shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    wanted = {"I_errors": shape, "norm": shape[1:], "radial_axis": shape[-1:], "radial_axis_edges": (shape[-1] + 1,)}
    if len(shape) == 3:
        wanted |= {"azimuthal_axis": (shape[1],), "azimuthal_axis_edges": (shape[1] + 1,)}
    return wanted


def _radial_units(of: _Definition, view: View) -> Iterator[Problem]:
    for _, data in of.data(view):
        for name in ("radial_axis", "radial_axis_edges"):
            found = _dataset(data, name)
            if found is None:
                continue
            units, word = attribute_text(found, "units"), (attribute_text(found, "long_name") or "").partition(" ")[0]
            if units is None:
                yield f"{found.name}/@units", "is missing"
            elif word in _UNITS and units not in _UNITS[word]:
                yield f"{found.name}/@units", f'is "{units}", which is no unit of {word}'


def _azimuthal_units(of: _Definition, view: View) -> Iterator[Problem]:
    for _, data in of.data(view):
        for name in ("azimuthal_axis", "azimuthal_axis_edges"):
            found = _dataset(data, name)
            units = None if found is None else attribute_text(found, "units")
            if found is not None and units not in _ANGLE:
                yield f"{found.name}/@units", "is missing" if units is None else f'is "{units}", which is no angle'


def _monitor(of: _Definition, view: View) -> Iterator[Problem]:
    """A monitor has a number an image."""
    for home, data in of.data(view):
        intensity = _dataset(data, "I")
        for monitor in home.find("monitor"):
            values = _dataset(monitor, "data")
            if values is not None and intensity is not None and values.shape != intensity.shape[:1]:
                yield str(values.name), f"is {values.shape}; I is {intensity.shape}"


def _energy(of: _Definition, view: View) -> Iterator[Problem]:
    for home in of.homes(view):
        for mono in home.find("monochromator"):
            wavelength, energy = _dataset(mono, "wavelength"), _dataset(mono, "energy")
            if wavelength is None or energy is None or wavelength.dtype.kind != "f" or energy.dtype.kind != "f":
                continue
            product = float(np.ravel(wavelength[()])[0]) * float(np.ravel(energy[()])[0])
            if abs(product / _HC - 1) > _ENERGY_TOLERANCE:
                yield str(energy.name), f"times the wavelength is {product:.5g} keV Å instead of {_HC:.5g}"


def _named(of: _Definition, view: View) -> Iterator[Problem]:
    yield from is_named(of.homes(view), of.name)


def _rules(of: _Definition) -> tuple[Rule, ...]:
    common = (
        of.rule("definition", _named),
        *(of.group(role) for role, about in AZINT_ROLES.items() if not about.optional),
        of.field("solid_angle_applied", a_truth),
        of.field("polarization_applied", a_truth),
        of.field("normalization_applied", a_truth),
        of.field("monitor_applied?", a_truth),
        of.field("instrument/name", a_text),
        of.field("monochromator/wavelength", positive, in_units(*_ANGSTROM)),
        of.field("monochromator/energy", positive, in_units("keV")),
        of.field("source/name", a_text),
        of.field("source/type", a_text),
        of.field("source/probe", a_text),
        of.field("reduction/program", a_text),
        of.field("reduction/version", a_text),
        of.field("reduction/date", a_time),
        of.field("reduction/reference", a_text),
        of.field("monitor/data", a_number),
        of.attribute("data/", "signal", "I"),
        of.attribute("data/", "axes", _AXES[of.name]),
        of.attribute("data/", "interpretation", _INTERPRETATION[of.name]),
        of.field("data/I", a_number, _rank(of.dimensions)),
        of.attribute("data/I", "long_name", "intensity"),
        of.attribute("data/I", "units", "arbitrary units"),
        of.field("data/radial_axis", a_number, _rank(1)),
        of.attribute("data/radial_axis", "long_name", "q", "2theta"),
        of.rule("data.radial_axis@units", _radial_units),
        of.attribute("data/radial_axis_edges", "long_name", "q bin edges", "2theta bin edges"),
        of.attribute("data/norm", "long_name", _NORM_NAME),
        of.attribute("data/norm", "units", "arbitrary units"),
        of.rule("lengths", _lengths),
        of.rule("monitor.length", _monitor),
        of.rule("energy", _energy, "recommended"),
    )
    if of.name == "NXazint1d":
        return common
    return (
        *common,
        of.field("data/azimuthal_axis", a_number, _rank(1)),
        of.attribute("data/azimuthal_axis", "long_name", "azimuthal bin center"),
        of.attribute("data/azimuthal_axis_edges", "long_name", "azimuthal bin edges"),
        of.rule("data.azimuthal_axis@units", _azimuthal_units),
    )


AZINT_RULES: tuple[Rule, ...] = (*_rules(_Definition("NXazint1d")), *_rules(_Definition("NXazint2d")))
