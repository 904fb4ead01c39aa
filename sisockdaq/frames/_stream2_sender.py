"""Frames out of a process as Stream V2 over a ZeroMQ PUSH socket.

The stream is a courtesy to other machines: nothing here ever waits for a receiver, but for a moment (`patience`) at
the two ends of a series. An image that cannot be handed over at once, because nobody pulls or the queue is full, is
dropped and counted. An image only goes out after its series' start message has.

Other programs see plain Stream V2, with ``image_id`` counted from 0 in each series. Our own consumers find the rest
(the exact times, the packet mask, the ledger's counts) under ``user_data["sisockdaq"]``.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import zmq

from sisockdaq.errors import FrameSourceError, PortTaken
from sisockdaq.frames.bus import Consumer, Request
from sisockdaq.frames.messages import Attached, Description, Detached, End, FrameHeader, Report, Settled, Start
from sisockdaq.frames.stream2 import Compression, EndMessage, StartMessage, encode_end, encode_image, encode_start

__all__ = ["OUR_KEY", "Stream2Output", "Stream2Producer", "Stream2Sender"]

_log = logging.getLogger(__name__)

OUR_KEY = "sisockdaq"
"""Key within ``user_data`` under which our own ends understand each other."""

CHANNEL = "default"
"""Name of the only channel of what we send."""

_QUEUE_BYTES = 512e6
_QUEUE_MESSAGES = 100
"""Default limit of the send queue: so many messages, or fewer where they are large."""

_START_KEYS = (
    "beam_center_x",
    "beam_center_y",
    "count_time",
    "countrate_correction_enabled",
    "detector_description",
    "detector_serial_number",
    "detector_translation",
    "flatfield_enabled",
    "frame_time",
    "goniometer",
    "incident_energy",
    "incident_wavelength",
    "pixel_mask_enabled",
    "pixel_size_x",
    "pixel_size_y",
    "saturation_value",
    "sensor_material",
    "sensor_thickness",
    "threshold_energy",
    "virtual_pixel_interpolation_enabled",
)
"""Keys of a start message that are taken over from the description's and the acquisition's ``meta``."""


class Stream2Sender:
    """The socket and the series that is under way; for one thread.

    Parameters
    ----------
    bind : str
        ZeroMQ address to bind, for example ``tcp://0.0.0.0:31001``.
    description : Description
    compression : str
        ``bslz4`` or ``none``.
    queue : int, optional
        Messages that may wait to be sent.
    patience : float
        How long the start and the end of a series are tried [s].

    Attributes
    ----------
    sent, dropped : int
        Images handed to ZeroMQ, and images that could not be.
    hurry : bool
        Set (by any thread) when nothing is to be waited for any more.
    series_sent : int
        Images of this series handed to ZeroMQ.

    Raises
    ------
    PortTaken, FrameSourceError
        When the address is in use, or is none.
    """

    def __init__(
        self,
        bind: str,
        description: Description,
        *,
        compression: Compression = "bslz4",
        queue: int | None = None,
        patience: float = 0.1,
    ) -> None:
        self.description, self._compression, self._patience = description, compression, patience
        self.sent = self.series_sent = self.dropped = 0
        self.hurry = False
        self._series = 0
        self._unique = ""
        self._began: float | None = None
        self._unsent_start: bytes | None = None
        self._open = False
        frame = int(np.prod(description.shape, dtype=np.int64)) * np.dtype(description.dtype).itemsize
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PUSH)
        self._socket.setsockopt(zmq.SNDHWM, queue or max(4, min(_QUEUE_MESSAGES, int(_QUEUE_BYTES / max(frame, 1)))))
        try:
            self._socket.bind(bind)
        except zmq.ZMQError as error:
            self._socket.close(linger=0)
            self._context.term()
            if error.errno == zmq.EADDRINUSE:
                raise PortTaken(f"Stream V2: {bind} is in use", remedy="choose another port for the stream") from error
            raise FrameSourceError(f"Stream V2: cannot bind {bind}: {error.strerror}") from error

    def start(self, start: Start) -> None:
        """Begin a series."""
        self._series += 1
        self._unique, self._began, self._open = uuid.uuid4().hex, None, True
        self.series_sent = 0
        description = self.description
        size = (1, *description.shape)[-2:]
        fields: dict[str, Any] = {
            key: value for meta in (description.meta, start.meta) for key, value in meta.items() if key in _START_KEYS
        }
        fields |= {
            "arm_date": datetime.now(UTC),
            "channels": [CHANNEL],
            "image_dtype": str(np.dtype(description.dtype)),
            "image_size_x": size[1],
            "image_size_y": size[0],
            "user_data": {OUR_KEY: {"description": asdict(description), "start": asdict(start)}},
        }
        if start.frames is not None:
            fields["number_of_images"] = start.frames
        self._unsent_start = encode_start(StartMessage(self._series, self._unique, fields))
        if self._send(self._unsent_start, self._patience):
            self._unsent_start = None

    def image(
        self,
        header: FrameHeader,
        pixels: npt.NDArray[Any],
        packet_mask: npt.NDArray[np.uint8],
        valid: Callable[[], bool] = lambda: True,
    ) -> bool:
        """Send an image of the series; False (and counted) when it had to be dropped.

        `valid` is asked once the pixels are packed: they do not go out if their slot was taken back meanwhile.
        """
        if self._ready():
            message = self._image(header, pixels, packet_mask)
            if valid() and self._send(message):
                self.sent += 1
                self.series_sent += 1
                return True
        self.dropped += 1
        return False

    def end(self, end: End) -> bool:
        """End the series; False when the message could not be handed over in time."""
        self._open = False
        fields = {"user_data": {OUR_KEY: {"end": asdict(end), "sent": self.sent, "dropped": self.dropped}}}
        message = encode_end(EndMessage(self._series, self._unique, fields))
        return self._unsent_start is None and self._send(message, self._patience)

    @property
    def in_series(self) -> bool:
        """Whether a series is under way."""
        return self._open

    def close(self, linger: float = 2.0) -> None:
        """Close; what is still queued is tried for `linger` seconds."""
        self._socket.close(linger=int(linger * 1000))
        self._context.term()

    def _ready(self) -> bool:
        """Whether an image would be taken now; so nothing is packed in vain."""
        if self._unsent_start is not None and self._send(self._unsent_start):
            self._unsent_start = None
        return self._unsent_start is None and bool(int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLOUT)

    def _send(self, message: bytes | memoryview, patience: float = 0.0) -> bool:
        until = time.monotonic() + patience
        while patience and not self._socket.poll(20, zmq.POLLOUT):
            if self.hurry or time.monotonic() > until:
                return False
        try:
            self._socket.send(message, zmq.NOBLOCK, copy=False)
        except zmq.Again:
            return False
        return True

    def _image(self, header: FrameHeader, pixels: npt.NDArray[Any], packet_mask: npt.NDArray[np.uint8]) -> memoryview:
        began = self._began = header.time if self._began is None else self._began
        ours = asdict(header)
        if not header.complete:
            ours["packet_mask"] = packet_mask.tobytes()
        fields = {
            "series_date": datetime.fromtimestamp(began, UTC),
            "start_time": _fraction(header.time - began),
            "stop_time": _fraction(header.last - began),
            "user_data": {OUR_KEY: ours},
        }
        return encode_image(
            self._series, self._unique, max(header.index, 0), {CHANNEL: pixels}, fields, compression=self._compression
        )


def _fraction(seconds: float) -> list[int]:
    return [max(0, round(seconds * 1e9)), 1_000_000_000]


class Stream2Producer:
    """Publish frames as Stream V2; satisfies `sisockdaq.frames.bus.Producer`, without a way back.

    Frames are packed and sent by a thread of its own, from slots that the caller fills; so publishing costs the caller
    nothing, and a stream that cannot keep up shows as a full pool. Frames outside an acquisition do not go out
    (Stream V2 knows only series) and count as skipped.

    Parameters
    ----------
    bind, description
        As for `Stream2Sender`.
    slots : int
        Frames that may wait to be packed.
    **options
        Of `Stream2Sender`.
    """

    def __init__(self, bind: str, description: Description, slots: int, **options: Any) -> None:
        self._sender = Stream2Sender(bind, description, **options)
        self.pixels: npt.NDArray[Any] = np.zeros((slots, *description.shape), description.dtype)
        self.packet_masks = np.zeros((slots, -(-description.packets_per_frame // 8)), np.uint8)
        self._free = deque(range(slots))
        self._sequence = self._skipped = 0
        self._acquisition: str | None = None
        self._work: deque[Callable[[], None]] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=f"stream2-{description.source}", daemon=True)
        self._thread.start()

    def acquire(self) -> int | None:
        """Take a free slot; None when all wait to be sent."""
        with self._changed:
            return self._free.popleft() if self._free else None

    def publish(self, slot: int, header: FrameHeader) -> None:
        """Send the filled slot, and forget it."""
        header.sequence = self._sequence
        self._sequence += 1
        self._queue(lambda: self._image(slot, header))

    def discard(self, slot: int) -> None:
        """Give an acquired slot back unpublished."""
        with self._changed:
            self._free.append(slot)

    def start(self, start: Start) -> None:
        """Begin a series."""
        if self._acquisition is not None:
            raise ValueError(f'acquisition "{self._acquisition}" is still under way')
        self._acquisition = start.acquisition
        self._queue(lambda: self._sender.start(start))

    def end(self, end: End, deadline: float = 10.0) -> None:
        """End the series. There is no way back: each consumer settles the ledger for itself."""
        if self._acquisition != end.acquisition:
            raise ValueError(f'acquisition "{end.acquisition}" is not under way')
        self._acquisition = None
        self._queue(lambda: self._end(end))

    def describe(self, description: Description) -> None:
        """Change the description's ``meta`` from the next series on."""
        if (description.shape, np.dtype(description.dtype)) != (self.pixels.shape[1:], self.pixels.dtype):
            raise ValueError("shape and dtype stay as they are while a stream lives")
        self._queue(lambda: setattr(self._sender, "description", description))

    def on_request(self, handler: Callable[[str, Request], None]) -> None:
        """Do nothing: Stream V2 has no way back."""

    def status(self) -> dict[str, Any]:
        """Return slots, free slots, frames published, and what was sent and dropped as of one consumer."""
        with self._changed:
            return {
                "slots": len(self.pixels),
                "slots_free": len(self._free),
                "published": self._sequence,
                "consumers": {
                    "stream2": {
                        "policy": "lossless",
                        "state": "attached",
                        "taken": self._sender.sent,
                        "dropped": self._sender.dropped,
                        "skipped": self._skipped,
                        "held": 0,
                        "queued": len(self._work),
                    }
                },
            }

    def close(self) -> None:
        """Send what is queued, and close."""
        with self._changed:
            if self._closing:
                return
            self._closing = self._sender.hurry = True
            self._changed.notify()
        self._thread.join(timeout=10.0)

    def _queue(self, job: Callable[[], None]) -> None:
        with self._changed:
            self._work.append(job)
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._work and not self._closing:
                    self._changed.wait(1.0)
                if not self._work:
                    break
                job = self._work.popleft()
            try:
                job()
            except Exception:  # the edge of a thread: one message that cannot be sent must not end the stream
                _log.exception("Stream V2 output of %s: a message was lost", self._sender.description.source)
        self._sender.close()

    def _image(self, slot: int, header: FrameHeader) -> None:
        try:
            if header.index >= 0 and self._sender.in_series:
                self._sender.image(header, self.pixels[slot], self.packet_masks[slot])
            else:
                self._skipped += 1
        finally:
            self.discard(slot)

    def _end(self, end: End) -> None:
        if not self._sender.end(end):
            _log.warning("Stream V2: nobody took the end of %s", end.acquisition)


class Stream2Output:
    """Pass on what a consumer takes, straight from its slots, as Stream V2; a thread of its own.

    The consumer is one of the source's like any other: what the stream could not send counts as dropped by it, in the
    source's ledger.

    Parameters
    ----------
    consumer : Consumer
        Of the frames to pass on; closed with the output.
    bind : str
    **options
        Of `Stream2Sender`.
    """

    def __init__(self, consumer: Consumer, bind: str, description: Description, **options: Any) -> None:
        self._consumer = consumer
        self._sender = Stream2Sender(bind, description, **options)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"stream2-{description.source}", daemon=True)
        self._thread.start()

    def status(self) -> Mapping[str, int]:
        """Return how many images were sent and dropped."""
        return {"sent": self._sender.sent, "dropped": self._sender.dropped}

    def close(self) -> None:
        """Stop passing frames on."""
        self._sender.hurry = True
        self._stopping.set()
        self._thread.join(timeout=10.0)

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                try:
                    self._pass_on()
                except Exception:  # the edge of a thread: one message that cannot be sent must not end the stream
                    _log.exception("Stream V2 output of %s: a message was lost", self._sender.description.source)
                    self._stopping.wait(0.1)
        finally:
            self._consumer.close()
            self._sender.close()

    def _pass_on(self) -> None:
        item = self._consumer.next(0.2)
        if item is None or isinstance(item, Settled):
            return
        if isinstance(item, Attached):
            self._sender.description = item.description
            if item.acquisition is not None:
                self._sender.start(item.acquisition)
        elif isinstance(item, Detached):
            if self._sender.in_series:
                self._sender.end(End("", "failed"))
        elif isinstance(item, Start):
            self._sender.start(item)
        elif isinstance(item, End):
            if self._sender.in_series:
                self._sender.end(item)
            with contextlib.suppress(FrameSourceError):
                self._consumer.request(Report(item.acquisition, {"images_sent": self._sender.series_sent}))
        else:
            sent = False
            try:
                in_series = self._sender.in_series and item.header.index >= 0
                sent = in_series and self._sender.image(item.header, item.pixels, item.packet_mask, item.valid)
            finally:
                item.release(used=sent)
