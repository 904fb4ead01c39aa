"""Images for people and programs: PNG and JPEG scaled to grey, npy and JSON with the very numbers. Pure."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as Picture

__all__ = ["CONTENT_TYPES", "encode", "grey"]

CONTENT_TYPES = {"png": "image/png", "jpeg": "image/jpeg", "npy": "application/x-npy"}

BRIGHTEST = 99.9
"""Percentile of the pixels that is shown white: a few hot ones must not make all others black."""

_SAMPLE = 250_000
"""Pixels that the percentile is taken from, about."""


def grey(pixels: npt.NDArray[Any], fill: float | None = None) -> npt.NDArray[np.uint8]:
    """Return an image scaled to 0–255; `fill`, the value of lost pixels, becomes black.

    Parameters
    ----------
    pixels : ndarray, (ny, nx)
    fill : float, optional
    """
    values = np.asarray(pixels, np.float32)
    known = np.isfinite(values)
    if fill is not None:
        known &= pixels != fill
    seen = values[known]
    if not seen.size:
        return np.zeros(values.shape, np.uint8)
    low = float(seen.min())
    high = float(np.percentile(seen[:: max(1, seen.size // _SAMPLE)], BRIGHTEST))
    if high <= low:
        high = max(float(seen.max()), low + 1.0)
    scaled = np.clip((np.where(known, values, low) - low) * (255.0 / (high - low)), 0, 255)
    return np.asarray(scaled, np.uint8)


def encode(pixels: npt.NDArray[Any], form: str, fill: float | None = None) -> bytes:
    """Return an image as ``png`` or ``jpeg`` (scaled by `grey`) or as ``npy`` (the numbers)."""
    target = io.BytesIO()
    if form == "npy":
        np.save(target, np.ascontiguousarray(pixels), allow_pickle=False)
    else:
        picture = Picture.fromarray(grey(pixels, fill))
        picture.save(target, format=form.upper(), **({"quality": 80} if form == "jpeg" else {"compress_level": 1}))
    return target.getvalue()
