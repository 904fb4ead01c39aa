"""A client's connection to the network: blocking calls, replies in chunks, subscriptions that survive reconnection.

Every call has a deadline and ends in an answer or an error of `sisockdaq.errors`. A call that is made while the
connection is away waits for it within its deadline. Methods are for any thread but the reactor's.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any

from autobahn.wamp.exception import ApplicationError
from autobahn.wamp.types import ComponentConfig
from twisted.internet.defer import Deferred, inlineCallbacks, maybeDeferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadable import isInIOThread

from sisockdaq._wamp.arrays import call_arrays
from sisockdaq._wamp.link import Credentials, Endpoint, Link, LinkedSession, call_within, error_of, the_reactor
from sisockdaq._wamp.reactor import ensure_reactor
from sisockdaq.errors import ConnectionFailed, DeadlineExceeded, NodeNotFound
from sisockdaq.schema import FieldList, Reply

__all__ = ["Network", "Subscription", "submit"]

_GRACE = 5.0
"""How much longer than a call's own deadline a caller waits for the reactor to tell [s]."""

_FIRST_TRY_LOOK = 0.05
"""Time between two looks whether the first connection has failed [s]."""

_CLOSE_DEADLINE = 5.0
"""Time for leaving the network in order [s]."""

_log = Logger("sisockdaq.client")


def submit(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Future[Any]:
    """Call a function in the reactor's thread; the Future gets its outcome, also when it returns a Deferred."""
    future: Future[Any] = Future()

    def settle(result: Any) -> None:
        if future.cancelled():
            return
        if isinstance(result, Failure):
            future.set_exception(result.value or RuntimeError("failed without a reason"))
        else:
            future.set_result(result)

    def call() -> None:
        maybeDeferred(function, *args, **kwargs).addBoth(settle)

    the_reactor().callFromThread(call)
    return future


class _Session(LinkedSession):
    """Tells its network of each login."""

    network: Network

    def onJoin(self, details: Any) -> None:  # noqa: N802 - autobahn's name
        """Let waiting calls go, and subscribe again."""
        self.network._joined()


class Subscription:
    """A topic that is listened to until `cancel`; its handler runs in the reactor's thread and must not block."""

    def __init__(self, network: Network, topic: str, handler: Callable[..., None]) -> None:
        self.topic = topic
        self.handler = handler
        self.rejoined: Callable[[], None] | None = None
        """Called in the reactor's thread when the subscription stands again after a loss."""
        self._network = network
        self._at_router: Any = None

    def cancel(self) -> None:
        """Listen no more."""
        self._network._subscriptions.discard(self)
        submit(self._leave)

    def _leave(self) -> Any:
        registration, self._at_router = self._at_router, None
        if registration is not None and registration.active and self._network.attached:
            return registration.unsubscribe()
        return None

    @inlineCallbacks
    def enter(self) -> Any:
        """Subscribe at the router; in the reactor's thread."""
        try:
            self._at_router = yield self._network.session.subscribe(self.handler, self.topic)
        except ApplicationError as error:
            raise error_of(error, self.topic) from None


class Network:
    """One user's connection to a router.

    Parameters
    ----------
    endpoint : Endpoint
    credentials : Credentials
    deadline : float
        Of calls that give none of their own [s].
    """

    def __init__(self, endpoint: Endpoint, credentials: Credentials, *, deadline: float = 10.0) -> None:
        self.endpoint = endpoint
        self.deadline = deadline
        self.session = _Session(ComponentConfig(endpoint.realm), credentials)
        self.session.network = self
        self.generation = 0
        """How often the connection has been made."""
        self._link: Link | None = None
        self._closed = False
        self._final: BaseException | None = None
        self._waiting: list[Deferred[None]] = []
        self._subscriptions: set[Subscription] = set()

    @property
    def attached(self) -> bool:
        """Whether the session is joined now."""
        return bool(self.session.is_attached())

    def uri(self, s: str) -> str:
        """Return a full URI."""
        return f"{self.endpoint.base_uri}.{s}"

    def open(self) -> None:
        """Connect and log in.

        Raises
        ------
        AuthenticationFailed, ConnectionFailed
            With the router's own reason.
        """
        ensure_reactor()
        try:
            self.result(submit(self._open), self.deadline)
        except BaseException:
            self.close()
            raise

    def begin(self) -> Deferred[None]:
        """Begin to connect, in the reactor's thread and without waiting for a router that is not there yet.

        The Deferred fires when the network was left, or fails with the error that makes further tries useless.
        """
        self._link = Link(self.session, self.endpoint)
        ended = self._link.start()
        self._link.when_done().addErrback(self._given_up)
        return ended

    def leave(self) -> Deferred[Any]:
        """Leave the network, in the reactor's thread; for who came with `begin`."""
        self._closed = True
        left: Deferred[Any] = maybeDeferred(self._close)
        return left

    @property
    def failure(self) -> BaseException | None:
        """Why there is no connection, as far as is known."""
        return None if self._link is None else self._link.failure

    def close(self) -> None:
        """Leave the network; calls under way fail with `ConnectionFailed`."""
        if self._closed:
            return
        self._closed = True
        try:
            submit(self._close).result(_CLOSE_DEADLINE)
        except FutureTimeout:
            _log.warn("leaving the router took longer than {seconds} s", seconds=_CLOSE_DEADLINE)

    def call(self, procedure: str, *args: Any, deadline: float | None = None, **kwargs: Any) -> Any:
        """Call ``B.<procedure>`` and return its answer."""
        limit = deadline or self.deadline
        return self.result(self.start_call(procedure, *args, deadline=limit, **kwargs), limit)

    def start_call(self, procedure: str, *args: Any, deadline: float | None = None, **kwargs: Any) -> Future[Any]:
        """Begin a call; the Future ends within the deadline."""
        return submit(self._call, deadline or self.deadline, self.uri(procedure), args, kwargs)

    def start_arrays(self, procedure: str, *args: Any, silence: float | None = None, **kwargs: Any) -> Future[Reply]:
        """Begin a call that answers with the messages of `sisockdaq.wire`.

        Its deadline is on silence: a large reply may take long, but something must come every ``silence`` seconds.
        """
        return submit(self._arrays, silence or self.deadline, self.uri(procedure), args, kwargs)

    def start_listing(self, node: str, *, deadline: float | None = None) -> Future[tuple[FieldList, bool]]:
        """Begin to ask a node for its fields; the Future gets the listing, and whether the node is an older one."""
        return submit(self._listing, deadline or self.deadline, node)

    def subscribe(self, topic: str, handler: Callable[..., None]) -> Subscription:
        """Listen to ``B.<topic>``, again after each reconnection."""
        subscription = Subscription(self, self.uri(topic), handler)
        self.result(submit(self._subscribe, subscription), self.deadline)
        return subscription

    def listen(self, topic: str, handler: Callable[..., None], on_entered: Callable[[], None]) -> Subscription:
        """Listen to ``B.<topic>`` from the next login on; `on_entered` is called each time the subscription stands.

        Waits for nothing, so that the connection need not have been made.
        """
        subscription = Subscription(self, self.uri(topic), handler)
        subscription.rejoined = on_entered
        self._subscriptions.add(subscription)
        return subscription

    def result(self, future: Future[Any], deadline: float | None = None) -> Any:
        """Wait for a Future that keeps its own deadline; None: as long as it keeps one on silence."""
        if isInIOThread():
            raise RuntimeError("a client's blocking call in the reactor's thread would stop the reactor")
        try:
            return future.result(None if deadline is None else deadline + _GRACE)
        except FutureTimeout:
            future.cancel()
            raise DeadlineExceeded(f"this program's reactor did not answer within {deadline} s") from None

    # From here on: in the reactor's thread.

    @inlineCallbacks
    def _open(self) -> Any:
        self._link = Link(self.session, self.endpoint)
        self._link.start().addErrback(self._given_up)
        look = LoopingCall(self._look_at_first_try)
        look.start(_FIRST_TRY_LOOK, now=False)
        try:
            yield self._when_joined(self.deadline)
        finally:
            look.stop()

    def _look_at_first_try(self) -> None:
        """Fail at once when the first try fails: a router that is not there is a person's mistake, not a pause."""
        if self._link is not None and self._link.failure is not None:
            self._fail_waiting(self._link.failure)

    def _close(self) -> Any:
        self._fail_waiting(ConnectionFailed("this client was closed"))
        return self._link.stop().addErrback(lambda _: None) if self._link is not None else None

    def _joined(self) -> None:
        self.generation += 1
        known = tuple(self._subscriptions)  # a call that waits may add one, and enters it itself
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.callback(None)
        for subscription in known:
            subscription.enter().addCallbacks(
                lambda _, subscription=subscription: subscription.rejoined and subscription.rejoined(),
                lambda failure: _log.warn("{error}", error=str(failure.value)),
            )

    def _given_up(self, failure: Failure) -> None:
        self._final = failure.value or ConnectionFailed("the connection was given up")
        self._fail_waiting(self._final)

    def _fail_waiting(self, error: BaseException) -> None:
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.errback(error)

    def _when_joined(self, deadline: float) -> Deferred[None]:
        joined: Deferred[None] = Deferred()
        if self.attached:
            joined.callback(None)
            return joined
        if self._closed or self._link is None:
            joined.errback(ConnectionFailed("this client is closed", remedy="make a new Client"))
            return joined
        if self._final is not None:
            joined.errback(self._final)
            return joined
        self._waiting.append(joined)

        def expire() -> None:
            if joined in self._waiting:
                self._waiting.remove(joined)
                known = self._link.failure if self._link else None
                joined.errback(
                    known or DeadlineExceeded(f"no login at the router at {self.endpoint} within {deadline:g} s")
                )

        timer = the_reactor().callLater(deadline, expire)

        def settle(result: Any) -> Any:
            if timer.active():
                timer.cancel()
            return result

        return joined.addBoth(settle)

    @inlineCallbacks
    def _call(self, deadline: float, procedure: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        began = the_reactor().seconds()
        yield self._when_joined(deadline)
        left = max(deadline - (the_reactor().seconds() - began), 0.1)
        answer = yield call_within(self.session, left, procedure, *args, **kwargs)
        return answer

    @inlineCallbacks
    def _arrays(self, silence: float, procedure: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        yield self._when_joined(silence)
        reply = yield call_arrays(self.session, silence, procedure, *args, **kwargs)
        return reply

    @inlineCallbacks
    def _listing(self, deadline: float, node: str) -> Any:
        """Ask for the full listing, else for the plain one of an older node."""
        plain = None
        for _ in range(2):  # once more, as a node that is just coming registers get_schema before get_fields
            try:
                answer = yield self._call(deadline, self.uri(f"consumer.{node}.get_schema"), (1.0, 0.0), {})
                return FieldList.parse(answer, source=node), False
            except NodeNotFound:
                if plain is None:
                    plain = yield self._call(deadline, self.uri(f"consumer.{node}.get_fields"), (1.0, 0.0), {})
        return FieldList.parse(plain, source=node), True

    @inlineCallbacks
    def _subscribe(self, subscription: Subscription) -> Any:
        yield self._when_joined(self.deadline)
        self._subscriptions.add(subscription)
        yield subscription.enter()
