"""What is compiled of the integration: sums of cells, and what they are to the bins; in one file, for numba's cache."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

__all__ = ["add_cells", "add_weighted_cells", "count_labels", "spread_cells"]


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
