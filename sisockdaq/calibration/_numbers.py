"""Numbers with units, as headers write them."""

from __future__ import annotations

import math
import re
from typing import Any

from sisockdaq.errors import GeometryError

__all__ = ["NUMBER", "in_metres", "number", "scaled"]

NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eEdD][-+]?\d+)?"
"""Pattern of a number, Fortran's exponent included."""

_METRES = {
    "m": 1.0, "metre": 1.0, "meter": 1.0, "metres": 1.0, "meters": 1.0,
    "cm": 1e-2,
    "mm": 1e-3, "millimetre": 1e-3, "millimeter": 1e-3,
    "um": 1e-6, "µm": 1e-6, "μm": 1e-6, "micron": 1e-6, "microns": 1e-6, "micrometre": 1e-6, "micrometer": 1e-6,
    "nm": 1e-9,
    "a": 1e-10, "å": 1e-10, "angstrom": 1e-10, "angstroms": 1e-10, "ang": 1e-10,
    "pm": 1e-12,
}  # fmt: skip
_RADIANS = {
    "rad": 1.0, "radian": 1.0, "radians": 1.0, "deg": math.pi / 180, "degree": math.pi / 180, "degrees": math.pi / 180,
    "°": math.pi / 180, "mrad": 1e-3,
}  # fmt: skip
_ELECTRONVOLTS = {"ev": 1.0, "kev": 1e3, "mev": 1e6}
_KINDS = {"length": _METRES, "angle": _RADIANS, "energy": _ELECTRONVOLTS}


def number(text: Any, what: str, origin: str) -> float:
    """Read a number; raise `GeometryError` that names it."""
    try:
        return float(str(text).strip().lower().replace("d", "e")) if isinstance(text, str) else float(text)
    except (TypeError, ValueError):
        raise GeometryError(f"{origin}: {what} is {text!r}, not a number") from None


def in_metres(text: str, what: str, origin: str, default: str = "m") -> float:
    """Read a length with its unit behind it, as ``0.2 m`` or ``1.0332 A``."""
    found = re.match(rf"\s*({NUMBER})\s*([A-Za-zµμÅå]*)", text)
    if found is None:
        raise GeometryError(f"{origin}: {what} is {text.strip()!r}, not a length")
    return scaled(number(found[1], what, origin), found[2] or default, "length", what, origin)


def scaled(value: float, unit: str, kind: str, what: str, origin: str) -> float:
    """Convert a length to m, an angle to rad, an energy to eV."""
    factor = _KINDS[kind].get(unit.strip().lower())
    if factor is None:
        raise GeometryError(f'{origin}: {what} is in "{unit}", which is no unit of a{"n" * (kind != "length")} {kind}')
    return value * factor
