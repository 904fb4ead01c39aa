"""The files of one series: opened where an image needs one, closed as soon as all its images are there.

For one thread. A receiver may get all images of a series, or, beside others, those of some of its files; so a file is
only made for an image that came, and what is missing between files is filled at the end, where this receiver can tell
that nobody else has it. Images may come in any order; at most `OPEN_FILES` files are open at once, and an image of one
that had to be closed is late. An integrated master is one such file, for all images.

A number that a message announces costs nothing here: room is made for what comes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from sisockdaq.errors import StorageError
from sisockdaq.frames.messages import FrameHeader
from sisockdaq.jungfraujoch.metadata import FACTS_ROOM, Metadata
from sisockdaq.nexus.datafile import DataFile
from sisockdaq.nexus.fileset import LARGEST_GAP, ClosedFile
from sisockdaq.nexus.layout import DataFilePlan, data_name, master_name, place
from sisockdaq.nexus.master import renew, write_master
from sisockdaq.nexus.nxmx import MasterContent, master_tree
from sisockdaq.nexus.tree import Group

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["OPEN_FILES", "SeriesFiles"]

OPEN_FILES = 8
"""Data files that may be open at once."""

_FILLED = 100
"""Files without any image that are made at most, to close gaps."""

_FILLED_ROWS = 10_000
"""Rows without an image that are added at most at the end of a series: its sender may announce any number."""

_MASTER_INTERVAL = 5.0
"""Shortest time between two masters while data files are added [s]: each holds the pixel mask."""

_MOST_OF_OTHERS = 100_000
"""Files of other receivers that a master links to at most."""

_SEEN_STEP = 1024
"""Images by which the note of what came grows."""

Outcome = Literal["new", "duplicate", "late"]


@dataclass(slots=True)
class _OpenFile:
    file: DataFile
    seen: bytearray = field(default_factory=bytearray)
    images: int = 0


class SeriesFiles:
    """The files of one series.

    Parameters
    ----------
    folder : Path
    prefix : str
    plan : DataFilePlan
    content : MasterContent
        What the master says; files, counts and end are filled in here.
    overwrite : bool
    alone : bool
        Whether no other receiver can have images of this series.
    makes_master : bool
    metadata : Metadata
        Goes into the final master, with all that it holds by then.
    on_closed : callable
        Called with each `ClosedFile` as soon as it can be opened.

    Attributes
    ----------
    images : int
        Images in files.
    closed : list of ClosedFile
    makes_master : bool
        Whether a master is written here.
    """

    def __init__(
        self,
        folder: Path,
        prefix: str,
        plan: DataFilePlan,
        content: MasterContent,
        *,
        overwrite: bool,
        alone: bool,
        makes_master: bool,
        metadata: Metadata,
        on_closed: Callable[[ClosedFile], None],
    ) -> None:
        self.folder, self.prefix, self.plan = folder, prefix, plan
        self.makes_master = makes_master
        self.closed: list[ClosedFile] = []
        sources = [plan.image.source, *(results.source for results in plan.results)]
        self._content = replace(content, series=sources, layout=plan.master)
        self._metadata = metadata
        self._overwrite, self._alone, self._on_closed = overwrite, alone, on_closed
        self._open: dict[int, _OpenFile] = {}
        self._closed_numbers: dict[int, int] = {}
        self._closed_images = self._closed_bytes = 0
        self._last_index = -1
        self._expected = 0
        self._next_master = 0.0
        self._has_master = False

    @property
    def master(self) -> Path:
        """Path of the master file."""
        return self.folder / master_name(self.prefix)

    @property
    def _integrated(self) -> bool:
        return self.plan.master == "integrated"

    @property
    def begun(self) -> bool:
        """Whether a data file was made: from then on an integrated master keeps its structure."""
        return bool(self._open or self._closed_numbers)

    @property
    def pending_bytes(self) -> int:
        """Size of the results that wait for the next commit."""
        return sum(entry.file.pending_bytes for entry in self._open.values())

    @property
    def images(self) -> int:
        """Images in files."""
        return self._closed_images + sum(entry.file.images for entry in self._open.values())

    @property
    def images_safe(self) -> int:
        """Images in files that survive the death of this process."""
        return self._closed_images + sum(entry.file.images_committed for entry in self._open.values())

    @property
    def bytes_written(self) -> int:
        """Bytes given to the kernel for data files."""
        return self._closed_bytes + sum(entry.file.bytes_written for entry in self._open.values())

    def add_calibration(self, arrays: Mapping[str, npt.NDArray[Any]]) -> bool:
        """Keep arrays for the master; False when it came too late for them."""
        if self._integrated and self.begun:
            return False
        self._content = replace(self._content, calibration={**self._content.calibration, **arrays})
        return True

    def take(self, index: int) -> Outcome:
        """Say whether an image is to be written; a "new" one is from now on counted as there."""
        number, row = place(index, self.plan.images_per_file)
        entry = self._open.get(number)
        if entry is None:
            if number in self._closed_numbers:
                return "late"
            entry = self._open_file(number)
        if row >= len(entry.seen):
            entry.seen.extend(bytes(row + _SEEN_STEP - len(entry.seen)))
        if entry.seen[row]:
            return "duplicate"
        entry.seen[row] = 1
        return "new"

    def write_results(self, source: str, index: int, time: float, vector: npt.NDArray[np.float64]) -> None:
        """Remember the results of an image that was taken, before it is written; `time` is the image's [s]."""
        number, row = place(index, self.plan.images_per_file)
        self._open[number].file.write_results(source, row, time, vector)

    def write(self, index: int, payload: Buffer, header: FrameHeader) -> bool:
        """Write an image that was taken; its file is closed when it was the last one.

        False when the file had to be closed while the image was being packed.

        Raises
        ------
        StorageError
            When the disk refuses.
        """
        number, row = place(index, self.plan.images_per_file)
        entry = self._open.get(number)
        if entry is None:
            return False
        entry.file.write_image(row, payload, header)
        entry.images += 1
        self._last_index = max(self._last_index, index)
        if entry.images == self.plan.images_per_file:
            self._close(number, self.plan.images_per_file)
        return True

    def commit(self, now: float) -> None:
        """Make everything written readable for good; `now` is any steady clock [s]."""
        for entry in self._open.values():
            entry.file.commit()
        if self.makes_master and now >= self._next_master:
            self._write_master()
            self._next_master = now + _MASTER_INTERVAL

    def finish(self, expected: int | None) -> None:
        """Close all data files; fill the rows of `expected` images as far as files go, and gaps between files."""
        rows = self._rows(expected)
        self._expected = expected or 0
        for number in sorted(self._open):
            first = (number - 1) * self.plan.images_per_file
            self._close(number, min(self.plan.images_per_file, max(0, rows - first)))
        self._fill_gaps(rows)
        self._last_index = max(self._last_index, rows - 1)

    def abandon(self) -> None:
        """Close all data files after a failure: each in order if the disk lets it, else as last committed."""
        for number in sorted(self._open):
            entry = self._open[number]
            try:
                self._close(number, entry.file.rows)
            except (StorageError, OSError, ValueError, RuntimeError):
                entry.file.abandon()
                self._forget(number, entry)

    def seal(self, *, ended: float, reason: str, ledger: Mapping[str, Any] | None) -> None:
        """Write the final master."""
        self._content = replace(self._content, ended=ended, end_reason=reason, ledger=ledger)
        if self.makes_master:
            self._write_master(final=True)

    def _rows(self, expected: int | None) -> int:
        """Return how many rows the series has: what is expected, but never beyond the last file that was begun."""
        rows = self._last_index + 1
        if expected is None or expected <= rows or rows == 0:
            return rows
        per_file = self.plan.images_per_file
        return min(expected, -(-rows // per_file) * per_file, rows + _FILLED_ROWS)

    def _open_file(self, number: int) -> _OpenFile:
        while len(self._open) >= OPEN_FILES:
            self._close(min(self._open), self.plan.images_per_file)
        if self._integrated:
            # A master without images may be there already, of a series that only then sent its first one.
            path, tree, gives_way = self.master, self._tree(final=False), self._overwrite or self._has_master
        else:
            path, tree, gives_way = self.folder / data_name(self.prefix, number), None, self._overwrite
        if gives_way:
            path.unlink(missing_ok=True)
        file = DataFile(path, self.plan, self._content.acquisition, number, tree=tree)
        entry = self._open[number] = _OpenFile(file)
        return entry

    def _close(self, number: int, rows: int) -> None:
        entry = self._open[number]
        entry.file.close(rows)
        self._on_closed(self._forget(number, entry))

    def _forget(self, number: int, entry: _OpenFile) -> ClosedFile:
        del self._open[number]
        file = entry.file
        closed = ClosedFile(file.path, number, file.images, file.rows)
        self.closed.append(closed)
        self._closed_numbers[number] = file.rows
        self._closed_images += file.images
        self._closed_bytes += file.bytes_written
        return closed

    def _fill_gaps(self, rows: int) -> None:
        """Make files of which no image came, where they are surely this receiver's."""
        numbers, per_file = sorted(self._closed_numbers), self.plan.images_per_file
        if not numbers:
            return
        # With several receivers each has every n-th file: n divides all distances between its own.
        step = 1 if self._alone else max(1, math.gcd(*(number - numbers[0] for number in numbers)))
        first = 1 if self._alone else numbers[0]
        missing = (number for number in range(first, numbers[-1], step) if number not in self._closed_numbers)
        for number in list(itertools.islice(missing, _FILLED)):
            self._open_file(number)
            self._close(number, min(per_file, rows - (number - 1) * per_file))

    def _write_master(self, *, final: bool = False) -> None:
        if not (self._integrated and self.begun):
            write_master(self.master, self._tree(final=final), replace=self._has_master or self._overwrite)
            self._has_master = True
        elif final:
            renew(self.master, self._tree(final=True))

    def _tree(self, *, final: bool) -> Group:
        """Return what the master says now; metadata only at the end, as they are written as a whole."""
        root = master_tree(replace(self._content, files=self._file_rows(), images_written=self.images))
        metadata = None
        if self._integrated:
            metadata = (self._metadata if final else Metadata()).tree(images=False, room=FACTS_ROOM)
        elif final:
            metadata = self._metadata.tree()
        entry = root.items["entry"]
        if metadata is not None and isinstance(entry, Group):
            entry.items["metadata"] = metadata
        return root

    def _file_rows(self) -> list[tuple[str, int]]:
        """Return all files of the series, those of other receivers as well, once one of theirs must be there."""
        per_file = self.plan.images_per_file
        mine = self._closed_numbers | {number: entry.file.rows for number, entry in self._open.items()}
        if self._integrated:
            return [(self.master.name, rows) for rows in mine.values()]
        if self._alone or not mine or max(mine) > _MOST_OF_OTHERS:
            return self._own_rows(mine)
        total = max(self._last_index + 1, min(self._expected, self._last_index + 1 + LARGEST_GAP))
        numbers = range(1, max(max(mine), -(-total // per_file)) + 1)
        return [
            (data_name(self.prefix, n), mine.get(n, min(per_file, max(0, total - (n - 1) * per_file)))) for n in numbers
        ]

    def _own_rows(self, mine: Mapping[int, int]) -> list[tuple[str, int]]:
        """Return the files of this receiver; for a virtual dataset each image must be at its own row already now."""
        if self.plan.master != "vds":
            return [(data_name(self.prefix, number), mine[number]) for number in sorted(mine)]
        per_file, rows, next_number = self.plan.images_per_file, [], 1
        for number in sorted(mine):
            if number > next_number:  # files that are not there yet read as empty
                rows.append((data_name(self.prefix, next_number), (number - next_number) * per_file))
            rows.append((data_name(self.prefix, number), per_file if number < max(mine) else mine[number]))
            next_number = number + 1
        return rows
