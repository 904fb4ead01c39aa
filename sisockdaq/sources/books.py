"""The books of a source whose images come whole: which image belongs to an acquisition, and what was lost.

Pure: requests, series and images go in, marks and indices come out.

- An acquisition begins when it is armed; its first image is the next that comes, or the first of the series that
  begins next. ``index = number − first``, so an image that did not come leaves a gap; numbers of a later series go on
  behind those of the one before. Where numbers are only labels (``consecutive`` False), images are counted as they
  come.
- An image that came before is a duplicate, and passed over. One beyond the wanted number ends the acquisition where
  images come in order; otherwise it is passed over, as earlier ones may still come.
- An acquisition ends when all wanted images are accounted for, with the series when it is open-ended, as failed when
  the series broke off, or when asked to. What had not come by then is dropped for "not_received".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sisockdaq.errors import AcquisitionRefused
from sisockdaq.frames.messages import NO_ACQUISITION, Arm, End, Start

__all__ = ["Books", "Outcome"]

Outcome = Literal["published", "ring_full", "damaged", "wrong_shape"]

Marks = list[Start | End]


_HIGHEST = 2**31 - 1
"""Largest number of an image after the first of its series; a larger one is a broken message."""


class _Seen:
    """A set of small whole numbers, a bit each: a long series costs little."""

    def __init__(self) -> None:
        self._bits = bytearray()
        self.count = 0
        self.reached = 0
        """The highest number and one; 0 of an empty set."""

    def __contains__(self, number: int) -> bool:
        return number < self.reached and bool(self._bits[number >> 3] >> (number & 7) & 1)

    def add(self, number: int) -> None:
        if number in self:
            return
        if number >> 3 >= len(self._bits):
            self._bits.extend(bytes(max((number >> 3) + 1 - len(self._bits), len(self._bits))))
        self._bits[number >> 3] |= 1 << (number & 7)
        self.count += 1
        self.reached = max(self.reached, number + 1)


@dataclass
class _Acquisition:
    arm: Arm
    baseline: Mapping[str, int]
    base: int = 0
    """Index of the first image of the series."""
    first: int | None = None
    """Number of that image; None until it is known."""
    seen: _Seen = field(default_factory=_Seen)
    complete: int = 0
    dropped: dict[str, int] = field(default_factory=dict)


class Books:
    """The books of one source.

    Parameters
    ----------
    consecutive : bool
        Whether numbers go up by one from image to image.
    ordered : bool
        Whether images come in the order of their numbers.
    """

    def __init__(self, *, consecutive: bool = True, ordered: bool = True) -> None:
        self._consecutive, self._ordered = consecutive, ordered
        self._now: _Acquisition | None = None
        self._announced: int | None = None
        self._first: int | None = None
        self._begun = False
        self._numbers = _Seen()
        self.missing = 0
        """Images of all acquisitions that did not come."""
        self.duplicates = 0

    @property
    def acquisition(self) -> str | None:
        """Name of the acquisition under way."""
        return self._now.arm.acquisition if self._now else None

    @property
    def progress(self) -> tuple[int, int | None]:
        """Images accounted for, and how many are wanted (None: open-ended)."""
        return (self._now.seen.count, self._now.arm.frames) if self._now else (0, None)

    def arm(self, arm: Arm, counters: Mapping[str, int]) -> Marks:
        """Begin an acquisition with the next image; returns the marks to send now.

        Raises
        ------
        AcquisitionRefused
            When one is under way, or the request makes no sense.
        """
        if self._now is not None:
            raise AcquisitionRefused(
                f'cannot begin "{arm.acquisition}": "{self.acquisition}" is under way', remedy="stop it first"
            )
        if arm.frames is not None and arm.frames < 1:
            raise AcquisitionRefused(f'cannot begin "{arm.acquisition}" with {arm.frames} frames', remedy="at least 1")
        self._now = _Acquisition(arm, dict(counters))
        if self._first is not None and not self._begun:  # the series was announced, and nothing of it has come yet
            self._now.first = self._first
        return [Start(arm.acquisition, arm.frames, arm.meta)]

    def stop(self, acquisition: str, reason: Literal["stopped", "failed"], counters: Mapping[str, int]) -> Marks:
        """End the acquisition of that name; nothing happens when another, or none, is under way."""
        if self._now is None or self.acquisition != acquisition:
            return []
        return self._end(reason, counters, self._reached(self._now))

    def begin_series(self, first: int, announced: int | None) -> None:
        """Note that a series begins: its numbers count from `first`, and `announced` images will come."""
        self._first, self._announced, self._begun = first, announced, False
        self._numbers = _Seen()
        if self._now is not None:
            self._now.base = self._reached(self._now)
            self._now.first = first

    def end_series(self, why: str, counters: Mapping[str, int]) -> Marks:
        """Note that the series has ended, or broken off (`why`); returns the marks to send."""
        now, announced = self._now, self._announced
        first, self._first, self._announced = self._first, None, None
        if now is None or first is None:
            return []
        reached = self._reached(now)
        if announced is not None and now.first is not None and not why and self._consecutive:
            reached = max(reached, now.base + first + announced - now.first)
        wanted = now.arm.frames
        if wanted is not None and reached >= wanted:
            return self._end("complete", counters, wanted)
        if why:
            return self._end("failed", counters, reached)
        if wanted is None and reached:
            return self._end("complete", counters, reached)
        now.base, now.first = reached, None
        return []

    def place(self, number: int, counters: Mapping[str, int]) -> tuple[Marks, int | None]:
        """Say which marks go before an image, and its index; None for one that came before.

        Call `count` with the index afterwards.
        """
        self._begun = True
        if self._is_again(number):
            self.duplicates += 1
            return [], None
        now = self._now
        if now is None:
            return [], NO_ACQUISITION
        if not self._consecutive:
            return [], now.seen.count
        if now.first is None:
            now.first = number
        index = now.base + number - now.first
        wanted = now.arm.frames
        if not now.base <= index <= _HIGHEST:
            return [], NO_ACQUISITION
        if wanted is not None and index >= wanted:
            return (self._end("complete", counters, wanted) if self._ordered else []), NO_ACQUISITION
        return [], index

    def count(self, index: int, outcome: Outcome, counters: Mapping[str, int]) -> Marks:
        """Enter what became of the image that `place` gave this index; returns the marks to send after it."""
        now = self._now
        if now is None or index == NO_ACQUISITION:
            return []
        now.seen.add(index)
        if outcome == "published":
            now.complete += 1
        else:
            now.dropped[outcome] = now.dropped.get(outcome, 0) + 1
        wanted = now.arm.frames
        last = self._ordered and wanted is not None and index == wanted - 1
        return self._end("complete", counters, wanted or 0) if last or now.seen.count == wanted else []

    def _is_again(self, number: int) -> bool:
        """Whether this image of the series has come before; notes that it has come now."""
        place = number - (self._first or 0)
        if not self._consecutive or self._first is None or not 0 <= place <= _HIGHEST:
            return False
        again = place in self._numbers
        self._numbers.add(place)
        return again

    def _reached(self, now: _Acquisition) -> int:
        """Images from the first to the highest that came."""
        return max(now.base, now.seen.reached)

    def _end(
        self, reason: Literal["complete", "stopped", "failed"], counters: Mapping[str, int], expected: int
    ) -> Marks:
        now, self._now = self._now, None
        assert now is not None
        missing = expected - now.seen.count
        if missing > 0:
            now.dropped["not_received"] = now.dropped.get("not_received", 0) + missing
            self.missing += missing
        refused = {kind: counters[kind] - now.baseline.get(kind, 0) for kind in counters}
        counts: dict[str, Any] = {
            "frames_expected": expected,
            "frames_complete": now.complete,
            "frames_partial": 0,
            "frames_dropped": now.dropped,
            "messages_refused": {kind: n for kind, n in refused.items() if n},
        }
        return [End(now.arm.acquisition, reason, counts)]
