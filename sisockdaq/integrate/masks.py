"""Masks from files: edf, npy, tif, h5 and Fit2D's msk; any pixel that is not 0 (or is NaN) is not to be used.

In an HDF5 file the mask is the dataset named after ``::`` (``mask.h5::/entry/mask``); without a name, the NXmx
``pixel_mask``, else the file's only two-dimensional dataset.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sisockdaq.errors import MaskError
from sisockdaq.integrate._files import read_values

__all__ = ["join_masks", "load_mask", "to_mask"]

_NXMX_MASK = "entry/instrument/detector/pixel_mask"


def load_mask(source: Path | str, shape: tuple[int, int] | None = None) -> npt.NDArray[np.bool_]:
    """Read a mask; True where a pixel is not to be used.

    Parameters
    ----------
    source : path
        The file; of an HDF5 file also ``path::dataset``.
    shape : tuple of int, optional
        Rows and columns that it must have.

    Raises
    ------
    MaskError
        When the file is missing, is of no known kind, or of another shape.
    """
    values = read_values(source, "mask", MaskError, preferred=(_NXMX_MASK,), kinds="edf, npy, tif, h5 or Fit2D msk")
    return to_mask(values, shape, origin=str(source))


def to_mask(
    values: npt.NDArray[Any], shape: tuple[int, int] | None = None, *, origin: str = "the mask"
) -> npt.NDArray[np.bool_]:
    """Make a mask of any array: True where it is not 0; raise `MaskError` for another shape than `shape`."""
    array = np.asarray(values)
    while array.ndim > 2 and array.shape[0] == 1:
        array = array[0]  # one frame of a stack; a detector of one row keeps it
    if array.ndim != 2 or array.dtype.kind not in "biuf":
        raise MaskError(f"{origin}: is not an image but an array of shape {array.shape} and type {array.dtype}")
    if shape is not None and array.shape != tuple(shape):
        raise MaskError(
            f"{origin}: has {array.shape[0]} × {array.shape[1]} pixels (rows × columns), "
            f"the images have {shape[0]} × {shape[1]}",
            remedy="use the mask that was made for this detector",
        )
    return np.ascontiguousarray(array != 0)  # NaN != 0


def join_masks(*masks: npt.NDArray[np.bool_] | None) -> npt.NDArray[np.bool_] | None:
    """Hide what any of the masks hides; None where there are none."""
    given = [mask for mask in masks if mask is not None]
    return np.logical_or.reduce(given) if given else None
