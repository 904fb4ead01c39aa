"""One frame over one bin map: chooses the kernel, gives it memory, and makes sums by bin of what it leaves.

Each call has its own accumulators (some 10 kB to 400 kB), so that several threads may work with one map. The global
interpreter lock is free during the pass over the pixels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sisockdaq.integrate import _blocks, _split, _whole
from sisockdaq.integrate.maps import BinMap, Layout, SideList

__all__ = ["Frame", "Sums", "prepare", "region_sum", "sum_frame", "warm_up", "zero_step"]

ErrorModel = Literal["poisson"]

_SUPPORTED = "biuf"
"""numpy kinds of pixels: bool, signed, unsigned, float."""


@dataclass(frozen=True, slots=True)
class Frame:
    """An image as the kernels take it: contiguous, native, read-only, with what marks a pixel as unusable.

    Attributes
    ----------
    image : ndarray, (rows, columns)
    pixels : ndarray, (rows · columns,)
        The same memory.
    check : bool
        Whether pixels can be unusable at all.
    dummy : scalar of the pixels' type
    lowest : scalar of the pixels' type
    zero : scalar of the type in which pixels are summed
    """

    image: npt.NDArray[Any]
    pixels: npt.NDArray[Any]
    check: bool
    dummy: Any
    lowest: Any
    zero: Any


@dataclass(frozen=True, slots=True)
class Sums:
    """What one frame adds up to.

    Attributes
    ----------
    signal : ndarray of uint64, int64 or float64, (bins,)
    variance : ndarray of float64, (bins,) or None
        Σ share² · max(1, v).
    lost_weight, lost_count : ndarray of float64, (bins,) or None
        What unusable pixels take from the denominators; None when there were none.
    unusable : int
        Their number, masked ones not counted.
    total : int or float
        Sum of all usable pixels that are not masked, inside the range or not.
    maximum : int, float or None
        Their maximum; None where not asked for.
    """

    signal: npt.NDArray[Any]
    variance: npt.NDArray[np.float64] | None
    lost_weight: npt.NDArray[np.float64] | None
    lost_count: npt.NDArray[np.float64] | None
    unusable: int
    total: float
    maximum: float | None


def prepare(image: npt.NDArray[Any], dummy: float | None) -> Frame:
    """Bring an image into the form that the kernels take; copies only what is not contiguous or not native."""
    kind = image.dtype.kind
    if kind not in _SUPPORTED or image.dtype.itemsize not in (1, 2, 4, 8):
        raise TypeError(f"pixels of type {image.dtype} cannot be integrated; integers or floats can")
    image = np.ascontiguousarray(image, image.dtype.newbyteorder("="))
    if kind == "b":
        image = image.view(np.uint8)
    image = image.view()
    image.flags.writeable = False  # one type for the compiler, whether the memory may be written or not
    scalar = image.dtype.type
    if kind == "f":
        marker = scalar(np.nan if dummy is None else dummy)
        return Frame(image, image.reshape(-1), True, marker, scalar(-np.inf), np.float64(0))
    limits = np.iinfo(image.dtype)
    check = dummy is not None and limits.min <= dummy <= limits.max and float(dummy).is_integer()
    zero = np.int64(0) if kind == "i" else np.uint64(0)
    return Frame(image, image.reshape(-1), check, scalar(int(dummy or 0) if check else 0), scalar(limits.min), zero)


def zero_step(dtype: np.dtype[Any], most: int) -> int | None:
    """Return the power of two by which zeros can be counted within a sum, for at most `most` pixels an entry.

    None where sum and count do not fit into 64 bits, or the pixels are not unsigned.
    """
    if dtype.kind != "u":
        return None
    bits = int(most).bit_length()
    step = dtype.itemsize * 8 + bits
    return 1 << step if step + bits <= 64 else None


def sum_frame(
    bin_map: BinMap, frame: Frame, *, errors: bool = False, maximum: bool = False, most: int | None = None
) -> Sums:
    """Add one frame up over the map.

    Parameters
    ----------
    errors : bool
        Whether to compute the variance of Poisson statistics.
    maximum : bool
        Whether to find the maximum.
    most : int, optional
        Largest number of pixels in one entry of the map; makes errors of unsplit integer images faster.
    """
    if bin_map.layout == "whole":
        return _sum_whole(bin_map, frame, errors, maximum, most)
    if bin_map.layout == "pairs":
        return _sum_pairs(bin_map, frame, errors, maximum)
    return _sum_runs(bin_map, frame, errors, maximum)


def region_sum(bin_map: BinMap, frame: Frame, box: tuple[int, int, int, int]) -> float:
    """Sum of the usable pixels with x0 ≤ x < x1 and y0 ≤ y < y1 that are not masked; ``box`` is (x0, y0, x1, y1)."""
    masked = np.uint16(bin_map.masked)
    total = _blocks.region_sum(frame.image, bin_map.index, masked, frame.check, frame.dummy, box, frame.zero)
    return _plain(total)


def _sum_whole(bin_map: BinMap, frame: Frame, errors: bool, maximum: bool, most: int | None) -> Sums:
    bins, stride = bin_map.bins, bin_map.entries + 2
    banks = np.zeros(4 * stride, frame.zero.dtype)
    lost = np.zeros((stride, 2))
    step = zero_step(frame.pixels.dtype, most) if errors and most is not None else None
    common = (
        frame.pixels,
        bin_map.index.view(np.uint64),
        bin_map.index,
        bin_map.normalization,
        stride,
        frame.check,
        frame.dummy,
        maximum,
        frame.lowest,
        banks,
        lost,
    )
    variance = None
    if step is not None:
        highest = _whole.add_whole_counting_zeros(*common, np.uint64(step))
        zeros = (banks // np.uint64(step)).reshape(4, stride).sum(0)
        banks &= np.uint64(step - 1)
        entries = banks.reshape(4, stride).sum(0)
        variance = (entries + zeros)[:bins].astype(np.float64)
    else:
        highest = _whole.add_whole(*common)
        entries = banks.reshape(4, stride).sum(0)
        if errors:
            every = np.zeros(stride)
            _whole.add_whole_variance(frame.pixels, bin_map.index, frame.check, frame.dummy, every)
            variance = every[:bins]
    unusable = int(lost[:-1, 1].sum()) if frame.check else 0
    return Sums(
        signal=entries[:bins],
        variance=variance,
        lost_weight=lost[:bins, 0] if unusable else None,
        lost_count=lost[:bins, 1] if unusable else None,
        unusable=unusable,
        total=_plain(entries[:-1].sum()),
        maximum=_plain(highest) if maximum else None,
    )


def _sum_pairs(bin_map: BinMap, frame: Frame, errors: bool, maximum: bool) -> Sums:
    bins, stride, lanes = bin_map.bins, bin_map.entries + 2, 4 if errors else 2
    banks = np.zeros(4 * stride * lanes)
    lost = np.zeros((stride, 4)) if frame.check else np.zeros((0, 4))
    highest = _split.add_pairs(
        frame.pixels,
        bin_map.index.view(np.uint64),
        bin_map.index,
        bin_map.share,
        bin_map.normalization,
        stride,
        frame.check,
        frame.dummy,
        maximum,
        frame.lowest,
        errors,
        banks,
        lost,
    )
    entries = banks.reshape(4, stride, lanes).sum(0)
    signal, variance = np.zeros(bins + 1), np.zeros(bins + 1 if errors else 0)
    _split.unfold_pairs(entries, bins, 0, signal)
    if errors:
        _split.unfold_pairs_errors(entries, bins, variance)
    unusable = int(lost[:-1, 3].sum()) if frame.check else 0
    lost_weight, lost_count = np.zeros(bins + 1), np.zeros(bins + 1)
    if unusable:
        _split.unfold_pairs(lost, bins, 0, lost_weight)
        _split.unfold_pairs(lost, bins, 2, lost_count)
    _add_side(bin_map.side, bin_map, frame, signal, variance, lost_weight, lost_count)
    return Sums(
        signal=signal[:bins],
        variance=variance[:bins] if errors else None,
        lost_weight=lost_weight[:bins] if unusable else None,
        lost_count=lost_count[:bins] if unusable else None,
        unusable=unusable,
        total=float(entries[:-1, 1].sum()),
        maximum=_plain(highest) if maximum else None,
    )


def _sum_runs(bin_map: BinMap, frame: Frame, errors: bool, maximum: bool) -> Sums:
    bins, stride = bin_map.bins, bin_map.entries + 2
    banks = np.zeros(4 * stride)
    squares = np.zeros(4 * stride if errors else 0)
    lost = np.zeros((stride, 6)) if frame.check else np.zeros((0, 6))
    highest = _split.add_runs(
        frame.pixels,
        bin_map.index,
        bin_map.share,
        bin_map.normalization,
        stride,
        frame.check,
        frame.dummy,
        maximum,
        frame.lowest,
        banks,
        squares,
        lost,
    )
    entries = banks.reshape(stride, 4)
    signal, variance = np.zeros(bins), np.zeros(bins if errors else 0)
    _split.unfold_runs(entries, bins, 0, signal)
    if errors:
        _split.unfold_runs_errors(squares.reshape(stride, 4), bins, variance)
    unusable = int(lost[:-1, 5].sum()) if frame.check else 0
    lost_weight, lost_count = np.zeros(bins), np.zeros(bins)
    if unusable:
        _split.unfold_runs(lost, bins, 0, lost_weight)
        _split.unfold_runs(lost, bins, 3, lost_count)
    _add_side(bin_map.side, bin_map, frame, signal, variance, lost_weight, lost_count)
    return Sums(
        signal=signal,
        variance=variance if errors else None,
        lost_weight=lost_weight if unusable else None,
        lost_count=lost_count if unusable else None,
        unusable=unusable,
        total=float(entries[:-1, 2].sum()),
        maximum=_plain(highest) if maximum else None,
    )


def _add_side(
    side: SideList,
    bin_map: BinMap,
    frame: Frame,
    signal: npt.NDArray[np.float64],
    variance: npt.NDArray[np.float64],
    lost_weight: npt.NDArray[np.float64],
    lost_count: npt.NDArray[np.float64],
) -> None:
    if side.pixel.size == 0:
        return
    _split.add_side(
        frame.pixels,
        side.pixel,
        side.first,
        side.span,
        side.share,
        bin_map.normalization,
        frame.check,
        frame.dummy,
        signal,
        variance,
        lost_weight,
        lost_count,
    )


def _plain(value: Any) -> float:
    """Make a Python number; integers stay exact."""
    return value.item() if isinstance(value, np.generic) else value  # type: ignore[no-any-return]


def warm_up(
    dtypes: Iterable[npt.DTypeLike] = (np.uint16, np.uint32, np.int32, np.float32),
    layouts: Iterable[Layout] = ("whole", "pairs", "runs"),
    errors: Iterable[bool] = (False, True),
) -> None:
    """Compile (or load from numba's cache) the kernels for images of these types."""
    wanted = list(errors)
    for layout in layouts:
        bin_map = _tiny_map(layout)
        for dtype in dtypes:
            frame = prepare(np.ones((2, 4), dtype), 1)
            for with_errors in wanted:
                sum_frame(bin_map, frame, errors=with_errors, maximum=True, most=8)
            region_sum(bin_map, frame, (0, 0, 1, 1))


def _tiny_map(layout: Layout) -> BinMap:
    columns = {"whole": 1, "pairs": 2, "runs": 3}
    entries = columns[layout]
    share = {"whole": np.empty(0, np.float32), "pairs": np.zeros(8, np.float32), "runs": np.zeros((8, 2), np.float32)}
    side = SideList(np.zeros(1, np.int64), np.zeros(1, np.int32), np.ones(1, np.int32), np.zeros((1, 2)))
    weights = np.ones(8, np.float32)
    index = np.full(8, entries, np.uint16)
    return BinMap(layout, 1, entries, (2, 4), np.zeros(1), index, share[layout], weights, side)
