"""Payloads against the HDF5 filters themselves, written and read by h5py."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sisockdaq.frames import bitshuffle

DTYPES = ["u1", "<u2", "<i4", "<u4", "<f8"]


def an_image(shape: tuple[int, ...], dtype: str, seed: int = 1) -> npt.NDArray[Any]:
    return np.random.default_rng(seed).poisson(20, shape).astype(dtype)


def as_hdf5_packs(path: Path, array: npt.NDArray[Any], filters: Mapping[str, Any]) -> bytes:
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("data", data=array[None], chunks=(1, *array.shape), **filters)
        return bytes(dataset.id.read_direct_chunk((0,) * dataset.ndim)[1])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(64, 512), (3, 5), (37, 1031), (8,)])
def test_payload_is_the_chunk_of_the_hdf5_filter(tmp_path: Path, shape: tuple[int, ...], dtype: str) -> None:
    image = an_image(shape, dtype)
    chunk = as_hdf5_packs(tmp_path / "one.h5", image, hdf5plugin.Bitshuffle(cname="lz4"))
    assert bytes(bitshuffle.compress_lz4(image)) == chunk
    np.testing.assert_array_equal(bitshuffle.decompress_lz4(chunk, shape, dtype), image)


def test_hdf5_reads_a_payload_written_as_a_chunk(tmp_path: Path) -> None:
    image = an_image((100, 333), "<u4")
    with h5py.File(tmp_path / "one.h5", "w") as file:
        dataset = file.create_dataset(
            "data", (1, 100, 333), "<u4", chunks=(1, 100, 333), **hdf5plugin.Bitshuffle(cname="lz4")
        )
        dataset.id.write_direct_chunk((0, 0, 0), bitshuffle.compress_lz4(image))
    with h5py.File(tmp_path / "one.h5") as file:
        np.testing.assert_array_equal(file["data"][0], image)


def test_zstd_and_plain_lz4_chunks_are_unpacked(tmp_path: Path) -> None:
    image = an_image((64, 1031), "<u2")
    chunk = as_hdf5_packs(tmp_path / "zstd.h5", image, hdf5plugin.Bitshuffle(cname="zstd"))
    np.testing.assert_array_equal(bitshuffle.decompress_zstd(chunk, image.shape, image.dtype), image)
    for name, nbytes in (("lz4.h5", 0), ("lz4-blocks.h5", 4096)):
        chunk = as_hdf5_packs(tmp_path / name, image, hdf5plugin.LZ4(nbytes=nbytes))
        np.testing.assert_array_equal(bitshuffle.decompress_plain_lz4(chunk, image.shape, image.dtype), image)


def test_memory_can_be_used_again() -> None:
    first, second = an_image((32, 512), "<u2", 1), an_image((32, 512), "<u2", 2)
    packed = np.empty(bitshuffle.compress_bound(first.shape, first.dtype), np.uint8)
    unpacked = np.empty_like(first)
    for image in (first, second):
        payload = bitshuffle.compress_lz4(image, out=packed)
        assert np.shares_memory(np.frombuffer(payload, np.uint8), packed)
        assert bitshuffle.decompress_lz4(payload, image.shape, image.dtype, out=unpacked) is unpacked
        np.testing.assert_array_equal(unpacked, image)


def test_an_array_that_is_not_contiguous_is_packed_as_it_reads() -> None:
    image = an_image((64, 128), "<u2")[::-1, ::2]
    np.testing.assert_array_equal(
        bitshuffle.decompress_lz4(bitshuffle.compress_lz4(image), image.shape, image.dtype), image
    )


def test_too_little_memory_is_refused() -> None:
    with pytest.raises(ValueError, match="contiguous bytes"):
        bitshuffle.compress_lz4(an_image((8, 8), "<u2"), out=np.empty(12, np.uint8))
    with pytest.raises(ValueError, match="is needed"):
        bitshuffle.decompress_lz4(b"", (8, 8), "<u2", out=np.empty((8, 9), "<u2"))


def test_an_empty_array_has_an_empty_payload() -> None:
    payload = bitshuffle.compress_lz4(np.empty((0, 5), "<u2"))
    assert bitshuffle.decompress_lz4(payload, (0, 5), "<u2").shape == (0, 5)


def test_payload_of_another_size_is_refused_by_name() -> None:
    payload = bitshuffle.compress_lz4(an_image((8, 8), "<u2"))
    with pytest.raises(ValueError, match="holds 128 bytes; uint16 \\(8, 9\\) takes 144"):
        bitshuffle.decompress_lz4(payload, (8, 9), "<u2")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_damaged_payload_never_does_more_than_raise(data: st.DataObject) -> None:
    image = an_image((41, 300), "<u4")
    payload = bytearray(bitshuffle.compress_lz4(image))
    if data.draw(st.booleans()):
        del payload[data.draw(st.integers(0, len(payload) - 1)) :]
    for position in data.draw(st.lists(st.integers(0, max(0, len(payload) - 1)), max_size=4)):
        payload[position : position + 1] = bytes([data.draw(st.integers(0, 255))])
    for unpack in (bitshuffle.decompress_lz4, bitshuffle.decompress_zstd, bitshuffle.decompress_plain_lz4):
        try:
            assert unpack(payload, image.shape, image.dtype).shape == image.shape
        except ValueError as error:
            assert str(error)  # noqa: PT017
