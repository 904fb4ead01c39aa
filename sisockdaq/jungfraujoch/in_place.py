"""Read a Stream V2 message without copying its pixels.

A CBOR library copies every byte string that it reads: for an image, megabytes that a writer only passes on. Here the
pixels' byte strings are found first, the little that remains is decoded by `frames.stream2.decode`, and the pixels
come back as views of the message.

Promises: what comes back says the same as `decode` says; a message that is built in any other way than expected is left
to `decode` as a whole; a damaged one raises the same `FrameSourceError`.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from sisockdaq.errors import FrameSourceError
from sisockdaq.frames.stream2 import EncodedArray, ImageMessage, Stream2Message, decode

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["read_message"]

_SMALL = 16_384
"""Messages up to this size [bytes] are decoded as a whole; a copy costs less than the search."""

_DATA = re.compile(rb"\x64data[\xa1-\xb7]")
"""The key ``data`` and the head of a map with 1 to 23 channels (RFC 8949, section 3)."""

_HEADER = 12
"""Bytes at the beginning of a packed payload that state its unpacked size and its block size."""

_BYTES, _TEXT, _ARRAY, _TAG = 2, 3, 4, 6
_TAG_ROW_MAJOR, _TAG_COLUMN_MAJOR, _TAG_COMPRESSED = 40, 1040, 56500

_TAKEN_OUT = bytes.fromhex("d9dcb483636c7a34004c")
"""What stands for pixels that are not packed: tag 56500, ["lz4", 0, byte string of 12], and then those 12 bytes."""


@dataclass(frozen=True, slots=True)
class _Cut:
    """A byte string of pixels: where its head begins, where its content is, and what takes its place."""

    head: int
    begin: int
    end: int
    compressed: bool
    place_holder: bytes
    content: bytes


class _Unexpected(Exception):
    """The message is not built as expected."""


def read_message(message: Buffer) -> Stream2Message:
    """Return what a message says; the payloads of an image's arrays are views of `message`.

    Raises
    ------
    FrameSourceError
        When it is not a Stream V2 message; the reason is in the text.
    """
    view = memoryview(message).cast("B")
    if len(view) > _SMALL:
        cuts = _find(view)
        found = _decode_rest(view, cuts) if cuts else None
        if found is not None:
            return found
    return decode(view)


def _decode_rest(view: memoryview, cuts: list[_Cut]) -> ImageMessage | None:
    """Decode the message without its pixels; None when these were not where they seemed to be."""
    pieces: list[Any] = []
    at = 0
    for cut in cuts:
        pieces += [view[at : cut.head], cut.place_holder]
        at = cut.end
    pieces.append(view[at:])
    message = decode(b"".join(pieces))
    if not isinstance(message, ImageMessage) or len(message.data) != len(cuts):
        return None
    data: dict[str, EncodedArray] = {}
    for (channel, array), cut in zip(message.data.items(), cuts, strict=True):
        if array.payload != cut.content:
            return None
        payload = cast("bytes", view[cut.begin : cut.end])
        data[channel] = replace(array, payload=payload, compression=array.compression if cut.compressed else "none")
    message.data = data
    return message


def _find(view: memoryview) -> list[_Cut]:
    """Return where the pixels of an image stand; nothing when they are not found."""
    found = _DATA.search(view)
    if found is None:
        return []
    at, cuts = found.end(), []
    try:
        for _ in range(view[at - 1] & 0x1F):
            length, at = _number(view, at, _TEXT)
            cut = _array(view, at + length)
            cuts.append(cut)
            at = cut.end
    except (_Unexpected, IndexError, struct.error):
        return []
    return cuts


def _array(view: memoryview, at: int) -> _Cut:
    """Return the byte string of a tagged array: order [[sizes], kind (bytes or compression [name, size, bytes])]."""
    order, at = _number(view, at, _TAG)
    pair, at = _number(view, at, _ARRAY)
    dimensions, at = _number(view, at, _ARRAY)
    if order not in (_TAG_ROW_MAJOR, _TAG_COLUMN_MAJOR) or pair != 2 or dimensions > 8:
        raise _Unexpected
    for _ in range(dimensions):
        _, at = _number(view, at, 0)
    kind, at = _number(view, at, _TAG)
    if view[at] >> 5 == _BYTES:
        return _cut(view, at, compressed=False)
    tag, at = _number(view, at, _TAG)
    parts, at = _number(view, at, _ARRAY)
    length, at = _number(view, at, _TEXT)
    name, at = bytes(view[at : at + length]), at + length
    element, at = _number(view, at, 0)
    if tag != _TAG_COMPRESSED or parts != 3:
        raise _Unexpected
    if name != b"lz4" and element != _element_size(kind):
        raise FrameSourceError(
            f"image whose pixels of {_element_size(kind)} bytes are packed as {element} bytes each ({name.decode()})"
        )
    return _cut(view, at, compressed=True)


def _cut(view: memoryview, head: int, *, compressed: bool) -> _Cut:
    length, begin = _number(view, head, _BYTES)
    end = begin + length
    if end > len(view) or length < _HEADER:
        raise _Unexpected
    if compressed:
        content = bytes(view[begin : begin + _HEADER])
        return _Cut(head, begin, end, True, b"\x4c" + content, content)
    content = struct.pack(">QI", length, 0)
    return _Cut(head, begin, end, False, _TAKEN_OUT + content, content)


def _element_size(tag: int) -> int:
    """Return the element size of a typed array [bytes], from the bits of its tag (RFC 8746, section 2.1)."""
    is_float, width = tag >> 4 & 1, tag & 0b11
    return 2 << width if is_float else 1 << width


def _number(view: memoryview, at: int, major: int) -> tuple[int, int]:
    """Return the number of an item's head and the position behind it; the item must be of that major type."""
    first = view[at]
    extra = first & 0x1F
    if first >> 5 != major or extra > 27:
        raise _Unexpected
    if extra < 24:
        return extra, at + 1
    size = 1 << (extra - 24)
    if at + 1 + size > len(view):
        raise _Unexpected
    return int.from_bytes(view[at + 1 : at + 1 + size], "big"), at + 1 + size
