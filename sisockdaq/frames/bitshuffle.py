"""Bitshuffle and LZ4, with the library that `hdf5plugin` brings along: what is in a file's chunk and on a stream.

A payload is byte for byte what the HDF5 filter stores in a chunk::

    u64 big-endian   size of the data when unpacked [bytes]
    u32 big-endian   size of one block when unpacked [bytes]
    blocks           each a u32 big-endian length and that many bytes
    rest             the last ``size % 8`` elements of a bitshuffle payload, as they are

Arrays are packed by `bitplanes`, to the same bytes; the library does the rest.

Promises: the GIL is released while data are packed and unpacked, so threads run side by side; a payload is checked
before it is unpacked, so that a broken one raises `ValueError` and never reads or writes outside its memory.

Formats: ``bshuf_h5filter.c`` of the bitshuffle project (filter 32008) and ``H5Zlz4.c`` of the HDF5 plugins (filter
32004). DECTRIS streams use the same two, under the names ``bslz4`` and ``lz4``.
"""

from __future__ import annotations

import ctypes
import struct
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hdf5plugin
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = [
    "compress_bound",
    "compress_lz4",
    "compress_plain_lz4",
    "compress_zstd",
    "decompress_lz4",
    "decompress_plain_lz4",
    "decompress_zstd",
    "plain_lz4_bound",
    "unpacked_size",
    "zstd_bound",
]

_HEADER = struct.Struct(">QI")
_LENGTH = struct.Struct(">I")

_LZ4_BLOCK = 2**26
"""Bytes that plain LZ4 packs at once; a reader needs that much memory beside the image."""

_ELEMENTS = 8
"""Bitshuffle turns groups of eight elements; fewer than that at the end are stored as they are."""


@cache
def _library() -> ctypes.CDLL:
    """Load the filter's shared library once and declare what is called in it."""
    library = ctypes.CDLL(str(Path(hdf5plugin.PLUGIN_PATH) / "libh5bshuf.so"))
    size, pointer = ctypes.c_size_t, ctypes.c_void_p
    for name in ("bshuf_compress_lz4", "bshuf_decompress_lz4", "bshuf_decompress_zstd"):
        function = getattr(library, name)
        function.argtypes = [pointer, pointer, size, size, size]
        function.restype = ctypes.c_int64
    library.bshuf_compress_lz4_bound.argtypes = [size, size, size]
    library.bshuf_compress_lz4_bound.restype = size
    library.bshuf_compress_zstd.argtypes = [pointer, pointer, size, size, size, ctypes.c_int]
    library.bshuf_compress_zstd.restype = ctypes.c_int64
    library.bshuf_compress_zstd_bound.argtypes = [size, size, size]
    library.bshuf_compress_zstd_bound.restype = size
    library.LZ4_compress_default.argtypes = [pointer, pointer, ctypes.c_int, ctypes.c_int]
    library.LZ4_compress_default.restype = ctypes.c_int
    library.bshuf_default_block_size.argtypes = [size]
    library.bshuf_default_block_size.restype = size
    library.LZ4_decompress_safe.argtypes = [pointer, pointer, ctypes.c_int, ctypes.c_int]
    library.LZ4_decompress_safe.restype = ctypes.c_int
    return library


@cache
def _bound(count: int, element: int) -> tuple[int, int]:
    """Return the largest payload of `count` elements and the elements of one block."""
    library = _library()
    block = int(library.bshuf_default_block_size(element))
    return _HEADER.size + int(library.bshuf_compress_lz4_bound(count, element, block)), block


def compress_bound(shape: tuple[int, ...], dtype: npt.DTypeLike) -> int:
    """Return how many bytes a payload of such an array can have at most."""
    return _bound(int(np.prod(shape, dtype=np.int64)), np.dtype(dtype).itemsize)[0]


def compress_lz4(array: npt.NDArray[Any], out: npt.NDArray[np.uint8] | None = None) -> memoryview:
    """Pack an array with bitshuffle and LZ4.

    Parameters
    ----------
    array : ndarray
        Any shape and plain dtype; copied first when it is not C-contiguous.
    out : ndarray of uint8, optional
        Memory for the payload, at least `compress_bound` bytes. Using one again saves the page faults of new memory,
        which cost about as much as packing.

    Returns
    -------
    memoryview
        The payload; a view into `out` where that was given.

    Raises
    ------
    ValueError
        When `out` is too small.
    """
    data = np.ascontiguousarray(array)
    bound, block = _bound(data.size, data.itemsize)
    target = np.empty(bound, np.uint8) if out is None else out
    if target.nbytes < bound or target.dtype != np.uint8 or not target.flags.c_contiguous:
        raise ValueError(f"out must be {bound} contiguous bytes for an array of {data.nbytes} bytes")
    _HEADER.pack_into(target.data, 0, data.nbytes, block * data.itemsize)
    done, end = _pack_blocks(data, target, block)
    written = _library().bshuf_compress_lz4(
        data.ctypes.data + done * data.itemsize, target.ctypes.data + end, data.size - done, data.itemsize, block
    )
    if written < 0:
        raise ValueError(f"bitshuffle cannot pack an array of {data.nbytes} bytes (code {written})")
    return target.data[: end + written]


def _pack_blocks(data: npt.NDArray[Any], target: npt.NDArray[np.uint8], block: int) -> tuple[int, int]:
    """Pack whole blocks behind the header; return how many elements they have, and where the payload goes on."""
    from sisockdaq.frames import bitplanes  # only who packs pays for numba

    element, blocks = data.itemsize, data.size // block
    if not blocks or element not in bitplanes.ELEMENT_SIZES or block % bitplanes.LANES:
        return 0, _HEADER.size
    size = block * element
    function, bound = _lz4(size)
    planes, begin = np.empty(size, np.uint8), _HEADER.size
    end = bitplanes.pack_blocks(data.ctypes.data, planes, target, begin, element, size, blocks, function, bound)
    if end < 0:
        raise ValueError(f"LZ4 cannot pack a block of {size} bytes")
    return blocks * block, int(end)


@cache
def _lz4(size: int) -> tuple[int, int]:
    """Return the address of the library's LZ4 and the most that it makes of a block."""
    library = _library()
    address = ctypes.cast(library.LZ4_compress_default, ctypes.c_void_p).value
    return int(address or 0), int(library.LZ4_compressBound(size))


def zstd_bound(shape: tuple[int, ...], dtype: npt.DTypeLike) -> int:
    """Return how many bytes a bitshuffle-Zstandard payload of such an array can have at most."""
    count, element = int(np.prod(shape, dtype=np.int64)), np.dtype(dtype).itemsize
    library = _library()
    block = int(library.bshuf_default_block_size(element))
    return _HEADER.size + int(library.bshuf_compress_zstd_bound(count, element, block))


def compress_zstd(array: npt.NDArray[Any], out: npt.NDArray[np.uint8] | None = None, *, level: int = 1) -> memoryview:
    """Pack an array with bitshuffle and Zstandard; `out` has `zstd_bound` bytes; otherwise as `compress_lz4`."""
    data = np.ascontiguousarray(array)
    target = _room(out, zstd_bound(data.shape, data.dtype))
    library = _library()
    block = int(library.bshuf_default_block_size(data.itemsize))
    _HEADER.pack_into(target.data, 0, data.nbytes, block * data.itemsize)
    written = library.bshuf_compress_zstd(
        data.ctypes.data, target.ctypes.data + _HEADER.size, data.size, data.itemsize, block, level
    )
    if written < 0:
        raise ValueError(f"bitshuffle cannot pack an array of {data.nbytes} bytes (code {written})")
    return target.data[: _HEADER.size + written]


def plain_lz4_bound(shape: tuple[int, ...], dtype: npt.DTypeLike) -> int:
    """Return how many bytes a plain LZ4 payload of such an array can have at most."""
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    blocks = -(-size // _LZ4_BLOCK)
    return _HEADER.size + size + blocks * (_LENGTH.size + 16 + _LZ4_BLOCK // 255)


def compress_plain_lz4(array: npt.NDArray[Any], out: npt.NDArray[np.uint8] | None = None) -> memoryview:
    """Pack an array with LZ4 alone (filter 32004); `out` has `plain_lz4_bound` bytes; otherwise as `compress_lz4`."""
    data = np.ascontiguousarray(array)
    target = _room(out, plain_lz4_bound(data.shape, data.dtype))
    source, library = data.reshape(-1).view(np.uint8), _library()
    _HEADER.pack_into(target.data, 0, data.nbytes, min(_LZ4_BLOCK, max(data.nbytes, 1)))
    position = _HEADER.size
    for begin in range(0, data.nbytes, _LZ4_BLOCK):
        size = min(_LZ4_BLOCK, data.nbytes - begin)
        room, place = min(target.nbytes - position - _LENGTH.size, 2**31 - 1), position + _LENGTH.size
        length = library.LZ4_compress_default(source.ctypes.data + begin, target.ctypes.data + place, size, room)
        if not 0 < length < size:  # it does not get smaller: as it is, which its length says
            target[place : place + size] = source[begin : begin + size]
            length = size
        _LENGTH.pack_into(target.data, position, length)
        position = place + length
    return target.data[:position]


def _room(out: npt.NDArray[np.uint8] | None, bound: int) -> npt.NDArray[np.uint8]:
    target = np.empty(bound, np.uint8) if out is None else out
    if target.nbytes < bound or target.dtype != np.uint8 or not target.flags.c_contiguous:
        raise ValueError(f"out must be {bound} contiguous bytes")
    return target


def unpacked_size(payload: Buffer) -> int:
    """Return the size of the data in a payload [bytes], as its header states it."""
    view = memoryview(payload)
    if view.nbytes < _HEADER.size:
        raise ValueError(f"a packed array has at least {_HEADER.size} bytes, this one has {view.nbytes}")
    return int(_HEADER.unpack_from(view)[0])


def decompress_lz4(
    payload: Buffer, shape: tuple[int, ...], dtype: npt.DTypeLike, out: npt.NDArray[Any] | None = None
) -> npt.NDArray[Any]:
    """Unpack a bitshuffle-LZ4 payload.

    Parameters
    ----------
    payload : bytes-like
        With the 12-byte header.
    shape, dtype
        What is expected; the payload must hold exactly as many bytes.
    out : ndarray, optional
        C-contiguous memory of that shape and dtype to unpack into.

    Raises
    ------
    ValueError
        When the payload is cut short, damaged, or holds another number of bytes.
    """
    return _unshuffle("bshuf_decompress_lz4", payload, shape, dtype, out)


def decompress_zstd(
    payload: Buffer, shape: tuple[int, ...], dtype: npt.DTypeLike, out: npt.NDArray[Any] | None = None
) -> npt.NDArray[Any]:
    """Unpack a bitshuffle-Zstandard payload; otherwise as `decompress_lz4`."""
    return _unshuffle("bshuf_decompress_zstd", payload, shape, dtype, out)


def decompress_plain_lz4(
    payload: Buffer, shape: tuple[int, ...], dtype: npt.DTypeLike, out: npt.NDArray[Any] | None = None
) -> npt.NDArray[Any]:
    """Unpack an LZ4 payload in the frame of HDF5 filter 32004 (no bitshuffle); otherwise as `decompress_lz4`.

    A block whose length equals its unpacked size is stored as it is.
    """
    source, target = np.frombuffer(memoryview(payload), np.uint8), _target(shape, dtype, out)
    block = _check_header(source, target)
    flat = target.reshape(-1).view(np.uint8)
    position, done, library = _HEADER.size, 0, _library()
    while done < target.nbytes:
        size = min(block, target.nbytes - done)
        length = _block_length(source, position)
        position += _LENGTH.size
        if length == size:
            flat[done : done + size] = source[position : position + size]
        elif library.LZ4_decompress_safe(source.ctypes.data + position, flat.ctypes.data + done, length, size) != size:
            raise ValueError(f"damaged LZ4 block at byte {position} of the payload")
        position += length
        done += size
    return target


def _unshuffle(
    function: str, payload: Buffer, shape: tuple[int, ...], dtype: npt.DTypeLike, out: npt.NDArray[Any] | None
) -> npt.NDArray[Any]:
    """Check the payload as a whole, then hand it to the library, which itself trusts the lengths it finds."""
    source, target = np.frombuffer(memoryview(payload), np.uint8), _target(shape, dtype, out)
    block = _check_header(source, target)
    if target.size == 0:
        return target
    if block % (target.itemsize * _ELEMENTS):
        raise ValueError(f"a block of {block} bytes does not hold groups of eight {target.dtype} elements")
    _check_blocks(source, target, block)
    consumed = getattr(_library(), function)(
        source.ctypes.data + _HEADER.size, target.ctypes.data, target.size, target.itemsize, block // target.itemsize
    )
    if consumed < 0:
        raise ValueError(f"damaged bitshuffle payload of {source.size} bytes (code {consumed})")
    return target


def _target(shape: tuple[int, ...], dtype: npt.DTypeLike, out: npt.NDArray[Any] | None) -> npt.NDArray[Any]:
    if out is None:
        return np.empty(shape, dtype)
    if out.shape != tuple(shape) or out.dtype != np.dtype(dtype) or not out.flags.c_contiguous:
        raise ValueError(f"out is {out.dtype} {out.shape}; contiguous {np.dtype(dtype)} {tuple(shape)} is needed")
    return out


def _check_header(source: npt.NDArray[np.uint8], target: npt.NDArray[Any]) -> int:
    """Return the block size [bytes] of a payload that holds as many bytes as `target`."""
    size = unpacked_size(source.data)
    if size != target.nbytes:
        raise ValueError(f"the payload holds {size} bytes; {target.dtype} {target.shape} takes {target.nbytes}")
    block = int(_HEADER.unpack_from(source.data)[1])
    if block == 0 and size:
        raise ValueError("the payload states a block size of 0")
    return block


def _block_length(source: npt.NDArray[np.uint8], position: int) -> int:
    """Return the length of the block at `position`, which must lie within the payload."""
    if position + _LENGTH.size <= source.size:
        length = int(_LENGTH.unpack_from(source.data, position)[0])
        if position + _LENGTH.size + length <= source.size:
            return length
    raise ValueError(f"the payload of {source.size} bytes ends within a block")


def _check_blocks(source: npt.NDArray[np.uint8], target: npt.NDArray[Any], block: int) -> None:
    """Follow the blocks' lengths through the payload; raise where one would lead out of it."""
    rest = (target.size % _ELEMENTS) * target.itemsize
    blocks = -(-(target.nbytes - rest) // block)
    position, end, unpack, view = _HEADER.size, source.size - _LENGTH.size, _LENGTH.unpack_from, source.data
    for _ in range(blocks):
        if position > end:
            break
        position += _LENGTH.size + unpack(view, position)[0]
    else:
        if position + rest <= source.size:
            return
    raise ValueError(f"the payload of {source.size} bytes ends within a block")
