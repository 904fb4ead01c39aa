"""An image against the radius, in sectors around the beam, and the peaks in that."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from sisockdaq.calibration.geometry import Geometry

__all__ = ["LARGEST_ANGLE", "SECTORS", "Profiles", "all_peaks", "nearest_peak", "usable"]

_Floats = npt.NDArray[np.float64]

SECTORS = 16
LARGEST_ANGLE = math.radians(80)
"""Beyond, a flat detector sees next to nothing, and pixels on it stretch without end."""

_SIGNIFICANT = 6.0
"""Height of a peak over its surroundings, in standard errors of its mean."""

_REACH = 25
"""How far around a peak its foot is looked for [pixels]."""


@dataclass(frozen=True)
class Profiles:
    """The image against the radius, sector by sector.

    Attributes
    ----------
    counts, mean, error : ndarray, (sectors, radii)
        Pixels, their mean, and its standard error; bins are a pixel wide.
    scale : float
        Distance along the beam in pixels: radius = scale · tan 2θ.
    """

    counts: _Floats
    mean: _Floats
    error: _Floats
    scale: float

    @classmethod
    def of(cls, geometry: Geometry, image: npt.NDArray[Any], mask: npt.NDArray[np.bool_] | None) -> Profiles:
        rows, columns = image.shape
        pyfai = geometry.to_pyfai((rows, columns))
        angle = np.asarray(pyfai.center_array((rows, columns), "2th_rad"), np.float64)
        good = usable(image, mask) & (angle < LARGEST_ANGLE)
        centre = geometry.changed(shape=(rows, columns), sensor=geometry.sensor).beam_centre or (0.0, 0.0)
        scale = geometry.beam_distance / math.sqrt(geometry.pixel_size[0] * geometry.pixel_size[1])
        row, column = np.nonzero(good)
        radius = (scale * np.tan(angle[good])).astype(np.intp)
        azimuth = np.arctan2(row + 0.5 - centre[1], column + 0.5 - centre[0])
        sector = ((azimuth + math.pi) / (2 * math.pi) * SECTORS).astype(np.intp) % SECTORS
        length = int(radius.max()) + 1 if radius.size else 1
        place, values = sector * length + radius, image[good].astype(np.float64)
        size = SECTORS * length
        counts = np.bincount(place, minlength=size).astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.bincount(place, values, size) / counts
            variance = np.bincount(place, values**2, size) / counts - mean**2
            # A bin of equal counts is not without error: one count more or less is always possible.
            least = np.where(values.size and image.dtype.kind in "iu", np.maximum(np.abs(mean), 1 / counts), 0.0)
            error = np.sqrt(np.maximum(variance, least) / counts)
        shape = (SECTORS, length)
        return cls(counts.reshape(shape), mean.reshape(shape), error.reshape(shape), scale)

    def radius_of(self, angles: _Floats) -> _Floats:
        """Return the radius of a scattering angle [pixels]; infinite beyond 90°."""
        return np.where(angles < LARGEST_ANGLE, self.scale * np.tan(np.minimum(angles, LARGEST_ANGLE)), np.inf)

    def covers(self, radii: _Floats) -> npt.NDArray[np.bool_]:
        """Return which radii have pixels in some sector."""
        length = self.counts.shape[1]
        inside = (radii >= 2) & (radii < length - 2)
        seen = self.counts.sum(axis=0) > 0
        found: npt.NDArray[np.bool_] = inside & seen[np.where(inside, radii, 0).astype(np.intp)]
        return found

    @cached_property
    def whole(self) -> tuple[_Floats, _Floats]:
        """Mean over all sectors, and its standard error."""
        counts = self.counts.sum(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.nansum(self.mean * self.counts, axis=0) / counts
            error = np.sqrt(np.nansum((self.error * self.counts) ** 2, axis=0)) / counts
        return mean, error


def usable(image: npt.NDArray[Any], mask: npt.NDArray[np.bool_] | None) -> npt.NDArray[np.bool_]:
    """Return the pixels that hold a value: not masked, not negative, not NaN, not the mark of a bad pixel."""
    good: npt.NDArray[np.bool_] = np.isfinite(image) if image.dtype.kind == "f" else np.ones(image.shape, np.bool_)
    if image.dtype.kind in "if":
        good &= image >= 0
    elif image.dtype.kind == "u":
        good &= image < np.iinfo(image.dtype).max
    return good if mask is None else good & ~mask


def nearest_peak(mean: _Floats, error: _Floats, radius: float, window: float) -> float:
    """Return how far the highest peak within `window` of `radius` is off [pixels]; NaN where none is significant."""
    first, last = max(0, int(radius - window)), min(len(mean), int(radius + window) + 2)
    values, errors = mean[first:last], error[first:last]
    known = np.isfinite(values)
    if np.count_nonzero(known) < max(5, 0.6 * (last - first)):
        return math.nan
    filled = np.interp(np.arange(values.size), np.flatnonzero(known), values[known])
    # Rings stand on a background that falls or rises: a straight line below both sides is taken off.
    ends = max(1, values.size // 6)
    low, high = float(np.median(filled[:ends])), float(np.median(filled[-ends:]))
    level = np.interp(np.arange(values.size), [ends / 2, values.size - 1 - ends / 2], [low, high])
    height = np.where(known, filled - level, 0.0)
    top = int(np.argmax(height))
    if top in (0, values.size - 1) or not height[top] > _SIGNIFICANT * errors[top]:
        return math.nan
    left, right = top, top
    while left > 0 and height[left - 1] > height[top] / 2:
        left -= 1
    while right < values.size - 1 and height[right + 1] > height[top] / 2:
        right += 1
    if left == 0 or right == values.size - 1:  # a slope, not a peak
        return math.nan
    around = np.arange(left, right + 1)
    middle = float(np.average(around, weights=height[left : right + 1]))
    return first + middle + 0.5 - radius


def all_peaks(mean: _Floats, error: _Floats) -> _Floats:
    """Return the radii of all significant peaks of a profile [pixels]."""
    known = np.isfinite(mean)
    if np.count_nonzero(known) < 2 * _REACH:
        return np.zeros(0)
    filled = np.interp(np.arange(mean.size), np.flatnonzero(known), mean[known])
    around = np.lib.stride_tricks.sliding_window_view(np.pad(filled, _REACH, mode="edge"), 2 * _REACH + 1)
    foot = np.maximum(around[:, : _REACH + 1].min(axis=1), around[:, _REACH:].min(axis=1))
    near = around[:, _REACH - 3 : _REACH + 4]
    with np.errstate(invalid="ignore"):
        found = known & (filled == near.max(axis=1)) & (filled - foot > _SIGNIFICANT * error)
    middles: _Floats = np.flatnonzero(found).astype(np.float64) + 0.5
    return middles
