"""The DAQ as std-daq's clients see it: writer and receiver of a site, asked over their control calls.

Everything here runs in the reactor's thread; the calls themselves wait in threads, each with a deadline. What is shown
is asked for anew, never remembered, so that a client that polls right after a start does not see the state before it.

A synchronous write waits without a thread and without an end of its own: the writer is asked how it stands
(`LOOK_RUNNING`) until the acquisition is over, or until the writer has been away for `LOST_AFTER`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sisockdaq.gateways.std_daq.config import Configurator
from sisockdaq.gateways.std_daq.words import (
    Throughput,
    acquisition_of,
    detector_counters,
    identity,
    is_over,
    ledger_of,
    progress_of,
    unknown,
    writer_of,
)
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.logger import Logger

from sisockdaq.client._runs import START_DEADLINE
from sisockdaq.errors import DeadlineExceeded, FileUnreadable, SisockdaqError

if TYPE_CHECKING:
    from sisockdaq.gateways.std_daq.models import WriteRequest
    from sisockdaq.gateways.std_daq.node import StdDaq

__all__ = ["Daq"]

LOOK_IDLE, LOOK_RUNNING = 1.0, 0.2
"""Time between two looks at the writer [s]."""

ANSWER = 4.0
"""Time that a node gets to say how it stands [s]."""

LOST_AFTER = 60.0
"""Longest time without the writer, or without word of the acquisition, that a synchronous write bears [s]."""

STOP_WAIT = 20.0
"""Time that a stop waits for the files to be closed [s]."""

STATUS_KEPT, LOG_KEPT, STAT_KEPT = 3600, 10_000, 3600
"""Entries that the streams keep, about."""

LOGS_AT_ONCE = 1000
"""Most acquisitions that one call lists."""

_log = Logger("sisockdaq.std_daq")


@dataclass(slots=True)
class _Waiter:
    """Somebody who waits for the end of an acquisition; ``seen`` is when it was last heard of (monotonic)."""

    wanted: tuple[Any, Any]
    end: Deferred[dict[str, Any]]
    seen: float


class Daq:
    """Writer and receiver of one site.

    Parameters
    ----------
    gateway : StdDaq
    """

    def __init__(self, gateway: StdDaq) -> None:
        self._gateway = gateway
        self._streams = gateway.streams
        self.config = Configurator(self, gateway)
        self._waiters: list[_Waiter] = []
        self._next_look = 0.0
        self._told: dict[str, Any] | None = None
        self._told_at = 0.0
        self._logged: set[Any] | None = None
        self._last_over: Any = None
        self._detector, self._files = Throughput(), Throughput()

    def ask(self, node: str, procedure: str, *args: Any, limit: float = ANSWER, **kwargs: Any) -> Deferred[Any]:
        """Call a control procedure of a node."""
        client = self._gateway.client

        def call() -> Any:
            return client.call_control(node, procedure, *args, deadline=limit, **kwargs)

        return self._gateway.in_thread(call, deadline=limit + ANSWER)

    # The writer.

    @inlineCallbacks
    def status(self) -> Any:
        """Return std-daq's status; UNKNOWN, with the reason, while the writer does not answer."""
        writer, _ = yield self.status_and_progress()
        return writer

    @inlineCallbacks
    def status_and_progress(self) -> Any:
        """Return std-daq's status, and how far the acquisition is."""
        try:
            found = yield self.ask(self._gateway.writer, "status")
        except SisockdaqError as error:
            return unknown(str(error)), progress_of({})
        return writer_of(found), progress_of(found)

    @inlineCallbacks
    def ledger(self, wanted: str | None) -> Any:
        """Return the ledger of an acquisition, by run_id or name; None: of the one that runs, or was the last.

        Raises
        ------
        FileUnreadable
            When the writer knows none of that name.
        """
        found = yield self.ask(self._gateway.writer, "status")
        if wanted is None or wanted in _names(found):
            return ledger_of(found)
        logged = yield self.ask(self._gateway.writer, "log", LOGS_AT_ONCE)
        for entry in logged:
            if wanted in _names(entry):
                return ledger_of(entry)
        raise FileUnreadable(
            f"the writer knows no acquisition {wanted}", remedy=f"its last {LOGS_AT_ONCE} go by run_id, or by name"
        )

    @inlineCallbacks
    def start(self, request: WriteRequest) -> Any:
        """Start an acquisition; return the status once the next image would be its first."""
        run_id = time.time_ns() if request.run_id is None else request.run_id
        user = self.config.user_id
        wanted = {
            "frames": request.n_images,
            "output_file": request.output_file,
            "run_id": run_id,
            **({"user_id": user} if user is not None and user > 0 else {}),
            **({"raw": request.raw} if request.raw is not None else {}),
        }
        begun = yield self.ask(self._gateway.writer, "start", limit=START_DEADLINE, **wanted)
        self._next_look = 0.0
        return writer_of(begun)

    @inlineCallbacks
    def start_and_wait(self, request: WriteRequest) -> Any:
        """Start an acquisition; return the status once it is over. When this is cancelled, the acquisition goes on."""
        begun = yield self.start(request)
        ended = yield self._end_of(begun)
        return ended

    @inlineCallbacks
    def stop(self) -> Any:
        """End the acquisition, if any; return the status once the files are closed, or `STOP_WAIT` is over."""
        stopped = yield self.ask(self._gateway.writer, "stop", limit=START_DEADLINE)
        writer = writer_of(stopped)
        if is_over(writer):
            return writer
        end = self._end_of(writer)
        self._gateway.later(STOP_WAIT, end.cancel)
        try:
            writer = yield end
        except Exception as error:  # it takes longer: the status says how far it is
            _log.info("the stop: {error}", error=str(error))
            writer = yield self.status()
        return writer

    @inlineCallbacks
    def logs(self, count: int) -> Any:
        """Return the last acquisitions, newest first."""
        if count == 0:
            return []
        found = yield self.ask(self._gateway.writer, "log", min(count, LOGS_AT_ONCE))
        return [acquisition_of(entry) for entry in found][:count]

    # Rates.

    @property
    def stats(self) -> dict[str, Any]:
        """What passed in the last second."""
        return {"detector": self._detector.rates, "writer": self._files.rates}

    @inlineCallbacks
    def measure(self) -> Any:
        """Renew the rates, and publish them; once a second."""
        now = time.monotonic()
        for node, meter, counters in (
            (self._gateway.receiver, self._detector, detector_counters),
            (self._gateway.writer, self._files, _written),
        ):
            try:
                found = yield self.ask(node, "status")
            except SisockdaqError:
                meter.lose()
            else:
                meter.see(now, *counters(found))
        self._streams.publish("daq:stat", self.stats, keep=STAT_KEPT)

    # Watching the writer.

    @inlineCallbacks
    def look(self) -> Any:
        """See how the writer stands, when it is time; publish it, and tell who waits."""
        now = time.monotonic()
        if now < self._next_look:
            return
        writer = yield self.status()
        busy = writer["state"] == "WRITING" or self._waiters
        self._next_look = now + (LOOK_RUNNING if busy else LOOK_IDLE)
        if writer != self._told or now - self._told_at >= LOOK_IDLE:
            self._told, self._told_at = writer, now
            for stream in ("daq:status", "daq:writer_status"):
                self._streams.publish(stream, writer, keep=STATUS_KEPT)
        yield self._tell_waiters(writer)
        if is_over(writer) and (identity(writer["acquisition"]), writer["acquisition"]["stats"]) != self._last_over:
            yield self._publish_ended()
            self._last_over = identity(writer["acquisition"]), writer["acquisition"]["stats"]

    @inlineCallbacks
    def _publish_ended(self) -> Any:
        """Publish what has ended since the last look; at first, only note what there is."""
        try:
            ended = yield self.logs(50)
        except SisockdaqError as error:
            _log.info("the writer's log: {error}", error=str(error))
            return
        keys = [(identity(one), one["stats"]["start_time"]) for one in ended]
        if self._logged is not None:
            for key, one in reversed(list(zip(keys, ended, strict=True))):
                if key not in self._logged:
                    self._streams.publish("daq:log", one, keep=LOG_KEPT)
        self._logged = set(keys)

    def _end_of(self, writer: Mapping[str, Any]) -> Deferred[dict[str, Any]]:
        waiter = _Waiter(identity(writer["acquisition"]), Deferred(self._forget), time.monotonic())
        self._waiters.append(waiter)
        self._next_look = 0.0
        return waiter.end

    def _forget(self, end: Deferred[Any]) -> None:
        self._waiters = [waiter for waiter in self._waiters if waiter.end is not end]

    @inlineCallbacks
    def _tell_waiters(self, writer: dict[str, Any]) -> Any:
        now = time.monotonic()
        others = []
        for waiter in self._waiters:
            if identity(writer["acquisition"]) != waiter.wanted:
                others.append(waiter)
                continue
            waiter.seen = now
            if is_over(writer):
                self._settle(waiter, writer)
        if not others:
            return
        ended: dict[Any, Any] = {}
        if writer["state"] != "UNKNOWN":
            try:
                found = yield self.logs(50)
                ended = {identity(one): one for one in found}
            except SisockdaqError as error:
                _log.info("the writer's log: {error}", error=str(error))
        for waiter in others:
            if waiter.wanted in ended:
                self._settle(waiter, {"acquisition": ended[waiter.wanted], "state": writer["state"]})
            elif now - waiter.seen > LOST_AFTER:
                reason = writer["acquisition"]["message"] or "it knows nothing of the acquisition"
                self._settle(waiter, DeadlineExceeded(
                    f"the writer has not told of the acquisition for {LOST_AFTER:g} s: {reason}",
                    remedy="it may go on: ask for the status",
                ))  # fmt: skip

    def _settle(self, waiter: _Waiter, outcome: dict[str, Any] | Exception) -> None:
        self._forget(waiter.end)
        if waiter.end.called:
            return
        if isinstance(outcome, Exception):
            waiter.end.errback(outcome)
        else:
            waiter.end.callback(outcome)


def _names(entry: Mapping[str, Any]) -> tuple[str, str]:
    """Return what an acquisition goes by, from the writer's status or log."""
    told = ledger_of(entry)
    return str(told["run_id"]), str(told["acquisition"])


def _written(status: Mapping[str, Any]) -> tuple[float, float]:
    return float(status.get("bytes_written") or 0), float(status.get("frames_written") or 0)
