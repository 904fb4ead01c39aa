"""What a data file has beside its images: numbers, packet masks and results, gathered in memory, appended in blocks.

Every table is a few datasets of equal length, one row a frame. `add` remembers, `write` appends what was remembered;
the file's commit makes it readable. A row that got nothing reads as the dataset's fill value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from sisockdaq.frames.messages import FrameHeader
from sisockdaq.nexus._strings import set_attributes
from sisockdaq.nexus.layout import SERIES_PATH, DataFilePlan, chunk_rows, frame_fields
from sisockdaq.nexus.results import ResultField, ResultsPlan, SecondName, place_attributes

__all__ = ["FrameTable", "PartialFrames", "ResultsTable", "add_second_names"]

NAN = float("nan")


def _series_dataset(
    group: h5py.Group, name: str, dtype: str, plan: DataFilePlan, width: int | None, empty: float
) -> h5py.Dataset:
    """Return a dataset of one value (width None) or `width` values a row; made empty where it is not there yet."""
    if name in group:
        return group[name]
    tail = () if width is None else (width,)
    row_bytes = np.dtype(dtype).itemsize * (width or 1)
    return group.create_dataset(
        name,
        shape=(0, *tail),
        maxshape=(plan.most_rows, *tail),
        chunks=(chunk_rows(row_bytes, plan.rows_for_chunks), *(max(size, 1) for size in tail)),
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


class FrameTable:
    """Numbers of every frame, one dataset a field, gathered as rows and written as columns."""

    def __init__(self, hdf5: h5py.File, plan: DataFilePlan, source: str) -> None:
        fields = frame_fields(plan)
        self.group, is_new = _group(hdf5, source)
        if is_new:
            set_attributes(self.group, {"NX_class": "NXcollection", "timeline": plan.timeline})
        self._fields, self._columns = fields, []
        for field in fields:
            dataset = _series_dataset(self.group, field.name, field.dtype, plan, None, field.empty)
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


class PartialFrames:
    """The frames that lack packets, and which ones they have."""

    def __init__(self, group: h5py.Group, plan: DataFilePlan) -> None:
        self._index = _series_dataset(group, "partial_index", "<i8", plan, None, -1)
        self._masks = _series_dataset(group, "packet_mask", "u1", plan, max(plan.image.mask_bytes, 1), 0)
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


class ResultsTable:
    """The results of one source."""

    def __init__(self, hdf5: h5py.File, plan: DataFilePlan, results: ResultsPlan) -> None:
        self._plan = results
        group, is_new = _group(hdf5, results.source)
        if is_new:
            plottable = _plottable(results, in_master=plan.master == "integrated")
            set_attributes(group, {"timeline": plan.timeline, **plottable})
            for axis in results.axes:
                dataset = group.create_dataset(axis.dataset, data=np.asarray(axis.values, dtype="<f8"))
                set_attributes(dataset, {"units": axis.units})
        self._time = _series_dataset(group, "time", "<f8", plan, None, NAN)
        self._datasets = [
            _series_dataset(group, field.name, field.dtype, plan, None if field.scalar else field.width, field.empty)
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
            if field.dtype != "<f8":
                block = np.nan_to_num(block).astype(field.dtype) if field.empty == 0 else block.astype(field.dtype)
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


def add_second_names(hdf5: h5py.File, source: str, places: Sequence[SecondName], *, in_master: bool) -> None:
    """Link datasets of a source's group to where programs of the field look for them; a place that is taken stays.

    Past h5py's own way, which opens every object on the way: each new data file waits for this.
    """
    group = hdf5[f"{SERIES_PATH}/{source}"]
    parents: dict[str, h5py.Group] = {}
    for place in places:
        path, _, name = place.path.rpartition("/")
        if not group.id.links.exists(place.dataset.encode()):
            continue
        if path not in parents:
            parents[path] = _place_group(hdf5, path, places, in_master)
        parent = parents[path]
        if not parent.id.links.exists(name.encode()):
            parent.id.links.create_hard(name.encode(), group.id, place.dataset.encode())


def _place_group(hdf5: h5py.File, path: str, places: Sequence[SecondName], in_master: bool) -> h5py.Group:
    """Return a group, made with its class where it is not there yet."""
    if path in hdf5:
        return hdf5[path]
    _place_group(hdf5, path.rpartition("/")[0], places, in_master)
    group = hdf5.create_group(path)
    set_attributes(group, place_attributes(path, places, in_master=in_master))
    return group


def _plottable(results: ResultsPlan, *, in_master: bool) -> dict[str, Any]:
    """Return the attributes by which viewers draw the first curve: NXdata with a signal and its axis.

    Not in a master file, for the reason that `place_attributes` has.
    """
    curve = next((field for field in results.fields if field.axis_dataset), None)
    if curve is None or in_master:
        return {"NX_class": "NXcollection"}
    axes = np.array([b".", str(curve.axis_dataset).encode()])
    return {"NX_class": "NXdata", "signal": curve.name, "axes": axes}
