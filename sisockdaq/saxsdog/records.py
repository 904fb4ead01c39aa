"""What a queue remembers of its pictures: counts, times, integral parameters, files, failures; all of it bounded."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Any

from sisockdaq.saxsdog.integration import Curve
from sisockdaq.saxsdog.workers import Done

__all__ = ["Counts", "Failure", "Records"]

_HISTORY_LENGTH = 100.0
"""Times of pictures are kept so long, as SAXSdog's clients draw them [s]."""

_HISTORY, _PARAMETERS, _FILES, _FAILURES = 20_000, 5_000, 200_000, 1_000
"""Most entries that are kept; the oldest go first."""

_RATE_OVER = 10.0
"""The rate is that of the last seconds [s]."""


@dataclass(frozen=True)
class Counts:
    """What became of the pictures of a queue.

    Attributes
    ----------
    processed : int
        Reduced, or skipped since they had their files.
    failed : int
        Given up; `PictureQueue.failures` has their names.
    retries : int
        Tries of pictures that were not whole.
    dropped : int
        Taken and never tried: the queue was aborted.
    ignored : int
        Refused: the queue was closed or full, the file no picture, or outside of the folder.
    restarts : int
        Worker processes that died and were replaced.
    waiting, in_hand : int
        Not yet begun, and being worked on.
    rate : float
        Pictures processed in a second, over the last ten.
    problem : str
        Why nothing goes on; empty when all is well.
    """

    processed: int = 0
    reduced: int = 0
    skipped: int = 0
    failed: int = 0
    retries: int = 0
    dropped: int = 0
    ignored: int = 0
    restarts: int = 0
    waiting: int = 0
    in_hand: int = 0
    rate: float = 0.0
    problem: str = ""


@dataclass(frozen=True)
class Failure:
    """A picture that was given up: which, why, and when (UNIX time)."""

    path: str
    reason: str
    time: float


class Records:
    """Collects what workers tell; every method may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.reduced = self.skipped = self.failed = 0
        self._started = time.time()
        self._times: deque[float] = deque(maxlen=_HISTORY)
        self._parameters: dict[str, dict[str, deque[Any]]] = {}
        self._files: OrderedDict[str, dict[str, str]] = OrderedDict()
        self._failures: deque[Failure] = deque(maxlen=_FAILURES)
        self._latest: tuple[Done, list[Curve]] | None = None

    def done(self, done: Done) -> None:
        """Remember a picture that was reduced or skipped."""
        with self._lock:
            if done.outcome == "reduced":
                self.reduced += 1
            else:
                self.skipped += 1
            self._times.append(done.time)
            if done.files is not None:
                self._files[done.base] = done.files
                self._files.move_to_end(done.base)
                if len(self._files) > _FILES:
                    self._files.popitem(last=False)
            for key, values in (done.parameters or {}).items():
                columns = self._parameters.setdefault(key, {})
                for name, value in {"time": done.taken, "file": done.base, **values}.items():
                    columns.setdefault(name, deque(maxlen=_PARAMETERS)).append(value)
            if done.curves and (self._latest is None or self._latest[0].time <= done.time):
                self._latest = done, done.curves

    def fail(self, path: str, reason: str) -> None:
        """Remember a picture that was given up."""
        with self._lock:
            self.failed += 1
            self._failures.append(Failure(path, reason, time.time()))

    def forget(self) -> None:
        """Forget times, parameters and files, but no counts: all pictures are about to come again."""
        with self._lock:
            self._times.clear()
            self._parameters.clear()
            self._files.clear()

    def latest(self) -> dict[str, Any] | None:
        """Return the newest curves as ``plot`` has them."""
        with self._lock:
            newest = self._latest
        if newest is None:
            return None
        done, curves = newest
        return {"filename": done.base, "graphs": [curve.to_wire(done.path) for curve in curves]}

    def history(self) -> list[float]:
        """Return when pictures were processed, of the last 100 s."""
        since = time.time() - _HISTORY_LENGTH
        with self._lock:
            return [when for when in self._times if when > since]

    def rate(self) -> float:
        """Return pictures a second."""
        now = time.time()
        since = max(now - _RATE_OVER, self._started)
        with self._lock:
            count = 0
            for when in reversed(self._times):
                if when < since:
                    break
                count += 1
        return count / max(now - since, 1.0)

    def integral_parameters(self) -> dict[str, dict[str, list[Any]]]:
        """Return the columns of each curve's parameters."""
        with self._lock:
            return {
                key: {name: list(column) for name, column in columns.items()}
                for key, columns in self._parameters.items()
            }

    def file_lists(self) -> dict[str, list[str]]:
        """Return the files by kind, in the order of their names."""
        with self._lock:
            files = list(self._files.items())
        lists: dict[str, list[str]] = {}
        for _, kinds in sorted(files):
            for kind, name in kinds.items():
                lists.setdefault(kind, []).append(name)
        return lists

    def failures(self) -> list[Failure]:
        """Return the pictures given up, newest last."""
        with self._lock:
            return list(self._failures)
