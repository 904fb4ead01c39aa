"""Azimuthal integration: pyFAI's geometry, our own kernels. Needs no network.

What is listed here is loaded when it is first used: checking a site file asks for the names of units only, and must
not pay for a compiler.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sisockdaq.integrate.geometry import UNITS, RadialUnit, Unit, load_geometry, radial_unit
    from sisockdaq.integrate.integrator import Box, Integrator, Result
    from sisockdaq.integrate.maps import Split
    from sisockdaq.integrate.masks import load_mask

__all__ = [
    "UNITS",
    "Box",
    "Integrator",
    "RadialUnit",
    "Result",
    "Split",
    "Unit",
    "load_geometry",
    "load_mask",
    "radial_unit",
]

_PLACES = {
    "geometry": ("UNITS", "RadialUnit", "Unit", "load_geometry", "radial_unit"),
    "integrator": ("Box", "Integrator", "Result"),
    "maps": ("Split",),
    "masks": ("load_mask",),
}


def __getattr__(name: str) -> Any:
    for module, names in _PLACES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
