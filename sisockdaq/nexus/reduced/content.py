"""What is to stand in a file of integrated frames: axes, products, and how they came about. Pure.

A *product* is what one frame becomes in one way: a curve, or a cake. A *reduction* says what was integrated, by which
calibration and with which corrections; it holds for all frames of a file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sisockdaq.errors import ConfigurationError

__all__ = [
    "HC_KEV_ANGSTROM",
    "QUANTITIES",
    "Axis",
    "Floats",
    "Product",
    "Quantity",
    "Reduction",
    "axis_of",
    "bin_edges",
    "iso_now",
    "to_q",
]

Floats = npt.NDArray[np.float64]
Quantity = Literal["q", "2theta", "r"]

QUANTITIES: dict[Quantity, tuple[str, ...]] = {"q": ("1/nm", "1/angstrom"), "2theta": ("deg", "rad"), "r": ("mm",)}
"""What a radial axis may be, and in which units it is written."""

_UNITS: dict[str, tuple[Quantity, str]] = {
    "q_nm^-1": ("q", "1/nm"),
    "q_A^-1": ("q", "1/angstrom"),
    "2th_deg": ("2theta", "deg"),
    "2th_rad": ("2theta", "rad"),
    "r_mm": ("r", "mm"),
}

HC_KEV_ANGSTROM = 12.398419843320026
"""Planck's constant times the speed of light [keV Å]; exact in the SI of 2019."""

_PYFAI = "Ashiotis et al., J. Appl. Cryst. 48, 510-519 (2015), doi:10.1107/S1600576715004306"


@dataclass(frozen=True)
class Axis:
    """The bins of a curve or of a cake.

    Attributes
    ----------
    quantity : str
        ``q``, ``2theta`` or ``r``; for a second axis ``azimuth``.
    unit : str
    values : ndarray of float64, (n,)
        Bin centres.
    edges : ndarray of float64, (n + 1,), optional
    """

    quantity: str
    unit: str
    values: Floats
    edges: Floats | None = None

    def __post_init__(self) -> None:
        if self.values.ndim != 1 or not self.values.size:
            raise ConfigurationError(f"an axis of shape {self.values.shape} is no list of bins")
        if self.edges is not None and self.edges.shape != (self.values.size + 1,):
            raise ConfigurationError(
                f"{self.values.size} bins have {self.values.size + 1} edges, not {self.edges.shape}"
            )

    def __len__(self) -> int:
        return int(self.values.size)

    @property
    def name(self) -> str:
        """Quantity and unit in one word, as `axis_of` takes it."""
        known = [name for name, each in _UNITS.items() if each == (self.quantity, self.unit)]
        return known[0] if known else f"{self.quantity}_{self.unit}"


def axis_of(unit: str, values: npt.ArrayLike, edges: npt.ArrayLike | None = None) -> Axis:
    """Make a radial axis.

    Parameters
    ----------
    unit : str
        As pyFAI and this project's integrator name it: ``q_nm^-1``, ``q_A^-1``, ``2th_deg``, ``2th_rad`` or ``r_mm``.
    values : array_like, (n,)
        Bin centres.
    edges : array_like, (n + 1,), optional

    Raises
    ------
    ConfigurationError
        For another unit, or edges that do not fit.
    """
    if unit not in _UNITS:
        raise ConfigurationError(f'"{unit}" is not a unit of the radial axis', remedy=f"one of {', '.join(_UNITS)}")
    quantity, written = _UNITS[unit]
    ends = None if edges is None else np.asarray(edges, dtype=np.float64)
    return Axis(quantity, written, np.asarray(values, dtype=np.float64), ends)


def bin_edges(values: Floats) -> Floats | None:
    """Return the edges of bins of equal width from their centres; None where they are not equal, or only one."""
    if values.size < 2:
        return None
    steps = np.diff(values)
    step = float(values[-1] - values[0]) / (values.size - 1)
    if not step or np.any(np.abs(steps - step) > 1e-6 * abs(step)):
        return None
    edges: Floats = values[0] + step * (np.arange(values.size + 1) - 0.5)
    return edges


def to_q(axis: Axis, wavelength: float | None) -> Axis:
    """Return a radial axis as q [1/nm, or as it was]: ``q = 4π/λ · sin(2θ/2)``.

    Parameters
    ----------
    axis : Axis
    wavelength : float or None
        [m]

    Raises
    ------
    ConfigurationError
        Without a wavelength for an angle, or for an axis in mm.
    """
    if axis.quantity == "q":
        return axis
    if axis.quantity != "2theta":
        raise ConfigurationError(f"{axis.quantity} is no scattering vector", remedy="integrate along q or 2theta")
    if not wavelength or not math.isfinite(wavelength):
        raise ConfigurationError("2theta becomes q only with a wavelength", remedy="give it in the geometry")
    scale = math.pi / 180 if axis.unit == "deg" else 1.0

    def q(angles: Floats) -> Floats:
        found: Floats = 4 * math.pi / (wavelength * 1e9) * np.sin(angles * scale / 2)
        return found

    return Axis("q", "1/nm", q(axis.values), None if axis.edges is None else q(axis.edges))


@dataclass(frozen=True)
class Product:
    """What each frame becomes: a curve over `radial`, or with `azimuth` a cake over both.

    Attributes
    ----------
    name : str
        Of its group in the file, where there are several.
    radial : Axis
    azimuth : Axis, optional
        In ``deg`` or ``rad``; the first dimension of a cake.
    errors : bool
        Whether each frame has standard errors.
    norm : ndarray of float64, of the product's shape, optional
        What the pixels weigh in each bin (0: no pixel).
    dtype : str
        Of the intensities and errors in the file.
    """

    name: str
    radial: Axis
    azimuth: Axis | None = None
    errors: bool = False
    norm: Floats | None = None
    dtype: str = "<f8"

    def __post_init__(self) -> None:
        if not self.name or "/" in self.name or self.name.startswith("."):
            raise ConfigurationError(f'"{self.name}" is no name of a group in a file', remedy="letters, digits and _")
        if self.norm is not None and self.norm.shape != self.shape:
            raise ConfigurationError(f"{self.name} has bins {self.shape}, its normalization {self.norm.shape}")
        if np.dtype(self.dtype).kind != "f":
            raise ConfigurationError(f'intensities are floats, not "{self.dtype}"', remedy="<f4 or <f8")

    @property
    def definition(self) -> str:
        """The application definition that it is written by."""
        return "NXazint1d" if self.azimuth is None else "NXazint2d"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one frame's intensities."""
        return (len(self.radial),) if self.azimuth is None else (len(self.azimuth), len(self.radial))


@dataclass(frozen=True)
class Reduction:
    """What was integrated, how, and by whom: the same for all frames of a file.

    Attributes
    ----------
    acquisition : str
        Name of the frames' acquisition.
    title : str
        Shown over plots; by default the acquisition.
    files : tuple of str
        Files that the frames were read from; empty for live frames.
    instrument, laboratory : str
    source_type, probe : str
        Words of NXsource.
    sample : str
    wavelength : float or None
        [m]; a file without one lacks what its definition requires.
    poni : str or mapping
        The geometry's parameters as they were given: text of a PONI file, or names and values.
    mask : ndarray or None
        Other than 0: not used.
    polarization : float or None
        Factor; None where it was not corrected for.
    solid_angle, normalization, monitor : bool
        Whether curves are corrected for the solid angle, divided by what the pixels weigh, divided by the monitor.
    transmission : float or None
        The sample's, where it is the same for all frames.
    parameters : mapping
        All else: error model, splitting, dark, flat, dummy … (numbers, texts, arrays; None means left out).
    program, program_version, date, reference, note : str
        By default this program, its version, and now.
    """

    acquisition: str
    title: str = ""
    files: tuple[str, ...] = ()
    instrument: str = "unknown"
    laboratory: str = "unknown"
    source_type: str = "Synchrotron X-ray Source"
    probe: str = "x-ray"
    sample: str = ""
    wavelength: float | None = None
    poni: str | Mapping[str, Any] = ""
    mask: npt.NDArray[Any] | None = None
    polarization: float | None = None
    solid_angle: bool = True
    normalization: bool = True
    monitor: bool = False
    transmission: float | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    program: str = "sisockdaq"
    program_version: str = ""
    date: str = ""
    reference: str = f"pixels: pyFAI, {_PYFAI}; sums: sisockdaq.integrate"
    note: str = "Azimuth as pyFAI counts it (chi): 0 along the second axis of the image, towards its first axis."

    @cached_property
    def poni_text(self) -> str:
        """The geometry as text of a PONI file."""
        if isinstance(self.poni, str):
            return self.poni
        return "".join(f"{name}: {value}\n" for name, value in self.poni.items())

    @property
    def wavelength_angstrom(self) -> float:
        """[Å]; NaN where it is not known."""
        return math.nan if not self.wavelength else self.wavelength * 1e10

    @property
    def made_by(self) -> str:
        """Version of the program."""
        if self.program_version or self.program != "sisockdaq":
            return self.program_version
        try:
            return version("sisockdaq")
        except PackageNotFoundError:  # run from a folder that was never installed
            return "0"


def iso_now() -> str:
    """Return the time of now in ISO 8601, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
