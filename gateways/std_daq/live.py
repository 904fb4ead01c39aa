"""Live images: taken from the frame ring by policy ``latest``, published over ZeroMQ, shown to browsers as MJPEG.

One thread takes frames while anybody wants them. It never holds the source back: what is newer replaces what was not
taken. The ZeroMQ stream is ``array-1.0``: a part of JSON, ``{"htype", "shape": [rows, columns], "type", "frame"}``, and
a part of pixels, row by row. A subscriber that is too slow misses images.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy.typing as npt
import orjson
import zmq
from twisted.logger import Logger

from sisockdaq.errors import ConfigurationError, PortTaken
from sisockdaq.frames import Attached, BorrowedFrame, Detached, End, Settled, Start, make_consumer
from sisockdaq.session import the_reactor

__all__ = ["Live", "Shown"]

_QUEUE = 4
"""Images that ZeroMQ keeps for a slow subscriber."""

_WAIT = 0.25
"""Longest wait for a frame before a look whether the thread is to end [s]."""

_log = Logger("sisockdaq.std_daq")

Shown = tuple[int, npt.NDArray[Any], float | None]
"""Frame number, pixels, and the value of lost ones."""


class Live:
    """The newest images of one source.

    Parameters
    ----------
    socket : Path
        Where the source waits for consumers on this machine.
    name : str
        Who takes the frames, in the source's books.
    publish : str or None
        ZeroMQ address to publish at.
    interval : float
        Shortest time between two images [s].

    Raises
    ------
    PortTaken, ConfigurationError
        The address cannot be bound.
    """

    def __init__(self, socket: Path, name: str, publish: str | None, interval: float) -> None:
        self._address = f"ring://{socket}"
        self._name = name
        self._interval = interval
        self._viewers: dict[object, Callable[[Shown], None]] = {}
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self._publisher = _publisher(publish) if publish is not None else None
        self.address = self._publisher.getsockopt_string(zmq.LAST_ENDPOINT) if self._publisher is not None else None
        self.published = 0
        if self._publisher is not None:
            self._begin()

    def watch(self, who: object, shown: Callable[[Shown], None]) -> None:
        """Call `shown` with images from now on, in the reactor's thread, where this is called too."""
        with self._lock:
            self._viewers[who] = shown
        self._begin()

    def leave(self, who: object) -> None:
        """Show that one no more."""
        with self._lock:
            self._viewers.pop(who, None)

    @property
    def viewers(self) -> int:
        """How many watch."""
        return len(self._viewers)

    def close(self) -> None:
        """End the thread; blocks for a moment."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join(2.0)
        if self._publisher is not None:
            self._publisher.close(0)

    def _begin(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=f"{self._name}", daemon=True)
                self._thread.start()

    def _idle(self) -> bool:
        """Whether the thread may end; it then is no longer the one that runs."""
        with self._lock:
            idle = self._ending.is_set() or (self._publisher is None and not self._viewers)
            if idle:
                self._thread = None
            return idle

    def _run(self) -> None:
        # No acquisition is to wait for a report of who only looks on.
        consumer = make_consumer(self._address, name=self._name, policy="latest", reports=False)
        due, fill = 0.0, None
        try:
            while not self._idle():
                item = consumer.next(_WAIT)
                if isinstance(item, Attached):
                    fill = item.description.fill_value
                elif item is not None and not isinstance(item, Start | End | Settled | Detached):
                    now = time.monotonic()
                    taken = self._take(item, wanted=now >= due)
                    if taken is not None:
                        due = now + self._interval
                        self._show((*taken, fill))
        except Exception as error:  # the edge of a thread
            _log.error("live images have ended: {error}", error=str(error))
            with self._lock:
                self._thread = None
        finally:
            consumer.close()

    @staticmethod
    def _take(frame: BorrowedFrame, *, wanted: bool) -> tuple[int, npt.NDArray[Any]] | None:
        """Copy a frame; None when it is not wanted, or was taken back meanwhile."""
        if not wanted:
            frame.release(used=False)
            return None
        number, pixels = frame.header.number, frame.pixels.copy()
        whole = frame.valid()
        frame.release(used=whole)
        return (number, pixels) if whole else None

    def _show(self, shown: Shown) -> None:
        if self._publisher is not None:
            number, pixels, _ = shown
            head = {"htype": "array-1.0", "shape": list(pixels.shape), "type": pixels.dtype.name, "frame": number}
            try:
                self._publisher.send_multipart([orjson.dumps(head), pixels], zmq.NOBLOCK, copy=False)
                self.published += 1
            except zmq.Again:
                pass  # a PUB socket drops for who is slow; this one is full altogether
        with self._lock:
            viewers = list(self._viewers.values())
        for viewer in viewers:
            the_reactor().callFromThread(viewer, shown)


def _publisher(address: str) -> Any:
    publisher: Any = zmq.Context.instance().socket(zmq.PUB)
    publisher.setsockopt(zmq.SNDHWM, _QUEUE)
    publisher.setsockopt(zmq.LINGER, 0)
    try:
        publisher.bind(address)
    except zmq.ZMQError as error:
        publisher.close(0)
        kind = PortTaken if error.errno == zmq.EADDRINUSE else ConfigurationError
        raise kind(f"live images cannot be published at {address}: {error}", remedy="choose another: live:") from None
    return publisher
