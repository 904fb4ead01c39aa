"""One frame over one bin map: chooses the kernel, gives it memory, and makes sums by bin of what it leaves.

Each call has its own accumulators (some 10 kB to 400 kB for each part of a frame), so that several threads may work
with one map, or on one frame. The global interpreter lock is free during the pass over the pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sisockdaq.integrate import _blocks, _split, _whole
from sisockdaq.integrate._couples import unfold_couples
from sisockdaq.integrate.maps import BinMap, Layout, SideList
from sisockdaq.integrate.threads import run_parts

__all__ = ["Frame", "Sums", "prepare", "region_sum", "sum_frame", "warm_up"]

ErrorModel = Literal["poisson", "azimuthal"]

_PART = 1 << 19
_MOST_PARTS = 8
"""A frame whose sums are floats is added up in parts of at least so many pixels and at most so many parts: each has its
own accumulators to be cleared and added, and the order of additions must not depend on the number of threads."""

_LINE = 8
"""Accumulators in a line of the processor's cache."""

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


def sum_frame(bin_map: BinMap, frame: Frame, *, errors: bool = False, maximum: bool = False, threads: int = 1) -> Sums:
    """Add one frame up over the map.

    Parameters
    ----------
    errors : bool
        Whether to compute the variance of Poisson statistics.
    maximum : bool
        Whether to find the maximum.
    threads : int
        How many work on the frame; the result is the same for any number, to the last bit.
    """
    plan = _PLANS[bin_map.layout]
    stride = bin_map.entries + 2
    dtype = frame.zero.dtype if bin_map.layout == "whole" else np.dtype(np.float64)
    kind = _kind(frame, errors)
    edges = _edges(frame.pixels.size, dtype, threads)
    parts = len(edges) - 1
    banks = _zeros(parts, plan.size(bin_map, kind), dtype)
    lost = np.zeros((parts, stride if frame.check else 0, plan.lost))
    words = bin_map.couples.words if bin_map.layout == "whole" else bin_map.index.view(np.uint64)

    def add(part: int) -> tuple[Any, int]:
        found: tuple[Any, int] = plan.kernel(
            frame.pixels,
            words,
            bin_map.index,
            bin_map.share,
            bin_map.normalization,
            stride,
            frame.check,
            frame.dummy,
            maximum,
            frame.lowest,
            kind,
            banks[part],
            lost[part],
            edges[part],
            edges[part + 1],
        )
        return found

    found = run_parts(add, parts, threads)
    entries = plan.fold(bin_map, banks, kind)
    unusable = sum(number for _, number in found)
    lost_entries = lost.sum(0) if unusable else None
    signal, variance, lost_weight, lost_count = plan.unfold(entries, lost_entries, bin_map.bins, errors)
    bins = bin_map.bins
    _add_side(bin_map.side, bin_map, frame, signal, variance, lost_weight, lost_count)
    return Sums(
        signal=signal[:bins],
        variance=variance[:bins] if errors else None,
        lost_weight=lost_weight[:bins] if unusable else None,
        lost_count=lost_count[:bins] if unusable else None,
        unusable=unusable,
        total=_plain(entries[:-1, plan.all_lane].sum()),
        maximum=_plain(max(highest for highest, _ in found)) if maximum else None,
    )


def _zeros(parts: int, number: int, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Make accumulators, each part's at a place where those that are added to at once lie in one line of the cache."""
    row = -(-number // _LINE) * _LINE
    memory = np.zeros(parts * row + _LINE, dtype)
    first = -memory.ctypes.data // dtype.itemsize % _LINE
    return memory[first : first + parts * row].reshape(parts, row)[:, :number]


def region_sum(bin_map: BinMap, frame: Frame, box: tuple[int, int, int, int]) -> float:
    """Sum of the usable pixels with x0 ≤ x < x1 and y0 ≤ y < y1 that are not masked; ``box`` is (x0, y0, x1, y1)."""
    masked = np.uint16(bin_map.masked)
    total = _blocks.region_sum(frame.image, bin_map.index, masked, frame.check, frame.dummy, box, frame.zero)
    return _plain(total)


def _edges(pixels: int, dtype: np.dtype[Any], threads: int) -> list[int]:
    """Cut a frame into parts: by its size alone, or, where sums are integers and exact anyway, one for each thread."""
    parts = max(1, min(_MOST_PARTS, pixels // _PART)) if dtype.kind == "f" else threads
    return [part * pixels // parts // _blocks.BLOCK * _blocks.BLOCK for part in range(parts)] + [pixels]


Floats = npt.NDArray[np.float64]
Unfolded = tuple[npt.NDArray[Any], Floats, Floats, Floats]
"""Signal, variance, lost weight and lost count by bin; empty where there is none, longer than the bins where easier."""


def _unfold_whole(entries: npt.NDArray[Any], lost: Floats | None, bins: int, errors: bool) -> Unfolded:
    variance = entries[:bins, 1].astype(np.float64) if errors else np.zeros(0)
    if lost is None:
        return entries[:bins, 0], variance, np.zeros(0), np.zeros(0)
    return entries[:bins, 0], variance, lost[:bins, 0], lost[:bins, 1]


def _unfold_pairs(entries: Floats, lost: Floats | None, bins: int, errors: bool) -> Unfolded:
    signal, variance = np.zeros(bins + 1), np.zeros(bins + 1 if errors else 0)
    lost_weight, lost_count = np.zeros(bins + 1), np.zeros(bins + 1)
    _split.unfold_pairs(entries, bins, 0, signal)
    if errors:
        _split.unfold_pairs_errors(entries, bins, variance)
    if lost is not None:
        _split.unfold_pairs(lost, bins, 0, lost_weight)
        _split.unfold_pairs(lost, bins, 2, lost_count)
    return signal, variance, lost_weight, lost_count


def _unfold_triples(entries: Floats, lost: Floats | None, bins: int, errors: bool) -> Unfolded:
    signal, variance = np.zeros(bins + 2), np.zeros(bins + 2 if errors else 0)
    lost_weight, lost_count = np.zeros(bins + 2), np.zeros(bins + 2)
    _split.unfold_triples(entries, bins, 0, signal)
    if errors:
        _split.unfold_triples_errors(entries, bins, variance)
    if lost is not None:
        _split.unfold_triples(lost, bins, 0, lost_weight)
        _split.unfold_triples(lost, bins, 3, lost_count)
    return signal[1:], variance[1:], lost_weight[1:], lost_count[1:]


def _kind(frame: Frame, errors: bool) -> int:
    """Tell what is added of each pixel; for split pixels anything but `SUMS` is errors."""
    if not errors:
        return _whole.SUMS
    dtype = frame.pixels.dtype
    return _whole.PACKED if dtype.kind == "u" and dtype.itemsize <= 4 else _whole.ERRORS


def _size_whole(bin_map: BinMap, kind: int) -> int:
    lanes = 4 if kind == _whole.ERRORS else 2
    return int(_whole.single_lanes(bin_map.entries + 2)) + lanes * len(bin_map.couples.entries)


def _fold_whole(bin_map: BinMap, banks: npt.NDArray[Any], kind: int) -> npt.NDArray[Any]:
    stride, lanes = bin_map.entries + 2, 1 if kind == _whole.SUMS else 2
    whole: npt.NDArray[Any] = banks[0] if len(banks) == 1 else banks.sum(0)
    sums = whole[: stride * lanes].reshape(stride, lanes)
    coupled = whole[_whole.single_lanes(stride) :].reshape(-1, 4 if kind == _whole.ERRORS else 2)
    unfold_couples(coupled, bin_map.couples.entries, kind == _whole.PACKED, sums)
    return sums


def _size_split(bin_map: BinMap, kind: int) -> int:
    lanes = 2 if bin_map.layout == "pairs" else 4
    return 2 * (bin_map.entries + 2) * (lanes if kind == _whole.SUMS else 2 * lanes)


def _fold_split(bin_map: BinMap, banks: npt.NDArray[Any], kind: int) -> npt.NDArray[Any]:
    stride = bin_map.entries + 2
    return banks.reshape(2 * len(banks), -1).sum(0).reshape(stride, -1)  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class _Plan:
    """How a layout is summed.

    `size` tells how many accumulators a part has, `fold` makes lanes by entry of those of all parts, and `unfold` bins
    of entries. Of the lanes `all_lane` has all of a pixel; `lost` is the number of those of unusable pixels.
    """

    kernel: Callable[..., Any]
    size: Callable[[BinMap, int], int]
    fold: Callable[[BinMap, npt.NDArray[Any], int], npt.NDArray[Any]]
    unfold: Callable[[npt.NDArray[Any], Floats | None, int, bool], Unfolded]
    all_lane: int
    lost: int


_PLANS: dict[Layout, _Plan] = {
    "whole": _Plan(_whole.add_whole, _size_whole, _fold_whole, _unfold_whole, all_lane=0, lost=2),
    "pairs": _Plan(_split.add_pairs, _size_split, _fold_split, _unfold_pairs, all_lane=1, lost=4),
    "triples": _Plan(_split.add_triples, _size_split, _fold_split, _unfold_triples, all_lane=2, lost=6),
}


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
        side.start,
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
    layouts: Iterable[Layout] = ("whole", "pairs", "triples"),
    errors: Iterable[bool] = (False, True),
) -> None:
    """Compile (or load from numba's cache) the kernels for images of these types."""
    wanted = list(errors)
    for layout in layouts:
        bin_map = _tiny_map(layout)
        for dtype in dtypes:
            frame = prepare(np.ones((2, 4), dtype), 1)
            for with_errors in wanted:
                sum_frame(bin_map, frame, errors=with_errors, maximum=True)
            region_sum(bin_map, frame, (0, 0, 1, 1))


def _tiny_map(layout: Layout) -> BinMap:
    entries = 2 if layout == "pairs" else 1
    share = {
        "whole": np.empty(0, np.float32),
        "pairs": np.zeros(8, np.float32),
        "triples": np.zeros((8, 2), np.float32),
    }
    side = SideList(np.zeros(1, np.int64), np.zeros(1, np.int32), np.array([0, 1]), np.ones(1))
    weights = np.ones(8, np.float32)
    index = np.full(8, entries, np.uint16)
    return BinMap(layout, 1, entries, (2, 4), np.zeros(1), index, share[layout], weights, side)
