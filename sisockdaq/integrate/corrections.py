"""What is done to pixels before they count: dark, flat and absorption images, and values that mark unusable pixels.

pyFAI's rules (``preproc``): signal = raw − dark; normalization = flat · absorption · solid angle · polarization ·
monitor; Poisson variance = max(1, raw), whatever the dark. A pixel whose flat or absorption is 0, NaN or the dummy
value, or whose dark is NaN, is not used at all. As in pyFAI the images are float32.

None of it costs a pass over the frame: the dark is summed by bin once, and subtracted from the bins; flat and
absorption are part of the map's normalization.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sisockdaq.errors import ConfigurationError
from sisockdaq.integrate._files import read_values

__all__ = ["Corrections", "ImageSource", "load_corrections", "load_image", "mark_unusable", "to_image"]

ImageSource = Path | str | npt.NDArray[Any]
"""An image, or a file that holds one (or several, which are averaged)."""

_PREFERRED = {
    "flat": ("entry/instrument/detector/flatfield",),
    "dark": ("entry/data/data",),
    "background": ("entry/data/data",),
}


@dataclass(frozen=True, slots=True)
class Corrections:
    """The images, made ready.

    Attributes
    ----------
    weight : ndarray of float32, (pixels,) or None
        Flat × absorption; 0 where a pixel is not to be used. None where all are 1.
    dark : ndarray of float32, (pixels,) or None
        To be subtracted; 0 where a pixel is not to be used.
    whole : bool
        Whether the dark has whole numbers only, so that integer sums can stay integers.
    """

    weight: npt.NDArray[np.float32] | None = None
    dark: npt.NDArray[np.float32] | None = None
    whole: bool = True


def load_corrections(
    shape: tuple[int, int],
    *,
    dark: ImageSource | None = None,
    flat: ImageSource | None = None,
    absorption: ImageSource | None = None,
    background: npt.NDArray[np.float32] | None = None,
    dummy: float | None = None,
    delta_dummy: float | None = None,
) -> Corrections:
    """Read and combine correction images.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns of the images.
    dark, flat, absorption : path or array, optional
    background : ndarray of float32, `shape`, optional
        Already scaled; subtracted together with the dark.
    dummy, delta_dummy : float, optional
        Flat pixels of this value are not used.

    Raises
    ------
    ConfigurationError
        For what cannot be read, has another shape, or leaves no pixel.
    """
    used = np.ones(shape, np.bool_)
    weight: npt.NDArray[np.float32] | None = None
    for what, source in (("flat", flat), ("absorption", absorption)):
        if source is None:
            continue
        values = load_image(source, shape, what)
        used &= np.isfinite(values) & (values != 0)
        if what == "flat" and dummy is not None:
            used &= ~(np.abs(values - np.float32(dummy)) <= np.float32(delta_dummy or 0.0))
        weight = values if weight is None else weight * values
        if not used.any():
            raise ConfigurationError(
                f"the {what} leaves no pixel: all are 0, NaN or the dummy value", remedy=f"is it the {what} image?"
            )
    subtracted: npt.NDArray[np.float32] | None = None
    for what, image in (("dark", dark), ("background", background)):
        if image is None:
            continue
        values = load_image(image, shape, what)
        used &= np.isfinite(values)
        subtracted = values if subtracted is None else subtracted + values
        if not used.any():
            raise ConfigurationError(f"the {what} leaves no pixel: all are NaN", remedy=f"is it the {what} image?")
    if weight is None and not used.all():
        weight = np.ones(shape, np.float32)
    if weight is not None:
        weight = np.where(used, weight, np.float32(0)).ravel()
    if subtracted is None:
        return Corrections(weight)
    subtracted = np.where(used, subtracted, np.float32(0)).ravel()
    return Corrections(weight, subtracted, bool((subtracted == np.rint(subtracted)).all()))


def load_image(source: ImageSource, shape: tuple[int, int] | None, what: str) -> npt.NDArray[np.float32]:
    """Read a correction image (`what`: for messages); several frames are averaged."""
    if isinstance(source, str | Path):
        values = read_values(
            source,
            f"{what} image",
            ConfigurationError,
            preferred=_PREFERRED.get(what, ()),
            kinds="edf, npy, tif, cbf or h5",
            stacks=True,
        )
        return to_image(values, shape, origin=str(source))
    return to_image(source, shape, origin=f"the {what} image")


def to_image(values: npt.ArrayLike, shape: tuple[int, int] | None, *, origin: str) -> npt.NDArray[np.float32]:
    """Make a float32 image of any array of numbers; a stack of frames is averaged."""
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise ConfigurationError(f"{origin}: is not an image but an array of type {array.dtype}")
    if array.ndim == 3 and array.shape[0]:
        array = array.mean(0, dtype=np.float64)
    if array.ndim != 2:
        raise ConfigurationError(f"{origin}: is not an image but an array of shape {array.shape}")
    if shape is not None and array.shape != tuple(shape):
        raise ConfigurationError(
            f"{origin}: has {array.shape[0]} × {array.shape[1]} pixels (rows × columns), "
            f"the images have {shape[0]} × {shape[1]}",
            remedy="use the one that was taken with this detector",
        )
    return np.ascontiguousarray(array, np.float32)


def mark_unusable(
    image: npt.NDArray[Any], dummy: float | None, delta_dummy: float | None
) -> tuple[npt.NDArray[Any], float | None]:
    """Return an image, and the one value that marks its unusable pixels: those within `delta_dummy` of `dummy`.

    The image itself is returned where one value is enough, which costs nothing; else a copy in which all of them have
    the same.
    """
    if dummy is None or not delta_dummy or image.dtype.kind not in "iuf":
        return image, dummy
    low, high = dummy - delta_dummy, dummy + delta_dummy
    if image.dtype.kind == "f":
        scalar = image.dtype.type
        near = np.abs(image - scalar(dummy)) <= scalar(delta_dummy)
        return np.where(near, scalar(dummy), image), dummy
    limits = np.iinfo(image.dtype)
    first, last = max(math.ceil(low), limits.min), min(math.floor(high), limits.max)
    if last < first:
        return image, None
    if last == first:
        return image, float(first)
    # One comparison: what is below `first` wraps around to large numbers.
    unsigned = np.dtype(f"u{image.dtype.itemsize}")
    native = np.ascontiguousarray(image, image.dtype.newbyteorder("="))
    shifted = native.view(unsigned) - np.array(first).astype(native.dtype).view(unsigned)
    return np.where(shifted <= unsigned.type(last - first), native.dtype.type(first), native), first
