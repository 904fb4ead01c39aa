"""What the stream writer says of itself: over HTTP, as a node's fields, in its log.

Keys of a status::

    state               READY, or WRITING
    acquisition_state   of the current or last series: WAITING_IMAGES, WRITING, FLUSHING_IMAGES, FINISHED, FAILED
    file_prefix         as the sender gave it; null before the first series
    series_id, series_unique_id, run_name, run_number
    run_id, ledger      as the file writer has them; the ledger is null while the series runs
    record              the series as std-daq has acquisitions (`nexus.journal.record_object`)
    files, master       paths of the closed data files and of the master
    message             how it fares, or why it was refused
    synchronised        whether what comes belongs to the series that is written
    desynchronised_by   why not; empty when it is
    connected           of the sender's sockets: how many are up
    images              counts by name (`series.Counts`), and ``expected``, ``waiting``, ``safe``
    progress            0 … 1, null where the number of images is not known; counts what is in files for good
    files_closed, bytes_written, frame_rate, data_rate, started, ended
    messages            unreadable, strays, metadata, metadata_strays, discarded,
                        repeated_starts, ends_lost, series_refused, republished, …
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from sisockdaq.acquisition import Record
from sisockdaq.jungfraujoch.series import Series
from sisockdaq.nexus.journal import record_object

__all__ = ["IDLE", "Tally", "Troubles", "series_status"]

_WINDOW = 3.0
"""Time over which rates are averaged [s]."""

IDLE: dict[str, Any] = {
    "acquisition_state": None,
    "file_prefix": None,
    "series_id": None,
    "series_unique_id": None,
    "run_name": None,
    "run_number": None,
    "run_id": None,
    "ledger": None,
    "record": record_object(None),
    "files": [],
    "master": None,
    "message": "",
    "images": {},
    "progress": None,
    "bytes_written": 0,
    "started": None,
    "ended": None,
}
"""What is said of the series before the first."""


@dataclass(slots=True)
class Tally:
    """Counts of messages since the writer began, and the rates of the series under way.

    Attributes
    ----------
    unreadable : int
        Messages that are no Stream V2.
    strays : int
        Images of a series that nobody began here.
    discarded : int
        Images of a series that was refused, cancelled or has failed.
    repeated_starts, ends_lost, series_refused, metadata, files_closed : int
    metadata_strays : int
        Metadata messages that came outside their series.
    collected : int or None
        Images that the detector took in this series, by its end message.
    """

    unreadable: int = 0
    strays: int = 0
    discarded: int = 0
    repeated_starts: int = 0
    ends_lost: int = 0
    series_refused: int = 0
    metadata: int = 0
    files_closed: int = 0
    metadata_strays: int = 0
    collected: int | None = None
    strays_now: int = 0
    last_problem: str = ""
    seen: deque[tuple[float, int, int]] = field(default_factory=lambda: deque([(0.0, 0, 0)]))

    def begin(self, now: float) -> None:
        """A new series begins."""
        self.collected, self.strays_now, self.last_problem = None, 0, ""
        self.seen = deque([(now, 0, 0)])

    def unreadable_message(self, reason: str) -> None:
        """Count a broken message."""
        self.unreadable += 1
        self.last_problem = reason

    def stray(self) -> None:
        """Count an image that belongs to no known series."""
        self.strays += 1
        self.strays_now += 1

    def look(self, images: int, size: int, now: float) -> None:
        """Note how much is in files at a time, for the rates."""
        self.seen.append((now, images, size))
        while len(self.seen) > 2 and now - self.seen[0][0] > _WINDOW:
            self.seen.popleft()

    def rates(self) -> tuple[float, float]:
        """Return frames and bytes per second."""
        (first, images, size), (last, images_now, size_now) = self.seen[0], self.seen[-1]
        span = last - first
        return ((images_now - images) / span, (size_now - size) / span) if span > 0 else (0.0, 0.0)

    def to_dict(self) -> dict[str, int]:
        """Return the counts by name."""
        names = ("unreadable", "strays", "discarded", "repeated_starts", "ends_lost", "series_refused", "metadata")
        return {name: getattr(self, name) for name in (*names, "metadata_strays")}


@dataclass(frozen=True, slots=True)
class Troubles:
    """Why what comes may not belong to what is written.

    Attributes
    ----------
    refused : str or None
        Why the series was refused.
    cancelled : bool
        Whether the series was ended here.
    strays : int
        Images without a start message since the last one.
    connected : int
        Sockets that are up.
    idle : bool
        Whether no series is written.
    """

    refused: str | None
    cancelled: bool
    strays: int
    connected: int
    idle: bool

    @property
    def text(self) -> str:
        """The most telling reason; empty when all is well."""
        if self.refused is not None:
            return f"the series was refused: {self.refused}"
        if self.cancelled:
            return "the series was ended here while its sender goes on"
        if self.strays:
            told = f"{self.strays} images came of a series whose start message did not come"
            if self.idle:
                told += ": the writer was started in the middle of it; it writes from the next start message on"
            return told
        return "" if self.connected else "no sender is connected"


def series_status(series: Series, tally: Tally, record: Record) -> dict[str, Any]:
    """Return what is to be said of a series."""
    header, counts, files = series.header, series.counts, series.files
    expected = tally.collected if tally.collected is not None else header.number_of_images
    written, safe = (files.images, files.images_safe) if files is not None else (0, 0)
    notes = [text for text in (record.message, series.problem, tally.last_problem) if text]
    return {
        "acquisition_state": str(record.state) if record.state else None,
        "file_prefix": header.file_prefix,
        "series_id": header.key[0],
        "series_unique_id": header.key[1],
        "run_name": header.facts.get("run_name"),
        "run_number": header.facts.get("run_number"),
        "run_id": record.request.run_id,
        "ledger": record.ledger,
        "record": record_object(record),
        "files": list(record.files),
        "master": record.master,
        "message": "; ".join(dict.fromkeys(notes)),
        "images": {
            **counts.to_dict(),
            "written": written,
            "expected": expected,
            "waiting": series.waiting,
            "safe": safe,
        },
        "progress": min(1.0, safe / expected) if expected else None,
        "bytes_written": files.bytes_written if files is not None else 0,
        "started": record.started,
        "ended": record.ended,
    }
