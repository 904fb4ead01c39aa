"""How a process that does nothing but take large messages keeps their memory.

ZeroMQ takes new memory for each message and gives it back when the message is let go. For megabytes the C library asks
the kernel each time, which clears every page: that costs as much as the copy out of the socket.
"""

from __future__ import annotations

import ctypes

__all__ = ["keep_freed_memory"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
"""Parameters of glibc's ``mallopt``."""

_LARGEST = 2**25
"""Memory up to this size [bytes] comes out of what is kept: more than any message in use."""

_KEPT = 2**30
"""Bytes that are kept at most when nothing is in use."""


def keep_freed_memory() -> bool:
    """Let this process keep freed memory for the next message, all its threads in one heap.

    For the start of a program whose only work this is: it holds for the whole process, which then stays as large as its
    queues have ever been, up to 1 GiB more than it uses.

    Returns
    -------
    bool
        Whether the C library can do it; if not, nothing has changed.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    wanted = ((_MMAP_THRESHOLD, _LARGEST), (_TRIM_THRESHOLD, _KEPT), (_ARENA_MAX, 1))
    taken = [mallopt(parameter, value) for parameter, value in wanted]
    return taken == [1] * len(wanted)
