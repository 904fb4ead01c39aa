"""Counters and rates of the acquisition that is being written. Pure: the caller gives the time."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from sisockdaq.acquisition import Record
from sisockdaq.frames.ledger import ConsumerPart, Ledger
from sisockdaq.frames.messages import FrameHeader
from sisockdaq.nexus.journal import record_object

__all__ = ["Progress", "record_status"]

_WINDOW = 3.0
"""Time over which rates are averaged [s]: long enough to be steady, short enough to show a change at once."""


def record_status(record: Record | None, note: str) -> dict[str, Any]:
    """Return what a status says of an acquisition; `note` is shown until it has a message of its own."""
    if record is None:
        keys = ("acquisition", "acquisition_state", "frames", "started", "ended", "ledger", "run_id", "user_id", "raw")
        return {**dict.fromkeys(keys), "message": "", "master": None, "files": [], "record": record_object(None)}
    return {
        "acquisition": record.request.acquisition,
        "acquisition_state": str(record.state) if record.state else None,
        "frames": record.request.frames,
        "started": record.started,
        "ended": record.ended,
        "ledger": record.ledger,
        "run_id": record.request.run_id,
        "user_id": record.request.user_id,
        "master": record.master,
        "files": list(record.files),
        "raw": record.raw,
        "record": record_object(record),
        "message": "; ".join(text for text in (record.message, note) if text),
    }


class Progress:
    """How far an acquisition is, and how fast.

    Attributes
    ----------
    frames : int
        Frames given to files, for the first-frame event; what is *in* the files is counted there.
    taken : int
        Frames that came to be written.
    wanted : int or None
        Frames that are expected.
    taken_back : int
        Frames whose slot the source took back before they were packed.
    discarded : int
        Frames that came after a failure or beyond the number asked for.
    results_discarded : int
        Results of a source that was not attached when the acquisition began.
    ratio : float or None
        Compression seen in the last acquisition that wrote frames.
    """

    def __init__(self) -> None:
        self.ratio: float | None = None
        self.begin(None, 0.0)

    def begin(self, wanted: int | None, now: float, *, written: int = 0, reached: int = 0, size: int = 0) -> None:
        """Forget the last acquisition; `wanted` frames are expected (None: open-ended).

        The other numbers are those of files that are gone on with: frames, index of the next one, bytes.
        """
        self.frames = self.taken_back = self.discarded = self.results_discarded = 0
        self.taken = written
        self.message = ""
        self._complete = self._packets_expected = self._packets_received = 0
        self._highest_index = -1
        self.wanted = wanted
        self._payload_bytes = 0
        self._reached, self._bytes = reached, size
        self._seen: deque[tuple[float, int, int, int]] = deque([(now, written, size, reached)])

    def note(self, text: str) -> None:
        """Remember something that a person should see, once."""
        if text not in self.message:
            self.message = f"{self.message}; {text}" if self.message else text

    def wrote(self, header: FrameHeader, payload_bytes: int) -> None:
        """Count a frame given to a file."""
        self.frames += 1
        self._payload_bytes += payload_bytes
        self._complete += header.complete
        self._packets_expected += header.packets_expected
        self._packets_received += header.packets_received
        self._highest_index = max(self._highest_index, header.index)

    def own_ledger(self, acquisition: str, writer: str, counts: Mapping[str, int]) -> dict[str, Any]:
        """Return what this writer alone knows of an acquisition whose source has gone without a ledger.

        Frames that it did not get are ``unknown``: dropped or never taken, nobody can tell any more.
        """
        ledger = Ledger(
            acquisition,
            "failed",
            packets_expected=self._packets_expected,
            packets_received=self._packets_received,
            packets_lost=self._packets_expected - self._packets_received,
            frames_expected=self._highest_index + 1,
            frames_complete=self._complete,
            frames_partial=self.frames - self._complete,
            frames_dropped={"unknown": self._highest_index + 1 - self.frames},
            frames_published=self.frames,
        )
        ledger.consumers[writer] = ConsumerPart("lossless", taken=self.frames, counts=dict(counts))
        return ledger.to_dict()

    def learn(self, frame_bytes: int) -> None:
        """Take the compression ratio over, for frames of that size before packing."""
        if self._payload_bytes:
            self.ratio = frame_bytes * self.frames / self._payload_bytes

    def look(self, written: int, bytes_written: int, reached: int, now: float) -> None:
        """Note what is in the files at a time: frames, bytes, index of the next frame."""
        self._reached, self._bytes = reached, bytes_written
        if not self._seen or now - self._seen[-1][0] >= _WINDOW / 30:
            self._seen.append((now, written, bytes_written, reached))
        while len(self._seen) > 2 and now - self._seen[0][0] > _WINDOW:
            self._seen.popleft()

    @property
    def rate(self) -> float:
        """Frames per second."""
        return self._slope(1)

    @property
    def data_rate(self) -> float:
        """Bytes per second."""
        return self._slope(2)

    @property
    def time_left(self) -> float | None:
        """Time until the last frame [s], at the pace of the last seconds; None while it cannot be told.

        A frame that was lost is not waited for: it counts as passed, like one that is in the file.
        """
        if self.wanted is None:
            return None
        left, pace = max(0, self.wanted - self._reached), self._slope(3)
        if left == 0:
            return 0.0
        return left / pace if pace > 0 else None

    def _slope(self, column: int) -> float:
        first, last = self._seen[0], self._seen[-1]
        span = last[0] - first[0]
        return (last[column] - first[column]) / span if span > 0 else 0.0

    def to_dict(self, *, running: bool, coming: bool = True) -> dict[str, Any]:
        """Return the numbers of the status; rates are 0 when nothing runs, no time is told when no frames come."""
        return {
            "bytes_written": self._bytes,
            "rate": self.rate if running else 0.0,
            "data_rate": self.data_rate if running else 0.0,
            "time_left": self.time_left if running and coming else None,
            "compression_ratio": self.ratio,
            "frames_taken_back": self.taken_back,
            "frames_discarded": self.discarded,
            "results_discarded": self.results_discarded,
        }
