"""One description of where a detector stands, whatever file it came from: numbers first, pyFAI's object on request.

A `Geometry` may be wrong in any way that a file can be: a distance of 200 m, a wavelength of 1.5 m. That is on purpose,
since `sisockdaq.calibration.plausibility` is there to say so. `Geometry.to_pyfai` refuses what cannot be used at all.

Lengths are in metres, angles in radians, positions from the outer corner of the first pixel, as in pyFAI; places in
pixels are ``(x, y)``, x along a row.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sisockdaq.errors import GeometryError, StorageError

if TYPE_CHECKING:
    from pyFAI.integrator.azimuthal import AzimuthalIntegrator

__all__ = ["ELECTRONVOLT_METRE", "Geometry", "detector_class"]

ELECTRONVOLT_METRE = 1.2398419843320026e-06
"""Energy times wavelength of a photon, hc/e [eV m] (CODATA 2018, exact)."""


@dataclass(frozen=True)
class Geometry:
    """Where a detector stands, in pyFAI's terms, and what its file says besides.

    Attributes
    ----------
    distance : float
        From the sample to the detector's plane, along the plane's normal [m].
    poni1, poni2 : float
        Where that normal meets the detector: along columns (y), along rows (x) [m].
    rot1, rot2, rot3 : float
        pyFAI's rotations [rad].
    wavelength : float or None
        [m]
    pixel_size : (float, float)
        Height and width of a pixel [m].
    shape : (int, int) or None
        Rows and columns of an image.
    energy : float or None
        Photon energy, where the file gives one besides the wavelength [eV].
    detector : str
        What the file calls the detector.
    origin : str
        The file.
    kind : str
        What kind of file that is, for people.
    notes : tuple of str
        What had to be assumed.
    sensor : object or None
        pyFAI's detector, where the file describes more of it than a grid of pixels.
    """

    distance: float
    poni1: float
    poni2: float
    rot1: float = 0.0
    rot2: float = 0.0
    rot3: float = 0.0
    wavelength: float | None = None
    pixel_size: tuple[float, float] = (0.0, 0.0)
    shape: tuple[int, int] | None = None
    energy: float | None = None
    detector: str = ""
    origin: str = "the geometry"
    kind: str = ""
    notes: tuple[str, ...] = ()
    sensor: Any = field(default=None, repr=False, compare=False)

    @classmethod
    def of_beam(
        cls,
        distance: float,
        centre: tuple[float, float],
        pixel_size: tuple[float, float],
        *,
        tilt: float = 0.0,
        rotation: float = 0.0,
        **more: Any,
    ) -> Geometry:
        """Make a geometry of Fit2D's parameters, by pyFAI's conversion.

        Parameters
        ----------
        distance : float
            Along the beam [m].
        centre : (float, float)
            Where the beam meets the detector, ``(x, y)`` [pixels].
        tilt : float
            Angle between the beam and the detector's normal [rad].
        rotation : float
            Direction of the tilt; at 0 the side of larger x leans away from the sample [rad].
        **more
            Further attributes.

        Raises
        ------
        GeometryError
            A number is not finite.
        """
        numbers = {"distance": distance, "beam centre": math.hypot(*centre), "tilt": tilt, "tilt rotation": rotation}
        for name, number in numbers.items():
            if not math.isfinite(number):
                raise GeometryError(f"{more.get('origin', 'the geometry')}: {name} is {number}, not a finite number")
        x, y = centre
        height, width = pixel_size
        if tilt == 0:
            return cls(distance, y * height, x * width, pixel_size=pixel_size, **more)
        from pyFAI.detectors import Detector
        from pyFAI.geometry.fit2d import convert_from_Fit2d

        poni = convert_from_Fit2d(
            {
                "directDist": distance * 1e3,
                "centerX": x,
                "centerY": y,
                "tilt": math.degrees(tilt),
                "tiltPlanRotation": math.degrees(rotation),
                "detector": Detector(height, width),
            }
        )
        return cls(
            float(poni.dist),
            float(poni.poni1),
            float(poni.poni2),
            float(poni.rot1),
            float(poni.rot2),
            float(poni.rot3),
            pixel_size=pixel_size,
            **more,
        )

    @classmethod
    def of_pyfai(cls, integrator: AzimuthalIntegrator, **more: Any) -> Geometry:
        """Take the numbers of pyFAI's object; it is not changed."""
        sensor = integrator.detector
        shape = sensor.shape if sensor.shape is not None else sensor.max_shape
        return cls(
            distance=float(integrator.dist),
            poni1=float(integrator.poni1),
            poni2=float(integrator.poni2),
            rot1=float(integrator.rot1),
            rot2=float(integrator.rot2),
            rot3=float(integrator.rot3),
            wavelength=None if integrator.wavelength is None else float(integrator.wavelength),
            pixel_size=(float(sensor.pixel1), float(sensor.pixel2)),
            shape=None if shape is None else (int(shape[0]), int(shape[1])),
            detector="" if type(sensor).__name__ == "Detector" else str(sensor.name),
            sensor=sensor,
            **more,
        )

    @property
    def cos_tilt(self) -> float:
        """Cosine of the angle between the beam and the detector's normal."""
        return math.cos(self.rot1) * math.cos(self.rot2)

    @property
    def tilt(self) -> float:
        """Angle between the beam and the detector's normal [rad]."""
        return math.acos(max(-1.0, min(1.0, self.cos_tilt)))

    @property
    def beam_distance(self) -> float:
        """Distance to the detector along the beam [m]; infinite where the beam does not meet it."""
        return self.distance / self.cos_tilt if self.cos_tilt > 0 else math.inf

    @property
    def beam_centre(self) -> tuple[float, float] | None:
        """Where the direct beam meets the detector, ``(x, y)`` [pixels]; None where it does not."""
        height, width = self.pixel_size
        if self.cos_tilt <= 0 or not (height and width):
            return None
        x = self.poni2 - self.distance * math.tan(self.rot1)
        y = self.poni1 + self.distance * math.tan(self.rot2) / math.cos(self.rot1)
        x, y = x / width, y / height
        if self._turned is None or self.shape is None:
            return x, y
        rows, columns = self.shape
        return (columns - x if self._turned[1] else x), (rows - y if self._turned[0] else y)

    @property
    def _turned(self) -> tuple[bool, bool] | None:
        """Whether pyFAI counts from the far end: of rows, of columns (``orientation`` of its detectors)."""
        orientation = int(getattr(self.sensor, "orientation", 3) or 3)
        return {1: (True, True), 2: (True, False), 4: (False, True)}.get(orientation)

    def changed(self, **changes: Any) -> Geometry:
        """Return a copy with other values; another pixel size leaves the beam where it is, in pixels."""
        new = changes.get("pixel_size")
        if new is not None and all(self.pixel_size):
            changes.setdefault("poni1", self.poni1 / self.pixel_size[0] * new[0])
            changes.setdefault("poni2", self.poni2 / self.pixel_size[1] * new[1])
        if {"pixel_size", "shape", "detector"} & set(changes):
            changes.setdefault("sensor", None)
        return replace(self, **changes)

    def to_fit2d(self) -> dict[str, float]:
        """Return Fit2D's parameters by pyFAI's conversion: mm, pixels, degrees, µm and Å."""
        found = self.assembled().getFit2D()
        named = ("directDist", "centerX", "centerY", "tilt", "tiltPlanRotation", "pixelX", "pixelY", "wavelength")
        return {name: float(found[name]) for name in named if found[name] is not None}

    def to_pyfai(self, shape: tuple[int, int] | None = None) -> AzimuthalIntegrator:
        """Make pyFAI's object.

        Parameters
        ----------
        shape : (int, int), optional
            Rows and columns of the images; must agree with the geometry's, if that has a shape.

        Raises
        ------
        GeometryError
            For anything missing or impossible, and for another shape.
        """
        from sisockdaq.integrate import load_geometry

        try:
            return load_geometry(self.assembled(), shape=shape or self.shape)
        except GeometryError as error:
            message = error.message.replace("the geometry", self.origin, 1)
            remedy = "give --shape or --detector" if "no image shape" in message else error.remedy
            raise GeometryError(message, remedy=remedy) from None

    def assembled(self) -> AzimuthalIntegrator:
        """Make pyFAI's object as it stands, unchecked."""
        from pyFAI.integrator.azimuthal import AzimuthalIntegrator

        return AzimuthalIntegrator(
            dist=self.distance,
            poni1=self.poni1,
            poni2=self.poni2,
            rot1=self.rot1,
            rot2=self.rot2,
            rot3=self.rot3,
            detector=self._make_sensor(),
            wavelength=self.wavelength,
        )

    def _make_sensor(self) -> Any:
        """Return pyFAI's detector: the file's own, one of its name, size and pixels, or a plain grid."""
        if self.sensor is not None:
            return self.sensor
        from pyFAI.detectors import Detector

        known = detector_class(self.detector)
        if known is not None and self.shape is not None and self.shape == known.MAX_SHAPE:
            made = known()
            if math.isclose(made.pixel1, self.pixel_size[0], rel_tol=1e-6) and math.isclose(
                made.pixel2, self.pixel_size[1], rel_tol=1e-6
            ):
                return made
        return Detector(*self.pixel_size, max_shape=self.shape)

    def poni_text(self) -> str:
        """Return the text of a PONI file, unchecked; what it was made from is in a comment."""
        from pyFAI.io.ponifile import PoniFile

        text = io.StringIO()
        PoniFile(self.assembled()).write(text)
        about = [f"# Made by sisockdaq from {Path(self.origin).name}" + (f" ({self.kind})" if self.kind else "")]
        return "\n".join([*about, *(f"# {note}" for note in self.notes), text.getvalue()])

    def save(self, path: Path, *, replace_file: bool = False) -> None:
        """Write a PONI file.

        Raises
        ------
        StorageError
            There is such a file already, or it cannot be written.
        """
        text = self.poni_text()
        try:
            with path.open("w" if replace_file else "x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            raise StorageError(f"{path}: exists already", remedy="choose another name, or --replace") from None
        except OSError as error:
            raise StorageError(f"{path}: cannot be written: {error.strerror}") from None


def detector_class(name: str) -> Any:
    """Return pyFAI's class for a detector's name as files spell it ("PILATUS3 1M, S/N 10-0123"); None if unknown."""
    from pyFAI.detectors import Detector

    words = name.partition(",")[0].partition("S/N")[0].replace("_", " ").split()
    if words and words[0].lower() == "dectris":
        del words[0]
    known = Detector.registry
    for count in range(len(words), 0, -1):
        wanted = "".join(words[:count]).lower().replace("-", "")
        for each in (wanted, wanted.replace("pilatus3", "pilatus"), wanted.replace("eiger2x", "eiger2")):
            found = known.get(each)
            if found is not None and found is not Detector and getattr(found, "MAX_SHAPE", None):
                return found
    return None
