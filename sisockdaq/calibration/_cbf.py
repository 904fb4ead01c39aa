"""The header that DECTRIS detectors write into CBF files ("mini CBF"), read by fabio."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sisockdaq.calibration._numbers import NUMBER, in_metres, number
from sisockdaq.calibration.geometry import Geometry
from sisockdaq.calibration.readers import Hints, from_facts
from sisockdaq.errors import GeometryError

__all__ = ["read_cbf"]

_ELECTRONVOLTS = {"ev": 1.0, "kev": 1e3}


def read_cbf(path: Path, hints: Hints) -> Geometry:
    """Read a CBF file's header.

    Raises
    ------
    GeometryError
    """
    header, shape = _header(path)
    lines = header.get("_array_data.header_contents", "")
    origin = str(path)
    facts: dict[str, float] = {"image_size_y": shape[0], "image_size_x": shape[1]}
    sizes = re.search(rf"Pixel_size\s*[=:]?\s*({NUMBER})\s*(\w*)\s*x\s*({NUMBER})\s*(\w*)", lines)
    if sizes is not None:
        # The first is the width, as DECTRIS describes its files.
        facts["pixel_size_x"] = in_metres(f"{sizes[1]} {sizes[2]}", "Pixel_size", origin)
        facts["pixel_size_y"] = in_metres(f"{sizes[3]} {sizes[4]}", "Pixel_size", origin)
    for key, name in (("Detector_distance", "detector_distance"), ("Wavelength", "incident_wavelength")):
        if (found := _after(lines, key)) is not None:
            length = in_metres(found, key, origin, default="m" if key == "Detector_distance" else "A")
            facts[name] = length * (1e10 if key == "Wavelength" else 1.0)
    centre = re.search(rf"Beam_xy\s*[=:]?\s*\(\s*({NUMBER})\s*,\s*({NUMBER})\s*\)", lines)
    if centre is not None:
        facts["beam_center_x"] = number(centre[1], "Beam_xy", origin)
        facts["beam_center_y"] = number(centre[2], "Beam_xy", origin)
    energy = re.search(rf"(?:Photon_energy|Energy)\s*[=:]?\s*({NUMBER})\s*(k?eV)\b", lines, re.IGNORECASE)
    if energy is not None:
        facts["incident_energy"] = number(energy[1], "Photon_energy", origin) * _ELECTRONVOLTS[energy[2].lower()]
    detector = (_after(lines, "Detector:") or "").strip()
    return from_facts(facts, hints, origin=origin, kind="CBF header", detector=detector)


def _header(path: Path) -> tuple[dict[str, Any], tuple[int, int]]:
    import fabio

    from sisockdaq.sources.files import read_image

    try:
        data, _ = read_image(path)  # knows how to refuse half a file
        header = dict(fabio.openheader(str(path)).header)
    except OSError as error:
        raise GeometryError(f"{path}: is no whole CBF: {error}") from None
    return header, (int(data.shape[0]), int(data.shape[1]))


def _after(lines: str, key: str) -> str | None:
    found = re.search(rf"{re.escape(key)}(?!\w)\s*[=:]?\s*([^\r\n]*)", lines)
    return None if found is None else found[1]
