"""Arrays and large replies over WAMP.

A **typed array** is a plain dictionary that every serializer carries (CBOR, MsgPack, and JSON as autobahn writes it)::

    {"dtype": "<f8", "shape": [n, …], "data": bytes}        numbers and bools: little-endian, C order
    {"dtype": "json", "shape": [n], "data": bytes}          strings, None, mixed values: a UTF-8 JSON list

**Procedures** that a node of this project registers beside the two of the plain contract::

    B.consumer.<name>.get_schema(start, end)                              [field, timeline], array fields included
    B.consumer.<name>.get_arrays(fields, start, end, max_points=None, min_stride=None)
    B.consumer.<name>.ping()                                              {"time", …}

``get_arrays`` answers with **messages**. A reply that fits in one chunk is one message, the call's result::

    {"kind": "whole", …head, "data": [bytes of column 0, …]}

A larger one comes as progressive results, and nothing but the first tells sizes, so the receiver can allocate once::

    {"kind": "head", "version": 1, "bytes": total, "unknown": [names], "problems": [texts],
     "columns": [{"dtype", "shape", "bytes"}],
     "fields": {name: {"timeline", "t": column, "values": column, "finalized_until", "covers_from"}}}
    {"kind": "part", "column": i, "offset": byte, "data": bytes}             at most `CHUNK_BYTES` each, in order
    {"kind": "done", "parts": n}                                             the call's result

Columns that several fields share (their times) are sent once. A column of times whose spacing is nearly regular
travels as the **steps** between them: its entry in the head has ``"steps": {"dtype": "<i2", "first", "mean"}`` too, and
its bytes are n - 1 deviations of that type. The 64 bits of a time, read as a whole number, are ``first`` plus the sum
of all (deviation + mean) up to it; so every time comes out as the very float that went in.

A caller that takes no progressive results and asks too much gets an error that says so, not silence.
`sisockdaq.flow.send` sends the messages no faster than the transport takes them.

A **feed event** is one positional argument on ``B.consumer.<node>.feed.<timeline>``::

    {"epoch": str, "sequence": int, "t": typed array, "data": {field: typed array}}

``sequence`` counts 0, 1, … within an epoch (one life of the node); a jump means missed events.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sisockdaq.errors import ReplyInvalid
from sisockdaq.schema import Reply, Samples

__all__ = [
    "CHUNK_BYTES",
    "LARGEST_REPLY",
    "SINGLE_MESSAGE_BYTES",
    "VERSION",
    "Assembler",
    "FeedEvent",
    "decode_array",
    "encode_array",
    "encode_event",
    "messages",
    "single_message",
]

VERSION = 1

CHUNK_BYTES = 256 << 10
"""Payload of one progressive result. Of 64 KiB … 1 MiB the best measured, with four on the way: large enough to make
the cost of a message small, small enough that node, router and client work at the same time on a reply of 1 MiB."""

SINGLE_MESSAGE_BYTES = 8 << 20
"""Largest reply for a caller without progressive results: half the router's limit, as JSON carries bytes in base64."""

LARGEST_REPLY = 16 << 30
"""A receiver refuses to allocate more than this for one reply [bytes]."""

_JSON = "json"

_FEWEST_STEPS = 64
"""Fewer times than this are sent as they are: nothing is gained on a message that is small anyway."""


def encode_array(values: npt.ArrayLike) -> dict[str, Any]:
    """Return the typed array of ``values``.

    Numbers and bools travel as they are (NaN included); everything else as JSON text, where NaN becomes None.

    Parameters
    ----------
    values : array_like, (n, ...)
        Numbers, bools, strings, None, or a mixture.
    """
    shape, dtype, data = _encode(np.asarray(values) if not isinstance(values, np.ndarray) else values)
    return {"dtype": dtype, "shape": shape, "data": bytes(data)}


def decode_array(message: Any) -> npt.NDArray[Any]:
    """Return the array of a typed array; read-only where no copy was needed.

    Raises
    ------
    ReplyInvalid
        When it is not a typed array, or its bytes do not fit its shape.
    """
    try:
        dtype, shape, data = str(message["dtype"]), _shape(message["shape"]), message["data"]
    except (KeyError, TypeError, ValueError):
        raise ReplyInvalid("a typed array needs dtype, shape and data") from None
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise ReplyInvalid(f"a typed array's data are {type(data).__name__}, not bytes")
    return _decode(dtype, shape, memoryview(data))


@dataclass(frozen=True, slots=True)
class _Column:
    dtype: str
    shape: list[int]
    data: memoryview
    steps: dict[str, Any] | None = None

    @property
    def head(self) -> dict[str, Any]:
        head = {"dtype": self.dtype, "shape": self.shape, "bytes": self.data.nbytes}
        return head if self.steps is None else {**head, "steps": self.steps}


def _pack(reply: Reply) -> tuple[dict[str, Any], list[_Column]]:
    """Return the head of a reply and its columns; an array used twice becomes one column."""
    columns: list[_Column] = []
    numbers: dict[int, int] = {}

    def number(array: npt.NDArray[Any], *, times: bool = False) -> int:
        if id(array) not in numbers:
            numbers[id(array)] = len(columns)
            columns.append((_as_steps(array) if times else None) or _as_column(array))
        return numbers[id(array)]

    fields = {
        name: {
            "timeline": samples.timeline,
            "t": number(samples.t, times=True),
            "values": number(samples.values),
            "finalized_until": samples.finalized_until,
            "covers_from": samples.covers_from,
        }
        for name, samples in reply.samples.items()
    }
    head = {
        "version": VERSION,
        "columns": [column.head for column in columns],
        "fields": fields,
        "unknown": list(reply.unknown),
        "problems": list(reply.problems),
        "bytes": sum(column.data.nbytes for column in columns),
    }
    return head, columns


def _whole(head: dict[str, Any], columns: list[_Column]) -> dict[str, Any]:
    return {"kind": "whole", **head, "data": [bytes(column.data) for column in columns]}


def messages(reply: Reply, *, chunk: int = CHUNK_BYTES) -> Iterator[dict[str, Any]]:
    """Yield the messages of a reply in order; the last one is the call's result, all before it are progressive."""
    head, columns = _pack(reply)
    if head["bytes"] <= chunk:
        yield _whole(head, columns)
        return
    yield {"kind": "head", **head}
    parts = 0
    for index, column in enumerate(columns):
        for offset in range(0, column.data.nbytes, chunk):
            data = bytes(column.data[offset : offset + chunk])
            yield {"kind": "part", "column": index, "offset": offset, "data": data}
            parts += 1
    yield {"kind": "done", "parts": parts}


def single_message(reply: Reply) -> dict[str, Any]:
    """Return the reply as one message, for a caller that takes no progressive results.

    Raises
    ------
    ReplyInvalid
        When it is larger than `SINGLE_MESSAGE_BYTES`.
    """
    head, columns = _pack(reply)
    if head["bytes"] > SINGLE_MESSAGE_BYTES:
        raise ReplyInvalid(
            f"{head['bytes'] / 2**20:.0f} MiB are more than one message may hold",
            remedy="call with receive_progress, or ask a shorter span or max_points",
        )
    return _whole(head, columns)


class Assembler:
    """Puts the messages of one reply together again; each byte is copied once, into memory allocated once.

    Feed progressive results to `add` and the call's result to `finish`.
    """

    def __init__(self, *, limit: int = LARGEST_REPLY) -> None:
        self._limit = limit
        self._head: dict[str, Any] | None = None
        self._buffers: list[npt.NDArray[np.uint8]] = []
        self._filled: list[int] = []
        self._parts = 0

    @property
    def received(self) -> int:
        """Bytes that have come so far."""
        return sum(self._filled)

    @property
    def expected(self) -> int | None:
        """Bytes that the head promised; None before it came."""
        return None if self._head is None else int(self._head["bytes"])

    def add(self, message: Any) -> None:
        """Take one progressive result.

        Raises
        ------
        ReplyInvalid
            When the message is out of order, or does not fit what the head promised.
        """
        kind = message.get("kind") if isinstance(message, Mapping) else None
        if kind == "head" and self._head is None:
            self._open(message)
        elif kind == "part" and self._head is not None:
            self._part(message)
        else:
            raise ReplyInvalid(f"a message of kind {kind!r} came where it does not belong")

    def finish(self, message: Any) -> Reply:
        """Take the call's result and return the reply.

        Raises
        ------
        ReplyInvalid
            When parts are missing, or the result is not one of the protocol's.
        """
        kind = message.get("kind") if isinstance(message, Mapping) else None
        if kind == "whole" and self._head is None:
            try:
                columns = [
                    _decode_column(column, memoryview(data))
                    for column, data in zip(message["columns"], message["data"], strict=True)
                ]
            except (KeyError, TypeError, ValueError) as error:
                raise ReplyInvalid(f"a reply's columns are not as its head says ({error})") from None
            return _unpack(message, columns)
        if kind != "done" or self._head is None:
            raise ReplyInvalid(f"the reply ended with a message of kind {kind!r}")
        if message.get("parts") != self._parts or any(
            filled != len(buffer) for filled, buffer in zip(self._filled, self._buffers, strict=True)
        ):
            raise ReplyInvalid(f"{self.received} of {self.expected} bytes of the reply came")
        columns = [
            _decode_column(column, memoryview(buffer.data))
            for column, buffer in zip(self._head["columns"], self._buffers, strict=True)
        ]
        return _unpack(self._head, columns)

    def _open(self, message: Mapping[str, Any]) -> None:
        try:
            sizes = [int(column["bytes"]) for column in message["columns"]]
            total = int(message["bytes"])
            version = message["version"]
        except (KeyError, TypeError, ValueError):
            raise ReplyInvalid("the head of the reply lacks its sizes") from None
        if version != VERSION:
            raise ReplyInvalid(f"the reply is of version {version}, this client reads {VERSION}")
        if min(sizes, default=0) < 0 or sum(sizes) != total:
            raise ReplyInvalid("the sizes in the head of the reply do not add up")
        if total > self._limit:
            raise ReplyInvalid(
                f"the reply would be {total / 2**30:.1f} GiB, the limit is {self._limit / 2**30:.1f} GiB",
                remedy="ask a shorter span, or give max_points",
            )
        self._buffers = [np.empty(size, np.uint8) for size in sizes]
        self._filled = [0] * len(sizes)
        self._head = dict(message)

    def _part(self, message: Mapping[str, Any]) -> None:
        try:
            index, offset, data = int(message["column"]), int(message["offset"]), message["data"]
            buffer = self._buffers[index]
            chunk = np.frombuffer(data, np.uint8)
        except (KeyError, TypeError, ValueError, IndexError):
            raise ReplyInvalid("a part of the reply lacks its place or its bytes") from None
        if offset != self._filled[index] or offset + len(chunk) > len(buffer):
            raise ReplyInvalid(f"bytes {offset}… of column {index} came, {self._filled[index]}… were expected")
        buffer[offset : offset + len(chunk)] = chunk
        self._filled[index] += len(chunk)
        self._parts += 1


@dataclass(frozen=True, slots=True)
class FeedEvent:
    """New samples of one timeline, as published."""

    epoch: str
    sequence: int
    t: npt.NDArray[np.float64]
    data: dict[str, npt.NDArray[Any]]

    @classmethod
    def parse(cls, message: Any) -> FeedEvent:
        """Read an event.

        Raises
        ------
        ReplyInvalid
            When it is not of the form that the module docstring gives.
        """
        try:
            t = np.asarray(decode_array(message["t"]), np.float64)
            data = {str(name): decode_array(array) for name, array in message["data"].items()}
            event = cls(str(message["epoch"]), int(message["sequence"]), t, data)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise ReplyInvalid("a feed event needs epoch, sequence, t and data") from None
        if any(len(values) != len(t) for values in data.values()):
            raise ReplyInvalid("a feed event's values are not as many as its times")
        return event


def encode_event(epoch: str, sequence: int, t: npt.ArrayLike, data: Mapping[str, npt.ArrayLike]) -> dict[str, Any]:
    """Return a feed event as published; ``t`` is (n,) and each field's values (n, ...)."""
    return {
        "epoch": epoch,
        "sequence": sequence,
        "t": encode_array(np.asarray(t, np.float64)),
        "data": {name: encode_array(values) for name, values in data.items()},
    }


def _as_column(array: npt.NDArray[Any]) -> _Column:
    shape, dtype, data = _encode(array)
    return _Column(dtype, shape, data)


def _as_steps(t: npt.NDArray[np.float64]) -> _Column | None:
    """Return times as steps between their bits; None where that saves nothing."""
    if len(t) < _FEWEST_STEPS or t.dtype != np.float64:
        return None
    bits = np.ascontiguousarray(t).view(np.int64)
    first, last = int(bits[0]), int(bits[-1])
    if first < 0 or last < first:
        # Negative times: their bits do not rise with them.
        return None
    mean = (last - first) // (len(t) - 1)
    deviations = np.diff(bits)
    deviations -= mean
    least, most = int(deviations.min()), int(deviations.max())
    for kind in (np.int8, np.int16, np.int32):
        limits = np.iinfo(kind)
        if limits.min <= least and most <= limits.max:
            small = deviations.astype(np.dtype(kind).newbyteorder("<"))
            steps = {"dtype": small.dtype.str, "first": first, "mean": mean}
            return _Column("<f8", [len(t)], small.view(np.uint8).data, steps)
    return None


def _decode_column(head: Mapping[str, Any], data: memoryview) -> npt.NDArray[Any]:
    """Return a column from its entry in the head and its bytes."""
    try:
        shape, steps = _shape(head["shape"]), head.get("steps")
        if steps is None:
            return _decode(str(head["dtype"]), shape, data)
        deviations = _decode(str(steps["dtype"]), (max(shape[0] - 1, 0),), data)
        first, mean = int(steps["first"]), int(steps["mean"])
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        raise ReplyInvalid("a column of the reply is not as its head says") from None
    if deviations.dtype.kind != "i" or len(shape) != 1 or shape[0] < 1 or head["dtype"] != "<f8":
        raise ReplyInvalid("a column of steps is not one of times")
    bits = np.empty(shape[0], np.int64)
    bits[0] = first
    np.add(deviations, np.int64(mean), out=bits[1:])
    return np.cumsum(bits, out=bits).view(np.float64)


def _encode(array: npt.NDArray[Any]) -> tuple[list[int], str, memoryview]:
    if array.dtype.kind in "biuf":
        little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        # A zero-length array has no buffer that can be cast; reshape keeps every other case free of copies.
        view = little.reshape(-1).view(np.uint8).data if little.size else memoryview(b"")
        return list(array.shape), little.dtype.str, view
    text = json.dumps([_plain_item(item) for item in array.tolist()], ensure_ascii=False, allow_nan=False)
    return [len(array)], _JSON, memoryview(text.encode())


def _plain_item(item: Any) -> Any:
    if isinstance(item, np.generic):
        item = item.item()
    if isinstance(item, float) and not math.isfinite(item):
        return None
    return item if isinstance(item, (str, bool, int, float)) or item is None else str(item)


def _decode(dtype: str, shape: tuple[int, ...], data: memoryview) -> npt.NDArray[Any]:
    if dtype == _JSON:
        try:
            items = json.loads(bytes(data))
        except ValueError:
            raise ReplyInvalid("a column of strings is not a JSON list") from None
        if not isinstance(items, list) or shape != (len(items),):
            raise ReplyInvalid("a column of strings has another length than its shape says")
        result = np.empty(len(items), dtype=object)
        result[:] = items
        return result
    try:
        kind = np.dtype(dtype)
    except TypeError:
        kind = None
    if kind is None or kind.kind not in "biuf":
        raise ReplyInvalid(f"{dtype!r} is not a type that travels")
    if math.prod(shape) * kind.itemsize != data.nbytes:
        raise ReplyInvalid(f"{data.nbytes} bytes do not make an array of {shape} {dtype}")
    return np.frombuffer(data, kind).reshape(shape)


def _shape(value: Any) -> tuple[int, ...]:
    shape = tuple(int(n) for n in value)
    if any(n < 0 for n in shape):
        raise ValueError("a negative length")
    return shape


def _unpack(head: Mapping[str, Any], columns: list[npt.NDArray[Any]]) -> Reply:
    reply = Reply(
        unknown=[str(name) for name in head.get("unknown", ())],
        problems=[str(text) for text in head.get("problems", ())],
    )
    try:
        for name, entry in head["fields"].items():
            t = np.asarray(columns[entry["t"]], np.float64)
            values = columns[entry["values"]]
            if t.ndim != 1 or len(values) != len(t):
                raise ReplyInvalid(f"{name} has {len(values)} values for {len(t)} times")
            reply.samples[str(name)] = Samples(
                t, values, str(entry["timeline"]), entry.get("finalized_until"), entry.get("covers_from")
            )
    except (KeyError, TypeError, IndexError, AttributeError):
        raise ReplyInvalid("the head of the reply does not name its fields' columns") from None
    return reply
