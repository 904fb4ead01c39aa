"""The hub on the router: the contract's procedures and topics around a `Registry`.

Who calls is taken from the router (disclosed caller), never from the arguments: a session can list only itself, a
node's user only its own name, and only who serves under a name is listed under it. After a start the hub tells the
nodes (``B.data_node.hub_started``), which list themselves again; nodes of older sites do not listen, so those that
still have their procedures registered are found through the router's registration meta API.

A router that was set up for sisock discloses no caller. There (`undisclosed`) it must be enough that the session which
is to be listed serves under the name.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autobahn.wamp.exception import ApplicationError, TransportLost
from autobahn.wamp.types import CallDetails, ComponentConfig, RegisterOptions
from sisockdaq.hub.registry import Announce, Ask, Evict, Instruction, Registry
from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from sisockdaq._wamp.link import Credentials, Endpoint, Link, LinkedSession, call_within, the_reactor
from sisockdaq.errors import NodeNotFound, NotAuthorized, SisockdaqError
from sisockdaq.notify import notify_ready
from sisockdaq.session import run_until_signal, site_endpoint
from sisockdaq.state import StateDirectory

__all__ = ["HubHost", "HubSession", "run_hub"]

TICK = 0.5
"""Time between two looks at the clock [s]."""

ASK_DEADLINE = 30.0
"""A question is forgotten after this time [s]; long before, the registry has evicted the node."""

SEARCH_AFTER = 2.0
"""Time after the start at which nodes are searched that have not listed themselves [s]."""

META_DEADLINE = 5.0
"""Time that the router gets for an answer of its meta API [s]."""

RETRY = 1.0
"""Time between two tries to become the hub while another process is it [s]."""

_NAME = re.compile(r"^[^\s.#]{1,255}$")
"""One component of a URI."""

_NOT_NODES = frozenset({"get_data_node", "get_status", "data_node_added", "data_node_subtracted"})
"""Names that the hub's own procedures and topics have beside the nodes."""

_log = Logger("sisockdaq.hub")


class HubSession(LinkedSession):
    """The hub.

    Parameters
    ----------
    config : ComponentConfig
        ``extra`` holds ``base_uri`` and optionally ``memory``, the path of a file in which descriptions are kept over
        a restart of the hub, and ``undisclosed``: whether callers that the router does not disclose are listed.
    credentials : Credentials
        Of the user ``hub``.
    """

    def __init__(self, config: ComponentConfig, credentials: Credentials) -> None:
        super().__init__(config, credentials)
        extra = config.extra or {}
        self.base_uri = str(extra.get("base_uri", "sisockdaq"))
        self.registry = Registry()
        self.started = time.time()
        self._memory = _Memory(extra.get("memory"))
        self._undisclosed = bool(extra.get("undisclosed"))
        self._clock = LoopingCall(self._tick)
        self._entering: Deferred[Any] | None = None

    @inlineCallbacks
    def onJoin(self, details: Any) -> Any:  # noqa: N802 - autobahn's name
        """Become the hub, tell the nodes, and search those that do not hear."""
        self.registry.clear()
        self._entering = self._enter()
        try:
            yield self._entering
        except CancelledError:
            return

    def onLeave(self, details: Any) -> Any:  # noqa: N802 - autobahn's name
        """Stop the clock."""
        self._halt()
        return super().onLeave(details)

    def onDisconnect(self) -> None:  # noqa: N802 - autobahn's name
        """Stop the clock."""
        self._halt()
        super().onDisconnect()

    def uri(self, s: str) -> str:
        """Return a full URI."""
        return f"{self.base_uri}.{s}"

    # The contract.

    @inlineCallbacks
    def add(self, name: str, description: str | None, session_id: int, details: CallDetails) -> Any:
        """List a node; False: the name is taken."""
        self._check_caller(name, session_id, details)
        free = self.registry.holder(name) is None
        if (free or details.caller is None) and not (yield self._serves(name, session_id)):
            return False
        accepted, instructions = self.registry.add(name, description or "", session_id, time.time())
        self._do(instructions)
        self._memory.remember(self.registry.listing())
        return accepted

    def subtract(self, name: str, session_id: int, details: CallDetails) -> None:
        """List a node no more."""
        self._check_caller(name, session_id, details)
        self._do(self.registry.remove(name, session_id))

    def get_data_node(self) -> list[dict[str, str]]:
        """Return ``[{"name", "description"}]``."""
        return self.registry.listing()

    def get_status(self) -> dict[str, Any]:
        """Return ``{"started", "time", "nodes": [Member.status]}``."""
        now = time.time()
        return {"started": self.started, "time": now, "nodes": self.registry.status(now)}

    def _check_caller(self, name: Any, session_id: Any, details: CallDetails) -> None:
        if not isinstance(name, str) or not _NAME.match(name) or name in _NOT_NODES:
            raise _refusal(f"{name!r} is no name for a node")
        if details.caller is None and self._undisclosed:
            return
        if details.caller is None:
            raise _refusal("the router does not disclose who calls; see its role of the caller")
        if details.caller != session_id:
            raise _refusal(f"session {details.caller} may not speak for session {session_id}")
        role = details.caller_authrole or ""
        if role.startswith("node_") and role != f"node_{name}":
            raise _refusal(f"user {details.caller_authid!r} may not use the name {name!r}")

    @inlineCallbacks
    def _serves(self, name: str, session_id: int) -> Any:
        """Whether the session serves under the name; False: another one does, though the hub does not list it.

        Who is listed and serves nothing would make every reader fail that asks all nodes; it is refused.
        """
        for method in ("get_fields", "get_data"):
            where = self.uri(f"consumer.{name}.{method}")
            try:
                registration = yield call_within(self, META_DEADLINE, "wamp.registration.lookup", where)
                callees = []
                if registration is not None:
                    callees = yield call_within(self, META_DEADLINE, "wamp.registration.list_callees", registration)
            except SisockdaqError as error:
                _log.warn("{name} is listed unchecked: {error}", name=name, error=str(error))
                return True  # a router that does not tell must not keep nodes out
            if not callees:
                raise _refusal(f"session {session_id} does not serve {where}; register it first")
            if session_id not in callees:
                return False
        return True

    # Becoming the hub.

    @inlineCallbacks
    def _enter(self) -> Any:
        yield self._register()
        yield self.subscribe(self._on_session_left, "wamp.session.on_leave")
        self._clock.start(TICK, now=False)
        self.publish(self.uri("data_node.hub_started"), {"started": self.started})
        _log.info("the hub is up")
        notify_ready("the hub is up")
        yield deferLater(the_reactor(), SEARCH_AFTER)
        yield self._search()

    @inlineCallbacks
    def _register(self) -> Any:
        with_caller = RegisterOptions(details_arg="details")
        served = [
            (self.add, "data_node.add", with_caller),
            (self.subtract, "data_node.subtract", with_caller),
            (self.get_data_node, "consumer.get_data_node", None),
            (self.get_status, "consumer.get_status", None),
        ]
        for function, name, options in served:
            while True:
                try:
                    yield self.register(function, self.uri(name), options=options)
                    break
                except ApplicationError as error:
                    if error.error != ApplicationError.PROCEDURE_ALREADY_EXISTS:
                        raise
                    _log.warn("another hub serves {name}; waiting for it to leave", name=name)
                    yield deferLater(the_reactor(), RETRY)

    @inlineCallbacks
    def _search(self) -> Any:
        """Adopt nodes that are registered at the router but have not listed themselves."""
        try:
            found = yield self._registered_nodes()
        except SisockdaqError as error:
            _log.warn("could not search for nodes: {error}", error=str(error))
            return
        for name, session in found.items():
            if self.registry.holder(name) is None:
                _log.info("found {name}, which did not list itself", name=name)
                _, instructions = self.registry.add(name, self._memory.description(name), session, time.time())
                self._do(instructions)

    @inlineCallbacks
    def _registered_nodes(self) -> Any:
        """Return the session by name of everybody who serves ``get_data``."""
        found: dict[str, int] = {}
        registrations = yield self._registered_below(("consumer.",))
        for registration, procedure in registrations.items():
            name, _, method = procedure.removeprefix(self.uri("consumer.")).rpartition(".")
            if method == "get_data" and _NAME.match(name):
                callees = yield call_within(self, META_DEADLINE, "wamp.registration.list_callees", registration)
                if callees:
                    found[name] = int(callees[0])
        return found

    @inlineCallbacks
    def _registered_below(self, prefixes: Sequence[str]) -> Any:
        """Return the URI by number of all registrations below the prefixes."""
        below = tuple(self.uri(prefix) for prefix in prefixes)
        found: dict[int, str] = {}
        listing = yield call_within(self, META_DEADLINE, "wamp.registration.list")
        for registration in listing.get("exact", ()):
            try:
                entry = yield call_within(self, META_DEADLINE, "wamp.registration.get", registration)
            except SisockdaqError:
                continue  # Gone since it was listed.
            if entry["uri"].startswith(below):
                found[int(registration)] = str(entry["uri"])
        return found

    # Carrying out what the registry says.

    def _tick(self) -> None:
        self._do(self.registry.tick(time.time()))

    def _do(self, instructions: Sequence[Instruction]) -> None:
        done: Deferred[Any] = self._carry_out(instructions)
        done.addErrback(self._not_done)

    def _not_done(self, failure: Failure) -> None:
        if not failure.check(TransportLost, CancelledError):  # then the router is away, and the registry starts anew
            _log.failure("the hub could not do what it should", failure=failure)

    @inlineCallbacks
    def _carry_out(self, instructions: Sequence[Instruction]) -> Any:
        for instruction in instructions:
            match instruction:
                case Announce(kind, name, description):
                    _log.info("{kind} {name}", kind=kind, name=name)
                    self.publish(self.uri(f"consumer.data_node_{kind}"), {"name": name, "description": description})
                case Ask(name, session):
                    self._ask(name, session)
                case Evict(name, session, reason):
                    _log.warn("evicting {name}: {reason}", name=name, reason=reason)
                    # Before the announcement that follows: whoever waits for the name then finds it free.
                    yield self._remove(name, session, reason)

    def _ask(self, name: str, session: int) -> None:
        def answered(health: Any) -> None:
            self.registry.answered(name, session, dict(health), time.time())

        def failed(failure: Failure) -> None:
            if isinstance(failure.value, NodeNotFound):
                self.registry.cannot_answer(name, session)
            elif not isinstance(failure.value, SisockdaqError | CancelledError):
                _log.failure("asking {name}", failure=failure, name=name)

        call_within(self, ASK_DEADLINE, self.uri(f"consumer.{name}.ping")).addCallback(answered).addErrback(failed)

    @inlineCallbacks
    def _remove(self, name: str, session: int, reason: str) -> Any:
        """End a session, and take its procedures away at once: a frozen one cannot answer the router's goodbye."""
        message = f"evicted by the hub: {reason}"
        try:
            yield call_within(
                self, META_DEADLINE, "wamp.session.kill", session, reason="wamp.close.killed", message=message
            )
            registrations = yield self._registered_below((f"consumer.{name}.", f"control.{name}."))
            for registration in registrations:
                yield self._take_away(registration, session)
        except SisockdaqError as error:
            _log.info("session {session}: {error}", session=session, error=str(error))

    @inlineCallbacks
    def _take_away(self, registration: int, session: int) -> Any:
        try:
            yield call_within(self, META_DEADLINE, "wamp.registration.remove_callee", registration, session)
        except SisockdaqError as error:
            # Its session has ended in the meantime, and the registration with it, or another holds it by now.
            _log.debug("registration {registration}: {error}", registration=registration, error=str(error))

    def _on_session_left(self, session: int, *_: Any) -> None:
        self._do(self.registry.left(session))

    def _halt(self) -> None:
        if self._clock.running:
            self._clock.stop()
        entering, self._entering = self._entering, None
        if entering is not None:
            entering.cancel()


class _Memory:
    """The latest descriptions, in a file, for nodes that are found rather than listed after a restart of the hub."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._descriptions: dict[str, str] = {}
        if path is not None and path.exists():
            try:
                self._descriptions = {str(name): str(text) for name, text in json.loads(path.read_text()).items()}
            except (OSError, ValueError, AttributeError) as error:
                _log.warn("{path} is not readable: {error}", path=str(path), error=str(error))

    def description(self, name: str) -> str:
        return self._descriptions.get(name, "")

    def remember(self, listing: Sequence[dict[str, str]]) -> None:
        latest = {entry["name"]: entry["description"] for entry in listing}
        if latest.items() <= self._descriptions.items():
            return
        self._descriptions.update(latest)
        if self._path is not None:
            temporary = self._path.with_suffix(".new")
            temporary.write_text(json.dumps(self._descriptions))
            temporary.replace(self._path)


class HubHost:
    """The hub in this process, from `start` to `stop`; both are to be called in the reactor's thread."""

    def __init__(
        self, endpoint: Endpoint, credentials: Credentials, memory: Path | None = None, undisclosed: bool = False
    ) -> None:
        extra = {"base_uri": endpoint.base_uri, "memory": memory, "undisclosed": undisclosed}
        config = ComponentConfig(endpoint.realm, extra)
        self.session = HubSession(config, credentials)
        self.link = Link(self.session, endpoint)

    def start(self) -> Deferred[None]:
        """Keep the hub joined; the Deferred fires when it was stopped, or fails with the reason."""
        return self.link.start()

    def stop(self) -> Deferred[Any]:
        """Leave the network."""
        return self.link.stop()


def run_hub(site: Any) -> None:
    """Run a site's hub until SIGTERM or SIGINT.

    Raises
    ------
    SisockdaqError
        Why it could not start or stay.
    """
    state: StateDirectory = site.state
    host = HubHost(site_endpoint(site), Credentials("hub", state.secret("hub")), state.path / "hub.json")
    run_until_signal(host.start, host.stop)


def _refusal(message: str) -> ApplicationError:
    uri, args, kwargs = NotAuthorized(message).to_wamp()
    return ApplicationError(uri, *args, **kwargs)
