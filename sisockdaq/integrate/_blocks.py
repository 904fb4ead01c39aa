"""What every kernel does with a block of pixels beside adding it up: find unusable pixels, take the maximum.

Where a frame can hold unusable pixels (the fill value of lost packets, NaN, ±∞), it is worked on in blocks of `BLOCK`
pixels. Each is searched for them first, several pixels an instruction; only a block that has one in sight goes through
the slower loop that looks at every pixel. Unusable pixels that are masked anyway cost the search only.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sisockdaq.integrate._jit import compiled, inner

__all__ = ["BLOCK", "block_maximum", "four_places", "has_unusable", "region_sum", "unusable"]

BLOCK = 4096
"""Pixels of a block; a multiple of eight. With its indices and shares it fits the first two levels of cache, so the
search reads memory and the sums after it do not. Smaller blocks cost more in calls than they save."""


@inner
def unusable(value: Any, dummy: Any) -> Any:
    """Whether a pixel equals `dummy`, is NaN or infinite; of integers the compiler compares with `dummy` only."""
    nothing = value - value
    return (value == dummy) | (nothing != nothing)


@inner
def has_unusable(pixels: Any, index: Any, masked: Any, dummy: Any, start: int, stop: int) -> bool:
    """Whether a pixel of the block that is not masked is unusable."""
    # Slices, so that the compiler sees indices from 0 on and takes several pixels at once.
    values, entries = pixels[start:stop], index[start:stop]
    found = 0
    for i in range(values.size):
        found += unusable(values[i], dummy)
    if found == 0:
        return False
    found = 0
    for i in range(values.size):
        found += unusable(values[i], dummy) & (entries[i] != masked)
    return found > 0


@inner
def four_places(word: Any, stride: int) -> Any:
    """Take apart the entries of four pixels, read as one uint64, and send neighbours to different banks."""
    low, other = np.uint64(0xFFFF), np.uint64(stride)
    return (
        word & low,
        ((word >> np.uint64(16)) & low) + other,
        (word >> np.uint64(32)) & low,
        (word >> np.uint64(48)) + other,
    )


@inner
def block_maximum(
    pixels: Any, index: Any, masked: Any, dummy: Any, careful: bool, lowest: Any, start: int, stop: int
) -> Any:
    """Largest usable pixel of the block, at least `lowest`; only a `careful` look leaves unusable ones out."""
    values, entries = pixels[start:stop], index[start:stop]
    highest = lowest
    if careful:
        for i in range(values.size):
            if entries[i] != masked and not unusable(values[i], dummy) and values[i] > highest:
                highest = values[i]
        return highest
    for i in range(values.size):
        value = values[i] if entries[i] != masked else lowest
        highest = max(highest, value)
    return highest


@compiled
def region_sum(
    image: Any, index: Any, masked: Any, check: bool, dummy: Any, box: tuple[int, int, int, int], nothing: Any
) -> Any:
    """Sum of the usable pixels with x0 ≤ x < x1 and y0 ≤ y < y1; `nothing` is a zero of the sum's type."""
    x0, y0, x1, y1 = box
    columns = image.shape[1]
    total = nothing
    for y in range(y0, y1):
        for x in range(x0, x1):
            value = image[y, x]
            if index[y * columns + x] == masked or (check and unusable(value, dummy)):
                continue
            total += value
    return total
