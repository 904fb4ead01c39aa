"""Fit2D's parameters from what people keep of them.

Read are: the ``INFO:`` lines that Fit2D prints after a calibration (copied into a text file), pyFAI's line
``DirectBeamDist= … Center: x=…``, and lines of ``name = value`` (or an object of JSON) with the names of pyFAI's
``setFit2D``: directDist [mm], centerX, centerY [pixels], tilt, tiltPlanRotation [degrees], pixelX, pixelY [µm],
wavelength [Å].

Fit2D counts y from the bottom of what it shows, and turns images of some formats upside down; which row that is, only
the user knows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from sisockdaq.calibration._numbers import NUMBER, number

__all__ = ["NAMES", "is_fit2d", "read_fit2d"]

NAMES = (
    "directDist", "centerX", "centerY", "tilt", "tiltPlanRotation", "pixelX", "pixelY", "wavelength",
)  # fmt: skip
_LOWER = {name.lower(): name for name in NAMES}

_PRINTED: dict[str, tuple[str, ...]] = {
    r"(?:Refined|Best fit) Beam centre \(X/Y pixels\)\s*=": ("centerX", "centerY"),
    r"(?:Refined|Best fit) Beam centre \(X/Y mm\)\s*=": ("mmX", "mmY"),
    r"(?:Refined|Best fit) sample to detector distance\s*(?:\(mm\))?\s*=": ("directDist",),
    r"Refined tilt plane rotation angle\s*(?:\(degrees\))?\s*=": ("tiltPlanRotation",),
    r"Best fit angle of tilt plane rotation\s*(?:\(degrees\))?\s*=": ("tiltPlanRotation",),
    r"Refined tilt angle\s*(?:\(degrees\))?\s*=": ("tilt",),
    r"Best fit angle of tilt\s*(?:\(degrees\))?\s*=": ("tilt",),
    r"(?:Refined|Best fit) wavelength\s*(?:\([^)]*\))?\s*=": ("wavelength",),
    r"DirectBeamDist\s*=": ("directDist",),
    r"Center:\s*x\s*=": ("centerX",),
    r"Center:[^\n]*\by\s*=": ("centerY",),
    r"\bTilt\s*=": ("tilt",),
    r"tiltPlanRotation\s*=": ("tiltPlanRotation",),
    r"λ\s*=": ("wavelength",),
}
"""What stands before the numbers, and what they are; where something is printed again, the last is the result."""


def is_fit2d(text: str) -> bool:
    """Whether a text has Fit2D's parameters."""
    found = read_fit2d(text, "")
    return "centerX" in found or "directDist" in found


def read_fit2d(source: str | Mapping[str, Any], origin: str) -> dict[str, float]:
    """Return what is found, under the names of pyFAI's ``setFit2D``.

    Raises
    ------
    GeometryError
        A value is no number.
    """
    if isinstance(source, str) and source.lstrip().startswith("{"):
        source = json.loads(source)
    if isinstance(source, Mapping):
        return _known(source, origin)
    pairs = re.findall(rf"^\s*[#!]?\s*(\w+)\s*[=:]\s*({NUMBER})\s*$", source, re.MULTILINE)
    found = _known(dict(pairs), origin)
    for pattern, names in _PRINTED.items():
        numbers = r"[\s,]+".join([f"({NUMBER})"] * len(names))
        for match in re.finditer(rf"{pattern}\s*{numbers}", source, re.IGNORECASE):
            found |= {name: number(match[place], name, origin) for place, name in enumerate(names, 1)}
    _pixels_of_both(found)
    return found


def _known(pairs: Mapping[str, Any], origin: str) -> dict[str, float]:
    found = {}
    for key, value in pairs.items():
        name = _LOWER.get(str(key).lower())
        if name is not None and value is not None:
            found[name] = number(value, name, origin)
    return found


def _pixels_of_both(found: dict[str, float]) -> None:
    """Compute the pixel's size where the beam's centre was printed in mm, too."""
    for axis in "XY":
        length = found.pop(f"mm{axis}", None)
        if length and found.get(f"center{axis}"):
            # Five digits are printed; no pixel is known to a nanometre.
            found.setdefault(f"pixel{axis}", round(length / found[f"center{axis}"] * 1e3, 3))
