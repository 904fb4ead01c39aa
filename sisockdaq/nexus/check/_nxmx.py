"""The rules of NXmx (nexusformat/definitions, applications/NXmx), and what the readers take from the same fields."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import h5py
import numpy as np

from sisockdaq.nexus._strings import as_text
from sisockdaq.nexus.check._fields import FieldRule, field_rules, where
from sisockdaq.nexus.check._rules import Demand, Problem, Rule
from sisockdaq.nexus.check._view import View, attribute_text, child

__all__ = ["NXMX_RULES"]

_MUST: dict[str, Demand] = {"NXmx": "required"}
_MAY: dict[str, Demand] = {"NXmx": "recommended"}

_FIELDS = (
    FieldRule("entry", "start_time", "time", _MUST),
    FieldRule("entry", "end_time_estimated", "time", _MUST),
    FieldRule("sample", "name", "text", _MUST),
    FieldRule("sample", "depends_on", "text", _MUST),
    FieldRule("source", "name", "text", _MUST),
    FieldRule("instrument", "name", "text", _MUST),
    FieldRule("instrument", "time_zone", "text", _MAY),
    FieldRule("beam", "incident_wavelength", "number", {**_MUST, "nxmx": "required"}, "wavelength"),
    FieldRule("beam", "total_flux", "number", _MUST, "flux"),
    FieldRule("beam", "incident_beam_size", "number", _MAY, "length"),
    FieldRule("beam", "profile", "text", _MAY),
    FieldRule("detector", "sensor_material", "text", {**_MUST, "nxmx": "required"}),
    FieldRule("detector", "sensor_thickness", "number", {**_MUST, "nxmx": "required"}, "length"),
    FieldRule("detector", "description", "text", _MAY),
    FieldRule("detector", "distance", "number", _MAY, "length"),
    FieldRule("detector", "count_time", "number", _MAY, "time"),
    FieldRule("detector", "beam_center_x", "number", _MAY, "position"),
    FieldRule("detector", "beam_center_y", "number", _MAY, "position"),
    FieldRule("detector", "pixel_mask", "integer", _MAY),
    FieldRule("detector", "bit_depth_readout", "integer", _MAY),
    FieldRule("detector", "x_pixel_size", "number", {"durin": "required", "neggia": "recommended"}, "length"),
    FieldRule("detector", "y_pixel_size", "number", {"durin": "required", "neggia": "recommended"}, "length"),
    FieldRule("module", "data_origin", "integer", _MUST),
    FieldRule("module", "data_size", "integer", _MUST),
    FieldRule("module", "fast_pixel_direction", "axis", {**_MUST, "nxmx": "required"}, "length"),
    FieldRule("module", "slow_pixel_direction", "axis", {**_MUST, "nxmx": "required"}, "length"),
)


def _group(role: str, nx_class: str, view: View) -> Iterable[Problem]:
    found = view.role(role)
    if found is None:
        yield where(view, role), f"is missing (a group of class {nx_class})"
    elif attribute_text(found, "NX_class") != nx_class:
        yield found.name, f'has NX_class "{attribute_text(found, "NX_class")}", not {nx_class}'


def _definition(view: View) -> Iterable[Problem]:
    found = None if view.entry is None else child(view.entry, "definition")
    if not isinstance(found, h5py.Dataset):
        yield where(view, "entry", "definition"), "is missing"
    elif as_text(found) != "NXmx":
        yield found.name, f'is "{as_text(found)}", not NXmx'


def _images(view: View) -> Iterable[Problem]:
    if view.data is not None and not view.images:
        yield where(view, "data", "data"), "is missing, and data_000001 as well"
    for dataset in view.images.values():
        if dataset.ndim != 3:
            yield where(view, "data", dataset.name.rpartition("/")[2]), f"has {dataset.ndim} dimensions instead of 3"


def _sizes(view: View) -> Iterable[Problem]:
    """Mask and module are as large as the images."""
    shapes = {dataset.shape[1:] for dataset in view.images.values() if dataset.ndim == 3}
    if len(shapes) > 1:
        yield where(view, "data"), f"has images of different sizes: {sorted(shapes)}"
    if len(shapes) != 1:
        return
    shape = shapes.pop()
    mask = None if view.detector is None else child(view.detector, "pixel_mask")
    if isinstance(mask, h5py.Dataset) and mask.shape[-2:] != shape:
        yield where(view, "detector", "pixel_mask"), f"is {mask.shape}, the images are {shape}"
    size = None if view.module is None else child(view.module, "data_size")
    if isinstance(size, h5py.Dataset) and size.shape == (2,) and np.any(size[()] > shape):
        yield where(view, "module", "data_size"), f"is {tuple(map(int, size[()]))}, the images are {shape}"


def _chains(view: View) -> Iterable[Problem]:
    """Every chain of transformations comes to its end."""
    begins = []
    for role in ("sample", "detector"):
        group = view.role(role)
        found = None if group is None else child(group, "depends_on")
        if isinstance(found, h5py.Dataset) and found.dtype.kind in "SO":
            begins.append((found.name, as_text(found), found.parent))
    for name in ("fast_pixel_direction", "slow_pixel_direction", "module_offset"):
        found = None if view.module is None else child(view.module, name)
        if isinstance(found, h5py.Dataset):
            begins.append((found.name, attribute_text(found, "depends_on") or ".", found.parent))
    for begin, target, parent in begins:
        what = _broken_chain(target, parent)
        if what is not None:
            yield begin, what


def _broken_chain(target: str, parent: h5py.Group) -> str | None:
    seen: set[str] = set()
    while target not in (".", ""):
        found = child(parent, target)
        if not isinstance(found, h5py.Dataset):
            return f"depends on {target}, which is not there"
        if found.name in seen:
            return f"depends on itself through {found.name}"
        seen.add(found.name)
        target, parent = attribute_text(found, "depends_on") or ".", found.parent
    return None


def _links(view: View) -> Iterable[Problem]:
    for path, target in view.dangling:
        yield path, f"leads to {target}, which is not there"


_ALL: dict[str, Demand] = dict.fromkeys(("NXmx", "neggia", "durin", "fabio", "Albula", "CrystFEL", "nxmx"), "required")

_GROUPS = {
    "entry": ("NXentry", _ALL),
    "data": ("NXdata", _ALL),
    "sample": ("NXsample", _MUST),
    "source": ("NXsource", _MUST),
    "instrument": ("NXinstrument", {**_MUST, "nxmx": "required"}),
    "beam": ("NXbeam", {**_MUST, "nxmx": "required"}),
    "detector": ("NXdetector", {**_MUST, "nxmx": "required", "durin": "required"}),
    "module": ("NXdetector_module", {**_MUST, "nxmx": "required"}),
}

NXMX_RULES: tuple[Rule, ...] = (
    *(Rule(f"{role}", {**by}, partial(_group, role, nx)) for role, (nx, by) in _GROUPS.items()),
    Rule("entry.definition", {**_MUST, "nxmx": "required"}, _definition),
    Rule("images", _ALL, _images),
    Rule("links", _ALL, _links),
    Rule("sizes", _ALL, _sizes),
    Rule("chains", {**_MUST, "nxmx": "required"}, _chains),
    *field_rules(_FIELDS),
)
