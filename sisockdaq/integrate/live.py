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

One thread calls `step` (or `run`); `state` may be looked at from any.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

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
from sisockdaq.integrate.integrator import Integrator, Result

__all__ = ["LiveIntegration", "LiveState", "result_slots", "results_description", "scalars_of"]

_log = logging.getLogger(__name__)

_PATIENCE = 0.2
"""Longest wait for a frame before the thread looks whether it should end [s]."""

_SETTLE_DEADLINE = 10.0
"""Time that consumers of results have for their reports [s]."""

_RING_BYTES = 64 << 20
_MOST_SLOTS = 1024
_FEWEST_SLOTS = 16

OnResult = Callable[[FrameHeader, Result], None]


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
    """

    integrated: int = 0
    dropped: int = 0
    results_dropped: int = 0
    attached: bool = False
    acquisition: str | None = None
    problem: str = ""


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


def scalars_of(integrator: Integrator) -> dict[str, str]:
    """Return the names of the numbers that each result has besides its curves, with what they mean."""
    regions = {f"roi_{name}": f"Sum of the pixels in the region {name}." for name in integrator.rois}
    return {
        "total": "Sum of all pixels that are not masked.",
        "maximum": "Largest of them.",
        "unusable": "Pixels that were left out because their packet was lost.",
        **regions,
    }


def results_description(name: str, integrator: Integrator) -> Description:
    """Describe the vector that each frame's result becomes: the curve, its error, then one number each."""
    bins, unit = integrator.bins, integrator.unit
    curves = {"curve": "Mean intensity by bin."}
    if integrator.has_errors:
        curves["sigma"] = "Standard error of the mean intensity."
    layout = {curve: [i * bins, (i + 1) * bins] for i, curve in enumerate(curves)}
    first = len(curves) * bins
    scalars = scalars_of(integrator)
    layout |= {scalar: [first + i, first + i + 1] for i, scalar in enumerate(scalars)}
    axis = {"axis": unit.quantity, "unit": unit.unit, "values": integrator.axis.tolist()}
    fields = {key: {"units": None, "description": text} for key, text in {**curves, **scalars}.items()}
    meta = {"layout": layout, "axes": dict.fromkeys(curves, axis), "fields": fields}
    return Description(name, "results", (first + len(scalars),), "float64", meta=meta)


def result_slots(description: Description) -> int:
    """Return how many results the ring should hold: seconds of them, in memory that nobody misses."""
    size = 8 * description.shape[0]
    return int(min(max(_RING_BYTES // size, _FEWEST_SLOTS), _MOST_SLOTS))


class LiveIntegration:
    """The loop from one consumer of images to one producer of results.

    Parameters
    ----------
    integrator : Integrator
        Its `Integrator.dummy` is set to the source's fill value.
    consumer : Consumer
        Of images.
    results : Producer
        Made with `results_description`.
    on_result : callable
        Called with each frame's header and result, in the loop's thread.
    follow : callable, optional
        Called with each description of the source; returns another integrator where the detector is configured anew,
        and has told of it already, else None. What it raises as `SisockdaqError` is the reason why nothing is
        integrated.
    """

    def __init__(
        self,
        integrator: Integrator,
        consumer: Consumer,
        results: Producer,
        on_result: OnResult,
        follow: Callable[[Description], Integrator | None] | None = None,
    ) -> None:
        self.state = LiveState()
        self._follow = follow or (lambda description: None)
        self._integrator = integrator
        self._consumer = consumer
        self._results = results
        self._on_result = on_result
        self._counts: _Counts | None = None
        self._scalars = tuple(scalars_of(integrator))

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set; whatever goes wrong with one frame does not end the loop."""
        while not stop.is_set():
            try:
                self.step(_PATIENCE)
            except Exception as error:  # The edge of the thread: later frames must not suffer from this one.
                self.state.problem = f"{type(error).__name__}: {error}"
                _log.exception("a frame or mark could not be handled")

    def step(self, timeout: float) -> bool:
        """Handle the next frame or mark; return False when none came within `timeout` seconds."""
        item = self._consumer.next(timeout)
        if item is None:
            return False
        if isinstance(item, Start | End | Attached | Detached):
            self._mark(item)
        elif not isinstance(item, Settled):
            self._frame(item)
        return True

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
        try:
            self._integrator = self._follow(description) or self._integrator
            self.state.problem = self._misfit(description)
        except SisockdaqError as error:
            self.state.problem = str(error)
        if self.state.problem:
            _log.error("%s", self.state.problem)
        else:
            self._integrator.dummy = description.fill_value
            self._integrator.warm_up(description.dtype)  # of a rare type it compiles: nobody is to count on it before
        self.state.attached = True

    def _misfit(self, description: Description) -> str:
        shape = tuple(description.shape)
        if shape != self._integrator.shape:
            return f"{description.source} sends images of {shape}, the geometry is for {self._integrator.shape}"
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
        try:
            self._consumer.request(Report(acquisition, {"frames_integrated": counts.integrated}))
        except FrameSourceError as error:
            _log.warning("no report of %s: %s", acquisition, error)

    def _frame(self, frame: BorrowedFrame) -> None:
        counts = self._counts if frame.header.index >= 0 else None
        used = False
        try:
            if self.state.attached and not self._blocked(frame):
                result = self._integrator.integrate(frame.pixels)
                used = frame.valid()
        finally:
            frame.release(used=used)
        if not used:
            self.state.dropped += 1
            if counts is not None:
                counts.drop("not_integrated")
            return
        self.state.integrated += 1
        numbers = scalar_values(result)
        header = replace(frame.header, sequence=-1, total=numbers["total"], maximum=numbers["maximum"])
        self._publish(header, result, counts)
        self._on_result(header, result)

    def _blocked(self, frame: BorrowedFrame) -> bool:
        return frame.pixels.shape != self._integrator.shape

    def _publish(self, header: FrameHeader, result: Result, counts: _Counts | None) -> None:
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

    def fill(self, vector: Any, result: Result) -> None:
        """Write a result into its vector, as `results_description` lays it out."""
        bins = self._integrator.bins
        vector[:bins] = result.intensity
        first = bins
        if result.sigma is not None:
            vector[bins : 2 * bins] = result.sigma
            first = 2 * bins
        values = scalar_values(result)
        vector[first:] = [values[name] for name in self._scalars]


def scalar_values(result: Result) -> dict[str, float]:
    """Return a result's numbers by the names of `scalars_of`."""
    regions = {f"roi_{name}": float(total) for name, total in result.rois.items()}
    maximum = np.nan if result.maximum is None else float(result.maximum)
    return {"total": float(result.total), "maximum": maximum, "unusable": float(result.unusable), **regions}
