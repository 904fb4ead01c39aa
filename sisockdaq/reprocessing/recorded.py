"""Recorded frames in order, whatever holds them: masters of NXmx, data files, or series of image files. No network.

`open_recorded` sorts files into acquisitions; each says what it holds, and gives out its frames one by one. Taking a
frame out only reads what is on the disk; `RecordedFrame.load` unpacks it, in any thread.

Promises
--------
- A frame's index is its place in the acquisition, whatever was lost before it; frames that are not there are told by
  `Recorded.missing`, never given out as empty images.
- What marks pixels without meaning (`Recorded.fill_value`) and the file's own pixel mask are those that live frames
  would have had.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from sisockdaq.errors import ConfigurationError, FileUnreadable

__all__ = ["Recorded", "RecordedFrame", "default_fill", "open_recorded", "ranges"]

_HDF5 = b"\x89HDF\r\n\x1a\n"
_NUMBERED = re.compile(r"^(?P<series>.*?)(?P<number>\d{1,18})(?P<suffix>(\.\D[^.]*)+)$")
"""As a folder of images is watched: the last digits of a name are the file's number."""


@dataclass(frozen=True, slots=True)
class RecordedFrame:
    """One frame, still packed.

    Attributes
    ----------
    index : int
        Its place in the acquisition, from 0.
    time : float
        UNIX time [s]; NaN where nobody wrote it down.
    number : int
        The detector's number, or the file's; -1 where there is none.
    load : callable
        Returns the image, (rows, columns); raises `FileUnreadable`, OSError or ValueError for a broken one.
    """

    index: int
    time: float
    number: int
    load: Callable[[], npt.NDArray[Any]]


class Recorded(ABC):
    """The frames of one acquisition; ``with`` closes it. For one thread, but for `RecordedFrame.load`.

    Attributes
    ----------
    name : str
        Of the acquisition, fit for the beginning of a file's name.
    path : Path
        Its master, its only file, or the first of its images.
    files : tuple of str
        Names of the files that were opened.
    shape : (rows, columns)
    dtype : numpy.dtype
    fill_value : float
        What pixels without meaning have.
    mask : ndarray of bool, `shape`, or None
        True where the file says that a pixel is not to be used.
    start, total : int
        The frames that should be there are those from `start` up to, and not including, `total`.
    about : dict of str
        What the file says of sample, instrument and laboratory, under the names of `nexus.reduced.Reduction`.
    epochs : mapping of str to list of mapping
        What the epochs of live results mean, by their source, where the file says it (`sisockdaq.nexus.epochs`).
    note : str
        What a person should know, as that the file still grows; usually empty.
    """

    name: str
    path: Path
    files: tuple[str, ...]
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    fill_value: float
    mask: npt.NDArray[np.bool_] | None = None
    start: int = 0
    total: int
    about: Mapping[str, str] = MappingProxyType({})
    epochs: Mapping[str, Sequence[Mapping[str, Any]]] = MappingProxyType({})
    note: str = ""

    @cached_property
    def present(self) -> npt.NDArray[np.int64]:
        """Indices of the frames that are there, in order; looked for when it is first asked."""
        return self._find()

    @abstractmethod
    def _find(self) -> npt.NDArray[np.int64]: ...

    @abstractmethod
    def frame(self, index: int) -> RecordedFrame:
        """Read a frame that is present; raise `FileUnreadable` where it cannot be."""

    @abstractmethod
    def close(self) -> None:
        """Close all files."""

    def series(self, name: str) -> dict[str, npt.NDArray[np.float64]]:
        """Return a number that was recorded with each frame, by its sources: (`total`,), NaN where there is none."""
        return {}

    def wanted(self, frames: slice = slice(None)) -> npt.NDArray[np.int64]:
        """Return the indices of the frames that are there within a slice of the acquisition."""
        if (frames.step or 1) <= 0:
            raise ConfigurationError("frames are taken in order", remedy="write FIRST:LAST, or FIRST:LAST:STEP")
        first, last, step = frames.indices(self.total)
        inside = (self.present >= first) & (self.present < last) & ((self.present - first) % step == 0)
        chosen: npt.NDArray[np.int64] = self.present[inside]
        return chosen

    def missing(self, frames: slice = slice(None)) -> list[tuple[int, int]]:
        """Return the runs (first, last) of frames between a slice's ends that are not there."""
        first, last, _ = frames.indices(self.total)
        first = max(first, self.start)
        last = max(last, first)
        here = self.present[(self.present >= first) & (self.present < last)]
        edges = np.concatenate([[first - 1], here, [last]])
        gaps = np.flatnonzero(np.diff(edges) > 1)
        return [(int(edges[gap]) + 1, int(edges[gap + 1]) - 1) for gap in gaps]

    def __enter__(self) -> Recorded:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def ranges(runs: Iterable[tuple[int, int]]) -> str:
    """Write runs of frames for a person: ``3, 7-9``."""
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def default_fill(dtype: np.dtype[Any]) -> float:
    """Return what marks a pixel without meaning where nobody says: as for live frames of the same type."""
    if dtype.kind == "f":
        return float("nan")
    return int(np.iinfo(dtype).max if dtype.kind == "u" else np.iinfo(dtype).min)


def open_recorded(paths: Sequence[Path]) -> Iterator[Callable[[], Recorded]]:
    """Sort files into acquisitions; each is opened when it is called for.

    An HDF5 file is one; other images whose names differ in their last digits only are one together, in the order of
    these numbers.

    Raises
    ------
    FileUnreadable
        For a file that is missing, or of no known kind; also when an acquisition is opened.
    """
    from functools import partial

    from sisockdaq.reprocessing._hdf5 import Hdf5Images
    from sisockdaq.reprocessing._image_files import ImageFiles

    series: dict[tuple[str, str], dict[int, Path]] = {}
    opening: list[Callable[[], Recorded]] = []
    for path in paths:
        if _is_hdf5(path):
            opening.append(partial(Hdf5Images, path))
            continue
        parts = _NUMBERED.match(path.name)
        if parts is None:
            opening.append(partial(ImageFiles, path.name.partition(".")[0], {0: path}))
            continue
        key = str(path.parent / parts["series"]), parts["suffix"]
        if key not in series:
            series[key] = {}
            name = parts["series"].rstrip("_-. ") or path.name.partition(".")[0]
            opening.append(partial(ImageFiles, name, series[key]))
        series[key][int(parts["number"])] = path
    yield from opening


def _is_hdf5(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(8) == _HDF5
    except IsADirectoryError:
        raise FileUnreadable(f"{path}: is a folder", remedy=f"name the files: {path}/*_master.h5") from None
    except FileNotFoundError:
        raise FileUnreadable(f"{path}: no such file") from None
    except OSError as error:
        raise FileUnreadable(f"{path}: cannot be read: {error.strerror or error}") from None
