"""The few calls of the C library that the receiving kernel makes, as numba sees them.

All take plain integers (addresses, lengths), so that the compiled loop never touches a Python object. Structures are
those of 64-bit Linux: ``struct mmsghdr`` of 8 words, ``struct iovec`` of 2, ``struct pollfd`` of two 32-bit halves.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import types

from sisockdaq.detector._jit import inner

__all__ = [
    "CLOCK_MONOTONIC",
    "CLOCK_REALTIME",
    "CONTROL_WORDS",
    "IOV_MAX",
    "MESSAGE_WORDS",
    "clock_ns",
    "memcpy",
    "poll",
    "recvmmsg",
]

MESSAGE_WORDS = 8
"""64-bit words of a ``struct mmsghdr``: name, name length, iov, iov length, control, its length, flags, length."""

CONTROL_WORDS = 4
"""64-bit words of control data that are offered with each message: one ``UDP_GRO`` entry takes three."""

IOV_MAX = 1024
"""Most parts that the kernel takes for one message (UIO_MAXIOV)."""

CLOCK_REALTIME = 0
CLOCK_MONOTONIC = 1

if sys.maxsize < 2**32 or sys.byteorder != "little":
    raise ImportError("the detector receiver needs a 64-bit little-endian machine")

recvmmsg: Any = types.ExternalFunction(
    "recvmmsg", types.int32(types.int32, types.uintp, types.uint32, types.int32, types.uintp)
)
poll: Any = types.ExternalFunction("poll", types.int32(types.uintp, types.uint64, types.int32))
memcpy: Any = types.ExternalFunction("memcpy", types.uintp(types.uintp, types.uintp, types.uintp))
_clock_gettime: Any = types.ExternalFunction("clock_gettime", types.int32(types.int32, types.uintp))


@inner
def clock_ns(clock: int, work: npt.NDArray[np.int64], address: int) -> int:
    """Return a clock [ns]; `work` (int64, 2), which lies at `address`, takes the kernel's answer."""
    _clock_gettime(clock, address)
    return int(work[0] * 1_000_000_000 + work[1])
