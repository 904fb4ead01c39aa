"""A file whose datasets all grow by frames: a tree that stands from the beginning, and columns that get rows.

Policy
------
- Rows are gathered in memory and written in blocks, when 8 MB wait or at `commit`; only a commit makes them readable.
- What was committed stays readable wherever the process dies (`_ordered_file`). A kill within a commit may leave
  columns of different length: a reader takes the rows that all have (`reading`).
- Attribute ``finished`` of the entry is 1 only in a file that was closed in order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from sisockdaq.nexus._ordered_file import OrderedFile
from sisockdaq.nexus._strings import set_attributes
from sisockdaq.nexus.filters import Compression, filter_of
from sisockdaq.nexus.master import fill
from sisockdaq.nexus.tree import Group

__all__ = ["Column", "GrowingFile"]

_CHUNK_BYTES = 128 << 10
"""Small enough to be appended to often (a chunk that grows is written again), large enough to be read fast."""

_MOST_ROWS = 4096

_PENDING_BYTES = 8 << 20
"""What waits in memory at most."""


@dataclass(frozen=True)
class Column:
    """A dataset with one row a frame.

    Attributes
    ----------
    path : str
        In the file.
    dtype : str
    tail : tuple of int
        Shape of a row.
    attributes : dict
    compression : str
        Of columns whose rows are a chunk each: one that grows would be packed again and again.
    """

    path: str
    dtype: str
    tail: tuple[int, ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)
    compression: Compression = "none"

    @property
    def empty(self) -> Any:
        """What a row reads as that got no value."""
        return np.dtype(self.dtype).type(np.nan if np.dtype(self.dtype).kind == "f" else 0)

    @property
    def row_bytes(self) -> int:
        """Size of a row."""
        return int(np.prod(self.tail, dtype=np.int64)) * np.dtype(self.dtype).itemsize

    def create(self, hdf5: h5py.File) -> h5py.Dataset:
        """Make the empty dataset, and the groups above it."""
        rows = max(1, min(_MOST_ROWS, _CHUNK_BYTES // self.row_bytes))
        if self.compression != "none":
            rows = 1
        made = hdf5.create_dataset(
            self.path,
            shape=(0, *self.tail),
            maxshape=(None, *self.tail),
            chunks=(rows, *self.tail),
            dtype=self.dtype,
            fillvalue=self.empty,
            **filter_of(self.compression).dataset,
        )
        set_attributes(made, self.attributes)
        return made

    def block(self, values: npt.ArrayLike | None, frames: int) -> npt.NDArray[Any]:
        """Return the rows of some frames in the dataset's own type; None are empty rows.

        Raises
        ------
        ValueError
            When the values have another shape.
        """
        if values is None:
            return np.full((frames, *self.tail), self.empty, dtype=self.dtype)
        given = np.asarray(values)
        if frames == 1 and given.shape == self.tail:
            given = given[np.newaxis]
        if given.shape != (frames, *self.tail):
            raise ValueError(f"{self.path} takes {(frames, *self.tail)} for {frames} frames, not {given.shape}")
        return np.array(given, dtype=self.dtype, order="C")  # a copy: the caller may use its array again


class GrowingFile:
    """A file that is being written, for one thread.

    Parameters
    ----------
    path : Path
        The folder must exist.
    root : Group
        All that does not grow. Its ``entry`` gets the mark ``finished``.
    columns : sequence of Column
    overwrite : bool
        Whether an existing file gives way.

    Attributes
    ----------
    frames : int
        Rows so far, committed or not.
    committed : int
        Rows that readers see.

    Raises
    ------
    StorageError
        When the file exists, or the disk refuses it; also from every method that writes.
    """

    def __init__(self, path: Path, root: Group, columns: Sequence[Column], *, overwrite: bool = False) -> None:
        self.path = path
        self.frames = self.committed = 0
        self._columns = {column.path: column for column in columns}
        self._pending: dict[str, list[npt.NDArray[Any]]] = {column.path: [] for column in columns}
        self._pending_bytes = self._written = 0
        self._file = OrderedFile(path, overwrite=overwrite)
        try:
            with self._file.guard():
                self._datasets = {column.path: column.create(self._file.hdf5) for column in columns}
                fill(self._file.hdf5, root)
                self._entry = self._file.hdf5["entry"]
                set_attributes(self._entry, {"finished": np.uint8(0)})
            self._file.commit()
        except BaseException:
            self._file.abandon()
            raise

    @property
    def bytes_written(self) -> int:
        """Bytes given to the kernel so far."""
        return self._file.bytes_written

    def add(self, values: Mapping[str, npt.ArrayLike | None], frames: int) -> None:
        """Remember rows; columns that are not named get empty ones."""
        blocks = {path: column.block(values.get(path), frames) for path, column in self._columns.items()}
        for path, block in blocks.items():  # all fit: only now is anything remembered
            self._pending[path].append(block)
            self._pending_bytes += block.nbytes
        self.frames += frames
        if self._pending_bytes >= _PENDING_BYTES:
            self._write()

    def _write(self) -> None:
        if self._written == self.frames:
            return
        with self._file.guard():
            for path, blocks in self._pending.items():
                block = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
                _append(self._datasets[path].id, self._written, block)
                blocks.clear()
        self._written, self._pending_bytes = self.frames, 0

    def commit(self) -> None:
        """Make all rows so far readable, for good."""
        self._write()
        self._file.commit()
        self.committed = self._written

    def close(self) -> None:
        """Commit, mark the file as finished and close it."""
        self.commit()
        with self._file.guard():
            self._entry.attrs.modify("finished", np.uint8(1))
        self._file.close()

    def abandon(self) -> None:
        """Close as the last commit left it, without the mark of a finished file."""
        self._file.abandon()

    def __enter__(self) -> GrowingFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()


def _append(dataset: h5py.h5d.DatasetID, first: int, block: npt.NDArray[Any]) -> None:
    """Write rows behind the others; past h5py's selections, which cost more than small writes."""
    dataset.set_extent((first + len(block), *block.shape[1:]))
    memory, file = h5py.h5s.create_simple(block.shape), dataset.get_space()
    file.select_hyperslab((first, *(0 for _ in block.shape[1:])), block.shape)
    dataset.write(memory, file, block)
