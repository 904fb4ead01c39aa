"""Bin maps: which pixel counts to which bin, laid out for the kernels that read them once per frame.

Three layouts, each an array of one uint16 *entry* a pixel and, where pixels are split, float32 *shares*:

``whole``
    No splitting: the entry is the bin.
``pairs``
    Bounding boxes of at most two bins. Entry ``2 b`` has the share that falls in bin ``b``, entry ``2 b + 1`` the share
    in bin ``b + 1``; always the smaller of the two, so that the other, ``1 − share``, is as exact as the first.
``runs``
    Bounding boxes of several bins: entry ``(n − 1) · bins + b`` for a pixel over ``n`` bins from ``b`` on, with its
    shares in the first and the last; those between are equal.

The last two entries of each map mean *outside the range* (a good pixel, in no bin) and *masked*. Pixels too wide for
the layout stand in a `SideList`; in the map they are *outside*.

A `BinMap` holds arrays and numbers only: it can be stored and loaded as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from sisockdaq.errors import ConfigurationError, GeometryError, MaskError
from sisockdaq.integrate import _build
from sisockdaq.integrate.geometry import Pixels

__all__ = ["MOST_ENTRIES", "BinMap", "Layout", "SideList", "Split", "build_map"]

Split = Literal["no", "bbox"]
Layout = Literal["whole", "pairs", "runs"]

MOST_ENTRIES = (1 << 16) - 2
"""Entries of a map beside *outside* and *masked*: what a uint16 can count."""

_FLOAT32_STEP = 1.0 + float(np.finfo(np.float32).eps)
"""pyFAI widens the upper end of the range by this factor, so that the last pixel falls into the last bin."""

_WIDE_SHARE = 0.05
"""From this share of pixels over more than two bins on, ``runs`` is faster than ``pairs`` with a side list."""

_LONGEST_RUN = 4
"""Bins of a pixel in ``runs``; more are rare, and each would enlarge the accumulators by the number of bins."""


@dataclass(frozen=True, slots=True)
class SideList:
    """Pixels that the layout cannot hold: number, first bin, bins touched, share in the first and in the last."""

    pixel: npt.NDArray[np.int64]
    first: npt.NDArray[np.int32]
    span: npt.NDArray[np.int32]
    share: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class BinMap:
    """One geometry's bins, ready for the kernels.

    Attributes
    ----------
    layout : str
        ``whole``, ``pairs`` or ``runs``.
    bins : int
        Bins of the curve.
    entries : int
        Entries beside *outside* (number ``entries``) and *masked* (``entries + 1``).
    axis : ndarray of float64, (bins,)
        Bin centres in pyFAI's internal unit.
    index : ndarray of uint16, (pixels rounded up to a multiple of four,)
        Entry of each pixel; the padding is *masked*.
    share : ndarray of float32, (n,), (n, 2) or (0,)
        For ``pairs``, ``runs`` and ``whole``.
    normalization : ndarray of float32, (pixels,)
        Weight of each pixel in the denominator.
    side : SideList
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

    @property
    def masked(self) -> int:
        """The entry of masked pixels."""
        return self.entries + 1

    @property
    def nbytes(self) -> int:
        """Memory that a frame's pass reads beside the frame [bytes]."""
        return self.index.nbytes + self.share.nbytes


def build_map(
    pixels: Pixels,
    mask: npt.NDArray[np.bool_] | None,
    *,
    bins: int,
    radial_range: tuple[float, float] | None = None,
) -> BinMap:
    """Assign every pixel to its bins exactly as pyFAI's sparse engines do.

    Parameters
    ----------
    pixels : Pixels
        With half widths for bounding-box splitting, without for none.
    mask : ndarray of bool, shape of the image, optional
        True where a pixel is not to be used.
    radial_range : (float, float), optional
        In pyFAI's internal unit; by default that of the pixels that are not masked.

    Raises
    ------
    MaskError
        When no pixel is left.
    ConfigurationError
        For more bins than the maps hold (65534 unsplit, 32767 split), or none.
    """
    classes = 1 if pixels.half_width is None else 2
    most = MOST_ENTRIES // classes
    if not 1 <= bins <= most:
        raise ConfigurationError(f"bins is {bins}", remedy=f"from 1 to {most}" + (" with splitting" * (classes > 1)))
    hidden = np.zeros(pixels.centre.size, np.bool_) if mask is None else np.ascontiguousarray(mask).reshape(-1)
    low, high = _range(pixels, hidden, radial_range)
    width = (high - low) / bins
    axis = np.linspace(low + 0.5 * width, high - 0.5 * width, bins)
    # A pixel without weight (polarization 1 at 2θ = 90°) takes part in the range, as in pyFAI, but in no bin.
    hidden = hidden | ~(pixels.normalization != 0)
    if pixels.half_width is None:
        index = _empty_index(pixels.centre.size, bins)
        _build.assign_bins(pixels.centre, hidden, low, width, bins, index[: pixels.centre.size])
        no_share = np.empty(0, np.float32)
        return BinMap("whole", bins, bins, pixels.shape, axis, index, no_share, pixels.normalization, _no_side())
    return _split_map(pixels, hidden, low, width, bins, axis)


def _range(pixels: Pixels, hidden: npt.NDArray[np.bool_], wanted: tuple[float, float] | None) -> tuple[float, float]:
    half_width = pixels.half_width if pixels.half_width is not None else _build.empty_widths()
    low, high, number = _build.bounds(pixels.centre, half_width, hidden)
    if number == 0:
        raise MaskError("the mask hides every pixel", remedy="in a mask, pixels other than 0 are not used")
    if not (np.isfinite(low) and np.isfinite(high)):
        raise GeometryError("the geometry puts pixels at places that are not numbers", remedy="check its parameters")
    if wanted is None:
        low, high = max(0.0, low), max(0.0, high)
    else:
        low, high = min(wanted), max(wanted)
        if not high > low:
            raise GeometryError(f"the radial range from {low:g} to {high:g} is empty", remedy="give two different ends")
    return low, high * _FLOAT32_STEP if high > 0 else high / _FLOAT32_STEP


def _split_map(
    pixels: Pixels, hidden: npt.NDArray[np.bool_], low: float, width: float, bins: int, axis: npt.NDArray[np.float64]
) -> BinMap:
    number = pixels.centre.size
    first = np.zeros(number, np.int32)
    span = np.zeros(number, np.int32)
    share = np.zeros((number, 2))
    _build.spread(pixels.centre, pixels.half_width, hidden, low, width, bins, first, span, share)
    wide = int(np.count_nonzero(span > 2))
    used = int(np.count_nonzero(span > 0))
    longest = min(_LONGEST_RUN, MOST_ENTRIES // bins)
    layout: Layout = "runs" if wide > _WIDE_SHARE * used and longest > 2 else "pairs"
    limit = longest if layout == "runs" else 2
    entries = limit * bins
    index = _empty_index(number, entries)
    packed: npt.NDArray[np.float32] = np.empty((number, 2) if layout == "runs" else number, np.float32)
    if layout == "runs":
        _build.pack_runs(first, span, share, bins, limit, index, packed)
    else:
        _build.pack_pairs(first, span, share, bins, index, packed)
    over = np.flatnonzero(span > limit)
    side = SideList(over, first[over], span[over], share[over])
    return BinMap(layout, bins, entries, pixels.shape, axis, index, packed, pixels.normalization, side)


def _empty_index(pixels: int, entries: int) -> npt.NDArray[np.uint16]:
    """Make an index of *masked*, padded so that it can be read four pixels at a time."""
    return np.full((pixels + 3) // 4 * 4, entries + 1, np.uint16)


def _no_side() -> SideList:
    return SideList(np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.int32), np.empty((0, 2)))
