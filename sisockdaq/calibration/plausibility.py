"""What in a geometry cannot be right, or is rarely meant: each with the reason and the next step.

An *error* is what no experiment has (a wavelength of a metre); a *warning* is what some have on purpose (the beam
beside the detector, in GISAXS or where a detector stands aside). Where a value looks like one in another unit, the
unit is named with the value that it would be.

`check_geometry` looks at the numbers, `check_image` and `check_mask` at whether an image and a mask belong to them;
whether the rings of a calibrant are where they should be is told by `sisockdaq.calibration.rings`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sisockdaq.calibration.geometry import ELECTRONVOLT_METRE, Geometry, detector_class

__all__ = ["Finding", "check_geometry", "check_image", "check_mask", "check_pixels", "known_gaps"]

_Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Finding:
    """Something that is wrong, or odd.

    Attributes
    ----------
    about : str
        Which value.
    severity : str
        ``error`` or ``warning``.
    reason : str
        What is wrong with it.
    remedy : str
        What to do next.
    """

    about: str
    severity: Literal["error", "warning"]
    reason: str
    remedy: str


@dataclass(frozen=True)
class _Span:
    """Which values of a quantity there are: beyond `usual` a value is odd, beyond `possible` it is wrong."""

    possible: tuple[float, float]
    usual: tuple[float, float]
    units: tuple[tuple[str, float], ...]
    """Units that it may be given in by mistake, with the factor to the right one; likelier ones first."""

    def judge(self, value: float) -> Literal["error", "warning"] | None:
        """Return how far off a value is."""
        if not self.possible[0] <= value <= self.possible[1]:
            return "error"
        return None if self.usual[0] <= value <= self.usual[1] else "warning"

    def meant(self, value: float) -> list[tuple[str, float]]:
        """Return the units in which it would be usual, each with the value."""
        return [(unit, value * factor) for unit, factor in self.units if self.judge(value * factor) is None]


_DISTANCE = _Span(
    (1e-3, 120.0), (8e-3, 40.0), (("mm", 1e-3), ("cm", 1e-2), ("µm", 1e-6), ("m, where the format expects mm", 1e3))
)
"""[m] From a microfocus set-up to the longest SAXS tubes."""

_WAVELENGTH = _Span(
    (1e-12, 1e-8),
    (5e-12, 5e-10),
    (("Å", 1e-10), ("nm", 1e-9), ("m, where the format expects Å", 1e10)),
)
"""[m] From 250 keV to the water window; diffraction stays below 5 Å."""

_PIXEL = _Span(
    (1e-7, 0.02),
    (1e-6, 2e-3),
    (
        ("µm", 1e-6),
        ("mm", 1e-3),
        ("mm, where the format expects µm", 1e3),
        ("m, where the format expects µm", 1e6),
        ("nm", 1e-9),
    ),
)
"""[m]"""

_LARGEST_TILT = math.radians(60)
"""A detector that leans more is rare; a tilt in degrees that was taken for radians mostly is."""

_FARTHEST = 10.0
"""A beam that meets the detector's plane farther from the corner is in another unit [m]."""

_LEAST_ENERGY, _LARGEST_ENERGY = 2e3, 2.5e5
"""Energies of photons with which rings are taken [eV]."""

_ROUND = 32
"""Images whose sides are multiples of this are made by detectors of many kinds, and tell nothing of their pixels."""

_SAME_PHOTON = 1e-3
"""Energy and wavelength may differ by so much (rounded in headers)."""


def check_geometry(geometry: Geometry) -> list[Finding]:
    """Return what is wrong or odd about the numbers."""
    found = [*_not_finite(geometry)]
    if found:
        return found
    found += _unit("distance", geometry.distance, _DISTANCE, "m", "metres (PONI), millimetres (Fit2D, SAXSdog)")
    found += _wavelength(geometry)
    pixels = list(_pixels(geometry))
    found += pixels
    found += _angles(geometry)
    if not any(each.severity == "error" for each in pixels):  # places in such pixels would be wrong, too
        found += _place(geometry)
    return found


def _not_finite(geometry: Geometry) -> Iterator[Finding]:
    values = {name: getattr(geometry, name) for name in ("distance", "poni1", "poni2", "rot1", "rot2", "rot3")}
    values |= {"pixel_size": math.fsum(geometry.pixel_size), "wavelength": geometry.wavelength}
    for name, value in values.items():
        if value is not None and not math.isfinite(value):
            yield Finding(name, "error", f"{value} is not a finite number", "calibrate again, or correct the file")
    for name in ("distance", "wavelength"):
        if values[name] is not None and values[name] <= 0:
            yield Finding(name, "error", f"{values[name]:g} m is not above 0", "correct the file")
    if min(geometry.pixel_size) <= 0:
        yield Finding(
            "pixel_size", "error", "a pixel has no size", "give --pixel-size, or the detector's name with --detector"
        )


def _unit(name: str, value: float, span: _Span, unit: str, where: str) -> Iterator[Finding]:
    severity = span.judge(value)
    if severity is None:
        return
    limits = span.possible if severity == "error" else span.usual
    reason = f"{value:g} {unit} is {'too large' if value > limits[1] else 'too small'}"
    meant = span.meant(value)
    if meant:
        named = ", or ".join(f"{new:g} {unit} if the number is in {other}" for other, new in meant[:2])
        yield Finding(name, severity, f"{reason}; it would be {named}", f"give it in the file's unit: {where}")
    else:
        yield Finding(name, severity, f"{reason}, in any unit", "correct the file")


def _wavelength(geometry: Geometry) -> Iterator[Finding]:
    value = geometry.wavelength
    if value is None:
        yield Finding(
            "wavelength", "warning", "there is none, so no q can be computed", "give --wavelength or --energy"
        )
        return
    odd = list(_unit("wavelength", value, _WAVELENGTH, "m", "metres (PONI), ångström (Fit2D, SAXSdog, headers)"))
    if odd and not _WAVELENGTH.meant(value) and (energy := _as_energy(value)) is not None:
        number, unit, right = energy
        reason = (
            f"{value:g} m is too large; if the number is the energy ({number:.6g} {unit}), it is {right * 1e10:.5g} Å"
        )
        odd = [Finding("wavelength", odd[0].severity, reason, "write the wavelength, or give --energy")]
    yield from odd
    if geometry.energy:
        wanted = ELECTRONVOLT_METRE / geometry.energy
        if abs(wanted / value - 1) > _SAME_PHOTON:
            yield Finding(
                "energy",
                "error",
                f"{geometry.energy:g} eV is a wavelength of {wanted * 1e10:.6g} Å, but the file says "
                f"{value * 1e10:.6g} Å" + _kilo(geometry.energy, value),
                "give the right one with --wavelength or --energy",
            )


def _as_energy(wavelength: float) -> tuple[float, str, float] | None:
    """Return the number, its unit and the wavelength [m], where the photons' energy was written for the wavelength."""
    for number in (wavelength * 1e10, wavelength):  # from a header in Å, or from a PONI
        for unit, electronvolts in (("keV", 1e3), ("eV", 1.0)):
            if _LEAST_ENERGY <= number * electronvolts <= _LARGEST_ENERGY:
                return number, unit, ELECTRONVOLT_METRE / (number * electronvolts)
    return None


def _kilo(energy: float, wavelength: float) -> str:
    """Say where the energy is only in another unit."""
    fits = abs(ELECTRONVOLT_METRE / (energy * 1e3) / wavelength - 1) <= _SAME_PHOTON
    return "; they agree if the energy was meant in keV" if fits else ""


def _pixels(geometry: Geometry) -> Iterator[Finding]:
    height, width = geometry.pixel_size
    odd = list(_unit("pixel_size", height, _PIXEL, "m", "metres (PONI, NXmx), micrometres (Fit2D, SAXSdog)"))
    if odd:
        yield odd[0]
        return
    if height != width and not 0.2 <= height / width <= 5:
        yield Finding(
            "pixel_size",
            "warning",
            f"a pixel is {height * 1e6:g} µm high and {width * 1e6:g} µm wide",
            "are both in the same unit?",
        )
    yield from _known_pixels(geometry)


def _known_pixels(geometry: Geometry) -> Iterator[Finding]:
    """Compare with the detector of that name, else with those of that many pixels."""
    from pyFAI.detectors import Detector

    said = "the file" if geometry.kind == "PONI file" else geometry.kind or "the file"
    named = detector_class(geometry.detector)
    if named is not None:
        known = [named]
    elif geometry.shape is not None and any(length % _ROUND for length in geometry.shape):
        known = [each for each in set(Detector.registry.values()) if _shape_of(each) == geometry.shape]
    else:
        return
    sizes = {size: each for each in known if (size := _pixels_of(each)) is not None}
    if sizes and not any(_alike(size, geometry.pixel_size) for size in sizes):
        size, kind = next(iter(sizes.items()))
        about = f"{geometry.pixel_size[0] * 1e6:g} × {geometry.pixel_size[1] * 1e6:g} µm"
        names = " or ".join(sorted({_name_of(each) for each in sizes.values()})[:3])
        yield Finding(
            "pixel_size",
            "error" if named is not None else "warning",
            f"{said} says {about}, but a pixel of {names} is {size[0] * 1e6:g} × {size[1] * 1e6:g} µm",
            f"give --pixel-size {size[0] * 1e6:g}" if named is not None else f"is it a {_name_of(kind)}? --detector",
        )
    if named is not None and geometry.shape is not None and _shape_of(named) not in (None, geometry.shape):
        rows, columns = named.MAX_SHAPE
        yield Finding(
            "shape",
            "warning",
            f"the images have {_size(geometry.shape)} pixels, a {_name_of(named)} has {rows} × {columns}",
            "is it another detector, a region of it, or binned?",
        )


def _shape_of(kind: Any) -> tuple[int, int] | None:
    shape = getattr(kind, "MAX_SHAPE", None)
    return None if shape is None or len(shape) != 2 else (int(shape[0]), int(shape[1]))


def _pixels_of(kind: Any) -> tuple[float, float] | None:
    size = getattr(kind, "PIXEL_SIZE", None)
    return None if size is None or not all(size) else (float(size[0]), float(size[1]))


def _name_of(kind: Any) -> str:
    return str((getattr(kind, "aliases", None) or [kind.__name__])[0])


def _alike(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Whether sizes agree; a whole multiple of the detector's pixel is binning."""
    ratios = [mine / theirs for mine, theirs in zip(other, one, strict=True)]
    return all(abs(ratio - max(1, round(ratio))) < 0.01 * ratio for ratio in ratios) and round(max(ratios)) <= 8


def _angles(geometry: Geometry) -> Iterator[Finding]:
    for name in ("rot1", "rot2", "rot3"):
        value = getattr(geometry, name)
        limit = 2 * math.pi + 1e-9 if name == "rot3" else _LARGEST_TILT
        if abs(value) <= limit:
            continue
        behind = abs(value) > (2 * math.pi if name == "rot3" else math.pi / 2)
        yield Finding(
            name,
            "error" if behind else "warning",
            f"{value:g} rad is {math.degrees(value):.1f}°; "
            f"if it was meant in degrees, it is {math.radians(value):.5g} rad",
            "write angles of a PONI in radians; leave it if the detector stands on an arm",
        )
    if geometry.cos_tilt <= 0 and max(abs(geometry.rot1), abs(geometry.rot2)) <= math.pi / 2:
        yield Finding("rot1, rot2", "error", "together they turn the detector away from the beam", "calibrate again")


def _place(geometry: Geometry) -> Iterator[Finding]:
    # A detector that leans, far away, has its normal far from where the beam is.
    aside = geometry.distance * math.tan(geometry.tilt) if geometry.cos_tilt > 0 else 0.0
    far = [name for name in ("poni1", "poni2") if abs(getattr(geometry, name)) > _FARTHEST + aside]
    for name in far:
        value = getattr(geometry, name)
        size = geometry.pixel_size[0 if name == "poni1" else 1]
        yield Finding(
            name,
            "error",
            f"{value:g} m is far beyond any detector; it would be {value * size:.5g} m if it was meant in pixels, "
            f"{value * 1e-3:.5g} m if in mm",
            "write metres into a PONI file",
        )
    centre = geometry.beam_centre
    if far or centre is None or geometry.shape is None:
        return
    rows, columns = geometry.shape
    x, y = centre
    if abs(x) <= 1 and abs(y) <= 1:
        reason = f"x = {x:g}, y = {y:g} is the image's corner, as if it had never been set"
        yield Finding("beam_centre", "warning", reason, "set the beam's centre at the detector, or calibrate")
        return
    if 0 <= x <= columns and 0 <= y <= rows:
        return
    guess = "; x and y may be exchanged" if 0 <= y <= columns and 0 <= x <= rows else ""
    yield Finding(
        "beam_centre",
        "warning",
        f"x = {x:.1f}, y = {y:.1f} lies outside of the image's {columns} columns and {rows} rows{guess}",
        "leave it if the detector stands aside (GISAXS, wide angles); else correct the centre",
    )


def check_image(geometry: Geometry, shape: tuple[int, ...], origin: str = "the image") -> list[Finding]:
    """Return whether an image of `shape` (rows, columns) can be of this detector."""
    if len(shape) != 2:
        return [Finding("image", "error", f"{origin} has the shape {shape}, not rows and columns", "give an image")]
    known = geometry.shape
    if known is None or tuple(shape) == known:
        return []
    image = (int(shape[0]), int(shape[1]))
    reason = f"{origin} has {_size(image)} pixels (rows × columns), the geometry is for {_size(known)}"
    ratio = known[0] / image[0]
    if image == known[::-1]:
        reason += "; it is turned by 90°, or rows and columns were exchanged"
    elif ratio == known[1] / image[1] and ratio == round(ratio):
        reason += f"; it is binned {ratio:g} × {ratio:g}"
    elif ratio == known[1] / image[1] and 1 / ratio == round(1 / ratio):
        reason += "; the geometry is for binned images"
    return [Finding("image", "error", reason, "use the geometry of this detector, or calibrate with such an image")]


def check_pixels(geometry: Geometry, pixel_size: float) -> list[Finding]:
    """Return whether a detector whose pixels have an edge of `pixel_size` [m] is that of the geometry."""
    if all(math.isclose(size, pixel_size, rel_tol=1e-3) for size in geometry.pixel_size):
        return []
    height, width = geometry.pixel_size
    reason = (
        f"the geometry is for pixels of {height * 1e6:g} × {width * 1e6:g} µm, the detector's are {pixel_size * 1e6:g}"
    )
    return [Finding("pixel_size", "error", f"{reason} µm", "use the geometry of this detector, or correct pixel_size")]


def check_mask(geometry: Geometry, mask: _Mask, gaps: _Mask | None = None, origin: str = "the mask") -> list[Finding]:
    """Return whether a mask belongs to this detector, and is the right way round.

    Parameters
    ----------
    mask : ndarray of bool, (rows, columns)
        True where a pixel is not to be used.
    gaps : ndarray of bool, (rows, columns), optional
        Pixels that are known to hold nothing: the detector's gaps, or those an image says so of.
    """
    if geometry.shape is not None and mask.shape != geometry.shape:
        reason = f"{origin} has {_size(mask.shape)} pixels (rows × columns), the detector {_size(geometry.shape)}"
        if mask.shape == geometry.shape[::-1]:
            reason += "; rows and columns are exchanged"
        return [Finding("mask", "error", reason, "use the mask that was made for this detector")]
    found: list[Finding] = []
    share = float(mask.mean()) if mask.size else 1.0
    if share == 1.0:
        return [Finding("mask", "error", f"{origin} leaves no pixel", "is it of the other convention? invert it")]
    if share > 0.5:
        found.append(
            Finding(
                "mask",
                "warning",
                f"{origin} leaves out {100 * share:.0f} % of the pixels",
                "pixels that are not 0 are left out: is it of the other convention?",
            )
        )
    gaps = known_gaps(geometry) if gaps is None else gaps
    if gaps is None or not gaps.any() or gaps.shape != mask.shape:
        return found
    return found + _uncovered(mask, gaps, origin)


def known_gaps(geometry: Geometry) -> _Mask | None:
    """Return the gaps of the detector that the geometry names, as pyFAI knows it; None where it does not."""
    known = detector_class(geometry.detector)
    if known is None or _shape_of(known) != geometry.shape:
        return None
    made = known().mask
    return None if made is None else np.asarray(made, np.bool_)


def _uncovered(mask: _Mask, gaps: _Mask, origin: str) -> list[Finding]:
    covered = float(mask[gaps].mean())
    if covered > 0.98:
        return []
    if covered < 0.02 and mask.any() and not mask.all() and float((~mask)[~gaps].mean()) < 0.5:
        reason, remedy = "marks the pixels that are good, not the bad ones", "invert it"
    elif _best_turn(mask, gaps) is not None:
        reason, remedy = f"fits only {_best_turn(mask, gaps)}", "turn it, or use the one of this detector"
    else:
        reason = f"covers {100 * covered:.0f} % of the {int(gaps.sum())} pixels of the gaps"
        remedy = "is it of another detector? use the mask that was made for this one"
    return [Finding("mask", "warning", f"{origin} {reason}", remedy)]


def _best_turn(mask: _Mask, gaps: _Mask) -> str | None:
    turns = {"upside down": mask[::-1], "mirrored": mask[:, ::-1], "turned by 180°": mask[::-1, ::-1]}
    return next((name for name, turned in turns.items() if float(turned[gaps].mean()) > 0.98), None)


def _size(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))
