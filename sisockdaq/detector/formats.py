"""The packet header of JUNGFRAU and EIGER, and how pixels lie in a packet.

Pure: bytes in, numbers out. The receiver's kernel reads the same fields by their offsets below; everything else
(simulator, recordings, tests) uses `HEADER`.

Source: slsDetectorPackage ``docs/src/udpheader.rst``, slsDetector standard header, version 2, little endian.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sisockdaq.detector.description import HEADER_BYTES

__all__ = ["HEADER", "HEADER_BYTES", "HEADER_VERSION", "pack_pixels", "read_headers", "unpack_pixels"]

HEADER_VERSION = 2

HEADER = np.dtype(
    [
        ("frame_number", "<u8"),
        ("exposure", "<u4"),  # EIGER: number of the subframe
        ("packet_number", "<u4"),
        ("bunch_id", "<u8"),  # detSpec1; JUNGFRAU's bunch id
        ("timestamp", "<u8"),  # of the detector's own clock [100 ns]
        ("module_id", "<u2"),
        ("row", "<u2"),
        ("column", "<u2"),
        ("spec2", "<u2"),
        ("spec3", "<u4"),
        ("spec4", "<u2"),
        ("detector_type", "u1"),
        ("version", "u1"),
    ]
)
assert HEADER.itemsize == HEADER_BYTES


def read_headers(packets: bytes | memoryview, datagram_bytes: int) -> npt.NDArray[Any]:
    """Return the headers of packets of one size that lie one after the other.

    Parameters
    ----------
    packets : bytes-like
        A whole number of datagrams.
    datagram_bytes : int
        Bytes of one datagram.

    Returns
    -------
    ndarray of `HEADER`, (packets,)
        A view, strided; writable where `packets` is.
    """
    rows = np.frombuffer(packets, np.uint8).reshape(-1, datagram_bytes)
    return np.ndarray(len(rows), HEADER, rows, strides=(datagram_bytes,))


def unpack_pixels(payload: bytes | npt.NDArray[np.uint8], bit_depth: int) -> npt.NDArray[Any]:
    """Return a payload's pixels in the order sent; 4-bit pixels as uint8, low nibble first."""
    raw = np.frombuffer(payload, np.uint8)
    if bit_depth == 4:
        return np.stack((raw & 15, raw >> 4), axis=-1).reshape(-1)
    return raw.view({8: "u1", 16: "<u2", 32: "<u4"}[bit_depth])


def pack_pixels(pixels: npt.NDArray[Any], bit_depth: int) -> npt.NDArray[np.uint8]:
    """Return the bytes of `pixels`, last axis by last axis: the inverse of `unpack_pixels`.

    Raises
    ------
    ValueError
        When a value does not fit into the bit depth.
    """
    if pixels.size and int(pixels.max()) >> bit_depth:
        raise ValueError(f"a pixel of {int(pixels.max())} does not fit into {bit_depth} bits")
    if bit_depth == 4:
        small = pixels.astype(np.uint8)
        return small[..., 0::2] | np.left_shift(small[..., 1::2], np.uint8(4))
    return np.ascontiguousarray(pixels, dtype={8: "u1", 16: "<u2", 32: "<u4"}[bit_depth]).view(np.uint8)
