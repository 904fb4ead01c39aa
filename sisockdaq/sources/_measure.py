"""Sum and maximum of an image, compiled: what the live series show of every frame."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

__all__ = ["measure", "warm_up"]


def measure(pixels: npt.NDArray[Any], fill: float) -> tuple[float, float]:
    """Return sum and maximum over the pixels that are not `fill` (nor NaN); 0 and 0 where there are none."""
    flat = pixels.reshape(-1)
    total, highest, counted = _measure(flat, flat.dtype.type(fill))
    return (float(total), float(highest)) if counted else (0.0, 0.0)


def warm_up(dtype: np.dtype[Any] | None = None) -> None:
    """Compile for a dtype (default: the usual ones), or load it: not to be left to the first image."""
    for kind in [dtype] if dtype is not None else map(np.dtype, ("u1", "u2", "u4", "i4", "f4")):
        measure(np.zeros(1, kind), 0)


@njit(nogil=True, cache=True)
def _measure(flat: npt.NDArray[Any], fill: Any) -> tuple[float, Any, int]:
    total, counted, highest = 0.0, 0, flat[0]
    for value in flat:
        if value == fill or value != value:  # only NaN is not itself
            continue
        highest = value if counted == 0 or value > highest else highest
        total += value
        counted += 1
    return total, highest, counted
