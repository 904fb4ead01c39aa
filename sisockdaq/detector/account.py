"""A receiver's books of an acquisition: which frame is its first, which index each has, what was lost.

Pure: requests and finished frames go in, marks and an index come out, so that the rules can be tested as tables:

- The first frame of an acquisition is the first that begins after it was armed (or the number it was armed with).
- ``index = number − first``. A number between two frames that never came is a frame dropped for "no_packet". Where the
  image id is a bunch id, numbers say nothing about what is missing: frames are then counted as they come.
- When the numbers fall back, the detector has begun anew; the index goes on.
- After its last frame, or when asked to stop, the acquisition ends at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sisockdaq.errors import AcquisitionRefused
from sisockdaq.frames.messages import NO_ACQUISITION, Arm, End, Start

__all__ = ["Account", "Outcome"]

Outcome = Literal["published", "ring_full", "policy"]


@dataclass
class _Acquisition:
    arm: Arm
    before: set[int]
    """Numbers of the frames that were being assembled when it was armed."""
    first: int | None = None
    started: bool = False
    last_number: int = -1
    handled: int = 0
    """Index of the next frame: all below are counted."""
    complete: int = 0
    partial: int = 0
    received: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    baseline: Mapping[str, int] = field(default_factory=dict)


class Account:
    """The books of one receiver.

    Parameters
    ----------
    packets_per_frame : int
    consecutive : bool
        Whether frame numbers go up by one from frame to frame (False for bunch ids).
    """

    def __init__(self, packets_per_frame: int, *, consecutive: bool = True) -> None:
        self._packets = packets_per_frame
        self._consecutive = consecutive
        self.missing = 0
        """Frames of all acquisitions of which no packet came."""
        self._now: _Acquisition | None = None

    @property
    def acquisition(self) -> str | None:
        """Name of the acquisition that is under way, armed ones included."""
        return self._now.arm.acquisition if self._now else None

    @property
    def progress(self) -> tuple[int, int | None]:
        """Frames handled so far, and how many are wanted (None: open-ended)."""
        return (self._now.handled, self._now.arm.frames) if self._now else (0, None)

    def arm(self, arm: Arm, being_assembled: Iterable[int], counters: Mapping[str, int]) -> list[Start | End]:
        """Begin an acquisition with the next new frame; returns the marks to send now.

        Raises
        ------
        AcquisitionRefused
            When one is under way, or the request makes no sense.
        """
        if self._now is not None:
            raise AcquisitionRefused(
                f'cannot begin "{arm.acquisition}": "{self.acquisition}" is under way', remedy="stop it first"
            )
        first = arm.meta.get("first_frame")
        if arm.frames is not None and arm.frames < 1:
            raise AcquisitionRefused(f'cannot begin "{arm.acquisition}" with {arm.frames} frames', remedy="at least 1")
        if first is not None and (not isinstance(first, int) or first < 0):
            raise AcquisitionRefused(f'cannot begin "{arm.acquisition}": first_frame {first!r} is no frame number')
        self._now = _Acquisition(arm, set(being_assembled) if first is None else set(), first, baseline=dict(counters))
        return self._start() if first is None and not self._now.before else []

    def stop(
        self, acquisition: str, reason: Literal["stopped", "failed"], counters: Mapping[str, int]
    ) -> list[Start | End]:
        """End the acquisition of that name; nothing happens when another, or none, is under way."""
        if self._now is None or self.acquisition != acquisition:
            return []
        return [*self._start(), *self._end(reason, counters)]

    def place(self, number: int, counters: Mapping[str, int]) -> tuple[list[Start | End], int]:
        """Say which marks go before a finished frame, and which index it has; call `count` after it.

        Frames come in the order in which they are published.
        """
        now = self._now
        if now is None:
            return [], NO_ACQUISITION
        if now.before:
            now.before.discard(number)
            return [], NO_ACQUISITION
        if now.first is None or (self._consecutive and now.started and number < now.last_number):
            now.first = number - now.handled
        if number < now.first and not now.started:
            return [], NO_ACQUISITION
        marks = self._start()
        index = number - now.first if self._consecutive else now.handled
        wanted = now.arm.frames
        missing = (index if wanted is None else min(index, wanted)) - now.handled
        if missing > 0:
            now.dropped["no_packet"] = now.dropped.get("no_packet", 0) + missing
            now.handled += missing
            self.missing += missing
        now.last_number = number
        if wanted is not None and index >= wanted:
            return [*marks, *self._end("complete", counters)], NO_ACQUISITION
        return marks, index

    def count(self, index: int, received: int, outcome: Outcome, counters: Mapping[str, int]) -> list[Start | End]:
        """Enter what became of the frame that `place` gave this index; returns the marks to send after it."""
        now = self._now
        if now is None:
            return []
        if index == NO_ACQUISITION:
            return self._start() if now.first is None and not now.before else []
        now.handled = index + 1
        now.received += received
        if outcome != "published":
            now.dropped[outcome] = now.dropped.get(outcome, 0) + 1
        elif received == self._packets:
            now.complete += 1
        else:
            now.partial += 1
        return self._end("complete", counters) if now.handled == now.arm.frames else []

    def _start(self) -> list[Start | End]:
        now = self._now
        if now is None or now.started:
            return []
        now.started = True
        return [Start(now.arm.acquisition, now.arm.frames, now.arm.meta)]

    def _end(self, reason: Literal["complete", "stopped", "failed"], counters: Mapping[str, int]) -> list[Start | End]:
        now, self._now = self._now, None
        assert now is not None
        since = {kind: counters.get(kind, 0) - now.baseline.get(kind, 0) for kind in counters}
        counts: dict[str, Any] = {
            "packets_expected": now.handled * self._packets,
            "packets_received": now.received,
            "packets_lost": now.handled * self._packets - now.received,
            "packets_late": since.pop("late", 0),
            "packets_duplicate": since.pop("duplicate", 0),
            "packets_invalid": {kind: n for kind, n in since.items() if n},
            "frames_expected": now.handled,
            "frames_complete": now.complete,
            "frames_partial": now.partial,
            "frames_dropped": now.dropped,
        }
        return [End(now.arm.acquisition, reason, counts)]
