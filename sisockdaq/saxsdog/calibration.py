"""The calibration of a SAXSdog network: its JSON read, checked and kept as it was sent.

The keys are SAXSdog's, its spelling included ("Dedector"). What makes a reduction impossible is refused with the key
and the reason; what is only odd is told by `Calibration.warnings`. Keys that are not known are kept and told of, since
clients put keys of their own into the file. `Calibration.raw` is the JSON as it came, key order included: it is the
first line of each ``.chi`` and what clients get back.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from sisockdaq.errors import ConfigurationError

__all__ = ["Calibration", "Geometry", "MaskEntry", "Polarization", "SliceEntry", "Tilt", "read_calibration"]

_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Pixels = Annotated[int, Field(gt=0, le=65535)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True, populate_by_name=False)


class Tilt(_Part):
    """How the sensor leans."""

    rotation: _Finite = Field(0.0, alias="TiltRotDeg", description="Direction of the tilt [deg].")
    angle: _Finite = Field(
        0.0, alias="TiltAngleDeg", gt=-90, lt=90, description="Between the beam and the sensor's normal [deg]."
    )


class Geometry(_Part):
    """Where the sensor stands."""

    tilt: Tilt = Field(
        default_factory=lambda: Tilt.model_validate({}), alias="Tilt", description="How the sensor leans."
    )
    beam_center: tuple[_Finite, _Finite] = Field(
        alias="BeamCenter", description="[y, x] in pixels; y counts from the bottom of the image."
    )
    distance: _Positive = Field(alias="DedectorDistanceMM", description="From the sample to the sensor [mm].")
    pixel_size: list[_Positive] = Field(
        alias="PixelSizeMicroM", min_length=1, max_length=2, description="One or two numbers [µm]."
    )
    image_size: tuple[_Pixels, _Pixels] = Field(alias="Imagesize", description="[y, x]: rows and columns.")


class MaskEntry(_Part):
    """One radial (or azimuthal) curve: its mask and its bins."""

    mask_file: str = Field("", alias="MaskFile", description="Path of the mask; its suffix tells the format.")
    oversampling: int = Field(3, alias="Oversampling", ge=1, le=16, description="Each pixel is split n × n.")
    pixels_per_bin: _Positive = Field(
        1.0, alias="PixelPerRadialElement", description="Width of a bin [pixels at the rim]."
    )
    name: str = Field("", alias="Name", description="Shown to people.")
    phi_mode: bool = Field(
        False, alias="Phi-mode", description="Intensity against the azimuth, between qStart and qStop."
    )
    q_start: _Finite = Field(0.0, alias="qStart", description="Where the integral parameters begin [nm⁻¹].")
    q_stop: _Finite = Field(0.0, alias="qStop", description="Where they end [nm⁻¹].")


class SliceEntry(_Part):
    """One straight cut through a GISAXS image."""

    direction: Literal["x", "y"] = Field("x", alias="Direction", description="Along which axis of the sensor.")
    plane: Literal["InPlane", "Vertical"] = Field(
        "InPlane", alias="Plane", description="Whether that axis lies in the sample's plane."
    )
    position: int = Field(0, alias="CutPosition", description="Where it cuts the other axis [pixels from 1].")
    margin: int = Field(1, alias="CutMargin", ge=0, description="So many pixels to either side belong to it.")
    incident_angle: _Finite = Field(0.0, alias="IncidentAngle", description="Angle of incidence [deg].")
    mask: int = Field(0, alias="MaskRef", ge=-1, description="Which mask; -1 for none.")


class Polarization(_Part):
    """Correction for the beam's polarisation."""

    fraction: _Finite = Field(0.95, alias="Fraction", ge=0, le=1, description="Share polarised along the angle.")
    angle: _Finite = Field(0.0, alias="Angle", description="Of the plane of polarisation [deg].")


class Calibration(_Part):
    """Everything that turns images into curves.

    Attributes
    ----------
    raw : dict
        The JSON as it was sent.
    """

    title: str = Field("", alias="Title", description="Shown to people.")
    geometry: Geometry = Field(alias="Geometry", description="Where the sensor stands.")
    wavelength: _Positive = Field(alias="Wavelength", description="[Å]")
    masks: list[MaskEntry] = Field(default_factory=list, alias="Masks", description="One curve each.")
    slices: list[SliceEntry] = Field(
        default_factory=list, alias="Slices", description="One curve each, after the masks."
    )
    polarization: Polarization | None = Field(
        None, alias="PolarizationCorrection", description="No correction when left out."
    )
    directory: list[str] = Field(
        default_factory=list, alias="Directory", description="The images' folder, one name a level."
    )
    threads: int = Field(2, alias="Threads", ge=0, le=256, description="Worker processes; 0 for the default of 2.")
    gisaxs_mode: bool = Field(False, alias="GISAXSmode", description="Leave out the curve of the first mask.")
    overwrite_files: bool = Field(False, alias="OverwriteFiles", description="Reduce images again that have a .chi.")
    live_filelisting: bool = Field(False, alias="Live-Filelisting", description="Keep the live list of files.")

    _raw: dict[str, Any] = PrivateAttr(default_factory=dict)

    @model_validator(mode="wrap")
    @classmethod
    def _keep_raw(cls, data: Any, handler: Any) -> Self:
        made: Self = handler(data)
        if isinstance(data, Mapping):
            made._raw = json.loads(json.dumps(data))
            _second_pixel_size(made._raw)
        return made

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.masks and not self.slices:
            raise ValueError("Masks: neither a mask nor a slice is named, so there is nothing to compute")
        for number, entry in enumerate(self.masks):
            if entry.phi_mode and not entry.q_stop > entry.q_start:
                raise ValueError(
                    f"Masks.{number}.qStop: {entry.q_stop:g} is not above qStart {entry.q_start:g}, "
                    "so that no pixel is left for the Phi-mode"
                )
        for number, cut in enumerate(self.slices):
            self._check_slice(number, cut)
        return self

    def _check_slice(self, number: int, cut: SliceEntry) -> None:
        if self.masks and cut.mask >= len(self.masks):
            raise ValueError(
                f"Slices.{number}.MaskRef: {cut.mask}, but there are {len(self.masks)} masks, counted from 0"
            )
        across = self.geometry.image_size[0 if cut.direction == "x" else 1]
        if cut.position + cut.margin < 1 or cut.position - cut.margin > across:
            raise ValueError(
                f"Slices.{number}.CutPosition: {cut.position} ± {cut.margin} is outside of the image's {across} pixels"
            )

    @property
    def raw(self) -> dict[str, Any]:
        """The JSON as it was sent; not to be changed."""
        return self._raw

    @property
    def workers(self) -> int:
        """How many worker processes the calibration asks for."""
        return self.threads or 2

    def warnings(self) -> list[str]:
        """Return what is odd, one line each with the key: nothing of it keeps a reduction from running."""
        return [*_odd_geometry(self.geometry), *self._odd_rest(), *_unknown(self, "")]

    def _odd_rest(self) -> list[str]:
        odd = []
        if not 0.05 <= self.wavelength <= 20:
            odd.append(f"Wavelength: {self.wavelength:g} Å is no usual X-ray wavelength (0.05 to 20 Å)")
        for number, entry in enumerate(self.masks):
            if entry.oversampling > 5:
                odd.append(
                    f"Masks.{number}.Oversampling: {entry.oversampling} makes setting up slow and gains little over 3"
                )
            if not entry.q_stop > entry.q_start:
                odd.append(f"Masks.{number}.qStop: {entry.q_stop:g} is not above qStart, so I0, I1 and I2 are 0")
        cores = os.cpu_count() or 1
        if self.threads > cores:
            odd.append(f"Threads: {self.threads} worker processes on {cores} cores")
        return odd


def read_calibration(source: Mapping[str, Any] | Path | str) -> Calibration:
    """Read and check a calibration.

    Parameters
    ----------
    source : mapping, path or str
        The JSON's object, the path of a file, or the JSON's text.

    Raises
    ------
    ConfigurationError
        ``problems`` has a line for each mistake: the key, then the reason.
    """
    data, origin = _loaded(source)
    try:
        return Calibration.model_validate(data)
    except ValidationError as error:
        problems = [_line(item) for item in error.errors(include_url=False)]
        raise ConfigurationError(
            f"{origin}: {'; '.join(problems)}", remedy="correct the keys named", problems=problems
        ) from None


def _loaded(source: Mapping[str, Any] | Path | str) -> tuple[Any, str]:
    if isinstance(source, Mapping):
        return source, "the calibration"
    if isinstance(source, str) and source.lstrip().startswith("{"):
        text, origin = source, "the calibration"
    else:
        origin = str(source)
        try:
            text = Path(source).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise ConfigurationError(f"{origin}: cannot be read: {reason}") from None
    try:
        return json.loads(text), origin
    except ValueError as error:
        raise ConfigurationError(f"{origin}: is not JSON: {error}") from None


def _line(item: Any) -> str:
    key = ".".join(str(part) for part in item["loc"])
    message = str(item["msg"]).removeprefix("Value error, ")
    if item["type"] == "missing":
        message = "is missing"
    given = (
        ""
        if isinstance(item.get("input"), Mapping | list) or item["type"] == "missing"
        else f" (given: {item['input']!r})"
    )
    return f"{key}: {message}{given}" if key else message


def _second_pixel_size(raw: dict[str, Any]) -> None:
    # SAXSdog doubles a lone pixel size when it meets a slice, and that shows in the .chi.
    geometry = raw.get("Geometry")
    if raw.get("Slices") and isinstance(geometry, dict):
        size = geometry.get("PixelSizeMicroM")
        if isinstance(size, list) and len(size) == 1:
            geometry["PixelSizeMicroM"] = [size[0], size[0]]


def _odd_geometry(geometry: Geometry) -> list[str]:
    odd = []
    for axis, centre, size in zip("yx", geometry.beam_center, geometry.image_size, strict=True):
        if not 0 <= centre <= size:
            odd.append(f"Geometry.BeamCenter: {axis} = {centre:g} lies outside of the image's {size} pixels")
    if not 10 <= geometry.distance <= 100_000:
        odd.append(f"Geometry.DedectorDistanceMM: {geometry.distance:g} mm is no usual distance (10 mm to 100 m)")
    if any(not 1 <= size <= 5000 for size in geometry.pixel_size):
        odd.append(f"Geometry.PixelSizeMicroM: {geometry.pixel_size} µm is no usual size (1 µm to 5 mm)")
    if len(set(geometry.pixel_size)) > 1:
        odd.append("Geometry.PixelSizeMicroM: the pixels are not square, but curves of masks use the first number only")
    if abs(geometry.tilt.angle) > 45:
        odd.append(f"Geometry.Tilt.TiltAngleDeg: {geometry.tilt.angle:g}° is an unusually large tilt")
    return odd


def _unknown(part: BaseModel, place: str) -> list[str]:
    found = [f"{place}{name}: is not a known key; it is kept and not used" for name in part.model_extra or {}]
    for name, info in type(part).model_fields.items():
        value, where = getattr(part, name), f"{place}{info.alias}"
        if isinstance(value, BaseModel):
            found += _unknown(value, f"{where}.")
        elif isinstance(value, list):
            for number, item in enumerate(value):
                if isinstance(item, BaseModel):
                    found += _unknown(item, f"{where}.{number}.")
    return found
