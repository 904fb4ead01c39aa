"""A node's live feeds: new samples become events, promptly and without flooding.

A feed that has been idle for `PERIOD` publishes a new sample at once; a busy one collects what comes within `PERIOD`
into one event, so at most 200 events a second leave, however fast samples come. An event holds at most `EVENT_BYTES`.
Its sequence number counts every event that was due: where the router is away, or takes too little, the event is
dropped and the next number shows the gap to the subscriber, who can ask for the missing samples.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from sisockdaq._wamp.link import the_reactor
from sisockdaq.series import Timeline
from sisockdaq.wire import encode_event

__all__ = ["EVENT_BYTES", "PERIOD", "Feeds"]

LARGEST_EVENT = 8 << 20
"""A single sample larger than this is dropped [bytes]: half the router's limit. Such arrays are asked for, not fed."""

PERIOD = 0.005
"""Shortest time between two events of one feed [s].

Shorter than the time between frames at 100 frames a second, so that such a feed never waits; long enough that a feed of
thousands of samples a second costs router and subscriber a few per cent of a core."""

EVENT_BYTES = 1 << 20
"""Largest event; a single sample may be larger [bytes]."""


class Feeds:
    """All feeds of one node.

    Parameters
    ----------
    publish : callable
        ``publish(timeline, event)`` sends one event; returns False when it cannot be sent now.
    """

    def __init__(self, publish: Callable[[str, dict[str, Any]], bool]) -> None:
        self.epoch = uuid.uuid4().hex
        self.dropped = 0
        self._publish = publish
        self._sequence: dict[str, int] = {}
        self._last: dict[str, float] = {}
        self._due: set[str] = set()
        self._lock = threading.Lock()

    def watch(self, timeline: Timeline) -> None:
        """Publish what is appended to the timeline from now on."""
        timeline.on_append = self._appended

    def send(self, timeline: str, t: npt.ArrayLike, data: Mapping[str, npt.ArrayLike]) -> None:
        """Publish samples at once, in the reactor's thread."""
        times = np.atleast_1d(np.asarray(t, np.float64))
        columns = {name: _as_column(values, len(times)) for name, values in data.items()}
        for part, values in _split(times, columns):
            number = self._sequence.get(timeline, 0)
            self._sequence[timeline] = number + 1
            too_large = sum(column.nbytes for column in values.values()) > LARGEST_EVENT
            if too_large or not self._publish(timeline, encode_event(self.epoch, number, part, values)):
                self.dropped += 1

    def _appended(self, timeline: Timeline) -> None:
        """Arrange for one look at the timeline; called in any thread, for every append."""
        with self._lock:
            if timeline.name in self._due:
                return
            self._due.add(timeline.name)
        the_reactor().callFromThread(self._schedule, timeline)

    def _schedule(self, timeline: Timeline) -> None:
        reactor = the_reactor()
        wait = self._last.get(timeline.name, -PERIOD) + PERIOD - reactor.seconds()
        if wait > 0:
            reactor.callLater(wait, self._flush, timeline)
        else:
            self._flush(timeline)

    def _flush(self, timeline: Timeline) -> None:
        self._last[timeline.name] = the_reactor().seconds()
        with self._lock:
            # Before the drain: what is appended from here on arranges its own look.
            self._due.discard(timeline.name)
        for t, data in timeline.drain():
            self.send(timeline.name, t, data)


def _as_column(values: Any, rows: int) -> npt.NDArray[Any]:
    column = values if isinstance(values, np.ndarray) else np.asarray(values, object if _textual(values) else None)
    return column.reshape(1) if column.ndim == 0 and rows == 1 else column


def _textual(values: Any) -> bool:
    first = values if isinstance(values, str) else next(iter(values), None) if isinstance(values, list) else None
    return isinstance(first, str) or first is None


def _split(
    t: npt.NDArray[np.float64], data: dict[str, npt.NDArray[Any]]
) -> Iterator[tuple[npt.NDArray[np.float64], dict[str, npt.NDArray[Any]]]]:
    """Cut a block into events of at most `EVENT_BYTES`, of one sample at least."""
    total = t.nbytes + sum(column.nbytes for column in data.values())
    rows = max(1, len(t) * EVENT_BYTES // total) if total > EVENT_BYTES else max(1, len(t))
    for start in range(0, len(t), rows):
        yield t[start : start + rows], {name: column[start : start + rows] for name, column in data.items()}
