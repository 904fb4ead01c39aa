"""The median of each ring, or the mean of its pixels between two quantiles, as pyFAI's ``medfilt1d_ng`` defines them.

A ring's pixels are put in the order of their values (signal / weight), and their weights (share · weight) are added up
in that order. The median is the pixel in which half of the whole weight is reached (two, where a sum is exactly half);
between two quantiles lie the pixels whose weight begins and ends between them. What is chosen is summed up as in any
integration, so its quotient is an intensity, and its errors are those of Poisson statistics.

As pyFAI's CSR engine this works in float32, sums in float64. Two differences are on purpose: unusable pixels are left
out (pyFAI sorts them among the others as values that are not numbers, which leaves the ring in no order), and rings
without a pixel are NaN. Pixels of exactly the same value stand in image order here and in no certain order there: where
they have different weights, or a quantile falls among them, the sums may differ by one such pixel.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from sisockdaq.errors import ConfigurationError
from sisockdaq.integrate import _median
from sisockdaq.integrate.clip import RingSums
from sisockdaq.integrate.kernels import Frame
from sisockdaq.integrate.rings import Block, Rings, Room

__all__ = ["median"]


def median(rings: Rings, frame: Frame, *, quantiles: float | tuple[float, float] = 0.5, threads: int = 1) -> RingSums:
    """Sum up the pixels of each ring at a quantile or between two.

    Parameters
    ----------
    frame : Frame
        From `kernels.prepare`.
    quantiles : float or (float, float)
        From 0 to 1; 0.5 is the median.
    threads : int
        How many work on the frame; the result does not depend on it.

    Raises
    ------
    ConfigurationError
        For a quantile below 0 or above 1.
    """
    low, high = _ends(quantiles)
    out: npt.NDArray[np.float64] = np.zeros((rings.bins, 6))

    def work(block: Block, room: Room) -> None:
        part = slice(block.begin, block.end)
        _median.take_quantiles(
            room.values[: block.end - block.begin],
            rings.start[block.first : block.stop + 1] - block.begin,
            rings.weight[part],
            rings.share[part] if rings.share.size else rings.share,
            rings.dark[part] if rings.dark.size else rings.dark,
            low,
            high,
            room.keys,
            room.other,
            room.place,
            room.place.view(np.uint32),
            out[block.first : block.stop],
        )

    rings.each_block(frame, work, threads)
    return RingSums(*out.T)


def _ends(quantiles: float | tuple[float, float]) -> tuple[float, float]:
    try:
        given = [float(each) for each in np.atleast_1d(np.asarray(quantiles, np.float64))]
    except (TypeError, ValueError):
        given = []
    low, high = (min(given), max(given)) if 1 <= len(given) <= 2 else (math.nan, math.nan)
    if not 0 <= low <= high <= 1:
        raise ConfigurationError(
            f"quantiles is {quantiles!r}", remedy="one or two numbers from 0 to 1; 0.5 is the median"
        )
    return low, high
