"""Straight cuts through a GISAXS image: the mean over a band of rows or columns, against q along it.

As in SAXSdog a cut along y averages columns and gives a point a row; one along x averages rows, which its position
counts from the bottom. Two slips of SAXSdog are not kept: with ``MaskRef`` -1 every pixel is valid (there, none is),
and a band that begins outside of the image is cut off at its edge (there, it is empty).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sisockdaq.saxsdog.binning import ANGSTROM
from sisockdaq.saxsdog.calibration import Calibration, SliceEntry

__all__ = ["Cut", "make_cut"]

_VERTICAL = "vertical scattering Vector $q_{v} [nm^{-1}]$"
_IN_PLANE = "horizontal scattering vector  $ q_{h} [nm^{-1}]$"


@dataclass(frozen=True, eq=False)
class Cut:
    """What one slice of a calibration makes of an image.

    Attributes
    ----------
    axis : ndarray of float64, shape (points,)
        q along the cut [nm⁻¹].
    label : str
        What the axis is called in a file.
    rows, columns : slice
        The band.
    valid : ndarray of bool
        The band's pixels that count.
    along : int
        The axis of the band that is kept: 0 for rows.
    """

    axis: npt.NDArray[np.float64]
    label: str
    rows: slice
    columns: slice
    valid: npt.NDArray[np.bool_]
    along: int

    def integrate(self, image: npt.NDArray[Any]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return the intensity and its error [counts per pixel]; NaN where no pixel is valid."""
        band = np.where(self.valid, image[self.rows, self.columns], 0)
        wide = np.int64 if band.dtype.kind in "iub" else np.float64
        total = band.sum(axis=1 - self.along, dtype=wide).astype(np.float64)
        area = self.valid.sum(axis=1 - self.along)
        with np.errstate(divide="ignore", invalid="ignore"):
            over = np.where(area > 0, 1.0 / area, np.nan)
            return total * over, np.sqrt(total) * over


def make_cut(calibration: Calibration, entry: SliceEntry, valid: npt.NDArray[np.bool_] | None) -> Cut:
    """Return the cut of one entry of ``Slices``.

    Parameters
    ----------
    valid : ndarray of bool, shape (rows, columns), or None
        Pixels that count; None for all.
    """
    height, width = calibration.geometry.image_size
    first, behind = max(entry.position - 1 - entry.margin, 0), entry.position + entry.margin
    if entry.direction == "y":
        rows, columns, along = slice(0, height), slice(first, min(behind, width)), 0
    else:
        rows, columns, along = slice(max(height - behind, 0), height - first), slice(0, width), 1
    pixels = np.ones((height, width), np.bool_) if valid is None else valid
    axis = _vertical(calibration, entry) if entry.plane == "Vertical" else _in_plane(calibration, entry)
    label = _VERTICAL if entry.plane == "Vertical" else _IN_PLANE
    return Cut(axis, label, rows, columns, np.ascontiguousarray(pixels[rows, columns]), along)


def _from_beam(calibration: Calibration, direction: str) -> npt.NDArray[np.float64]:
    """Return the distance of each row (y) or column (x) from the beam's centre [pixels]."""
    geometry = calibration.geometry
    height, width = geometry.image_size
    if direction == "y":
        away: npt.NDArray[np.float64] = np.arange(height, dtype=np.float64) - (height - geometry.beam_center[0])
        return away
    return np.arange(width, dtype=np.float64) - geometry.beam_center[1]


def _vertical(calibration: Calibration, entry: SliceEntry) -> npt.NDArray[np.float64]:
    geometry = calibration.geometry
    size = geometry.pixel_size[0 if entry.direction == "y" else -1] / 1000.0
    angle = np.arctan(_from_beam(calibration, entry.direction) * size / geometry.distance)
    incident = np.sin(entry.incident_angle / 180.0 * np.pi)
    q: npt.NDArray[np.float64] = -2.0 * np.pi / calibration.wavelength / ANGSTROM * (np.sin(angle) + incident)
    return q


def _in_plane(calibration: Calibration, entry: SliceEntry) -> npt.NDArray[np.float64]:
    geometry = calibration.geometry
    size = geometry.pixel_size[-1] / 1000.0  # SAXSdog takes the second number for either axis
    angle = np.arctan(_from_beam(calibration, entry.direction) * size / geometry.distance)
    q: npt.NDArray[np.float64] = 4.0 * np.pi / calibration.wavelength / ANGSTROM * np.sin(angle / 2.0)
    return q
