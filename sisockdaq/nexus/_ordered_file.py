"""A file under HDF5 that is whole at every moment: what was flushed stays readable wherever the process dies.

HDF5 writes a changed file piece by piece, and a process that is killed between two pieces leaves a tree that points to
nothing, or a header that promises rows that are not there. SWMR mode orders the pieces, but it needs a superblock that
readers in use do not open (contract "Files"). `OrderedFile` gives the same guarantee to the old format: HDF5's
metadata cache keeps every changed piece until `commit`, which then writes them in an order in which each prefix
is a readable file:

1. pieces on new ground, which nothing points to yet;
2. the superblock (a file may be longer than what is in use, never shorter);
3. nodes of chunk trees, parents before children: a child that was split keeps its old rows until its own turn;
4. the rest, from the end of the file to its beginning: rows of arrays that share a piece with older ones, then object
   headers, whose data space makes the new rows visible, at the very last the mark of a finished file.

Raw data (chunks of images) go to the file at once; they lie on new ground. The disk is set to work on them at once too
(`_writing_out`).

The file gets its name at the first commit; until then it has a hidden one, so no half-made file is ever seen.

A file whose writer died can be opened again, and goes on after its last commit.

Held to: the structure of the file (groups, datasets, attributes) is complete at the first commit; after it, rows are
only appended. While it is open the file has a shared lock: others may read it, a second writer is refused.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import h5py

from sisockdaq.errors import StorageError
from sisockdaq.nexus._writing_out import WriteOut

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["LIBRARY_VERSIONS", "OrderedFile", "storage_error"]

LIBRARY_VERSIONS = ("earliest", "v110")
"""Format bounds that every known reader opens (contract "What readers in use demand")."""

_TREE = b"TREE"
_TREE_LEVEL = 5
"""Byte of a version 1 tree node that holds its level; leaves are level 0 (HDF5 file format, III.A.1)."""


def storage_error(error: OSError, path: Path) -> StorageError:
    """Say in a person's words why `path` cannot be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageError(
            f"no space left for {path.name} in {path.parent}", remedy="free some, or use another folder"
        )
    if error.errno == errno.EFBIG:
        return StorageError(
            f"{path.name} has reached the largest file size allowed here", remedy="fewer images per file"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StorageError(f"{path.parent} is not writable", remedy="change its owner or mode, or use another folder")
    if error.errno == errno.EEXIST:
        return StorageError(f"{path} exists", remedy="choose another name, or allow overwriting")
    return StorageError(f"{path} cannot be written: {error.strerror or error}")


_END_OF_FILE = struct.Struct("<Q")
_END_OF_FILE_AT = 40
"""Where a version 0 superblock has the address behind all that is in use (II.A)."""


class OrderedFile:
    """A HDF5 file for one thread, made readable step by step with `commit`.

    Parameters
    ----------
    path : Path
        Where to write; the folder must exist.
    overwrite : bool
        Replace an existing file instead of refusing.
    resume : bool
        Go on with an existing file instead.

    Attributes
    ----------
    hdf5 : h5py.File
        The open file.
    bytes_written : int
        All bytes given to the kernel so far.

    Raises
    ------
    StorageError
        When the file exists, or cannot be made.
    """

    def __init__(self, path: Path, *, overwrite: bool = False, resume: bool = False) -> None:
        self.path = path
        self._overwrite = overwrite
        self._hidden: Path | None = None if resume else path.with_name(f".{path.name}.part")
        if not overwrite and not resume and path.exists():
            raise storage_error(FileExistsError(errno.EEXIST, "exists"), path)
        self._backing = _Backing(self._hidden, path)
        self._guard = _Guard(self._backing, path)
        try:
            with self._guard:
                self.hdf5 = h5py.File(self._backing, "r+" if resume else "w", libver=LIBRARY_VERSIONS)
                _keep_metadata(self.hdf5)
        except BaseException:
            self._backing.close()
            raise

    @property
    def bytes_written(self) -> int:
        """All bytes given to the kernel so far."""
        return self._backing.bytes_written

    def commit(self) -> None:
        """Make everything written so far readable by others, for good.

        Raises
        ------
        StorageError
            When the disk is full, for example; what earlier commits wrote stays readable.
        """
        with self._guard:
            self._backing.collect()
            self.hdf5.flush()
            self._backing.apply()
        if self._hidden is not None:
            self._show()

    def _show(self) -> None:
        """Give the file its name."""
        hidden, self._hidden = self._hidden, None
        assert hidden is not None
        try:
            _rename(hidden, self.path, replace=self._overwrite)
        except OSError as error:
            hidden.unlink(missing_ok=True)
            raise storage_error(error, self.path) from error
        self._backing.admit_readers()

    def close(self) -> None:
        """Commit and close. Closing again does nothing."""
        if self._backing.closed:
            return
        try:
            self.commit()
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Close without a commit: the file stays as the last one left it; without any it is gone."""
        self._backing.detached = True
        with contextlib.suppress(Exception):  # HDF5 reports the writes that a full disk refused earlier
            self.hdf5.close()
        if self._hidden is not None and not self._backing.closed:
            self._hidden.unlink(missing_ok=True)
        self._backing.close()

    def guard(self) -> contextlib.AbstractContextManager[None]:
        """Return a context in which a failed write to `hdf5` becomes a `StorageError`."""
        return self._guard

    def __enter__(self) -> OrderedFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()


class _Guard(contextlib.AbstractContextManager[None]):
    """HDF5 turns a failed write into its own error; the kernel's reason is what a person needs."""

    def __init__(self, backing: _Backing, path: Path) -> None:
        self._backing, self._path = backing, path

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception) and self._backing.failure is not None:
            raise storage_error(self._backing.failure, self._path) from error


def _keep_metadata(hdf5: h5py.File) -> None:
    """Keep HDF5 from writing metadata between flushes (its cache may not evict, so it may not resize itself)."""
    config = hdf5.id.get_mdc_config()
    config.evictions_enabled = False
    config.incr_mode = config.decr_mode = config.flash_incr_mode = 0
    hdf5.id.set_mdc_config(config)


class _Backing:
    """The Python file object that HDF5 writes through (driver "fileobj")."""

    def __init__(self, hidden: Path | None, path: Path) -> None:
        """Make `hidden`, later to be called `path`; or open `path` again where `hidden` is None."""
        self._position = self._size = self._committed_size = 0
        self._collected: dict[int, bytes] | None = None
        self._refused: dict[int, bytes] = {}
        self.bytes_written = 0
        self.failure: OSError | None = None
        self.detached = False
        self.closed = False
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if hidden is not None else 0)
        try:
            self._fd = os.open(hidden or path, flags, 0o666)
        except OSError as error:
            raise storage_error(error, path) from error
        try:
            if hidden is None:
                self._continue()
            else:
                self._begin()
        except BlockingIOError as error:
            os.close(self._fd)
            raise StorageError(f"{path} is being made by another program") from error
        except OSError as error:
            os.close(self._fd)
            raise storage_error(error, path) from error
        self._write_out = WriteOut(self._fd)

    def _begin(self) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(self._fd).st_size:
            # Never without need: ext4 writes a file that was once cut to nothing out when it is closed.
            os.ftruncate(self._fd, 0)

    def _continue(self) -> None:
        """New ground begins where the superblock says; what lies behind was never committed."""
        fcntl.flock(self._fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        self._size = os.fstat(self._fd).st_size
        end = os.pread(self._fd, _END_OF_FILE.size, _END_OF_FILE_AT)
        self._committed_size = _END_OF_FILE.unpack(end)[0] if len(end) == _END_OF_FILE.size else 0

    # What HDF5 calls.

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = offset if whence == os.SEEK_SET else self._size + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def write(self, data: Buffer) -> int:
        size, position = len(data), self._position  # type: ignore[arg-type]
        if self.detached:
            return size
        if self._collected is None:
            self._write(position, data, size)
        else:
            self._collected[position] = bytes(data)
        self._position = end = position + size
        if end > self._size:
            self._size = end
        return size

    def read(self, size: int = -1) -> bytes:
        data = os.pread(self._fd, size if size >= 0 else self._size - self._position, self._position)
        self._position += len(data)
        return data

    def readinto(self, target: Buffer) -> int:
        view = memoryview(target).cast("B")
        done = os.preadv(self._fd, [view], self._position)
        self._position += done
        return done

    def truncate(self, size: int | None = None) -> None:
        """HDF5 asks for the length that it uses; granted only once the superblock says so too (`apply`)."""
        self._size = self._position if size is None else size

    def flush(self) -> None:
        """Nothing is held back here that HDF5 could want out."""

    # What OrderedFile calls.

    def collect(self) -> None:
        """Hold all writes back until `apply`."""
        self._collected = {}

    def apply(self) -> None:
        """Write what was held back, in the order of the module's promise.

        What a full disk refuses is kept for the next time: HDF5 believes it written, and will not give it again.
        """
        self._refused.update(self._collected or {})
        self._collected = None
        for offset in _safe_order(self._refused, self._committed_size):
            if offset == 0:
                self._lengthen()
            self._write(offset, self._refused[offset], len(self._refused[offset]))
        self._refused.clear()
        self._committed_size = self._size

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            os.close(self._fd)

    def admit_readers(self) -> None:
        """From now on others may lock the file for reading."""
        fcntl.flock(self._fd, fcntl.LOCK_SH)

    def _lengthen(self) -> None:
        """Make the file as long as its superblock will say."""
        if os.fstat(self._fd).st_size < self._size:
            try:
                os.ftruncate(self._fd, self._size)
            except OSError as error:
                self.failure = error
                raise

    def _write(self, offset: int, data: Buffer, size: int) -> None:
        """Write all of `data`; the kernel may take it in pieces."""
        try:
            done = os.pwrite(self._fd, data, offset)
            while done < size:
                done += os.pwrite(self._fd, memoryview(data)[done:], offset + done)
        except OSError as error:
            self.failure = error
            raise
        self.bytes_written += size
        self._write_out.wrote(offset, size)


def _rename(hidden: Path, path: Path, *, replace: bool) -> None:
    """Move a file to its place; without `replace` an existing one stays, and `FileExistsError` is raised."""
    if replace:
        hidden.replace(path)
        return
    try:
        path.hardlink_to(hidden)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links: look, then move
        if path.exists():
            raise FileExistsError(errno.EEXIST, "exists", str(path)) from None
        hidden.replace(path)
    else:
        hidden.unlink()


def _safe_order(pieces: dict[int, bytes], committed_size: int) -> list[int]:
    """Return the offsets of `pieces` in an order in which every prefix leaves a readable file.

    New ground begins at `committed_size`. The rest goes from back to front: the structure was made before any row,
    so its object headers lie before all rows.
    """

    def rank(offset: int) -> tuple[int, int]:
        piece = pieces[offset]
        if offset >= committed_size:
            return 0, 0
        if offset == 0:
            return 1, 0
        if piece.startswith(_TREE):
            return 2, -piece[_TREE_LEVEL]
        return 3, -offset

    return sorted(pieces, key=rank)
