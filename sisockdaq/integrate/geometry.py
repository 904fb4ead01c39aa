"""Where each pixel lies in scattering space: pyFAI decides, this module asks it for a few rows at a time.

Promises
--------
- The numbers are pyFAI's own, to the last bit: the same functions are called in the same precision, on bands of rows
  instead of the whole image. A 9-megapixel detector then needs some 200 MB instead of 1.5 GB, and stays in the caches.
- A geometry that cannot be right (a missing file, no distance, a value that is not a number, another image shape)
  raises `GeometryError` that names the value and the file.

Detectors without a regular grid of pixels (hexagonal, distorted by a spline, with gaps in their pixel positions) and
geometries with parallax go through pyFAI's whole-image functions.

pyFAI and the compiler are imported inside the functions: that takes a second or two, which a process that only wants
to know the units, or has other things to do first, should not spend.
"""

from __future__ import annotations

import copy
import io
import logging
import math
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from sisockdaq.errors import GeometryError
from sisockdaq.integrate._given import number
from sisockdaq.integrate._pyfai import import_lightly

if TYPE_CHECKING:
    from pyFAI.integrator.azimuthal import AzimuthalIntegrator

__all__ = [
    "UNITS",
    "Pixels",
    "Polarization",
    "RadialUnit",
    "Split",
    "Unit",
    "geometry_parameters",
    "is_regular",
    "load_geometry",
    "locate_pixels",
    "polarized",
    "poni_text",
    "radial_unit",
]

Split = Literal["no", "bbox", "full"]
"""How a pixel is shared by bins: not at all, as its bounding box, or as the quadrangle that it is."""

Unit = Literal["q_nm^-1", "q_A^-1", "2th_deg", "2th_rad", "r_mm"]
UNITS: tuple[str, ...] = get_args(Unit)

Polarization = float | tuple[float, float]
"""Polarization factor; or this, and by how much its plane is turned away from the detector's rows [rad]."""

_PIXELS_PER_BAND = 1 << 18
"""Pixels handled at once: the temporaries of one band (about a dozen float64 values a pixel) fit the L3 cache."""

_PARAMETERS = ("distance", "poni1", "poni2", "rot1", "rot2", "rot3", "wavelength")
_LARGEST_ANGLE = 2 * math.pi

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RadialUnit:
    """One of `UNITS`: its axis' short name, the unit as text, and the factor from pyFAI's internal values."""

    name: str
    quantity: str
    unit: str
    scale: float


@dataclass(frozen=True, slots=True)
class Pixels:
    """Each pixel's place and weight; flat arrays in image order.

    Attributes
    ----------
    shape : tuple of int
        Rows, columns.
    centre : ndarray of float64, (n,)
        Radial position of the pixel's centre, in pyFAI's internal unit (`RadialUnit.scale` makes it the wanted one).
    half_width : ndarray of float64, (n,) or None
        Largest radial distance from the centre to a corner; only for bounding boxes.
    normalization : ndarray of float32, (n,)
        Solid angle × polarization (1 where neither is asked for).
    corners : ndarray of float32, (rows + 1, columns + 1, 2) or (rows, columns, 4, 2), or None
        Radial position and azimuth [rad] of the corners, for full splitting: of the grid that neighbours share, or
        pixel by pixel in the order (top left, bottom left, bottom right, top right).
    azimuth : ndarray of float64, (n,) or None
        Azimuth of the pixel's centre [rad], where asked for.
    azimuth_half_width : ndarray of float64, (n,) or None
        Largest difference of azimuth from the centre to a corner [rad], where asked for; only for bounding boxes.
    orientation : int
        pyFAI's number for the way in which the image is mirrored, 1 to 4.
    """

    shape: tuple[int, int]
    centre: npt.NDArray[np.float64]
    half_width: npt.NDArray[np.float64] | None
    normalization: npt.NDArray[np.float32]
    corners: npt.NDArray[np.float32] | None = None
    azimuth: npt.NDArray[np.float64] | None = None
    azimuth_half_width: npt.NDArray[np.float64] | None = None
    orientation: int = 3

    @property
    def split(self) -> Split:
        """The splitting that these pixels were located for."""
        if self.corners is not None:
            return "full"
        return "no" if self.half_width is None else "bbox"


def radial_unit(name: str) -> RadialUnit:
    """Describe a unit of the radial axis; raise `GeometryError` for one that is not in `UNITS`."""
    if name not in UNITS:
        raise GeometryError(f'"{name}" is not a unit of the radial axis', remedy=f"one of {', '.join(UNITS)}")
    from pyFAI.units import to_unit

    quantity, unit = {
        "q_nm^-1": ("q", "nm^-1"),
        "q_A^-1": ("q", "Å^-1"),
        "2th_deg": ("2theta", "deg"),
        "2th_rad": ("2theta", "rad"),
        "r_mm": ("r", "mm"),
    }[name]
    return RadialUnit(name, quantity, unit, float(to_unit(name).scale))


def load_geometry(
    source: Path | str | Mapping[str, Any] | AzimuthalIntegrator,
    *,
    shape: tuple[int, int] | None = None,
    pixel_size: float | tuple[float, float] | None = None,
) -> AzimuthalIntegrator:
    """Make pyFAI's object from a file, from parameters, or from another such object (which is copied).

    Parameters
    ----------
    source : path, mapping or AzimuthalIntegrator
        A file is a PONI or any other that `sisockdaq.calibration.read_geometry` reads. A mapping has ``distance`` [m],
        ``poni1``, ``poni2`` [m], ``rot1``, ``rot2``, ``rot3`` [rad] and ``wavelength`` [m] (all but the distance
        default to 0 or, the wavelength, to none).
    shape : tuple of int, optional
        Rows and columns of the images; must agree with the file's detector, if that has a shape.
    pixel_size : float or (float, float), optional
        Edge of a pixel [m], or its extent along rows' and columns' axis; needed with a mapping, and with a file that
        does not say it.

    Raises
    ------
    GeometryError
        For anything missing, unreadable, impossible or of another shape.
    """
    import_lightly()
    if isinstance(source, Mapping):
        integrator, origin = _from_parameters(source, pixel_size), "the geometry"
    elif isinstance(source, str | Path):
        integrator, origin = _from_file(Path(source), pixel_size), str(source)
    elif hasattr(source, "detector"):
        integrator, origin = copy.copy(source), "the geometry"
    else:
        raise GeometryError(
            f"the geometry is {source!r}",
            remedy="give a PONI file, a mapping with distance, poni1, … or pyFAI's AzimuthalIntegrator",
        )
    _check_values(integrator, origin)
    _check_shape(integrator, origin, shape)
    return integrator


def polarized(factor: float | None, angle: float = 0.0) -> tuple[float, float] | None:
    """Return a polarization factor and the angle [deg] of its plane as `locate_pixels` takes them; None for none."""
    turned = number("polarization_angle", angle)
    if not math.isfinite(turned):
        raise GeometryError(f"polarization_angle is {turned:g}", remedy="a finite number of degrees")
    if factor is None:
        return None
    if not -1 <= number("polarization", factor) <= 1:
        raise GeometryError(f"polarization is {factor:g}", remedy="a factor from -1 (vertical) to 1 (horizontal)")
    return float(factor), math.radians(turned)


def geometry_parameters(pyfai: AzimuthalIntegrator) -> dict[str, float]:
    """Return the parameters of pyFAI's object, as `load_geometry` takes them; the wavelength where it is known."""
    places = {"distance": pyfai.dist, **{name: getattr(pyfai, name) for name in _PARAMETERS[1:]}}
    return {name: float(value) for name, value in places.items() if value is not None}


def poni_text(integrator: AzimuthalIntegrator) -> str:
    """Return a geometry as text of a PONI file, without the date on which it is asked for."""
    from pyFAI.io.ponifile import PoniFile

    text = io.StringIO()
    PoniFile(integrator).write(text)
    return "".join(line for line in text.getvalue().splitlines(keepends=True) if not line.startswith("#"))


def _from_parameters(
    parameters: Mapping[str, Any], pixel_size: float | tuple[float, float] | None
) -> AzimuthalIntegrator:
    from pyFAI.detectors import Detector
    from pyFAI.integrator.azimuthal import AzimuthalIntegrator

    if unknown := sorted(set(parameters) - set(_PARAMETERS)):
        raise GeometryError(
            f"the geometry has no parameter {', '.join(map(repr, unknown))}", remedy=f"one of {', '.join(_PARAMETERS)}"
        )
    if parameters.get("distance") is None:
        raise GeometryError("the geometry has no distance", remedy="give the sample-detector distance [m]")
    if pixel_size is None:
        raise GeometryError("the geometry has no pixel size", remedy="give pixel_size [m]")
    rows, columns = _edges(pixel_size)
    values: dict[str, float | None] = {}
    for name in _PARAMETERS:
        value = parameters.get(name)
        try:
            values[name] = float(value) if value is not None else (None if name == "wavelength" else 0.0)
        except (TypeError, ValueError):
            raise GeometryError(f"the geometry's {name} is {value!r}, not a number") from None
    distance = values.pop("distance")
    return AzimuthalIntegrator(dist=distance, detector=Detector(rows, columns), **values)


def _edges(pixel_size: Any) -> tuple[float, float]:
    """Return a pixel's extent along rows' and columns' axis."""
    try:
        rows, columns = (pixel_size, pixel_size) if np.ndim(pixel_size) == 0 else pixel_size
        edges = float(rows), float(columns)
    except (TypeError, ValueError):
        raise GeometryError(f"pixel_size is {pixel_size!r}", remedy="give one or two lengths [m]") from None
    if 0 in edges:
        raise GeometryError("the geometry: pixel size is 0, and must be greater than 0")
    return edges


def _from_file(path: Path, pixel_size: float | tuple[float, float] | None) -> AzimuthalIntegrator:
    """Read a PONI, or a calibration of another kind; what that says goes before a pixel size that is given."""
    from sisockdaq.calibration.readers import is_other_kind, read_with_pixels

    if not is_other_kind(path):
        return _from_poni(path)
    found = read_with_pixels(path, pixel_size)
    for note in found.notes:
        _log.info("%s (%s): %s", path, found.kind, note)
    return found.assembled()


def _from_poni(path: Path) -> AzimuthalIntegrator:
    from pyFAI.integrator.azimuthal import AzimuthalIntegrator
    from pyFAI.io.ponifile import PoniFile

    try:
        poni = PoniFile(path)
    except FileNotFoundError:
        raise GeometryError(f"{path}: no such file", remedy="give its path relative to the site file") from None
    except OSError as error:
        raise GeometryError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, RuntimeError, AttributeError, TypeError) as error:
        raise GeometryError(
            f"{path}: is not a PONI file: {error}", remedy="make one with pyFAI-calib2, or sisockdaq calibration import"
        ) from None
    read = {"Distance": poni.dist, "Poni1": poni.poni1, "Poni2": poni.poni2}
    missing = [name for name, value in read.items() if value is None]
    if missing:
        raise GeometryError(f"{path}: has no {', '.join(missing)}", remedy="is it a PONI file of pyFAI?")
    integrator = AzimuthalIntegrator()
    integrator._init_from_poni(poni)
    return integrator


def _check_values(integrator: AzimuthalIntegrator, origin: str) -> None:
    """Refuse what no detector can have; pyFAI itself would go on to curves of NaN."""
    named = {
        "distance": integrator.dist,
        "poni1": integrator.poni1,
        "poni2": integrator.poni2,
        "rot1": integrator.rot1,
        "rot2": integrator.rot2,
        "rot3": integrator.rot3,
        "wavelength": integrator.wavelength,
        "pixel size": integrator.detector.pixel1,
        "pixel size along a row": integrator.detector.pixel2,
    }
    for name, value in named.items():
        if value is None and name == "wavelength":
            continue
        if value is None or not math.isfinite(value):
            raise GeometryError(f"{origin}: {name} is {value}, not a finite number")
        if value <= 0 and name in ("distance", "wavelength", "pixel size", "pixel size along a row"):
            raise GeometryError(f"{origin}: {name} is {value:g}, and must be greater than 0")
        if name.startswith("rot") and abs(value) > _LARGEST_ANGLE:
            raise GeometryError(f"{origin}: {name} is {value:g} rad", remedy="angles are in radians, not degrees")


def _check_shape(integrator: AzimuthalIntegrator, origin: str, shape: tuple[int, int] | None) -> None:
    detector = integrator.detector
    known = detector.shape if detector.shape is not None else detector.max_shape
    if shape is None:
        if known is None:
            raise GeometryError(f"{origin}: names no image shape", remedy="give shape=(rows, columns)")
        return
    try:
        rows, columns = (operator.index(edge) for edge in shape)
    except (TypeError, ValueError):
        rows = columns = 0
    if rows < 1 or columns < 1:
        raise GeometryError(f"shape is {shape!r}", remedy="give (rows, columns), whole numbers above 0")
    if known is None:
        detector.shape = detector.max_shape = (rows, columns)
    elif tuple(known) != (rows, columns):
        raise GeometryError(
            f"{origin}: is for images of {known[0]} × {known[1]} pixels (rows × columns), not {rows} × {columns}",
            remedy="use the PONI of this detector, or correct the detector's section of the site file",
        )


def locate_pixels(
    integrator: AzimuthalIntegrator,
    unit: str,
    *,
    split: Split,
    solid_angle: bool = True,
    polarization: Polarization | None = None,
    azimuth: bool = False,
) -> Pixels:
    """Compute every pixel's radial position and normalization, and what `split` needs beside.

    The normalization is pyFAI's: ``cos(incidence)³`` for the solid angle, and for a polarization factor ``f`` (1:
    horizontal) ``½ (1 + cos² 2θ − f cos 2(χ + α) sin² 2θ)``, α the angle of its plane.

    Parameters
    ----------
    azimuth : bool
        Whether the azimuth is wanted, as a range of it needs. Its discontinuity is where `integrator` has it.
    """
    if unit.startswith("q_") and integrator.wavelength is None:
        raise GeometryError(f"the geometry has no wavelength, which {unit} needs", remedy="add it to the PONI [m]")
    locate = _locate_in_bands if is_regular(integrator) else _locate_whole
    plane = polarization if isinstance(polarization, tuple) else polarized(polarization)
    return locate(integrator, unit, split, solid_angle, plane, azimuth)


def _locate_whole(
    integrator: AzimuthalIntegrator,
    unit: str,
    split: Split,
    solid_angle: bool,
    polarization: tuple[float, float] | None,
    azimuth: bool,
) -> Pixels:
    shape = _shape(integrator)
    normalization = np.ones(shape, np.float32)
    if solid_angle:
        normalization *= integrator.solidAngleArray(shape)
    if polarization is not None:
        normalization *= integrator.polarization(shape, *polarization)

    def flat(function: Callable[..., Any], of: str) -> npt.NDArray[np.float64]:
        return np.asarray(function(shape, of, scale=False), np.float64).ravel()

    pixels = Pixels(
        shape,
        flat(integrator.center_array, unit),
        flat(integrator.delta_array, unit) if split == "bbox" else None,
        normalization.ravel(),
        _separate_corners(integrator, shape, unit) if split == "full" else None,
        flat(integrator.center_array, "chi_rad") if azimuth else None,
        flat(integrator.delta_array, "chi_rad") if azimuth and split == "bbox" else None,
        int(integrator.detector.orientation),
    )
    integrator.reset()
    return pixels


def _separate_corners(integrator: AzimuthalIntegrator, shape: tuple[int, int], unit: str) -> npt.NDArray[np.float32]:
    corners = np.ascontiguousarray(integrator.corner_array(shape, unit, scale=False), np.float32)
    if corners.shape[2] != 4:
        raise GeometryError(
            f"the detector's pixels have {corners.shape[2]} corners, and full splitting needs four",
            remedy="split: bbox",
        )
    return corners


def _locate_in_bands(
    integrator: AzimuthalIntegrator,
    unit: str,
    split: Split,
    solid_angle: bool,
    polarization: tuple[float, float] | None,
    azimuth: bool,
) -> Pixels:
    from sisockdaq.integrate import _build

    rows, columns = shape = _shape(integrator)
    centre = np.empty(shape)
    half_width = np.empty(shape) if split == "bbox" else None
    corners = np.empty((rows + 1, columns + 1, 2), np.float32) if split == "full" else None
    chi = np.empty(shape) if azimuth else None
    chi_width = np.empty(shape) if azimuth and split == "bbox" else None
    normalization = np.ones(shape, np.float32)
    for first, last in _bands(rows, columns):
        band = slice(first, last)
        z, y, x = _positions(integrator, first, last, columns)
        centre[band] = _radial(integrator, unit, x, y, z)
        if chi is not None:
            chi[band] = _azimuth(integrator, x, y, z)
        if split != "no":
            found = _corners(integrator, unit, first, last, columns)
            if corners is not None:
                corners[first : last + 1] = found
            if half_width is not None:
                _build.half_widths(centre[band], np.ascontiguousarray(found[..., 0]), half_width[band])
            if chi_width is not None and chi is not None:
                _build.azimuth_half_widths(chi[band], np.ascontiguousarray(found[..., 1]), chi_width[band])
        if solid_angle:
            normalization[band] = _solid_angle(integrator, first, last, columns)
        if polarization is not None:
            normalization[band] *= _polarization(*polarization, x, y, z)
    return Pixels(
        shape,
        centre.ravel(),
        half_width.ravel() if half_width is not None else None,
        normalization.ravel(),
        corners,
        chi.ravel() if chi is not None else None,
        chi_width.ravel() if chi_width is not None else None,
        int(integrator.detector.orientation),
    )


def _shape(integrator: AzimuthalIntegrator) -> tuple[int, int]:
    rows, columns = integrator.get_shape()
    return int(rows), int(columns)


def _bands(rows: int, columns: int) -> Iterator[tuple[int, int]]:
    height = max(1, _PIXELS_PER_BAND // columns)
    for first in range(0, rows, height):
        yield first, min(rows, first + height)


def is_regular(integrator: AzimuthalIntegrator) -> bool:
    """Whether corners of neighbouring pixels coincide on a flat grid, so that bands of rows can stand alone."""
    detector = integrator.detector
    return bool(
        detector.IS_FLAT
        and detector.IS_CONTIGUOUS
        and detector.uniform_pixel
        and detector.spline is None
        and integrator.parallax is None
    )


def _grid(first: int, last: int, columns: int, dtype: npt.DTypeLike) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    rows = np.arange(first, last, dtype=dtype)
    line = np.arange(columns, dtype=dtype)
    shape = (last - first, columns)
    return (
        np.ascontiguousarray(np.broadcast_to(rows[:, None], shape)),
        np.ascontiguousarray(np.broadcast_to(line, shape)),
    )


def _positions(integrator: AzimuthalIntegrator, first: int, last: int, columns: int) -> Any:
    """Return ``(z, y, x)`` of the pixel centres [m], z along the beam; as pyFAI's ``position_array``."""
    down, along = _grid(first, last, columns, np.float64)
    return integrator.calc_pos_zyx(d0=None, d1=down, d2=along, corners=False, use_cython=True, do_parallax=True)


def _radial(integrator: AzimuthalIntegrator, unit: str, x: Any, y: Any, z: Any) -> npt.NDArray[np.float64]:
    from pyFAI.units import to_unit

    return np.asarray(to_unit(unit).equation(x, y, z, integrator.wavelength), np.float64)


def _azimuth(integrator: AzimuthalIntegrator, x: Any, y: Any, z: Any) -> npt.NDArray[np.float64]:
    chi = _radial(integrator, "chi_rad", x, y, z)
    return chi if integrator.chiDiscAtPi else np.mod(chi, 2 * math.pi)


def _corners(
    integrator: AzimuthalIntegrator, unit: str, first: int, last: int, columns: int
) -> npt.NDArray[np.float32]:
    """Return radial position and azimuth of the grid's corners in pyFAI's float32.

    The shape is ``(last - first + 1, columns + 1, 2)``.
    """
    from pyFAI.ext import _geometry
    from pyFAI.units import to_unit

    down, along = _grid(first, last + 1, columns + 1, np.float64)
    p1, p2, p3 = integrator.detector.calc_cartesian_positions(down, along, center=False, use_cython=True)
    both = _geometry.calc_rad_azim(
        integrator.dist,
        integrator.poni1,
        integrator.poni2,
        integrator.rot1,
        integrator.rot2,
        integrator.rot3,
        p1,
        p2,
        p3,
        to_unit(unit).space,
        integrator.wavelength,
        orientation=integrator.detector.orientation,
        chi_discontinuity_at_pi=integrator.chiDiscAtPi,
    )
    return np.ascontiguousarray(both, np.float32)


def _solid_angle(integrator: AzimuthalIntegrator, first: int, last: int, columns: int) -> npt.NDArray[Any]:
    down, along = _grid(first, last, columns, np.float32)
    return np.asarray(integrator.cos_incidence(down, along) ** 3)


def _polarization(factor: float, angle: float, x: Any, y: Any, z: Any) -> npt.NDArray[np.float64]:
    across = x * x + y * y
    cos2 = z * z / (across + z * z)
    with np.errstate(invalid="ignore"):
        along = np.where(across > 0, (x * x - y * y) / across, 1.0)  # cos 2χ
        if angle != 0.0:
            aside = np.where(across > 0, 2 * x * y / across, 0.0)  # sin 2χ
            along = along * math.cos(2 * angle) - aside * math.sin(2 * angle)
    return np.asarray(0.5 * (1.0 + cos2 - factor * along * (1.0 - cos2)))
