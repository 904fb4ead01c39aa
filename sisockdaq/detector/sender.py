"""Sending packets fast: many of one size with one call (UDP_SEGMENT), at a steady pace.

The kernel cuts one long buffer into datagrams, which saves a system call each; where it does not know how, packets
are sent one by one. Loopback gives such a train to a receiver whole.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sisockdaq.errors import ConnectionFailed

__all__ = ["Buffer", "Pacer", "PacketSender"]

Buffer = npt.NDArray[np.uint8] | bytes | memoryview
"""Bytes of a datagram."""

_SOL_UDP = 17
_UDP_SEGMENT = 103
_LARGEST_DATAGRAM = 65507
_MOST_SEGMENTS = 64
"""Most datagrams the kernel cuts one buffer into (UDP_MAX_SEGMENTS of older kernels)."""

_SEND_BUFFER = 8 * 2**20
_SO_SNDBUFFORCE = 32
_SHORTEST_NAP = 3e-4
"""Being ahead by less than this is not worth a sleep [s]: waking up takes some 60 µs."""

_LONGEST_NAP = 0.1
"""Longest sleep before the stop event is looked at again [s]."""


class Pacer:
    """Frames at a steady rate, without burning the processor.

    The schedule is absolute: a late wake-up does not shift what follows. After a pause longer than `catch_up` frames
    the schedule begins anew, so that a sender that was held up does not flood its receiver.

    Parameters
    ----------
    rate : float or None
        Frames a second; None for as fast as it goes.
    stop : threading.Event, optional
        Ends a wait early.
    """

    def __init__(self, rate: float | None, *, catch_up: int = 5, stop: threading.Event | None = None) -> None:
        self._period = 0.0 if not rate else 1.0 / rate
        self._catch_up = catch_up
        self._stop = stop or threading.Event()
        self._next = time.perf_counter()

    def wait(self) -> bool:
        """Sleep until the next frame is due; False when the stop event was set."""
        if self._stop.is_set():
            return False
        if not self._period:
            return True
        now = time.perf_counter()
        if now - self._next > self._catch_up * self._period:
            self._next = now
        while (left := self._next - time.perf_counter()) > 0:
            if left > _LONGEST_NAP:
                if self._stop.wait(_LONGEST_NAP):
                    return False
            else:
                time.sleep(left)
        self._next += self._period
        return not self._stop.is_set()


class PacketSender:
    """Send a detector's streams to their ports.

    Parameters
    ----------
    targets : sequence of (host, port)
        One a stream.
    datagram_bytes : int
        Size of a packet; others can be sent with `send_one`.

    Raises
    ------
    ConnectionFailed
        When a target cannot be resolved or reached.
    """

    def __init__(self, targets: Sequence[tuple[str, int]], datagram_bytes: int) -> None:
        self._size = datagram_bytes
        self._train = max(1, min(_LARGEST_DATAGRAM // datagram_bytes, _MOST_SEGMENTS))
        self._plain: list[socket.socket] = []
        self._sockets: list[socket.socket] = []
        self.sent = 0
        """Packets sent so far."""
        try:
            for target in targets:
                self._plain.append(_connected(target))
                self._sockets.append(self._segmenting(target))
        except OSError as error:
            self.close()
            raise ConnectionFailed(f"cannot send to {target[0]}, UDP port {target[1]}: {error}") from None

    def _segmenting(self, target: tuple[str, int]) -> socket.socket:
        one = _connected(target)
        try:
            one.setsockopt(_SOL_UDP, _UDP_SEGMENT, self._size)
        except OSError:
            self._train = 1
        return one

    def send_frame(self, streams: Sequence[npt.NDArray[np.uint8]], seconds: float = 0.0) -> None:
        """Send a frame: the streams side by side, train by train, as the modules of a detector do.

        Parameters
        ----------
        streams : sequence of ndarray of uint8, (packets, datagram bytes)
            C-contiguous, one a stream.
        seconds : float
            Time over which to spread it [s].
        """
        flat = [packets.reshape(-1).data for packets in streams]
        step = self._train * self._size
        rounds = range(0, max(map(len, flat), default=0), step)
        begin = time.perf_counter()
        for turn, at in enumerate(rounds):
            for one, data in zip(self._sockets, flat, strict=True):
                if at < len(data):
                    _send(one, data[at : at + step])
            ahead = begin + seconds * (turn + 1) / len(rounds) - time.perf_counter()
            if ahead > _SHORTEST_NAP:
                time.sleep(ahead)
        self.sent += sum(map(len, streams))

    def send_one(self, stream: int, datagram: Buffer) -> None:
        """Send one datagram of any size."""
        _send(self._plain[stream], datagram)
        self.sent += 1

    def close(self) -> None:
        """Close the sockets."""
        for one in (*self._plain, *self._sockets):
            one.close()

    def __enter__(self) -> PacketSender:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _connected(target: tuple[str, int]) -> socket.socket:
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        one.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _SEND_BUFFER)
    except OSError:  # needs CAP_NET_ADMIN
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
    one.connect(target)
    return one


def _send(one: socket.socket, data: Buffer) -> None:
    octets: Any = data
    for _ in range(2):
        try:
            one.send(octets)
            return
        except ConnectionRefusedError:
            # An earlier packet found nobody listening, and this one was not sent. A detector would not notice.
            continue
