"""Image files as fabio reads them (TIFF, CBF, EDF …) as one acquisition: a file a frame, or one file of several."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sisockdaq.errors import FileUnreadable
from sisockdaq.reprocessing.recorded import Recorded, RecordedFrame, default_fill
from sisockdaq.sources.files import read_image

__all__ = ["ImageFiles"]


class ImageFiles(Recorded):
    """Images by the numbers of their files; the first number is index 0. A frame's time is its file's.

    Parameters
    ----------
    name : str
    paths : mapping of int → Path
        Of one kind. A single file may hold several images.
    """

    def __init__(self, name: str, paths: Mapping[int, Path]) -> None:
        numbers = sorted(paths)
        first, count = _read(paths[numbers[0]])
        self.name, self.path = name, paths[numbers[0]]
        self._paths, self._first = dict(paths), numbers[0]
        self._several = count if count > 1 and len(numbers) == 1 else 0
        if count > 1 and not self._several:
            raise FileUnreadable(
                f"{self.path}: has {count} images, and there are {len(numbers)} files of its name",
                remedy="integrate files of several images one by one",
            )
        self.files = tuple(paths[number].name for number in numbers)
        self.shape = (first.shape[0], first.shape[1])
        self.dtype = first.dtype.newbyteorder("=")
        self.fill_value = default_fill(self.dtype)
        self._found = [*range(self._several)] if self._several else [number - self._first for number in numbers]
        self.total = self._found[-1] + 1

    def _find(self) -> npt.NDArray[np.int64]:
        return np.array(self._found, np.int64)

    def frame(self, index: int) -> RecordedFrame:
        """Note where an image is; `RecordedFrame.load` reads the file."""
        number = self._first + (0 if self._several else index)
        path = self._paths[number]
        try:
            time = path.stat().st_mtime
        except OSError as error:
            raise FileUnreadable(f"{path}: {error.strerror}") from None
        if self._several:
            return RecordedFrame(index, time, index, partial(_read_one, path, index))
        return RecordedFrame(index, time, number, lambda: _read(path)[0])

    def close(self) -> None:
        """Nothing stays open."""


def _read(path: Path) -> tuple[npt.NDArray[Any], int]:
    """Return the first image of a file, and how many it has."""
    try:
        data, count = read_image(path)
    except OSError as error:
        raise FileUnreadable(f"{path}: is no image that can be read: {error.strerror or error}") from None
    if data.ndim != 2 or data.dtype.kind not in "uif" or not data.size:
        raise FileUnreadable(f"{path}: is no image but an array of shape {data.shape} and type {data.dtype}")
    return data, count


def _read_one(path: Path, index: int) -> npt.NDArray[Any]:
    import fabio

    try:
        with fabio.open(str(path)) as file:
            return np.array(file.get_frame(index).data)
    except Exception as error:  # fabio's readers raise whatever a broken file provokes
        raise FileUnreadable(f"{path}: image {index} cannot be read: {error}") from None
