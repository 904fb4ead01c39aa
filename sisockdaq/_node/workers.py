"""Threads for blocking work: a bounded number, a bounded queue, and a deadline for every answer.

A job whose deadline has passed fails for its caller at once; its thread goes on until the job returns, and its late
result is dropped. Threads are daemons: a job that never returns cannot keep the process from ending.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from sisockdaq._wamp.link import the_reactor
from sisockdaq.errors import DeadlineExceeded

__all__ = ["Workers"]

_Job = tuple[Callable[[], Any], "Deferred[Any]"]


class Workers:
    """A pool of at most `threads` threads with at most `waiting` jobs before them.

    Threads are made when first needed.
    """

    def __init__(self, threads: int = 8, waiting: int = 64, name: str = "worker") -> None:
        self._limit = threads
        self._name = name
        self._jobs: queue.Queue[_Job | None] = queue.Queue(waiting)
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._lock = threading.Lock()

    def run(self, function: Callable[..., Any], *args: Any, deadline: float = 30.0, **kwargs: Any) -> Deferred[Any]:
        """Run a function in a thread; to be called in the reactor's thread.

        The Deferred fails with `DeadlineExceeded` when all threads and the queue are full, or after `deadline` seconds.
        """
        name = getattr(function, "__qualname__", repr(function))
        result: Deferred[Any] = Deferred()
        try:
            self._jobs.put_nowait((lambda: function(*args, **kwargs), result))
        except queue.Full:
            result.errback(DeadlineExceeded(f"{name} was not started: {self._jobs.maxsize} requests are waiting"))
            return result
        self._grow()
        timer = the_reactor().callLater(deadline, result.cancel)

        def settle(outcome: Any) -> Any:
            if timer.active():
                timer.cancel()
            if isinstance(outcome, Failure) and isinstance(outcome.value, CancelledError):
                raise DeadlineExceeded(f"{name} took longer than {deadline:g} s")
            return outcome

        return result.addBoth(settle)

    def stop(self) -> None:
        """Let idle threads end; busy ones end after their job."""
        for _ in self._threads:
            try:
                self._jobs.put_nowait(None)
            except queue.Full:
                return

    def _grow(self) -> None:
        with self._lock:
            if self._idle < self._jobs.qsize() and len(self._threads) < self._limit:
                thread = threading.Thread(target=self._work, name=f"{self._name}-{len(self._threads)}", daemon=True)
                self._threads.append(thread)
                thread.start()

    def _work(self) -> None:
        reactor = the_reactor()
        while True:
            with self._lock:
                self._idle += 1
            job = self._jobs.get()
            with self._lock:
                self._idle -= 1
            if job is None:
                return
            function, result = job
            if result.called:
                continue
            try:
                outcome = function()
            except BaseException:  # The edge of this thread: whatever it was belongs to the caller.
                outcome = Failure()
            reactor.callFromThread(_deliver, result, outcome)


def _deliver(result: Deferred[Any], outcome: Any) -> None:
    if result.called:
        return
    if isinstance(outcome, Failure):
        result.errback(outcome)
    else:
        result.callback(outcome)
