"""Which pixel counts how much in which bin: SAXSdog's oversampling, made into sums that run at the speed of memory.

Each pixel is split n × n, and each part belongs to the one bin that its own q (or azimuth) is cut off to. Many pixels
have the same parts in the same bins: they are one *cell*. To integrate an image is then one addition a pixel, into its
cell, and a few thousand products of cells and bins. Sums of counts stay integers until the end.

The geometry is computed by the same operations in the same order as SAXSdog's, since a part whose q lies on the edge
of a bin goes to either side by the last bit.
"""

from __future__ import annotations

import hashlib
import math
import os
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sisockdaq.saxsdog._kernels import add_cells, add_weighted_cells, count_labels, find_cells, spread_cells
from sisockdaq.saxsdog.calibration import Geometry, MaskEntry, Polarization

__all__ = ["ANGSTROM", "Binning", "make_binning", "scattering_angle"]

ANGSTROM = 1.00001495e-1
"""SAXSdog's ångström [nm]: 15 ppm off, and part of its results."""

_Floats = npt.NDArray[np.float64]

_PARTS = 2**18
"""So many parts of pixels are looked at together; bounds the memory."""

_THREADS = min(4, os.cpu_count() or 1)
"""Threads that compute where parts of pixels are; what comes out does not depend on it."""

_KEPT = 8
"""Binnings that are remembered."""


@dataclass(frozen=True, eq=False)
class Binning:
    """What one mask of a calibration makes of an image.

    Attributes
    ----------
    axis : ndarray of float64, shape (bins,)
        q [nm⁻¹], or the azimuth [rad], in the middle of each bin.
    areas : ndarray of float64, shape (bins,)
        Valid pixels in each bin.
    step : float
        Width of a bin.
    cells : ndarray of uint16 or uint32, shape (pixels,)
        The cell of each pixel; those masked have the last one, which counts for nothing.
    start, bins, weights : ndarray
        The entries of cell c are start[c] to start[c + 1]: the bin, and the share of a pixel.
    factor : ndarray of float64, shape (pixels,), or None
        What each pixel is multiplied by, for the polarisation.
    """

    axis: _Floats
    areas: _Floats
    step: float
    cells: npt.NDArray[Any]
    start: npt.NDArray[np.int32]
    bins: npt.NDArray[np.int32]
    weights: _Floats
    factor: _Floats | None = None

    def integrate(self, image: npt.NDArray[Any]) -> tuple[_Floats, _Floats]:
        """Return the intensity and its error [counts per pixel]; NaN where a bin has no valid pixel.

        Parameters
        ----------
        image : ndarray, shape (rows, columns)
            Counts, integers or floats.
        """
        pixels = _countable(image)
        out = np.zeros(self.axis.size)
        count = self.start.size  # the cells, and the one for what is masked
        if self.factor is None:
            sums = np.zeros(count, np.int64 if pixels.dtype.kind == "i" else np.float64)
            add_cells(pixels, self.cells, sums)
        else:
            halves = np.zeros((2, count))
            add_weighted_cells(pixels, self.factor, self.cells, halves)
            sums = halves[0] + halves[1]
        spread_cells(sums, self.start, self.bins, self.weights, out)
        with np.errstate(divide="ignore", invalid="ignore"):
            return out / self.areas, np.sqrt(out) / self.areas


def make_binning(
    geometry: Geometry,
    wavelength: float,
    entry: MaskEntry,
    valid: npt.NDArray[np.bool_],
    polarization: Polarization | None = None,
) -> Binning:
    """Return the binning of one mask; the last ones made are remembered.

    Parameters
    ----------
    wavelength : float
        [Å]
    valid : ndarray of bool, shape (rows, columns)
        Pixels that count.
    """
    said = (geometry.model_dump_json(), wavelength, entry.model_dump_json(exclude={"name", "mask_file"}), polarization)
    key = hashlib.sha256(repr(said).encode() + np.packbits(valid).tobytes()).hexdigest()
    with _lock:
        if key in _made:
            _made.move_to_end(key)
            return _made[key]
    made = _make(geometry, wavelength, entry, valid, polarization)
    with _lock:
        _made[key] = made
        while len(_made) > _KEPT:
            _made.popitem(last=False)
    return made


_made: OrderedDict[str, Binning] = OrderedDict()
_lock = threading.Lock()


def scattering_angle(radius: _Floats, azimuth: _Floats, geometry: Geometry) -> _Floats:
    """Return the scattering angle of places on the leaning sensor [rad].

    By the law of cosines: the sensor leans towards the ray by an angle that depends on the azimuth.

    Parameters
    ----------
    radius : ndarray
        Distance from the beam's centre, on the sensor [mm].
    azimuth : ndarray
        [rad], upwards positive.
    """
    distance = geometry.distance
    tilt, direction = geometry.tilt.angle / 180.0 * np.pi, geometry.tilt.rotation / 180.0 * np.pi
    # Where nothing leans, the product is 0 for every azimuth, and its sine need not be computed.
    lean = np.arcsin(np.sin(tilt) * np.sin(azimuth + direction + np.pi / 2)) if tilt else 0.0
    path2 = distance**2 + radius**2 - 2 * distance * radius * np.cos(np.pi / 2 + lean)
    angle: _Floats = np.arccos(-(radius**2 - path2 - distance**2) / (2 * np.sqrt(path2) * distance))
    return angle


@dataclass(frozen=True)
class _Sensor:
    geometry: Geometry
    wavelength: float
    splits: int = 1

    @property
    def pixel(self) -> float:
        """Size of a pixel [mm]; curves of masks use the first number for both axes."""
        return self.geometry.pixel_size[0] * 1e-3

    def places(self, rows: slice, columns: slice = slice(None)) -> tuple[_Floats, _Floats]:
        """Return radius [mm] and azimuth [rad] of parts of pixels, counted in parts."""
        height, width = self.geometry.image_size
        step, middle = 1.0 / self.splits, 0.5 / self.splits
        y = np.arange(height * self.splits)[rows] * step - height + self.geometry.beam_center[0] + middle
        x = np.arange(width * self.splits)[columns] * step - self.geometry.beam_center[1] + middle
        place = np.add.outer(1j * y, x)
        return np.absolute(place) * self.pixel, np.angle(place)

    def q(self, angle: _Floats) -> _Floats:
        """Return the scattering vector [nm⁻¹]."""
        made: _Floats = 4 * np.pi * np.sin(angle / 2) / self.wavelength / ANGSTROM
        return made

    def blocks(self) -> Iterator[slice]:
        """Yield ranges of whole rows of pixels, counted in parts."""
        height, width = self.geometry.image_size
        rows = max(1, _PARTS // (width * self.splits**2)) * self.splits
        for first in range(0, height * self.splits, rows):
            yield slice(first, min(first + rows, height * self.splits))

    def farthest(self) -> tuple[float, float]:
        """Return the largest radius [mm] and q [nm⁻¹]; they are at a corner, since rings bulge outwards."""
        corners = slice(None, None, self.geometry.image_size[0] * self.splits - 1 or None)
        sides = slice(None, None, self.geometry.image_size[1] * self.splits - 1 or None)
        radius, azimuth = self.places(corners, sides)
        return float(radius.max()), float(self.q(scattering_angle(radius, azimuth, self.geometry)).max())


@dataclass(frozen=True)
class _Labels:
    """Cuts q, or the azimuth, off to whole numbers: the label of a part."""

    sensor: _Sensor
    scale: float
    phi: bool

    @classmethod
    def of(cls, sensor: _Sensor, entry: MaskEntry) -> _Labels:
        radius, q = sensor.farthest()
        if not entry.phi_mode:
            # A bin is as wide as so many pixels are at the rim.
            return cls(sensor, 1 / q * radius / sensor.pixel / entry.pixels_per_bin, False)
        largest = max(float(sensor.places(rows)[1].max()) for rows in sensor.blocks())
        if largest <= 0:
            largest = math.pi
        return cls(sensor, 1 / largest * radius / entry.pixels_per_bin, True)

    def block(self, rows: slice) -> npt.NDArray[np.int64]:
        """Return the labels of rows of parts."""
        radius, azimuth = self.sensor.places(rows)
        if self.phi:
            return ((azimuth + np.pi) * self.scale).astype(np.int64)
        return (self.sensor.q(scattering_angle(radius, azimuth, self.sensor.geometry)) * self.scale).astype(np.int64)

    def axis(self, labels: npt.NDArray[np.int64]) -> _Floats:
        """Return the middles of the bins of labels."""
        middles = (labels.astype(np.float64) + 0.5) / self.scale
        return middles - np.pi if self.phi else middles


def _make(
    geometry: Geometry,
    wavelength: float,
    entry: MaskEntry,
    valid: npt.NDArray[np.bool_],
    polarization: Polarization | None,
) -> Binning:
    sensor = _Sensor(geometry, wavelength, entry.oversampling)
    whole = _Sensor(geometry, wavelength)
    if entry.phi_mode:
        valid = valid & _between(whole, entry)
    labels = _Labels.of(sensor, entry)
    cells, kinds, present = _cells(labels, valid.ravel())
    found = np.flatnonzero(present)
    places = np.cumsum(present) - 1  # the bin of each label: labels that no part has make no bin
    begins = np.ones(kinds.shape, np.bool_)  # of each run of equal labels
    begins[:, 1:] = kinds[:, 1:] != kinds[:, :-1]
    start = np.concatenate([[0], np.cumsum(begins.sum(axis=1))]).astype(np.int32)
    all_bins = places[kinds[begins]].astype(np.int32)
    all_weights = np.diff(np.flatnonzero(begins), append=kinds.size) / entry.oversampling**2
    numbers = np.bincount(cells, minlength=len(kinds) + 1)[:-1].astype(np.float64)
    areas = np.zeros(found.size)
    spread_cells(numbers, start, all_bins, all_weights, areas)
    factor = None if polarization is None else _polarized(whole, polarization)
    return Binning(labels.axis(found), areas, 1 / labels.scale, cells, start, all_bins, all_weights, factor)


def _cells(
    labels: _Labels, valid: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Return the cell of each pixel, each cell's labels (a row each, rising), and which labels there are."""
    splits, width = labels.sensor.splits, labels.sensor.geometry.image_size[1]
    cells = np.empty(valid.size, np.uint32)
    kinds = _Kinds(splits**2)
    present = np.zeros(0, np.bool_)
    for rows, block in _side_by_side(labels.block, labels.sensor.blocks()):
        here = np.bincount(block.ravel()) > 0
        here[: present.size] |= present[: here.size]
        present = here if here.size >= present.size else np.concatenate([here, present[here.size :]])
        pixels = slice(rows.start // splits * width, rows.stop // splits * width)
        parts = np.empty((pixels.stop - pixels.start, splits**2), np.int64)
        marks = np.empty(parts.shape[0], np.uint64)
        count_labels(block, splits, parts, marks)
        kinds.number(parts, marks, valid[pixels], cells[pixels])
    cells[~valid] = len(kinds)
    return (cells.astype(np.uint16) if len(kinds) < 2**16 else cells), kinds.rows, present


class _Kinds:
    """The different rows of labels that pixels have; each is a cell."""

    def __init__(self, parts: int) -> None:
        self._found = 0
        self._rows = np.empty((0, parts), np.int64)
        self._marks = np.empty(0, np.uint64)
        self._grow()

    def __len__(self) -> int:
        return self._found

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """The rows, in the order in which they were met."""
        return self._rows[: self._found]

    def number(
        self, parts: npt.NDArray[np.int64], marks: npt.NDArray[np.uint64], valid: npt.NDArray[np.bool_], out: Any
    ) -> None:
        """Write the number of each valid pixel's row into ``out``."""
        at = 0
        while at < marks.size:
            rest = slice(at, None)
            self._found, more = find_cells(
                parts[rest], marks[rest], valid[rest], self._table, self._rows, self._marks, self._found, out[rest]
            )
            at += more
            if at < marks.size:
                self._grow()

    def _grow(self) -> None:
        rows, marks = self.rows, self._marks[: self._found]
        room = max(2**14, 2 * self._marks.size)
        self._rows, self._marks = np.empty((room, rows.shape[1]), np.int64), np.empty(room, np.uint64)
        self._table = np.full(4 * room, -1, np.int64)  # mostly empty, so that what is looked for is found at once
        again = np.empty(self._found, np.uint32)  # of the type that cells have, so that one kernel is compiled
        find_cells(rows, marks, np.ones(self._found, np.bool_), self._table, self._rows, self._marks, 0, again)


def _side_by_side(
    work: Callable[[slice], npt.NDArray[np.int64]], pieces: Iterator[slice]
) -> Iterator[tuple[slice, npt.NDArray[np.int64]]]:
    """Yield each piece and what becomes of it, in their order; a few are worked on at once."""
    with ThreadPoolExecutor(_THREADS) as pool:
        under_way: deque[tuple[slice, Future[npt.NDArray[np.int64]]]] = deque()
        for piece in pieces:
            under_way.append((piece, pool.submit(work, piece)))
            if len(under_way) > _THREADS:
                first, made = under_way.popleft()
                yield first, made.result()
        for first, made in under_way:
            yield first, made.result()


def _between(whole: _Sensor, entry: MaskEntry) -> npt.NDArray[np.bool_]:
    """Return the pixels whose middle lies between qStart and qStop."""
    radius, azimuth = whole.places(slice(None))
    q = whole.q(scattering_angle(radius, azimuth, whole.geometry))
    inside: npt.NDArray[np.bool_] = ~((q < entry.q_start) | (q > entry.q_stop))
    return inside


def _polarized(whole: _Sensor, polarization: Polarization) -> _Floats:
    """Return 1 / (how much of the beam a pixel sees, for its direction to the beam's polarisation)."""
    radius, azimuth = whole.places(slice(None))
    angle = scattering_angle(radius, azimuth, whole.geometry)
    turned = azimuth - (polarization.angle / 180.0 * np.pi - np.pi / 2)
    share = polarization.fraction
    seen = share * (1.0 - np.square(np.sin(turned) * np.sin(angle)))
    seen = seen + (1.0 - share) * (1.0 - np.square(np.cos(turned) * np.sin(angle)))
    factor: _Floats = (1.0 / seen).ravel()
    return factor


def _countable(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the pixels in a row, as int32, int64 or float64: so few that each is compiled once."""
    flat = np.ascontiguousarray(image).reshape(-1)
    if flat.dtype.kind == "b":
        return flat.astype(np.int32)
    if flat.dtype.kind not in "iu":
        return flat.astype(np.float64, copy=False)
    if flat.dtype == np.uint64:
        return flat.astype(np.float64)
    return flat.astype(np.int32 if flat.dtype.itemsize < 4 or flat.dtype == np.int32 else np.int64, copy=False)
