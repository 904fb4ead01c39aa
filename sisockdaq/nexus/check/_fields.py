"""Rules for single fields, written as a table: where, what kind, which units, who demands it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import h5py
import numpy as np

from sisockdaq.nexus._strings import as_text
from sisockdaq.nexus.check._rules import Demand, Problem, Rule
from sisockdaq.nexus.check._view import View, attribute_text, child

__all__ = ["FieldRule", "field_rules", "is_time", "where"]

Kind = Literal["text", "number", "integer", "time", "axis", "any"]

UNITS = {
    "length": "m mm um micron microns nm cm angstrom meter meters metre metres millimeter millimeters",
    "wavelength": "angstrom angstroms Angstrom Å A nm m pm",
    "energy": "eV keV MeV J",
    "time": "s ms us ns second seconds",
    "position": "pixel pixels m mm um",
    "flux": "Hz 1/s s^-1 s-1",
}
"""Units that readers know, by what is measured."""

_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:?\d\d)?")

_NAMES = {
    "entry": "/entry",
    "data": "/entry/data",
    "sample": "/entry/sample",
    "source": "/entry/source",
    "instrument": "/entry/instrument",
    "beam": "/entry/instrument/beam",
    "detector": "/entry/instrument/detector",
    "specific": "/entry/instrument/detector/detectorSpecific",
    "module": "/entry/instrument/detector/module",
}
"""Where a group of a role is expected, to name it where it is missing."""


@dataclass(frozen=True, slots=True)
class FieldRule:
    """A field that a group of some role (a property of `View`) is to have."""

    role: str
    name: str
    kind: Kind
    by: dict[str, Demand]
    units: str | None = None

    @property
    def key(self) -> str:
        """Name of the rule."""
        return f"{self.role}.{self.name}"

    def problems(self, view: View) -> Iterable[Problem]:
        """Look for the field; of a group that is missing altogether another rule tells."""
        group = view.role(self.role)
        if group is None:
            return
        place = where(view, self.role, self.name)
        found = child(group, self.name)
        if not isinstance(found, h5py.Dataset):
            yield place, "is missing"
            return
        yield from ((place, what) for what in self._wrong(found))

    def _wrong(self, found: h5py.Dataset) -> Iterator[str]:
        kind = found.dtype.kind
        if self.kind in ("text", "time") and not (kind in "SO" or h5py.check_string_dtype(found.dtype)):
            yield "is no text"
        elif self.kind == "time" and not is_time(text := as_text(found)):
            yield f'"{text}" is no time in ISO 8601'
        elif self.kind == "integer" and kind not in "iu":
            yield f"is {found.dtype}, not an integer"
        elif self.kind in ("number", "axis") and kind not in "iuf":
            yield f"is {found.dtype}, not a number"
        if self.units is not None:
            units = attribute_text(found, "units")
            known = UNITS[self.units].split()
            if units is None:
                yield f"has no units; one of {', '.join(known[:4])}, …"
            elif units not in known:
                yield f'has units "{units}", which is no {self.units}; one of {", ".join(known[:4])}, …'
        if self.kind == "axis":
            yield from _axis_wrong(found)


def _axis_wrong(found: h5py.Dataset) -> Iterator[str]:
    kind = attribute_text(found, "transformation_type")
    if kind not in ("translation", "rotation"):
        yield "has no transformation_type (translation or rotation)"
    vector = found.attrs.get("vector")
    if vector is None or np.shape(vector) != (3,):
        yield "has no vector of three numbers"
    if attribute_text(found, "depends_on") is None:
        yield 'has no depends_on ("." at the end of the chain)'


def is_time(text: str) -> bool:
    """Whether a text is a time in ISO 8601."""
    return _TIME.fullmatch(text) is not None


def where(view: View, role: str, name: str = "") -> str:
    """Return the path of a field in the group of a role, also where there is none."""
    group = view.role(role)
    base = group.name if group is not None else _NAMES[role]
    return f"{base}/{name}" if name else base


def field_rules(table: Iterable[FieldRule]) -> tuple[Rule, ...]:
    """Return the rules of a table."""
    return tuple(Rule(each.key, each.by, each.problems) for each in table)
