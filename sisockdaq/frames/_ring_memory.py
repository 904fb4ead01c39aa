"""The shared memory of a ring: the slots, and one control block for each consumer.

Both are anonymous memory files (``memfd_create``) whose descriptors are handed over a socket. So nothing has a name:
whatever way the processes end, the kernel takes the memory back and nothing stays in /dev/shm.

**Slots**, written by the producer, sealed against writing for everybody else::

    pixels        slots × frame, C order
    packet masks  slots × ⌈packets / 8⌉
    generations   slots × u64; raised each time the producer takes the slot

**Control block** of one consumer, in 64-bit words; a consumer that goes astray can spoil only its own::

    0   head      entries written                             (producer)
    1   marks     messages sent over the socket               (producer)
    8   tail      entries read                                (consumer)
    9   waiting   1 while the consumer sleeps                 (both)
    16  holds     slots × (sequence << 2 | state)             (both, see `Hold`)
    …   entries   a ring of `capacity` descriptors of 128 bytes (producer)

A word is written whole (aligned 64-bit stores). Release needs no system call: the consumer overwrites its hold.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import struct
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from sisockdaq.errors import FrameSourceError
from sisockdaq.frames.messages import Description, FrameHeader

__all__ = [
    "HEAD",
    "HOLDS",
    "MARKS",
    "TAIL",
    "WAITING",
    "ControlBlock",
    "Hold",
    "SlotMemory",
    "pack_entry",
    "unpack_entry",
]

HEAD, MARKS, TAIL, WAITING, HOLDS = 0, 1, 8, 9, 16

_WORD = 8
_PAGE = 4096
_ENTRY_SIZE = 128
_ENTRY = struct.Struct("<QQQqddqqqddQ")
"""Slot, generation, number, sequence, time, last, index, packets expected and received, total, maximum, timestamp."""

_MADV_POPULATE_READ, _MADV_POPULATE_WRITE = 22, 23
"""Linux 5.14 (linux/mman.h): bring all pages in at once."""

_SEALS = 0x0001 | 0x0002 | 0x0004 | 0x0010
"""F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW, F_SEAL_FUTURE_WRITE (linux/fcntl.h): only this mapping may write."""


class Hold(IntEnum):
    """What a consumer has to do with a slot; kept in the two lowest bits of its hold word (0: nothing)."""

    HELD = 1
    """Offered to a lossless consumer: the slot waits for it. (Offered to another: the slot does not.)"""
    TAKEN = 2
    """Released as used."""
    DROPPED = 3
    """Released unused."""


class SlotMemory:
    """The slots, mapped for writing (producer) or reading (consumer).

    Attributes
    ----------
    pixels : ndarray, (slots, *shape)
    packet_masks : ndarray of uint8, (slots, ⌈packets_per_frame / 8⌉)
    generations : memoryview of u64
    descriptor : int
        The memory file's descriptor; -1 on the consumer's side.
    """

    def __init__(self, description: Description, slots: int, descriptor: int | None = None) -> None:
        dtype = np.dtype(description.dtype)
        frame = int(np.prod(description.shape, dtype=np.int64)) * dtype.itemsize
        mask = -(-description.packets_per_frame // 8)
        masks_at = _aligned(slots * frame)
        generations_at = _aligned(masks_at + slots * mask)
        size = _aligned(generations_at + slots * _WORD)
        memory = _create(size) if descriptor is None else _attach(size, descriptor)
        self.descriptor, self._map = memory
        self.slots = slots
        self.size = size
        self.pixels: npt.NDArray[Any] = np.ndarray((slots, *description.shape), dtype, self._map)
        self.packet_masks: npt.NDArray[np.uint8] = np.ndarray((slots, mask), np.uint8, self._map, masks_at)
        self.generations = memoryview(self._map)[generations_at : generations_at + slots * _WORD].cast("Q")

    def close(self) -> None:
        """Give the descriptor back; the memory itself goes when its last array has gone."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class ControlBlock:
    """A consumer's control block, with its words and entries.

    Attributes
    ----------
    words : memoryview of u64
        The whole block; see the module's table.
    holds : ndarray of u64, (slots,)
        The hold words, for looking at all at once.
    capacity : int
        Entries in the queue: more than there are slots, so that a lossless consumer's queue cannot overflow.
    """

    def __init__(self, slots: int, descriptor: int | None = None) -> None:
        self.capacity = 1 << (slots + 1).bit_length()
        self._entries_at = _round((HOLDS + slots) * _WORD, _ENTRY_SIZE)
        size = _round(self._entries_at + self.capacity * _ENTRY_SIZE, _PAGE)
        if descriptor is None:
            self.descriptor = os.memfd_create("sisockdaq-control", os.MFD_CLOEXEC)
            os.ftruncate(self.descriptor, size)
            self._map = mmap.mmap(self.descriptor, size)
        else:
            self.descriptor = -1
            with contextlib.closing(_Descriptor(descriptor)):
                self._map = mmap.mmap(descriptor, size)
        self._bytes = memoryview(self._map)
        self.words = self._bytes.cast("Q")
        self.holds: npt.NDArray[np.uint64] = np.ndarray((slots,), np.uint64, self._map, HOLDS * _WORD)

    def write_entry(self, position: int, entry: bytes) -> None:
        """Put a packed entry at its place in the queue."""
        at = self._entries_at + (position & (self.capacity - 1)) * _ENTRY_SIZE
        self._bytes[at : at + _ENTRY.size] = entry

    def read_entry(self, position: int) -> bytes:
        """Copy an entry out of the queue."""
        at = self._entries_at + (position & (self.capacity - 1)) * _ENTRY_SIZE
        return bytes(self._bytes[at : at + _ENTRY.size])

    def close(self) -> None:
        """Give the descriptor back."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def pack_entry(slot: int, generation: int, header: FrameHeader) -> bytes:
    """Return a queue entry; raise `ValueError` when a number of the header does not fit its field."""
    try:
        return _ENTRY.pack(
            slot,
            generation,
            header.number,
            header.sequence,
            header.time,
            header.last,
            header.index,
            header.packets_expected,
            header.packets_received,
            header.total,
            header.maximum,
            header.timestamp,
        )
    except struct.error as error:
        raise ValueError(f"frame header does not fit the frame plane ({error}): {header}") from None


def unpack_entry(entry: bytes) -> tuple[int, int, FrameHeader]:
    """Return slot, generation and header of a queue entry."""
    slot, generation, number, sequence, time, last, index, expected, received, total, maximum, stamp = _ENTRY.unpack(
        entry
    )
    return slot, generation, FrameHeader(number, time, last, index, expected, received, total, maximum, stamp, sequence)


class _Descriptor:
    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def close(self) -> None:
        os.close(self.descriptor)


def _create(size: int) -> tuple[int, mmap.mmap]:
    """Make the slots' memory and touch all of it, so that no page fault falls into a run."""
    try:
        descriptor = os.memfd_create("sisockdaq-frames", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(descriptor, size)
        memory = mmap.mmap(descriptor, size)
    except OSError as error:
        raise _no_memory(size, error) from error
    _populate(memory, size, _MADV_POPULATE_WRITE)
    with contextlib.suppress(OSError):  # before Linux 5.1 there is no such seal; consumers then promise it only
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    return descriptor, memory


def _attach(size: int, descriptor: int) -> tuple[int, mmap.mmap]:
    with contextlib.closing(_Descriptor(descriptor)):
        if os.fstat(descriptor).st_size != size:
            raise FrameSourceError(f"the source's memory has {os.fstat(descriptor).st_size} bytes instead of {size}")
        memory = mmap.mmap(descriptor, size, prot=mmap.PROT_READ)
    with contextlib.suppress(FrameSourceError):  # only a matter of speed here
        _populate(memory, size, _MADV_POPULATE_READ)
    return -1, memory


def _populate(memory: mmap.mmap, size: int, advice: int) -> None:
    """Ask for large pages where the kernel has them, and bring every page in."""
    with contextlib.suppress(OSError, AttributeError):
        memory.madvise(mmap.MADV_HUGEPAGE)
    try:
        memory.madvise(advice)
    except OSError as error:
        if error.errno not in (22, 38):  # EINVAL, ENOSYS: an older kernel
            raise _no_memory(size, error) from error
        pages = np.ndarray((size // _PAGE,), np.uint8, memory, strides=(_PAGE,))
        if advice == _MADV_POPULATE_WRITE:
            pages[:] = 0
        else:
            int(pages.sum())


def _no_memory(size: int, error: OSError) -> FrameSourceError:
    return FrameSourceError(
        f"no memory for a ring of {size / 1e6:.0f} MB: {error.strerror}",
        remedy="set fewer slots, or give the machine or container more memory",
    )


def _aligned(size: int) -> int:
    return _round(size, _PAGE)


def _round(size: int, unit: int) -> int:
    return -(-size // unit) * unit
