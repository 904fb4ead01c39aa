"""Write one data file: images as ready chunks, and beside them what belongs to single frames.

::

    /entry                        attributes: acquisition, file_number, first_index, finished
    /entry/data/data              (rows, ny, nx), one chunk an image; image_nr_low/high count from 1
    /entry/series/<source>/       one dataset for each of `layout.FRAME_FIELDS`
        partial_index             frames that lack packets: index in the acquisition
        packet_mask               and which packets came (bit i % 8 of byte i // 8)
    /entry/series/<results>/      time, one dataset for each result, axis_<name>
    /entry/detector, MX, azint, roi   second names of some of these (`results`)

An integrated master is such a file with everything in it that a master says (`tree`).

Promises: images go to the disk at once; numbers and curves are gathered in memory and appended in blocks at `commit`;
all that was committed stays readable wherever the process dies (`_ordered_file`). Attribute ``finished`` is 1 only
in a file that was closed in order.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np
import numpy.typing as npt

from sisockdaq.frames.messages import FrameHeader
from sisockdaq.nexus._ordered_file import OrderedFile
from sisockdaq.nexus._strings import set_attributes
from sisockdaq.nexus._swmr_file import SwmrFile
from sisockdaq.nexus._tables import FrameTable, PartialFrames, ResultsTable, add_second_names
from sisockdaq.nexus.filters import filter_of
from sisockdaq.nexus.layout import FRAME_PLACES, IMAGE_PATH, SERIES_PATH, DataFilePlan
from sisockdaq.nexus.master import fill
from sisockdaq.nexus.tree import Group

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["DataFile"]

_NO_FILTER = 1
"""HDF5's mark of a chunk that the first filter was not used on."""

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
    tree : Group, optional
        What a master says, to stand in this file as well.
    overwrite : bool
        Whether an existing file gives way.

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

    def __init__(
        self,
        path: Path,
        plan: DataFilePlan,
        acquisition: str,
        number: int,
        *,
        resume: bool = False,
        tree: Group | None = None,
        overwrite: bool = False,
    ) -> None:
        self.path, self.plan, self.number = path, plan, number
        self.first_index = (number - 1) * plan.images_per_file
        self.images = self.images_committed = self.rows = 0
        kind = SwmrFile if plan.swmr else OrderedFile
        self._file: OrderedFile | SwmrFile = kind(path, resume=resume, overwrite=overwrite)
        try:
            with self._file.guard():
                if not resume:
                    self._make_groups(acquisition, tree)
                self._open(resume)
                if not resume:
                    self._name_again()
            self._file.commit()
        except BaseException:
            self._file.abandon()
            raise

    def _make_groups(self, acquisition: str, tree: Group | None) -> None:
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
        if tree is not None:
            fill(hdf5, tree)

    def _name_again(self) -> None:
        hdf5, in_master = self._file.hdf5, self.plan.master == "integrated"
        add_second_names(hdf5, self.plan.image.source, FRAME_PLACES, in_master=in_master)
        for results in self.plan.results:
            add_second_names(hdf5, results.source, results.places, in_master=in_master)

    def _open(self, resume: bool) -> None:
        plan, hdf5 = self.plan, self._file.hdf5
        self._entry, self._images = hdf5["entry"], hdf5[IMAGE_PATH]
        self._chunks, self._extent = self._images.id, self._images.shape[0]
        self._frames = FrameTable(hdf5, plan, plan.image.source)
        self._partial = PartialFrames(self._frames.group, plan)
        # Of a file that goes on, the structure stays as it is: results that it has no room for are not taken.
        known = [each for each in plan.results if not resume or f"{SERIES_PATH}/{each.source}" in hdf5]
        self._results = {results.source: ResultsTable(hdf5, plan, results) for results in known}
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
        self,
        row: int,
        payload: Buffer,
        header: FrameHeader,
        packet_mask: npt.NDArray[np.uint8] | None = None,
        *,
        packed: bool = True,
    ) -> None:
        """Write the image of a row and remember its numbers.

        Parameters
        ----------
        row : int
            0 … ``images_per_file - 1``.
        payload : bytes-like
            The chunk as it stands in the file: packed as the plan's compression says (`filters`).
        header : FrameHeader
        packet_mask : ndarray of uint8, optional
            Kept when the frame is partial.
        packed : bool
            False for plain pixels in a file with compression: they are stored as they are, which HDF5 knows to read.
        """
        with self._file.guard():
            if row >= self._extent:
                self._set_extent(min(row + _STRIDE, self.plan.images_per_file))
            self._chunks.write_direct_chunk((row, 0, 0), payload, 0 if packed else _NO_FILTER)
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
    return hdf5.create_dataset(
        IMAGE_PATH,
        shape=(0, *image.shape),
        maxshape=(plan.most_rows, *image.shape),
        chunks=(1, *image.shape),
        dtype=image.dtype,
        fillvalue=np.dtype(image.dtype).type(image.fill_value),
        **filter_of(image.compression).dataset,
    )
