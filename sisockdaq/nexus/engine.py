"""The file writer without a network: consumes frames and results, writes files, answers start, stop and status.

One thread owns the files and the state machine (`sisockdaq.acquisition`); everything reaches it through one queue,
in order: images as they are packed, results, marks of the sources, and commands. So no file is touched by two
threads, and each acquisition's `End` is seen after its last frame.

Promises: what is on disk is committed every ``flush_interval`` seconds; a failure to write ends the acquisition as
FAILED with the reason, and the next one starts afresh; progress counts what is in the files.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from typing import Any

from sisockdaq import acquisition as life
from sisockdaq.errors import AcquisitionRefused, SisockdaqError
from sisockdaq.frames.bus import Consumer
from sisockdaq.frames.messages import Attached, Description, Detached, End, Mark, Report, Settled, Start, Stop
from sisockdaq.nexus._beginning import BACK_WITHIN, Beginning
from sisockdaq.nexus._filing import DRAIN_WAIT
from sisockdaq.nexus.fileset import AcquisitionFiles, ClosedFile
from sisockdaq.nexus.intake import (
    RESULTS_QUEUED,
    FrameCame,
    FramePassed,
    ImageIntake,
    IntakeFailed,
    MarkCame,
    ResultCame,
    ResultsIntake,
)
from sisockdaq.nexus.journal import Journal, Unfinished, public_record
from sisockdaq.nexus.options import EngineOptions
from sisockdaq.nexus.packing import PackedFrame, Packer
from sisockdaq.nexus.progress import Progress, record_status
from sisockdaq.nexus.resuming import arm, left_behind

__all__ = ["WriterEngine"]

_TICK = 0.1
"""Time between looks at deadlines [s]."""

_RESUME_WAIT = 2.0
"""Time that sources of results get to attach before an acquisition is taken up again [s]; frames are lost meanwhile."""

_RECOVER_WAIT = 5.0
"""Time that the source gets to say whether it still goes on with what a dead writer left, before that is closed [s]."""

_END_WAIT = 5.0
"""Time to close the files of the acquisition under way when the writer ends [s]."""

_log = logging.getLogger(__name__)

OpenConsumer = Callable[[], Consumer]


@dataclass(frozen=True, slots=True)
class _Command:
    """A call from another thread, and where its answer goes."""

    run: Callable[[], Any]
    answer: Future[Any]


class WriterEngine(Beginning):
    """Writes the acquisitions of one source of images, with the results of any number of other sources.

    Parameters
    ----------
    options : EngineOptions
    images : callable
        Makes the consumer of the images (policy lossless).
    results : mapping of name → callable
        Makes the consumers of results (policy lossless).
    on_status : callable, optional
        Called with `status` whenever the state changes; from the engine's thread.
    on_file : callable, optional
        Called with the acquisition's name and each `ClosedFile`; from the engine's thread.
    """

    def __init__(
        self,
        options: EngineOptions,
        images: OpenConsumer,
        results: Mapping[str, OpenConsumer] | None = None,
        *,
        on_status: Callable[[dict[str, Any]], None] | None = None,
        on_file: Callable[[str, ClosedFile], None] | None = None,
    ) -> None:
        self.options = options
        self.user_id = options.user_id
        """Whose the files of the next acquisitions are, where a request does not say; None: the writer's own user."""
        self.machine = life.AcquisitionMachine()
        self._journal = Journal(options.journal)
        self.machine.remember(self._journal.newest(life.HISTORY))
        self._unfinished = self._journal.left_behind()
        if self._unfinished:
            self.machine.leave(self._unfinished[-1].record)
        self._recover_by = time.monotonic() + _RECOVER_WAIT
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._room = threading.BoundedSemaphore(RESULTS_QUEUED)
        self._images = ImageIntake(images, self._queue.put)
        self._results = {
            name: ResultsIntake(name, open_consumer, self._queue.put, self._room)
            for name, open_consumer in (results or {}).items()
        }
        self._results_written = dict.fromkeys(self._results, 0)
        self._descriptions: dict[str | None, Description] = {}
        self._under_way: str | None = None
        self._left_behind: life.Request | None = None
        self._warnings: list[str] = []
        self._recovering: Unfinished | None = None
        self._begun = Future()
        self._waiting = []
        self._source_expected_until = time.monotonic() + BACK_WITHIN
        self._resume_by = 0.0
        self._files: AcquisitionFiles | None = None
        self._as_user: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        self._packer: Packer | None = None
        self._passed = 0
        self._passing: life.Record | None = None
        self._drain_until: float | None = None
        self._drain_expected: int | None = None
        self._next_commit = self._next_tick = 0.0
        self._progress = Progress()
        self._on_status = on_status or (lambda status: None)
        self._on_file = on_file or (lambda acquisition, closed: None)
        self._stopping = threading.Event()
        self._status = self._snapshot()
        self._announced: Any = None
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)

    # For other threads.

    def start_threads(self) -> WriterEngine:
        """Begin to consume."""
        self._thread.start()
        for intake in (self._images, *self._results.values()):
            intake.start()
        return self

    def close(self, timeout: float = 10.0) -> None:
        """Close the files in order, whatever is under way, and end all threads."""
        self._end_in_order()
        for intake in (self._images, *self._results.values()):
            intake.stop()
        self._stopping.set()
        self._thread.join(timeout)
        if self._packer is not None:
            self._packer.close()
        self._journal.close()

    def _end_in_order(self) -> None:
        """End the acquisition under way, and tell its source while there still is somebody who can."""
        if self._thread.is_alive():
            with contextlib.suppress(TimeoutError, CancelledError):
                self._call(lambda: self._handle(life.WriterEnds("the writer was stopped")), _END_WAIT)

    def start(self, request: life.Request, timeout: float = 10.0) -> dict[str, Any]:
        """Begin an acquisition; return the status once the source has begun too: its next frame is the first.

        Raises
        ------
        AcquisitionRefused
            With every obstacle at once, and then nothing was begun; or because the source did not begin.
        """
        return dict(self._call(lambda: self._start(request), timeout).result(life.ARM_DEADLINE + timeout))

    def stop(self, timeout: float = 10.0) -> dict[str, Any]:
        """Ask for the end of the acquisition under way, if any; return the status."""
        return dict(self._call(self._stop, timeout))

    def status(self) -> dict[str, Any]:
        """Return what is known of the current or last acquisition.

        ``{"state", "acquisition", "acquisition_state", "message", "frames", "frames_written", "bytes_written",
        "rate", "data_rate", "time_left", "queue", "files", "master", "started", "ended", "ledger", "run_id",
        "record", …}``; ``record`` is the acquisition as std-daq has it (`journal.record_object`).
        """
        return dict(self._status)

    def log(self, most: int = 100) -> list[dict[str, Any]]:
        """Return the newest acquisitions that have ended, newest first, failed ones included (`public_record`)."""
        return [public_record(record) for record in self._journal.newest(max(0, int(most)))]

    @property
    def sources(self) -> list[str]:
        """Names that the attached sources give themselves."""
        return sorted(description.source for description in list(self._descriptions.values()))

    def _call(self, run: Callable[[], Any], timeout: float) -> Any:
        command = _Command(run, Future())
        self._queue.put(command)
        return command.answer.result(timeout)

    # The engine's own thread.

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                with contextlib.suppress(queue.Empty):
                    self._take(self._queue.get(timeout=_TICK))
                if time.monotonic() >= self._next_tick:
                    self._tick()
        except Exception:  # the edge of a thread
            _log.exception("the writer's thread has failed")
        finally:
            self._close_files_at_exit()

    def _take(self, item: Any) -> None:
        match item:
            case FrameCame(packed):
                self._frame(packed)
            case FramePassed():
                self._pass()
            case ResultCame():
                self._room.release()
                self._result(item)
            case MarkCame(None, mark):
                self._image_mark(mark)
            case MarkCame(source, mark):
                self._results_mark(str(source), mark)
            case IntakeFailed(None, reason):
                self._handle(life.SourceLost(reason))
            case IntakeFailed(source, reason):
                self._progress.note(f"no more results of {source}: {reason}")
            case _Command(run, answer):
                try:
                    answer.set_result(run())
                except Exception as error:  # belongs to the caller
                    answer.set_exception(error)

    def _handle(self, event: life.Event) -> None:
        self._carry_out(self.machine.handle(event, time.time()))
        if not (self.machine.armed or self._begun.done()):
            if why := self.machine.failure:
                self._begun.set_exception(AcquisitionRefused(f"the acquisition could not begin: {why}"))
            else:
                self._announce()  # who asks from now on sees what the start is answered with
                self._begun.set_result(self.status())

    def _carry_out(self, instructions: list[life.Instruction]) -> None:
        for instruction in instructions:
            match instruction:
                case life.OpenFiles(request, resume):
                    self._open(request, resume=resume)
                case life.ArmSource(request):
                    self._want(request.acquisition)
                    self._images.request(arm(request, self.options.name, self._raw_wish(request)))
                case life.StopSource(acquisition, failed):
                    self._images.request(Stop(acquisition, "failed" if failed else "stopped"))
                case life.Drain(expected):
                    self._drain_expected, self._drain_until = expected, time.monotonic() + DRAIN_WAIT
                    self._images.wanted = None
                    self._drain()
                case life.Abandon():
                    self._abandon()
                case life.SendReport(acquisition, counts):
                    self._images.request(Report(acquisition, dict(counts)))
                case life.Seal(reason, ledger):
                    self._seal(reason, ledger)
        if instructions:
            self._announce()

    # Commands.

    def _stop(self) -> dict[str, Any]:
        self._refuse_waiting("it was stopped before its source was back")
        idle = self.machine.state is life.WriterState.READY or self.machine.left is not None
        if idle and self._under_way is not None:
            self._images.request(Stop(self._under_way))
        self._handle(life.StopRequested())
        return self._snapshot()

    # Frames, results, marks.

    def _frame(self, packed: PackedFrame) -> None:
        try:
            self._progress.taken += 1
            self._handle(life.FramesCome())
            payload = packed.payload.result()
            index, frames = packed.header.index, self.machine.current.request.frames if self.machine.current else None
            if payload is None:
                self._progress.taken_back += 1
            elif self._files is None or not self.machine.taking_frames or (frames is not None and index >= frames):
                self._progress.discarded += 1
            else:
                with self._as_user:
                    self._files.write_image(index, payload, packed.header, packed.packet_mask, now=time.monotonic())
                self._progress.wrote(packed.header, payload.nbytes)
                if self._progress.frames == 1:
                    self._handle(life.FirstFrame())
        except (SisockdaqError, ValueError, OSError) as error:
            self._handle(life.WriteFailed(str(error)))
        finally:
            packed.recycle()

    def _result(self, result: ResultCame) -> None:
        if self._files is None or result.source not in self._files.results:
            self._progress.results_discarded += 1
            return
        try:
            if self._files.write_results(result.source, result.index, result.time, result.vector):
                self._results_written[result.source] += 1
        except (SisockdaqError, ValueError, OSError) as error:
            self._handle(life.WriteFailed(str(error)))

    def _image_mark(self, mark: Mark) -> None:
        match mark:
            case Attached(description, _, under_way):
                self._descriptions[None] = description
                self._under_way = under_way.acquisition if under_way else None
                self._learn_facts(description)
                self._left_behind = left_behind(under_way, self.options.name)
                self._resume_by = time.monotonic() + _RESUME_WAIT
                self._begin_waiting()
            case Detached(reason):
                if self._descriptions.pop(None, None) is not None:
                    self._source_went()
                self._under_way = self._left_behind = None
                self._handle(life.SourceLost(reason))
            case Start(acquisition):
                self._under_way = acquisition
                self._handle(life.SourceStarted(acquisition))
            case End(acquisition, reason, counts):
                self._under_way = self._left_behind = None
                if self._passing is not None:
                    self._passed = int(counts.get("frames_recorded", self._passed))
                cause = str(counts.get("error", ""))
                self._handle(life.SourceEnded(acquisition, reason, counts.get("frames_expected"), cause))
            case Settled(acquisition, ledger):
                self._handle(life.Settled(acquisition, ledger))

    def _results_mark(self, source: str, mark: Mark) -> None:
        match mark:
            case Attached(description):
                self._descriptions[source] = description
                self._learn_epochs(description)
            case Detached(reason):
                self._descriptions.pop(source, None)
                if self._files is not None and source in self._files.results:
                    self._progress.note(f"results of {source} are interrupted: {reason}")
            case End(acquisition):
                self._results[source].request(Report(acquisition, {"results_written": self._results_written[source]}))
                current = self.machine.current
                is_ours = current is not None and current.request.acquisition == acquisition
                if is_ours and self._files is not None and source in self._files.results:
                    self._files.results_ended(source)
                    self._drain()
            case _:
                pass

    def _want(self, acquisition: str | None) -> None:
        self._images.wanted = acquisition
        for intake in self._results.values():
            intake.wanted = None if self._images.passing else acquisition

    def _close_files_at_exit(self) -> None:
        while not self._queue.empty():
            self._take(self._queue.get())
        self._handle(life.WriterEnds("the writer was stopped"))
        self._refuse_waiting("the writer was stopped")
        self._begun.cancel()

    # Time and status.

    def _tick(self) -> None:
        now = time.monotonic()
        self._next_tick = now + _TICK
        if self._files is not None and self.machine.taking_frames and now >= self._next_commit:
            self._next_commit = now + self.options.flush_interval
            try:
                with self._as_user:
                    self._files.commit(now)
            except (SisockdaqError, ValueError, OSError) as error:
                self._handle(life.WriteFailed(str(error)))
        self._drain()
        self._resume(now)
        self._begin_waiting()
        self._handle(life.Tick())
        self._announce()

    def _announce(self) -> None:
        """Renew the snapshot; tell the owner when more than numbers changed."""
        self._status = self._snapshot()
        kind = tuple(self._status[key] for key in ("state", "acquisition", "acquisition_state", "message", "source"))
        if kind != self._announced:
            self._announced = kind
            self._on_status(self.status())

    def _snapshot(self) -> dict[str, Any]:
        files, progress, record = self._files, self._progress, self.machine.current
        if files is not None and record is not None:
            progress.look(files.images, files.bytes_written, files.next_index, time.monotonic())
            record.frames_written = files.images_safe
            record.frames_taken = max(record.frames_taken, files.images_safe, progress.taken)
            record.files = [os.fspath(path) for path in files.files]
        elif record is not None and record is self._passing:
            progress.look(self._passed, 0, self._passed, time.monotonic())
            record.frames_written = record.frames_taken = self._passed
        source = self._descriptions.get(None)
        return {
            **record_status(record, progress.message),
            "state": str(self.machine.state),
            "source": source.source if source is not None else None,
            "sources": self.sources,
            "frames_written": record.frames_written if record is not None else 0,
            "warnings": list(self._warnings),
            "results_late": files.results_late if files is not None else 0,
            "queue": self._packer.in_use if self._packer is not None else 0,
            **progress.to_dict(
                running=self.machine.state is life.WriterState.WRITING, coming=self.machine.taking_frames
            ),
        }
