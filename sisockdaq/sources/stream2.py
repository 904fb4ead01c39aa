"""A feed of DECTRIS Stream V2: from one or several senders' sockets to series and images.

Both dialects are taken (DECTRIS's own and the Jungfraujoch receiver's). With several sockets, start and end come over
each and images over any, so a series ends with the last socket's end, or a set time after the first one's. A receiver
that joins within a series takes the images from there on. Refused and counted by kind: ``not_understood`` messages,
``stray`` images of a series that is not under way, images whose ``channel`` is missing, and what is ``not_an_image``.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import zmq
from zmq.utils.monitor import recv_monitor_message

from sisockdaq.errors import FrameSourceError
from sisockdaq.frames.stream2 import EncodedArray, EndMessage, ImageMessage, StartMessage, decode
from sisockdaq.frames.stream2_bus import OUR_KEY
from sisockdaq.frames.tables import FLATFIELD, LOOKUP, MASK
from sisockdaq.sources.events import Event, Image, SeriesEnd, SeriesStart

__all__ = ["Stream2Feed"]

_log = logging.getLogger(__name__)

_AT_ONCE = 64
"""Most messages that are handed on together; requests are heard between."""

_ENDS_WITHIN = 5.0
"""Time after the first socket's end in which those of the others are waited for [s]."""

_TABLES: dict[str, str | None] = {MASK: "<u4", FLATFIELD: "<f4", LOOKUP: None}
"""Arrays of a start message that are carried to the files, and their type there; None: as they come."""

_LARGEST_TABLE = 2**30
"""Bytes of such an array at most."""

_Series = tuple[int, str]


class Stream2Feed:
    """Images of Stream V2 senders.

    Parameters
    ----------
    connect : sequence of str
        ZeroMQ addresses of the senders' PUSH sockets.
    channel : str, optional
        Which channel (threshold) of an image is taken. Default: the first.
    queue : int
        Messages that are kept in memory for each sender; a full queue makes the sender wait.
    """

    def __init__(self, connect: Sequence[str], *, channel: str | None = None, queue: int = 100) -> None:
        self._addresses, self._channel, self._queue = list(connect), channel, queue
        self._counts: Counter[str] = Counter()
        self._series: _Series | None = None
        self._ended: _Series | None = None
        self._ends = 0
        self._end_by: float | None = None
        self._connected = 0
        self._had_sender = False

    def open(self) -> None:
        """Connect; senders need not be there yet.

        Raises
        ------
        FrameSourceError
            When an address is none of ZeroMQ's.
        """
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.PULL)
        self._socket.setsockopt(zmq.RCVHWM, self._queue)
        self._monitor = self._socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED)
        for address in self._addresses:
            try:
                self._socket.connect(address)
            except zmq.ZMQError as error:
                self.close()
                raise FrameSourceError(
                    f"cannot connect to {address}: {error.strerror}", remedy="write tcp://HOST:PORT"
                ) from error

    def next(self, timeout: float) -> list[Event]:
        """Return what has come."""
        self._socket.poll(round(timeout * 1000))
        events: list[Event] = []
        for _ in range(_AT_ONCE):
            try:
                message = self._socket.recv(zmq.NOBLOCK, copy=False)
            except zmq.ZMQError:
                self._watch(events)
                break
            try:
                self._message(message.buffer, events)
            except FrameSourceError as error:
                self._counts["not_understood"] += 1
                _log.warning("stream: %s", error)
        return events

    def counters(self) -> dict[str, int]:
        """Return what was refused, by kind."""
        return dict(self._counts)

    def close(self) -> None:
        """Disconnect."""
        with contextlib.suppress(zmq.ZMQError):
            self._socket.disable_monitor()
        self._socket.close(linger=0)
        self._context.destroy(linger=0)

    def _watch(self, events: list[Event]) -> None:
        """Nothing is left to read: see whether senders have gone, or an end is overdue."""
        while self._monitor.poll(0):
            came = recv_monitor_message(self._monitor)["event"] == zmq.EVENT_HANDSHAKE_SUCCEEDED
            self._connected += 1 if came else -1
        if self._connected > 0:
            self._had_sender = True
        elif self._had_sender and not self._socket.poll(0):
            self._had_sender = False
            if self._series is not None:
                events.append(self._over("the sender was lost" if self._end_by is None else ""))
        if self._end_by is not None and time.monotonic() > self._end_by:
            events.append(self._over(""))

    def _message(self, data: memoryview, events: list[Event]) -> None:
        content = decode(data)
        if isinstance(content, StartMessage):
            self._start(content, events)
        elif isinstance(content, ImageMessage):
            self._image(content, events)
        elif isinstance(content, EndMessage) and self._series == (content.series_id, content.series_unique_id):
            self._ends += 1
            self._end_by = self._end_by or time.monotonic() + _ENDS_WITHIN
            if self._ends >= len(self._addresses):
                events.append(self._over(""))

    def _over(self, why: str) -> SeriesEnd:
        self._ended, self._series, self._end_by = self._series, None, None
        return SeriesEnd(why)

    def _start(self, message: StartMessage, events: list[Event]) -> None:
        series = message.series_id, message.series_unique_id
        if series == self._series:  # the same over another socket
            return
        if self._series is not None:
            events.append(self._over("a new series began"))
        self._begin(series)
        facts = _facts(message.fields)
        frames = message.fields.get("number_of_images")
        events.append(
            SeriesStart(
                str(facts.get("file_prefix") or message.series_unique_id or f"series_{message.series_id}"),
                frames if isinstance(frames, int) and not isinstance(frames, bool) else None,
                meta=facts,
                shape=message.shape,
                dtype=_dtype(message.fields.get("image_dtype")),
                tables=self._tables(message),
            )
        )

    def _tables(self, message: StartMessage) -> dict[str, npt.NDArray[Any]]:
        """Return what a start message says of the pixels of the channel that is taken; damaged arrays are left out."""
        found: dict[str, npt.NDArray[Any]] = {}
        for name, dtype in _TABLES.items():
            given = message.fields.get(name)
            if isinstance(given, Mapping):
                given = given.get(self._channel) if self._channel is not None else next(iter(given.values()), None)
            if not isinstance(given, EncodedArray) or given.nbytes > _LARGEST_TABLE:
                continue
            if name != LOOKUP and message.shape is not None and given.shape != message.shape:
                _log.warning("the %s of the start message is %s, images are %s", name, given.shape, message.shape)
                continue
            try:
                array = given.array()
            except FrameSourceError as error:
                _log.warning("the %s of the start message: %s", name, error.message)
                continue
            found[name] = np.ascontiguousarray(array, dtype or array.dtype.newbyteorder("="))
        return found

    def _begin(self, series: _Series) -> None:
        self._series, self._ends, self._end_by = series, 0, None

    def _image(self, message: ImageMessage, events: list[Event]) -> None:
        series = message.series_id, message.series_unique_id
        if series == self._ended or (self._series is not None and series != self._series):
            self._counts["stray"] += 1
            return
        if self._series is None:
            self._begin(series)
            name = message.series_unique_id or f"series_{message.series_id}"
            events.append(SeriesStart(name, first=message.image_id))
        chosen = next(iter(message.data)) if self._channel is None else self._channel
        encoded = message.data.get(chosen)
        if encoded is None:
            self._counts["channel"] += 1
            return
        if len(encoded.shape) != 2:
            self._counts["not_an_image"] += 1
            return
        begin, end = _times(message)
        pixels = encoded.dtype.newbyteorder("=")
        events.append(Image(message.image_id, begin, end, encoded.shape, pixels, partial(_unpack, encoded)))


def _unpack(encoded: EncodedArray, out: npt.NDArray[Any]) -> None:
    if encoded.dtype == out.dtype:
        encoded.array(out)
    else:  # of the other byte order
        out[...] = encoded.array()


def _times(message: ImageMessage) -> tuple[float, float]:
    """Return begin and end of an image [UNIX s]; the time of its arrival where the message does not say."""
    user = message.fields.get("user_data")
    ours = user.get(OUR_KEY) if isinstance(user, Mapping) else None
    if isinstance(ours, Mapping) and isinstance(ours.get("time"), float):
        return ours["time"], float(ours.get("last", ours["time"]))
    date, begin = message.series_date, message.seconds("start_time")
    if date is None or begin is None:
        now = time.time()
        return now, now
    end = message.seconds("stop_time")
    return date.timestamp() + begin, date.timestamp() + (begin if end is None else end)


def _dtype(name: Any) -> np.dtype[Any] | None:
    try:
        return np.dtype(name) if isinstance(name, str) else None
    except TypeError:
        return None


def _facts(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that JSON can hold, those inside user_data included; arrays are left out."""
    user = fields.get("user_data")
    inner = user if isinstance(user, Mapping) else {}
    ours = inner.get(OUR_KEY)
    description = ours.get("description") if isinstance(ours, Mapping) else None
    meta = description.get("meta") if isinstance(description, Mapping) else None
    merged = {**inner, **(meta if isinstance(meta, Mapping) else {}), **fields}
    return {
        str(key): value
        for key, value in merged.items()
        if key not in ("user_data", OUR_KEY) and value is not None and _is_plain(value)
    }


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    return isinstance(value, str | int | float | bool | None)
