"""Watching a field: one sample after the other as they are made, and what was missed.

`Watch` listens to the field's feed. Policy ``lossless``: every sample; what was missed (a lost connection, a program
that was too slow, a node that was restarted) is asked again from the node's cache and the archives. Policy ``latest``:
the newest sample, however many were passed over (`Sample.skipped` says how many). The queue between the network and
the program holds `QUEUE` events; when it is full the oldest go, and under ``lossless`` they are asked for again.

A field without a feed (an older node, an image) is asked for at its interval instead.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import numpy.typing as npt
from twisted.logger import Logger

from sisockdaq.client._dataset import axis_values
from sisockdaq.client._following import Follower, Gap, Step
from sisockdaq.errors import DeadlineExceeded, ReplyInvalid, SisockdaqError
from sisockdaq.schema import Field, Samples
from sisockdaq.wire import FeedEvent

if TYPE_CHECKING:
    from sisockdaq.client._asking import Asker, Source
    from sisockdaq.client._network import Network

__all__ = ["QUEUE", "Sample", "Watch", "WatchPolicy"]

WatchPolicy = Literal["lossless", "latest"]

QUEUE = 1000
"""Events that wait for the program: ten seconds of a feed at its highest rate."""

FASTEST_POLL, SLOWEST_POLL = 0.1, 5.0
"""Bounds of the time between two questions for a field without a feed [s]."""

_log = Logger("sisockdaq.client")


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample of a watched field.

    Attributes
    ----------
    name : str
        Full name of the field.
    t : float
        UNIX time [s].
    value : float, bool, str or ndarray
    units : str or None
    axis : ndarray or None
        Positions along the last dimension of an array.
    gap : Gap or None
        What was missed before this sample, and what became of it.
    skipped : int
        Under ``latest``: newer samples took the place of so many.
    """

    name: str
    t: float
    value: Any
    units: str | None = None
    axis: npt.NDArray[np.float64] | None = None
    gap: Gap | None = None
    skipped: int = 0

    @property
    def values(self) -> Any:
        """The value, under the name that it has in a `FieldData`."""
        return self.value


class Watch:
    """An endless iterator over a field's new samples; close it, or use it as a context manager.

    Parameters
    ----------
    name : str
        Full name.
    source : Source
        The live node.
    policy : {"lossless", "latest"}
    timeout : float or None
        Longest wait for a sample [s]; None: as long as it takes.
    interval : float or None
        The timeline's interval [s], for a field without a feed.
    """

    def __init__(
        self,
        network: Network,
        asker: Asker,
        name: str,
        source: Source,
        *,
        policy: WatchPolicy = "lossless",
        timeout: float | None = None,
        interval: float | None = None,
    ) -> None:
        self.name = name
        self.policy = policy
        self.timeout = timeout
        self.gaps: list[Gap] = []
        """Everything that was missed so far."""
        self._asker = asker
        self._source = source
        self._axis = axis_values(source.entry.axes)
        self._follower = Follower(source.field)
        self._events: deque[FeedEvent] = deque()
        self._lost_events = 0
        self._ready: deque[Sample] = deque()
        self._condition = threading.Condition()
        self._closed = False
        self._poll = min(max(interval or 1.0, FASTEST_POLL), SLOWEST_POLL)
        self._last_poll = -math.inf
        self._polled_until = -math.inf
        self._feeding = source.entry.feed
        topic = f"consumer.{source.node}.feed.{source.entry.timeline}"
        self._subscription = network.subscribe(topic, self._on_event) if self._feeding else None

    @property
    def field(self) -> Field:
        """The field's entry in the listing."""
        return self._source.entry

    @property
    def late(self) -> int:
        """Samples that came with an earlier time than one delivered before; they are left out."""
        return self._follower.late

    def __iter__(self) -> Iterator[Sample]:
        return self

    def __next__(self) -> Sample:
        """Wait for the next sample.

        Raises
        ------
        StopIteration
            When the watch was closed.
        DeadlineExceeded
            When none came within ``timeout``.
        """
        deadline = math.inf if self.timeout is None else time.monotonic() + self.timeout
        while not self._ready:
            if self._closed:
                raise StopIteration
            if time.monotonic() >= deadline:
                raise DeadlineExceeded(f"no sample of {self.name} came within {self.timeout:g} s")
            if self._feeding:
                self._take_events(deadline)
            else:
                self._ask_newest(deadline)
        if self.policy == "latest" and len(self._ready) > 1:
            return self._newest()
        return self._ready.popleft()

    def close(self) -> None:
        """Stop; a program that waits for a sample goes on at once."""
        with self._condition:
            if self._closed:
                return
            self._closed = True
            self._condition.notify_all()
        if self._subscription is not None:
            self._subscription.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # In the reactor's thread.

    def _on_event(self, message: Any, *_: Any) -> None:
        try:
            event = FeedEvent.parse(message)
        except ReplyInvalid as error:
            _log.warn("{name}: {error}", name=self.name, error=str(error))
            return
        with self._condition:
            if len(self._events) >= QUEUE:
                self._events.popleft()
                self._lost_events += 1
            self._events.append(event)
            self._condition.notify_all()

    # In the program's thread.

    def _take_events(self, deadline: float) -> None:
        with self._condition:
            if not self._events:
                self._condition.wait(_wait(deadline))
            events, lost = list(self._events), self._lost_events
            self._events.clear()
            self._lost_events = 0
        if lost:
            self._follower.overflowed(lost)
        for event in events:
            step = self._follower.event(event)
            if step is not None:
                self._deliver(step)

    def _deliver(self, step: Step) -> None:
        gap = step.gap
        if gap is not None:
            recovered = self._recover(step) if self.policy == "lossless" else None
            gap = self._follower.recovered(gap, recovered)
            self.gaps.append(gap)
            if recovered is not None and len(recovered):
                self._queue(recovered.t, recovered.values, gap)
                gap = None
        self._queue(step.t, step.values, gap)

    def _recover(self, step: Step) -> Samples | None:
        assert step.gap is not None
        try:
            data = self._asker.joined(self.name, step.ask_from, step.gap.end)
        except SisockdaqError as error:
            _log.warn("{name}: what was missed cannot be had: {error}", name=self.name, error=str(error))
            return None
        return data

    def _queue(self, t: npt.NDArray[np.float64], values: npt.NDArray[Any], gap: Gap | None) -> None:
        for time_, value in zip(t.tolist(), values, strict=True):
            plain = value.item() if isinstance(value, np.generic) else value
            self._ready.append(Sample(self.name, time_, plain, self.field.units, self._axis, gap))
            gap = None

    def _newest(self) -> Sample:
        gap = next((sample.gap for sample in self._ready if sample.gap), None)
        last, skipped = self._ready[-1], len(self._ready) - 1
        self._ready.clear()
        return Sample(last.name, last.t, last.value, last.units, last.axis, gap, skipped)

    def _ask_newest(self, deadline: float) -> None:
        """Ask a field without a feed: everything since the last time, or the newest."""
        with self._condition:
            pause = self._last_poll + self._poll - time.monotonic()
            if pause > 0:
                self._condition.wait(min(pause, _wait(deadline)))
                return
        self._last_poll = time.monotonic()
        since = self._polled_until
        if self.policy == "latest" or since == -math.inf:
            samples = self._asker.latest(self._source)
        else:
            samples = self._asker.samples(self._source, math.nextafter(since, math.inf), time.time() + 1.0)
        new = samples.t > since
        if new.any():
            self._polled_until = float(samples.t[-1])
            self._queue(samples.t[new], samples.values[new], None)


def _wait(deadline: float) -> float:
    """Return how long one wait may be [s]; bounded, so that Ctrl-C and `close` are never far."""
    return min(max(deadline - time.monotonic(), 0.0), 1.0)
