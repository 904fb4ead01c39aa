"""The life of an acquisition as a state machine: events in, instructions out. Pure: no thread, file, socket or clock.

::

    READY ──start──▶ ARMED ──source started──▶ RUNNING ──source ended──▶ DRAINING ──drained──▶ SETTLING ──▶ READY
                       └──────────── stop, failure, lost source, deadline ────────────▶ (DRAINING) ──▶ …

Whoever owns the machine (the file writer's engine) carries out its instructions and feeds back what happened. The
words for states and messages are those of std-daq (seed ``std-daq-client``), so that every face on it, WAMP calls or
REST, says the same.

Promises: one acquisition at a time; every accepted start ends in exactly one `Seal` and one record in `history`,
whatever happens in between; each wait has a deadline; stop may be called at any time, any number of times.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any

from sisockdaq._acquisition_words import (
    Abandon,
    AcquisitionState,
    ArmSource,
    Drain,
    Drained,
    Event,
    FirstFrame,
    FramesCome,
    Instruction,
    OpenFiles,
    Record,
    Request,
    Seal,
    SendReport,
    Settled,
    SourceEnded,
    SourceLost,
    SourceStarted,
    StopRequested,
    StopSource,
    Tick,
    WriteFailed,
    WriterEnds,
    WriterState,
)
from sisockdaq.errors import AcquisitionRefused

__all__ = [
    "ARM_DEADLINE",
    "SETTLE_DEADLINE",
    "STOP_DEADLINE",
    "Abandon",
    "AcquisitionMachine",
    "AcquisitionState",
    "ArmSource",
    "Drain",
    "Drained",
    "Event",
    "FirstFrame",
    "FramesCome",
    "Instruction",
    "OpenFiles",
    "Record",
    "Request",
    "Seal",
    "SendReport",
    "Settled",
    "SourceEnded",
    "SourceLost",
    "SourceStarted",
    "StopRequested",
    "StopSource",
    "Tick",
    "WriteFailed",
    "WriterEnds",
    "WriterState",
]

ARM_DEADLINE = 10.0
"""Time for the source to say that the acquisition has begun [s]. It says so at once unless it is busy or hangs."""

STOP_DEADLINE = 10.0
"""Time for the source to end an acquisition after it was asked to [s]; open frames end much sooner."""

SETTLE_DEADLINE = 15.0
"""Time for the final ledger after the report [s]: longer than a source waits for its consumers."""

HISTORY = 1000
"""Finished acquisitions that are remembered."""


class _Phase(StrEnum):
    READY = "ready"
    LEFT = "left"  # by a writer that died; whether the source goes on with it is not known yet
    ARMED = "armed"
    RUNNING = "running"
    DRAINING = "draining"
    SETTLING = "settling"


class _Source(StrEnum):
    """What is known of the source in this acquisition."""

    AT_WORK = "at work"
    ENDED = "ended"
    SILENT = "silent"
    GONE = "gone"


class AcquisitionMachine:
    """One writer's acquisitions.

    Attributes
    ----------
    current : Record or None
        The acquisition under way, else the last one; None before the first.
    history : deque of Record
        Finished acquisitions, newest first, failed ones included.
    """

    def __init__(self) -> None:
        self.current: Record | None = None
        self.history: deque[Record] = deque(maxlen=HISTORY)
        self._phase = _Phase.READY
        self._since = 0.0
        self._stop_asked: float | None = None
        self._source = _Source.AT_WORK
        self._reported = self._abandoned = False
        self._failure = ""
        self._frames_expected: int | None = None

    @property
    def state(self) -> WriterState:
        """Whether a start would be taken."""
        return WriterState.READY if self._phase is _Phase.READY else WriterState.WRITING

    @property
    def armed(self) -> bool:
        """Whether the source has been asked to begin, and has not answered yet."""
        return self._phase is _Phase.ARMED

    @property
    def failure(self) -> str:
        """Why the acquisition under way has failed; empty while it has not."""
        return self._failure

    @property
    def taking_frames(self) -> bool:
        """Whether frames of the current acquisition are to be written."""
        return self._phase in (_Phase.ARMED, _Phase.RUNNING)

    def check_ready(self) -> None:
        """Raise `AcquisitionRefused`, naming the acquisition under way, unless the writer is ready."""
        if self._phase is not _Phase.READY and self.current is not None:
            raise AcquisitionRefused(
                f"{self.current.request.acquisition} is under way", remedy="wait for its end, or stop it"
            )

    def start(self, request: Request, now: float) -> list[Instruction]:
        """Begin an acquisition; `now` is UNIX time [s].

        Raises
        ------
        AcquisitionRefused
            When one is under way.
        """
        self.check_ready()
        self._begin(Record(request, started=now), _Phase.ARMED, now)
        return [OpenFiles(request), ArmSource(request)]

    @property
    def left(self) -> Record | None:
        """The acquisition that a writer left by its death, until it is resumed or recovered."""
        return self.current if self._phase is _Phase.LEFT else None

    def leave(self, record: Record) -> None:
        """Take over the acquisition that was under way when an earlier life of this writer died; see `left`."""
        self.check_ready()
        self._begin(record, _Phase.LEFT, record.started or 0.0)

    def resume(self, record: Record, now: float) -> list[Instruction]:
        """Take up an acquisition that is under way at its source, after the death of the process that began it."""
        self._take_over(record, now)
        record.state = record.state or AcquisitionState.WAITING_IMAGES
        return [OpenFiles(record.request, resume=True)]

    def recover(self, record: Record, reason: str, now: float) -> list[Instruction]:
        """Close the books of an acquisition that the source has ended while the process that began it was dead.

        What is in its files is kept; it is recorded as failed, for `reason`.
        """
        self._take_over(record, now)
        self._failure, self._source = reason, _Source.GONE
        return [OpenFiles(record.request, resume=True), *self._drain(record, now)]

    def _take_over(self, record: Record, now: float) -> None:
        if self.left is None:
            self.check_ready()
        self._begin(record, _Phase.RUNNING, now)

    def _begin(self, record: Record, phase: _Phase, now: float) -> None:
        self.current = record
        self._enter(phase, now)
        self._stop_asked, self._frames_expected, self._failure = None, None, ""
        self._source, self._reported, self._abandoned = _Source.AT_WORK, False, False

    def remember(self, records: Iterable[Record]) -> None:
        """Take over what an earlier life of this writer has recorded, newest first."""
        self.history.extend(records)
        if self.current is None and self.history:
            self.current = self.history[0]

    def refused(self) -> None:
        """Take a start back whose `OpenFiles` failed: nothing was begun, and nothing is recorded."""
        self._phase = _Phase.READY
        self.current = self.history[0] if self.history else None

    def handle(self, event: Event, now: float) -> list[Instruction]:
        """Take an event; return what is to be done now. Events that mean nothing in this state are passed over."""
        record = self.current
        if record is None or self._phase in (_Phase.READY, _Phase.LEFT):
            return []
        match event:
            case SourceStarted(acquisition) if acquisition == record.request.acquisition:
                if self._phase is _Phase.ARMED:
                    record.state = AcquisitionState.WAITING_IMAGES
                    self._enter(_Phase.RUNNING, now)
            case FramesCome() if self.taking_frames:
                if record.state is AcquisitionState.WAITING_IMAGES:
                    record.state = AcquisitionState.ACQUIRING_IMAGES
            case FirstFrame() if self.taking_frames:
                record.state = AcquisitionState.WRITING
            case SourceEnded(acquisition) if acquisition == record.request.acquisition:
                return self._source_ended(record, event, now)
            case SourceLost(reason):
                return self._source_lost(record, reason, now)
            case StopRequested():
                return self._stop(record, now, failed=False)
            case WriteFailed(reason):
                return self._failed(record, reason, now)
            case Drained(written, closed) if self._phase is _Phase.DRAINING:
                return self._drained(record, written, closed, now)
            case Settled(acquisition, ledger) if acquisition == record.request.acquisition:
                if self._phase is _Phase.SETTLING:
                    return self._finish(record, ledger, now)
                record.ledger = dict(ledger)
            case WriterEnds(reason):
                return self._writer_ends(record, reason, now)
            case Tick():
                return self._deadlines(record, now)
        return []

    def _enter(self, phase: _Phase, now: float) -> None:
        self._phase, self._since = phase, now

    def _drain(self, record: Record, now: float, *, abandon: bool = False) -> list[Instruction]:
        if abandon and self._abandoned:
            return []
        self._abandoned = abandon
        record.state = AcquisitionState.FLUSHING_IMAGES
        self._enter(_Phase.DRAINING, now)
        return [Abandon() if abandon else Drain(self._frames_expected)]

    def _source_ended(self, record: Record, end: SourceEnded, now: float) -> list[Instruction]:
        if self._source in (_Source.ENDED, _Source.GONE):
            return []
        self._source = _Source.ENDED
        self._frames_expected = end.frames_expected
        if end.reason == "stopped" and self._stop_asked is None:
            self._stop_asked = now
        if end.reason == "failed" and not self._failure:
            self._failure = end.error or "the frame source reports a failure"
        if self._phase is _Phase.SETTLING:
            return self._report(record)
        return self._drain(record, now) if self.taking_frames else []

    def _source_lost(self, record: Record, reason: str, now: float) -> list[Instruction]:
        """Without its source an acquisition cannot go on; one that is already over only misses its ledger."""
        if self._source is not _Source.ENDED:
            self._failure = self._failure or f"the frame source has gone: {reason}"
        self._source = _Source.GONE
        if self._phase is _Phase.SETTLING:
            return self._finish(record, None, now)
        return self._drain(record, now) if self.taking_frames else []

    def _stop(self, record: Record, now: float, *, failed: bool) -> list[Instruction]:
        if self._stop_asked is not None or self._source is not _Source.AT_WORK:
            return []
        self._stop_asked = now
        return [StopSource(record.request.acquisition, failed)]

    def _failed(self, record: Record, reason: str, now: float) -> list[Instruction]:
        first = not self._failure
        self._failure = self._failure or reason
        stop = self._stop(record, now, failed=True)
        if self.taking_frames or (first and self._phase is _Phase.DRAINING):
            return [*stop, *self._drain(record, now, abandon=True)]
        return stop

    def _writer_ends(self, record: Record, reason: str, now: float) -> list[Instruction]:
        """End at once. Files that are closed already need no more than their master; an open end is a failure."""
        stop = self._stop(record, now, failed=True)
        self._source = _Source.GONE
        if self._phase is _Phase.SETTLING:
            return [*stop, *self._finish(record, record.ledger, now)]
        self._failure = self._failure or reason
        return [*stop, *self._drain(record, now, abandon=True)]

    def _drained(self, record: Record, written: int, closed: int, now: float) -> list[Instruction]:
        record.frames_written, record.files_closed = written, closed
        self._enter(_Phase.SETTLING, now)
        if record.ledger is not None or self._source is _Source.GONE:
            return self._finish(record, record.ledger, now)
        return self._report(record) if self._source is _Source.ENDED else []

    def _report(self, record: Record) -> list[Instruction]:
        """Report once; a source takes reports only after its end."""
        if self._reported:
            return []
        self._reported = True
        written = record.frames_written if record.request.writes_images else 0
        counts = {"frames_written": written, "files_closed": record.files_closed}
        return [SendReport(record.request.acquisition, counts)]

    def _finish(self, record: Record, ledger: Mapping[str, Any] | None, now: float) -> list[Instruction]:
        record.ledger = None if ledger is None else dict(ledger)
        record.ended = now
        record.state = AcquisitionState.FAILED if self._failure else AcquisitionState.FINISHED
        record.message = self._end_message(record)
        self._enter(_Phase.READY, now)
        self.history.appendleft(record)
        return [Seal(self._end_reason(), record.ledger)]

    def _end_reason(self) -> str:
        if self._failure:
            return f"failed: {self._failure}"
        return "stopped" if self._stop_asked is not None else "complete"

    def _end_message(self, record: Record) -> str:
        if self._failure:
            return f"ERROR: {self._failure}"
        if self._stop_asked is not None:
            return "Interrupted."
        missing = (record.request.frames or self._frames_expected or 0) - record.frames_written
        return f"Completed, {missing} images are missing." if missing > 0 else "Completed."

    def _deadlines(self, record: Record, now: float) -> list[Instruction]:
        asked = self._stop_asked
        if self._phase is _Phase.ARMED and asked is None and now - self._since > ARM_DEADLINE:
            self._failure = f"the frame source did not begin within {ARM_DEADLINE:g} s"
            return [*self._stop(record, now, failed=True), *self._drain(record, now)]
        if self.taking_frames and asked is not None and now - asked > STOP_DEADLINE:
            self._source = _Source.SILENT
            self._failure = self._failure or f"the frame source did not end within {STOP_DEADLINE:g} s of the stop"
            return self._drain(record, now)
        if self._phase is _Phase.SETTLING and now - self._since > SETTLE_DEADLINE:
            return self._finish(record, None, now)
        return []
