"""The rules of NXcanSAS (nexusformat/definitions, version 1.1; what 1.0 did not ask for is a recommendation)."""

from __future__ import annotations

from collections.abc import Iterator

import h5py
import numpy as np

from sisockdaq.nexus.check._homes import (
    Home,
    Role,
    Test,
    a_number,
    a_text,
    attribute,
    field,
    group,
    homes,
    is_named,
    texts,
)
from sisockdaq.nexus.check._rules import Demand, Problem, Rule
from sisockdaq.nexus.check._view import View, attribute_text, child

__all__ = ["CANSAS_ROLES", "CANSAS_RULES"]

CANSAS_ROLES = {
    "sasdata": Role("", "sasdata", "NXdata", many=True),
    "sasinstrument": Role("", "sasinstrument", "NXinstrument", many=True, optional=True),
    "sassource": Role("sasinstrument", "sassource", "NXsource", many=True, optional=True),
    "sasdetector": Role("sasinstrument", "sasdetector", "NXdetector", many=True, optional=True),
    "sasaperture": Role("sasinstrument", "sasaperture", "NXaperture", many=True, optional=True),
    "sassample": Role("", "sassample", "NXsample", many=True, optional=True),
    "sasprocess": Role("", "sasprocess", "NXprocess", many=True, optional=True),
}

_CLASSES = {
    "sasdata": "SASdata",
    "sasinstrument": "SASinstrument",
    "sassource": "SASsource",
    "sasdetector": "SASdetector",
    "sasaperture": "SASaperture",
    "sassample": "SASsample",
    "sasprocess": "SASprocess",
}

_MUST: dict[str, Demand] = {"NXcanSAS": "required"}
_MAY: dict[str, Demand] = {"NXcanSAS": "recommended"}

_PER_LENGTH = ("1/nm", "1/angstrom", "1/m")
_INTENSITY = ("arbitrary", "1/cm", "1/m", "m2/g", "cm2/g")


def _attribute(place: str, name: str, *allowed: object) -> Rule:
    return attribute("cansas", CANSAS_ROLES, _MUST, place, name, allowed)


def _field(place: str, *tests: Test) -> Rule:
    return field("cansas", CANSAS_ROLES, _MUST, place, *tests)


def _homes(view: View) -> list[Home]:
    return homes(view, _MUST, CANSAS_ROLES)


def _data(view: View) -> Iterator[h5py.Group]:
    for home in _homes(view):
        yield from home.find("sasdata")


def _dataset(parent: h5py.Group, name: str) -> h5py.Dataset | None:
    found = child(parent, name)
    return found if isinstance(found, h5py.Dataset) else None


def _definition(view: View) -> Iterator[Problem]:
    yield from is_named(_homes(view), "NXcanSAS")


def _runs(view: View) -> Iterator[Problem]:
    """One field ``run``, or several whose names begin so."""
    for home in _homes(view):
        if not any(name.startswith("run") for name in home.group):
            yield f"{home.group.name}/run", "is missing"


def _axes(view: View) -> Iterator[Problem]:
    """I_axes has a name for each dimension of I, and Q_indices says which of them are those of Q."""
    for data in _data(view):
        intensity, q = _dataset(data, "I"), _dataset(data, "Q")
        if intensity is None:
            continue
        names = texts(data.attrs["I_axes"]) if "I_axes" in data.attrs else []
        if len(names) == 1 and intensity.ndim > 1:
            names = names[0].split(",")  # in older files
        if names and len(names) != intensity.ndim:
            yield f"{data.name}/@I_axes", f"names {len(names)} axes, I has {intensity.ndim} dimensions"
        yield from _places(data, "Q", q, intensity)


def _places(data: h5py.Group, name: str, found: h5py.Dataset | None, intensity: h5py.Dataset) -> Iterator[Problem]:
    """``<name>_indices`` are dimensions of I, and the field is as long as they are."""
    attribute_name = f"{name}_indices"
    if attribute_name not in data.attrs:
        return
    where = f"{data.name}/@{attribute_name}"
    places = np.atleast_1d(data.attrs[attribute_name])
    if places.dtype.kind not in "iu":
        yield where, "is no integer"
        return
    if any(not 0 <= place < intensity.ndim for place in places):
        yield where, f"is {places.tolist()}, I has {intensity.ndim} dimensions"
        return
    lengths = tuple(intensity.shape[place] for place in places)
    if found is not None and len(set(places.tolist())) == found.ndim and found.shape != lengths:
        yield str(found.name), f"is {found.shape}; I is {intensity.shape}, so {lengths} is needed"


def _mask(view: View) -> Iterator[Problem]:
    """The attribute ``mask`` names a field of the group."""
    for data in _data(view):
        if "mask" not in data.attrs:
            yield f"{data.name}/@mask", "is missing (version 1.1 asks for it)"
            continue
        found, intensity = _dataset(data, texts(data.attrs["mask"])[0]), _dataset(data, "I")
        if found is None:
            yield f"{data.name}/@mask", f'names "{texts(data.attrs["mask"])[0]}", which is not there'
        elif intensity is not None:
            if "Mask_indices" in data.attrs:
                yield from _places(data, "Mask", found, intensity)
            elif found.shape != intensity.shape:
                yield str(found.name), f"is {found.shape}, I is {intensity.shape}"


def _errors(view: View) -> Iterator[Problem]:
    """What ``uncertainties`` names is there, and errors are as many and in the same units as what they belong to."""
    for data in _data(view):
        for name, usual in (("I", "Idev"), ("Q", "Qdev")):
            found = _dataset(data, name)
            if found is None:
                continue
            named = texts(found.attrs["uncertainties"])[0] if "uncertainties" in found.attrs else usual
            errors = _dataset(data, named)
            if errors is None:
                if "uncertainties" in found.attrs:
                    yield f"{found.name}/@uncertainties", f'names "{named}", which is not there'
                continue
            if errors.shape != found.shape:
                yield str(errors.name), f"is {errors.shape}, {name} is {found.shape}"
            if attribute_text(errors, "units") != attribute_text(found, "units"):
                yield f"{errors.name}/@units", f'is "{attribute_text(errors, "units")}", not that of {name}'


def _inside(view: View) -> Iterator[Problem]:
    """Reduced data are in the file itself."""
    for data in _data(view):
        for name in ("I", "Q", "Idev"):
            found = _dataset(data, name)
            if found is not None and found.file.filename != view.hdf5.filename:
                yield f"{data.name}/{name}", "is in another file; links to other files are not allowed"


def _default(view: View) -> Iterator[Problem]:
    for home in _homes(view):
        named = attribute_text(home.group, "default")
        if named is None or child(home.group, named) is None:
            what = "is missing" if named is None else f'names "{named}", which is not there'
            yield f"{home.group.name}/@default", what


CANSAS_RULES: tuple[Rule, ...] = (
    Rule("cansas.definition", _MUST, _definition),
    _attribute("/", "canSAS_class", "SASentry"),
    _attribute("/", "version", "1.1", "1.0"),
    _field("title", a_text),
    Rule("cansas.run", _MUST, _runs),
    group("cansas", CANSAS_ROLES, _MUST, "sasdata"),
    *(_attribute(f"{role}/", "canSAS_class", word) for role, word in _CLASSES.items()),
    _attribute("sasdata/", "signal", "I"),
    _attribute("sasdata/", "I_axes"),
    _attribute("sasdata/", "Q_indices"),
    Rule("cansas.sasdata.axes", _MUST, _axes),
    Rule("cansas.sasdata@mask", _MAY, _mask),
    _field("sasdata/Q", a_number),
    _attribute("sasdata/Q", "units", *_PER_LENGTH),
    _field("sasdata/I", a_number),
    _attribute("sasdata/I", "units", *_INTENSITY),
    Rule("cansas.errors", _MUST, _errors),
    Rule("cansas.inside", _MUST, _inside),
    Rule("cansas@default", _MAY, _default),
    _field("sasdetector/name", a_text),
    _field("sassample/name", a_text),
    _field("sasaperture/shape", a_text),
)
