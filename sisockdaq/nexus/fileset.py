"""All files of one acquisition while it is written: which file a frame goes to, when a file is closed, the master.

For one thread. Results (curves, sums) reach the writer later than the images they were made from, so a data file
that has all its images stays open until its results are there, for at most `RESULTS_WAIT` seconds, and with at most
`open_files` files open; results that come later than that are counted as ``results_late``, never lost silently.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from sisockdaq.errors import AcquisitionRefused, FrameSourceError, StorageError
from sisockdaq.frames.messages import FrameHeader
from sisockdaq.nexus._opening import open_hdf5, reading
from sisockdaq.nexus.datafile import DataFile
from sisockdaq.nexus.epochs import Epochs, joined
from sisockdaq.nexus.layout import OPEN_ENDED, DataFilePlan, MasterLayout, acquisition_of, data_name, master_name, place
from sisockdaq.nexus.master import renew, write_master
from sisockdaq.nexus.nxmx import MasterContent, master_tree
from sisockdaq.nexus.reader import DataFileReader, holds_images, read_master

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["AcquisitionFiles", "ClosedFile", "existing_files", "open_files"]

RESULTS_WAIT = 10.0
"""How long a file with all its images waits for results [s]; as long as a source waits for reports."""

OPEN_FILES = 3, 32
"""Fewest and most data files that may be open at once: the one being filled, and those that wait for results."""

RESULTS_LAG = 256
"""Frames that results may lag behind their images: as many as wait in the rings of an integrator and its source."""

LARGEST_GAP = 100_000
"""Frames that may be missing in a row. A larger jump is a source whose frame numbers are broken."""

_EARLY_RESULTS = 4096
"""Results kept for a file whose first image is still being compressed."""


@dataclass(frozen=True, slots=True)
class ClosedFile:
    """A data file that is complete and can be opened."""

    path: Path
    number: int
    images: int
    rows: int


@dataclass(slots=True)
class _OpenFile:
    """A data file, and since when it only waits for results."""

    file: DataFile
    waiting_since: float | None = None


@dataclass(slots=True)
class _ResultsSource:
    """How far one source of results has come."""

    highest_index: int = -1
    ended: bool = False
    early: dict[int, list[tuple[int, float, npt.NDArray[np.float64]]]] = field(default_factory=dict)


def open_files(images_per_file: int) -> int:
    """Return how many data files may be open at once, so that results as late as `RESULTS_LAG` still find theirs."""
    fewest, most = OPEN_FILES
    return min(most, max(fewest, 2 + RESULTS_LAG // images_per_file))


def existing_files(folder: Path, prefix: str, master: str | None = None) -> list[Path]:
    """Return the files of that prefix that are already there; `master` is the master's name where it is special."""
    if not folder.is_dir():
        return []
    return sorted(
        path for path in folder.iterdir() if path.name == master or (acquisition_of(path.name) or ("",))[0] == prefix
    )


class AcquisitionFiles:
    """The files of one acquisition.

    Parameters
    ----------
    folder : Path
        Made when it does not exist.
    prefix : str
    plan : DataFilePlan
    content : MasterContent
        What the master says at the beginning; files, counts and end are filled in here. Of its epochs those count that
        belong to the acquisition.
    master : str, optional
        Name of the master file; default as the prefix has it.
    overwrite : bool
        Replace files of the same prefix instead of refusing.
    resume : bool
        Go on with the files of a writer that died: closed ones stay, open ones go on after their last commit.
    on_closed : callable, optional
        Called with each `ClosedFile` as soon as it can be opened.

    Attributes
    ----------
    master : Path
        The master file.
    images : int
        Images that are in files.
    images_safe : int
        Images that are in files and committed.
    results_late : int
        Results that came after their file was closed, and so are not in it.

    Raises
    ------
    AcquisitionRefused
        When files of that prefix exist.
    StorageError
        When the disk refuses; also from every method that writes.
    """

    def __init__(
        self,
        folder: Path,
        prefix: str,
        plan: DataFilePlan,
        content: MasterContent,
        *,
        master: str | None = None,
        overwrite: bool = False,
        resume: bool = False,
        on_closed: Callable[[ClosedFile], None] | None = None,
    ) -> None:
        self.folder, self.prefix = folder, prefix
        self.master = folder / (master or master_name(prefix))
        if resume:  # as it was begun, whatever the writer is told now
            plan = replace(plan, master=cast("MasterLayout", read_master(self.master).layout))
        self.plan = plan = _settled(plan, content)
        self.results_late = 0
        sources = [plan.image.source, *(results.source for results in plan.results)]
        self._content = replace(content, series=sources, layout=plan.master, plan=plan)
        self._on_closed = on_closed or (lambda closed: None)
        self._open: dict[int, _OpenFile] = {}
        self._newest = 0
        self._closed: list[ClosedFile] = []
        self._closed_bytes = self._closed_images = 0
        self._last_index = -1
        self._results = {results.source: _ResultsSource() for results in plan.results}
        told, self._content = content.epochs, replace(self._content, epochs={})
        if resume:
            self._take_up()
        else:
            _clear(folder, prefix, self.master.name, overwrite=overwrite)
        self._content = replace(self._content, epochs=joined(self._content.epochs, told, self._content.started))
        self._write_master(first=not resume)

    def _take_up(self) -> None:
        """Find what a writer that died has left."""
        before = read_master(self.master)
        self._content = replace(self._content, started=before.started, epochs=before.epochs)
        for path in existing_files(self.folder, self.prefix):
            number = (acquisition_of(path.name) or ("", 0))[1]
            if path == self.master and self._integrated and _has_images(path):
                number = 1
            if number == 0:
                continue
            self._newest = max(self._newest, number)
            with DataFileReader(path) as reader:
                summary = reader.summary()
                images = int(np.count_nonzero(~np.isnan(reader.times(summary.image_source))))
            if summary.images_per_file != self.plan.images_per_file:
                raise StorageError(f"{path.name} was begun for {summary.images_per_file} images a file")
            if summary.finished:
                self._closed.append(ClosedFile(path, number, images, summary.rows))
                self._closed_images += images
            else:
                file = DataFile(path, self.plan, self._content.acquisition, number, resume=True)
                self._open[number] = _OpenFile(file)
            if summary.rows:  # a file that was only just begun says nothing of the rows before its own
                self._last_index = max(self._last_index, (number - 1) * self.plan.images_per_file + summary.rows - 1)

    @property
    def _integrated(self) -> bool:
        return self.plan.master == "integrated"

    def _data_path(self, number: int) -> Path:
        return self.master if self._integrated else self.folder / data_name(self.prefix, number)

    @property
    def images(self) -> int:
        """Images that are in files."""
        return self._closed_images + sum(entry.file.images for entry in self._open.values())

    @property
    def next_index(self) -> int:
        """Index after that of the last frame that is in files."""
        return self._last_index + 1

    @property
    def images_safe(self) -> int:
        """Images that are in files and survive the death of this process."""
        return self._closed_images + sum(entry.file.images_committed for entry in self._open.values())

    @property
    def results(self) -> frozenset[str]:
        """Names of the sources of results that the files have room for."""
        return frozenset(self._results)

    @property
    def bytes_written(self) -> int:
        """Bytes given to the kernel for data files."""
        return self._closed_bytes + sum(entry.file.bytes_written for entry in self._open.values())

    @property
    def files(self) -> list[Path]:
        """The data files so far."""
        return [self.folder / name for name, _ in self._file_rows()]

    @property
    def closed(self) -> list[ClosedFile]:
        """The data files that are complete."""
        return list(self._closed)

    def write_image(
        self,
        index: int,
        payload: Buffer,
        header: FrameHeader,
        packet_mask: npt.NDArray[np.uint8] | None = None,
        *,
        now: float,
        packed: bool = True,
    ) -> None:
        """Write a frame's image and numbers into its place; `now` is any steady clock [s].

        `packed` is False for plain pixels in files with compression.

        Raises
        ------
        FrameSourceError
            When `index` jumps over more than `LARGEST_GAP` frames.
        """
        number, row = place(index, self.plan.images_per_file)
        entry = self._open.get(number)
        if entry is None:
            entry = self._reach(number, index, now)
            if entry is None:
                return
        entry.file.write_image(row, payload, header, packet_mask, packed=packed)
        self._last_index = max(self._last_index, index)

    def write_results(self, source: str, index: int, time: float, vector: npt.NDArray[np.float64]) -> bool:
        """Remember the results of a frame, written at the next commit; False when its file is closed already."""
        state = self._results[source]
        number, row = place(index, self.plan.images_per_file)
        state.highest_index = max(state.highest_index, index)
        if number in self._open:
            if self._open[number].file.write_results(source, row, time, vector):
                return True
            self.results_late += 1
            return False
        if number > self._newest and sum(map(len, state.early.values())) < _EARLY_RESULTS:
            state.early.setdefault(number, []).append((row, time, np.array(vector, np.float64)))
            return True
        self.results_late += 1
        return False

    def learn_epochs(self, told: Epochs) -> None:
        """Take over what sources of results tell of their epochs, when they begin one."""
        epochs = joined(self._content.epochs, told, self._content.started)
        if epochs != self._content.epochs:
            self._content = replace(self._content, epochs=epochs)
            self._write_master()

    def results_ended(self, source: str) -> None:
        """No more results will come from that source."""
        self._results[source].ended = True

    @property
    def results_complete(self) -> bool:
        """Whether every source of results has ended."""
        return not self.results_awaited

    @property
    def results_awaited(self) -> list[str]:
        """The sources of results that have not ended."""
        return [source for source, state in self._results.items() if not state.ended]

    def commit(self, now: float) -> None:
        """Make everything written readable for good; close the files that have all they wait for."""
        for number, entry in sorted(self._open.items()):
            entry.file.commit()
            if number < self._newest and self._is_complete(number, entry, now):
                self._close(number, self.plan.images_per_file)

    def finish(self, frames_expected: int | None = None) -> None:
        """Close all data files; the acquisition has ended.

        Parameters
        ----------
        frames_expected : int, optional
            Frames that the detector took, as its source knows; rows for those missing at the end are added.
        """
        rows = self._last_index + 1
        if frames_expected is not None and rows <= frames_expected <= rows + LARGEST_GAP:
            rows = frames_expected
        if rows > 0:
            self._reach(place(rows - 1, self.plan.images_per_file)[0], rows - 1, now=0.0)
        for number in sorted(self._open):
            first = (number - 1) * self.plan.images_per_file
            self._close(number, min(self.plan.images_per_file, max(0, rows - first)))
        self.results_late += sum(len(early) for state in self._results.values() for early in state.early.values())

    def abandon(self) -> None:
        """Close all data files after a failure: each in order if the disk lets it, else as last committed."""
        for number in sorted(self._open):
            entry = self._open[number]
            try:
                self._close(number, entry.file.rows)
            except StorageError:
                entry.file.abandon()
                self._count_closed(number, entry.file)

    def seal(self, *, ended: float, reason: str, ledger: Mapping[str, Any] | None) -> None:
        """Write the final master with the end, the counts and the ledger."""
        self._content = replace(self._content, ended=ended, end_reason=reason, ledger=ledger)
        self._write_master()

    def _reach(self, number: int, index: int, now: float) -> _OpenFile | None:
        """Open data files up to `number`; None for a frame that is overtaken by a whole file and too late."""
        if index - self._last_index > LARGEST_GAP:
            raise FrameSourceError(
                f"frame indices jump from {self._last_index} to {index} in {self.prefix}",
                remedy="look at the detector's frame numbers",
            )
        while self._newest < number:
            self._add_file(now)
        return self._open.get(number)

    def _add_file(self, now: float) -> None:
        for number, entry in sorted(self._open.items()):
            entry.waiting_since = now if entry.waiting_since is None else entry.waiting_since
            if len(self._open) >= open_files(self.plan.images_per_file) or self._is_complete(number, entry, now):
                self._close(number, self.plan.images_per_file)
        number = self._newest + 1
        tree = master_tree(self._content) if self._integrated else None
        file = DataFile(
            self._data_path(number), self.plan, self._content.acquisition, number, tree=tree, overwrite=self._integrated
        )
        self._open[number], self._newest = _OpenFile(file), number
        for source, state in self._results.items():
            for row, time, vector in state.early.pop(number, ()):
                file.write_results(source, row, time, vector)
        self._write_master()

    def _is_complete(self, number: int, entry: _OpenFile, now: float) -> bool:
        """Whether a file that has all its images has its results as well, or has waited long enough."""
        end = number * self.plan.images_per_file
        if all(state.ended or state.highest_index >= end - 1 for state in self._results.values()):
            return True
        return entry.waiting_since is not None and now - entry.waiting_since > RESULTS_WAIT

    def _close(self, number: int, rows: int) -> None:
        file = self._open[number].file
        file.close(rows)
        self._on_closed(self._count_closed(number, file))

    def _count_closed(self, number: int, file: DataFile) -> ClosedFile:
        del self._open[number]
        closed = ClosedFile(file.path, number, file.images, file.rows)
        self._closed.append(closed)
        self._closed_bytes += file.bytes_written
        self._closed_images += file.images
        return closed

    def _file_rows(self) -> list[tuple[str, int]]:
        rows = {closed.number: closed.rows for closed in self._closed}
        rows.update({number: entry.file.rows for number, entry in self._open.items()})
        return [(self._data_path(number).name, rows[number]) for number in sorted(rows)]

    def describe(
        self,
        meta: Mapping[str, Any],
        mask: npt.NDArray[np.uint32] | None = None,
        flatfield: npt.NDArray[Any] | None = None,
        calibration: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> None:
        """Replace the facts about the experiment, under Stream V2 names, before or while images come; and the tables.

        An integrated master has its structure from its first image on: new values come into it at its end, facts that
        it has no place for are left out.
        """
        if meta == self._content.meta:
            return
        before = self._content
        self._content = replace(
            before,
            meta=meta,
            mask=before.mask if mask is None else mask,
            flatfield=before.flatfield if flatfield is None else flatfield,
            calibration={**before.calibration, **(calibration or {})},
        )
        if not self._newest:
            self.plan = _settled(self.plan, self._content)
            self._content = replace(self._content, plan=self.plan)
        self._write_master()

    def calibrate(
        self,
        *,
        mask: npt.NDArray[np.uint32] | None = None,
        flatfield: npt.NDArray[Any] | None = None,
        calibration: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> bool:
        """Take over what the detector says of its pixels, before or while images come.

        False when it came too late: an integrated master has its structure from its first image on.
        """
        if self._integrated and self._newest:
            return False
        before = self._content
        self._content = replace(
            before,
            mask=before.mask if mask is None else mask,
            flatfield=before.flatfield if flatfield is None else flatfield,
            calibration={**before.calibration, **(calibration or {})},
        )
        self._write_master()
        return True

    def _write_master(self, *, first: bool = False) -> None:
        self._content = replace(self._content, files=self._file_rows(), images_written=self.images)
        if not (self._integrated and self._newest):
            write_master(self.master, master_tree(self._content), replace=not first)
        elif self._content.ended is not None:
            renew(self.master, master_tree(self._content))


def _has_images(path: Path) -> bool:
    with reading(path), open_hdf5(path) as hdf5:
        return holds_images(hdf5)


def _settled(plan: DataFilePlan, content: MasterContent) -> DataFilePlan:
    """Return the plan with what follows from the facts, and from the master's layout."""
    exposure = content.meta.get("count_time")
    if plan.exposure_time is None and isinstance(exposure, int | float):
        plan = replace(plan, exposure_time=float(exposure))
    return replace(plan, images_per_file=OPEN_ENDED) if plan.master == "integrated" else plan


def _clear(folder: Path, prefix: str, master: str, *, overwrite: bool) -> None:
    """Make the folder, and room in it for files of that prefix."""
    found = existing_files(folder, prefix, master)
    if found and not overwrite:
        raise AcquisitionRefused(
            f"{found[0].name} exists in {folder}", remedy="choose another name, or allow the writer to overwrite"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in found:
            path.unlink()
    except OSError as error:
        raise StorageError(f"{folder} cannot be prepared: {error.strerror or error}") from error
