"""Couples: every two neighbouring pixels of a frame as one, for maps that do not split pixels.

Which bins two neighbours count to is one of a few thousand cases. Numbered, each case has two accumulators that lie
together: one instruction adds both pixels, and one number tells where. After the frame, the accumulators of the cases
are added to the bins.

A case whose couples follow each other directly has several numbers, used in turn, so that no addition waits for the one
before. No number stands for more couples than 16 bits count: a sum of 65535 pixels of 32 bits needs 48 bits, and the
other 16 count pixels that are 0 (`_lanes.ONE_ZERO`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sisockdaq.integrate._jit import compiled, inner
from sisockdaq.integrate._lanes import ONE_ZERO

__all__ = ["Couples", "find_couples", "unfold_couples"]

_TURNS = 4
_SLOTS = 1 << 18
"""Slots of the table of cases: a power of two, several times the most that are looked for."""

_MOST = 1 << 16
_WORTH = 16
"""One case in so many pixels, at most: with more, clearing and adding up their accumulators takes what they save."""


class Couples(NamedTuple):
    """The couples of a map.

    Attributes
    ----------
    words : ndarray of uint64, (pixels // 8,)
        Four numbers of 16 bits, of the couples of eight pixels that follow each other; none where couples are not
        worth their while.
    entries : ndarray of uint16, (numbers, 2)
        The map's entries of the first and of the second pixel.
    """

    words: npt.NDArray[np.uint64]
    entries: npt.NDArray[np.uint16]


def find_couples(index: npt.NDArray[np.uint16], pixels: int) -> Couples:
    """Number the couples of the first `pixels` pixels; `index` is `BinMap.index`."""
    numbers = np.empty(pixels // 8 * 4, np.uint16)
    entries = np.empty((min(_MOST, pixels // _WORTH), 2), np.uint16)
    found = _number(index, numbers, entries)
    if found == 0:
        return Couples(np.empty(0, np.uint64), np.empty((0, 2), np.uint16))
    return Couples(numbers.view(np.uint64), entries[:found].copy())


@compiled
def _number(index: Any, numbers: Any, entries: Any) -> int:
    """Fill `numbers` and `entries`; return how many there are, 0 where `entries` cannot hold them."""
    case = np.full(_SLOTS, -1, np.int64)
    given = np.full((_SLOTS, _TURNS), -1, np.int32)
    times = np.zeros(entries.shape[0], np.int64)
    found, turn, before = 0, 0, np.int64(-1)
    for k in range(numbers.size):
        first, second = index[2 * k], index[2 * k + 1]
        wanted = np.int64(first) << 16 | np.int64(second)
        slot = _slot(case, wanted)
        case[slot] = wanted
        turn = (turn + 1) % _TURNS if wanted == before else 0
        before = wanted
        number = given[slot, turn]
        if number < 0 or times[number] == 0xFFFF:
            if found == entries.shape[0]:
                return 0
            number = given[slot, turn] = found
            entries[found, 0], entries[found, 1] = first, second
            found += 1
        times[number] += 1
        numbers[k] = number
    return found


@inner
def _slot(case: Any, wanted: Any) -> Any:
    """Return the slot of a case, or the free one that it gets."""
    slot = (wanted * 0x9E3779B1 >> 14) & (_SLOTS - 1)
    while case[slot] >= 0 and case[slot] != wanted:
        slot = (slot + 1) & (_SLOTS - 1)
    return slot


@compiled
def unfold_couples(lanes: Any, entries: Any, packed: bool, sums: Any) -> None:
    """Add the couples' lanes to those of the entries.

    Parameters
    ----------
    lanes : ndarray of uint64, int64 or float64, (numbers, 2) or (numbers, 4)
        As `_lanes.add_couple` makes them.
    entries : ndarray of uint16, (numbers, 2)
    packed : bool
        Whether a lane holds a sum and a number of zeros.
    sums : ndarray, (stride, 1 or 2)
        Σ v, and Σ max(1, v).
    """
    zero = sums.dtype.type(ONE_ZERO)
    for k in range(entries.shape[0]):
        for side in range(2):
            entry, lane = entries[k, side], lanes[k, side]
            if packed:
                zeros = lane // zero
                value = lane - zeros * zero
                sums[entry, 0] += value
                sums[entry, 1] += value + zeros
                continue
            sums[entry, 0] += lane
            if lanes.shape[1] == 4:
                sums[entry, 1] += lanes[k, 2 + side]
