"""Counters and rates of the acquisition that is being written. Pure: the caller gives the time."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from sisockdaq.acquisition import Record
from sisockdaq.frames.ledger import ConsumerPart, Ledger
from sisockdaq.frames.messages import FrameHeader

__all__ = ["Progress", "record_status"]

_WINDOW = 3.0
"""Time over which rates are averaged [s]: long enough to be steady, short enough to show a change at once."""


def record_status(record: Record | None, note: str) -> dict[str, Any]:
    """Return what a status says of an acquisition; `note` is shown until it has a message of its own."""
    if record is None:
        keys = ("acquisition", "acquisition_state", "frames", "started", "ended", "ledger")
        return {**dict.fromkeys(keys), "message": ""}
    return {
        "acquisition": record.request.acquisition,
        "acquisition_state": str(record.state),
        "frames": record.request.frames,
        "started": record.started,
        "ended": record.ended,
        "ledger": record.ledger,
        "message": "; ".join(text for text in (record.message, note) if text),
    }


class Progress:
    """How far an acquisition is, and how fast.

    Attributes
    ----------
    frames : int
        Frames given to files, for the first-frame event; what is *in* the files is counted there.
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

    def begin(self, wanted: int | None, now: float) -> None:
        """Forget the last acquisition; `wanted` frames are expected (None: open-ended)."""
        self.frames = self.taken_back = self.discarded = self.results_discarded = 0
        self.message = ""
        self._complete = self._packets_expected = self._packets_received = 0
        self._highest_index = -1
        self._wanted = wanted
        self._payload_bytes = 0
        self._written = self._bytes = 0
        self._seen: deque[tuple[float, int, int]] = deque([(now, 0, 0)])

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

    def look(self, written: int, bytes_written: int, now: float) -> None:
        """Note what is in the files at a time, for the rates."""
        self._written, self._bytes = written, bytes_written
        if not self._seen or now - self._seen[-1][0] >= _WINDOW / 30:
            self._seen.append((now, written, bytes_written))
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
        """Time until all frames are in the file [s]; None while it cannot be told."""
        if self._wanted is None or self.rate <= 0:
            return None
        return max(0, self._wanted - self._written) / self.rate

    def _slope(self, column: int) -> float:
        first, last = self._seen[0], self._seen[-1]
        span = last[0] - first[0]
        return (last[column] - first[column]) / span if span > 0 else 0.0

    def to_dict(self, *, running: bool) -> dict[str, Any]:
        """Return the numbers of the status; rates are 0 when nothing runs."""
        return {
            "bytes_written": self._bytes,
            "rate": self.rate if running else 0.0,
            "data_rate": self.data_rate if running else 0.0,
            "time_left": self.time_left if running else None,
            "compression_ratio": self.ratio,
            "frames_taken_back": self.taken_back,
            "frames_discarded": self.discarded,
            "results_discarded": self.results_discarded,
        }
