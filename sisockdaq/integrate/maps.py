"""Bin maps: which pixel counts to which bin, laid out for the kernels that read them once per frame.

Three layouts, each an array of one uint16 *entry* a pixel and, where pixels are split, float32 *shares*:

``whole``
    No splitting: the entry is the bin.
``pairs``
    Split pixels of at most two bins. Entry ``2 b`` has the share that falls in bin ``b``, entry ``2 b + 1`` the share
    in bin ``b + 1``; always the smaller of the two, so that the other, ``1 − share``, is as exact as the first.
``triples``
    Split pixels of up to three bins: the entry is the bin in the middle, with the shares in the bins before and after
    it; the rest is in the middle. Of two bins the one with the larger share is the middle, for the same reason.

The last two entries of each map mean *outside the range* (a good pixel, in no bin) and *masked*. Pixels too wide for
the layout stand in a `SideList`; in the map they are *outside*.

A `BinMap` holds arrays and numbers only: it can be stored and loaded as it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from sisockdaq.errors import GeometryError, MaskError
from sisockdaq.integrate import _build, _full
from sisockdaq.integrate._couples import Couples, find_couples
from sisockdaq.integrate._given import whole_number
from sisockdaq.integrate.geometry import Pixels, Split
from sisockdaq.integrate.threads import cores, cut, run_parts

__all__ = ["MOST_ENTRIES", "RANGE_STEP", "SPLITS", "BinMap", "Layout", "SideList", "Split", "build_map"]

SPLITS: tuple[str, ...] = get_args(Split)
Layout = Literal["whole", "pairs", "triples"]

MOST_ENTRIES = (1 << 16) - 2
"""Entries of a map beside *outside* and *masked*: what a uint16 can count."""

RANGE_STEP = 1.0 + float(np.finfo(np.float32).eps)
"""pyFAI widens the upper end of the range by this factor, so that the last pixel falls into the last bin."""

_WIDE_SHARE = 0.05
"""From this share of pixels over more than two bins on, ``triples`` is faster than ``pairs`` with a side list."""

_PIECES = 16
"""A map is made in so many pieces, each by whoever is free; a pixel's place does not depend on the others."""

_ANYWHERE = (-float("inf"), float("inf"))
"""Ends of the azimuth where there is no range of it."""


@dataclass(frozen=True, slots=True)
class SideList:
    """Pixels that the layout cannot hold, each with any shares in bins that follow each other.

    Attributes
    ----------
    pixel : ndarray of int64, (n,)
        Their numbers.
    first : ndarray of int32, (n,)
        The first bin of each.
    start : ndarray of int64, (n + 1,)
        Where the shares of each begin; pixel ``k`` has ``start[k + 1] - start[k]`` bins.
    share : ndarray of float64, (start[n],)
    """

    pixel: npt.NDArray[np.int64]
    first: npt.NDArray[np.int32]
    start: npt.NDArray[np.int64]
    share: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class BinMap:
    """One geometry's bins, ready for the kernels.

    Attributes
    ----------
    layout : str
        ``whole``, ``pairs`` or ``triples``.
    bins : int
        Bins of the curve.
    entries : int
        Entries beside *outside* (number ``entries``) and *masked* (``entries + 1``).
    axis : ndarray of float64, (bins,)
        Bin centres in pyFAI's internal unit.
    index : ndarray of uint16, (pixels rounded up to a multiple of four,)
        Entry of each pixel; the padding is *masked*.
    share : ndarray of float32, (n,), (n, 2) or (0,)
        For ``pairs``, ``triples`` and ``whole``.
    normalization : ndarray of float32, (pixels,)
        Weight of each pixel in the denominator.
    side : SideList
    couples : Couples
        For ``whole``: the same as `index`, for two pixels at a time. Made of it.
    """

    layout: Layout
    bins: int
    entries: int
    shape: tuple[int, int]
    axis: npt.NDArray[np.float64]
    index: npt.NDArray[np.uint16]
    share: npt.NDArray[np.float32]
    normalization: npt.NDArray[np.float32]
    side: SideList
    couples: Couples = field(init=False, repr=False)

    def __post_init__(self) -> None:
        couples = find_couples(self.index, self.normalization.size if self.layout == "whole" else 0)
        object.__setattr__(self, "couples", couples)

    @property
    def masked(self) -> int:
        """The entry of masked pixels."""
        return self.entries + 1

    @property
    def nbytes(self) -> int:
        """Memory that a frame's pass reads beside the frame [bytes]."""
        return (self.couples.words.nbytes or self.index.nbytes) + self.share.nbytes


def build_map(
    pixels: Pixels,
    mask: npt.NDArray[np.bool_] | None,
    *,
    bins: int,
    radial_range: tuple[float, float] | None = None,
    azimuth_range: tuple[float, float] | None = None,
) -> BinMap:
    """Assign every pixel to its bins exactly as pyFAI's sparse engines do.

    Parameters
    ----------
    pixels : Pixels
        Located for the splitting that is wanted, and with the azimuth where there is a range of it.
    mask : ndarray of bool, shape of the image, optional
        True where a pixel is not to be used.
    radial_range : (float, float), optional
        In pyFAI's internal unit; by default that of the pixels that are not masked.
    azimuth_range : (float, float), optional
        [rad], on the side of the discontinuity that the pixels' azimuth has. A pixel counts when any of it is inside
        (unsplit: its centre); all the others are *outside*.

    Raises
    ------
    MaskError
        When no pixel is left.
    ConfigurationError
        For more bins than the maps hold (65534), or none.
    """
    whole_number("bins", bins, 1, MOST_ENTRIES)
    hidden = np.zeros(pixels.centre.size, np.bool_) if mask is None else np.ascontiguousarray(mask).reshape(-1)
    low, high = _range(pixels, hidden, radial_range)
    width = (high - low) / bins
    axis = np.linspace(low + 0.5 * width, high - 0.5 * width, bins)
    ends = _azimuth_ends(pixels, azimuth_range)
    # A pixel without weight (polarization 1 at 2θ = 90°) takes part in the range, as in pyFAI, but in no bin.
    hidden = hidden | ~(pixels.normalization != 0)
    if pixels.split == "no":
        index = _empty_index(pixels.centre.size, bins)
        azimuth = _build.no_values() if ends is None or pixels.azimuth is None else pixels.azimuth
        target = index[: pixels.centre.size]
        _build.assign_bins(pixels.centre, azimuth, ends or _ANYWHERE, hidden, low, width, bins, target)
        no_share = np.empty(0, np.float32)
        return BinMap("whole", bins, bins, pixels.shape, axis, index, no_share, pixels.normalization, _no_side())
    return _split_map(_Scale(low, width, bins), pixels, hidden, ends, axis)


@dataclass(frozen=True, slots=True)
class _Scale:
    """The bins: where the first begins, how wide each is, and their number."""

    low: float
    width: float
    bins: int


@dataclass(frozen=True, slots=True)
class _Spread:
    """For each pixel its first bin, the bins that it touches (0: outside, -1: masked), and its first and last share."""

    first: npt.NDArray[np.int32]
    span: npt.NDArray[np.int32]
    share: npt.NDArray[np.float64]


def _azimuth_ends(pixels: Pixels, wanted: tuple[float, float] | None) -> tuple[float, float] | None:
    if wanted is None:
        return None
    if pixels.azimuth is None:
        raise ValueError("a range of azimuth needs pixels that were located with azimuth=True")
    low, high = min(wanted), max(wanted)
    if not high > low:
        raise GeometryError(f"the azimuth range from {low:g} to {high:g} is empty", remedy="give two different ends")
    return float(low), float(high)


def _range(pixels: Pixels, hidden: npt.NDArray[np.bool_], wanted: tuple[float, float] | None) -> tuple[float, float]:
    if pixels.corners is not None:
        low, high, number = _bounds_full(pixels.corners, pixels.shape[1], hidden)
    else:
        half_width = pixels.half_width if pixels.half_width is not None else _build.no_values()
        low, high, number = _build.bounds(pixels.centre, half_width, hidden)
    if number == 0:
        raise MaskError("the mask hides every pixel", remedy="in a mask, pixels other than 0 are not used")
    if not (np.isfinite(low) and np.isfinite(high)):
        raise GeometryError("the geometry puts pixels at places that are not numbers", remedy="check its parameters")
    if wanted is None:
        low, high = max(0.0, low), max(0.0, high)
    else:
        first, last, (low, high) = low, high, (min(wanted), max(wanted))
        if not high > low:
            raise GeometryError(f"the radial range from {low:g} to {high:g} is empty", remedy="give two different ends")
        if not math.isfinite(high - low):
            raise GeometryError("the radial range has no end", remedy="give two finite numbers")
        if high < first or low > last:
            where = "ends before the first" if high < first else "begins beyond the last"
            raise GeometryError(f"the radial range {where} pixel", remedy="is it in the unit of the axis?")
    return low, high * RANGE_STEP if high > 0 else high / RANGE_STEP


def _bounds_full(
    corners: npt.NDArray[np.float32], columns: int, hidden: npt.NDArray[np.bool_]
) -> tuple[float, float, int]:
    pieces = cut(hidden.size, _PIECES)
    found = run_parts(lambda k: _full.bounds_full(corners, columns, hidden, *pieces[k]), _PIECES, cores())
    lows, highs, numbers = np.array(found).T
    return float(lows.min()), float(highs.max()), int(numbers.sum())


def _split_map(
    scale: _Scale,
    pixels: Pixels,
    hidden: npt.NDArray[np.bool_],
    ends: tuple[float, float] | None,
    axis: npt.NDArray[np.float64],
) -> BinMap:
    number, bins = pixels.centre.size, scale.bins
    spread = _spread(scale, pixels, hidden, ends)
    wide = int(np.count_nonzero(spread.span > 2))
    used = int(np.count_nonzero(spread.span > 0))
    layout: Layout = "triples" if wide > _WIDE_SHARE * used or bins > MOST_ENTRIES // 2 else "pairs"
    limit, entries = (3, bins) if layout == "triples" else (2, 2 * bins)
    index = _empty_index(number, entries)
    packed: npt.NDArray[np.float32] = np.empty((number, 2) if layout == "triples" else number, np.float32)
    if layout == "triples":
        _build.pack_triples(spread.first, spread.span, spread.share, bins, index, packed)
    else:
        _build.pack_pairs(spread.first, spread.span, spread.share, bins, index, packed)
    side = _side_list(scale, pixels, spread, np.flatnonzero(spread.span > limit))
    return BinMap(layout, bins, entries, pixels.shape, axis, index, packed, pixels.normalization, side)


def _spread(scale: _Scale, pixels: Pixels, hidden: npt.NDArray[np.bool_], ends: tuple[float, float] | None) -> _Spread:
    number = pixels.centre.size
    spread = _Spread(np.zeros(number, np.int32), np.zeros(number, np.int32), np.zeros((number, 2)))
    targets = spread.first, spread.span, spread.share
    if pixels.corners is not None:
        place = pixels.corners, pixels.shape[1], pixels.orientation, ends or _ANYWHERE, hidden, scale.low, scale.width
        pieces = cut(number, _PIECES)

        def fill(piece: int) -> None:
            _full.spread_full(*place, np.zeros(scale.bins, np.float32), *targets, *pieces[piece])

        run_parts(fill, _PIECES, cores())
        return spread
    azimuth = reach = _build.no_values()
    if ends is not None and pixels.azimuth is not None and pixels.azimuth_half_width is not None:
        azimuth, reach = pixels.azimuth, pixels.azimuth_half_width
    boxes = pixels.centre, pixels.half_width, azimuth, reach, ends or _ANYWHERE
    _build.spread(*boxes, hidden, scale.low, scale.width, scale.bins, *targets)
    return spread


def _side_list(scale: _Scale, pixels: Pixels, spread: _Spread, over: npt.NDArray[np.int64]) -> SideList:
    """Put the pixels of these numbers aside, with all of their shares."""
    start = np.zeros(over.size + 1, np.int64)
    np.cumsum(spread.span[over], out=start[1:])
    first, share = spread.first[over], np.zeros(int(start[-1]))
    if pixels.corners is not None:
        areas = np.zeros(scale.bins, np.float32)
        place = pixels.corners, pixels.shape[1], pixels.orientation
        _full.spread_full_wide(*place, scale.low, scale.width, areas, over, first, start, share)
    else:
        _build.spread_wide(over, spread.span, spread.share, start, share)
    return SideList(over, first, start, share)


def _empty_index(pixels: int, entries: int) -> npt.NDArray[np.uint16]:
    """Make an index of *masked*, padded so that it can be read four pixels at a time."""
    return np.full((pixels + 3) // 4 * 4, entries + 1, np.uint16)


def _no_side() -> SideList:
    return SideList(np.empty(0, np.int64), np.empty(0, np.int32), np.zeros(1, np.int64), np.empty(0))
