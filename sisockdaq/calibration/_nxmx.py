"""Where the detector of an NXmx file stands: its beam centre and distance, and how it leans.

The beam centre, the distance and the size of the pixels are read from NXdetector. Only where the module's directions
say that the detector leans, its place comes from the chain of transformations (``depends_on``).

The detector is seen as pyFAI sees one: the first row is at axis 1's low end, whichever way it really points. Rings and
q are the same; the azimuth is counted as for every other geometry of pyFAI.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sisockdaq.calibration._numbers import scaled
from sisockdaq.calibration.geometry import Geometry
from sisockdaq.calibration.readers import Hints, count_of, from_facts
from sisockdaq.errors import GeometryError

__all__ = ["read_nxmx"]

_LONGEST_CHAIN = 64
_UPRIGHT = 1e-6
"""How far a direction may point along the beam and still count as upright."""

_CLOSE = 1.0
"""So far apart may two statements of the beam's centre be [pixels]."""

_Floats = npt.NDArray[np.float64]


def read_nxmx(path: Path, hints: Hints) -> Geometry:
    """Read a master file.

    Raises
    ------
    GeometryError
    """
    import h5py

    try:
        return _read(h5py.File(path, "r", locking=False), path, hints)
    except (KeyError, IndexError, RuntimeError, TypeError, ValueError) as error:  # what broken links and types provoke
        raise GeometryError(f"{path}: cannot be read as NXmx: {error}", remedy="give a master file of NXmx") from None


def _read(opened: Any, path: Path, hints: Hints) -> Geometry:
    with opened as file:
        reader = _Reader(file, str(path))
        facts, detector = reader.facts(), reader.text(reader.detector, "description")
        axes = reader.axes() if {"pixel_size_x", "pixel_size_y"} <= set(facts) else None
        if axes is None or not _leans(axes):
            return from_facts(
                facts, hints, origin=str(path), kind="NXmx file", detector=detector, notes=tuple(reader.notes)
            )
        return _leaning(axes, facts, reader, detector, str(path))


class _Reader:
    def __init__(self, file: Any, origin: str) -> None:
        self.origin = origin
        self.notes: list[str] = []
        self.file = file
        self.entry = self._entry()
        self.instrument = next(iter(_groups(self.entry, "NXinstrument", "instrument")), None)
        found = [] if self.instrument is None else list(_groups(self.instrument, "NXdetector", "detector"))
        if not found:
            raise GeometryError(f"{origin}: has no detector", remedy="give a master file of NXmx")
        self.detector = found[0]
        if len(found) > 1:
            self.notes.append(f"the file has {len(found)} detectors: {self.detector.name} was taken")

    def _entry(self) -> Any:
        default = self.file.attrs.get("default")
        named = default.decode() if isinstance(default, bytes) else default
        if isinstance(named, str) and named in self.file:
            return self.file[named]
        found = next(iter(_groups(self.file, "NXentry", "entry")), None)
        if found is None:
            raise GeometryError(f"{self.origin}: has no entry", remedy="give a master file of NXmx")
        return found

    def text(self, group: Any, name: str) -> str:
        value = group[name][()] if name in group else ""
        if isinstance(value, np.ndarray):
            value = value.flat[0] if value.size else ""
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)

    def facts(self) -> dict[str, float]:
        """Return what is said under the names of Stream V2 (m, pixels, Å, eV)."""
        found = {
            "pixel_size_x": self._length("x_pixel_size"),
            "pixel_size_y": self._length("y_pixel_size"),
            "detector_distance": self._first(self._length("distance"), self._length("detector_distance")),
        }
        for axis in "xy":
            found[f"beam_center_{axis}"] = self._centre(axis, found[f"pixel_size_{axis}"])
        rows, columns = self._shape()
        beams = [*self._beams()]
        wavelength = self._first(*(self._quantity(beam, name, "length", "angstrom") for beam, name, _ in beams))
        energy = self._first(*(self._quantity(beam, name, "energy", "eV") for beam, _, name in beams))
        found |= {
            "image_size_x": columns,
            "image_size_y": rows,
            "incident_wavelength": None if wavelength is None else wavelength * 1e10,
            "incident_energy": energy,
        }
        return {name: float(value) for name, value in found.items() if value is not None}

    def _beams(self) -> Iterator[tuple[Any, str, str]]:
        assert self.instrument is not None
        holders = [self.instrument, *_groups(self.entry, "NXsample", "sample")]
        for holder in holders:
            for beam in _groups(holder, "NXbeam", "beam"):
                yield beam, "incident_wavelength", "incident_energy"
        for mono in _groups(self.instrument, "NXmonochromator", "monochromator"):
            yield mono, "wavelength", "energy"

    @staticmethod
    def _first(*values: float | None) -> float | None:
        return next((value for value in values if value is not None), None)

    def _length(self, name: str) -> float | None:
        return self._quantity(self.detector, name, "length", "m")

    def _quantity(self, group: Any, name: str, kind: str, default: str) -> float | None:
        """Return a number in m, rad or eV; the first of several."""
        if name not in group:
            return None
        item = group[name]
        values = _numbers(item)
        if not values.size:
            return None
        if values.size > 1 and not np.allclose(values, values[0], rtol=1e-6, atol=0):
            self.notes.append(f"{item.name} changes over the file: its first value was taken")
        unit = _attribute(item, "units")
        if not unit:
            self.notes.append(f"{item.name} has no units: {default} was taken")
        return scaled(float(values[0]), unit or default, kind, str(item.name), self.origin)

    def _centre(self, axis: str, pixel: float | None) -> float | None:
        """Return the beam's centre [pixels]; some files have it in a length."""
        name = f"beam_center_{axis}"
        if name not in self.detector:
            return None
        item = self.detector[name]
        values, unit = _numbers(item), _attribute(item, "units")
        if not values.size:
            return None
        value = float(values[0])
        if unit.lower() in ("", "pixel", "pixels", "px", "1"):
            return value
        if pixel is None:
            return None
        return scaled(value, unit, "length", str(item.name), self.origin) / pixel

    def _shape(self) -> tuple[float | None, float | None]:
        for place in ("detectorSpecific/", ""):
            found = [self.detector.get(f"{place}{axis}_pixels_in_detector") for axis in "yx"]
            counts = [_numbers(item) for item in found if item is not None]
            if len(counts) == 2 and counts[0].size and counts[1].size:
                return float(counts[0][0]), float(counts[1][0])
        sizes = [_numbers(module["data_size"]) for module in self._modules() if "data_size" in module]
        if len(sizes) == 1 and sizes[0].size >= 2:
            return float(sizes[0][-2]), float(sizes[0][-1])
        mask = self.detector.get("pixel_mask")
        if getattr(mask, "ndim", 0) >= 2:
            return float(mask.shape[-2]), float(mask.shape[-1])
        return None, None

    def _modules(self) -> list[Any]:
        return list(_groups(self.detector, "NXdetector_module", "module"))

    def axes(self) -> tuple[_Floats, _Floats, _Floats] | None:
        """Return the first pixel's corner [m] and the directions of a row and of a column; None where not said."""
        modules = self._modules()
        if len(modules) != 1:
            if modules:
                self.notes.append(f"the detector has {len(modules)} modules: how each of them leans was not used")
            return None
        fast, slow = (modules[0].get(f"{name}_pixel_direction") for name in ("fast", "slow"))
        if fast is None or slow is None:
            return None
        corner = modules[0].get("module_offset", fast)
        try:
            origin = self._chain(corner)[:3, 3]
            return origin, self._direction(fast), self._direction(slow)
        except _NoChainError as error:
            self.notes.append(f"how the detector leans was not used: {error}")
            return None

    def _direction(self, axis: Any) -> _Floats:
        vector = np.asarray(axis.attrs.get("vector", (0, 0, 0)), np.float64)
        turned: _Floats = self._chain(self._parent(axis))[:3, :3] @ vector
        length = float(np.linalg.norm(turned))
        if not length:
            raise _NoChainError(f"{axis.name} has no direction")
        return turned / length

    def _parent(self, item: Any) -> Any:
        on = _attribute(item, "depends_on")
        if on in ("", "."):
            return None
        place = on if on.startswith("/") else f"{item.parent.name}/{on}"
        if place not in self.file:
            raise _NoChainError(f"{item.name} depends on {on}, which is not there")
        return self.file[place]

    def _chain(self, item: Any) -> _Floats:
        """Return the 4 × 4 matrix from the frame of an axis to that of the laboratory."""
        matrix = np.eye(4)
        for _ in range(_LONGEST_CHAIN):
            if item is None:
                return matrix
            matrix = self._step(item) @ matrix
            item = self._parent(item)
        raise _NoChainError("depends_on goes round in a circle")

    def _step(self, item: Any) -> _Floats:
        values = _numbers(item)
        if not values.size or not np.isfinite(values[0]):
            raise _NoChainError(f"{item.name} holds no number")
        value = float(values[0])
        vector = np.asarray(item.attrs.get("vector", (0, 0, 0)), np.float64)
        step = np.eye(4)
        if _attribute(item, "transformation_type") == "rotation":
            angle = scaled(value, _attribute(item, "units") or "deg", "angle", str(item.name), self.origin)
            step[:3, :3] = _rotation(vector, angle)
        else:
            step[:3, 3] = vector * scaled(
                value, _attribute(item, "units") or "m", "length", str(item.name), self.origin
            )
        offset = np.asarray(item.attrs.get("offset", (0, 0, 0)), np.float64)
        unit = _attribute(item, "offset_units") or "m"
        step[:3, 3] += offset * scaled(1.0, unit, "length", str(item.name), self.origin)
        return step


class _NoChainError(Exception):
    """The chain of transformations cannot be followed."""


def _groups(parent: Any, kind: str, name: str) -> Iterator[Any]:
    """Yield groups of a NeXus class; where no group has a class, that of the usual name."""
    found = False
    for key in parent:
        item = parent.get(key)
        if item is not None and hasattr(item, "keys") and _attribute(item, "NX_class") == kind:
            found = True
            yield item
    if not found and name in parent and hasattr(parent[name], "keys"):
        yield parent[name]


def _numbers(item: Any) -> _Floats:
    """Return a dataset's numbers in a row; none where it holds something else."""
    if getattr(getattr(item, "dtype", None), "kind", "") not in "fiu" or item.shape is None:
        return np.zeros(0)
    return np.asarray(item[()], np.float64).ravel()


def _attribute(item: Any, name: str) -> str:
    value = item.attrs.get(name, "")
    if isinstance(value, np.ndarray):
        value = value.flat[0] if value.size else ""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _rotation(axis: _Floats, angle: float) -> _Floats:
    """Return the matrix of a rotation around an axis (Rodrigues)."""
    length = float(np.linalg.norm(axis))
    if not length:
        return np.eye(3)
    x, y, z = axis / length
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    made: _Floats = np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * (cross @ cross)
    return made


def _leans(axes: tuple[_Floats, _Floats, _Floats]) -> bool:
    _, fast, slow = axes
    return max(abs(float(fast[2])), abs(float(slow[2]))) > _UPRIGHT


def _leaning(
    axes: tuple[_Floats, _Floats, _Floats], facts: dict[str, float], reader: _Reader, detector: str, origin: str
) -> Geometry:
    """Make a geometry of the module's place in the laboratory (NeXus: z along the beam, y up)."""
    # pyFAI's axis 2 points against NeXus' x. Its axis 1 is taken along NeXus' y or against it: one of the two leaves
    # the image as it is, the other would mirror it.
    mirrors = [np.diag([1.0, 1.0, 1.0])[[1, 0, 2]] * np.array([[s], [-1.0], [1.0]]) for s in (1.0, -1.0)]
    corner, fast, slow = min(
        ([mirror @ each for each in axes] for mirror in mirrors),
        key=lambda seen: -float(np.cross(seen[2], seen[1])[2]),
    )
    normal = np.cross(slow, fast)
    turned = np.stack([slow, fast, normal], axis=1)
    rot1, rot2, rot3 = _angles(turned)
    height, width = facts["pixel_size_y"], facts["pixel_size_x"]
    rows, columns = (count_of(facts.get(f"image_size_{axis}")) for axis in "yx")
    wavelength = facts.get("incident_wavelength")
    made = Geometry(
        float(corner @ normal),
        float(-corner @ slow),
        float(-corner @ fast),
        rot1,
        rot2,
        rot3,
        wavelength=None if wavelength is None else wavelength / 1e10,
        energy=facts.get("incident_energy"),
        pixel_size=(height, width),
        shape=(rows, columns) if rows and columns else None,
        detector=detector,
        origin=origin,
        kind="NXmx file",
    )
    return made.changed(notes=(*reader.notes, *_agreement(made, facts)))


def _angles(turned: _Floats) -> tuple[float, float, float]:
    """Return pyFAI's rotations of the matrix that takes the detector's axes to the laboratory's."""
    # Rows of pyFAI's product of the rotations around axes 3, 2 and 1 (`Geometry.rotation_matrix`).
    rot2 = math.asin(max(-1.0, min(1.0, float(turned[2, 0]))))
    if math.cos(rot2) < 1e-9:
        return 0.0, rot2, math.atan2(-float(turned[0, 1]), float(turned[1, 1]))
    rot1 = math.atan2(-float(turned[2, 1]), float(turned[2, 2]))
    rot3 = math.atan2(float(turned[1, 0]), float(turned[0, 0]))
    return rot1, rot2, rot3


def _agreement(made: Geometry, facts: dict[str, float]) -> list[str]:
    """Say where the file's beam centre is not where its directions put it."""
    centre = made.beam_centre
    if centre is None or not {"beam_center_x", "beam_center_y"} <= set(facts):
        return ["the detector leans; its place was taken from the module's directions"]
    apart = math.hypot(centre[0] - facts["beam_center_x"], centre[1] - facts["beam_center_y"])
    notes = ["the detector leans; its place was taken from the module's directions"]
    if apart > _CLOSE:
        notes.append(
            f"beam_center says ({facts['beam_center_x']:.1f}, {facts['beam_center_y']:.1f}), "
            f"the module's directions ({centre[0]:.1f}, {centre[1]:.1f})"
        )
    return notes
