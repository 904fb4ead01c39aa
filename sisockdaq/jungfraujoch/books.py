"""What the stream writer remembers of its series: the same records as the file writer's, in the same journal."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from sisockdaq.acquisition import AcquisitionState, Record
from sisockdaq.frames.messages import Description
from sisockdaq.jungfraujoch.dialect import Header
from sisockdaq.jungfraujoch.series import Series
from sisockdaq.nexus.journal import Journal, Unfinished, public_record

__all__ = ["Books", "note", "run_id_of"]


class Books:
    """All series that were begun, newest first; for any thread.

    Parameters
    ----------
    path : Path or None
        Of the journal; None remembers only until the process ends.
    name : str
        Of the writer.
    """

    def __init__(self, path: Path | None, name: str) -> None:
        self._journal = Journal(path)
        self._name = name
        for left in self._journal.left_behind():
            self._close_left(left.record)

    def begin(self, record: Record, header: Header) -> None:
        """Note that a series begins."""
        image = Description(self._name, "image", header.shape or (0, 0), header.dtype or "uint16")
        self._journal.begin(Unfinished(record, header.images_per_file or 0, "", image))

    def refused(self) -> None:
        """Take back what was begun last."""
        self._journal.forget()

    def end(self, record: Record) -> None:
        """Note how the series has ended."""
        self._journal.end(record)

    def newest(self, most: int) -> list[dict[str, Any]]:
        """Return what has ended, newest first, failed series included (`nexus.journal.public_record`)."""
        return [public_record(record) for record in self._journal.newest(max(0, int(most)))]

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()

    def _close_left(self, record: Record) -> None:
        """Record a series as failed that a writer left by its death: nobody sends the rest again."""
        if self._journal.take_up(record.request.acquisition):
            record.state, record.ended = AcquisitionState.FAILED, time.time()
            record.message = "ERROR: the writer died in the middle of the series; what it had flushed can be read"
            self._journal.end(record)


def note(record: Record, series: Series) -> None:
    """Bring a record up to what is in the files of its series, for good: a kill takes nothing of it back."""
    files = series.files
    record.frames_taken = max(record.frames_taken, series.counts.received)
    if files is not None:
        record.frames_written, record.files_closed = files.images_safe, len(files.closed)
        record.files = [str(series.folder / closed.path.name) for closed in files.closed]
        record.master = str(files.master) if files.makes_master else None


def run_id_of(header: Header) -> int | str:
    """Return the mark of a series by which its sender knows it; the time [ns] where it gives none."""
    number, unique = header.key
    return unique or number or time.time_ns()
