"""Turn frames into chunks in a thread pool, straight from their slots in the ring.

A slot is released as soon as its pixels are packed, long before they are on disk. What is packed waits in a fixed set
of buffers, used again and again (new memory would cost as much in page faults as the packing). Policy when all
buffers are full: the caller waits, the ring behind it fills, and its source drops frames and counts them; nothing is
dropped here.
"""

from __future__ import annotations

import queue
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sisockdaq.frames.bus import BorrowedFrame
from sisockdaq.frames.messages import FrameHeader
from sisockdaq.nexus.filters import filter_of

__all__ = ["PackedFrame", "Packer"]

_MEMORY = 256 * 2**20
"""Bytes for buffers."""

_WARM = 8192
"""Elements that are packed ahead of the first frame: nothing is loaded or compiled when that comes."""

_FEWEST, _MOST = 4, 64
"""Buffers at least and at most: enough to keep the threads busy, few enough to stay in reach of the caches."""


@dataclass(slots=True)
class PackedFrame:
    """A frame on its way to a file. ``payload.result()`` is None when the source took the slot back too early."""

    header: FrameHeader
    packet_mask: npt.NDArray[np.uint8] | None
    payload: Future[memoryview | None]
    buffer: npt.NDArray[np.uint8]
    home: queue.SimpleQueue[npt.NDArray[np.uint8]]

    def recycle(self) -> None:
        """Give the buffer back once the payload is written."""
        self.home.put(self.buffer)


class Packer:
    """A thread pool for frames of one shape and dtype.

    Parameters
    ----------
    shape, dtype
        Of the frames.
    compression : Compression
    threads : int
    """

    def __init__(self, shape: tuple[int, ...], dtype: str, *, compression: str = "bslz4", threads: int = 2) -> None:
        self.shape, self.dtype, self.compression = shape, dtype, compression
        self._filter = filter_of(compression)
        self._filter.pack(np.zeros(_WARM, dtype), np.empty(self._filter.bound((_WARM,), dtype), np.uint8))
        self._size = self._filter.bound(shape, dtype)
        self.capacity = max(_FEWEST, min(_MOST, _MEMORY // max(self._size, 1)))
        self._free: queue.SimpleQueue[npt.NDArray[np.uint8]] = queue.SimpleQueue()
        self._made = 0
        self._pool = ThreadPoolExecutor(max(1, threads), thread_name_prefix="pack")

    @property
    def in_use(self) -> int:
        """Buffers that hold a frame now."""
        return self._made - self._free.qsize()

    def pack(self, frame: BorrowedFrame, timeout: float) -> PackedFrame | None:
        """Hand a frame over; it is released here when it is packed. None when no buffer gets free in time [s]."""
        buffer = self._buffer(timeout)
        if buffer is None:
            return None
        header = frame.header
        mask = None if header.complete else np.array(frame.packet_mask)
        return PackedFrame(header, mask, self._pool.submit(self._pack, frame, buffer), buffer, self._free)

    def close(self) -> None:
        """Wait for the frames in work, and end the threads."""
        self._pool.shutdown()

    def _buffer(self, timeout: float) -> npt.NDArray[np.uint8] | None:
        try:
            return self._free.get_nowait()
        except queue.Empty:
            if self._made < self.capacity:
                self._made += 1
                return np.empty(self._size, np.uint8)
        try:
            return self._free.get(timeout=timeout)
        except queue.Empty:
            return None

    def _pack(self, frame: BorrowedFrame, buffer: npt.NDArray[np.uint8]) -> memoryview | None:
        used = False
        try:
            payload = self._filter.pack(frame.pixels, buffer)
            used = frame.valid()
        finally:
            frame.release(used=used)
        return payload if used else None
