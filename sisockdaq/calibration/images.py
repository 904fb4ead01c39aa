"""One image from a file, for checks: what fabio reads, npy, and HDF5 as ``file.h5::/path`` or a master of NXmx."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sisockdaq.errors import FileUnreadable

__all__ = ["gaps_of", "load_image", "own_mask"]

_HDF5 = b"\x89HDF\r\n\x1a\n"
_MASK = "entry/instrument/detector/pixel_mask"
_LEAST_GAPS = 1e-3
"""Share of the pixels below which marked ones are single bad pixels, not gaps of a detector."""

_USUAL = ("entry/data/data", "entry/data/data_000001", "entry/instrument/detector/data")


def load_image(source: Path | str, frame: int = 0) -> npt.NDArray[Any]:
    """Read an image.

    Parameters
    ----------
    source : path
        The file; of HDF5 also ``path::dataset``.
    frame : int
        Which of several, from 0.

    Returns
    -------
    ndarray, (rows, columns)

    Raises
    ------
    FileUnreadable
    """
    name, _, dataset = str(source).partition("::")
    path = Path(name)
    try:
        with path.open("rb") as file:
            head = file.read(8)
        if head == _HDF5:
            data = _from_hdf5(path, dataset, frame)
        elif path.suffix.lower() == ".npy":
            with path.open("rb") as file:
                data = np.lib.format.read_array(file, allow_pickle=False)
            data = data[frame] if data.ndim == 3 else data
        else:
            from sisockdaq.sources.files import read_image

            data, _ = read_image(path)
    except FileNotFoundError:
        raise FileUnreadable(f"{path}: no such image", remedy="give the path of an image") from None
    except FileUnreadable:
        raise
    except (OSError, ValueError, KeyError, IndexError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FileUnreadable(
            f"{path}: cannot be read as an image: {reason}", remedy="copy it again, or give another image"
        ) from None
    if data.ndim != 2 or data.dtype.kind not in "biuf" or not data.size:
        raise FileUnreadable(f"{source}: is not an image but an array of shape {data.shape} and type {data.dtype}")
    return data.astype(np.uint8) if data.dtype.kind == "b" else data


def _from_hdf5(path: Path, dataset: str, frame: int) -> npt.NDArray[Any]:
    import h5py

    with h5py.File(path, "r", locking=False) as file:
        names = [dataset] if dataset else [name for name in _USUAL if name in file]
        if not names or names[0] not in file:
            raise FileUnreadable(
                f"{path}: does not tell which dataset is the image", remedy=f"write {path.name}::/path/of/dataset"
            )
        item = file[names[0]]
        if not isinstance(item, h5py.Dataset) or item.ndim not in (2, 3):
            raise FileUnreadable(f"{path}::{names[0]}: is no image", remedy="name a dataset of two or three dimensions")
        if item.ndim == 2:
            return np.asarray(item[()])
        if not 0 <= frame < item.shape[0]:
            raise FileUnreadable(f"{path}: has {item.shape[0]} images, so no image {frame}", remedy="count from 0")
        return np.asarray(item[frame])


def own_mask(source: Path | str, shape: tuple[int, ...]) -> npt.NDArray[np.bool_] | None:
    """Return the pixel mask that an NXmx file has for its images; True where a pixel is not to be used."""
    path = Path(str(source).partition("::")[0])
    with path.open("rb") as file:
        if file.read(8) != _HDF5:
            return None
    import h5py

    with h5py.File(path, "r", locking=False) as opened:
        mask = opened.get(_MASK)
        if mask is None or mask.shape[-2:] != tuple(shape):
            return None
        values: npt.NDArray[np.bool_] = np.asarray(mask[()]).reshape(-1, *shape)[0] != 0
    return values


def gaps_of(image: npt.NDArray[Any]) -> npt.NDArray[np.bool_] | None:
    """Return the pixels that an image marks as holding nothing; None where they are too few for a detector's gaps."""
    from sisockdaq.calibration._profiles import usable

    gaps: npt.NDArray[np.bool_] = ~usable(image, None)
    return gaps if gaps.mean() > _LEAST_GAPS else None
