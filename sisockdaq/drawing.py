"""Curves, series and images drawn in the terminal with characters.

Curves use braille dots, two by four in each character cell; images use shades. Pure: numbers in, lines of text out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["curve", "image", "scaled", "spans_decades"]

_DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
"""Bits of a braille character by row and column (Unicode 2800 … 28FF)."""

_SHADES = " .:-=+*#%@"

_LABEL = 10
"""Characters for a number beside the drawing."""


_DECADES = 100.0
"""A maximum this much above the median leaves nothing to see of the rest on a linear scale."""


def spans_decades(values: npt.NDArray[Any]) -> bool:
    """Whether a logarithmic scale shows more of these values, as of most scattering curves and images."""
    positive = values[np.isfinite(values) & (values > 0)]
    return bool(positive.size and positive.max() > _DECADES * np.median(positive))


def scaled(values: npt.NDArray[Any], *, log: bool) -> npt.NDArray[np.float64]:
    """Return values as they are drawn: logarithms where asked for, NaN where there is none."""
    numbers = values.astype(np.float64)
    if not log:
        return np.where(np.isfinite(numbers), numbers, np.nan)
    return np.log10(np.where(np.isfinite(numbers) & (numbers > 0), numbers, np.nan))


def curve(
    x: npt.NDArray[Any], y: npt.NDArray[Any], *, width: int = 80, height: int = 20, log: bool = False, label: str = ""
) -> list[str]:
    """Draw y over x.

    Each column of dots goes from the smallest to the largest value that falls in it, so that no spike is lost.

    Parameters
    ----------
    x, y : ndarray, (n,)
    width, height : int
        Of the whole, in characters.
    log : bool
        Whether y is drawn as its logarithm; values that have none are left out.
    label : str
        Shown below, between the ends of x.
    """
    columns, rows = max(width - _LABEL - 1, 8), max(height - 1, 3)
    heights = scaled(y, log=log)
    good = np.isfinite(heights) & np.isfinite(x)
    if not good.any():
        return ["nothing to draw: no finite values"]
    x, heights = np.asarray(x, np.float64)[good], heights[good]
    low, high = float(heights.min()), float(heights.max())
    dots = np.zeros((4 * rows, 2 * columns), np.bool_)
    across = _places(x, float(x.min()), float(x.max()), dots.shape[1])
    up = _places(heights, low, high if high > low else low + 1, dots.shape[0])
    order = np.lexsort((x,))
    _connect(dots, across[order], up[order])
    lines = ["".join(chr(c) for c in line) for line in _braille(dots[::-1])]
    tick = {0: high, len(lines) - 1: low}
    shown = [f"{_number(tick[i], log):>{_LABEL}} {line}" if i in tick else f"{'':>{_LABEL}} {line}"
             for i, line in enumerate(lines)]  # fmt: skip
    left, right = _short(float(x.min())), _short(float(x.max()))
    gap = max(columns - len(left) - len(right), 1)
    return [*shown, f"{'':>{_LABEL}} {left}{label:^{gap}}{right}"]


def image(pixels: npt.NDArray[Any], *, width: int = 80, height: int = 40, log: bool = False) -> list[str]:
    """Draw an image: each character the largest pixel below it, so that a single bright one is seen."""
    brightness = scaled(pixels, log=log)
    if not np.isfinite(brightness).any():
        return ["nothing to draw: no finite pixels"]
    # A character is about twice as high as wide.
    step = max(brightness.shape[1] / width, brightness.shape[0] / (2 * height), 1.0)
    columns = max(int(brightness.shape[1] / step), 1)
    rows = max(int(brightness.shape[0] / (2 * step)), 1)
    filled = np.where(np.isnan(brightness), -np.inf, brightness)
    tops = np.linspace(0, brightness.shape[0], rows, endpoint=False).astype(np.intp)
    lefts = np.linspace(0, brightness.shape[1], columns, endpoint=False).astype(np.intp)
    small = np.maximum.reduceat(np.maximum.reduceat(filled, tops, axis=0), lefts, axis=1)
    finite = small[np.isfinite(small)]
    # A hot pixel must not make the rest dark.
    low, high = float(finite.min()), float(np.percentile(finite, 99.5))
    span = high - low if high > low else 1.0
    level = np.clip(np.nan_to_num((small - low) / span, neginf=0.0) * (len(_SHADES) - 1), 0, len(_SHADES) - 1)
    return ["".join(_SHADES[int(i)] for i in line) for line in level]


def _places(values: npt.NDArray[np.float64], low: float, high: float, n: int) -> npt.NDArray[np.intp]:
    span = high - low if high > low else 1.0
    return np.clip(((values - low) / span * (n - 1)).round(), 0, n - 1).astype(np.intp)


def _connect(dots: npt.NDArray[np.bool_], across: npt.NDArray[np.intp], up: npt.NDArray[np.intp]) -> None:
    """Set the dots of a line through the points."""
    for column in np.unique(across):
        inside = up[across == column]
        dots[inside.min() : inside.max() + 1, column] = True
    for i in np.flatnonzero(np.diff(across) > 0):
        a, b = int(across[i]), int(across[i + 1])
        n = max(b - a, abs(int(up[i + 1]) - int(up[i]))) + 1
        dots[np.linspace(up[i], up[i + 1], n).round().astype(np.intp), np.linspace(a, b, n).round().astype(np.intp)] = 1


def _braille(dots: npt.NDArray[np.bool_]) -> Sequence[Sequence[int]]:
    rows, columns = dots.shape[0] // 4, dots.shape[1] // 2
    cells = dots.reshape(rows, 4, columns, 2)
    codes = 0x2800 + np.einsum("rycx,yx->rc", cells.astype(np.int64), _DOTS)
    return [[int(code) for code in line] for line in codes]


def _number(value: float, log: bool) -> str:
    return _short(10**value if log else value)


def _short(value: float) -> str:
    text = f"{value:.4g}"
    return text if len(text) <= _LABEL else f"{value:.2g}"
