"""The threads that take frames and results from the frame plane and put them, in order, into the writer's one queue.

Policies: between acquisitions frames are let go at once. Images wait for a buffer (`packing`), results for room in
the queue (`RESULTS_QUEUED`); while they wait their rings fill, and the sources count what they must drop.
Requests to a source travel through its own thread, as a consumer is for one thread.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sisockdaq.errors import FrameSourceError
from sisockdaq.frames.bus import BorrowedFrame, Consumer, Request
from sisockdaq.frames.messages import Attached, Detached, End, Mark, Settled, Start
from sisockdaq.nexus.packing import PackedFrame, Packer

__all__ = [
    "RESULTS_QUEUED",
    "FrameCame",
    "FramePassed",
    "ImageIntake",
    "IntakeFailed",
    "MarkCame",
    "ResultCame",
    "ResultsIntake",
]

RESULTS_QUEUED = 2048
"""Results in the queue at most, over all sources."""

_WAIT = 0.05
"""Longest wait for the next frame before requests are looked at again [s]."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FrameCame:
    """An image of the wanted acquisition is being packed."""

    packed: PackedFrame


@dataclass(frozen=True, slots=True)
class FramePassed:
    """A frame of the wanted acquisition has been let go: its packets are recorded, not its image."""


@dataclass(frozen=True, slots=True)
class ResultCame:
    """A vector of results of the wanted acquisition."""

    source: str
    index: int
    time: float
    vector: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class MarkCame:
    """A mark; `source` is None for the source of images, else the name of the source of results."""

    source: str | None
    mark: Mark


@dataclass(frozen=True, slots=True)
class IntakeFailed:
    """A thread has ended by an error, or a request could not be sent."""

    source: str | None
    reason: str


Item = FrameCame | FramePassed | ResultCame | MarkCame | IntakeFailed


class _Intake:
    """A thread over one consumer."""

    def __init__(
        self, name: str | None, open_consumer: Callable[[], Consumer], put: Callable[[Item], None], title: str
    ) -> None:
        self.name = name
        self.wanted: str | None = None
        self._open_consumer = open_consumer
        self._put = put
        self._acquisition: str | None = None
        self._requests: queue.SimpleQueue[Request] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=title, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        """Detach and end the thread."""
        self._stopping.set()
        self._thread.join(timeout)

    def request(self, request: Request) -> None:
        """Send a request to the source soon; a failure comes as `IntakeFailed`."""
        self._requests.put(request)

    def _run(self) -> None:
        try:
            consumer = self._open_consumer()
            try:
                while not self._stopping.is_set():
                    self._send_requests(consumer)
                    item = consumer.next(_WAIT)
                    if item is None:
                        continue
                    if isinstance(item, Start | End | Settled | Attached | Detached):
                        self._mark(item)
                    else:
                        self._frame(item)
                self._send_requests(consumer)
            finally:
                consumer.close()
        except Exception as error:  # the edge of a thread: the acquisition must learn of it, whatever it is
            _log.exception("intake of %s has failed", self.name or "images")
            self._put(IntakeFailed(self.name, str(error)))

    def _send_requests(self, consumer: Consumer) -> None:
        while not self._requests.empty():
            request = self._requests.get()
            try:
                consumer.request(request)
            except FrameSourceError as error:
                self._put(IntakeFailed(self.name, error.message))

    def _mark(self, mark: Mark) -> None:
        match mark:
            case Start(acquisition):
                self._acquisition = acquisition
            case Attached(_, _, under_way):
                self._acquisition = under_way.acquisition if under_way else None
            case End() | Detached():
                self._acquisition = None
            case Settled():
                pass
        self._put(MarkCame(self.name, mark))

    def _is_wanted(self, frame: BorrowedFrame) -> bool:
        """Let go of a frame that is not of the wanted acquisition; unused, if it is of one at all."""
        wanted = self.wanted is not None and self._acquisition == self.wanted and frame.header.index >= 0
        if not wanted:
            frame.release(used=frame.header.index < 0)
        return wanted

    def _frame(self, frame: BorrowedFrame) -> None:
        raise NotImplementedError


class ImageIntake(_Intake):
    """Takes images and has them packed.

    Parameters
    ----------
    open_consumer : callable
        Makes the consumer, in the thread that uses it.
    put : callable
        Takes each item; never blocks.
    """

    def __init__(self, open_consumer: Callable[[], Consumer], put: Callable[[Item], None]) -> None:
        super().__init__(None, open_consumer, put, "images")
        self.packer: Packer | None = None
        self.passing = False
        """Whether images are only counted."""

    def _frame(self, frame: BorrowedFrame) -> None:
        while self._is_wanted(frame):
            if self.passing:
                frame.release(used=True)
                self._put(FramePassed())
                return
            if self.packer is None:
                frame.release(used=False)
                return
            packed = self.packer.pack(frame, _WAIT)
            if packed is not None:
                self._put(FrameCame(packed))
                return
            if self._stopping.is_set():
                frame.release(used=False)
                return


class ResultsIntake(_Intake):
    """Takes the results of one source; `room` bounds how many of them wait in the queue."""

    def __init__(
        self,
        name: str,
        open_consumer: Callable[[], Consumer],
        put: Callable[[Item], None],
        room: threading.BoundedSemaphore,
    ) -> None:
        super().__init__(name, open_consumer, put, f"results {name}")
        self._room = room

    def _frame(self, frame: BorrowedFrame) -> None:
        while self._is_wanted(frame):
            if self._room.acquire(timeout=_WAIT):
                header = frame.header
                result = ResultCame(self.name or "", header.index, header.time, np.array(frame.pixels, np.float64))
                frame.release(used=True)
                self._put(result)
                return
            if self._stopping.is_set():
                frame.release(used=False)
                return
