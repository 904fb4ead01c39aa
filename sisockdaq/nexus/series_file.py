"""Write a series file: the samples of any number of nodes, readable at every moment.

::

    /entry                      NXentry; attributes: writer, started, finished, format
    /entry/tables               the tables below as JSON, so that a reader need not walk through thousands of groups
    /entry/times/<number>       one dataset of times for each table
    /entry/series/<node>        NXcollection
    /entry/series/<node>/<field>    NXlog: time (a link to the table's), value, axis_0 …

Times are UNIX times as float64, bit for bit those of the live data; NeXus' ``start`` says so (1970). Rows stand in the
order in which they came, which is that of their times but for samples that came late.

Promises: samples are gathered in memory and appended at `commit`; what was committed stays readable wherever the
process dies (`_ordered_file`). Attribute ``finished`` is 1 only in a file that was closed in order. A table's times are
made visible after its values, and a reader takes no more rows than all of its datasets have.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from sisockdaq.nexus._ordered_file import OrderedFile
from sisockdaq.nexus._strings import fixed, set_attributes
from sisockdaq.nexus.series_plan import SeriesPlan, TablePlan, encode_texts, link_name, tables_text

__all__ = ["FORMAT", "SERIES", "TABLES", "TIMES", "SeriesFile", "is_series_file", "series_name"]

FORMAT = 1
TABLES, TIMES, SERIES = "/entry/tables", "/entry/times", "/entry/series"

_SERIES_FILE = re.compile(r"^.+_series_\d{8}T\d{6}\.\d{6}Z\.h5$")

_FEWEST_ROWS, _MOST_ROWS, _CHUNK_BYTES = 64, 4096, 1 << 16
"""Bounds of a chunk: it is written whole at every commit, so it must be small; and few make short chunk trees."""

_CHUNKS = 64
"""Chunks that a dataset of a file's expected length has: its chunk tree is one node then."""


def series_name(writer: str, opened: float) -> str:
    """Return a file name that sorts by the time at which the file was opened (UNIX time, shown in UTC)."""
    return f"{writer}_series_{datetime.fromtimestamp(opened, UTC):%Y%m%dT%H%M%S.%f}Z.h5"


def is_series_file(name: str) -> bool:
    """Say whether a file of that name is a series file."""
    return _SERIES_FILE.match(name) is not None


class SeriesFile:
    """A series file being written, for one thread. Its tables are fixed from the beginning.

    Parameters
    ----------
    path : Path
        The folder must exist.
    tables : sequence of TablePlan
    writer : str
    started : float
        UNIX time [s].
    length : float
        Time that the file is expected to cover [s]; chunks are sized for it.

    Raises
    ------
    StorageError
        When the file exists, or the disk refuses it; also from every method that writes.
    """

    def __init__(
        self, path: Path, tables: Sequence[TablePlan], writer: str, *, started: float, length: float = 3600.0
    ) -> None:
        self.path, self.tables, self.started = path, tuple(tables), started
        self._file = OrderedFile(path)
        try:
            with self._file.guard():
                self._make(writer, length)
            self._file.commit()
        except BaseException:
            self._file.abandon()
            raise

    def _make(self, writer: str, length: float) -> None:
        entry = self._file.hdf5.create_group("entry")
        facts = {"NX_class": "NXentry", "writer": writer, "started": _iso(self.started)}
        set_attributes(entry, {**facts, "format": np.uint32(FORMAT), "finished": np.uint8(0)})
        entry.create_dataset("tables", data=fixed(tables_text(self.tables)))
        self._entry = entry
        times = entry.create_group("times")
        set_attributes(times, {"NX_class": "NXcollection"})
        # First all times, then all values: a commit writes from the file's end to its beginning.
        rows = [_rows_for(table, length) for table in self.tables]
        made = [_times(times, number, table, rows[number]) for number, table in enumerate(self.tables)]
        series = entry.create_group("series")
        set_attributes(series, {"NX_class": "NXcollection"})
        nodes: dict[str, h5py.Group] = {}
        self._tables = []
        for number, table in enumerate(self.tables):
            if table.node not in nodes:
                nodes[table.node] = series.create_group(link_name(table.node))
                set_attributes(nodes[table.node], {"NX_class": "NXcollection"})
            columns = [_log(nodes[table.node], plan, made[number], table, rows[number]) for plan in table.fields]
            self._tables.append(_Table(made[number], table.fields, columns))

    @property
    def bytes_written(self) -> int:
        """Bytes given to the kernel so far."""
        return self._file.bytes_written

    def append(self, number: int, t: npt.NDArray[np.float64], values: Mapping[str, npt.NDArray[Any]]) -> None:
        """Remember rows of a table for the next `commit`.

        Parameters
        ----------
        number : int
            Of the table.
        t : ndarray of float64, (n,)
        values : mapping of str to ndarray, (n, *shape)
            Prepared values of every field of the table, which fit their plans.
        """
        self._tables[number].add(t, values)

    def commit(self) -> None:
        """Append what was gathered and make all of it readable for good."""
        with self._file.guard():
            for table in self._tables:
                table.write()
        self._file.commit()

    def close(self) -> None:
        """Commit, mark the file as finished and close it."""
        self.commit()
        with self._file.guard():
            self._entry.attrs.modify("finished", np.uint8(1))
        self._file.close()

    def abandon(self) -> None:
        """Close as the last commit left it, without the mark of a finished file."""
        self._file.abandon()


class _Table:
    """The datasets of a table, and the rows that wait for the next commit."""

    def __init__(self, times: _Column, plans: Sequence[SeriesPlan], columns: Sequence[_Column]) -> None:
        self._times, self._plans, self._columns = times, plans, columns
        self._pending: list[tuple[npt.NDArray[np.float64], Mapping[str, npt.NDArray[Any]]]] = []

    def add(self, t: npt.NDArray[np.float64], values: Mapping[str, npt.NDArray[Any]]) -> None:
        if len(t):
            self._pending.append((t, values))

    def write(self) -> None:
        if not self._pending:
            return
        for plan, column in zip(self._plans, self._columns, strict=True):
            pieces = [values[plan.name] for _, values in self._pending]
            if plan.type == "string":
                column.append(np.concatenate([encode_texts(piece, plan.dtype) for piece in pieces]))
            else:
                column.append(np.concatenate([piece.astype(plan.dtype, copy=False) for piece in pieces]))
        self._times.append(np.concatenate([t for t, _ in self._pending]))
        self._pending.clear()


class _Column:
    """A dataset that grows along its first dimension; past h5py's selections, which cost more than the small writes."""

    def __init__(self, dataset: h5py.h5d.DatasetID, tail: tuple[int, ...]) -> None:
        self.id, self._tail, self._rows = dataset, tail, 0
        self._type = dataset.get_type()

    def append(self, values: npt.NDArray[Any]) -> None:
        first, self._rows = self._rows, self._rows + len(values)
        self.id.set_extent((self._rows, *self._tail))
        memory, file = h5py.h5s.create_simple(values.shape), self.id.get_space()
        file.select_hyperslab((first, *(0 for _ in self._tail)), values.shape)
        self.id.write(memory, file, np.ascontiguousarray(values), self._type)


def _rows_for(table: TablePlan, length: float) -> int:
    """Return the rows of a chunk of numbers."""
    expected = length / table.interval if table.interval > 0 else math.inf
    return int(min(max(expected / _CHUNKS, _FEWEST_ROWS), _MOST_ROWS))


def _column(group: h5py.Group, name: str, dtype: np.dtype[Any], tail: tuple[int, ...], rows: int) -> _Column:
    """Make an empty dataset through HDF5 directly: a file begins with thousands of them."""
    row_bytes = int(np.prod(tail, dtype=np.int64)) * dtype.itemsize
    rows = max(1, min(rows, _CHUNK_BYTES // max(row_bytes, 1)))
    chunk = (rows, *(max(size, 1) for size in tail))
    created = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    created.set_chunk(chunk)
    created.set_obj_track_times(False)
    access = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
    # Room for the chunk that grows and the one before it: by default each dataset keeps a megabyte of old chunks.
    access.set_chunk_cache(13, 2 * math.prod(chunk) * dtype.itemsize, 1.0)
    space = h5py.h5s.create_simple((0, *tail), (h5py.h5s.UNLIMITED, *tail))
    kind = h5py.h5t.py_create(dtype, logical=True)
    return _Column(h5py.h5d.create(group.id, name.encode(), kind, space, created, dapl=access), tail)


def _times(group: h5py.Group, number: int, table: TablePlan, rows: int) -> _Column:
    column = _column(group, str(number), np.dtype("<f8"), (), rows)
    about = {"units": "s", "start": "1970-01-01T00:00:00Z", "node": table.node, "timeline": table.timeline}
    set_attributes(h5py.Dataset(column.id), about)
    return column


def _log(node: h5py.Group, plan: SeriesPlan, times: _Column, table: TablePlan, rows: int) -> _Column:
    """Make the group of a field."""
    log = node.create_group(link_name(plan.name))
    set_attributes(log, {"NX_class": "NXlog", "timeline": table.timeline})
    log["time"] = h5py.Dataset(times.id)
    dtype = np.dtype(plan.dtype)
    if plan.type == "string":
        dtype = h5py.string_dtype("utf-8", dtype.itemsize)
    column = _column(log, "value", dtype, plan.shape, rows)
    about: dict[str, Any] = {"units": plan.units, "description": plan.description, "type": plan.type}
    set_attributes(h5py.Dataset(column.id), about)
    for place, axis in enumerate(plan.axes):
        values = np.asarray(axis.values if axis.values is not None else (), dtype="<f8")
        set_attributes(log.create_dataset(f"axis_{place}", data=values), {"axis": axis.axis, "units": axis.unit})
    return column


def _iso(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).isoformat()
