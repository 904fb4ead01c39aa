"""Integrate frames as they come: images in from one source, results out to a ring of their own and to a callback.

Policy
------
- Marks are handed on: an acquisition of results begins and ends with the acquisition of images, and each result has
  its image's number, time and index.
- Results never hold images back. When their ring is full (a writer hangs), the result is dropped from the ring, counted
  under ``ring_full``, and still goes to the callback.
- Images of another shape than the geometry's are not touched: they are given back unused (so that their source counts
  them as dropped here), and `problem` says why.
- The fill value of lost packets is the source's: pixels that have it are left out.
- How frames are reduced changes between two of them (`between_frames`), never within one.
- A frame whose monitor or transmission is a field of another node is summed and let go of at once; only its sums wait
  for the value of its time (`factors`), and marks behind it wait with it. At most `MOST_WAITING` frames and
  `_WAITING_BYTES` wait: then the oldest gets what is there. A frame without a usable value has no intensities; it is
  counted, and `LiveState.not_normalized` and `unknown_factor` tell.

One thread calls `step` (or `run`); `state` may be looked at from any.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from sisockdaq.errors import FrameSourceError, SisockdaqError
from sisockdaq.frames import (
    Attached,
    BorrowedFrame,
    Consumer,
    Description,
    Detached,
    End,
    FrameHeader,
    Mark,
    Producer,
    Report,
    Settled,
    Start,
)
from sisockdaq.integrate.factors import FrameFactors
from sisockdaq.integrate.reduction import CurveAxis, Reduced, Reducer

__all__ = [
    "MOST_WAITING",
    "LiveIntegration",
    "LiveState",
    "curve_fields",
    "curve_values",
    "error_name",
    "result_slots",
    "results_description",
]

_log = logging.getLogger(__name__)

_PATIENCE = 0.2
"""Longest wait for a frame before the thread looks whether it should end [s]."""

_SETTLE_DEADLINE = 10.0
"""Time that consumers of results have for their reports [s]."""

MOST_WAITING = 2000
"""Frames whose sums wait for their monitor at most: two seconds of them at 1 kHz."""

_WAITING_BYTES = 256 << 20
"""Memory of the cakes among them, beside which curves weigh little."""

_LOOK = 0.005
"""How often is looked for a monitor while frames wait for theirs [s]."""

_RING_BYTES = 64 << 20
_MOST_SLOTS = 1024
_FEWEST_SLOTS = 16

OnResult = Callable[[FrameHeader, Reduced], None]

T = TypeVar("T")


@dataclass(slots=True)
class LiveState:
    """What the integration has done; numbers only grow.

    Attributes
    ----------
    integrated : int
        Frames that became a curve.
    dropped : int
        Frames that came and did not: of another shape, overtaken, or failed.
    results_dropped : int
        Curves that did not get into their ring, because it was full.
    attached : bool
        Whether the source of images is there.
    acquisition : str or None
        The one under way.
    problem : str
        Why frames do not become curves; "" when they do.
    not_normalized : int
        Frames without intensities, because their monitor or transmission was missing or not above 0.
    unknown_factor : str
        What was wrong with those of the last frame; "" where nothing was.
    """

    integrated: int = 0
    dropped: int = 0
    results_dropped: int = 0
    attached: bool = False
    acquisition: str | None = None
    problem: str = ""
    not_normalized: int = 0
    unknown_factor: str = ""


@dataclass(frozen=True, slots=True)
class _Waiting:
    """What happens when everything before it has happened: a mark, or (with sums) a frame that has its factors."""

    act: Callable[[], None]
    since: float = 0.0
    time: float | None = None
    size: int = 0


@dataclass(slots=True)
class _Counts:
    """One acquisition's counts, for the ledger of the results."""

    complete: int = 0
    partial: int = 0
    dropped: dict[str, int] = field(default_factory=dict)

    def drop(self, reason: str) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + 1

    @property
    def integrated(self) -> int:
        return self.complete + self.partial + self.dropped.get("ring_full", 0)

    def to_ledger(self) -> dict[str, Any]:
        return {
            "frames_expected": self.complete + self.partial + sum(self.dropped.values()),
            "frames_complete": self.complete,
            "frames_partial": self.partial,
            "frames_dropped": dict(self.dropped),
        }


def results_description(name: str, reducer: Reducer, epochs: Sequence[dict[str, Any]] = ()) -> Description:
    """Describe the vector that each frame's results become: each curve and its error, then one number each.

    `epochs` is what the numbers of epochs mean (`EpochBook.newest`), for the files of those who get the results.
    """
    layout: dict[str, list[int]] = {}
    axes: dict[str, Any] = {}
    fields: dict[str, Any] = {}
    first = 0
    for field_name, (about, axis) in curve_fields(reducer).items():
        bins = axis.values.size
        layout[field_name] = [first, first + bins]
        axes[field_name] = {"axis": axis.unit.quantity, "unit": axis.unit.unit, "values": axis.values.tolist()}
        fields[field_name] = {"units": None, "description": about}
        first += bins
    for number, meaning in reducer.numbers.items():
        layout[number] = [first, first + 1]
        fields[number] = {"units": meaning.unit, "description": meaning.description}
        first += 1
    meta = {"layout": layout, "axes": axes, "fields": fields, "epochs": list(epochs)}
    return Description(name, "results", (first,), "float64", meta=meta)


def result_slots(description: Description) -> int:
    """Return how many results the ring should hold: seconds of them, in memory that nobody misses."""
    size = 8 * description.shape[0]
    return int(min(max(_RING_BYTES // size, _FEWEST_SLOTS), _MOST_SLOTS))


class LiveIntegration:
    """The loop from one consumer of images to one producer of results.

    Parameters
    ----------
    reducer : Reducer
        Is told the source's fill value.
    consumer : Consumer
        Of images.
    results : Producer
        Made with `results_description`.
    on_result : callable
        Called with each frame's header and what it became, in the loop's thread.
    follow : callable, optional
        Called with each description of the source; returns another reducer where the detector is configured anew,
        and has told of it already, else None. What it raises as `SisockdaqError` is the reason why nothing is
        integrated.
    on_end : callable, optional
        Called with each acquisition's name when its last frame has been given to `on_result`, in the loop's thread.
    """

    def __init__(
        self,
        reducer: Reducer,
        consumer: Consumer,
        results: Producer,
        on_result: OnResult,
        follow: Callable[[Description], Reducer | None] | None = None,
        on_end: Callable[[str], None] | None = None,
    ) -> None:
        self.state = LiveState()
        self._follow = follow or (lambda description: None)
        self._on_end = on_end or (lambda acquisition: None)
        self.reducer = reducer
        self._consumer = consumer
        self._results = results
        self._on_result = on_result
        self._counts: _Counts | None = None
        self._source: Description | None = None
        self._jobs: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._factors = FrameFactors(reducer.settings)
        self._waiting: deque[_Waiting] = deque()
        self._waiting_bytes = 0

    def between_frames(self, work: Callable[[], T]) -> Future[T]:
        """Have something done in the loop's thread, between two frames; from any thread.

        The future has what `work` returns or raises; it is cancelled when the loop ends before.
        """
        future: Future[T] = Future()
        self._jobs.append((future, work))
        return future

    def use(self, reducer: Reducer, results: Producer | None = None) -> None:
        """Reduce all frames from now on by another reducer, for another producer of results if there is one.

        Only in the loop's thread. What the source has said holds for the new reducer, too.
        """
        self._take(reducer)
        if results is not None:
            self._results = results
        if self._source is not None:
            self._ready(self._source)

    @property
    def factors(self) -> FrameFactors:
        """The monitor and transmission of frames; their series are to be filled, from any thread."""
        return self._factors

    def _take(self, reducer: Reducer) -> None:
        self.reducer = reducer
        self._factors = FrameFactors(reducer.settings, self._factors.series)

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set; whatever goes wrong with one frame does not end the loop."""
        while not stop.is_set():
            try:
                self.step(_PATIENCE)
            except Exception as error:  # The edge of the thread: later frames must not suffer from this one.
                self._went_wrong(error)
        self._finish_waiting()
        while self._jobs:
            self._jobs.popleft()[0].cancel()

    def _went_wrong(self, error: Exception) -> None:
        self.state.problem = f"{type(error).__name__}: {error}"
        _log.error("a frame or mark could not be handled", exc_info=error)

    def step(self, timeout: float) -> bool:
        """Handle the next frame or mark; return False when none came within `timeout` seconds."""
        while self._jobs:
            self._finish_waiting()
            _do(*self._jobs.popleft())
        item = self._consumer.next(min(timeout, _LOOK) if self._waiting else timeout)
        self._look_at_waiting()
        if item is None:
            return False
        if isinstance(item, Attached | Detached):
            self._finish_waiting()
            self._mark(item)
        elif isinstance(item, Start | End):
            self._in_turn(lambda: self._mark(item))
        elif not isinstance(item, Settled):
            self._frame(item)
        return True

    def _in_turn(self, act: Callable[[], None]) -> None:
        """Do something when all that waits is done."""
        if self._waiting:
            self._waiting.append(_Waiting(act))
        else:
            act()

    def _look_at_waiting(self) -> None:
        """Finish the frames that have what they wait for, in their order, and those that must not wait longer."""
        while self._waiting:
            first = self._waiting[0]
            full = len(self._waiting) > MOST_WAITING or self._waiting_bytes > _WAITING_BYTES
            waited = time.monotonic() - first.since
            if first.time is not None and not full and not self._factors.settled(first.time, waited):
                return
            self._waiting.popleft()
            self._waiting_bytes -= first.size
            try:
                first.act()
            except Exception as error:  # whoever looks has a frame or mark of its own in hand, which must not be lost
                self._went_wrong(error)

    def _finish_waiting(self) -> None:
        """Let everything that waits have its time, and finish it."""
        while self._waiting:
            self._look_at_waiting()
            if self._waiting:
                time.sleep(_LOOK)

    def _mark(self, mark: Mark) -> None:
        match mark:
            case Attached(description=description, acquisition=under_way):
                self._attached(description)
                if under_way is not None:
                    self._begin(under_way)
            case Start():
                self._begin(mark)
            case End(acquisition=acquisition, reason=reason):
                self._end(acquisition, reason)
            case Detached(reason=reason):
                self.state.attached = False
                self.state.problem = f"waiting for frames: {reason}"
                if self.state.acquisition is not None:
                    self._end(self.state.acquisition, "failed")

    def _attached(self, description: Description) -> None:
        self.state.attached = False
        self._source = description
        try:
            followed = self._follow(description)
            if followed is not None:
                self._take(followed)
            self._ready(description)
        except SisockdaqError as error:
            self.state.problem = str(error)
        if self.state.problem:
            _log.error("%s", self.state.problem)
        self.state.attached = True

    def _ready(self, description: Description) -> None:
        """Make the reducer ready for the images of a source."""
        self.state.problem = self._misfit(description)
        if not self.state.problem:
            self.reducer.follow_fill(description.fill_value)
            self.reducer.warm_up(description.dtype)  # of a rare type it compiles: nobody is to count on it before

    def _misfit(self, description: Description) -> str:
        shape = tuple(description.shape)
        if shape != self.reducer.shape:
            return f"{description.source} sends images of {shape}, the geometry is for {self.reducer.shape}"
        if np.dtype(description.dtype).kind not in "biuf":
            return f"{description.source} sends pixels of type {description.dtype}, which are not numbers"
        return ""

    def _begin(self, start: Start) -> None:
        if self.state.acquisition is not None:
            self._end(self.state.acquisition, "failed")
        self.state.acquisition = start.acquisition
        self._counts = _Counts()
        self._results.start(start)

    def _end(self, acquisition: str, reason: Any) -> None:
        counts = self._counts
        if counts is None or self.state.acquisition != acquisition:
            return
        self._counts, self.state.acquisition = None, None
        self._results.end(End(acquisition, reason, counts.to_ledger()), _SETTLE_DEADLINE)
        self._on_end(acquisition)
        try:
            self._consumer.request(Report(acquisition, {"frames_integrated": counts.integrated}))
        except FrameSourceError as error:
            _log.warning("no report of %s: %s", acquisition, error)

    def _frame(self, frame: BorrowedFrame) -> None:
        used = False
        try:
            if self.state.attached and not self._blocked(frame):
                result = self.reducer.summed(frame.pixels)
                used = frame.valid()
        finally:
            frame.release(used=used)
        header = replace(frame.header, sequence=-1)
        if not used:
            self._in_turn(lambda: self._drop(header))
        elif not self.reducer.settings.factors:
            self._finish(header, result)
        else:
            size = 0 if result.cake is None else result.cake.nbytes
            act = partial(self._normalize, header, result, self.reducer, self._factors)
            self._waiting.append(_Waiting(act, time.monotonic(), header.time, size))
            self._waiting_bytes += size
            self._look_at_waiting()

    def _drop(self, header: FrameHeader) -> None:
        self.state.dropped += 1
        if self._counts is not None and header.index >= 0:
            self._counts.drop("not_integrated")

    def _normalize(self, header: FrameHeader, summed: Reduced, reducer: Reducer, factors: FrameFactors) -> None:
        found = factors.of(header.time)
        result = reducer.normalized(summed, found)
        if not result.has_intensities:
            self.state.not_normalized += 1
        self.state.unknown_factor = factors.why(found)
        self._finish(header, result)

    def _finish(self, header: FrameHeader, result: Reduced) -> None:
        """Give a frame's results out."""
        self.state.integrated += 1
        header = replace(header, total=result.numbers["total"], maximum=result.numbers["maximum"])
        self._publish(header, result, self._counts if header.index >= 0 else None)
        self._on_result(header, result)

    def _blocked(self, frame: BorrowedFrame) -> bool:
        return frame.pixels.shape != self.reducer.shape

    def _publish(self, header: FrameHeader, result: Reduced, counts: _Counts | None) -> None:
        slot = self._results.acquire()
        if slot is None:
            self.state.results_dropped += 1
            if counts is not None:
                counts.drop("ring_full")
            return
        self.fill(self._results.pixels[slot], result)
        self._results.publish(slot, header)
        if counts is not None:
            counts.complete += header.complete
            counts.partial += not header.complete

    def fill(self, vector: Any, result: Reduced) -> None:
        """Write a result into its vector, as `results_description` lays it out."""
        first = 0
        for values in curve_values(result).values():
            vector[first : first + values.size] = values
            first += values.size
        vector[first:] = list(result.numbers.values())


def _do(future: Future[Any], work: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(work())
    except Exception as error:  # it belongs to whoever waits for the future, in another thread
        future.set_exception(error)


def curve_fields(reducer: Reducer) -> dict[str, tuple[str, CurveAxis]]:
    """Return the fields that are curves, in their order: what each is, and its axis."""
    found: dict[str, tuple[str, CurveAxis]] = {}
    for name, axis in reducer.curves.items():
        where = "" if name == "curve" else f" in the sector {name.removeprefix('curve_')}"
        found[name] = f"Mean intensity by bin{where}.", axis
        if reducer.has_errors:
            found[error_name(name)] = f"Standard error of the mean intensity{where}.", axis
    return found


def curve_values(result: Reduced) -> dict[str, npt.NDArray[np.float64]]:
    """Return the values of `curve_fields`, in their order."""
    found = {}
    for name, curve in result.curves().items():
        found[name] = curve.intensity
        if curve.sigma is not None:
            found[error_name(name)] = curve.sigma
    return found


def error_name(curve: str) -> str:
    """Return the name of a curve's standard error: ``sigma`` of ``curve``, ``sigma_x`` of ``curve_x``."""
    return f"sigma{curve.removeprefix('curve')}"
