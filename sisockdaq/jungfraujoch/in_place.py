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
from typing import TYPE_CHECKING, cast

from sisockdaq.errors import FrameSourceError
from sisockdaq.frames.stream2 import EncodedArray, ImageMessage, Stream2Message, decode, encoded_array

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["read_message"]

_SMALL = 16_384
"""Messages up to this size [bytes] are decoded as a whole; a copy costs less than the search."""

_DATA = re.compile(rb"\x64data[\xa1-\xb7]")
"""The key ``data`` and the head of a map with 1 to 23 channels (RFC 8949, section 3)."""

_CHANNEL = re.compile(rb"[\x60-\x77]|\x78[\x00-\xff]")
"""The head of a short name."""

_NUMBER = rb"([\x00-\x17]|\x18.|\x19..|\x1a.{4})"
_BYTES = rb"([\x40-\x57]|\x58.|\x59..|\x5a.{4}|\x5b.{8})"

_IMAGE = re.compile(
    rb"(?:\xd8\x28|\xd9(\x04)\x10)\x82\x82" + _NUMBER + _NUMBER
    + rb"\xd8(.)(?:\xd9\xdc\xb4\x83(\x63lz4|\x65bslz4|\x66bszstd)" + _NUMBER + rb")?" + _BYTES,
    re.DOTALL,
)  # fmt: skip
"""An array of two dimensions up to its pixels: order (tag 40 or 1040) [[ny, nx], type (pixels, or tag 56500
[compression, element size, pixels])]."""

_MARK = struct.Struct(">B4sI")
"""What stands for pixels that were taken out: a byte string of 8, unlike any that a message would have there."""


def read_message(message: Buffer) -> Stream2Message:
    """Return what a message says; the payloads of an image's arrays are views of `message`.

    Raises
    ------
    FrameSourceError
        When it is not a Stream V2 message; the reason is in the text.
    """
    view = memoryview(message).cast("B")
    if len(view) > _SMALL:
        found = _in_place(view)
        if found is not None:
            return found
    return decode(view)


def _in_place(view: memoryview) -> ImageMessage | None:
    """Decode the message without its pixels; None when these are not where they seem to be."""
    found = _DATA.search(view)
    if found is None:
        return None
    at, done = found.end(), 0
    pieces: list[Buffer] = []
    taken_out: dict[bytes, EncodedArray] = {}
    for number in range(view[at - 1] & 0x1F):
        name = _CHANNEL.match(view, at)
        head = _IMAGE.match(view, name.end() + _value(name[0])) if name is not None else None
        if head is None:
            return None
        mark = _MARK.pack(0x48, b"\x00dat", number)
        at = head.end() + _value(head[7])
        if at > len(view):
            return None
        array = _array(head, view[head.end() : at])
        if array is None:
            return None
        taken_out[mark[1:]] = array
        pieces += [view[done : head.start()], mark]
        done = at
    pieces.append(view[done:])
    try:
        message = decode(b"".join(pieces), taken_out)
    except FrameSourceError:
        return None  # likewise
    if not isinstance(message, ImageMessage) or [*map(id, message.data.values())] != [*map(id, taken_out.values())]:
        return None
    return message


def _array(head: re.Match[bytes], payload: memoryview) -> EncodedArray | None:
    column_major, ny, nx, kind, packing, element, _ = head.groups()
    tag, compression = kind[0], "none" if packing is None else packing[1:].decode()
    if element is not None and compression != "lz4" and _value(element) != _element_size(tag):
        raise FrameSourceError(
            f"image whose pixels of {_element_size(tag)} bytes are packed as {_value(element)} bytes each"
            f" ({compression})"
        )
    shape, pixels = (_value(ny), _value(nx)), cast("bytes", payload)
    try:
        return encoded_array(tag, shape, compression, pixels, column_major=column_major is not None)
    except FrameSourceError:
        return None  # `decode` says what is wrong with it


def _element_size(tag: int) -> int:
    """Return the element size of a typed array [bytes], from the bits of its tag (RFC 8746, section 2.1)."""
    is_float, width = tag >> 4 & 1, tag & 0b11
    return 2 << width if is_float else 1 << width


def _value(head: bytes) -> int:
    """Return the number of an item's head."""
    return int.from_bytes(head[1:], "big") if len(head) > 1 else head[0] & 0x1F
