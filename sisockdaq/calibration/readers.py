"""Reads where a detector stands from the files that people have; what kind a file is, its content tells.

=====================  ================================================================================
PONI file              pyFAI's, every version; also pyFAI's JSON
Fit2D                  its printed results, or its parameters (see `sisockdaq.calibration._fit2d`)
SAXSdog                the calibration's JSON
NXmx                   a master file of DECTRIS, Jungfraujoch, Sisockdaq, …
Stream V2              a start message, as CBOR or JSON
CBF                    the header of a DECTRIS detector ("mini CBF")
=====================  ================================================================================

What a file leaves out may be given with `Hints`. What is missing after that, or cannot be read, raises `GeometryError`
with the file, the reason and the next step. What is only implausible is read as it stands.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sisockdaq.calibration._fit2d import NAMES, is_fit2d, read_fit2d
from sisockdaq.calibration.geometry import ELECTRONVOLT_METRE, Geometry, detector_class
from sisockdaq.errors import ConfigurationError, GeometryError

__all__ = [
    "KINDS",
    "Hints",
    "from_fit2d",
    "from_saxsdog",
    "from_start_message",
    "is_other_kind",
    "read_geometry",
    "read_with_pixels",
]

KINDS = "a PONI file, Fit2D's parameters, a SAXSdog calibration, an NXmx master, a Stream V2 start message or a CBF"

_LARGEST_TEXT = 4 * 2**20
"""No description of a geometry is longer [bytes]; start messages with tables are."""

_LARGEST_MESSAGE = 2**30

_MOST_PIXELS = 2**20
"""No side of a detector has more."""


@dataclass(frozen=True)
class Hints:
    """What a user knows besides the file; it goes before what the file says.

    Attributes
    ----------
    pixel_size : (float, float) or None
        Height and width of a pixel [m].
    shape : (int, int) or None
        Rows and columns.
    wavelength : float or None
        [m]
    detector : str
        Name of a detector that pyFAI knows: gives pixel size and shape where nothing else does.
    from_bottom : bool
        Fit2D's y counts from the last row of the image.
    """

    pixel_size: tuple[float, float] | None = None
    shape: tuple[int, int] | None = None
    wavelength: float | None = None
    detector: str = ""
    from_bottom: bool = False


def read_geometry(path: Path | str, hints: Hints | None = None) -> Geometry:
    """Read a file of any kind that is known.

    Raises
    ------
    GeometryError
        When it is missing, of no known kind, or says too little.
    """
    path, hints = Path(path), _with_detector(hints or Hints())
    try:
        with path.open("rb") as file:
            head = file.read(64)
        if head.startswith(_HDF5):
            from sisockdaq.calibration._nxmx import read_nxmx

            return _completed(read_nxmx(path, hints), hints)
        if head.startswith(_CBF):
            from sisockdaq.calibration._cbf import read_cbf

            return _completed(read_cbf(path, hints), hints)
        if _is_binary(path, head):
            return _completed(from_start_message(_decoded(path), hints, origin=str(path)), hints)
        text = _text(path)
    except FileNotFoundError:
        raise GeometryError(f"{path}: no such file", remedy=f"give {KINDS}") from None
    except OSError as error:
        raise GeometryError(f"{path}: cannot be read: {error.strerror or error}") from None
    if text.lstrip().startswith("{"):
        return _completed(_from_json(text, path, hints), hints)
    if is_fit2d(text):
        return _completed(from_fit2d(read_fit2d(text, str(path)), hints, origin=str(path)), hints)
    if _is_poni(text):
        return _completed(_from_poni(path), hints)
    raise GeometryError(f"{path}: is none of the files that say where a detector stands", remedy=f"give {KINDS}")


def read_with_pixels(path: Path | str, pixel_size: float | tuple[float, float] | None) -> Geometry:
    """Read a file as `read_geometry`; the size of a pixel [m] counts only where the file does not say it.

    Raises
    ------
    GeometryError
        When it is missing, of no known kind, or says too little.
    """
    try:
        return read_geometry(path)
    except GeometryError:
        if pixel_size is None:
            raise
    height, width = (pixel_size, pixel_size) if isinstance(pixel_size, int | float) else pixel_size
    return read_geometry(path, Hints(pixel_size=(float(height), float(width))))


def is_other_kind(path: Path) -> bool:
    """Tell whether a file is of a kind that `read_geometry` knows, but no PONI; False for one that cannot be read."""
    try:
        with path.open("rb") as file:
            head = file.read(64)
        if _is_binary(path, head):
            return True
        text = _text(path)
    except (OSError, GeometryError):
        return False
    if text.lstrip().startswith("{"):
        try:
            return not _PONI_KEYS & {str(name).lower() for name in json.loads(text)}
        except ValueError:
            return False
    return is_fit2d(text) and not _is_poni(text)


def _is_binary(path: Path, head: bytes) -> bool:
    return head.startswith((_HDF5, _CBF)) or path.suffix.lower() == ".cbor" or head[:1] in _CBOR_MAPS


def _is_poni(text: str) -> bool:
    return any(line.lower().startswith("distance") for line in text.splitlines())


_HDF5, _CBF = b"\x89HDF\r\n\x1a\n", b"###CBF"
_PONI_KEYS = {"poni", "poni1", "poni_version"}
_CBOR_MAPS = {bytes([first]) for first in (*range(0xA1, 0xB8), 0xB8, 0xB9, 0xBF)}


def _with_detector(hints: Hints) -> Hints:
    """Look the detector's size up."""
    if not hints.detector:
        return hints
    known = detector_class(hints.detector)
    if known is None:
        raise GeometryError(
            f'pyFAI knows no detector "{hints.detector}"', remedy="give --pixel-size and --shape instead"
        )
    made = known()
    return Hints(
        hints.pixel_size or (float(made.pixel1), float(made.pixel2)),
        hints.shape or tuple(known.MAX_SHAPE),
        hints.wavelength,
        hints.detector,
        hints.from_bottom,
    )


def _completed(found: Geometry, hints: Hints) -> Geometry:
    """Put what the user says over what the file says."""
    changes: dict[str, Any] = {}
    if hints.pixel_size is not None and hints.pixel_size != found.pixel_size:
        changes["pixel_size"] = hints.pixel_size
    if hints.shape is not None and hints.shape != found.shape:
        changes["shape"] = hints.shape
    if hints.wavelength is not None:
        changes |= {"wavelength": hints.wavelength, "energy": None}
    if hints.detector and hints.detector != found.detector:
        changes["detector"] = hints.detector
    return found.changed(**changes) if changes else found


def _text(path: Path) -> str:
    if path.stat().st_size > _LARGEST_TEXT:
        raise GeometryError(f"{path}: is too long for a description of a geometry", remedy=f"give {KINDS}")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        text = path.read_bytes()
    if b"\0" in text:
        raise GeometryError(f"{path}: is none of the files that say where a detector stands", remedy=f"give {KINDS}")
    return text.decode("latin-1")


def _decoded(path: Path) -> Any:
    """Decode a message, leaving its tables as they are."""
    import cbor2

    if path.stat().st_size > _LARGEST_MESSAGE:
        raise GeometryError(f"{path}: is too long for a start message")
    try:
        return cbor2.loads(path.read_bytes())
    except Exception as error:  # cbor2 raises what a broken message provokes
        raise GeometryError(f"{path}: is no message in CBOR: {error}", remedy=f"give {KINDS}") from None


def _from_json(text: str, path: Path, hints: Hints) -> Geometry:
    try:
        data = json.loads(text)
    except ValueError as error:
        raise GeometryError(f"{path}: is not JSON: {error}", remedy=f"give {KINDS}") from None
    if "Geometry" in data:
        return from_saxsdog(data, origin=str(path))
    names = {str(name).lower() for name in data}
    if names & {"directdist", "centerx"}:
        return from_fit2d(read_fit2d(data, str(path)), hints, origin=str(path))
    if names & _PONI_KEYS:
        return _from_poni(path)
    return from_start_message(data, hints, origin=str(path))


def _from_poni(path: Path) -> Geometry:
    """Read a PONI file without refusing what is implausible: its numbers are checked later, with reasons."""
    from pyFAI.integrator.azimuthal import AzimuthalIntegrator

    made = AzimuthalIntegrator()
    try:
        made.load(str(path))
        if made.dist is None or made.poni1 is None or made.poni2 is None:
            raise ValueError("it has no Distance, Poni1 or Poni2")
        for name in ("rot1", "rot2", "rot3"):
            if getattr(made, name) is None:
                setattr(made, name, 0.0)
        if made.detector.pixel1 is None or made.detector.pixel2 is None:
            raise ValueError("it names neither a detector nor its pixels' size")
        return Geometry.of_pyfai(made, origin=str(path), kind="PONI file")
    except GeometryError:
        raise
    except Exception as error:  # pyFAI raises what a broken file provokes
        raise GeometryError(f"{path}: is not a PONI file: {error}", remedy="make one with pyFAI-calib2") from None


def from_fit2d(parameters: Mapping[str, float], hints: Hints | None = None, *, origin: str = "Fit2D") -> Geometry:
    """Make a geometry of Fit2D's parameters, under the names of pyFAI's ``setFit2D``.

    Raises
    ------
    GeometryError
        Something is missing.
    """
    hints = hints or Hints()
    missing = [name for name in NAMES[:3] if parameters.get(name) is None]
    if missing:
        raise GeometryError(
            f"{origin}: has no {', '.join(missing)}", remedy=f"Fit2D's parameters are {', '.join(NAMES)}"
        )
    pixel_size = hints.pixel_size
    if pixel_size is None:
        across = parameters.get("pixelX") or parameters.get("pixelY")
        along = parameters.get("pixelY") or across
        if across is None or along is None:
            raise GeometryError(
                f"{origin}: Fit2D's parameters do not say how large a pixel is",
                remedy="give --pixel-size or --detector",
            )
        pixel_size = (along / 1e6, across / 1e6)
    y, rotation = parameters["centerY"], math.radians(parameters.get("tiltPlanRotation", 0.0))
    notes = ["y was taken to count from the first row of the image (else: --from-bottom)"]
    if hints.from_bottom:
        if hints.shape is None:
            raise GeometryError(f"{origin}: from which row y counts is unknown", remedy="give --shape or --detector")
        y, rotation = hints.shape[0] - y, -rotation
        notes = ["y was taken to count from the last row of the image"]
    wavelength = parameters.get("wavelength")
    return Geometry.of_beam(
        parameters["directDist"] / 1e3,
        (parameters["centerX"], y),
        pixel_size,
        tilt=math.radians(parameters.get("tilt", 0.0)),
        rotation=rotation,
        wavelength=None if wavelength is None else wavelength / 1e10,
        shape=hints.shape,
        origin=origin,
        kind="Fit2D",
        notes=tuple(notes),
    )


def from_saxsdog(source: Mapping[str, Any] | Path | str, *, origin: str = "the calibration") -> Geometry:
    """Make a geometry of a SAXSdog calibration.

    Its angles are Fit2D's, and its y counts from the last row. Its ångström is 15 ppm off in SAXSdog's own curves
    (`sisockdaq.saxsdog.binning.ANGSTROM`); here it is the true one.

    Raises
    ------
    GeometryError
        The calibration is not whole.
    """
    from sisockdaq.saxsdog.calibration import read_calibration

    data = dict(source) if isinstance(source, Mapping) else source
    if isinstance(data, dict) and not data.get("Masks") and not data.get("Slices"):
        data["Masks"] = [{}]  # a geometry alone is enough here
    try:
        calibration = read_calibration(data)
    except ConfigurationError as error:
        raise GeometryError(
            f"{origin}: is no calibration of SAXSdog: {'; '.join(error.problems) or error.message}", remedy=error.remedy
        ) from None
    place = calibration.geometry
    shape = (int(place.image_size[0]), int(place.image_size[1]))
    from_bottom, x = place.beam_center
    size = place.pixel_size[0] / 1e6
    notes: tuple[str, ...] = ()
    if len(set(place.pixel_size)) > 1:
        notes = (f"the pixels are not square ({place.pixel_size} µm): the first number counts, as in SAXSdog",)
    return Geometry.of_beam(
        place.distance / 1e3,
        (x, shape[0] - from_bottom),
        (size, size),
        tilt=math.radians(place.tilt.angle),
        rotation=-math.radians(place.tilt.rotation),  # seen from the last row, as its y
        wavelength=calibration.wavelength / 1e10,
        shape=shape,
        origin=origin,
        kind="SAXSdog calibration",
        notes=notes,
    )


_ALIASES = {
    "x_pixel_size": "pixel_size_x",
    "y_pixel_size": "pixel_size_y",
    "photon_energy": "incident_energy",
    "wavelength": "incident_wavelength",
    "x_pixels_in_detector": "image_size_x",
    "y_pixels_in_detector": "image_size_y",
    "description": "detector_description",
}
"""Names that DECTRIS' other interfaces have for keys of a start message."""


def from_start_message(
    message: Mapping[str, Any], hints: Hints | None = None, *, origin: str = "the start message"
) -> Geometry:
    """Make a geometry of a start message of Stream V2, Jungfraujoch's dialect included.

    Raises
    ------
    GeometryError
        It is no start message, or says too little.
    """
    hints = hints or Hints()
    if not isinstance(message, Mapping):
        raise GeometryError(f"{origin}: is no start message", remedy=f"give {KINDS}")
    said = {_ALIASES.get(str(key), str(key)): value for key, value in message.items() if value is not None}
    if said.get("type", "start") != "start":
        raise GeometryError(f'{origin}: is a message "{said["type"]}"', remedy="give the start message of the series")
    user = said.get("user_data")
    if isinstance(user, Mapping):
        said = {**user, **said}
    translation = said.get("detector_translation")
    if said.get("detector_distance") is None and isinstance(translation, list | tuple) and len(translation) == 3:
        said["detector_distance"] = translation[2]
    facts = {key: value for key in _STATED if (value := _plain_number(said.get(key), key, origin)) is not None}
    return from_facts(
        facts, hints, origin=origin, kind="Stream V2 start message", detector=str(said.get("detector_description", ""))
    )


_STATED = (
    "detector_distance", "beam_center_x", "beam_center_y", "pixel_size_x", "pixel_size_y", "image_size_x",
    "image_size_y", "incident_wavelength", "incident_energy",
)  # fmt: skip


def _plain_number(value: Any, key: str, origin: str) -> float | None:
    from sisockdaq.calibration._numbers import number

    if value is None:
        return None
    if isinstance(value, Mapping) and "value" in value:  # SIMPLON's answers have it so
        value = value["value"]
    return number(value, key, origin)


def from_facts(facts: Mapping[str, float], hints: Hints, *, origin: str, kind: str, **more: Any) -> Geometry:
    """Make a geometry of what headers say, under the names of Stream V2 (m, pixels, Å, eV).

    Raises
    ------
    GeometryError
        The distance, the beam's centre or the size of the pixels is missing.
    """
    height = facts.get("pixel_size_y", facts.get("pixel_size_x"))
    width = facts.get("pixel_size_x", height)
    pixel_size = hints.pixel_size or (None if height is None or width is None else (height, width))
    missing = [name for name in ("detector_distance", "beam_center_x", "beam_center_y") if name not in facts]
    if pixel_size is None:
        missing.append("pixel_size_x")
    if missing or pixel_size is None:
        raise GeometryError(
            f"{origin}: does not say where the detector stands: no {', '.join(missing)}",
            remedy="write what is missing into Fit2D's parameters or a PONI file, or give --detector",
        )
    rows, columns = (count_of(facts.get(f"image_size_{axis}")) for axis in "yx")
    wavelength, energy = facts.get("incident_wavelength"), facts.get("incident_energy")
    if wavelength is not None:
        wavelength /= 1e10
    elif energy:
        wavelength, energy = ELECTRONVOLT_METRE / energy, None
    return Geometry.of_beam(
        facts["detector_distance"],
        (facts["beam_center_x"], facts["beam_center_y"]),
        pixel_size,
        wavelength=wavelength,
        energy=energy,
        shape=(rows, columns) if rows and columns else hints.shape,
        origin=origin,
        kind=kind,
        **more,
    )


def count_of(value: float | None) -> int:
    """Return a number of pixels; 0 where it is none."""
    return int(value) if value is not None and 0 < value <= _MOST_PIXELS else 0
