"""The packing of whole blocks: byte for byte what the library of the HDF5 filter makes."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import hypothesis.extra.numpy as arrays
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sisockdaq.frames import bitplanes, bitshuffle

SIZES = (0, 1, 7, 8, 100, 2048, 4095, 4096, 4097, 8192 * 3 + 13, 100_003)


def by_the_library(array: npt.NDArray[Any]) -> bytes:
    """Return what the library packs alone."""
    bound, block = bitshuffle._bound(array.size, array.itemsize)
    out = np.empty(bound, np.uint8)
    bitshuffle._HEADER.pack_into(out.data, 0, array.nbytes, block * array.itemsize)
    begin = bitshuffle._HEADER.size
    size = bitshuffle._library().bshuf_compress_lz4(
        array.ctypes.data, out.ctypes.data + begin, array.size, array.itemsize, block
    )
    return bytes(out[: begin + size])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2", "<i2", "<u4", "<f4", "<u8", "<f8"])
def test_blocks_are_packed_as_by_the_library(dtype: str, size: int) -> None:
    generator = np.random.default_rng(size)
    few = generator.poisson(2, size).astype(dtype)
    noise = np.frombuffer(generator.bytes(size * np.dtype(dtype).itemsize), dtype)
    for array in (few, noise):
        assert bytes(bitshuffle.compress_lz4(array)) == by_the_library(array)


@settings(max_examples=30, deadline=None)
@given(arrays.arrays(st.sampled_from(["u1", "<u2", "<u4"]), st.integers(0, 20_000)))
def test_any_array_is_packed_as_by_the_library(array: npt.NDArray[Any]) -> None:
    assert bytes(bitshuffle.compress_lz4(array)) == by_the_library(array)


def test_blocks_that_lz4_has_no_room_for_are_told_of() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, 8192, np.uint8)
    function, _ = bitshuffle._lz4(pixels.nbytes)
    target = np.empty(16_384, np.uint8)
    planes = np.empty(pixels.nbytes, np.uint8)
    assert bitplanes.pack_blocks(pixels.ctypes.data, planes, target, 0, 1, pixels.nbytes, 1, function, 100) == -1


PACK_IN_THREADS = """
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from sisockdaq.frames.bitshuffle import compress_lz4

frames = [np.random.default_rng(seed).poisson(20, 400_000).astype("<u2") for seed in range(4)]
alone = [bytes(compress_lz4(frame)) for frame in frames]
with ThreadPoolExecutor(4) as pool:
    together = list(pool.map(lambda number: bytes(compress_lz4(frames[number % 4])), range(100)))
print(sum(packed != alone[number % 4] for number, packed in enumerate(together)))
"""


def test_threads_that_share_one_heap_do_not_disturb_each_other() -> None:
    # One heap for all threads: who writes into memory given back meets the memory of another at once.
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1"}
    command = [sys.executable, "-c", PACK_IN_THREADS]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (0, "0\n"), ended.stderr
