"""Arrays by name in one file that is read at the speed of the disk: one read into one piece of memory, nothing copied.

The file is a line of eight bytes that says what it is, the checksum of all that follows, the length of the list of
arrays, the list (JSON: name, type, shape and place of each), and the arrays as they lie in memory, each from a multiple
of 64 bytes on.

The file is read and not mapped: memory that belongs to a file changes when somebody changes the file after its checksum
was tested, and reading beyond the end of a file that became shorter ends the process. The checksum notices every
single changed word, and any other damage but by a chance of 1 in 2⁶⁴; a fingerprint against forgery it is not. It is
computed at the speed of memory, where zip's takes longer than reading does.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from sisockdaq.integrate._jit import compiled

__all__ = ["pack_arrays", "read_arrays", "unpack_arrays"]

_MAGIC: Final = b"SISOMAP1"
_ALIGNMENT: Final = 64
_HEAD: Final = 24
"""Bytes of magic, checksum and length of the list."""


def pack_arrays(arrays: dict[str, npt.NDArray[Any]]) -> npt.NDArray[np.uint64]:
    """Return the content of a file."""
    table: dict[str, tuple[str, tuple[int, ...], int]] = {}
    place = 0
    for name, array in arrays.items():
        table[name] = array.dtype.str, array.shape, place
        place += _padded(array.nbytes)
    listed = json.dumps(table).encode()
    begin = _padded(_HEAD + len(listed))
    words = np.zeros((begin + place) // 8, np.uint64)
    content = words.view(np.uint8)
    content[_HEAD : _HEAD + len(listed)] = np.frombuffer(listed, np.uint8)
    for name, array in arrays.items():
        first = begin + table[name][2]
        content[first : first + array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    words[0], words[2] = int.from_bytes(_MAGIC, "little"), len(listed)
    words[1] = _checksum(words[2:])
    return words


def read_arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Read a file.

    Raises
    ------
    OSError
        When there is none, or it cannot be read.
    ValueError
        When it is damaged or of another kind.
    """
    with path.open("rb") as file:
        size = path.stat().st_size
        words = np.empty(size // 8, np.uint64)
        if file.readinto(words.view(np.uint8).data) != size:
            raise ValueError("its size cannot be right")
    return unpack_arrays(words)


def unpack_arrays(words: npt.NDArray[np.uint64]) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of a file's content, which they share memory with; ValueError as in `read_arrays`."""
    if words.size < _HEAD // 8 or words[:1].tobytes() != _MAGIC:
        raise ValueError("it is of another kind, or from another version")
    if _checksum(words[2:]) != words[1]:
        raise ValueError("its checksum is wrong")
    content, length = words.view(np.uint8), int(words[2])
    begin = _padded(_HEAD + length)
    arrays = {}
    for name, (kind, shape, place) in json.loads(content[_HEAD : _HEAD + length].tobytes()).items():
        dtype = np.dtype(kind)
        first = begin + place
        stored = content[first : first + math.prod(shape) * dtype.itemsize]
        arrays[name] = stored.view(dtype).reshape(shape)
    return arrays


def _padded(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _checksum(words: npt.NDArray[np.uint64]) -> np.uint64:
    return np.uint64(_mix(words))


@compiled
def _mix(words: Any) -> Any:
    """Stir each word into one of four numbers, each step of which can be undone: no changed word is lost on the way."""
    factor, half = np.uint64(0x9E3779B97F4A7C15), np.uint64(32)
    a, b, c, d = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4)
    whole = words.size & ~3
    for i in range(0, whole, 4):
        a = (a ^ words[i]) * factor
        b = (b ^ words[i + 1]) * factor
        c = (c ^ words[i + 2]) * factor
        d = (d ^ words[i + 3]) * factor
        a ^= a >> half
        b ^= b >> half
        c ^= c >> half
        d ^= d >> half
    for i in range(whole, words.size):
        a = (a ^ words[i]) * factor
        a ^= a >> half
    for number in (b, c, d, np.uint64(words.size)):
        a = (a ^ number) * factor
        a ^= a >> half
    return a
