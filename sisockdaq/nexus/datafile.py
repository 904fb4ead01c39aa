"""Write one data file: images as ready chunks, and beside them what belongs to single frames.

::

    /entry                        attributes: acquisition, file_number, first_index, finished
    /entry/data/data              (rows, ny, nx), one chunk an image; image_nr_low/high count from 1
    /entry/series/<source>/       one dataset for each of `layout.FRAME_FIELDS`
        partial_index             frames that lack packets: index in the acquisition
        packet_mask               and which packets came (bit i % 8 of byte i // 8)
    /entry/series/<results>/      time, one dataset for each result, axis_<name>

Promises: images go to the disk at once; numbers and curves are gathered in memory and appended in blocks at `commit`;
all that was committed stays readable wherever the process dies (`_ordered_file`). Attribute ``finished`` is 1 only
in a file that was closed in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import hdf5plugin
import numpy as np
import numpy.typing as npt

from sisockdaq.frames.messages import FrameHeader
from sisockdaq.nexus._ordered_file import OrderedFile
from sisockdaq.nexus._strings import set_attributes
from sisockdaq.nexus.layout import (
    FRAME_FIELDS,
    IMAGE_PATH,
    SERIES_PATH,
    DataFilePlan,
    FrameField,
    ResultField,
    ResultsPlan,
    chunk_rows,
)

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["DataFile"]

NAN = float("nan")

_STRIDE = 64
"""Rows by which the image dataset grows between commits, where it gets its exact length: growing costs as much as
handing over a chunk."""


class DataFile:
    """A data file being written, for one thread.

    Parameters
    ----------
    path : Path
    plan : DataFilePlan
    acquisition : str
    number : int
        Of this file, from 1.
    resume : bool
        Go on with the file of a writer that died, after its last commit.

    Attributes
    ----------
    images : int
        Images written, committed or not.
    rows : int
        Rows that the file has: images and empty rows before the last of them.

    Raises
    ------
    StorageError
        When the file exists, or the disk refuses it; also from every method that writes.
    """

    def __init__(self, path: Path, plan: DataFilePlan, acquisition: str, number: int, *, resume: bool = False) -> None:
        self.path, self.plan, self.number = path, plan, number
        self.first_index = (number - 1) * plan.images_per_file
        self.images = self.images_committed = self.rows = 0
        self._file = OrderedFile(path, resume=resume)
        try:
            with self._file.guard():
                if not resume:
                    self._make_groups(acquisition)
                self._open(resume)
            self._file.commit()
        except BaseException:
            self._file.abandon()
            raise

    def _make_groups(self, acquisition: str) -> None:
        plan, hdf5 = self.plan, self._file.hdf5
        numbers = {
            "file_number": np.uint32(self.number),
            "first_index": np.int64(self.first_index),
            "images_per_file": np.int64(plan.images_per_file),
            "finished": np.uint8(0),
        }
        entry = hdf5.create_group("entry")
        set_attributes(entry, {"NX_class": "NXentry", "default": "data", "acquisition": acquisition, **numbers})
        data = {"NX_class": "NXdata", "signal": "data", "source": plan.image.source}
        set_attributes(entry.create_group("data"), data)
        numbering = {"image_nr_low": np.uint64(self.first_index + 1), "image_nr_high": np.uint64(self.first_index)}
        set_attributes(_image_dataset(hdf5, plan), numbering)
        set_attributes(entry.create_group("series"), {"NX_class": "NXcollection"})

    def _open(self, resume: bool) -> None:
        plan, hdf5 = self.plan, self._file.hdf5
        self._entry, self._images = hdf5["entry"], hdf5[IMAGE_PATH]
        self._chunks, self._extent = self._images.id, self._images.shape[0]
        self._frames = _Table(hdf5, plan, plan.image.source, FRAME_FIELDS)
        self._partial = _PartialFrames(self._frames.group, plan)
        # Of a file that goes on, the structure stays as it is: results that it has no room for are not taken.
        known = [each for each in plan.results if not resume or f"{SERIES_PATH}/{each.source}" in hdf5]
        self._results = {results.source: _ResultsTable(hdf5, plan, results) for results in known}
        if resume:
            self.rows = self._frames.level(self._extent)
            self._partial.level()
            for table in self._results.values():
                table.level()
            self.images = self.images_committed = self._frames.count

    @property
    def bytes_written(self) -> int:
        """Bytes given to the kernel so far."""
        return self._file.bytes_written

    def write_image(
        self, row: int, payload: Buffer, header: FrameHeader, packet_mask: npt.NDArray[np.uint8] | None = None
    ) -> None:
        """Write the image of a row and remember its numbers.

        Parameters
        ----------
        row : int
            0 … ``images_per_file - 1``.
        payload : bytes-like
            The chunk as it stands in the file: a bitshuffle-LZ4 payload, or the pixels where compression is "none".
        header : FrameHeader
        packet_mask : ndarray of uint8, optional
            Kept when the frame is partial.
        """
        with self._file.guard():
            if row >= self._extent:
                self._set_extent(min(row + _STRIDE, self.plan.images_per_file))
            self._chunks.write_direct_chunk((row, 0, 0), payload)
        self.images += 1
        self.rows = max(self.rows, row + 1)
        self._frames.add(row, header)
        if header.packets_received != header.packets_expected and packet_mask is not None:
            self._partial.add(self.first_index + row, packet_mask)

    def _set_extent(self, rows: int) -> None:
        if rows != self._extent:
            self._chunks.set_extent((rows, *self.plan.image.shape))
            self._extent = rows

    def write_results(self, source: str, row: int, time: float, vector: npt.NDArray[np.float64]) -> bool:
        """Remember a vector of results for a row, written at the next `commit`; False when there is no room for it."""
        if source not in self._results:
            return False
        self._results[source].add(row, time, vector)
        return True

    @property
    def pending_bytes(self) -> int:
        """Size of the results that wait for the next commit."""
        return sum(table.pending_bytes for table in self._results.values())

    def commit(self) -> None:
        """Append what was gathered and make all of it readable for good."""
        with self._file.guard():
            self._set_extent(self.rows)
            self._frames.write(self.rows)
            self._partial.write()
            for table in self._results.values():
                table.write()
        self._file.commit()
        self.images_committed = self.images

    def close(self, rows: int | None = None) -> None:
        """Commit, mark the file as finished and close it.

        Parameters
        ----------
        rows : int, optional
            Rows that the file ends with, where frames are missing after the last written one.
        """
        with self._file.guard():
            self.rows = max(self.rows, rows or 0)
            self._images.attrs.modify("image_nr_high", np.uint64(self.first_index + self.rows))
            for table in self._results.values():
                table.write(self.rows)
        self.commit()
        with self._file.guard():
            self._entry.attrs.modify("finished", np.uint8(1))
        self._file.close()

    def abandon(self) -> None:
        """Close as the last commit left it, without the mark of a finished file."""
        self._file.abandon()
        self.images = self.images_committed


def _image_dataset(hdf5: h5py.File, plan: DataFilePlan) -> h5py.Dataset:
    """Create the empty image dataset with one chunk an image."""
    image = plan.image
    filters = dict(hdf5plugin.Bitshuffle(nelems=0, cname="lz4")) if image.compression == "bslz4" else {}
    return hdf5.create_dataset(
        IMAGE_PATH,
        shape=(0, *image.shape),
        maxshape=(plan.images_per_file, *image.shape),
        chunks=(1, *image.shape),
        dtype=image.dtype,
        fillvalue=np.dtype(image.dtype).type(image.fill_value),
        **filters,
    )


def _series_dataset(
    group: h5py.Group, name: str, dtype: str, rows: int, width: int | None, empty: float
) -> h5py.Dataset:
    """Return a dataset of one value (width None) or `width` values a row; made empty where it is not there yet."""
    if name in group:
        return group[name]
    tail = () if width is None else (width,)
    row_bytes = np.dtype(dtype).itemsize * (width or 1)
    return group.create_dataset(
        name,
        shape=(0, *tail),
        maxshape=(rows, *tail),
        chunks=(chunk_rows(row_bytes, rows), *(max(size, 1) for size in tail)),
        dtype=dtype,
        fillvalue=np.dtype(dtype).type(empty),
    )


def _append(dataset: h5py.Dataset, done: int, rows: int, at: Sequence[int], values: npt.NDArray[Any]) -> None:
    """Write `values` at rows `at`; rows from `done` to `rows` that get none are left empty.

    A row below `done` belongs to a frame that was overtaken by others; it is put in its place.
    """
    tail = dataset.id.shape[1:]
    if rows > done:
        dataset.id.set_extent((rows, *tail))
    if len(at) == rows - done and list(at) == list(range(done, rows)):
        _write_rows(dataset, done, values)
        return
    places = np.asarray(at, dtype=np.int64)
    behind = places >= done
    if rows > done:
        block = np.full((rows - done, *tail), dataset.fillvalue, dtype=dataset.dtype)
        block[places[behind] - done] = values[behind]
        _write_rows(dataset, done, block)
    for place, value in zip(places[~behind], values[~behind], strict=True):
        dataset[int(place)] = value


def _write_rows(dataset: h5py.Dataset, first: int, values: npt.NDArray[Any]) -> None:
    """Write rows of the dataset's own dtype; past h5py's selections, which cost more than such small writes."""
    if not len(values):
        return
    memory, file = h5py.h5s.create_simple(values.shape), dataset.id.get_space()
    file.select_hyperslab((first, *(0 for _ in values.shape[1:])), values.shape)
    dataset.id.write(memory, file, np.ascontiguousarray(values))


def _level(datasets: Sequence[h5py.Dataset], rows: int = 0) -> int:
    """Make datasets equally long, at least `rows`; rows that not all of them have are emptied. Return the length."""
    lengths = [int(dataset.shape[0]) for dataset in datasets]
    whole, longest = min(lengths), max(rows, *lengths)
    for dataset in datasets:
        tail = dataset.id.shape[1:]
        if dataset.shape[0] < longest:
            dataset.id.set_extent((longest, *tail))
        _write_rows(dataset, whole, np.full((longest - whole, *tail), dataset.fillvalue, dtype=dataset.dtype))
    return longest


class _Table:
    """Numbers of every frame, one dataset a field, gathered as rows and written as columns."""

    def __init__(self, hdf5: h5py.File, plan: DataFilePlan, source: str, fields: Sequence[FrameField]) -> None:
        self.group, is_new = _group(hdf5, source)
        if is_new:
            set_attributes(self.group, {"NX_class": "NXcollection", "timeline": plan.timeline})
        self._fields, self._columns = fields, []
        for field in fields:
            dataset = _series_dataset(self.group, field.name, field.dtype, plan.images_per_file, None, field.empty)
            if is_new:
                about = {"units": field.units, "description": field.description, "timeline": plan.timeline}
                set_attributes(dataset, about)
            self._columns.append(dataset)
        self._rows: list[int] = []
        self._headers: list[FrameHeader] = []
        self._done = 0

    def level(self, rows: int) -> int:
        """Make all columns equally long after a commit that was cut short; return how many rows they have."""
        self._done = _level(self._columns, rows)
        return self._done

    @property
    def count(self) -> int:
        """Frames that are in the file: rows with a time."""
        return int(np.count_nonzero(~np.isnan(self.group["time"][()])))

    def add(self, row: int, header: FrameHeader) -> None:
        self._rows.append(row)
        self._headers.append(header)

    def write(self, rows: int) -> None:
        if not self._rows and rows == self._done:
            return
        for dataset, field in zip(self._columns, self._fields, strict=True):
            values = np.array([field.value(header) for header in self._headers], dtype=field.dtype)
            _append(dataset, self._done, rows, self._rows, values)
        self._done = rows
        self._rows.clear()
        self._headers.clear()


class _PartialFrames:
    """The frames that lack packets, and which ones they have."""

    def __init__(self, group: h5py.Group, plan: DataFilePlan) -> None:
        rows, width = plan.images_per_file, max(plan.image.mask_bytes, 1)
        self._index = _series_dataset(group, "partial_index", "<i8", rows, None, -1)
        self._masks = _series_dataset(group, "packet_mask", "u1", rows, width, 0)
        if "description" not in self._index.attrs:
            about = "Packets of those frames that came: packet i is bit i % 8 of byte i // 8."
            set_attributes(self._index, {"description": "Frames that lack packets: index in the acquisition."})
            set_attributes(self._masks, {"description": about})
        self._pending: list[tuple[int, npt.NDArray[np.uint8]]] = []

    def level(self) -> None:
        _level([self._index, self._masks])

    def add(self, index: int, packet_mask: npt.NDArray[np.uint8]) -> None:
        self._pending.append((index, np.array(packet_mask, dtype=np.uint8)))

    def write(self) -> None:
        if not self._pending:
            return
        done, rows = self._index.shape[0], self._index.shape[0] + len(self._pending)
        indices, masks = zip(*self._pending, strict=True)
        for dataset, values in ((self._index, np.array(indices)), (self._masks, np.stack(masks))):
            _append(dataset, done, rows, range(done, rows), values)
        self._pending.clear()


class _ResultsTable:
    """The results of one source."""

    def __init__(self, hdf5: h5py.File, plan: DataFilePlan, results: ResultsPlan) -> None:
        self._plan = results
        group, is_new = _group(hdf5, results.source)
        if is_new:
            set_attributes(group, {"timeline": plan.timeline, **_plottable(results)})
            for axis in results.axes:
                dataset = group.create_dataset(axis.dataset, data=np.asarray(axis.values, dtype="<f8"))
                set_attributes(dataset, {"units": axis.units})
        rows = plan.images_per_file
        self._time = _series_dataset(group, "time", "<f8", rows, None, NAN)
        self._datasets = [
            _series_dataset(group, field.name, "<f8", rows, None if field.scalar else field.width, NAN)
            for field in results.fields
        ]
        if is_new:
            about = {"units": "s", "description": "Time of the frame that a row was made from."}
            set_attributes(self._time, about)
            for field, dataset in zip(results.fields, self._datasets, strict=True):
                set_attributes(dataset, _about(field, plan.timeline))
        self._rows: list[int] = []
        self._times: list[float] = []
        self._vectors: list[npt.NDArray[np.float64]] = []
        self._done = 0

    def level(self) -> None:
        self._done = _level([self._time, *self._datasets])

    def add(self, row: int, time: float, vector: npt.NDArray[np.float64]) -> None:
        self._rows.append(row)
        self._times.append(time)
        self._vectors.append(np.array(vector, dtype=np.float64))

    @property
    def pending_bytes(self) -> int:
        return len(self._vectors) * self._plan.length * 8

    def write(self, rows: int = 0) -> None:
        """Append what was gathered; `rows` makes the datasets at least as long (at the end of a file)."""
        rows = max([rows, self._done, *(row + 1 for row in self._rows)])
        if not self._rows and rows == self._done:
            return
        values = np.stack(self._vectors) if self._vectors else np.empty((0, self._plan.length))
        _append(self._time, self._done, rows, self._rows, np.asarray(self._times, dtype=np.float64))
        for field, dataset in zip(self._plan.fields, self._datasets, strict=True):
            block = values[:, field.start : field.start + field.width]
            _append(dataset, self._done, rows, self._rows, block[:, 0] if field.scalar else block)
        self._done = rows
        self._rows.clear()
        self._times.clear()
        self._vectors.clear()


def _group(hdf5: h5py.File, source: str) -> tuple[h5py.Group, bool]:
    """Return the group of a source, and whether it was made now."""
    name = f"{SERIES_PATH}/{source}"
    return (hdf5[name], False) if name in hdf5 else (hdf5.create_group(name), True)


def _about(field: ResultField, timeline: str) -> dict[str, Any]:
    return {
        "units": field.units,
        "description": field.description,
        "timeline": timeline,
        "axis": field.axis,
        "axis_dataset": field.axis_dataset,
    }


def _plottable(results: ResultsPlan) -> dict[str, Any]:
    """Return the attributes by which viewers draw the first curve: NXdata with a signal and its axis."""
    curve = next((field for field in results.fields if field.axis_dataset), None)
    if curve is None:
        return {"NX_class": "NXcollection"}
    axes = np.array([b".", str(curve.axis_dataset).encode()])
    return {"NX_class": "NXdata", "signal": curve.name, "axes": axes}
