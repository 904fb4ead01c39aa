"""The compressions of images: their names, their HDF5 filters, packing and unpacking. Pure.

=========  =========================================================  ===========
name       what a chunk is                                            HDF5 filter
=========  =========================================================  ===========
``bslz4``  bitshuffle and LZ4, as DECTRIS streams and files have it   32008
``zstd``   bitshuffle and Zstandard                                   32008
``lz4``    LZ4 alone, as DECTRIS streams have it                      32004
``none``   the pixels
=========  =========================================================  ===========

A payload of a stream under one of these names is byte for byte such a chunk, so it can be stored as it came.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import hdf5plugin
import numpy as np
import numpy.typing as npt

from sisockdaq.frames.bitshuffle import (
    compress_bound,
    compress_lz4,
    compress_plain_lz4,
    compress_zstd,
    decompress_lz4,
    decompress_plain_lz4,
    decompress_zstd,
    plain_lz4_bound,
    zstd_bound,
)

if TYPE_CHECKING:
    import h5py
    from typing_extensions import Buffer

__all__ = ["COMPRESSIONS", "Compression", "Filter", "compression_of", "filter_of"]

Compression = Literal["bslz4", "lz4", "zstd", "none"]

COMPRESSIONS: tuple[Compression, ...] = ("bslz4", "lz4", "zstd", "none")

_BITSHUFFLE, _LZ4 = "32008", "32004"
_BITSHUFFLE_LZ4, _BITSHUFFLE_ZSTD = 2, 3
"""What the fifth option of filter 32008 says of the packing after the shuffling."""

_ZSTD_LEVEL = 1
"""The fastest: a writer has to keep up."""


@dataclass(frozen=True, slots=True)
class Filter:
    """One way to store an image.

    Attributes
    ----------
    name : Compression
    dataset : dict
        What `h5py.Group.create_dataset` is to be told.
    bound : callable
        Shape and dtype → bytes that a chunk can have at most.
    pack : callable
        Image and a buffer of `bound` bytes → the chunk, within the buffer.
    unpack : callable
        Chunk, shape and dtype → image; `ValueError` for a damaged chunk.
    """

    name: Compression
    dataset: dict[str, Any]
    bound: Callable[[tuple[int, ...], npt.DTypeLike], int]
    pack: Callable[[npt.NDArray[Any], npt.NDArray[np.uint8]], memoryview]
    unpack: Callable[[Buffer, tuple[int, ...], npt.DTypeLike], npt.NDArray[Any]]


def _raw_bound(shape: tuple[int, ...], dtype: npt.DTypeLike) -> int:
    return int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize


def _copy(image: npt.NDArray[Any], out: npt.NDArray[np.uint8]) -> memoryview:
    np.copyto(out.view(image.dtype).reshape(image.shape), image)
    return out.data


def _as_array(chunk: Buffer, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    pixels: npt.NDArray[Any] = np.frombuffer(memoryview(chunk), np.dtype(dtype))
    return pixels.reshape(shape)


_FILTERS: dict[str, Filter] = {
    "bslz4": Filter(
        "bslz4", dict(hdf5plugin.Bitshuffle(nelems=0, cname="lz4")), compress_bound, compress_lz4, decompress_lz4
    ),
    "zstd": Filter(
        "zstd",
        dict(hdf5plugin.Bitshuffle(nelems=0, cname="zstd", clevel=_ZSTD_LEVEL)),
        zstd_bound,
        lambda image, out: compress_zstd(image, out, level=_ZSTD_LEVEL),
        decompress_zstd,
    ),
    "lz4": Filter("lz4", dict(hdf5plugin.LZ4()), plain_lz4_bound, compress_plain_lz4, decompress_plain_lz4),
    "none": Filter("none", {}, _raw_bound, _copy, _as_array),
}


def filter_of(compression: str) -> Filter:
    """Return the filter of that name; raise `ValueError` that names those there are."""
    try:
        return _FILTERS[compression]
    except KeyError:
        known = ", ".join(COMPRESSIONS)
        raise ValueError(f'"{compression}" is no compression of images; one of {known}') from None


def compression_of(dataset: h5py.Dataset) -> Compression | None:
    """Return how a dataset's chunks are packed; None where it is in a way of its own, which HDF5 may know."""
    filters = dict(dataset._filters)
    if not filters:
        return "none"
    if list(filters) == [_LZ4]:
        return "lz4"
    if list(filters) == [_BITSHUFFLE] and len(options := filters[_BITSHUFFLE]) >= 5:
        return {_BITSHUFFLE_LZ4: "bslz4", _BITSHUFFLE_ZSTD: "zstd"}.get(int(options[4]))  # type: ignore[return-value]
    return None
