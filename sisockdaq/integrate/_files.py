"""Arrays from image files, for masks and corrections: edf, cbf, tif and all else that fabio reads, npy, and HDF5.

In an HDF5 file the array is the dataset named after ``::`` (``dark.h5::/entry/data``); without a name, the first of
the caller's preferred ones, else the file's only image.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sisockdaq.errors import SisockdaqError

__all__ = ["HDF5", "read_values"]

HDF5 = (".h5", ".hdf5", ".hdf", ".nxs")


def read_values(
    source: Path | str,
    what: str,
    error: type[SisockdaqError],
    *,
    preferred: Sequence[str] = (),
    kinds: str,
    stacks: bool = False,
) -> npt.NDArray[Any]:
    """Read an image; whatever goes wrong becomes an `error` that names the file.

    Parameters
    ----------
    source : path
        The file; of an HDF5 file also ``path::dataset``.
    what : str
        What the file is to be (``mask``), for messages.
    preferred : sequence of str
        HDF5 datasets to take where none is named.
    kinds : str
        Kinds of files to recommend, for messages.
    stacks : bool
        Whether several frames are welcome: an HDF5 dataset (or npy) of three dimensions is averaged over the first.
    """
    name, _, dataset = str(source).partition("::")
    path = Path(name)
    if not path.is_file():
        problem = "is not a file" if path.exists() else f"no such {what}"
        raise error(f"{path}: {problem}", remedy=f"give its path relative to the site file, or leave the {what} out")
    try:
        if path.suffix.lower() in HDF5:
            return _read_hdf5(path, dataset, what, error, preferred, stacks)
        values = _read_plain(path)
    except SisockdaqError:
        raise
    except Exception as problem:  # fabio, h5py and numpy each raise what they like on a broken file
        raise error(f"{path}: cannot be read as a {what}: {problem}", remedy=f"one of {kinds}") from problem
    return values.mean(0, dtype=np.float64) if stacks and values.ndim == 3 and values.dtype.kind in "biuf" else values


def _read_plain(path: Path) -> npt.NDArray[Any]:
    if path.suffix.lower() == ".npy":
        with path.open("rb") as file:
            return np.asarray(np.lib.format.read_array(file, allow_pickle=False))
    import fabio

    with fabio.open(str(path)) as image:
        return np.asarray(image.data)


def _read_hdf5(
    path: Path, dataset: str, what: str, error: type[SisockdaqError], preferred: Sequence[str], stacks: bool
) -> npt.NDArray[Any]:
    import h5py

    with h5py.File(path, "r") as file:
        if not dataset:
            dataset = _choose(file, path, what, error, preferred, stacks)
        if dataset not in file or not isinstance(file[dataset], h5py.Dataset):
            choice = ", ".join(_images(file, stacks))
            raise error(f"{path}: has no dataset {dataset}", remedy=f"choose from {choice}")
        found = file[dataset]
        if stacks and found.ndim == 3 and found.shape[0] and found.dtype.kind in "biuf":
            return _average(found)
        return np.asarray(found[()])


def _average(dataset: Any) -> npt.NDArray[np.float64]:
    """Average the frames of a dataset, one in memory at a time."""
    total = np.zeros(dataset.shape[1:])
    for frame in range(dataset.shape[0]):
        total += dataset[frame]
    return np.asarray(total / dataset.shape[0])


def _choose(
    file: Any, path: Path, what: str, error: type[SisockdaqError], preferred: Sequence[str], stacks: bool
) -> str:
    for name in preferred:
        if name in file:
            return name
    found = _images(file, stacks)
    if len(found) == 1:
        return found[0]
    none = "it has no image at all" if stacks else "it has no two-dimensional dataset at all"
    choice = f"one of {', '.join(found)}" if found else none
    raise error(f"{path}: does not tell which dataset is the {what}", remedy=f"write {path.name}::NAME; {choice}")


def _images(file: Any, stacks: bool) -> list[str]:
    found: list[str] = []

    def visit(name: str, item: Any) -> None:
        if getattr(item, "ndim", 0) in ((2, 3) if stacks else (2,)):
            found.append(f"/{name}")

    file.visititems(visit)
    return found
