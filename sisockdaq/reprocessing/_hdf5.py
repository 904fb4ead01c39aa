"""Images in HDF5 as one acquisition: masters of ours and of others, of all layouts, and single data files.

Chunks of a frame each are taken as they are and unpacked outside HDF5, whose one lock would let no two threads unpack
at once. Everything else (images that are not chunked so, other filters, mosaics) is read through HDF5.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401 - registers the filters with HDF5
import numpy as np
import numpy.typing as npt

from sisockdaq.errors import FileUnreadable
from sisockdaq.nexus._opening import open_hdf5, reading
from sisockdaq.nexus._strings import as_text
from sisockdaq.nexus.filters import Filter, compression_of, filter_of
from sisockdaq.nexus.layout import IMAGE_PATH, SERIES_PATH, acquisition_of
from sisockdaq.nexus.reader import file_state, told_epochs
from sisockdaq.reprocessing.recorded import Recorded, RecordedFrame, default_fill

__all__ = ["Hdf5Images"]


class _Piece:
    """Consecutive frames of one dataset: `count` rows from `row` on are the frames from `first` on."""

    def __init__(self, dataset: h5py.Dataset, first: int, row: int, count: int) -> None:
        self.dataset, self.first, self.row, self.count = dataset, first, row, count
        one_frame = dataset.chunks == (1, *dataset.shape[1:]) and not dataset.is_virtual
        packing = compression_of(dataset) if one_frame else None
        self.chunked, self.filter = one_frame, None if packing is None else filter_of(packing)
        self.times, self.numbers = _columns(dataset, row, count)

    def present(self) -> npt.NDArray[np.int64]:
        """Return the indices of the frames that were written: those whose chunk is in the file."""
        rows = range(self.row, self.row + self.count)
        if self.chunked:
            stored = self.dataset.id.get_chunk_info_by_coord
            rows_there = [row for row in rows if stored((row, 0, 0)).byte_offset is not None]
        else:
            rows_there = [row for row in rows if self.times is None or not math.isnan(self.times[row - self.row])]
        return np.array(rows_there, np.int64) - self.row + self.first

    def series(self, name: str) -> Iterator[tuple[str, npt.NDArray[np.float64]]]:
        """Give out a number of each frame, by its sources."""
        group = self.dataset.file.get(SERIES_PATH) if self.dataset.name == IMAGE_PATH else None
        if not isinstance(group, h5py.Group):
            return
        for source in group:
            column = group.get(f"{source}/{name}")
            if isinstance(column, h5py.Dataset) and column.ndim == 1 and column.dtype.kind in "iuf":
                values = np.full(self.count, np.nan)
                there = column[self.row : self.row + self.count]  # results may lag behind the images
                values[: len(there)] = there
                yield source, values

    def frame(self, index: int) -> RecordedFrame:
        at = index - self.first
        row = self.row + at
        time = math.nan if self.times is None else float(self.times[at])
        number = -1 if self.numbers is None else int(self.numbers[at])
        shape, dtype = self.dataset.shape[1:], self.dataset.dtype
        if self.filter is None:
            image = np.asarray(self.dataset[row])
            return RecordedFrame(index, time, number, lambda: image)
        left_out, chunk = self.dataset.id.read_direct_chunk((row, 0, 0))
        packing: Filter = filter_of("none") if left_out else self.filter
        return RecordedFrame(index, time, number, partial(packing.unpack, chunk, shape, dtype))


class Hdf5Images(Recorded):
    """The images of a master, or of a data file.

    Parameters
    ----------
    path : Path

    Raises
    ------
    FileUnreadable
        When it is missing, broken, without images, or points to files that are not there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened: dict[Path, h5py.File] = {}
        with reading(path):
            self._hdf5 = open_hdf5(path)
        try:
            with reading(path):
                self._look()
        except BaseException:
            self.close()
            raise

    def _look(self) -> None:
        entry = _group(self._hdf5, "NXentry", "entry")
        data = None if entry is None else _group(entry, "NXdata", "data")
        if entry is None or data is None:
            raise FileUnreadable(f"{self.path} has no images of NXmx", remedy="name the master file")
        self._entry = entry
        detector = _detector(entry)
        self._pieces = list(self._all_pieces(data))
        if not self._pieces:
            raise FileUnreadable(f"{self.path} has no images", remedy="name the master file")
        dataset = self._pieces[0].dataset
        self.shape, self.dtype = (int(dataset.shape[1]), int(dataset.shape[2])), dataset.dtype.newbyteorder("=")
        if any(each.dataset.shape[1:] != self.shape for each in self._pieces):
            raise FileUnreadable(f"{self.path} has images of several shapes")
        self._firsts = [each.first for each in self._pieces]
        self.start = int(entry.attrs.get("first_index", 0))
        self.total = max(self._pieces[-1].first + self._pieces[-1].count, self._requested())
        self.fill_value = self._fill(detector)
        self.mask = _mask(detector, self.shape)
        self.name = (acquisition_of(self.path.name) or (self.path.name.partition(".")[0],))[0]
        names = dict.fromkeys(Path(each.dataset.file.filename).name for each in self._pieces)
        self.files = tuple(dict.fromkeys([self.path.name, *names]))
        self._times(detector)
        self.about = _about(entry)
        self.epochs = told_epochs(self._hdf5)
        self.note = self._state()

    def _state(self) -> str:
        """Return a remark on files that are not finished; those of others do not say."""
        for file in dict.fromkeys([*(each.dataset.file for each in self._pieces), self._hdf5]):
            entry = file.get("entry")
            if isinstance(entry, h5py.Group) and not entry.attrs.get("finished", 1):
                growing = file_state(Path(file.filename), finished=False) == "growing"
                return "still grows: what is in it now was integrated" if growing else "was left by a writer that died"
        return ""

    def _find(self) -> npt.NDArray[np.int64]:
        with reading(self.path):
            return np.concatenate([each.present() for each in self._pieces])

    # Where the images are.

    def _all_pieces(self, data: h5py.Group) -> Iterator[_Piece]:
        names = [name for name in data if name == "data" or (name.startswith("data_") and name[5:].isdigit())]
        if "data" in names:
            names = ["data"]
        first = int(self._entry.attrs.get("first_index", 0))
        for name in sorted(names):
            dataset = self._linked(data, name)
            if dataset.ndim != 3 or dataset.dtype.kind not in "uif":
                raise FileUnreadable(f"{self.path}: {data.name}/{name} holds no images but {dataset.ndim} dimensions")
            for piece in self._resolved(dataset, first):
                yield piece
                first = piece.first + piece.count

    def _linked(self, group: h5py.Group, name: str) -> h5py.Dataset:
        try:
            return group[name]
        except (KeyError, OSError) as error:
            link = group.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink) and not (self.path.parent / link.filename).is_file():
                raise FileUnreadable(
                    f"{self.path}: its images are in {link.filename}, which is not there",
                    remedy="copy the data files beside the master",
                ) from None
            raise FileUnreadable(f"{self.path}: {group.name}/{name} cannot be read: {error}") from None

    def _resolved(self, dataset: h5py.Dataset, first: int) -> list[_Piece]:
        """Return the pieces of a dataset: those of its sources where it is a virtual one over whole frames."""
        rows = int(dataset.shape[0])
        if not dataset.is_virtual:
            return [_Piece(dataset, first, 0, rows)]
        pieces: list[_Piece] = []
        for source in dataset.virtual_sources():
            place = _frames_of(source.vspace)
            whole = source.src_space.get_select_type() == h5py.h5s.SEL_ALL
            taken = (0, place[1]) if whole and place is not None else _frames_of(source.src_space)
            if place is None or taken is None or place[1] != taken[1]:
                return [_Piece(dataset, first, 0, rows)]
            images = self._source_file(source.file_name)[source.dset_name]
            if images.ndim != 3 or images.shape[0] < sum(taken):
                return [_Piece(dataset, first, 0, rows)]
            pieces.append(_Piece(images, first + place[0], *taken))
        return sorted(pieces, key=lambda piece: piece.first)

    def _source_file(self, name: str) -> h5py.File:
        if name == ".":
            return self._hdf5
        path = self.path.parent / name
        if path not in self._opened:
            if not path.is_file():
                raise FileUnreadable(
                    f"{self.path}: its images are in {name}, which is not there",
                    remedy="copy the data files beside the master",
                )
            self._opened[path] = open_hdf5(path)
        return self._opened[path]

    # What is said of them.

    def _requested(self) -> int:
        """Return how many frames were asked for, of a master of ours whose acquisition was not cut short; else 0."""
        about, reason = (self._entry.get(f"acquisition/{name}") for name in ("frames_requested", "end_reason"))
        if not isinstance(about, h5py.Dataset) or reason is None or as_text(reason) != "complete":
            return 0
        return int(about[()])

    def _fill(self, detector: h5py.Group | None) -> float:
        """Return the fill value: of our files that of the dataset, else what the detector is said to use."""
        dataset = self._pieces[0].dataset
        if "source" in dataset.parent.attrs or dataset.fillvalue != 0:
            return float(dataset.fillvalue)
        error_value = None if detector is None else detector.get("error_value")
        if isinstance(error_value, h5py.Dataset) and error_value.size == 1:
            return float(np.ravel(error_value[()])[0])
        return default_fill(self.dtype)

    def _times(self, detector: h5py.Group | None) -> None:
        """Give frames without times of their own those of the acquisition's start and its frame time."""
        start, step = self._entry.get("start_time"), None
        for name in ("frame_time", "count_time"):
            if detector is not None and isinstance(detector.get(name), h5py.Dataset) and step is None:
                step = float(np.ravel(detector[name][()])[0])
        if start is None or step is None:
            return
        try:
            begun = datetime.fromisoformat(as_text(start)).timestamp()
        except ValueError:
            return
        for piece in self._pieces:
            if piece.times is None:
                piece.times = begun + step * np.arange(piece.first, piece.first + piece.count, dtype=np.float64)

    # Frames.

    def frame(self, index: int) -> RecordedFrame:
        """Read a frame's chunk."""
        piece = self._pieces[bisect.bisect_right(self._firsts, index) - 1]
        with reading(self.path):
            return piece.frame(index)

    def series(self, name: str) -> dict[str, npt.NDArray[np.float64]]:
        """Read a number of each frame that our files have beside their images, as an integrator's results."""
        found: dict[str, npt.NDArray[np.float64]] = {}
        with reading(self.path):
            for piece in self._pieces:
                for source, values in piece.series(name):
                    column = found.setdefault(source, np.full(self.total, np.nan))
                    column[piece.first : piece.first + piece.count] = values
        return found

    def close(self) -> None:
        """Close the master and the data files."""
        for file in (*self._opened.values(), self._hdf5):
            file.close()


def _frames_of(space: h5py.h5s.SpaceID) -> tuple[int, int] | None:
    """Return first and number of the whole frames that a selection has; None where it is no run of whole frames."""
    try:
        shape = space.shape
        low, high = space.get_select_bounds()
        count = int(high[0]) - int(low[0]) + 1
        whole = space.get_select_npoints() == count * math.prod(shape[1:])
    except (RuntimeError, ValueError, TypeError):
        return None
    return (int(low[0]), count) if len(shape) == 3 and whole else None


def _group(parent: h5py.Group, nx_class: str, name: str) -> h5py.Group | None:
    """Return the child of that name, or the first of that class."""
    named = parent.get(name)
    if isinstance(named, h5py.Group):
        return named
    for key in parent:
        found = parent.get(key)
        if isinstance(found, h5py.Group) and as_text(found.attrs.get("NX_class", b"")) == nx_class:
            return found
    return None


def _detector(entry: h5py.Group) -> h5py.Group | None:
    instrument = _group(entry, "NXinstrument", "instrument")
    return None if instrument is None else _group(instrument, "NXdetector", "detector")


def _about(entry: h5py.Group) -> dict[str, str]:
    """Return what is said of sample, instrument and laboratory."""
    instrument = _group(entry, "NXinstrument", "instrument")
    source = _group(entry, "NXsource", "source")
    if source is None and instrument is not None:
        source = _group(instrument, "NXsource", "source")
    homes = {"sample": _group(entry, "NXsample", "sample"), "instrument": instrument, "laboratory": source}
    found = {name: home.get("name") for name, home in homes.items() if home is not None}
    return {name: text for name, item in found.items() if isinstance(item, h5py.Dataset) and (text := as_text(item))}


def _mask(detector: h5py.Group | None, shape: tuple[int, int]) -> npt.NDArray[np.bool_] | None:
    found = None if detector is None else detector.get("pixel_mask")
    if not isinstance(found, h5py.Dataset) or found.shape[-2:] != shape:
        return None
    bad: npt.NDArray[np.bool_] = np.asarray(found[()]).reshape(-1, *shape)[0] != 0
    return bad if bad.any() else None


def _columns(
    dataset: h5py.Dataset, row: int, count: int
) -> tuple[npt.NDArray[np.float64] | None, npt.NDArray[np.int64] | None]:
    """Return times and numbers of frames, as files of ours have them beside their images."""
    if dataset.name != IMAGE_PATH or "source" not in dataset.parent.attrs:
        return None, None
    group = dataset.file.get(f"{SERIES_PATH}/{as_text(dataset.parent.attrs['source'])}")
    if not isinstance(group, h5py.Group):
        return None, None

    def column(name: str) -> npt.NDArray[Any] | None:
        found = group.get(name)
        if not isinstance(found, h5py.Dataset) or found.shape[0] < row + count:
            return None
        values: npt.NDArray[Any] = found[row : row + count]
        return values

    return column("time"), column("frame_number")
