"""Have the kernel write to the disk what a file was given, while more is coming.

Left alone, the kernel keeps written data in memory for up to half a minute, and whoever then waits for the disk waits
for all of it. `WriteOut` asks for it step by step, in a thread, as the asking itself may wait for the disk.

Promises: nobody waits here; an order that finds no room is left out, and the kernel does it later by itself; where the
system cannot do it, nothing happens. Contents do not depend on it: it is no substitute for fsync.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import queue
import threading
from functools import cache
from typing import Any

__all__ = ["WriteOut"]

_STEP = 2**24
"""Bytes that are ordered at once; less would make many orders, more would let the disk idle."""

_WAITING = 8
"""Orders that may wait for the disk."""

_WRITE = 2
"""``SYNC_FILE_RANGE_WRITE`` of Linux: begin to write, and do not wait until it is done."""


class WriteOut:
    """What of one file was ordered; for the thread that writes the file.

    Parameters
    ----------
    fd : int
        The open file; asked for only during calls.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._begin = self._end = 0

    def wrote(self, offset: int, size: int) -> None:
        """Take note of bytes given to the kernel; now and then order what lies on new ground since the last time."""
        if offset + size <= self._end:
            return  # a piece of the structure, changed again
        self._end = offset + size
        if self._end - self._begin >= _STEP:
            _order(self._fd, self._begin, self._end - self._begin)
            self._begin = self._end


def _order(fd: int, offset: int, size: int) -> None:
    """Put an order; with a description of its own, so that the file's locks end with the file."""
    orders = _orders()
    if orders is None or orders.full():
        return
    with contextlib.suppress(OSError):
        own = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            orders.put_nowait((own, offset, size))
        except queue.Full:
            os.close(own)


@cache
def _orders() -> queue.Queue[tuple[int, int, int]] | None:
    """Begin the thread that all files share; None where the system has no such call."""
    call = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if call is None:
        return None
    call.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
    orders: queue.Queue[tuple[int, int, int]] = queue.Queue(_WAITING)
    threading.Thread(target=_work, args=(call, orders), name="write out", daemon=True).start()
    return orders


def _work(call: Any, orders: queue.Queue[tuple[int, int, int]]) -> None:
    while True:
        fd, offset, size = orders.get()
        call(fd, offset, size, _WRITE)  # a refusal costs nothing but the early start
        os.close(fd)
