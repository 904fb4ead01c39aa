"""Twisted's reactor in a background thread, for programs whose main thread is their own (scripts, notebooks, tests).

A process has one reactor, which can be started once; `ensure_reactor` may be called any number of times, and uses a
reactor that runs already.
"""

from __future__ import annotations

import atexit
import concurrent.futures
import threading
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from sisockdaq._wamp.link import the_reactor
from sisockdaq.errors import DeadlineExceeded

__all__ = ["ensure_reactor", "in_reactor"]

_START_DEADLINE = 10.0

_starting = threading.Lock()


def ensure_reactor() -> None:
    """Run the reactor in a daemon thread, unless it runs already."""
    reactor = the_reactor()
    with _starting:
        if reactor.running:
            return
        running = threading.Event()
        reactor.callWhenRunning(running.set)
        thread = threading.Thread(
            target=reactor.run, kwargs={"installSignalHandlers": False}, name="reactor", daemon=True
        )
        thread.start()
        if not running.wait(_START_DEADLINE):
            raise DeadlineExceeded(f"the reactor did not start within {_START_DEADLINE:g} s")
        atexit.register(_stop, thread)


def in_reactor(function: Callable[..., Any], *args: Any, deadline: float = 30.0, **kwargs: Any) -> Any:
    """Call a function in the reactor's thread and wait for its result, or that of the Deferred it returns.

    Raises
    ------
    DeadlineExceeded
        After `deadline` seconds; the Deferred is cancelled.
    Exception
        What the function raised, or its Deferred failed with.
    """
    ensure_reactor()
    outcome: concurrent.futures.Future[Any] = concurrent.futures.Future()
    started: list[Deferred[Any]] = []

    def settle(result: Any) -> None:
        if outcome.done():
            return
        if isinstance(result, Failure):
            outcome.set_exception(result.value or RuntimeError("failed without a reason"))
        else:
            outcome.set_result(result)

    def call() -> None:
        answer = maybeDeferred(function, *args, **kwargs)
        started.append(answer)
        answer.addBoth(settle)

    reactor = the_reactor()
    reactor.callFromThread(call)
    try:
        return outcome.result(deadline)
    except concurrent.futures.TimeoutError:
        if outcome.done():
            raise
        if started:
            reactor.callFromThread(started[0].cancel)
        name = getattr(function, "__qualname__", repr(function))
        raise DeadlineExceeded(f"{name} took longer than {deadline:g} s") from None


def _stop(thread: threading.Thread) -> None:
    reactor = the_reactor()
    if thread.is_alive() and reactor.running:
        reactor.callFromThread(reactor.stop)
        thread.join(2.0)
