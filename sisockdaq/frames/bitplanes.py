"""Bitshuffle and LZ4 in one pass over an array, with the widest vectors that this machine has.

The library that `hdf5plugin` brings along turns bits with vectors of 16 bytes and goes over each block several times;
that takes longer than LZ4 itself. Here 32 elements are taken at once: the signs of their bytes are one word of a plane
of bits, and a shift brings up the next plane. Its LZ4 packs each block while that is in the nearest cache. What comes
out is byte for byte what the library makes.

Promises: the GIL is released. Compiled at the first use, and kept on disk; `warm_up` does it ahead of time.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

__all__ = ["ELEMENT_SIZES", "LANES", "pack_blocks", "warm_up"]

ELEMENT_SIZES = (1, 2, 4)
"""Sizes of elements that are taken here [bytes]."""

LANES = 32
"""Elements that are turned at once; a block has a multiple of them."""

_BYTE, _WORD, _ADDRESS = ir.IntType(8), ir.IntType(LANES), ir.IntType(64)


def _turning(size: int) -> Any:
    """Return an intrinsic that turns `LANES` elements of `size` bytes into 8 × `size` words of bit planes."""

    @intrinsic
    def turn(_context: Any, source: Any, target: Any, stride: Any) -> Any:
        """`source`, `target`: addresses; `stride`: distance of two planes [bytes]."""

        def build(_: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            begin, end, step = arguments
            taken = ir.VectorType(_BYTE, LANES * size)
            elements = builder.load(builder.inttoptr(begin, taken.as_pointer()))
            elements.align = 1
            zero = ir.Constant(ir.VectorType(_BYTE, LANES), [0] * LANES)
            for byte in range(size):
                chosen = [size * lane + byte for lane in range(LANES)]
                mask = ir.Constant(ir.VectorType(ir.IntType(32), LANES), chosen)
                plane = builder.shuffle_vector(elements, ir.Constant(taken, ir.Undefined), mask)
                for bit in reversed(range(8)):
                    word = builder.bitcast(builder.icmp_signed("<", plane, zero), _WORD)
                    offset = builder.mul(step, ir.Constant(_ADDRESS, 8 * byte + bit))
                    place = builder.inttoptr(builder.add(end, offset), _WORD.as_pointer())
                    builder.store(word, place).align = 1
                    plane = builder.add(plane, plane)
            return ir.Constant(_BYTE.as_pointer(), None)  # what stands for None

        return types.void(types.uint64, types.uint64, types.uint64), build

    return turn


def _calling(_context: Any, function: Any, source: Any, target: Any, size: Any, room: Any) -> Any:
    """Call ``int f(const char *, char *, int, int)`` at an address."""

    def build(_: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        address, begin, end, length, most = arguments
        pointer, number = _BYTE.as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(number, [pointer, pointer, number, number])
        called = builder.inttoptr(address, kind.as_pointer())
        places = [builder.inttoptr(begin, pointer), builder.inttoptr(end, pointer)]
        return builder.call(called, [*places, length, most])

    return types.int32(types.uint64, types.uint64, types.uint64, types.int32, types.int32), build


_call: Any = intrinsic(_calling)
_turn_1, _turn_2, _turn_4 = (_turning(size) for size in ELEMENT_SIZES)


@numba.njit(nogil=True, cache=True)
def pack_blocks(
    source: int,
    planes: npt.NDArray[np.uint8],
    target: npt.NDArray[np.uint8],
    begin: int,
    element: int,
    block: int,
    blocks: int,
    lz4: int,
    bound: int,
) -> int:
    """Pack whole blocks of an array.

    Parameters
    ----------
    source : int
        Address of at least ``blocks * block`` bytes (so that memory to read and memory to write are one case).
    planes : ndarray of uint8
        Memory for the bits of one block, of its size. It is the caller's: numba gives an array of its own back after
        the last line that names it, and what uses its address from then on writes into memory of others.
    target : ndarray of uint8
        Memory of `bound` + 4 bytes for each block from `begin` on.
    begin : int
        Where the first block goes in `target`.
    element : int
        Size of an element [bytes], one of `ELEMENT_SIZES`.
    block : int
        Size of a block [bytes], a multiple of ``LANES * element``.
    blocks : int
    lz4 : int
        Address of LZ4's ``LZ4_compress_default``.
    bound : int
        Bytes that LZ4 can make of a block at most.

    Returns
    -------
    int
        The position behind the last block in `target`; -1 when LZ4 fails.
    """
    turned, stride = np.uint64(planes.ctypes.data), np.uint64(block // (8 * element))
    read, into = np.uint64(source), np.uint64(target.ctypes.data)
    step = np.uint64(LANES * element)
    position = begin
    for _ in range(blocks):
        word = turned
        for _ in range(block // (LANES * element)):
            if element == 2:
                _turn_2(read, word, stride)
            elif element == 4:
                _turn_4(read, word, stride)
            else:
                _turn_1(read, word, stride)
            read += step
            word += np.uint64(LANES // 8)
        length = _call(np.uint64(lz4), turned, into + np.uint64(position + 4), np.int32(block), np.int32(bound))
        if length <= 0:
            return -1
        target[position] = (length >> 24) & 0xFF
        target[position + 1] = (length >> 16) & 0xFF
        target[position + 2] = (length >> 8) & 0xFF
        target[position + 3] = length & 0xFF
        position += 4 + length
    return position


def warm_up() -> None:
    """Compile, or take what was compiled from the disk."""
    nothing = np.empty(0, np.uint8)
    pack_blocks(0, nothing, nothing, 0, 2, 64, 0, 0, 0)
