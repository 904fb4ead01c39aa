"""Keeping one timeline of one node whole: what goes to disk now, and from when on the node must be asked. Pure.

A feed's events are numbered within an epoch (one life of the node). At the beginning, after a new login, and at each
jump of the numbers, the node's cache is asked for everything after the newest sample that was handed over; what comes
by feed in the meantime waits. Samples that come both ways are known by their time and handed over once.

Policy: at most `WAITING` events wait for an answer; when more come all of them go, and the cache is asked once more.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from sisockdaq.schema import Samples
from sisockdaq.wire import FeedEvent

__all__ = ["WAITING", "Following", "Rows"]

WAITING = 2000
"""Events that wait while the node is asked: ten seconds of a feed at its highest rate."""

Rows = tuple[npt.NDArray[np.float64], dict[str, npt.NDArray[Any]]]
"""Times and, by field, values of samples to be handed over."""


@dataclass(slots=True)
class Following:
    """One timeline's state.

    Parameters
    ----------
    node, timeline : str
    fields : set of str
        The wanted fields.
    newest : dict of str to float
        Up to which time each field was handed over [s]; a field that never was is not in it.

    Attributes
    ----------
    asking : bool
        Whether an answer of the node is due; until then events wait.
    gaps : list of str
        Stretches that the node no longer had, in words; for the caller to take.
    lost : int
        Samples that came and are known to be lost: refused by the queue, and no longer in the node's cache.
    """

    node: str
    timeline: str
    fields: set[str] = field(default_factory=set)
    newest: dict[str, float] = field(default_factory=dict)
    asking: bool = True
    gaps: list[str] = field(default_factory=list)
    lost: int = 0
    _epoch: str | None = None
    _sequence: int = -1
    _events: list[FeedEvent] = field(default_factory=list)
    _overflowed: bool = False
    _answered: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    _refused: dict[str, int] = field(default_factory=dict)

    def begin(self) -> None:
        """Begin anew, as after a login: what is known of the feed's numbers is worth nothing."""
        self.asking, self._epoch, self._events, self._overflowed = True, None, [], False

    def event(self, event: FeedEvent) -> list[Rows]:
        """Take an event; return what is to be handed over at once. `asking` may be true afterwards."""
        if self.asking:
            if len(self._events) >= WAITING:
                self._events, self._overflowed = [], True
            self._events.append(event)
            return []
        if self._epoch is not None and (event.epoch, event.sequence) != (self._epoch, self._sequence + 1):
            self.asking, self._events, self._overflowed = True, [event], False
            return []
        return self._take(event)

    def ask_from(self, name: str) -> float:
        """Return the time from which on a field's samples are wanted; 1 for all that there are."""
        return max(math.nextafter(self.newest[name], math.inf), 1.0) if name in self.newest else 1.0

    def answered(self, samples: Mapping[str, Samples]) -> None:
        """Note what the node has answered for some fields, before it is handed over."""
        for name, found in samples.items():
            if self._refused.get(name) or name in self.newest:
                self._judge(name, found)
            if len(found):
                known = self._answered.get(name)
                self._answered[name] = found.t if known is None else np.concatenate([known, found.t])

    def caught_up(self) -> list[Rows]:
        """Return what has waited, once all fields were answered; `asking` is true again when more was missed."""
        self.asking = False
        waiting, self._events = self._events, []
        if self._overflowed:
            # Only what came after the overflow is here; the next answer has the rest.
            self.asking, self._overflowed, self._events, self._epoch = True, False, waiting, None
            return []
        rows: list[Rows] = []
        for place, event in enumerate(waiting):
            if place and (event.epoch, event.sequence) != (self._epoch, self._sequence + 1):
                self.asking, self._events = True, waiting[place:]
                break
            rows += self._take(event)
        return rows

    def handed(self, t: npt.NDArray[np.float64], names: Iterable[str]) -> None:
        """Say that the queue has taken samples of those fields."""
        newest = float(t.max()) if len(t) else -math.inf
        for name in names:
            self.newest[name] = max(newest, self.newest.get(name, -math.inf))

    def refused(self, rows: int, names: Iterable[str]) -> None:
        """Say that the queue has refused samples of those fields: the node is to be asked for them later."""
        self.asking, self._events, self._epoch = True, [], None
        for name in names:
            self._refused[name] = self._refused.get(name, 0) + rows

    def _judge(self, name: str, found: Samples) -> None:
        """Tell whether the node still had everything since the newest sample."""
        refused, wanted = self._refused.pop(name, 0), self.ask_from(name)
        if name not in self.newest or found.covers_from is None or found.covers_from <= wanted:
            return
        self.lost += max(0, refused - len(found))
        until = f"{found.t[0]:.3f}" if len(found) else "now"
        self.gaps.append(f"{self.node}::{name}: samples from {self.newest[name]:.3f} to {until} may be lost")

    def _take(self, event: FeedEvent) -> list[Rows]:
        """Count an event as seen; return those of its samples that no answer has had."""
        self._epoch, self._sequence = event.epoch, event.sequence
        groups: dict[bytes, Rows] = {}
        for name in self.fields & event.data.keys() if len(event.t) else ():
            fresh = self._fresh(name, event.t)
            _, data = groups.setdefault(fresh.tobytes(), (event.t[fresh], {}))
            data[name] = event.data[name][fresh]
        return [rows for rows in groups.values() if len(rows[0])]

    def _fresh(self, name: str, t: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        times = self._answered.get(name)
        if times is None:
            return np.ones(len(t), np.bool_)
        if not len(times) or t.min() > times.max():
            del self._answered[name]  # the feed has passed what was asked for
        return ~np.isin(t, times)
