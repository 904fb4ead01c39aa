"""Read what the writer wrote: what a file holds, series and curves by rows, single images.

A file may be read while it grows: the reader sees what was committed when it opened the file. No lock is taken, so
a reader is never in a writer's way; a commit that comes between opening and reading can make the reader stumble, and
a `ReaderPool` then begins anew.

Whether a file still grows is asked of its lock and its ``finished`` mark: *finished*; *growing* (not finished, and
some process has it open); *left* (not finished, and nobody has it open: its writer died, and what was committed is
all that will ever be in it).
"""

from __future__ import annotations

import fcntl
import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import h5py
import hdf5plugin  # noqa: F401 - registers the filters with HDF5
import numpy as np
import numpy.typing as npt

from sisockdaq.errors import FieldUnknown, FileUnreadable
from sisockdaq.nexus._opening import open_hdf5, reading, unreadable
from sisockdaq.nexus._strings import as_text
from sisockdaq.nexus.epochs import EPOCHS_PATH
from sisockdaq.nexus.filters import compression_of, filter_of
from sisockdaq.nexus.layout import AXIS_PREFIX, IMAGE_PATH, SERIES_PATH

__all__ = [
    "AxisValues",
    "DataFileReader",
    "DataFileSummary",
    "FieldSummary",
    "FileState",
    "MasterSummary",
    "SourceSummary",
    "file_state",
    "holds_images",
    "read_master",
    "told_epochs",
]

FileState = Literal["finished", "growing", "left"]

_NOT_SERIES = frozenset({"time", "last", "timestamp", "partial_index", "packet_mask"})
"""Datasets of a source's group that are not fields of their own."""


@dataclass(frozen=True, slots=True)
class FieldSummary:
    """A field of a source: numbers (empty `shape`) or arrays of `shape` a frame."""

    name: str
    dtype: str
    shape: tuple[int, ...] = ()
    units: str | None = None
    description: str | None = None
    axis: str | None = None


@dataclass(frozen=True, slots=True)
class AxisValues:
    """The values along an array field."""

    name: str
    units: str | None
    values: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SourceSummary:
    """What one source has in a file; times are NaN where it has no frame at all."""

    source: str
    timeline: str
    rows: int
    first_time: float
    last_time: float
    settled_time: float
    """Time up to which the rows have no holes that could still be filled; `last_time` in a finished file."""
    fields: tuple[FieldSummary, ...]


@dataclass(frozen=True, slots=True)
class DataFileSummary:
    """What a data file holds, as of the moment it was opened."""

    path: Path
    acquisition: str
    number: int
    first_index: int
    images_per_file: int
    rows: int
    finished: bool
    image: FieldSummary
    image_source: str
    sources: tuple[SourceSummary, ...]


@dataclass(frozen=True, slots=True)
class MasterSummary:
    """What a master file says of its acquisition."""

    path: Path
    acquisition: str
    source: str
    files: tuple[str, ...]
    frames_requested: int | None
    images_written: int
    started: float
    ended: float | None
    end_reason: str
    ledger: dict[str, Any] | None
    meta: dict[str, Any] = field(default_factory=dict)
    layout: str = "legacy"
    epochs: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


def file_state(path: Path, *, finished: bool) -> FileState:
    """Tell whether a data file still grows; `finished` as read from it."""
    if finished:
        return "finished"
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise unreadable(path, error) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return "growing"
    except OSError:
        return "growing"  # a file system without locks: assume that the writer lives, and look again later
    finally:
        os.close(handle)
    return "left"


def read_master(path: Path) -> MasterSummary:
    """Read a master file.

    Raises
    ------
    FileUnreadable
        When it is missing, broken, or not one of ours.
    """
    with reading(path), open_hdf5(path) as hdf5:
        about = hdf5["/entry/acquisition"]
        requested, ended = int(about["frames_requested"][()]), float(about["ended"][()])
        ledger = as_text(hdf5["/entry/ledger/json"]) if "/entry/ledger/json" in hdf5 else ""
        return MasterSummary(
            path=path,
            acquisition=as_text(about["name"]),
            source=as_text(about["source"]),
            files=_files(hdf5, path),
            frames_requested=None if requested < 0 else requested,
            images_written=int(about["images_written"][()]),
            started=float(about["started"][()]),
            ended=None if math.isnan(ended) else ended,
            end_reason=as_text(about["end_reason"]),
            ledger=json.loads(ledger) if ledger else None,
            meta=json.loads(as_text(about["meta"])),
            layout=as_text(about["layout"]) if "layout" in about else "legacy",
            epochs=told_epochs(hdf5),
        )


def told_epochs(hdf5: h5py.File) -> dict[str, list[dict[str, Any]]]:
    """Return what the epochs of results mean, by their source; empty where the file does not say."""
    found = hdf5.get(f"{EPOCHS_PATH}/json")
    text = as_text(found) if isinstance(found, h5py.Dataset) else ""
    told = json.loads(text) if text else {}
    return {source: epochs for source, epochs in told.items() if isinstance(epochs, list)}


def _files(hdf5: h5py.File, path: Path) -> tuple[str, ...]:
    """Return the names of the files that hold the images: that of the master itself where it does."""
    if holds_images(hdf5):
        return (path.name,)
    links = hdf5[SERIES_PATH]
    found = [links.get(name, getlink=True) for name in sorted(links)]
    return tuple(link.filename for link in found if isinstance(link, h5py.ExternalLink))


def holds_images(hdf5: h5py.File) -> bool:
    """Whether a master file holds the images itself, or only shows those of other files."""
    group = hdf5.get("/entry/data")
    if group is None or not isinstance(group.get("data", getlink=True), h5py.HardLink):
        return False
    found = group["data"]
    return isinstance(found, h5py.Dataset) and not found.is_virtual


class DataFileReader:
    """One data file, opened for reading. A context manager; not for several threads at once.

    Raises
    ------
    FileUnreadable
        When it is missing, broken, or not one of ours; also from every method that reads.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with reading(path):
            self._hdf5 = open_hdf5(path)
        try:
            with reading(path):
                self._images: h5py.Dataset = self._hdf5[IMAGE_PATH]
                self._series: h5py.Group = self._hdf5[SERIES_PATH]
        except FileUnreadable:
            self._hdf5.close()
            raise

    def __enter__(self) -> DataFileReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._hdf5.close()

    def summary(self) -> DataFileSummary:
        """Read what the file holds."""
        with reading(self.path):
            entry, data = self._hdf5["/entry"].attrs, self._hdf5["/entry/data"].attrs
            finished = bool(entry["finished"])
            return DataFileSummary(
                path=self.path,
                acquisition=as_text(entry["acquisition"]),
                number=int(entry["file_number"]),
                first_index=int(entry["first_index"]),
                images_per_file=int(entry["images_per_file"]),
                rows=self._images.shape[0],
                finished=finished,
                image=FieldSummary("image", self._images.dtype.str, self._images.shape[1:], "counts"),
                image_source=as_text(data["source"]),
                sources=tuple(self._source(name, finished) for name in self._series),
            )

    def _source(self, name: str, finished: bool) -> SourceSummary:
        group = self._series[name]
        times = group["time"][()]
        known = times[~np.isnan(times)]
        first = float(known.min()) if known.size else math.nan
        last = float(known.max()) if known.size else math.nan
        return SourceSummary(
            source=name,
            timeline=as_text(group.attrs.get("timeline", b"frame")),
            rows=len(times),
            first_time=first,
            last_time=last,
            settled_time=last if finished else _before_first_hole(times, first),
            fields=tuple(_field(group[key]) for key in group if _is_field(key)),
        )

    def times(self, source: str) -> npt.NDArray[np.float64]:
        """Return the times of a source's rows, shape (rows,) [s]; NaN where no frame came."""
        return self.series(source, "time")

    def series(self, source: str, name: str, start: int = 0, stop: int | None = None) -> npt.NDArray[Any]:
        """Return a field's values of rows `start` … `stop`, shape (rows, …).

        Raises
        ------
        FieldUnknown
            When the file has no such field.
        """
        dataset = self._dataset(source, name)
        with reading(self.path):
            values: npt.NDArray[Any] = dataset[start:stop]
        return values

    def axis(self, source: str, name: str) -> AxisValues | None:
        """Return the axis of an array field; None where it has none."""
        dataset = self._dataset(source, name)
        with reading(self.path):
            if "axis_dataset" not in dataset.attrs:
                return None
            axis = dataset.parent[as_text(dataset.attrs["axis_dataset"])]
            units = as_text(axis.attrs["units"]) if "units" in axis.attrs else None
            return AxisValues(as_text(dataset.attrs["axis"]), units, axis[()])

    def image(self, row: int) -> npt.NDArray[Any]:
        """Return the image of a row, shape (ny, nx); the fill value everywhere where no frame came.

        Raises
        ------
        FieldUnknown
            When the file has no such row.
        """
        if not 0 <= row < self._images.shape[0]:
            raise FieldUnknown(f"{self.path.name} has {self._images.shape[0]} images; there is no row {row}")
        with reading(self.path):
            dataset = self._images
            if dataset.id.get_chunk_info_by_coord((row, 0, 0)).byte_offset is None:
                return np.full(dataset.shape[1:], dataset.fillvalue, dtype=dataset.dtype)
            compression = compression_of(dataset)
            if compression is None or compression == "none":
                return np.asarray(dataset[row])
            filters_left_out, chunk = dataset.id.read_direct_chunk((row, 0, 0))
            packed = filter_of("none" if filters_left_out else compression)
            return packed.unpack(chunk, dataset.shape[1:], dataset.dtype)

    @property
    def fill_value(self) -> float:
        """What pixels of lost packets, and images that never came, read as."""
        return float(self._images.fillvalue)

    def packet_mask(self, row: int) -> npt.NDArray[np.uint8] | None:
        """Return which packets of a frame came (bit i % 8 of byte i // 8); None for a whole frame."""
        with reading(self.path):
            source = as_text(self._hdf5["/entry/data"].attrs["source"])
            group = self._series[source]
            index = int(self._hdf5["/entry"].attrs["first_index"]) + row
            found = np.flatnonzero(group["partial_index"][()] == index)
            return np.asarray(group["packet_mask"][int(found[0])]) if found.size else None

    def _dataset(self, source: str, name: str) -> h5py.Dataset:
        with reading(self.path):
            dataset = self._series.get(f"{source}/{name}")
        if not isinstance(dataset, h5py.Dataset):
            raise FieldUnknown(f'{self.path.name} has no field "{name}" of "{source}"')
        return dataset


def _before_first_hole(times: npt.NDArray[np.float64], first: float) -> float:
    """Return the time of the last row before any hole; just before `first` where the very first row is one."""
    holes = np.flatnonzero(np.isnan(times))
    if not times.size or math.isnan(first):
        return math.nan
    if not holes.size:
        return float(times.max())
    return float(times[: holes[0]].max()) if holes[0] else math.nextafter(first, -math.inf)


def _is_field(name: str) -> bool:
    return name not in _NOT_SERIES and not name.startswith(AXIS_PREFIX)


def _field(dataset: h5py.Dataset) -> FieldSummary:
    def text(key: str) -> str | None:
        return as_text(dataset.attrs[key]) if key in dataset.attrs else None

    return FieldSummary(
        dataset.name.rpartition("/")[2],
        dataset.dtype.str,
        dataset.shape[1:],
        text("units"),
        text("description"),
        text("axis"),
    )
