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

__all__ = ["load_mask", "to_mask"]

_HDF5 = (".h5", ".hdf5", ".hdf", ".nxs")
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
    name, _, dataset = str(source).partition("::")
    path = Path(name)
    if not path.is_file():
        what = "is not a file" if path.exists() else "no such mask"
        raise MaskError(f"{path}: {what}", remedy="give its path relative to the site file, or leave the mask out")
    try:
        values = _read(path, dataset)
    except MaskError:
        raise
    except Exception as error:  # fabio, h5py and numpy each raise what they like on a broken file
        raise MaskError(
            f"{path}: cannot be read as a mask: {error}", remedy="one of edf, npy, tif, h5 or Fit2D msk"
        ) from error
    return to_mask(values, shape, origin=str(source))


def to_mask(
    values: npt.NDArray[Any], shape: tuple[int, int] | None = None, *, origin: str = "the mask"
) -> npt.NDArray[np.bool_]:
    """Make a mask of any array: True where it is not 0; raise `MaskError` for another shape than `shape`."""
    array = np.squeeze(np.asarray(values))
    if array.ndim != 2 or array.dtype.kind not in "biuf":
        raise MaskError(f"{origin}: is not an image but an array of shape {array.shape} and type {array.dtype}")
    if shape is not None and array.shape != tuple(shape):
        raise MaskError(
            f"{origin}: has {array.shape[0]} × {array.shape[1]} pixels (rows × columns), "
            f"the images have {shape[0]} × {shape[1]}",
            remedy="use the mask that was made for this detector",
        )
    return np.ascontiguousarray(array != 0)  # NaN != 0


def _read(path: Path, dataset: str) -> npt.NDArray[Any]:
    if path.suffix.lower() in _HDF5:
        return _read_hdf5(path, dataset)
    if path.suffix.lower() == ".npy":
        with path.open("rb") as file:
            return np.asarray(np.lib.format.read_array(file, allow_pickle=False))
    import fabio

    with fabio.open(str(path)) as image:
        return np.asarray(image.data)


def _read_hdf5(path: Path, dataset: str) -> npt.NDArray[Any]:
    import h5py

    with h5py.File(path, "r") as file:
        if not dataset:
            dataset = _only_image(file, path)
        if dataset not in file or not isinstance(file[dataset], h5py.Dataset):
            raise MaskError(f"{path}: has no dataset {dataset}", remedy=f"choose from {', '.join(_images(file))}")
        return np.asarray(file[dataset][()])


def _only_image(file: Any, path: Path) -> str:
    if _NXMX_MASK in file:
        return _NXMX_MASK
    found = _images(file)
    if len(found) == 1:
        return found[0]
    choice = f"one of {', '.join(found)}" if found else "it has no two-dimensional dataset at all"
    raise MaskError(f"{path}: does not tell which dataset is the mask", remedy=f"write {path.name}::NAME; {choice}")


def _images(file: Any) -> list[str]:
    found: list[str] = []

    def visit(name: str, item: Any) -> None:
        if getattr(item, "ndim", 0) == 2:
            found.append(f"/{name}")

    file.visititems(visit)
    return found
