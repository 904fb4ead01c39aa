"""Opening HDF5 files that others may be writing, and keeping a bounded number of them open."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

import h5py

from sisockdaq.errors import FileUnreadable

__all__ = ["ReaderPool", "open_hdf5", "patiently", "reading", "unreadable"]

_ATTEMPTS, _PAUSE = 5, 0.005
"""A reader that meets a commit half-way tries again: so often, and after the first failure so long [s], doubled each
time; a commit takes a few ms."""


_Found = TypeVar("_Found")


def unreadable(path: Path, error: Exception) -> FileUnreadable:
    """Say in a person's words why a file cannot be read."""
    if isinstance(error, FileNotFoundError):
        return FileUnreadable(f"{path} does not exist")
    if isinstance(error, PermissionError):
        return FileUnreadable(f"{path} may not be read", remedy="change its mode, or ask its owner")
    return FileUnreadable(f"{path} is broken or no HDF5 file: {error}")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what HDF5 says of a broken file into `FileUnreadable`."""
    try:
        yield
    except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:  # h5py raises all of these
        raise unreadable(path, error) from error


def open_hdf5(path: Path) -> h5py.File:
    """Open without a lock; with one only where the same process has the file open like that (HDF5 wants them alike)."""
    try:
        return h5py.File(path, "r", locking=False)
    except OSError as error:
        if "locking" not in str(error):
            raise
        return h5py.File(path, "r")


def patiently(path: Path, read: Callable[[], _Found]) -> _Found:
    """Return what `read` finds in a file that it opens; tried again where its writer may be in the middle of a commit.

    Raises
    ------
    FileUnreadable
        When the file is missing, or still cannot be read after some tries.
    """
    for attempt in range(_ATTEMPTS - 1):
        try:
            return read()
        except FileUnreadable:
            if not path.exists():
                raise
            time.sleep(_PAUSE * 2**attempt)
    return read()


class _Reader(Protocol):
    def close(self) -> None: ...


_R = TypeVar("_R", bound=_Reader)


class _Place:
    """One path of a pool. The lock is held while its reader is used or exchanged."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.reader: Any = None
        self.version: Any = None

    def close(self) -> None:
        reader, self.reader = self.reader, None
        if reader is not None:
            reader.close()


class ReaderPool:
    """Keeps the readers of the files that were read last open, at most `most` of them; for any number of threads.

    A reader sees its file as it was when it was opened, and HDF5 shows all readers of one process the same; so only
    files that nobody writes are kept open, and a changed file is opened anew.
    """

    def __init__(self, most: int = 64) -> None:
        self._most = most
        self._places: OrderedDict[Path, _Place] = OrderedDict()
        self._lock = threading.Lock()

    def read(
        self,
        kind: Callable[[Path], _R],
        path: Path,
        read: Callable[[_R], _Found],
        *,
        version: Any = None,
        keep: bool = False,
    ) -> _Found:
        """Return what `read` finds in a file; tried again when the file changes under the reader's eyes.

        Parameters
        ----------
        kind : callable
            Opens a reader.
        path : Path
        read : callable
        version : optional
            Of the file; a reader of another version is not used. None: always open anew.
        keep : bool
            Whether the reader may stay open.

        Raises
        ------
        FileUnreadable
            When the file is missing, or still cannot be read after some tries.
        """
        place = self._place(path)
        with place.lock:
            for attempt in range(_ATTEMPTS):
                if place.reader is None or version is None or place.version != version:
                    place.close()
                try:
                    if place.reader is None:
                        place.reader, place.version = kind(path), version
                    found = read(place.reader)
                except FileUnreadable:
                    place.close()
                    if attempt == _ATTEMPTS - 1 or not path.exists():
                        raise
                    time.sleep(_PAUSE * 2**attempt)
                except BaseException:
                    place.close()
                    raise
                else:
                    if not keep:
                        place.close()
                    return found
        raise AssertionError("unreachable")

    def forget(self, path: Path) -> None:
        """Close a file that is gone."""
        with self._lock:
            place = self._places.pop(path, None)
        if place is not None:
            with place.lock:
                place.close()

    def close(self) -> None:
        """Close all files."""
        for path in list(self._places):
            self.forget(path)

    def _place(self, path: Path) -> _Place:
        with self._lock:
            place = self._places.setdefault(path, _Place())
            self._places.move_to_end(path)
            for old in [each for each in self._places if each != path][: max(len(self._places) - self._most, 0)]:
                leaving = self._places[old]
                if leaving.lock.acquire(blocking=False):  # one that is in use stays for now
                    del self._places[old]
                    leaving.close()
                    leaving.lock.release()
            return place
