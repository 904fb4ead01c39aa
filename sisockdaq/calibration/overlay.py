"""A picture of an image with the rings of a calibrant on it, as PNG: to see at a glance whether a geometry fits.

Intensities are on a logarithmic scale, masked pixels grey. Rings are drawn where the geometry puts them, also in gaps
of the detector; each has its number and d. A cross marks the beam's centre. Axes count pixels of the image, the first
row at the top.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from sisockdaq.calibration._profiles import LARGEST_ANGLE, usable
from sisockdaq.calibration.geometry import Geometry
from sisockdaq.calibration.rings import Ring, load_calibrant, ring_angles
from sisockdaq.errors import GeometryError, StorageError

__all__ = ["draw_overlay", "save_overlay"]

_Floats = npt.NDArray[np.float64]

_LARGEST, _SMALLEST = 1200, 500
"""Length of the picture's longer side, without its margins [points]."""

_MARGIN = {"left": 70, "top": 46, "right": 30, "bottom": 78}
_LINE = 1.6
"""Width of a ring [points]."""

_DASH, _DASH_ASIDE = math.radians(4), math.radians(1)
"""Length of a ring's dashes, and of the gaps between: where the beam meets the image, and where it does not."""

_COLOURS = np.array([[0, 0, 4], [40, 11, 84], [101, 21, 110], [159, 42, 99], [212, 72, 66], [245, 125, 21],
                     [250, 193, 39], [252, 255, 200]], np.float64)  # fmt: skip
"""From dark to bright; even steps look even."""

_MASKED = np.array([110, 116, 122], np.uint8)
_STATES = {"found": (90, 255, 170), "shifted": (255, 176, 32), "missing": (255, 92, 120), "": (80, 220, 255)}
_FONT = "mpl-data/fonts/ttf/DejaVuSans.ttf"
_INK, _PAPER = (25, 25, 25), (255, 255, 255)
_MOST_LABELS, _LEAST_APART = 24, 18
"""So many labels are written, so far apart [points]."""


@dataclass(frozen=True)
class _Scale:
    """Between pixels of the image and points of the picture."""

    step: float
    """Pixels a point."""
    shape: tuple[int, int]

    @classmethod
    def of(cls, shape: tuple[int, int]) -> _Scale:
        longest = max(shape)
        points = min(max(longest, _SMALLEST), _LARGEST)
        step = longest / points
        return cls(step, (max(1, round(shape[0] / step)), max(1, round(shape[1] / step))))

    def middles(self) -> tuple[_Floats, _Floats]:
        """Return where the points' middles lie, in rows and columns from the image's corner [pixels]."""
        rows, columns = self.shape
        down: _Floats = (np.arange(rows, dtype=np.float64) + 0.5) * self.step
        along: _Floats = (np.arange(columns, dtype=np.float64) + 0.5) * self.step
        return down, along

    def point(self, x: float, y: float) -> tuple[float, float]:
        """Return where a place of the image is in the picture."""
        return _MARGIN["left"] + x / self.step, _MARGIN["top"] + y / self.step


def save_overlay(
    path: Path,
    geometry: Geometry,
    image: npt.NDArray[Any],
    calibrant: str,
    mask: npt.NDArray[np.bool_] | None = None,
    rings: tuple[Ring, ...] = (),
) -> None:
    """Write the picture of `draw_overlay` as PNG.

    Raises
    ------
    GeometryError, ConfigurationError
    StorageError
        It cannot be written.
    """
    made = draw_overlay(geometry, image, calibrant, mask, rings)
    try:
        made.save(path, format="PNG")
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error.strerror or error}") from None


def draw_overlay(
    geometry: Geometry,
    image: npt.NDArray[Any],
    calibrant: str,
    mask: npt.NDArray[np.bool_] | None = None,
    rings: tuple[Ring, ...] = (),
) -> Image.Image:
    """Draw an image with rings.

    Parameters
    ----------
    image : ndarray, (rows, columns)
        Any integers or floats.
    mask : ndarray of bool, (rows, columns), optional
        True where a pixel is not to be used.
    rings : tuple of Ring, optional
        What `find_rings` found: rings are then coloured by what became of them.

    Raises
    ------
    GeometryError
        The geometry cannot be used, is of another shape, or has no wavelength.
    ConfigurationError
        Nobody knows the calibrant.
    """
    if geometry.wavelength is None:
        raise GeometryError(f"{geometry.origin}: has no wavelength", remedy="give --wavelength or --energy")
    shape = (int(image.shape[0]), int(image.shape[1]))
    scale = _Scale.of(shape)
    spacings, angles = ring_angles(load_calibrant(calibrant), geometry.wavelength)
    known: dict[int, str] = {ring.number: ring.state for ring in rings}
    colours = np.array([_STATES[known.get(number, "")] for number in range(1, len(angles) + 1)], np.float64)
    angle = _angle_of_points(geometry, shape, scale)
    picture = _coloured(image, usable(image, mask), scale)
    picture = _with_rings(picture, angle, angles, colours, _dashes(geometry, scale))
    rows, columns = scale.shape
    size = (columns + _MARGIN["left"] + _MARGIN["right"], rows + _MARGIN["top"] + _MARGIN["bottom"])
    sheet = Image.new("RGB", size, _PAPER)
    sheet.paste(Image.fromarray(picture), (_MARGIN["left"], _MARGIN["top"]))
    draw = ImageDraw.Draw(sheet)
    _axes(draw, scale, shape)
    _labels(draw, scale, geometry, angle, angles, spacings, colours)
    _cross(draw, scale, geometry, shape)
    _title(draw, geometry, calibrant, known, size)
    return sheet


def _angle_of_points(geometry: Geometry, shape: tuple[int, int], scale: _Scale) -> _Floats:
    """Return 2θ in the middle of each point [rad]."""
    pyfai = geometry.to_pyfai(shape)
    down, along = np.meshgrid(*scale.middles(), indexing="ij")
    # pyFAI counts from the middle of the first pixel.
    angle: _Floats = np.asarray(pyfai.tth(down.ravel() - 0.5, along.ravel() - 0.5), np.float64).reshape(scale.shape)
    return angle


def _coloured(image: npt.NDArray[Any], good: npt.NDArray[np.bool_], scale: _Scale) -> npt.NDArray[np.uint8]:
    """Return the picture's colours, (rows, columns, 3): the brightest pixel of each point."""
    down, along = scale.middles()
    values = np.where(good, image.astype(np.float64), -1.0)
    rows, columns = scale.shape
    if scale.step > 1:  # the brightest pixel, so that rings do not vanish between the points
        starts = [np.minimum((np.arange(count) * scale.step).astype(np.intp), full - 1)
                  for count, full in ((rows, image.shape[0]), (columns, image.shape[1]))]  # fmt: skip
        values = np.maximum.reduceat(np.maximum.reduceat(values, starts[0], axis=0), starts[1], axis=1)
    else:
        values = values[np.ix_(down.astype(np.intp), along.astype(np.intp))]
    masked = values < 0
    positive = values[values > 0]
    low, high = np.percentile(positive, [1.0, 99.8]) if positive.size else (1.0, 10.0)
    high = max(float(high), float(low) * 1.01)
    with np.errstate(divide="ignore"):
        level = (np.log(np.maximum(values, 1e-300)) - math.log(low)) / (math.log(high) - math.log(low))
    place = np.clip(level, 0.0, 1.0) * (len(_COLOURS) - 1)
    colours = np.stack([np.interp(place, range(len(_COLOURS)), _COLOURS[:, channel]) for channel in range(3)], axis=-1)
    made = colours.astype(np.uint8)
    made[masked] = _MASKED
    return made


def _dashes(geometry: Geometry, scale: _Scale) -> npt.NDArray[np.bool_]:
    """Return where lines are drawn: between the dashes one sees the image's own ring."""
    centre = geometry.beam_centre or (0.0, 0.0)
    down, along = scale.middles()
    azimuth = np.arctan2(down[:, None] - centre[1], along[None, :] - centre[0])
    inside = 0 <= centre[0] <= along[-1] and 0 <= centre[1] <= down[-1]
    dash = _DASH if inside else _DASH_ASIDE
    dashed: npt.NDArray[np.bool_] = np.mod(azimuth, 2 * dash) < dash
    return dashed


def _with_rings(
    picture: npt.NDArray[np.uint8], angle: _Floats, rings: _Floats, colours: _Floats, drawn: npt.NDArray[np.bool_]
) -> npt.NDArray[np.uint8]:
    """Draw lines where the angle is that of a ring, with soft edges."""
    if not rings.size or min(angle.shape) < 2:
        return picture
    slope = np.hypot(*np.gradient(angle))
    outer = np.minimum(np.searchsorted(rings, angle), rings.size - 1)
    inner = np.maximum(outer - 1, 0)
    nearest = np.where(np.abs(rings[inner] - angle) < np.abs(rings[outer] - angle), inner, outer)
    with np.errstate(divide="ignore", invalid="ignore"):
        points = np.abs(angle - rings[nearest]) / slope
    there = drawn & (slope > 0) & (angle < LARGEST_ANGLE)

    def covered(width: float, strength: float) -> npt.NDArray[np.float64]:
        share: _Floats = np.where(there, strength * np.clip((width + 1) / 2 - points, 0.0, 1.0), 0.0)[..., None]
        return share

    edge, line = covered(3 * _LINE, 0.6), covered(_LINE, 0.95)  # the dark edge, so that no colour swallows the line
    drawn_over: npt.NDArray[np.uint8] = (picture * (1 - edge) * (1 - line) + colours[nearest] * line).astype(np.uint8)
    return drawn_over


@cache
def _font(size: int) -> Any:
    """Return matplotlib's font, which comes with pyFAI and knows Å; without it Pillow's own, which does not."""
    package = find_spec("matplotlib")
    if package is not None and package.origin is not None:
        with contextlib.suppress(OSError):
            return ImageFont.truetype(Path(package.origin).parent / _FONT, size)
    return ImageFont.load_default(size)


def _axes(draw: Any, scale: _Scale, shape: tuple[int, int]) -> None:
    """Draw ticks with their pixels, and what the axes are."""
    rows, columns = shape
    right, bottom = scale.point(columns, rows)
    left, top = scale.point(0, 0)
    draw.rectangle((left - 1, top - 1, right, bottom), outline=_INK)
    step = _tick(max(shape))
    for x in range(0, columns + 1, step):
        place, _ = scale.point(x, 0)
        draw.line((place, bottom, place, bottom + 6), fill=_INK)
        draw.text((place, bottom + 8), str(x), fill=_INK, font=_font(13), anchor="ma")
    for y in range(0, rows + 1, step):
        _, place = scale.point(0, y)
        draw.line((left - 7, place, left - 1, place), fill=_INK)
        draw.text((left - 10, place), str(y), fill=_INK, font=_font(13), anchor="rm")
    draw.text(((left + right) / 2, bottom + 30), "x: column [pixels]", fill=_INK, font=_font(14), anchor="ma")
    draw.text((8, top - 10), "y: row [pixels]", fill=_INK, font=_font(14), anchor="ls")


def _tick(length: int) -> int:
    """Return a round distance of ticks, five to ten of them."""
    for power in range(0, 6):
        for step in (1, 2, 5):
            if length / (step * 10**power) <= 10:
                return step * int(10**power)
    return length


def _labels(
    draw: Any,
    scale: _Scale,
    geometry: Geometry,
    angle: _Floats,
    rings: _Floats,
    spacings: _Floats,
    colours: _Floats,
) -> None:
    """Write number and d beside each ring, along a ray from the beam's centre to the farthest corner."""
    rows, columns = angle.shape
    centre = geometry.beam_centre or (0.0, 0.0)
    beam = np.array([centre[0] / scale.step, centre[1] / scale.step])
    corners = np.array([[columns, 0], [0, 0], [columns, rows], [0, rows]], np.float64)
    corner = corners[int(np.argmax(np.hypot(*(corners - beam).T).round()))]
    ray = beam + np.linspace(0, 1, 4 * max(rows, columns))[:, None] * (corner - beam)
    column, row = ray.astype(np.intp).T
    inside = (ray >= 0).all(axis=1) & (row < rows) & (column < columns)
    ray, seen = ray[inside], angle[row[inside], column[inside]]
    farthest, written = -math.inf, 0
    for number, (ring, spacing) in enumerate(zip(rings, spacings, strict=True), 1):
        across = np.flatnonzero(np.diff(np.sign(seen - ring)) != 0)
        if not across.size or written >= _MOST_LABELS:
            continue
        x, y = ray[across[0]]
        away = math.hypot(x - beam[0], y - beam[1])
        if away - farthest < _LEAST_APART:
            continue
        farthest, written = away, written + 1
        text = f"{number}: {spacing:.4g} Å"
        place = (_MARGIN["left"] + x, _MARGIN["top"] + y)
        anchor = "lm" if x + 90 < columns else "rm"
        box = draw.textbbox(place, text, font=_font(13), anchor=anchor)
        draw.rectangle((box[0] - 2, box[1] - 1, box[2] + 2, box[3] + 1), fill=(0, 0, 0))
        draw.text(place, text, fill=tuple(int(c) for c in colours[number - 1]), font=_font(13), anchor=anchor)


def _cross(draw: Any, scale: _Scale, geometry: Geometry, shape: tuple[int, int]) -> None:
    """Mark the beam's centre, where it is in the image."""
    centre = geometry.beam_centre
    if centre is None:
        return
    x, y = scale.point(*centre)
    if 0 <= centre[0] <= shape[1] and 0 <= centre[1] <= shape[0]:
        for colour, width in (((0, 0, 0), 4), ((255, 255, 255), 2)):
            draw.line((x - 12, y, x + 12, y), fill=colour, width=width)
            draw.line((x, y - 12, x, y + 12), fill=colour, width=width)


def _title(draw: Any, geometry: Geometry, calibrant: str, known: dict[int, str], size: tuple[int, int]) -> None:
    wavelength, centre = (geometry.wavelength or math.nan) * 1e10, geometry.beam_centre
    beam = "" if centre is None else f", beam at x = {centre[0]:.1f}, y = {centre[1]:.1f}"
    text = f"{calibrant}, {Path(geometry.origin).name}: {geometry.distance:.5g} m, {wavelength:.5g} Å{beam}"
    draw.text((_MARGIN["left"], 6), text, fill=_INK, font=_font(15), anchor="la")
    x, y = _MARGIN["left"], size[1] - 16
    for state in ("found", "shifted", "missing") if known else ():
        draw.rectangle((x, y - 6, x + 12, y + 6), fill=_STATES[state], outline=_INK)
        draw.text((x + 18, y), state, fill=_INK, font=_font(13), anchor="lm")
        x += 100
