"""bsread: one ZeroMQ message a pulse, with the values of many channels; and a feed of it.

A message has parts: 1 the main header (JSON), 2 the data header (JSON, the channels), then two for each channel: its
value and its time stamp. The data header repeats from pulse to pulse; the main header carries its hash, so that it is
read only when it changes, and a mix-up shows.

`parse` is pure. Refused and counted by kind: ``not_understood``, ``version``, ``hash``, ``parts``; channels whose
value cannot be read count under ``channel``. An empty value means that the channel had none for this pulse.

Source: the bsread specification, message type 1.1.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import zmq

from sisockdaq.errors import FrameSourceError
from sisockdaq.frames import bitshuffle
from sisockdaq.sources.events import Event, Image, SampleBlock

__all__ = ["BsreadFeed", "Channel", "HeaderCache", "MessageRefused", "Pulse", "parse"]

_log = logging.getLogger(__name__)

_AT_ONCE = 64
"""Most messages that are handed on together; requests are heard between."""

_LARGEST = 2**31
"""Largest value of a channel [bytes]."""

_MAIN, _DATA = "bsr_m-1.", "bsr_d-1."

_TYPES = {
    **{name: name for name in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")},
    **{name: name for name in ("float32", "float64")},
    "float": "float32",
    "double": "float64",
    "bool": "bool",
}


class MessageRefused(Exception):
    """A message that cannot be used; `kind` is what it counts under."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Channel:
    """A channel as the data header describes it; `shape` is numpy's, slowest axis first."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any] | None
    compression: Literal["none", "bitshuffle_lz4"]

    @classmethod
    def of(cls, entry: Any) -> Channel:
        """Read a channel's entry; raise `MessageRefused` where it makes no sense."""
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise MessageRefused("not_understood", "a channel without a name")
        name, kind = entry["name"], entry.get("type") or "float64"
        sizes = entry.get("shape") or [1]
        if not isinstance(sizes, list) or not all(isinstance(size, int) and size > 0 for size in sizes):
            raise MessageRefused("not_understood", f"{name}: impossible shape {sizes!r}")
        compression = entry.get("compression") or "none"
        if compression not in ("none", "bitshuffle_lz4"):
            raise MessageRefused("channel", f"{name}: compression {compression!r} is not known")
        if kind != "string" and kind not in _TYPES:
            raise MessageRefused("channel", f"{name}: type {kind!r} is not known")
        dtype = None
        if kind != "string":
            dtype = np.dtype(_TYPES[kind]).newbyteorder(">" if entry.get("encoding") == "big" else "<")
            if math.prod(sizes) * dtype.itemsize > _LARGEST:
                raise MessageRefused("channel", f"{name}: {sizes} values are too many")
        return cls(name, tuple(reversed(sizes)), dtype, "none" if compression == "none" else "bitshuffle_lz4")

    @property
    def is_image(self) -> bool:
        """Whether the values have rows and columns."""
        return len(self.shape) == 2 and self.dtype is not None and self.dtype.kind in "uif"

    def read(self, data: memoryview, out: npt.NDArray[Any]) -> None:
        """Put the values into `out`; raise `FrameSourceError` where they are damaged."""
        assert self.dtype is not None
        try:
            if self.compression == "none":
                flat = np.frombuffer(data, self.dtype)
                if flat.size != math.prod(self.shape):
                    raise ValueError(f"{len(data)} bytes for {self.dtype} {self.shape}")
                out[...] = flat.reshape(self.shape)
            elif out.dtype == self.dtype and out.flags.c_contiguous:
                bitshuffle.decompress_lz4(data, self.shape, self.dtype, out=out)
            else:
                out[...] = bitshuffle.decompress_lz4(data, self.shape, self.dtype)
        except ValueError as error:
            raise FrameSourceError(f"damaged value of {self.name}: {error}") from error

    def value(self, data: memoryview) -> Any:
        """Return a number, a text, or an array; raise `FrameSourceError` where the value is damaged."""
        if self.dtype is None:
            try:
                return bytes(data).decode()
            except UnicodeDecodeError as error:
                raise FrameSourceError(f"damaged value of {self.name}: {error}") from error
        values = np.empty(self.shape, self.dtype.newbyteorder("="))
        self.read(data, values)
        return values.reshape(-1)[0].item() if values.size == 1 else values


@dataclass(frozen=True, slots=True)
class Pulse:
    """What a message says: the pulse, its time [UNIX s], and the channels that have a value."""

    pulse_id: int
    time: float
    values: list[tuple[Channel, memoryview]]


class HeaderCache:
    """Data headers by their hash: the one that was read last."""

    def __init__(self) -> None:
        self._hash = ""
        self._known: list[Channel | None] = []
        self.refused: list[str] = []
        """Why channels of this header cannot be read."""

    def channels(self, expected: str, data: memoryview) -> list[Channel | None]:
        """Return the channels, None for one that cannot be read; `expected` is the hash in the main header."""
        if hashlib.md5(data, usedforsecurity=False).hexdigest() != expected:
            raise MessageRefused("hash", "the data header is not the one that the main header names")
        if self._hash != expected:
            self._known = self._read(data)
            self._hash = expected
        return self._known

    def _read(self, data: memoryview) -> list[Channel | None]:
        body = _json(data, _DATA)
        entries = body.get("channels")
        if not isinstance(entries, list):
            raise MessageRefused("not_understood", "the data header has no channels")
        channels: list[Channel | None] = []
        self.refused = []
        for entry in entries:
            try:
                channels.append(Channel.of(entry))
            except MessageRefused as error:
                if error.kind != "channel":
                    raise
                self.refused.append(str(error))
                channels.append(None)
        return channels


def parse(parts: Sequence[memoryview], cache: HeaderCache) -> tuple[Pulse, int]:
    """Read a message.

    Returns
    -------
    pulse : Pulse
    unreadable : int
        Channels that cannot be read.

    Raises
    ------
    MessageRefused
        With the kind of what is wrong.
    """
    if len(parts) < 2:
        raise MessageRefused("parts", f"a message of {len(parts)} parts")
    main = _json(parts[0], _MAIN)
    channels = cache.channels(str(main.get("hash")), _unpacked(parts[1], main))
    if len(parts) < 2 + 2 * len(channels):
        raise MessageRefused("parts", f"{len(parts)} parts for {len(channels)} channels")
    stamp, pulse = main.get("global_timestamp"), main.get("pulse_id")
    seconds, nanoseconds = _stamp(stamp)
    if not isinstance(pulse, int):
        raise MessageRefused("not_understood", f"pulse_id {pulse!r} is no number")
    values = [
        (channel, parts[2 + 2 * place])
        for place, channel in enumerate(channels)
        if channel is not None and len(parts[2 + 2 * place])
    ]
    return Pulse(pulse, seconds + nanoseconds * 1e-9, values), channels.count(None)


def _stamp(stamp: Any) -> tuple[int, int]:
    """Return seconds and nanoseconds; some senders call the seconds ``epoch``."""
    if isinstance(stamp, dict):
        seconds, nanoseconds = stamp.get("sec", stamp.get("epoch")), stamp.get("ns", 0)
        if isinstance(seconds, int) and isinstance(nanoseconds, int):
            return seconds, nanoseconds
    raise MessageRefused("not_understood", f"global_timestamp {stamp!r} is no time")


def _unpacked(data: memoryview, main: dict[str, Any]) -> memoryview:
    """Return the data header as it is hashed: the bytes of the part as they came, which must not be packed."""
    if main.get("dh_compression", "none") not in ("none", None, ""):
        raise MessageRefused("not_understood", f"data header with compression {main['dh_compression']!r}")
    return data


def _json(data: memoryview, htype: str) -> dict[str, Any]:
    try:
        body = json.loads(bytes(data))
    except ValueError as error:
        raise MessageRefused("not_understood", f"not JSON: {error}") from error
    if not isinstance(body, dict):
        raise MessageRefused("not_understood", "not a JSON object")
    if not str(body.get("htype")).startswith(htype):
        raise MessageRefused("version", f"htype {body.get('htype')!r}; {htype}x is needed")
    return body


class BsreadFeed:
    """Images and other channels of bsread senders.

    Parameters
    ----------
    connect : sequence of str
        ZeroMQ addresses.
    mode : str
        ``pull`` from senders that push, ``sub`` from senders that publish.
    image : str, optional
        Channel of the images. Default: the first with rows and columns.
    channels : sequence of str, optional
        Other channels that are wanted. Default: all.
    queue : int
        Messages that are kept in memory for each sender.
    """

    def __init__(
        self,
        connect: Sequence[str],
        *,
        mode: Literal["pull", "sub"] = "pull",
        image: str | None = None,
        channels: Sequence[str] | None = None,
        queue: int = 100,
    ) -> None:
        self._addresses, self._mode, self._queue = list(connect), mode, queue
        self._image_name, self._wanted = image, None if channels is None else set(channels)
        self._cache = HeaderCache()
        self._said: set[str] = set()
        self._counts: Counter[str] = Counter()

    def open(self) -> None:
        """Connect; senders need not be there yet.

        Raises
        ------
        FrameSourceError
            When an address is none of ZeroMQ's.
        """
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.PULL if self._mode == "pull" else zmq.SUB)
        self._socket.setsockopt(zmq.RCVHWM, self._queue)
        if self._mode == "sub":
            self._socket.setsockopt(zmq.SUBSCRIBE, b"")
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
                parts = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.ZMQError:
                break
            self._message([part.buffer for part in parts], events)
        return events

    def counters(self) -> dict[str, int]:
        """Return what was refused, by kind."""
        return dict(self._counts)

    def close(self) -> None:
        """Disconnect."""
        self._socket.close(linger=0)
        self._context.destroy(linger=0)

    def _message(self, parts: list[memoryview], events: list[Event]) -> None:
        try:
            pulse, unreadable = parse(parts, self._cache)
        except MessageRefused as error:
            self._refuse(error.kind, str(error))
            return
        for reason in self._cache.refused if unreadable else ():
            self._say(reason)
        self._counts["channel"] += unreadable
        image = self._image_of(pulse)
        if image is not None:
            channel, data = image
            assert channel.dtype is not None
            kind = channel.dtype.newbyteorder("=")
            read = partial(channel.read, data)
            events.append(Image(pulse.pulse_id, pulse.time, pulse.time, channel.shape, kind, read, pulse.pulse_id))
        values: dict[str, Any] = {}
        for channel, data in pulse.values:
            if (image and channel is image[0]) or not self._is_wanted(channel.name):
                continue
            try:
                values[channel.name] = channel.value(data)
            except FrameSourceError as error:
                self._refuse("channel", str(error))
        if values:
            events.append(SampleBlock(pulse.time, values))

    def _image_of(self, pulse: Pulse) -> tuple[Channel, memoryview] | None:
        for channel, data in pulse.values:
            if channel.is_image and self._image_name in (None, channel.name):
                return channel, data
        return None

    def _is_wanted(self, name: str) -> bool:
        return self._wanted is None or name in self._wanted

    def _refuse(self, kind: str, reason: str) -> None:
        self._counts[kind] += 1
        self._say(reason)

    def _say(self, reason: str) -> None:
        """Log each reason once: the next pulse has the same."""
        if reason not in self._said and len(self._said) < 100:
            self._said.add(reason)
            _log.warning("bsread: %s", reason)
