"""Which pixel counts to which bin of a cake, laid out for the kernels of `_cake`.

Bins are numbered azimuth by azimuth: bin ``a · radial + r``. Unsplit, each pixel has the number of its bin. Split, it
has a *segment*: two to four neighbouring bins (``lanes``) of one azimuth, and a share of each; what does not fit, as of
pixels near the beam that reach over many azimuths, stands in a list beside. How many lanes is chosen so that a frame's
pass reads least.

The two numbers after the last bin mean *outside the range* and *masked*.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from sisockdaq.errors import ConfigurationError, GeometryError, MaskError
from sisockdaq.integrate import _build, _cake_build, _cake_full
from sisockdaq.integrate._blocks import BLOCK
from sisockdaq.integrate.geometry import Pixels

__all__ = ["MOST_BINS", "CakeMap", "build_cake_map"]

MOST_BINS = 1 << 28
"""Bins of a cake; far more than any frame has pixels for."""

_FLOAT32_STEP = 1.0 + float(np.finfo(np.float32).eps)
"""pyFAI widens the upper ends of both ranges by this factor, so that the last pixel falls into the last bin."""

_HALF_TURN = float(np.float32(np.pi))
"""pyFAI's end of the azimuth [rad]: π as float32, a little more than π."""

_PART = 1 << 19
_MOST_PARTS = 4
"""A frame is worked on in parts of at least so many pixels and at most so many parts, each with accumulators of its
own: the order of additions must not depend on the number of threads, and each part costs some megabytes."""

_SAMPLE = 37
"""One pixel of so many is looked at to choose the number of lanes."""

_BESIDE = 2.5
"""What reading a byte of the list beside costs, where one of the pixels' own segments costs 1."""


@dataclass(frozen=True, slots=True)
class CakeMap:
    """One geometry's cake.

    Attributes
    ----------
    shape : (int, int)
        Rows and columns of the images.
    bins : (int, int)
        Radial, azimuthal.
    axis : ndarray of float64, (radial,)
        Bin centres in pyFAI's internal unit.
    azimuth : ndarray of float64, (azimuthal,)
        Bin centres [rad].
    lanes : int
        Bins of a segment; 1 where pixels are not split.
    index : ndarray of uint32, (pixels,)
        First bin of each pixel's segment.
    share : ndarray of float32, (pixels · lanes,) or (0,)
    more_pixel, more_first : ndarray of uint32, (n,)
        The list beside, in image order: the pixel and the first bin of each segment.
    more_share : ndarray of float32, (n · lanes,)
    normalization : ndarray of float32, (pixels,)
        Weight of each pixel in the denominator.
    """

    shape: tuple[int, int]
    bins: tuple[int, int]
    axis: npt.NDArray[np.float64]
    azimuth: npt.NDArray[np.float64]
    lanes: int
    index: npt.NDArray[np.uint32]
    share: npt.NDArray[np.float32]
    more_pixel: npt.NDArray[np.uint32]
    more_first: npt.NDArray[np.uint32]
    more_share: npt.NDArray[np.float32]
    normalization: npt.NDArray[np.float32]

    @property
    def size(self) -> int:
        """Number of all bins."""
        return self.bins[0] * self.bins[1]

    @property
    def masked(self) -> int:
        """The number that stands for masked pixels."""
        return self.size + 1

    @property
    def length(self) -> int:
        """Accumulators that are added to: bins, *outside*, *masked*, and what a segment reaches beyond."""
        return self.size + 2 + self.lanes

    @property
    def split(self) -> bool:
        """Whether a pixel can count to several bins."""
        return self.share.size > 0

    @property
    def nbytes(self) -> int:
        """Memory that a frame's pass reads beside the frame [bytes]."""
        beside = self.more_pixel.nbytes + self.more_first.nbytes + self.more_share.nbytes
        return self.index.nbytes + self.share.nbytes + beside

    def cut(self) -> npt.NDArray[np.int64]:
        """Where in the list beside each block of pixels begins, and where the last one ends."""
        blocks = -(-self.index.size // BLOCK)
        return np.searchsorted(self.more_pixel, np.arange(blocks + 1) * BLOCK).astype(np.int64)

    def parts(self) -> tuple[list[int], npt.NDArray[np.int64]]:
        """Where the parts begin and end that a frame is worked on in, and the bins that each adds to (begin, end).

        Parts are cut where they share few bins, if that is near the middle: most often at the row of the beam.
        """
        reach = self._reach_of_blocks()
        number = max(1, min(_MOST_PARTS, self.index.size // _PART))
        cuts = [0, len(reach)]
        while len(cuts) <= number:
            cuts = sorted({*cuts, *(_best_cut(reach, *ends) for ends in pairwise(cuts))})
        ends = np.array([_joined(reach[begin:end]) for begin, end in pairwise(cuts)], np.int64)
        return [min(cut * BLOCK, self.index.size) for cut in cuts], ends

    def _reach_of_blocks(self) -> npt.NDArray[np.int64]:
        """For each block of pixels the first bin that it adds to, and the one after the last; (size, 0) for none."""
        blocks = np.arange(0, self.index.size, BLOCK)
        inside = self.index < self.size
        low = np.minimum.reduceat(np.where(inside, self.index, self.size), blocks).astype(np.int64)
        high = np.maximum.reduceat(np.where(inside, self.index, 0), blocks).astype(np.int64)
        high += np.where(np.logical_or.reduceat(inside, blocks), self.lanes, 0)
        block = self.more_pixel // BLOCK
        np.minimum.at(low, block, self.more_first)
        np.maximum.at(high, block, self.more_first.astype(np.int64) + self.lanes)
        return np.stack([low, np.minimum(high, self.size)], 1)


def _joined(reach: npt.NDArray[np.int64]) -> tuple[int, int]:
    low, high = int(reach[:, 0].min()), int(reach[:, 1].max())
    return (low, high) if low < high else (0, 0)


def _best_cut(reach: npt.NDArray[np.int64], begin: int, end: int) -> int:
    """Cut blocks into two parts of at least a third, so that both together reach over the fewest bins."""
    third = (end - begin) // 3
    part = reach[begin:end]
    before = np.maximum.accumulate(part[:, 1]) - np.minimum.accumulate(part[:, 0])
    after = np.maximum.accumulate(part[::-1, 1])[::-1] - np.minimum.accumulate(part[::-1, 0])[::-1]
    cuts = np.arange(max(third, 1), end - begin - third)
    if not cuts.size:
        return begin + (end - begin) // 2
    return begin + int(cuts[np.argmin(before[cuts - 1] + after[cuts])])


def build_cake_map(
    pixels: Pixels,
    mask: npt.NDArray[np.bool_] | None,
    *,
    bins: tuple[int, int],
    radial_range: tuple[float, float] | None = None,
    azimuth_range: tuple[float, float] | None = None,
    at_pi: bool = True,
) -> CakeMap:
    """Assign every pixel to its bins exactly as pyFAI's sparse engines do.

    Parameters
    ----------
    pixels : Pixels
        Located with their azimuth, for the splitting that is wanted.
    mask : ndarray of bool, shape of the image, optional
        True where a pixel is not to be used.
    bins : (int, int)
        Radial, azimuthal.
    radial_range : (float, float), optional
        In pyFAI's internal unit; by default that of the pixels that are not masked.
    azimuth_range : (float, float), optional
        [rad]; by default that of the pixels that are not masked.
    at_pi : bool
        Whether the azimuth's discontinuity is at π; else at 0.

    Raises
    ------
    MaskError
        When no pixel is left.
    ConfigurationError
        For less than one bin, or too many.
    """
    for name, number in zip(("bins", "azimuth_bins"), bins, strict=True):
        if not 1 <= number <= MOST_BINS // max(1, min(bins)):
            raise ConfigurationError(f"{name} is {number}", remedy=f"1 or more, and no more than {MOST_BINS} in all")
    hidden = np.zeros(pixels.centre.size, np.bool_) if mask is None else np.ascontiguousarray(mask).reshape(-1)
    if hidden.all():
        raise MaskError("the mask hides every pixel", remedy="in a mask, pixels other than 0 are not used")
    scales = (
        _Scale.over(_radial_ends(pixels, hidden, radial_range), bins[0]),
        _Scale.over(_azimuth_ends(pixels, hidden, azimuth_range, at_pi), bins[1]),
    )
    # A pixel without weight (polarization 1 at 2θ = 90°) takes part in the ranges, as in pyFAI, but in no bin.
    hidden = hidden | ~(pixels.normalization != 0)
    segments = _unsplit(pixels, hidden, scales) if pixels.split == "no" else _split(pixels, hidden, scales, at_pi)
    radial, azimuthal = scales[0].centres, scales[1].centres
    return CakeMap(pixels.shape, bins, radial, azimuthal, *segments, pixels.normalization)


@dataclass(frozen=True, slots=True)
class _Scale:
    """Bins of one axis: the ends of the range, its upper end widened as pyFAI's is, and the width of a bin."""

    low: float
    high: float
    limit: float
    width: float
    bins: int

    @classmethod
    def over(cls, ends: tuple[float, float], bins: int) -> _Scale:
        low, high = ends
        limit = high * _FLOAT32_STEP if high > 0 else high / _FLOAT32_STEP
        return cls(low, high, limit, (limit - low) / bins, bins)

    @property
    def centres(self) -> npt.NDArray[np.float64]:
        return np.linspace(self.low + 0.5 * self.width, self.limit - 0.5 * self.width, self.bins)


Scales = tuple[_Scale, _Scale]
Segments = tuple[int, Any, Any, Any, Any, Any]


def _ends(
    pixels: Pixels, hidden: npt.NDArray[np.bool_], axis: int, centre: npt.NDArray[np.float64] | None, reach: Any
) -> tuple[float, float]:
    if pixels.corners is not None:
        low, high = _cake_build.bounds_corners(pixels.corners, axis, pixels.shape[1], hidden)
    else:
        low, high, _ = _build.bounds(centre, _build.no_values() if reach is None else reach, hidden)
    if not (math.isfinite(low) and math.isfinite(high)):
        raise GeometryError("the geometry puts pixels at places that are not numbers", remedy="check its parameters")
    return float(low), float(high)


def _radial_ends(
    pixels: Pixels, hidden: npt.NDArray[np.bool_], wanted: tuple[float, float] | None
) -> tuple[float, float]:
    low, high = _ends(pixels, hidden, 0, pixels.centre, pixels.half_width)
    return _chosen("radial", (max(0.0, low), max(0.0, high)), wanted)


def _azimuth_ends(
    pixels: Pixels, hidden: npt.NDArray[np.bool_], wanted: tuple[float, float] | None, at_pi: bool
) -> tuple[float, float]:
    if pixels.corners is None and pixels.azimuth is None:
        raise ValueError("a cake needs pixels that were located with azimuth=True")
    low, high = _ends(pixels, hidden, 1, pixels.azimuth, pixels.azimuth_half_width)
    circle = (-_HALF_TURN, _HALF_TURN) if at_pi else (0.0, 2 * _HALF_TURN)
    return _chosen("azimuth", (max(low, circle[0]), min(high, circle[1])), wanted)


def _chosen(what: str, found: tuple[float, float], wanted: tuple[float, float] | None) -> tuple[float, float]:
    if wanted is None:
        return found
    low, high = float(min(wanted)), float(max(wanted))
    if not high > low:
        raise GeometryError(f"the {what} range from {low:g} to {high:g} is empty", remedy="give two different ends")
    return low, high


def _unsplit(pixels: Pixels, hidden: npt.NDArray[np.bool_], scales: Scales) -> Segments:
    index = np.empty(hidden.size, np.uint32)
    low, width, bins = _described(scales)
    _cake_build.assign_cells(pixels.centre, pixels.azimuth, hidden, low, width, bins, index)
    none, number = np.empty(0, np.float32), np.empty(0, np.uint32)
    return 1, index, none, number, number, none


def _split(pixels: Pixels, hidden: npt.NDArray[np.bool_], scales: Scales, at_pi: bool) -> Segments:
    low, width, bins = _described(scales)
    lanes = _choose_lanes(pixels, hidden, scales[0])
    index, share = np.empty(hidden.size, np.uint32), np.zeros(hidden.size * lanes, np.float32)
    room = hidden.size // 2 + 64
    more = np.empty(room, np.uint32), np.empty(room, np.uint32), np.empty(room * lanes, np.float32)
    pixel = place = 0
    while True:
        target: tuple[Any, ...] = lanes, pixel, place, index, share, *more
        if pixels.corners is not None:
            places = pixels.corners, pixels.shape[1], pixels.orientation, at_pi
            high = scales[0].high, scales[1].high
            pixel, place = _cake_full.fill_quadrangles(
                *places, hidden, low, high, scales[1].limit, width, bins, *target
            )
        else:
            boxes = pixels.centre, pixels.half_width, pixels.azimuth, pixels.azimuth_half_width
            pixel, place = _cake_build.fill_boxes(*boxes, hidden, low, width, bins, *target)
        if pixel == hidden.size:
            number, first, part = more
            return lanes, index, share, number[:place].copy(), first[:place].copy(), part[: place * lanes].copy()
        # A pixel needs at most every azimuth, and as many segments as all radial bins make.
        room = max(2 * room, place + bins[1] * (bins[0] // lanes + 2))
        more = _grown(more[0], place, room), _grown(more[1], place, room), _grown(more[2], place * lanes, room * lanes)


def _grown(array: npt.NDArray[Any], used: int, size: int) -> npt.NDArray[Any]:
    larger = np.empty(size, array.dtype)
    larger[:used] = array[:used]
    return larger


def _described(scales: Scales) -> tuple[tuple[float, float], tuple[float, float], tuple[int, int]]:
    radial, azimuth = scales
    return (radial.low, azimuth.low), (radial.width, azimuth.width), (radial.bins, azimuth.bins)


def _choose_lanes(pixels: Pixels, hidden: npt.NDArray[np.bool_], scale: _Scale) -> int:
    """Look at some pixels, and return the number of lanes (2 to 4) with which a frame's pass reads least."""
    chosen = np.flatnonzero(~hidden)[::_SAMPLE]
    if pixels.corners is None or pixels.half_width is not None:
        reach = pixels.half_width[chosen] if pixels.half_width is not None else 0.0
        low, high = pixels.centre[chosen] - reach, pixels.centre[chosen] + reach
    else:
        row, column = np.divmod(chosen, pixels.shape[1])
        if pixels.corners.ndim == 4:
            places = pixels.corners[row, column, :, 0]
        else:
            places = np.stack([pixels.corners[row + k // 2, column + k % 2, 0] for k in range(4)], 1)
        low, high = places.min(1).astype(np.float64), places.max(1).astype(np.float64)
    first, last = (np.clip((ends - scale.low) // scale.width, 0, scale.bins - 1) for ends in (low, high))
    wide = (last - first).astype(np.int64) + 1

    def cost(lanes: int) -> float:
        beside = float((-(-wide // lanes) - 1).mean()) if wide.size else 0.0
        return 4 + 4 * lanes + _BESIDE * beside * (8 + 4 * lanes)

    return min((2, 3, 4), key=cost)
