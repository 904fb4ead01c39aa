"""Frames into a process from a Stream V2 sender: a detector, another site, or our own `Stream2Producer`.

A stream has no way back, so the consumer keeps the ledger itself: it knows what was announced, what came and what was
used, and settles once its user has reported. An image that came twice is passed over; a message that cannot be read is
counted with its reason; a series whose end never came is ended, as failed, by the next one or by the loss of the
sender.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import Counter, deque
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import zmq
from zmq.utils.monitor import recv_monitor_message

from sisockdaq.errors import FrameSourceError
from sisockdaq.frames._books import Acquisition, Books
from sisockdaq.frames._stream2_sender import OUR_KEY
from sisockdaq.frames.bus import Request
from sisockdaq.frames.messages import (
    NO_ACQUISITION,
    Attached,
    Description,
    Detached,
    End,
    FrameHeader,
    Mark,
    Policy,
    Report,
    Start,
)
from sisockdaq.frames.stream2 import (
    EncodedArray,
    EndMessage,
    ImageMessage,
    StartMessage,
    decode,
)

__all__ = ["Stream2Consumer", "Stream2Frame"]

_log = logging.getLogger(__name__)

_REPORT_WITHIN = 10.0
"""Time the user of a consumer has to report after the end of a series [s]."""

_QUEUE_MESSAGES = 100
"""Default limit of the receive queue, as the Jungfraujoch writer has it."""


class Stream2Frame:
    """A frame that came in a message; satisfies `sisockdaq.frames.bus.BorrowedFrame`.

    Attributes
    ----------
    encoded : EncodedArray
        The pixels as they came, to be stored without unpacking.
    """

    def __init__(
        self,
        consumer: Stream2Consumer,
        header: FrameHeader,
        encoded: EncodedArray,
        packet_mask: npt.NDArray[np.uint8],
        acquisition: Acquisition | None,
    ) -> None:
        self.header, self.encoded, self.packet_mask = header, encoded, packet_mask
        self.acquisition = acquisition
        self._consumer: Stream2Consumer | None = consumer
        self._pixels: npt.NDArray[Any] | None = None

    @property
    def pixels(self) -> npt.NDArray[Any]:
        """The pixels, unpacked at the first call; raises `FrameSourceError` when their payload is damaged."""
        if self._pixels is None:
            self._pixels = self.encoded.array()
            self._pixels.flags.writeable = False
        return self._pixels

    def valid(self) -> bool:
        """Whether it is still borrowed: nobody takes a message back."""
        return self._consumer is not None

    def release(self, *, used: bool = True) -> None:
        """Count the frame as taken or dropped; a second call does nothing."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.count(self.acquisition, "taken" if used else "dropped")

    def forget(self) -> None:
        """Let it go without counting."""
        self._consumer = None

    def __enter__(self) -> Stream2Frame:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release(used=kind is None)


class Stream2Consumer:
    """Take frames from a Stream V2 sender; satisfies `sisockdaq.frames.bus.Consumer`.

    Parameters
    ----------
    connect : str
        ZeroMQ address of the sender, for example ``tcp://detector:31001``; it need not be there yet.
    name : str
        Who this is, in the ledger.
    policy : Policy
    reports : bool
        Whether the user sends a `Report` after each `End`; the ledger waits for it, ten seconds at most.
    queue : int
        Messages that may wait here; beyond, the sender has to queue or drop.
    unpack : bool
        Unpack every image on arrival, so that a damaged one is refused and counted. Without it `Stream2Frame.pixels`
        unpacks when asked, and may raise: for a writer that stores the payload as it came.
    """

    def __init__(
        self,
        connect: str,
        name: str,
        policy: Policy,
        *,
        reports: bool = True,
        queue: int = _QUEUE_MESSAGES,
        unpack: bool = True,
    ) -> None:
        self._address, self._name, self._policy, self._reports = connect, name, policy, reports
        self._unpack = unpack
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PULL)
        self._socket.setsockopt(zmq.RCVHWM, queue)
        self._monitor = self._socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._monitor, zmq.POLLIN)
        try:
            self._socket.connect(connect)
        except zmq.ZMQError as error:
            self.close()
            raise FrameSourceError(f"Stream V2: cannot connect to {connect}: {error.strerror}") from error
        self._items: deque[Mark | Stream2Frame] = deque()
        self._books = Books()
        self._lock = threading.Lock()
        self._description: Description | None = None
        self._epoch = time.time_ns() // 1000
        self._series: tuple[int, str] | None = None
        self._acquisition: Acquisition | None = None
        self._seen: set[int] = set()
        self._partial = 0
        self._sequence = 0
        self._lost_sender = False
        self._counts: Counter[str] = Counter()

    def next(self, timeout: float) -> Mark | Stream2Frame | None:
        """Return the next mark or frame in order; None after `timeout` seconds without one."""
        deadline = time.monotonic() + timeout
        while not self._socket.closed:
            self._settle()
            if self._items:
                return self._next_item()
            if not self._receive() and time.monotonic() < deadline:
                if self._lost_sender:
                    self._sender_lost()
                else:
                    self._wait(deadline)
            elif time.monotonic() >= deadline and not self._items:
                return None
        return None

    def request(self, request: Request) -> None:
        """Take the `Report` of this consumer's user; `Arm` and `Stop` are not possible over a stream.

        Raises
        ------
        FrameSourceError
            For `Arm` and `Stop`.
        """
        if not isinstance(request, Report):
            raise FrameSourceError(
                f"the stream at {self._address} has no way back: its source must be started by other means",
                remedy="arm the detector itself; frames are taken as they come",
            )
        with self._lock:
            if not self._books.report(self._name, request):
                _log.warning("report of %s for %s came too late", self._name, request.acquisition)

    def status(self) -> dict[str, int]:
        """Return what came: images, duplicates, stray images, refused messages and bytes."""
        return dict(self._counts)

    def close(self) -> None:
        """Stop receiving; frames still borrowed stay readable."""
        with contextlib.suppress(zmq.ZMQError):
            self._socket.disable_monitor()
        self._socket.close(linger=0)
        self._context.destroy(linger=0)

    def count(self, acquisition: Acquisition | None, outcome: Any, frames: int = 1) -> None:
        """Count frames of an acquisition; any thread."""
        with self._lock:
            self._books.credit(acquisition, self._name, outcome, frames)

    # ---- the queue of items --------------------------------------------------------------------------------------

    def _next_item(self) -> Mark | Stream2Frame:
        """Return the first item; ``latest`` passes over frames that have a newer one behind them."""
        while True:
            item = self._items.popleft()
            if not isinstance(item, Stream2Frame) or self._policy.kind != "latest":
                return item
            while not self._items and self._receive():
                pass
            if not self._items or not isinstance(self._items[0], Stream2Frame):
                return item
            item.release(used=False)

    def _settle(self) -> None:
        with self._lock:
            for acquisition in self._books.due(time.monotonic()):
                held = acquisition.published - self._accounted(acquisition)
                self._items.append(self._books.close(acquisition, lambda _, held=held: max(held, 0)))  # type: ignore[misc]

    def _accounted(self, acquisition: Acquisition) -> int:
        account = acquisition.accounts[self._name]
        missed = acquisition.published - account.offered
        return account.part.taken + account.part.dropped + account.part.skipped + missed

    def _wait(self, deadline: float) -> None:
        with self._lock:
            due = self._books.next_deadline()
        until = deadline if due is None else min(deadline, due)
        # A report arrives from another thread without a signal, hence the short pause while one is awaited.
        pause = min(until - time.monotonic(), 0.02 if due is not None else 1.0)
        self._poller.poll(max(0, round(pause * 1000)))

    # ---- messages ------------------------------------------------------------------------------------------------

    def _receive(self) -> bool:
        """Handle one message, if there is one."""
        self._watch_connection()
        try:
            message = self._socket.recv(zmq.NOBLOCK, copy=False)
        except zmq.ZMQError:
            return False
        data = message.buffer
        self._counts["messages"] += 1
        self._counts["bytes"] += len(data)
        try:
            self._handle(data)
        except FrameSourceError as error:
            self._counts["refused"] += 1
            _log.warning("stream %s: %s", self._address, error)
        return True

    def _handle(self, data: memoryview) -> None:
        content = decode(data)
        if isinstance(content, StartMessage):
            self._begin(content)
        elif isinstance(content, ImageMessage):
            self._image(content)
        elif isinstance(content, EndMessage) and self._series == (content.series_id, content.series_unique_id):
            self._end(_ours(content.fields))

    def _watch_connection(self) -> None:
        while self._monitor.poll(0):
            self._lost_sender = recv_monitor_message(self._monitor)["event"] == zmq.EVENT_DISCONNECTED

    def _sender_lost(self) -> None:
        """The connection broke and all that had come is used up: say so, once."""
        self._lost_sender = False
        self._break_off("the sender was lost")
        if self._description is not None:
            self._description = None
            self._items.append(Detached(f"the sender at {self._address} has gone"))

    def _begin(self, message: StartMessage) -> None:
        self._break_off("a new series began")
        ours = _ours(message.fields)
        description = _description(message, ours)
        if description is not None:
            self._describe(description)
        else:
            self._description = None  # nothing says how large images are: the first one does
        name = str(message.fields.get("file_prefix") or message.series_unique_id or f"series_{message.series_id}")
        frames = message.fields.get("number_of_images")
        start = Start(name, frames if isinstance(frames, int) else None, _plain_fields(message.fields))
        if isinstance(ours.get("start"), dict):
            start = Start(**ours["start"])
        self._series = (message.series_id, message.series_unique_id)
        self._seen, self._partial = set(), 0
        with self._lock:
            self._books.attach(self._name, str(self._policy), reports=self._reports)
            self._acquisition = self._books.start(start)
        self._items.append(start)

    def _describe(self, description: Description) -> None:
        if description != self._description:
            self._description = description
            self._epoch += 1
            place = len(self._items) - (bool(self._items) and isinstance(self._items[-1], Start))
            self._items.insert(place, Attached(description, self._epoch))

    def _image(self, message: ImageMessage) -> None:
        encoded = next(iter(message.data.values()))
        acquisition = self._acquisition if self._series == (message.series_id, message.series_unique_id) else None
        if acquisition is None:
            self._counts["strays"] += 1
        elif message.image_id in self._seen:
            self._counts["duplicates"] += 1
            return
        header, mask = _header(message, acquisition is not None)
        header.sequence = self._sequence if header.sequence < 0 else header.sequence
        self._sequence = header.sequence + 1
        if self._description is None:
            self._describe(Description(self._address, "image", encoded.shape, str(encoded.dtype)))
        description = self._description
        if description is None or encoded.shape != description.shape or encoded.dtype != np.dtype(description.dtype):
            raise FrameSourceError(f"image {message.image_id} is {encoded.dtype} {encoded.shape}, not as announced")
        frame = Stream2Frame(self, header, encoded, mask, acquisition)
        if self._unpack:
            _ = frame.pixels
        if acquisition is not None:
            self._seen.add(message.image_id)
            self._partial += not header.complete
            acquisition.published += 1
        self._counts["images"] += 1
        if self._policy.kind == "every" and header.sequence % self._policy.n:
            self.count(acquisition, "skipped")
            frame.forget()
        else:
            self._items.append(frame)

    def _end(self, ours: dict[str, Any]) -> None:
        acquisition = self._acquisition
        if acquisition is None:
            return
        came = acquisition.published
        end = End(**ours["end"]) if isinstance(ours.get("end"), dict) else None
        if end is None or end.acquisition != acquisition.start.acquisition:
            end = End(acquisition.start.acquisition, "complete", self._counted(acquisition))
        self._close_series(end)
        sent = end.counts.get("frames_complete", 0) + end.counts.get("frames_partial", 0)
        if isinstance(sent, int):
            acquisition.published = max(came, sent)  # what came short counts as missed

    def _break_off(self, why: str) -> None:
        """End a series whose end message did not come."""
        acquisition = self._acquisition
        if acquisition is not None:
            _log.warning("stream %s: series %s broken off: %s", self._address, acquisition.start.acquisition, why)
            self._close_series(End(acquisition.start.acquisition, "failed", self._counted(acquisition)))

    def _close_series(self, end: End) -> None:
        with self._lock:
            self._books.end(end, time.monotonic() + _REPORT_WITHIN)
        self._acquisition = self._series = None
        self._items.append(end)

    def _counted(self, acquisition: Acquisition) -> dict[str, Any]:
        """Return the source's part of the ledger where the source has sent none: what was announced and what came."""
        came = acquisition.published
        expected = max(acquisition.start.frames or came, came)
        return {
            "frames_expected": expected,
            "frames_complete": came - self._partial,
            "frames_partial": self._partial,
            "frames_dropped": {"not_received": expected - came} if expected > came else {},
        }


def _ours(fields: dict[str, Any]) -> dict[str, Any]:
    user = fields.get("user_data")
    ours = user.get(OUR_KEY) if isinstance(user, dict) else None
    return ours if isinstance(ours, dict) else {}


def _description(message: StartMessage, ours: dict[str, Any]) -> Description | None:
    """Return what the sender announces; None when it does not say how large its images are."""
    try:
        if isinstance(ours.get("description"), dict):
            return Description(**{**ours["description"], "shape": tuple(ours["description"]["shape"])})
        dtype = str(np.dtype(str(message.fields["image_dtype"])))
        source = str(message.fields.get("detector_serial_number") or "stream2")
        return (
            Description(source, "image", message.shape, dtype, meta=_plain_fields(message.fields))
            if message.shape
            else None
        )
    except (KeyError, TypeError):
        return None


def _plain_fields(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that JSON can hold; arrays (masks, flat fields) are left out."""
    plain = (str, int, float, bool, type(None))
    return {
        key: value
        for key, value in fields.items()
        if isinstance(value, plain) or (isinstance(value, list) and all(isinstance(item, plain) for item in value))
    }


def _header(message: ImageMessage, in_series: bool) -> tuple[FrameHeader, npt.NDArray[np.uint8]]:
    """Return the header and packet mask of an image: ours where it has one, else from Stream V2's own times."""
    ours = _ours(message.fields)
    mask = ours.pop("packet_mask", b"")
    if ours:
        try:
            header = FrameHeader(**ours)
        except TypeError as error:
            raise FrameSourceError(f"image {message.image_id}: {error}") from error
        received = np.frombuffer(mask if isinstance(mask, bytes) else b"", np.uint8)
        if header.complete:
            received = np.full(-(-header.packets_expected // 8), 255, np.uint8)
        if not in_series:
            header.index = NO_ACQUISITION
        return header, received
    date = message.series_date
    began = date.timestamp() if date is not None else time.time()
    first, last = message.seconds("start_time") or 0.0, message.seconds("stop_time")
    index = message.image_id if in_series else NO_ACQUISITION
    header = FrameHeader(message.image_id, began + first, began + (first if last is None else last), index)
    return header, np.empty(0, np.uint8)
