"""Following a feed without a gap: what to deliver, what was missed, what to ask for again.

Pure: events and answers in, `Step`s out. A feed's events are numbered within an epoch (one life of the node); a jump in
the numbers, or a new epoch, means that samples may be missing between the last one delivered and the first one of the
new event. That span is asked from the node's cache and the archives; what comes is delivered in order, and the first
sample after the gap carries a `Gap` that says what is known about it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sisockdaq.schema import Samples
from sisockdaq.wire import FeedEvent

__all__ = ["Follower", "Gap", "Step"]


@dataclass(frozen=True, slots=True)
class Gap:
    """A stretch of a feed that did not come as events.

    Attributes
    ----------
    start, end : float
        UNIX times of the last sample before it and the first event after it [s].
    events : int or None
        Events that were missed; None where the node was restarted.
    recovered : int
        Samples that were got from the node's cache or an archive.
    complete : bool
        Whether the source held everything since ``start``, so that nothing was lost.
    reason : str
    """

    start: float
    end: float
    events: int | None
    recovered: int = 0
    complete: bool = False
    reason: str = ""

    def __str__(self) -> str:
        what = "the node was restarted" if self.events is None else f"{self.events} events missed"
        outcome = f"{self.recovered} samples recovered"
        lost = "nothing lost" if self.complete else "more may be lost"
        return f"{what}{f' ({self.reason})' if self.reason else ''}: {outcome}, {lost}"


@dataclass(frozen=True, slots=True)
class Step:
    """What to do with an event: first ask for ``[ask_from, ask_until)`` if a gap is given, then deliver the samples."""

    t: npt.NDArray[np.float64]
    values: npt.NDArray[np.generic]
    gap: Gap | None = None

    @property
    def ask_from(self) -> float:
        """Just after the last sample that was delivered."""
        return math.nextafter(self.gap.start, math.inf) if self.gap else math.inf


class Follower:
    """Keeps count of one field's feed.

    Parameters
    ----------
    field : str
        The field's name at its node.
    """

    def __init__(self, field: str) -> None:
        self.field = field
        self.late = 0
        """Samples that came with a time at or before one that was delivered already; they are left out."""
        self._epoch: str | None = None
        self._sequence = -1
        self._last = -math.inf
        self._overflow = 0

    @property
    def last(self) -> float:
        """Time of the newest sample that was delivered or skipped [s]; -inf before the first."""
        return self._last

    def overflowed(self, events: int) -> None:
        """Say that so many events were thrown away before they could be looked at."""
        self._overflow += events

    def event(self, event: FeedEvent) -> Step | None:
        """Take an event; None when it has nothing of this field and nothing is missing before it."""
        gap = self._gap(event)
        if self.field not in event.data:
            return Step(np.empty(0), np.empty(0), gap) if gap else None
        new = event.t > self._last
        self.late += int(np.count_nonzero(~new))
        t, values = event.t[new], event.data[self.field][new]
        if len(t):
            order = np.argsort(t, kind="stable")
            t, values = t[order], values[order]
            self._last = float(t[-1])
        return Step(t, values, gap) if len(t) or gap else None

    def recovered(self, gap: Gap, samples: Samples | None) -> Gap:
        """Say what asking for a gap has brought."""
        if samples is None:
            return gap
        held = samples.covers_from is not None and samples.covers_from <= math.nextafter(gap.start, math.inf)
        return Gap(gap.start, gap.end, gap.events, len(samples), held and gap.events is not None, gap.reason)

    def _gap(self, event: FeedEvent) -> Gap | None:
        before, epoch = self._sequence, self._epoch
        self._sequence, self._epoch = event.sequence, event.epoch
        overflow, self._overflow = self._overflow, 0
        if epoch is None or self._last == -math.inf or not len(event.t):
            return None
        end = float(event.t.min())
        if epoch != event.epoch:
            return Gap(self._last, end, None)
        missed = event.sequence - before - 1
        if missed <= 0:
            return None
        reason = "this program was too slow" if overflow else ""
        return Gap(self._last, end, missed, reason=reason)
