"""DECTRIS Stream V2: messages to bytes and back (CBOR, RFC 8949, with the typed arrays of RFC 8746).

Accepted are DECTRIS's own messages and the dialect of the Jungfraujoch receiver (further keys, message types
``calibration`` and ``metadata``, signed pixels, bitshuffle with Zstandard). Unknown keys are kept and mean nothing.
What is refused raises `FrameSourceError` that says why; no message, however broken, does more than that.

Pixels stay as they came, in an `EncodedArray`, until they are asked for: a writer can store a compressed payload
without unpacking it. On the way out the payload is packed straight into the message, and every message begins with the
self-describing CBOR tag, which DECTRIS's own parser demands.

Source of the format: DECTRIS Stream V2 documentation; the compression tag 56500 is DECTRIS's registration.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import cbor2
import numpy as np
import numpy.typing as npt

from sisockdaq.errors import FrameSourceError
from sisockdaq.frames import bitshuffle

__all__ = [
    "Compression",
    "EncodedArray",
    "EndMessage",
    "ImageMessage",
    "OtherMessage",
    "StartMessage",
    "decode",
    "encode_end",
    "encode_image",
    "encode_start",
    "encoded_array",
]

Compression = Literal["bslz4", "none"]

_SELF_DESCRIBED = bytes.fromhex("d9d9f7")
_TAG_ROW_MAJOR, _TAG_COLUMN_MAJOR, _TAG_COMPRESSED = 40, 1040, 56500
_TYPED: dict[int, str] = {
    64: "u1",
    65: ">u2",
    66: ">u4",
    67: ">u8",
    68: "u1",
    69: "<u2",
    70: "<u4",
    71: "<u8",
    72: "i1",
    73: ">i2",
    74: ">i4",
    75: ">i8",
    77: "<i2",
    78: "<i4",
    79: "<i8",
    80: ">f2",
    81: ">f4",
    82: ">f8",
    84: "<f2",
    85: "<f4",
    86: "<f8",
}
_TAG_OF = {np.dtype(name): tag for tag, name in reversed(_TYPED.items())}

_Unpack = Callable[..., npt.NDArray[Any]]
_UNPACK: dict[str, _Unpack] = {
    "bslz4": bitshuffle.decompress_lz4,
    "lz4": bitshuffle.decompress_plain_lz4,
    "bszstd": bitshuffle.decompress_zstd,
}


@dataclass(frozen=True, slots=True)
class EncodedArray:
    """An array as it stands in a message.

    Attributes
    ----------
    shape : tuple of int
    dtype : dtype
    compression : str
        ``none``, ``bslz4``, ``lz4`` or ``bszstd``.
    payload : bytes
        The elements, or what the HDF5 filter of that compression would store.
    column_major : bool
        First index fastest; then only `array` gives the elements in order.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    compression: str
    payload: bytes
    column_major: bool = False

    @property
    def nbytes(self) -> int:
        """Size of the elements [bytes]."""
        return math.prod(self.shape) * self.dtype.itemsize

    def array(self, out: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
        """Return the elements; raise `FrameSourceError` when the payload is damaged.

        `out` is C-contiguous memory of this shape and dtype for them; without it, an array that was not compressed is
        a read-only view of the message.
        """
        order: Literal["C", "F"] = "F" if self.column_major else "C"
        try:
            if self.compression == "none":
                if len(self.payload) != self.nbytes:
                    raise ValueError(f"{len(self.payload)} bytes for {self.dtype} {self.shape}")
                flat = np.frombuffer(self.payload, self.dtype)
            else:
                direct = out is not None and not self.column_major
                target = out.reshape(-1) if direct and out is not None else None
                count = (self.nbytes // self.dtype.itemsize,)
                flat = _UNPACK[self.compression](self.payload, count, self.dtype, out=target)
            shaped = flat.reshape(self.shape, order=order)
        except (ValueError, MemoryError) as error:
            raise FrameSourceError(f"damaged array in a Stream V2 message: {error}") from error
        if out is None or np.shares_memory(out, shaped):
            return shaped
        out[...] = shaped
        return out


@dataclass(slots=True)
class StartMessage:
    """A series begins. ``fields`` holds every other key; arrays are `EncodedArray`, times `datetime`."""

    series_id: int = 0
    series_unique_id: str = ""
    fields: dict[str, Any] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int] | None:
        """(ny, nx) as announced, or None."""
        size = self.fields.get("image_size_y"), self.fields.get("image_size_x")
        return (size[0], size[1]) if isinstance(size[0], int) and isinstance(size[1], int) else None


@dataclass(slots=True)
class ImageMessage:
    """One image: ``data`` by channel (threshold). ``fields`` holds every other key."""

    series_id: int
    series_unique_id: str
    image_id: int
    data: dict[str, EncodedArray]
    fields: dict[str, Any] = field(default_factory=dict)

    def seconds(self, key: Literal["start_time", "stop_time", "real_time"]) -> float | None:
        """Return one of the times, which are fractions ``[numerator, denominator]`` of a second; None without it."""
        value = self.fields.get(key)
        if isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(part, int) for part in value):
            return value[0] / value[1] if value[1] else None
        return None

    @property
    def series_date(self) -> datetime | None:
        """When the series began, to which the times are relative."""
        date = self.fields.get("series_date")
        return date if isinstance(date, datetime) else None


@dataclass(slots=True)
class EndMessage:
    """A series has ended. ``fields`` holds every other key."""

    series_id: int
    series_unique_id: str
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class OtherMessage:
    """A message of the Jungfraujoch dialect: ``calibration`` or ``metadata``."""

    type: str
    fields: dict[str, Any] = field(default_factory=dict)


Stream2Message = StartMessage | ImageMessage | EndMessage | OtherMessage


# ---- out -------------------------------------------------------------------------------------------------------------


def encode_start(message: StartMessage) -> bytes:
    """Return a start message; arrays among its fields may be ndarrays or `EncodedArray`."""
    return _small("start", {"series_id": message.series_id, "series_unique_id": message.series_unique_id}, message)


def encode_end(message: EndMessage) -> bytes:
    """Return an end message."""
    return _small("end", {"series_id": message.series_id, "series_unique_id": message.series_unique_id}, message)


def encode_image(
    series_id: int,
    series_unique_id: str,
    image_id: int,
    data: Mapping[str, npt.NDArray[Any] | EncodedArray],
    fields: Mapping[str, Any] | None = None,
    *,
    compression: Compression = "bslz4",
) -> memoryview:
    """Return an image message; pixels are packed straight into it.

    Parameters
    ----------
    data : mapping of channel to ndarray or EncodedArray
        An `EncodedArray` goes out as it is, whatever `compression` says.
    fields : mapping, optional
        Further keys: ``series_date``, ``start_time``, ``user_data``, …

    Raises
    ------
    ValueError
        When a dtype has no typed-array tag.
    """
    known = {"series_id": series_id, "series_unique_id": series_unique_id, "image_id": image_id, **(fields or {})}
    head = [_SELF_DESCRIBED, _head(5, len(known) + 2), cbor2.dumps("type"), cbor2.dumps("image")]
    for key, value in known.items():
        head += [cbor2.dumps(key), cbor2.dumps(value, default=_plain)]
    head += [cbor2.dumps("data"), _head(5, len(data))]
    channels = {name: _prepared(item) for name, item in data.items()}
    room = sum(map(len, head)) + sum(128 + 5 * len(name) + _bound(item) for name, item in channels.items())
    message = np.empty(room, np.uint8)
    at = _put(message, 0, b"".join(head))
    for name, item in channels.items():
        at = _put(message, at, cbor2.dumps(name))
        at = _put_array(message, at, item, compression)
    return message.data[:at]


def _small(kind: str, known: Mapping[str, Any], message: StartMessage | EndMessage) -> bytes:
    body = {"type": kind, **known, **{key: value for key, value in message.fields.items() if key not in known}}
    return _SELF_DESCRIBED + cbor2.dumps(body, default=_plain)


def _plain(encoder: Any, value: Any) -> None:
    """Encode what cbor2 does not know: arrays with their tags, numpy's scalars as numbers."""
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        encoder.encode(value.item())
    elif isinstance(value, EncodedArray | np.ndarray):
        encoder.encode(_tagged(_prepared(value)))
    else:
        raise TypeError(f"{type(value).__name__} cannot stand in a Stream V2 message")


def _tagged(item: npt.NDArray[Any] | EncodedArray) -> cbor2.CBORTag:
    """Return an array with its tags, for messages that are small."""
    order = _TAG_ROW_MAJOR
    content: Any
    if isinstance(item, EncodedArray):
        order = _TAG_COLUMN_MAJOR if item.column_major else order
        content = item.payload
        if item.compression != "none":
            content = cbor2.CBORTag(_TAG_COMPRESSED, [item.compression, _element(item.compression, item), content])
    else:
        content = item.tobytes()
    return cbor2.CBORTag(order, [list(item.shape), cbor2.CBORTag(_TAG_OF[item.dtype], content)])


def _element(compression: str, item: npt.NDArray[Any] | EncodedArray) -> int:
    """Return the element size that goes with a compression; plain LZ4 has none."""
    return 0 if compression == "lz4" else int(item.dtype.itemsize)


def _prepared(item: npt.NDArray[Any] | EncodedArray) -> npt.NDArray[Any] | EncodedArray:
    """Return the array contiguous; raise `ValueError` where no tag exists for its dtype."""
    if item.dtype not in _TAG_OF:
        raise ValueError(f"Stream V2 has no typed array of {item.dtype}")
    return item if isinstance(item, EncodedArray) else np.ascontiguousarray(item)


def _bound(item: npt.NDArray[Any] | EncodedArray) -> int:
    if isinstance(item, EncodedArray):
        return len(item.payload)
    return max(item.nbytes, bitshuffle.compress_bound(item.shape, item.dtype))


def _put_array(message: npt.NDArray[np.uint8], at: int, item: npt.NDArray[Any] | EncodedArray, compression: str) -> int:
    """Write a tagged array at a position of the message and return the position behind it."""
    kind = item.compression if isinstance(item, EncodedArray) else compression
    column_major = isinstance(item, EncodedArray) and item.column_major
    head = [_head(6, _TAG_COLUMN_MAJOR if column_major else _TAG_ROW_MAJOR), _head(4, 2), _head(4, len(item.shape))]
    head += [_head(0, size) for size in item.shape]
    head.append(_head(6, _TAG_OF[item.dtype]))
    if kind != "none":
        head += [_head(6, _TAG_COMPRESSED), _head(4, 3), cbor2.dumps(kind), _head(0, _element(kind, item))]
    at = _put(message, at, b"".join(head))
    # The length of the byte string is known only once it is packed: room for it is kept in the four-byte form.
    body = at + 5
    if isinstance(item, EncodedArray):
        end = _put(message, body, item.payload)
    elif kind == "bslz4":
        end = body + len(bitshuffle.compress_lz4(item, out=message[body:]))
    else:
        end = _put(message, body, item.reshape(-1).view(np.uint8))
    struct.pack_into(">BI", message.data, at, 0x5A, end - body)
    return end


def _put(message: npt.NDArray[np.uint8], at: int, data: bytes | npt.NDArray[np.uint8]) -> int:
    message[at : at + len(data)] = np.frombuffer(data, np.uint8)
    return at + len(data)


def _head(major: int, value: int) -> bytes:
    """Return the initial bytes of a CBOR item: its major type and its number (RFC 8949, section 3)."""
    first = major << 5
    if value < 24:
        return bytes([first | value])
    for extra, form in ((24, ">BB"), (25, ">BH"), (26, ">BI"), (27, ">BQ")):
        if value < 1 << (8 << (extra - 24)):
            return struct.pack(form, first | extra, value)
    raise ValueError(f"{value} is too large for CBOR")


# ---- in --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Compressed:
    algorithm: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class _Typed:
    dtype: np.dtype[Any]
    content: bytes | _Compressed


def decode(
    message: bytes | bytearray | memoryview, taken_out: Mapping[bytes, EncodedArray] | None = None
) -> Stream2Message:
    """Return what a message says.

    Parameters
    ----------
    message : bytes-like
    taken_out : mapping of bytes → EncodedArray, optional
        Channels of an image that stand elsewhere (`encoded_array`), by the byte strings in their places.

    Raises
    ------
    FrameSourceError
        When it is not a Stream V2 message; the reason is in the text.
    """
    try:
        body = cbor2.loads(message, tag_hook=_tag_hook)
    except FrameSourceError:
        raise
    except Exception as error:  # cbor2 raises what the content provokes: any of it only means a broken message
        cause = error.__cause__ or error
        if isinstance(cause, FrameSourceError):
            raise cause from None
        raise FrameSourceError(f"not a Stream V2 message: {str(error) or type(error).__name__}") from error
    if not isinstance(body, Mapping) or not isinstance(body.get("type"), str):
        raise FrameSourceError("not a Stream V2 message: no CBOR map with a text under “type”")
    fields = {str(key): _finished(value) for key, value in body.items() if key != "type"}
    kind = body["type"]
    if kind in ("calibration", "metadata"):
        return OtherMessage(kind, fields)
    if kind not in ("start", "image", "end"):
        raise FrameSourceError(f"Stream V2 message of unknown type “{kind[:40]}”")
    series, unique = fields.pop("series_id", 0), fields.pop("series_unique_id", "")
    if not isinstance(series, int) or not isinstance(unique, str):
        raise FrameSourceError(f"Stream V2 {kind} message: series_id or series_unique_id is of the wrong type")
    if kind == "start":
        return StartMessage(series, unique, fields)
    if kind == "end":
        return EndMessage(series, unique, fields)
    return _image(series, unique, fields, taken_out or {})


def _image(series: int, unique: str, fields: dict[str, Any], taken_out: Mapping[bytes, EncodedArray]) -> ImageMessage:
    number, data = fields.pop("image_id", None), fields.pop("data", None)
    if not isinstance(number, int) or number < 0:
        raise FrameSourceError("Stream V2 image message: image_id is missing or not a number from 0")
    if not isinstance(data, Mapping) or not data:
        raise FrameSourceError(f"Stream V2 image {number} has no data")
    channels: dict[str, EncodedArray] = {}
    for name, item in data.items():
        array = taken_out.get(item) if type(item) is bytes else item
        if not isinstance(array, EncodedArray):
            raise FrameSourceError(f"Stream V2 image {number}: channel “{name}” is not an array")
        channels[str(name)] = array
    return ImageMessage(series, unique, number, channels, fields)


def encoded_array(
    tag: int, shape: tuple[int, ...], compression: str, payload: bytes, *, column_major: bool
) -> EncodedArray:
    """Return the array that a message holds, from its parts; `payload` is not copied.

    Parameters
    ----------
    tag : int
        Of the typed array: says its elements.

    Raises
    ------
    FrameSourceError
        When there is no such type or compression, or the payload states another size.
    """
    if tag not in _TYPED or (compression != "none" and compression not in _UNPACK):
        raise FrameSourceError(f"array of type {tag} and compression “{compression[:40]}”: not known")
    return _checked(EncodedArray(shape, np.dtype(_TYPED[tag]), compression, payload, column_major))


def _tag_hook(*arguments: Any) -> Any:
    """Turn a tag into what it stands for (cbor2 5 passes ``(decoder, tag)``, cbor2 6 ``(tag, immutable)``)."""
    tag = next(item for item in arguments if isinstance(item, cbor2.CBORTag))
    number, value = tag.tag, tag.value
    if number == _TAG_COMPRESSED:
        return _compressed(value)
    if number in _TYPED:
        if not isinstance(value, bytes | _Compressed):
            raise FrameSourceError(f"typed array (tag {number}) that is no byte string")
        return _Typed(np.dtype(_TYPED[number]), value)
    if number in (_TAG_ROW_MAJOR, _TAG_COLUMN_MAJOR):
        return _shaped(value, number == _TAG_COLUMN_MAJOR)
    return tag


def _compressed(value: Any) -> _Compressed:
    if not isinstance(value, list | tuple) or len(value) != 3 or not isinstance(value[2], bytes):
        raise FrameSourceError("compressed byte string (tag 56500) that is not [algorithm, element size, bytes]")
    algorithm = str(value[0])
    if algorithm not in _UNPACK:
        raise FrameSourceError(f"compression “{algorithm[:40]}” is not known; known are {', '.join(_UNPACK)}")
    return _Compressed(algorithm, value[2])


def _shaped(value: Any, column_major: bool) -> EncodedArray:
    if not isinstance(value, list | tuple) or len(value) != 2 or not isinstance(value[1], _Typed):
        raise FrameSourceError("multi-dimensional array (tag 40) without a typed array")
    sizes, typed = value
    if not isinstance(sizes, list | tuple) or not all(isinstance(size, int) and size >= 0 for size in sizes):
        raise FrameSourceError("multi-dimensional array (tag 40) with impossible dimensions")
    return _checked(_encoded(typed, tuple(sizes), column_major))


def _checked(encoded: EncodedArray) -> EncodedArray:
    if _stated(encoded) != encoded.nbytes:
        raise FrameSourceError(f"array of {encoded.dtype} {encoded.shape} that holds {_stated(encoded)} bytes")
    return encoded


def _encoded(typed: _Typed, shape: tuple[int, ...], column_major: bool = False) -> EncodedArray:
    content = typed.content
    if isinstance(content, _Compressed):
        return EncodedArray(shape, typed.dtype, content.algorithm, content.payload, column_major)
    return EncodedArray(shape, typed.dtype, "none", content, column_major)


def _stated(array: EncodedArray) -> int:
    """Return how many bytes of elements a payload claims to hold."""
    if array.compression == "none":
        return len(array.payload)
    try:
        return bitshuffle.unpacked_size(array.payload)
    except ValueError as error:
        raise FrameSourceError(f"damaged array in a Stream V2 message: {error}") from error


_PLAIN = frozenset({bool, int, float, str, bytes, EncodedArray})
"""What is as it should be; most of a message is, so it is asked first."""


def _finished(value: Any) -> Any:
    """Give typed arrays without dimensions their length, and unpack compressed byte strings that are no arrays."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, _Typed):
        flat = _encoded(value, (0,))
        return _encoded(value, (_stated(flat) // value.dtype.itemsize,))
    if isinstance(value, _Compressed):
        flat = EncodedArray((0,), np.dtype("u1"), value.algorithm, value.payload)
        return EncodedArray((_stated(flat),), flat.dtype, flat.compression, flat.payload).array().tobytes()
    if isinstance(value, Mapping):
        return {key: _finished(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finished(item) for item in value]
    return value
