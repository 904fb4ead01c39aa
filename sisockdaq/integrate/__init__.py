"""Azimuthal integration: pyFAI's geometry, our own kernels. Needs no network.

What is listed here is loaded when it is first used: checking a site file asks for the names of units only, and must
not pay for a compiler.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sisockdaq.integrate.cake import Cake
    from sisockdaq.integrate.geometry import UNITS, RadialUnit, Unit, load_geometry, radial_unit
    from sisockdaq.integrate.integrator import Box, Integrator
    from sisockdaq.integrate.maps import Split
    from sisockdaq.integrate.masks import load_mask
    from sisockdaq.integrate.result import Averager, Batch, Result, average
    from sisockdaq.integrate.sectors import Sector

__all__ = [
    "UNITS",
    "Averager",
    "Batch",
    "Box",
    "Cake",
    "Integrator",
    "RadialUnit",
    "Result",
    "Sector",
    "Split",
    "Unit",
    "average",
    "load_geometry",
    "load_mask",
    "radial_unit",
]

_PLACES = {
    "cake": ("Cake",),
    "geometry": ("UNITS", "RadialUnit", "Unit", "load_geometry", "radial_unit"),
    "integrator": ("Box", "Integrator"),
    "maps": ("Split",),
    "masks": ("load_mask",),
    "result": ("Averager", "Batch", "Result", "average"),
    "sectors": ("Sector",),
}


def __getattr__(name: str) -> Any:
    for module, names in _PLACES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
