"""The queue of pictures: worker processes reduce what is put into it.

What it promises
----------------
- Bounded: a picture beyond ``limit`` is refused, and counted as ignored. Nothing that was taken is lost silently: it
  is processed, or failed and named, or (after `abort`) counted as dropped.
- A picture that cannot be read is tried again, ever less often, for ``patience`` seconds from the first try or from
  the last change of its file; then it has failed.
- A worker that dies, or is silent for too long with work in hand, is replaced. What it had in hand is tried again, one
  by one; a picture over which a worker dies alone has failed.
- No method but `abort` and `wait_idle` waits for anything; all may be called from any thread.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import threading
import time
import weakref
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from sisockdaq.errors import StorageError
from sisockdaq.saxsdog._process import WorkerProcess
from sisockdaq.saxsdog.backlog import Backlog
from sisockdaq.saxsdog.integration import Reduction
from sisockdaq.saxsdog.pictures import is_picture, pictures_below
from sisockdaq.saxsdog.records import Counts, Failure, Records
from sisockdaq.saxsdog.workers import READY, Done, Plan

__all__ = ["Counts", "Failure", "PictureQueue"]

_log = logging.getLogger(__name__)

_BATCH = 8
"""Pictures given to a worker at once."""

_AHEAD = 16
"""Most pictures that a worker has in hand: enough that it never waits for the queue."""

_AGAIN_AFTER = 0.05
"""A picture that is told of anew while it is worked on is tried again after so long [s]."""

_SILENT = 60.0
"""A worker with work in hand that is silent for so long is replaced [s]."""

_RESTART_AFTER = 0.2
"""Time before a worker is replaced, if none did anything since the last one; it doubles up to 5 s [s]."""

_GIVE_UP = 6
"""So many workers in a row that die before they can work: something is wrong with the installation."""


class PictureQueue:
    """Pictures below a folder, reduced by worker processes.

    Parameters
    ----------
    reduction : Reduction
        What is made of a picture.
    directory : path
        Pictures lie in it or below.
    workers : int, optional
        Processes; the calibration's ``Threads`` by default.
    relative : str, optional
        Folder of the results, from the folder of each picture.
    output : path, optional
        One folder for all results instead; the names tell the folders of the pictures.
    overwrite : bool, optional
        Reduce pictures again that have their files; the calibration's ``OverwriteFiles`` by default.
    live_list : path, optional
        File that gets a line for each ``.chi``, when the calibration asks for ``Live-Filelisting``; by default
        ``../results/filelist_<directory>.log``.
    limit : int, optional
        Most pictures that wait.
    patience : float, optional
        How long a file may be unreadable, from the first try or from its last change, whichever is later [s].

    Attributes
    ----------
    directory : Path
        Where the pictures lie.
    live_list : Path or None
        The live list, where there is one.
    """

    def __init__(
        self,
        reduction: Reduction,
        directory: Path | str,
        *,
        workers: int | None = None,
        relative: str = "../work",
        output: Path | str | None = None,
        overwrite: bool | None = None,
        live_list: Path | str | None = None,
        limit: int = 100_000,
        patience: float = 10.0,
    ) -> None:
        calibration = reduction.calibration
        self.directory = _absolute(directory)
        self.live_list = _live_list(self.directory, live_list) if calibration.live_filelisting else None
        self._inside = os.path.join(os.fspath(self.directory), "")  # noqa: PTH118
        self._plan = Plan(
            reduction,
            os.fspath(self.directory),
            relative,
            None if output is None else os.fspath(_absolute(output)),
            calibration.overwrite_files if overwrite is None else overwrite,
            None if self.live_list is None else os.fspath(self.live_list),
        )
        self._count = workers or calibration.workers
        self._records = Records()
        self._changed = threading.Condition()
        self._backlog = Backlog(limit, patience)
        self._workers: list[WorkerProcess] = []
        self._in_hand = self._dropped = self._ignored = self._restarts = 0
        self._early_deaths, self._next_start = 0, 0.0
        self._closed = self._aborted = self._leaving = False
        self._problem = ""
        self._started = time.time()
        self._scans = 0
        self._thread: threading.Thread | None = None
        self._wake_in, self._wake_out = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._woken = False
        # Not closed before nobody can call any more: the numbers might belong to other files by then.
        weakref.finalize(self, _close_both, self._wake_in, self._wake_out)

    # What a user calls.

    def start(self) -> None:
        """Start the workers.

        Raises
        ------
        StorageError
            The live list cannot be written.
        """
        if self.live_list is not None:
            try:
                self.live_list.parent.mkdir(parents=True, exist_ok=True)
                self.live_list.write_bytes(b"")
            except OSError as error:
                raise StorageError(
                    f"{self.live_list}: the live list cannot be written: {error.strerror}",
                    remedy="make its folder writable, or leave Live-Filelisting out",
                ) from None
        self._started = time.time()
        self._thread = threading.Thread(target=self._run, name="picture-queue", daemon=True)
        self._thread.start()

    def put(self, path: Path | str) -> bool:
        """Queue a picture; return whether it was taken (also when it waits already)."""
        name = os.path.normpath(os.path.join(self.directory, path))  # noqa: PTH118
        with self._changed:
            taken = self._admit(name)
            self._ignored += not taken
        if taken:
            self._wake()
        return taken

    def readdir(self) -> bool:
        """Queue every picture below the directory, and forget what was remembered of them.

        A thread looks for them, and waits where the queue is full. Returns whether it does: a closed queue takes none.
        """
        with self._changed:
            if self._closed:
                return False
            self._scans += 1
        self._records.forget()
        threading.Thread(target=self._scan, name="picture-queue-scan", daemon=True).start()
        return True

    def close(self) -> None:
        """Take no more pictures; the workers end when those queued are done."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._wake()

    def abort(self, timeout: float = 10.0) -> None:
        """End after the pictures in hand; those that wait are dropped. Workers not done in time are killed."""
        with self._changed:
            self._closed = self._aborted = True
            self._dropped += self._backlog.drop()
            self._changed.notify_all()
        self._wake()
        if self._thread is not None:
            self._thread.join(timeout)
            for worker in list(self._workers):
                worker.kill()
            self._thread.join(5.0)

    def wait_idle(self, timeout: float) -> bool:
        """Wait until nothing is queued or in hand; return whether that came to be in time."""
        with self._changed:
            self._changed.wait_for(lambda: not self._busy(), timeout)
            return not (self._backlog or self._in_hand or self._scans)

    def state(self) -> dict[str, Any]:
        """Return what ``stat`` answers; the queue's length has what the workers hold: 0 means that all is done."""
        with self._changed:
            length = len(self._backlog) + self._in_hand
        return {
            "images processed": self._records.reduced + self._records.skipped,
            "queue length": length,
            "time": time.time(),
            "start time": self._started,
        }

    def counts(self) -> Counts:
        """Return what became of the pictures."""
        records = self._records
        with self._changed:
            return Counts(
                records.reduced + records.skipped,
                records.reduced,
                records.skipped,
                records.failed,
                self._backlog.retries,
                self._dropped,
                self._ignored,
                self._restarts,
                len(self._backlog),
                self._in_hand,
                records.rate(),
                self._problem,
            )

    def latest(self) -> dict[str, Any] | None:
        """Return the newest picture's curves: ``{"filename", "graphs"}``; None before the first."""
        return self._records.latest()

    def history(self) -> list[float]:
        """Return when pictures were processed, of the last 100 s (UNIX times)."""
        return self._records.history()

    def integral_parameters(self) -> dict[str, dict[str, list[Any]]]:
        """Return ``{"R0": {"time", "file", "I0", "I1", "I2"}}``, a list each: the newest 5000 pictures."""
        return self._records.integral_parameters()

    def file_lists(self) -> dict[str, list[str]]:
        """Return the files written or found, by kind: ``{"Radial0": […], "JSON": […]}``."""
        return self._records.file_lists()

    def failures(self) -> list[Failure]:
        """Return the pictures given up, newest last: the last 1000."""
        return self._records.failures()

    @property
    def pids(self) -> list[int]:
        """The numbers of the worker processes."""
        return [worker.pid for worker in list(self._workers)]

    # Taking pictures.

    def _admit(self, name: str) -> bool:
        if self._closed or not name.startswith(self._inside) or not is_picture(name):
            return False
        return self._backlog.admit(name)

    def _scan(self) -> None:
        try:
            for name in pictures_below(os.fspath(self.directory)):
                with self._changed:
                    self._changed.wait_for(lambda: self._closed or not self._backlog.full)
                    if self._closed:
                        return
                    self._admit(name)
                self._wake()
        finally:
            with self._changed:
                self._scans -= 1
                self._changed.notify_all()
            self._wake()

    def _busy(self) -> bool:
        return bool(self._backlog or self._in_hand or self._scans) and not self._problem

    def _wake(self) -> None:
        if not self._woken:
            self._woken = True
            with contextlib.suppress(BlockingIOError):  # full: it wakes anyway
                os.write(self._wake_out, b"!")

    # The thread that deals them out.

    def _run(self) -> None:
        plan = pickle.dumps(self._plan, protocol=pickle.HIGHEST_PROTOCOL)
        try:
            while not self._over():
                self._staff()
                self._deal()
                for readable in wait([self._wake_in, *(worker.pipe for worker in self._workers)], self._pause()):
                    if readable == self._wake_in:
                        with contextlib.suppress(BlockingIOError):
                            os.read(self._wake_in, 4096)
                        self._woken = False
                    else:
                        self._hear(next(worker for worker in self._workers if worker.pipe is readable), plan)
                self._look_for_silent()
            self._dismiss(plan)
        except Exception:
            _log.exception("the queue of pictures ended")
            with self._changed:
                self._problem = "the queue ended by an error of its own; its log says which"
        finally:
            for worker in self._workers:
                worker.kill()
                worker.end()
            self._workers.clear()
            with self._changed:
                self._closed = True
                self._changed.notify_all()

    def _over(self) -> bool:
        with self._changed:
            return self._aborted or (self._closed and not self._busy())

    def _pause(self) -> float:
        with self._changed:
            due = self._backlog.due
            if due is not None:
                return min(max(due - time.monotonic(), 0.0), 1.0)
        return 1.0 if len(self._workers) == self._count or self._problem else 0.1

    def _staff(self) -> None:
        while len(self._workers) < self._count and time.monotonic() >= self._next_start and not self._problem:
            self._workers.append(WorkerProcess())

    def _deal(self) -> None:
        free = [worker for worker in self._workers if worker.ready]
        with self._changed:
            self._backlog.ripen(time.monotonic())
            for worker in free:
                if not worker.hand and (path := self._backlog.take_alone()) is not None:
                    self._give(worker, [path])
            while self._backlog.waiting:
                taking = [worker for worker in free if self._has_room(worker)]
                if not taking:
                    break
                # In turn, so that a short queue is shared.
                worker = min(taking, key=lambda one: len(one.hand))
                share = max(1, min(_BATCH, self._backlog.waiting // len(free)))
                self._give(worker, self._backlog.take(share, time.monotonic()))
            self._changed.notify_all()

    def _has_room(self, worker: WorkerProcess) -> bool:
        return len(worker.hand) <= _AHEAD - _BATCH and not any(map(self._backlog.is_suspect, worker.hand))

    def _give(self, worker: WorkerProcess, paths: list[str]) -> None:
        for path in worker.hand.keys() & set(paths):  # told of anew while it is worked on: once more, after that
            self._backlog.postpone(path, time.monotonic() + _AGAIN_AFTER)
            paths.remove(path)
        if not paths:
            return
        self._in_hand += len(paths)
        with contextlib.suppress(OSError):  # it died: its end is heard, and what it has in hand is tried again
            worker.give(paths, not self._backlog.waiting)

    def _hear(self, worker: WorkerProcess, plan: bytes) -> None:
        try:
            message = worker.received()
            if message == READY:
                worker.begin(plan)
                return
        except (EOFError, OSError):
            self._bury(worker, worker.end())
            return
        self._early_deaths = 0
        for done in message:
            self._take(worker, done)
        with self._changed:
            self._changed.notify_all()

    def _take(self, worker: WorkerProcess, done: Done) -> None:
        good, again = done.outcome in ("reduced", "skipped"), False
        if good:
            self._records.done(done)
        dropped = done.outcome == "unfinished" and self._aborted
        with self._changed:
            worker.hand.pop(done.path, None)
            if dropped:
                self._dropped += 1
            elif done.outcome == "unfinished":
                again = self._backlog.try_again(done.path, time.monotonic(), done.time, done.changed)
            else:
                self._backlog.settled(done.path)
        if done.outcome == "unfinished" and not (again or dropped):
            patience = self._backlog.patience
            self._fail(done.path, f"{done.reason}; given up after {patience:g} s: readdir takes it once it is whole")
        elif not (good or again or dropped):
            self._fail(done.path, done.reason)
        with self._changed:
            self._in_hand -= 1  # last: who waits until nothing is in hand sees what became of it

    def _fail(self, path: str, reason: str) -> None:
        _log.warning("%s: failed: %s", path, reason)
        self._records.fail(path, reason)

    # Workers that are gone.

    def _bury(self, worker: WorkerProcess, ending: str) -> None:
        self._workers.remove(worker)
        with self._changed:
            lost = list(worker.hand)
            if self._leaving:
                self._in_hand -= len(lost)
                self._dropped += len(lost)
                return
            self._restarts += 1
            guilty = self._backlog.lost(lost)
            if not lost:
                self._early_deaths += 1
                self._next_start = time.monotonic() + min(_RESTART_AFTER * 2**self._early_deaths, 5.0)
            if self._early_deaths >= _GIVE_UP:
                self._problem = f"no worker process can start: the last one {ending}"
        _log.warning("worker %d %s; %d pictures were in its hands", worker.pid, ending, len(lost))
        if guilty is not None:
            self._fail(guilty, f"the worker process {ending} over it, twice")
        with self._changed:
            self._in_hand -= len(lost)

    def _look_for_silent(self) -> None:
        now = time.monotonic()
        for worker in list(self._workers):
            if (worker.hand or not worker.ready) and now - worker.heard > _SILENT:
                worker.kill()
                self._bury(worker, f"was silent for {_SILENT:g} s; it {worker.end()}")

    def _dismiss(self, plan: bytes) -> None:
        """End the workers: each finishes the picture in hand, and tells of it."""
        self._leaving = True
        for worker in self._workers:
            worker.stop()
        until = time.monotonic() + _SILENT
        while self._workers and time.monotonic() < until:
            for readable in wait([worker.pipe for worker in self._workers], 1.0):
                worker = next(one for one in self._workers if one.pipe is readable)
                self._hear(worker, plan)


def _close_both(*handles: int) -> None:
    for handle in handles:
        os.close(handle)


def _absolute(path: Path | str) -> Path:
    return Path(os.path.normpath(Path(path).absolute()))


def _live_list(directory: Path, chosen: Path | str | None) -> Path:
    if chosen is not None:
        return _absolute(chosen)
    return directory.parent / "results" / f"filelist_{directory.name}.log"
