"""The packets of a GigaFRoST: header, 12-bit pixels, and which rows of the image a stream brings.

Pure: figures and bytes, no socket. A frame comes in eight streams, two links of each quadrant. The rows of a quadrant
go to its links in turn, beginning at the middle of the image: southern quadrants run down from it, northern ones up.
A packet holds whole rows of its stream from its *starting row* on; how many, its length says. What a description
needs before the first packet has come (packets a frame) follows the camera's own filling of its packets.

Source: PSI's standard DAQ for the layout; the camera fills packets with pairs of rows, in blocks of 48 pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "BLOCK",
    "HEADER",
    "HEADER_BYTES",
    "PADDING",
    "PROTOCOL",
    "STREAMS",
    "WIDEST",
    "largest_pixel",
    "make_headers",
    "pack12",
    "packet_rows",
    "positions",
    "row_bytes",
    "row_index",
    "unpack12",
]

HEADER = np.dtype(
    [
        ("protocol", "u1"),
        ("row_blocks", "u1"),  # length of a quadrant's row in blocks of 12 pixels
        ("quadrant_rows", "u1"),  # low bits of the number of rows of a quadrant; bit 0: swapped
        ("flags", "u1"),  # bits 7–6 quadrant, 5 link, 4–2 correction, 1–0 high bits of the number of rows
        ("scan_id", "<u4"),
        ("frame_index", "<u4"),
        ("image_status", "<u2"),  # bit 15: do not store
        ("starting_row", "<u2"),  # among the rows of this stream
        ("timing", "<u8"),  # 40 bits time stamp, 24 bits exposure
        ("sync_time", "<u4"),
        ("scan_time", "<u4"),
    ]
)
HEADER_BYTES = 32
assert HEADER.itemsize == HEADER_BYTES

PROTOCOL = 0xCB
"""First byte of every packet."""

STREAMS = 8
"""Four quadrants (SW 0, SE 1, NW 2, NE 3) with two links each; stream = 2 × quadrant + link."""

BLOCK = 12
"""Pixels in which the header counts a row's length."""

WIDEST = 2016
"""Width and height of the whole sensor [pixels]."""

PADDING = 36
"""Bytes that follow an odd number of rows which do not end on a block of 48 pixels."""

_MOST_PAYLOAD = 7400
_CORRECTION = 5
"""The correction mode that the camera normally reports."""


def row_bytes(width: int) -> int:
    """Bytes of one row of a quadrant, for an image of this width [pixels]."""
    return width // 2 * 3 // 2


def packet_rows(width: int, height: int) -> int:
    """Rows that the camera puts into a full packet, for an image of this size [pixels]."""
    blocks = width // 2 // BLOCK
    pairs = _MOST_PAYLOAD // (2 * row_bytes(width))
    return min(pairs * blocks // 2 * 48 // (width // 2), height // 4)


def largest_pixel() -> int:
    """Largest value of a pixel."""
    return (1 << 12) - 1


def positions(width: int, height: int) -> list[tuple[int, int, int, int]]:
    """Return the place ``(x0, y0, x1, y1)`` of each quadrant; northern rows run upward."""
    half, middle = width // 2, height // 2
    south = [(x, middle, x + half - 1, height - 1) for x in (0, half)]
    north = [(x, middle - 1, x + half - 1, 0) for x in (0, half)]
    return [*south, *north]


def row_index(width: int, height: int, stream: int) -> npt.NDArray[np.int64]:
    """Return where a stream's pixels belong in the flat image: int64, (rows of the stream, pixels of a row)."""
    x0, y0, x1, y1 = positions(width, height)[stream // 2]
    rows = np.arange(stream % 2, height // 2, 2)
    y = y0 + rows if y1 >= y0 else y0 - rows
    return (y[:, None] * width + np.arange(x0, x1 + 1)).astype(np.int64)


def unpack12(payload: bytes | npt.NDArray[np.uint8]) -> npt.NDArray[np.uint16]:
    """Return the pixels of a payload: two in three bytes, the first in the lower bits."""
    three = np.frombuffer(payload, np.uint8).reshape(-1, 3).astype(np.uint16)
    pixels = np.empty((len(three), 2), np.uint16)
    pixels[:, 0] = three[:, 0] | (three[:, 1] & 15) << 8
    pixels[:, 1] = three[:, 1] >> 4 | three[:, 2] << 4
    return pixels.reshape(-1)


def pack12(pixels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Return the bytes of an even number of pixels: the inverse of `unpack12`.

    Raises
    ------
    ValueError
        When a value does not fit into 12 bits.
    """
    if pixels.size and int(pixels.max()) > largest_pixel():
        raise ValueError(f"a pixel of {int(pixels.max())} does not fit into 12 bits")
    two = pixels.reshape(-1, 2).astype(np.uint16)
    packed = np.empty((len(two), 3), np.uint8)
    packed[:, 0] = two[:, 0] & 255
    packed[:, 1] = two[:, 0] >> 8 | (two[:, 1] & 15) << 4
    packed[:, 2] = two[:, 1] >> 4
    return packed.reshape(-1)


def make_headers(width: int, height: int, stream: int, starting_rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the headers of a stream's packets, frame 0: `HEADER`, (packets,)."""
    quadrant, rows = stream // 2, height // 2
    headers = np.zeros(len(starting_rows), HEADER)
    headers["protocol"] = PROTOCOL
    headers["row_blocks"] = width // 2 // BLOCK
    headers["quadrant_rows"] = (rows & 0xFE) | (quadrant % 2 == 0)
    headers["flags"] = quadrant << 6 | (stream % 2) << 5 | _CORRECTION << 2 | rows >> 8
    headers["starting_row"] = starting_rows
    return headers
