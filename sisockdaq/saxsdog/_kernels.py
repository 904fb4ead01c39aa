"""What is compiled of the integration: sums of cells, and what they are to the bins; in one file, for numba's cache."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

__all__ = ["add_cells", "add_weighted_cells", "count_labels", "find_cells", "spread_cells"]


@njit(nogil=True, cache=True)
def add_cells(image: Any, cells: Any, sums: Any) -> None:
    """Add each pixel to the sum of its cell."""
    for pixel in range(image.size):
        sums[cells[pixel]] += image[pixel]


@njit(nogil=True, cache=True)
def add_weighted_cells(image: Any, factor: Any, cells: Any, sums: Any) -> None:
    """Add each pixel times its factor to the sum of its cell; ``sums`` has two rows, which neighbours take in turn."""
    even = image.size // 2 * 2
    for pixel in range(0, even, 2):
        sums[0, cells[pixel]] += image[pixel] * factor[pixel]
        sums[1, cells[pixel + 1]] += image[pixel + 1] * factor[pixel + 1]
    if even < image.size:
        sums[0, cells[even]] += image[even] * factor[even]


@njit(nogil=True, cache=True)
def spread_cells(sums: Any, start: Any, bins: Any, weights: Any, out: Any) -> None:
    """Add to each bin its share of each cell."""
    for cell in range(start.size - 1):
        value = sums[cell]
        for entry in range(start[cell], start[cell + 1]):
            out[bins[entry]] += weights[entry] * value


@njit(nogil=True, cache=True)
def count_labels(labels: Any, splits: Any, out: Any, marks: Any) -> None:
    """Sort the labels of each pixel's parts, and make a number of them.

    ``labels`` (rows·n, columns·n) → ``out`` (rows·columns, n²), rising; ``marks`` is equal for equal rows of it.
    """
    rows, columns = labels.shape[0] // splits, labels.shape[1] // splits
    for row in range(rows):
        for column in range(columns):
            pixel = row * columns + column
            size = 0
            for y in range(splits):
                for x in range(splits):
                    label = labels[row * splits + y, column * splits + x]
                    place = size
                    while place > 0 and out[pixel, place - 1] > label:
                        out[pixel, place] = out[pixel, place - 1]
                        place -= 1
                    out[pixel, place] = label
                    size += 1
            mark = np.uint64(14695981039346656037)
            for place in range(size):
                mark = (mark ^ np.uint64(out[pixel, place])) * np.uint64(1099511628211)
                mark ^= mark >> np.uint64(29)
            marks[pixel] = mark


@njit(nogil=True, cache=True)
def find_cells(
    parts: Any, marks: Any, valid: Any, table: Any, kinds: Any, kind_marks: Any, found: int, out: Any
) -> Any:
    """Write the number of each valid pixel's kind into ``out``, and keep kinds that are new.

    ``table`` (a power of two) has the numbers of kinds where their marks send them, -1 elsewhere; ``kinds`` and
    ``kind_marks`` have room for more than ``found``. Returns how many kinds there are now, and the first pixel for
    which there was no room: call again from there with more.
    """
    last = np.uint64(table.size - 1)
    for pixel in range(marks.size):
        if not valid[pixel]:
            continue
        place = marks[pixel] & last
        while True:
            kind = table[place]
            if kind < 0:
                if found == kind_marks.size:
                    return found, pixel
                kind = found
                table[place] = kind
                kinds[kind] = parts[pixel]
                kind_marks[kind] = marks[pixel]
                found += 1
                break
            if kind_marks[kind] == marks[pixel]:
                same = True
                for part in range(parts.shape[1]):
                    same = same and kinds[kind, part] == parts[pixel, part]
                if same:
                    break
            place = (place + np.uint64(1)) & last
        out[pixel] = kind
    return found, marks.size
