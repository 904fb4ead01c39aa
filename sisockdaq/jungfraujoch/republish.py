"""Passes messages on, as they came, to whoever pulls them; never makes anybody wait.

Policy: an image is sent at once or dropped and counted (nobody reads, or the queue is full). A start or end message is
tried again for `PATIENCE`; meanwhile images are dropped, so that the order holds. Messages are not copied.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import zmq

from sisockdaq.errors import PortTaken

__all__ = ["Republisher"]

PATIENCE = 0.1
"""How long a start or end message is tried [s]."""

_RETRY = 0.005
"""Time between two tries [s]."""


class Republisher:
    """A PUSH socket for one thread.

    Parameters
    ----------
    context : zmq.Context
    address : str
        To bind.
    watermark : int
        Messages that may wait for a slow reader.

    Attributes
    ----------
    sent, dropped : int
        Messages.

    Raises
    ------
    PortTaken
    """

    def __init__(self, context: zmq.Context[Any], address: str, watermark: int) -> None:
        self.sent = self.dropped = 0
        self._waiting: deque[tuple[float, Any]] = deque()
        self._socket = context.socket(zmq.PUSH)
        self._socket.setsockopt(zmq.SNDHWM, watermark)
        self._socket.setsockopt(zmq.LINGER, 0)
        try:
            self._socket.bind(address)
        except zmq.ZMQError as error:
            self._socket.close()
            raise PortTaken(
                f"republish address {address} cannot be bound: {error.strerror}", remedy="choose another port (-r)"
            ) from error

    @property
    def address(self) -> str:
        """Where the messages go."""
        return str(self._socket.getsockopt_string(zmq.LAST_ENDPOINT))

    def image(self, message: Any) -> None:
        """Send a message now, or drop it."""
        self.retry()
        if self._waiting or not self._try(message):
            self.dropped += 1

    def mark(self, message: Any) -> None:
        """Send a start or end message, now or soon."""
        self.retry()
        if self._waiting or not self._try(message):
            self._waiting.append((time.monotonic() + PATIENCE, message))

    def retry(self) -> float | None:
        """Try again what waits; return the time after which to come back [s], None when nothing waits."""
        while self._waiting:
            deadline, message = self._waiting[0]
            if not self._try(message):
                if time.monotonic() < deadline:
                    return _RETRY
                self.dropped += 1
            self._waiting.popleft()
        return None

    def close(self, linger: float = 1.0) -> None:
        """Give what waits its time, then close."""
        while (pause := self.retry()) is not None:
            time.sleep(pause)
        self._socket.close(linger=int(1000 * linger))

    def _try(self, message: Any) -> bool:
        try:
            self._socket.send(message, zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return False
        self.sent += 1
        return True
