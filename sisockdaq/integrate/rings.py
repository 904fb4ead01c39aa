"""A bin map turned over: for every bin the pixels that it is made of, for statistics that need them all at once.

A `BinMap` says for each pixel to which bins it counts, and sums go through a frame once. What looks at the same pixels
several times (sigma clipping), sorts them (a median) or follows their mean (the azimuthal variance) wants them ring by
ring: then a ring is fetched from the frame once and stays in the cache for all that follows.

Promises
--------
- A ring's pixels stand in image order, and each ring is worked on by itself: results do not depend on the number of
  threads.
- Nothing of a frame's size is allocated for a frame: rings are fetched in blocks of some `BLOCK` values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from sisockdaq.integrate import _rings
from sisockdaq.integrate.kernels import Frame
from sisockdaq.integrate.maps import BinMap, SideList
from sisockdaq.integrate.threads import run_parts

__all__ = ["BLOCK", "Block", "Rings", "Room", "cut_in_blocks"]

BLOCK = 1 << 15
"""Values of a block: with what a ring needs beside them they fit the second level of cache."""

_LAYOUTS = {"whole": 1, "pairs": 2, "triples": 3}


@dataclass(frozen=True, slots=True)
class Block:
    """Some rings in a row: numbers of the first ring and the one after the last, and of their entries."""

    first: int
    stop: int
    begin: int
    end: int


@dataclass(slots=True)
class Room:
    """Memory that one block needs; taken from `Rings` and given back.

    Attributes
    ----------
    values : ndarray of float32, (longest block,)
        The block's pixels, ring by ring.
    ring : ndarray of float64, (5, longest ring)
    keys, other : ndarray of uint64, (longest ring,)
    place : ndarray of float32, (longest ring,)
    """

    values: npt.NDArray[np.float32]
    ring: npt.NDArray[np.float64]
    keys: npt.NDArray[np.uint64]
    other: npt.NDArray[np.uint64]
    place: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Rings:
    """The pixels of every bin.

    Attributes
    ----------
    shape : (int, int)
        Rows and columns of the images.
    start : ndarray of int64, (bins + 1,)
        Where each ring begins in the arrays below, and where the last one ends.
    pixel : ndarray of int32, (entries,)
        Number of the pixel in the image.
    share : ndarray of float32, (entries,) or (0,)
        The part of the pixel that lies in this bin; empty where all are whole.
    weight : ndarray of float32, (entries,)
        Normalization of the pixel.
    dark : ndarray of float32, (entries,) or (0,)
        What is subtracted from it.
    """

    shape: tuple[int, int]
    start: npt.NDArray[np.int64]
    pixel: npt.NDArray[np.int32]
    share: npt.NDArray[np.float32]
    weight: npt.NDArray[np.float32]
    dark: npt.NDArray[np.float32]
    blocks: tuple[Block, ...] = ()
    _rooms: list[Room] = field(default_factory=list, repr=False)
    _lock: Any = field(default_factory=Lock, repr=False)

    @classmethod
    def of(
        cls,
        bin_map: BinMap,
        *,
        normalization: npt.NDArray[Any] | None = None,
        dark: npt.NDArray[Any] | None = None,
    ) -> Rings:
        """Turn a map over.

        Parameters
        ----------
        normalization : ndarray, one value a pixel, optional
            In place of the map's own (solid angle × polarization), where a flat field or absorption comes in. Pixels
            whose value is 0 or not finite are in no ring.
        dark : ndarray, one value a pixel, optional
            Subtracted from each image. Pixels whose value is not finite are in no ring.
        """
        start, pixel, share = _turn_over(bin_map)
        weights = bin_map.normalization if normalization is None else _flat(normalization, bin_map)
        weight = weights[pixel]
        darks = np.empty(0, np.float32) if dark is None else _flat(dark, bin_map)[pixel]
        usable = np.isfinite(weight) & (weight != 0)
        if share.size:
            usable &= share != 0
        if darks.size:
            usable &= np.isfinite(darks)
        if not usable.all():
            kept = np.concatenate([[0], np.cumsum(usable)])
            start = kept[start]
            pixel, weight = pixel[usable], weight[usable]
            share = share[usable] if share.size else share
            darks = darks[usable] if darks.size else darks
        return cls(bin_map.shape, start, pixel, share, weight, darks, cut_in_blocks(start))

    @property
    def bins(self) -> int:
        """Number of rings."""
        return self.start.size - 1

    @property
    def split(self) -> bool:
        """Whether a pixel can lie in several rings."""
        return self.share.size > 0

    @property
    def longest(self) -> int:
        """Pixels of the longest ring."""
        return int(np.diff(self.start).max(initial=1))

    @property
    def nbytes(self) -> int:
        """Memory of the arrays [bytes]."""
        return sum(array.nbytes for array in (self.start, self.pixel, self.share, self.weight, self.dark))

    def each_block(self, frame: Frame, work: Callable[[Block, Room], None], threads: int = 1) -> None:
        """Fetch every block's pixels from the frame and do something with them; in one thread in the rings' order."""

        def fetch(number: int) -> None:
            block = self.blocks[number]
            with self._room() as room:
                part = slice(block.begin, block.end)
                values = room.values[: block.end - block.begin]
                _rings.gather(frame.pixels, frame.check, frame.dummy, self.pixel[part], values)
                work(block, room)

        run_parts(fetch, len(self.blocks), threads)

    @contextmanager
    def _room(self) -> Iterator[Room]:
        with self._lock:
            room = self._rooms.pop() if self._rooms else None
        room = room or self._make_room()
        try:
            yield room
        finally:
            with self._lock:
                self._rooms.append(room)

    def _make_room(self) -> Room:
        longest = self.longest
        block = max((block.end - block.begin for block in self.blocks), default=1)
        return Room(
            np.empty(block, np.float32),
            np.zeros((4, longest)),
            np.empty(longest, np.uint64),
            np.empty(longest, np.uint64),
            np.empty(longest, np.float32),
        )


def _flat(values: npt.NDArray[Any], bin_map: BinMap) -> npt.NDArray[np.float32]:
    flat = np.ascontiguousarray(values, np.float32).reshape(-1)
    if flat.size != bin_map.shape[0] * bin_map.shape[1]:
        raise ValueError(f"{flat.size} values do not fit the {bin_map.shape[0]} × {bin_map.shape[1]} pixels of the map")
    return flat


def _turn_over(
    bin_map: BinMap,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    pixels = bin_map.shape[0] * bin_map.shape[1]
    layout, packed = _LAYOUTS[bin_map.layout], bin_map.share.reshape(-1)
    side_pixel, side_start, side_bin, side_share = _side_table(bin_map.side)
    start = np.zeros(bin_map.bins + 1, np.int64)
    sizes = (pixels, bin_map.bins, bin_map.entries)
    _rings.count_entries(layout, bin_map.index, packed, *sizes, side_pixel, side_start, side_bin, start)
    pixel = np.empty(int(start[-1]), np.int32)
    share = np.empty(0 if bin_map.layout == "whole" else pixel.size, np.float32)
    _rings.fill_entries(
        layout,
        bin_map.index,
        packed,
        *sizes,
        side_pixel,
        side_start,
        side_bin,
        side_share,
        start.copy(),
        pixel,
        share,
    )
    return start, pixel, share


def _side_table(
    side: SideList,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float64]]:
    """Return the pixels of the side list, where the bins of each begin, the bins, and the shares."""
    span = np.diff(side.start)
    within = np.arange(side.start[-1]) - np.repeat(side.start[:-1], span)
    return side.pixel, side.start, (np.repeat(side.first, span) + within).astype(np.int32), side.share


def cut_in_blocks(start: npt.NDArray[np.int64]) -> tuple[Block, ...]:
    """Put rings that begin there together into blocks."""
    return tuple(_blocks(start))


def _blocks(start: npt.NDArray[np.int64]) -> Iterator[Block]:
    """Put rings together until they have `BLOCK` entries; a longer one stands alone."""
    first, bins = 0, start.size - 1
    while first < bins:
        stop = int(np.searchsorted(start, start[first] + BLOCK, side="right")) - 1
        stop = min(max(stop, first + 1), bins)
        yield Block(first, stop, int(start[first]), int(start[stop]))
        first = stop
