"""What is integrated and how, as a site file or a command line says it; pure, and quick to import.

`IntegrationSettings` has every option of `Integrator` that can be written down, and the way in which rings become
points; `make_integrator` turns them into one. The live node and ``sisockdaq integrate`` both go this way, so the same
settings give the same numbers. Files are named by text; whoever reads them says where they are (`resolve`).

Whatever is wrong is told at once: pydantic names all wrong values, `make_integrator` all files that are missing or do
not fit. Neither pyFAI nor a compiler is loaded before `make_integrator`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from sisockdaq.errors import ConfigurationError, SisockdaqError
from sisockdaq.integrate.geometry import Split, Unit
from sisockdaq.integrate.threads import MOST_THREADS

if TYPE_CHECKING:
    from sisockdaq.integrate.cache import MapCache
    from sisockdaq.integrate.integrator import Integrator

__all__ = [
    "FACTORS",
    "CakeSettings",
    "FactorSettings",
    "IntegrationSettings",
    "InvariantSettings",
    "Method",
    "SectorSettings",
    "file_place",
    "make_integrator",
]

Method = Literal["mean", "median", "sigma_clip"]
"""How the pixels of a bin become a point of the curve."""

Range = tuple[float, float]
Resolve = Callable[[str], Path | str]
"""Finds the file of a name, as relative to a site file."""

FACTORS = ("monitor", "transmission")
"""What intensities may be divided by, frame by frame."""

_MOST_BINS = 65534


class SectorSettings(BaseModel):
    """A part of the image with a curve of its own; what is not said is as in the whole image."""

    model_config = ConfigDict(extra="forbid")

    azimuth_range: Range | None = Field(
        None, description="Azimuth angles [deg]: 0 towards larger columns, 90 towards larger rows; from -180 to 180."
    )
    radial_range: Range | None = Field(None, description="Ends of its axis, in its unit.")
    mask: str | None = Field(None, description="Mask file; hides pixels beside those that are hidden anyway.")
    bins: int | None = Field(None, ge=1, le=_MOST_BINS, description="Points of its curve.")
    unit: Unit | None = Field(None, description="Radial axis of its curve.")
    background: str | None = Field(None, description="Background curve (.chi or .dat) of this sector.")

    @field_validator("azimuth_range")
    @classmethod
    def _some_angles(cls, ends: Range | None) -> Range | None:
        return _two_ends(ends)

    @field_validator("radial_range")
    @classmethod
    def _rising(cls, ends: Range | None) -> Range | None:
        return _rising_ends(ends)


class CakeSettings(BaseModel):
    """A cake of each frame: intensities over radial and azimuthal bins, within the ranges of the curve.

    Its bins are its own: with those of the curve it would be as large as many an image.
    """

    model_config = ConfigDict(extra="forbid")

    azimuth_bins: int = Field(360, ge=1, le=3600, description="Bins of the azimuth.")
    bins: int | None = Field(200, ge=1, le=_MOST_BINS, description="Radial bins; null for as many as the curve has.")


class InvariantSettings(BaseModel):
    """Numbers of the curve that need no model: moments, Guinier's radius, correlation length, Porod's invariant."""

    model_config = ConfigDict(extra="forbid")

    moments_range: Range | None = Field(
        None,
        description="Bins of the moments I0, I1 and I2, in the axis' unit. Default: all but the last.",
    )
    guinier_range: Range | None = Field(None, description="Where Guinier's line may lie. Default: anywhere.")
    guinier_limit: float | None = Field(
        1.3, gt=0, description="Largest q·Rg of Guinier's line; null for all of guinier_range."
    )
    guinier_points: int = Field(6, ge=3, description="Bins that Guinier's line has at least.")
    porod_share: float = Field(
        0.1, ge=0, lt=1, description="Share of the moments' bins, the last ones, from which Porod's constant is taken."
    )

    @field_validator("moments_range", "guinier_range")
    @classmethod
    def _rising(cls, ends: Range | None) -> Range | None:
        return _rising_ends(ends)


class FactorSettings(BaseModel):
    """A number of each frame that another node publishes, as the intensity of the beam."""

    model_config = ConfigDict(extra="forbid")

    field: str = Field(description="Its name, node::field; a number with a live feed.")
    match: Literal["nearest", "linear", "last"] = Field(
        "nearest",
        description="Which sample a frame gets: the nearest in time, what lies on the line between the two around it, "
        "or the last before it (for what is published when it changes).",
    )
    max_age: float | None = Field(
        1.0, gt=0, description="How far in time a sample may be from the frame [s]; null for any distance."
    )
    wait: float = Field(
        0.5,
        ge=0,
        le=2,
        description="How long a frame's curve waits at most for a sample as new as the frame [s]; it then takes what "
        "is there.",
    )

    @field_validator("field")
    @classmethod
    def _of_a_node(cls, name: str) -> str:
        node, separator, field = name.partition("::")
        if not (node and separator and field):
            raise ValueError(f'"{name}" is no field of a node: write it as node::field')
        return name


class IntegrationSettings(BaseModel):
    """What is integrated, and how."""

    model_config = ConfigDict(extra="forbid")

    geometry: str | dict[str, float] | None = Field(
        None,
        description="PONI file, or any other that `sisockdaq calibration import` reads; or distance, poni1, poni2, "
        "rot1, rot2, rot3 and wavelength. Default: the detector's.",
    )
    mask: str | None = Field(
        None,
        description="Mask (edf, npy, tif, h5 or Fit2D; HDF5 also as file.h5::dataset). Default: the detector's.",
    )
    bins: int = Field(1000, ge=1, le=_MOST_BINS, description="Points of a curve.")
    unit: Unit = Field("q_nm^-1", description="Radial axis: q in nm⁻¹ or Å⁻¹, 2θ in deg or rad, r in mm.")
    split: Split = Field(
        "no",
        description="Pixel splitting: no (each pixel counts to one bin; fastest), bbox (bounding boxes; smoother "
        "curves with few pixels a bin) or full (the pixels' true outlines).",
    )
    radial_range: Range | None = Field(
        None, description="Ends of the axis in its unit. Default: those of the pixels that are not masked."
    )
    azimuth_range: Range | None = Field(
        None,
        description="Azimuth angles [deg]: 0 towards larger columns, 90 towards larger rows; from -180 to 180. "
        "Default: the whole circle.",
    )
    method: Method = Field(
        "mean",
        description="How the pixels of a bin become a point: mean, median, or sigma_clip (the mean without what does "
        "not belong to its ring, as Bragg peaks).",
    )
    clip_threshold: float = Field(
        5.0, ge=0, description="Of sigma_clip: standard deviations from the mean that a pixel may have."
    )
    clip_iterations: int = Field(5, ge=0, le=100, description="Of sigma_clip: how often at most.")
    quantiles: float | Range = Field(
        0.5, description="Of median: the quantile, or two between which the mean is taken; from 0 to 1."
    )
    polarization: float | None = Field(
        None, ge=-1, le=1, description="Polarization factor, 1 for horizontal. Default: no correction."
    )
    polarization_angle: float = Field(
        0.0, allow_inf_nan=False, description="By how much horizontal is turned away from the detector's rows [deg]."
    )
    solid_angle: bool = Field(True, description="Whether intensities are corrected for the solid angle of pixels.")
    dark: str | None = Field(
        None, description="Dark image to subtract (edf, npy, tif, cbf, or h5 as file.h5::dataset)."
    )
    flat: str | None = Field(None, description="Flat field to divide by.")
    absorption: str | None = Field(None, description="Image of the absorption to divide by.")
    background: str | None = Field(
        None,
        description="Background to subtract: a curve (.chi or .dat) from the curve, or an image from each image.",
    )
    background_scale: float = Field(1.0, allow_inf_nan=False, description="Factor for the background.")
    monitor: float | FactorSettings | None = Field(
        None,
        description="What intensities are divided by: a field of another node as node::field (taken at each frame's "
        "time), or a number. A frame without it, or with one that is not above 0, gets no intensities.",
    )
    transmission: float | FactorSettings | None = Field(
        None, description="The sample's transmission, which intensities are divided by, too; as monitor."
    )
    error_model: Literal["poisson", "azimuthal"] | None = Field(
        "poisson",
        description="How errors are estimated: poisson, azimuthal (the spread within a bin), or null for none.",
    )
    dummy: float | None = Field(
        None, description="Pixels of this value are left out. Default: the value that the source fills gaps with."
    )
    delta_dummy: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="So are those that differ by no more than this from it."
    )
    rois: dict[str, tuple[int, int, int, int]] = Field(
        default_factory=dict,
        description="Regions to sum: {name: [x0, y0, x1, y1]}, upper ends not included; served as roi_<name>.",
    )
    sectors: dict[str, SectorSettings] = Field(
        default_factory=dict, description="Parts of the image with curves of their own: served as curve_<name>."
    )
    invariants: InvariantSettings | None = Field(
        None, description="Numbers of the curve that need no model; true for those of the default ranges."
    )
    cake: CakeSettings | None = Field(
        None, description="A cake of each frame beside its curve; true for the default bins."
    )
    threads: int = Field(
        1, ge=1, le=MOST_THREADS, description="Threads at work on a frame. The numbers do not depend on it."
    )

    @field_validator("split", mode="before")
    @classmethod
    def _yaml_no(cls, value: Any) -> Any:
        """Take YAML's unquoted ``no``, which is a boolean, as the word."""
        return "no" if value is False else value

    @field_validator("invariants", "cake", mode="before")
    @classmethod
    def _yes_or_no(cls, value: Any) -> Any:
        """Take true for the defaults, and false for none."""
        return {} if value is True else None if value is False else value

    @field_validator(*FACTORS, mode="before")
    @classmethod
    def _named_or_number(cls, value: Any) -> Any:
        """Take a text for the name of a field, unless it is a number."""
        if not isinstance(value, str):
            return value
        try:
            return float(value)
        except ValueError:
            return {"field": value}

    @field_validator(*FACTORS)
    @classmethod
    def _above_zero(cls, value: float | FactorSettings | None) -> float | FactorSettings | None:
        if isinstance(value, float) and not 0 < value < float("inf"):
            raise ValueError(f"is {value:g}, and must be a number above 0, or a field as node::field")
        return value

    @field_validator("azimuth_range")
    @classmethod
    def _some_angles(cls, ends: Range | None) -> Range | None:
        return _two_ends(ends)

    @field_validator("radial_range")
    @classmethod
    def _rising(cls, ends: Range | None) -> Range | None:
        return _rising_ends(ends)

    @field_validator("quantiles")
    @classmethod
    def _shares(cls, value: float | Range) -> float | Range:
        ends = value if isinstance(value, tuple) else (value, value)
        if not 0 <= ends[0] <= ends[1] <= 1:
            raise ValueError("quantiles go from 0 to 1, the lower one first")
        return value

    @field_validator("rois")
    @classmethod
    def _boxes(cls, rois: dict[str, tuple[int, int, int, int]]) -> dict[str, tuple[int, int, int, int]]:
        problems = list(_bad_names(rois, "a region"))
        for name, (x0, y0, x1, y1) in rois.items():
            if not (0 <= x0 < x1 and 0 <= y0 < y1):
                problems.append(f"region {name} is {[x0, y0, x1, y1]}, not [x0, y0, x1, y1] with x0 < x1 and y0 < y1")
        if problems:
            raise ValueError("; ".join(problems))
        return rois

    @field_validator("sectors")
    @classmethod
    def _named(cls, sectors: dict[str, SectorSettings]) -> dict[str, SectorSettings]:
        if problems := list(_bad_names(sectors, "a sector")):
            raise ValueError("; ".join(problems))
        return sectors

    @model_validator(mode="after")
    def _agree(self) -> Self:
        problems = []
        if self.delta_dummy is not None and self.dummy is None:
            problems.append("delta_dummy needs dummy")
        for name, given in (("sectors", self.sectors), ("cakes", self.cake)):
            if self.method != "mean" and given:
                problems.append(f"{name} are integrated by mean only, the method is {self.method}")
        if self.invariants is not None and not self.unit.startswith("q_"):
            problems.append(f"invariants are numbers of curves over q, the unit is {self.unit}")
        if self.method == "median" and self.error_model == "azimuthal":
            problems.append("errors of a median are poisson (or null for none), not azimuthal")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def factors(self) -> tuple[str, ...]:
        """Those of `FACTORS` that intensities are divided by."""
        return tuple(name for name in FACTORS if getattr(self, name) is not None)

    def present(self) -> dict[str, Any]:
        """Return what differs from the defaults, as plain values that a file can hold."""
        return self.model_dump(mode="json", include=set(IntegrationSettings.model_fields), exclude_defaults=True)


def file_place(name: str, resolve: Resolve) -> str:
    """Return where the file of a name is; the dataset after ``::`` is kept."""
    path, separator, dataset = name.partition("::")
    return f"{resolve(path)}{separator}{dataset}"


def make_integrator(
    settings: IntegrationSettings,
    *,
    resolve: Resolve = Path,
    shape: tuple[int, int] | None = None,
    pixel_size: float | tuple[float, float] | None = None,
    hidden: npt.NDArray[np.bool_] | None = None,
    cache: bool | Path | str | MapCache = False,
) -> Integrator:
    """Make the integrator that settings describe; it finds maxima, too.

    Parameters
    ----------
    settings : IntegrationSettings
        With a geometry.
    resolve : callable
        Finds a file by the name that the settings have for it.
    shape : (rows, columns), optional
        Of the images; needed where the geometry does not name it.
    pixel_size : float or (float, float), optional
        Edge of a pixel [m]; needed with a geometry of parameters.
    hidden : ndarray of bool, `shape`, optional
        Pixels that are not to be used whatever the mask says, as gaps between modules.
    cache : bool, path or MapCache
        Where maps are kept, as for `Integrator`.

    Raises
    ------
    GeometryError, MaskError, ConfigurationError
        For what is missing, unreadable or does not fit. For several mistakes a `ConfigurationError` with a line each in
        `ConfigurationError.problems`.
    """
    from sisockdaq.integrate.geometry import load_geometry
    from sisockdaq.integrate.integrator import Integrator

    if settings.geometry is None:
        raise ConfigurationError("there is no geometry", remedy="name a PONI file, or another calibration, as geometry")
    place, problems, geometry = settings.geometry, _Problems(), None
    with problems.noted():
        where = file_place(place, resolve) if isinstance(place, str) else place
        geometry = load_geometry(where, shape=shape, pixel_size=pixel_size)
    files = _read_files(settings, shape if geometry is None else geometry.get_shape(), resolve, problems)
    problems.tell()
    mask = files.pop("mask")
    if hidden is not None:
        mask = hidden if mask is None else mask | hidden
    return Integrator(
        geometry,
        mask=mask,
        bins=settings.bins,
        unit=settings.unit,
        split=settings.split,
        radial_range=settings.radial_range,
        azimuth_range=settings.azimuth_range,
        polarization=settings.polarization,
        polarization_angle=settings.polarization_angle,
        solid_angle=settings.solid_angle,
        background_scale=settings.background_scale,
        error_model=settings.error_model,
        dummy=settings.dummy,
        delta_dummy=settings.delta_dummy,
        rois=settings.rois,
        maximum=True,
        threads=settings.threads,
        cache=cache,
        **files,
    )


class _Problems:
    """Collects errors, so that all are told at once."""

    def __init__(self) -> None:
        self._errors: list[SisockdaqError] = []

    @contextmanager
    def noted(self, where: str = "") -> Iterator[None]:
        try:
            yield
        except SisockdaqError as error:
            self._errors.append(type(error)(f"{where}{error.message}", remedy=error.remedy) if where else error)

    def tell(self) -> None:
        """Raise what was collected: one error as it is, several as one of them all."""
        if len(self._errors) == 1:
            raise self._errors[0]
        if self._errors:
            lines = [str(error) for error in self._errors]
            raise ConfigurationError("\n".join(lines), problems=lines)


def _read_files(
    settings: IntegrationSettings, shape: tuple[int, int] | None, resolve: Resolve, problems: _Problems
) -> dict[str, Any]:
    """Read mask, images, backgrounds and sectors for images of that shape, where it is known."""
    from sisockdaq.integrate.background import is_curve_file, load_background
    from sisockdaq.integrate.corrections import load_image
    from sisockdaq.integrate.masks import load_mask

    found: dict[str, Any] = {"mask": None, "sectors": {}}
    if settings.mask is not None:
        with problems.noted():
            found["mask"] = load_mask(file_place(settings.mask, resolve), shape)
    for what in ("dark", "flat", "absorption"):
        if (name := getattr(settings, what)) is not None:
            with problems.noted():
                found[what] = load_image(file_place(name, resolve), shape, what)
    if settings.background is not None:
        with problems.noted():
            found["background"] = file_place(settings.background, resolve)
            if is_curve_file(found["background"]):
                load_background(found["background"])
            else:
                found["background"] = load_image(found["background"], shape, "background")
    if shape is not None:
        _check_boxes(settings.rois, shape, problems)
    for name, sector in settings.sectors.items():
        with problems.noted(f"sector {name}: "):
            found["sectors"][name] = _sector(sector, shape, resolve)
    return found


def _sector(settings: SectorSettings, shape: tuple[int, int] | None, resolve: Resolve) -> Any:
    from sisockdaq.integrate.background import load_background
    from sisockdaq.integrate.masks import load_mask
    from sisockdaq.integrate.sectors import Sector

    mask = None if settings.mask is None else load_mask(file_place(settings.mask, resolve), shape)
    background = None if settings.background is None else file_place(settings.background, resolve)
    if background is not None:
        load_background(background)
    return Sector(
        azimuth_range=settings.azimuth_range,
        radial_range=settings.radial_range,
        mask=mask,
        bins=settings.bins,
        unit=settings.unit,
        background=background,
    )


def _check_boxes(rois: Mapping[str, tuple[int, int, int, int]], shape: tuple[int, int], problems: _Problems) -> None:
    rows, columns = shape
    for name, (x0, y0, x1, y1) in rois.items():
        if x1 > columns or y1 > rows:
            with problems.noted():
                raise ConfigurationError(
                    f"region {name} is {[x0, y0, x1, y1]}, the image has {columns} columns and {rows} rows",
                    remedy="give [x0, y0, x1, y1] inside the image",
                )


def _bad_names(names: Mapping[str, Any], what: str) -> Iterator[str]:
    for name in names:
        if not name.isidentifier():
            yield f'"{name}" is no name for {what}: letters, digits and _, not first a digit'


def _rising_ends(ends: Range | None) -> Range | None:
    if ends is not None and not -float("inf") < ends[0] < ends[1] < float("inf"):
        raise ValueError(f"the range from {ends[0]:g} to {ends[1]:g} is empty: the lower end comes first")
    return ends


def _two_ends(ends: Range | None) -> Range | None:
    if ends is not None and not (np.isfinite(ends).all() and ends[0] != ends[1]):
        raise ValueError(f"the range from {ends[0]:g} to {ends[1]:g} is empty")
    return ends
