"""A file in HDF5's own mode for a single writer and many readers (SWMR), with the face of `OrderedFile`.

Readers open it with ``swmr=True`` and follow it by refreshing their datasets. The price: the newest superblock, which
XDS' neggia does not open, and a file whose writer died has to be set free by ``h5clear -s`` before it can be opened
otherwise; so this is an option, and `OrderedFile` what a writer uses unless told otherwise.

The structure is complete at the first commit, from which on HDF5 is in this mode.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import h5py

from sisockdaq.errors import StorageError
from sisockdaq.nexus._ordered_file import storage_error

__all__ = ["SwmrFile"]

_VERSIONS = ("v110", "v110")


class SwmrFile:
    """As `OrderedFile`; it cannot be resumed.

    Parameters
    ----------
    path : Path
    overwrite : bool
        Replace an existing file instead of refusing.
    resume : bool
        Refused: what a dead writer left is closed for writing.

    Raises
    ------
    StorageError
        When the file exists, cannot be made, or is to be resumed.
    """

    def __init__(self, path: Path, *, overwrite: bool = False, resume: bool = False) -> None:
        if resume:
            raise StorageError(
                f"{path.name} was written in SWMR mode and cannot go on", remedy="start an acquisition of another name"
            )
        if not overwrite and path.exists():
            raise storage_error(FileExistsError(errno.EEXIST, "exists"), path)
        self.path = path
        self._hidden: Path | None = path.with_name(f".{path.name}.part")
        self._closed = False
        self._lock = -1
        with self.guard():
            self.hdf5 = h5py.File(self._hidden, "w", libver=_VERSIONS)

    @property
    def bytes_written(self) -> int:
        """Length of the file so far."""
        with contextlib.suppress(OSError):
            return (self._hidden or self.path).stat().st_size
        return 0

    def commit(self) -> None:
        """Make everything written so far readable by others."""
        with self.guard():
            if self._hidden is not None:
                self.hdf5.swmr_mode = True
                self.hdf5.flush()
                self._hidden.replace(self.path)
                self._hidden = None
                self._lock = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
                fcntl.flock(self._lock, fcntl.LOCK_SH)  # by which others see that it grows
            else:
                self.hdf5.flush()

    def close(self) -> None:
        """Commit and close. Closing again does nothing."""
        if self._closed:
            return
        try:
            self.commit()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Close; without any commit the file is gone."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(Exception):  # HDF5 reports the writes that a full disk refused earlier
            self.hdf5.close()
        if self._hidden is not None:
            self._hidden.unlink(missing_ok=True)
        if self._lock >= 0:
            os.close(self._lock)

    @contextlib.contextmanager
    def guard(self) -> Iterator[None]:
        """Turn a failed write into a `StorageError`."""
        try:
            yield
        except OSError as error:
            raise storage_error(error, self.path) from error
        except RuntimeError as error:
            raise StorageError(f"{self.path.name} cannot be written: {error}") from error
