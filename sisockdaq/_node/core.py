"""What belongs to a node rather than to one of its connections: options, series, feeds, timers, membership.

`sisockdaq.base.DataNodeServer` is the face; this is behind it. How a node becomes a member of the network:

1. it registers its procedures; while another process holds them, it waits (it is a *second holder*);
2. it asks the hub to list it, again whenever the hub starts, and looks every `LOOK_PERIOD` whether it still is listed,
   so that it comes back even with a hub that announces nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from autobahn.exception import PayloadExceededError
from autobahn.wamp.exception import ApplicationError, SerializationError, TransportLost
from pydantic import BaseModel, ValidationError
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred, inlineCallbacks, maybeDeferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from sisockdaq._node.feed import Feeds
from sisockdaq._node.runner import RunnerLink
from sisockdaq._node.workers import Workers
from sisockdaq._wamp.link import Credentials, call_within, the_reactor
from sisockdaq.downsample import thin
from sisockdaq.errors import ConfigurationError, SisockdaqError
from sisockdaq.flow import buffered
from sisockdaq.notify import notify_ready, notify_status
from sisockdaq.schema import Reply
from sisockdaq.series import Series, SeriesStore

__all__ = ["Bell", "NodeCore", "package_version"]

RETRY_PERIOD = 1.0
"""Time after which a name that was taken, or a hub that was away, is tried again, should no event say so sooner [s]."""

LOOK_PERIOD = 5.0
"""Time between two looks at the hub's listing [s]."""

HUB_DEADLINE = 5.0
"""Time that the hub gets for an answer [s]."""

SETUP_DEADLINE = 300.0
"""Longest time of a blocking function during `setup` [s]: kernels are compiled and files are listed then."""

KINDS_OF_ERRORS = 100
"""Kinds of timers' errors that are logged; all are counted, and the count is in the node's health."""

FEED_BACKLOG = 4 << 20
"""Bytes waiting in the transport above which feed events are dropped, so that a slow router costs no memory."""

_CONTRACT = ("get_fields", "get_data")
"""Procedures without which nobody can ask a node."""

_REFUSED = (ApplicationError.NOT_AUTHORIZED, ApplicationError.AUTHORIZATION_FAILED, ApplicationError.INVALID_URI)

_Procedure = tuple[str, Callable[..., Any], Any]


class Bell:
    """Waiting for an event or a time, whichever comes first."""

    def __init__(self) -> None:
        self._waiting: Deferred[None] | None = None

    def wait(self, seconds: float) -> Deferred[None]:
        """Return a Deferred that fires at the next `ring`, or after so many seconds."""
        waiting: Deferred[None] = Deferred()
        self._waiting = waiting
        timer = the_reactor().callLater(seconds, self.ring)

        def settle(result: Any) -> Any:
            if timer.active():
                timer.cancel()
            return result

        return waiting.addBoth(settle)

    def ring(self, *_: Any) -> None:
        """End the wait."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.called:
            waiting.callback(None)


class NodeCore:
    """The lasting part of a node.

    Parameters
    ----------
    node : DataNodeServer
    credentials : Credentials
        Used where the node's configuration has none.
    base_uri : str
        Likewise.
    """

    def __init__(self, node: Any, credentials: Credentials, base_uri: str) -> None:
        extra: Mapping[str, Any] = node.config.extra if isinstance(node.config.extra, Mapping) else {}
        self.node = node
        self.credentials: Credentials = extra.get("credentials") or credentials
        node.credentials = self.credentials
        node.site = extra.get("site")
        node.state = extra.get("state")
        node.name = extra.get("name") or node.name
        node.description = extra.get("description") or node.description
        if node.description is None:
            node.description = (type(node).__doc__ or "").strip().partition("\n")[0]
        node.options = _options(type(node), node.name, extra.get("options"))
        self.base_uri: str = extra.get("base_uri") or getattr(node.site, "base_uri", None) or base_uri
        self.store = SeriesStore()
        self.feeds = Feeds(self._publish)
        self.workers = Workers(name=f"{node.name}-worker")
        self.controls: dict[str, tuple[Callable[..., Any], bool]] = {}
        self.procedures: dict[str, tuple[Callable[..., Any], bool]] = {}
        self.started = time.time()
        self.listed = False
        self.managed = False
        self.ready = False
        self.errors = 0
        self._set_up: Deferred[None] | None = None
        self._membership: Deferred[Any] | None = None
        self._bell = Bell()
        self._runner: RunnerLink | None = None
        self._timers: list[LoopingCall] = []
        self._ended = threading.Event()
        self._said: str | None = None
        self._errors_said: set[str] = set()
        self._log = Logger(f"sisockdaq.{node.name}")

    def uri(self, s: str) -> str:
        """Return a full URI."""
        return f"{self.base_uri}.{s}"

    # Life: set up once, joined many times, torn down once.

    def set_up(self) -> Deferred[None]:
        """Run the author's `setup`, once; later calls return a Deferred of the same outcome."""
        if self._set_up is None:
            if not isinstance(self.node.name, str) or not self.node.name:
                raise ConfigurationError(
                    f"{type(self.node).__name__} has no name", remedy="set it as a class attribute"
                )
            self._set_up = self.deferred(self.node.setup).addCallback(self._is_set_up)
        outcome: Deferred[None] = Deferred()

        def pass_on(result: Any) -> Any:
            outcome.errback(result) if isinstance(result, Failure) else outcome.callback(None)
            return None if isinstance(result, Failure) else result

        self._set_up.addBoth(pass_on)
        return outcome

    def _is_set_up(self, _: Any) -> Any:
        self.ready = True
        # Torn down while it was being set up: what was opened since would stay open, and its places taken.
        return self.tear_down() if self._ended.is_set() else None

    @inlineCallbacks
    def tear_down(self) -> Any:
        """Stop the timers, then run the author's `teardown`."""
        self._ended.set()
        for timer in self._timers:
            if timer.running:
                timer.stop()
        try:
            yield self.deferred(self.node.teardown)
        finally:
            self.workers.stop()

    @inlineCallbacks
    def enter(self, procedures: Sequence[_Procedure]) -> Any:
        """Register the procedures and ask the hub once; what follows of membership goes on by itself."""
        yield self._listen()
        if not (yield self._guarded(self._register(procedures))):
            return  # Refused, or the connection is gone: there is nothing that the hub could list.
        asked: Deferred[None] = Deferred()
        self._guarded(self._stay_listed(asked))
        yield asked

    def unmanaged(self) -> RunnerLink | None:
        """Return what brings the node back when a script runs it; None for a node that `sisockdaq.session` runs."""
        if not self.managed and self._runner is None:
            self._runner = RunnerLink(self.node)
        return self._runner

    def left(self) -> None:
        """The connection is gone: stop what waits on it."""
        self.listed = False
        membership, self._membership = self._membership, None
        if membership is not None:
            membership.cancel()

    def _guarded(self, work: Deferred[Any]) -> Deferred[Any]:
        """Let `left` cancel the work."""
        self._membership = work
        work.addErrback(self._not_entered)
        return work

    def _not_entered(self, failure: Failure) -> None:
        if failure.check(CancelledError, TransportLost):
            return  # The connection is gone; the next one enters anew.
        if isinstance(failure.value, ApplicationError):
            said = failure.value.error_message()
            self._log.error("cannot enter the network: {error}", error=said)
            notify_status(f"cannot enter the network: {said}")
        else:
            self._log.failure("cannot enter the network", failure=failure)

    @inlineCallbacks
    def _listen(self) -> Any:
        """Hear of events that make another try worthwhile; a router that forbids it only makes us slower."""
        for topic in (self.uri("consumer.data_node_subtracted"), self.uri("data_node.hub_started")):
            try:
                yield self.node.subscribe(self._bell.ring, topic)
            except ApplicationError as error:
                self._log.info("no events of {topic}: {error}", topic=topic, error=error.error)

    @inlineCallbacks
    def _register(self, procedures: Sequence[_Procedure]) -> Any:
        while True:
            done: list[Any] = []
            try:
                for name, function, options in procedures:
                    registration = yield self._register_one(name, function, options)
                    if registration is not None:
                        done.append(registration)
            except ApplicationError as error:
                if error.error != ApplicationError.PROCEDURE_ALREADY_EXISTS:
                    raise
                self._say(f"another process holds the name {self.node.name!r}; waiting for it to leave")
                for registration in done:
                    yield registration.unregister()
                yield self._bell.wait(RETRY_PERIOD)
            else:
                return True

    @inlineCallbacks
    def _register_one(self, name: str, function: Callable[..., Any], options: Any) -> Any:
        """Register a procedure; None where the router refuses one that sisock's contract does not have.

        A router that was set up for sisock's nodes may allow no more than what those have.
        """
        try:
            registration = yield self.node.register(function, name, options=options)
        except ApplicationError as error:
            if error.error not in _REFUSED or name.rpartition(".")[2] in _CONTRACT:
                raise
            self._log.info("the router does not let this user offer {name}; going on without", name=name)
            return None
        return registration

    @inlineCallbacks
    def _stay_listed(self, asked: Deferred[None]) -> Any:
        while True:
            try:
                self.listed = (yield self._is_listed()) or (yield self._ask_hub())
                self._say("listed by the hub" if self.listed else f"the hub has another {self.node.name!r}; waiting")
            except SisockdaqError as error:
                self.listed = False
                self._say(f"not listed: {error.message}")
            if not asked.called:
                asked.callback(None)
            yield self._bell.wait(LOOK_PERIOD if self.listed else RETRY_PERIOD)

    @inlineCallbacks
    def _is_listed(self) -> Any:
        if not self.listed:
            return False
        listing = yield call_within(self.node, HUB_DEADLINE, self.uri("consumer.get_data_node"))
        return any(entry.get("name") == self.node.name for entry in listing)

    def _ask_hub(self) -> Deferred[bool]:
        node = self.node
        return call_within(
            node, HUB_DEADLINE, self.uri("data_node.add"), node.name, node.description, node._session_id
        ).addCallback(bool)

    def _say(self, text: str) -> None:
        """Log a change of membership, once."""
        if text != self._said:
            self._said = text
            self._log.info("{text}", text=text)
            (notify_ready if self.listed else notify_status)(text)

    # What an author calls.

    def series(self, name: str, **entry: Any) -> Series:
        """Declare a series, and watch its timeline for the feed."""
        made = self.store.series(name, **entry)
        if entry.get("feed", True) and made.timeline.on_append is None:
            self.feeds.watch(made.timeline)
        return made

    def publish_feed(self, timeline: str, block: Mapping[str, Any]) -> None:
        """Publish a block; from any thread."""
        the_reactor().callFromThread(self.feeds.send, timeline, block["t"], block["data"])

    def every(self, seconds: float, function: Callable[[], Any], in_thread: bool) -> None:
        """Start a timer."""
        call = partial(self._safely, function)
        if in_thread:
            name = f"{self.node.name}-{getattr(function, '__name__', 'timer')}"
            threading.Thread(target=self._repeat, args=(seconds, call), name=name, daemon=True).start()
            return
        timer = LoopingCall(lambda: self.deferred(function).addErrback(self._count))
        self._timers.append(timer)
        # Not at once: the function may use what setup has still to make. And `every` may be called in any thread.
        the_reactor().callFromThread(self._start_timer, timer, seconds)

    def _start_timer(self, timer: LoopingCall, seconds: float) -> None:
        if not self._ended.is_set():
            timer.start(seconds)

    def _repeat(self, seconds: float, call: Callable[[], None]) -> None:
        due = time.monotonic()
        while not self._ended.wait(max(0.0, due - time.monotonic())):
            call()
            due = max(due + seconds, time.monotonic())

    def _safely(self, function: Callable[[], Any]) -> None:
        try:
            function()
        except Exception:  # The edge of the timer's thread: one failed reading must not end the readings.
            self._count(Failure())

    def _count(self, failure: Failure) -> None:
        """Count an error; log each kind once, so that a gauge that is off does not fill the log."""
        self.errors += 1
        text = f"{type(failure.value).__name__}: {failure.value}"
        if text in self._errors_said or len(self._errors_said) >= KINDS_OF_ERRORS:
            return
        self._errors_said.add(text)
        if isinstance(failure.value, SisockdaqError):
            self._log.warn("{text}", text=text)
        else:
            self._log.failure("a timer's function failed", failure=failure)

    def in_thread(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Deferred[Any]:
        """Run a blocking function in the pool."""
        deadline = self.node.deadline if self.ready else SETUP_DEADLINE
        return self.workers.run(function, *args, deadline=deadline, **kwargs)

    # Helpers of the served procedures.

    def deferred(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Deferred[Any]:
        """Call a function that returns a value, a Deferred or a coroutine; return a Deferred."""
        return maybeDeferred(function, *args, **kwargs).addCallback(_settled)

    def plain_data(self, fields: Sequence[str], start: float, end: float, min_stride: float | None) -> Deferred[Any]:
        """Ask the author's `get_data`; without min_stride where none was given, as a sisock subclass may lack it."""
        more = () if min_stride is None else (min_stride,)
        return self.deferred(self.node.get_data, list(fields), start, end, *more)

    @inlineCallbacks
    def samples_of_plain(
        self, fields: Sequence[str], start: float, end: float, max_points: int | None, min_stride: float | None
    ) -> Any:
        """Return the `Reply` that an overridden `get_data` stands for."""
        listing = yield self.deferred(self.node.get_schema, start, end)
        plain = yield self.plain_data(fields, start, end, min_stride)

        def read() -> Reply:
            reply = Reply.parse(plain, fields, listing, source=str(self.node.name))
            reply.samples = {name: thin(samples, max_points, min_stride) for name, samples in reply.samples.items()}
            return reply

        reply = yield self.workers.run(read, deadline=self.node.deadline)
        return reply

    def health(self) -> dict[str, Any]:
        """Return the node's answer to ``ping``."""
        kind = type(self.node)
        return {
            "time": time.time(),
            "type": f"{kind.__module__}:{kind.__qualname__}",
            "version": package_version(kind.__module__.partition(".")[0]),
            "started": self.started,
            "uptime": time.time() - self.started,
            "epoch": self.feeds.epoch,
            "errors": self.errors,
            "feed_events_dropped": self.feeds.dropped,
        }

    def _publish(self, timeline: str, event: dict[str, Any]) -> bool:
        node = self.node
        if not node.is_attached() or buffered(node) > FEED_BACKLOG:
            return False
        try:
            node.publish(self.uri(f"consumer.{node.name}.feed.{timeline}"), event)
        except (TransportLost, SerializationError, PayloadExceededError) as error:
            self._count(Failure(error))
            return False
        return True


def package_version(package: str) -> str:
    """Return the version of an installed package, or "" where it has none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _settled(result: Any) -> Any:
    return ensureDeferred(result) if hasattr(result, "__await__") and not isinstance(result, Deferred) else result


def _options(kind: type[Any], name: str, given: Any) -> BaseModel:
    """Return the node's options as its model; say which are wrong."""
    model: type[BaseModel] = kind.Options
    if isinstance(given, model):
        return given
    try:
        return model.model_validate(dict(given or {}))
    except ValidationError as error:
        problems = [f"{name}: {'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()]
        raise ConfigurationError("\n".join(problems), problems=problems) from None
