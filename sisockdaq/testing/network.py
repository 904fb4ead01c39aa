"""A real network for tests: router, hub, nodes in this process or their own, and callers.

The reactor runs in one background thread for the whole test run; every method here is called from the test's thread,
and waits for its effect with a deadline.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from autobahn.wamp.types import CallOptions, ComponentConfig, PublishOptions
from twisted.internet.defer import maybeDeferred

from sisockdaq._wamp.reactor import in_reactor
from sisockdaq.base import DataNodeServer
from sisockdaq.errors import SisockdaqError
from sisockdaq.hub import HubHost
from sisockdaq.router import RouterPlan, RouterProcess, free_port, start_router
from sisockdaq.session import Credentials, Endpoint, Link, LinkedSession, NodeHost, call_within, error_of
from sisockdaq.state import StateDirectory
from sisockdaq.testing.waiting import wait_until

__all__ = ["Caller", "Network", "NodeProcess", "RunningNode"]

DEADLINE = 15.0
"""Longest wait for anything that should be prompt [s]; generous, because test machines are busy."""

SHARED_USER = "server"
"""User of nodes whose name is not in the router's plan."""

_NOBODY = ""
"""Stands for the session at the plain port among the users' sessions."""


class _AnonymousSession(LinkedSession):
    """A session that tells nobody who it is."""

    def onConnect(self) -> None:  # noqa: N802 - autobahn's name
        self.join(self.config.realm, ["anonymous"])


class Caller:
    """A session of some user, to call, subscribe, register and publish from a test.

    Parameters
    ----------
    endpoint : Endpoint
    credentials : Credentials or None
        None: nobody logs in, as at the plain port for OCS.
    """

    def __init__(self, endpoint: Endpoint, credentials: Credentials | None) -> None:
        kind = _AnonymousSession if credentials is None else LinkedSession
        self.session = kind(ComponentConfig(endpoint.realm), credentials)
        self._link = Link(self.session, endpoint)
        self._ended: list[Any] = []
        in_reactor(self._start)
        wait_until(lambda: self.session.is_attached() or self._ended, DEADLINE, f"login of {credentials or 'nobody'}")
        if self._ended:
            raise self._ended[0].value

    def _start(self) -> None:
        self._link.start().addErrback(self._ended.append)

    def call(self, procedure: str, *args: Any, deadline: float = DEADLINE, **kwargs: Any) -> Any:
        """Call a full URI; errors come as those of `sisockdaq.errors`."""
        return in_reactor(call_within, self.session, deadline, procedure, *args, deadline=deadline + 1, **kwargs)

    def call_progressive(self, procedure: str, *args: Any, deadline: float = DEADLINE) -> tuple[list[Any], Any]:
        """Call with progressive results; return them and the final result."""
        parts: list[Any] = []
        options = CallOptions(on_progress=parts.append)
        return parts, self.call(procedure, *args, deadline=deadline, options=options)

    def subscribe(self, topic: str, **options: Any) -> list[Any]:
        """Return a list to which each event's first argument is appended from now on."""
        events: list[Any] = []
        self._request(self.session.subscribe, lambda *args: events.append(args[0] if args else None), topic, **options)
        return events

    def register(self, procedure: str, function: Any) -> None:
        """Register a procedure."""
        self._request(self.session.register, function, procedure)

    def publish(self, topic: str, *args: Any) -> None:
        """Publish, and wait for the router's acknowledgement."""
        self._request(self.session.publish, topic, *args, options=PublishOptions(acknowledge=True))

    def close(self) -> None:
        """Leave."""
        in_reactor(self._link.stop)

    def _request(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return in_reactor(function, *args, deadline=DEADLINE, **kwargs)
        except SisockdaqError:
            raise
        except Exception as error:
            raise error_of(error, str(args[-1])) from error


class RunningNode:
    """A node that runs in this process, in the reactor's thread."""

    def __init__(self, host: NodeHost) -> None:
        self._host = host
        self.failure: Any = None

    @property
    def node(self) -> Any:
        """The node object itself; it lives in the reactor's thread."""
        return self._host.node

    @property
    def name(self) -> str:
        """Its name on the network."""
        return str(self._host.node.name)

    @property
    def listed(self) -> bool:
        """Whether the hub has accepted it."""
        return bool(self._host.node._core().listed)

    def begin(self) -> None:
        """Start it; does not wait."""
        in_reactor(self._begin)

    def _begin(self) -> None:
        self._host.start().addErrback(self._failed)

    def _failed(self, failure: Any) -> None:
        self.failure = failure

    def wait_listed(self, deadline: float = DEADLINE) -> RunningNode:
        """Wait until the hub lists it; raise what kept it from starting."""
        wait_until(lambda: self.listed or self.failure, deadline, f"{self.name} to be listed")
        if self.failure is not None:
            raise self.failure.value
        return self

    def call(self, function: Any, *args: Any) -> Any:
        """Call something in the reactor's thread, for example a method of the node."""
        return in_reactor(function, *args, deadline=DEADLINE)

    def stop(self) -> None:
        """Leave the network and tear the node down."""
        in_reactor(self._host.stop, deadline=DEADLINE)


class NodeProcess:
    """A node in a process of its own, to be killed, frozen and thawed."""

    def __init__(self, command: list[str], log: Path) -> None:
        self._log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def log(self) -> str:
        """What it has written so far."""
        return self._log.read_text(errors="replace")

    def freeze(self) -> None:
        """Stop it without ending it (SIGSTOP)."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on (SIGCONT)."""
        self._process.send_signal(signal.SIGCONT)

    def terminate(self) -> int:
        """Ask it to end; return its exit code."""
        self._process.terminate()
        return self._process.wait(DEADLINE)

    def wait(self, deadline: float = DEADLINE) -> int:
        """Wait for its end; return its exit code."""
        return self._process.wait(deadline)

    def kill(self) -> None:
        """Kill it."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(DEADLINE)


class Network:
    """Router, hub and what a test starts on them.

    Parameters
    ----------
    folder : Path
        Holds the state directory.
    nodes : tuple of str
        Names that get a user and a role of their own; nodes of other names share the user ``server``.
    """

    def __init__(self, folder: Path, nodes: tuple[str, ...] = (), **plan: Any) -> None:
        self.state = StateDirectory(folder)
        users = {SHARED_USER: "server", **plan.pop("static_users", {})}
        self.plan = RouterPlan("test", nodes=nodes, port=free_port(), static_users=users, **plan)
        self.router: RouterProcess = start_router(self.plan, self.state)
        self.endpoint = Endpoint.of_state(self.state)
        self._hub: HubHost | None = None
        self._started: list[Any] = []
        self._callers: dict[str, Caller] = {}
        self._client: Any = None
        self._processes = 0
        self.start_hub()

    # The parts that every network has.

    def start_hub(self) -> None:
        """Start the hub, and wait until it answers."""
        host = HubHost(self.endpoint, self.credentials("hub"), self.state.path / "hub.json")
        self._hub = host
        in_reactor(lambda: maybeDeferred(host.start) and None)
        wait_until(self.listing_or_none, DEADLINE, "the hub")

    def stop_hub(self) -> None:
        """Stop the hub."""
        hub, self._hub = self._hub, None
        if hub is not None:
            in_reactor(hub.stop)

    def restart_router(self) -> None:
        """Start the router again after `RouterProcess.kill`, with the same configuration."""
        self.router = start_router(self.plan, self.state)

    def credentials(self, user: str) -> Credentials:
        """Return a user's credentials; the user ``server`` stands in for nodes that have none of their own."""
        known = user in self.plan.users()
        return Credentials(user if known else SHARED_USER, self.state.secret(user if known else SHARED_USER))

    def uri(self, s: str) -> str:
        """Return a full URI."""
        return f"{self.plan.base_uri}.{s}"

    # Nodes.

    def start(
        self,
        kind: type[DataNodeServer],
        *,
        name: str | None = None,
        site: Any = None,
        wait: bool = True,
        **options: Any,
    ) -> RunningNode:
        """Start a node in this process; return when it is listed (unless told not to wait).

        Parameters
        ----------
        kind : type
            The node's class.
        name : str, optional
            Default: the class's name in lower case, with underscores.
        site : Site, optional
            What the node finds as ``self.site``.
        wait : bool
        **options
            The node's options.
        """
        name = name or _snake(kind.__name__)

        def make() -> NodeHost:
            return NodeHost(kind, name, self.endpoint, self.credentials(name), options, site, self.state)

        node = RunningNode(in_reactor(make))
        self._started.append(node)
        node.begin()
        return node.wait_listed() if wait else node

    def start_process(
        self, kind: type[DataNodeServer], *, name: str | None = None, wait: bool = True, **options: Any
    ) -> NodeProcess:
        """Start a node in a process of its own; its class must be importable there."""
        name = name or _snake(kind.__name__)
        self._processes += 1
        given = {"state": str(self.state.path), "user": self.credentials(name).user, "name": name, "options": options}
        command = [sys.executable, "-m", "sisockdaq.testing.process", f"{kind.__module__}:{kind.__qualname__}"]
        node = NodeProcess([*command, json.dumps(given)], self.state.logs / f"{name}-{self._processes}.log")
        self._started.append(node)
        if wait:
            self.wait_listed(name)
        return node

    def stop(self, node: RunningNode | NodeProcess) -> None:
        """Stop a node before its test ends."""
        self._started.remove(node)
        node.stop() if isinstance(node, RunningNode) else node.kill()

    # Asking.

    def caller(self, user: str = "consumer") -> Caller:
        """Return a session of that user; the same one each time."""
        if user not in self._callers:
            self._callers[user] = Caller(self.endpoint, self.credentials(user))
        return self._callers[user]

    def ocs_caller(self) -> Caller:
        """Return a session at the plain port, as OCS agents have it; the same one each time."""
        if _NOBODY not in self._callers:
            if self.plan.ocs_url is None:
                raise LookupError("this network has no way in for OCS; make it with ocs=OcsAccess(port=free_port())")
            endpoint = Endpoint(self.plan.ocs_url, self.plan.realm, self.plan.base_uri)
            self._callers[_NOBODY] = Caller(endpoint, None)
        return self._callers[_NOBODY]

    def call(self, procedure: str, *args: Any, user: str = "consumer", **kwargs: Any) -> Any:
        """Call a procedure below the base URI, as that user."""
        return self.caller(user).call(self.uri(procedure), *args, **kwargs)

    @property
    def client(self) -> Any:
        """A `sisockdaq.client.Client` with control rights on this network."""
        if self._client is None:
            from sisockdaq.client import Client

            self._client = Client(state=self.state, control=True)
        return self._client

    def listing(self) -> list[str]:
        """Return the names that the hub lists."""
        return [entry["name"] for entry in self.call("consumer.get_data_node")]

    def listing_or_none(self) -> list[str] | None:
        """Return ``[...]`` with one more entry than `listing`, so that it is true; None while the hub is away."""
        try:
            return ["the hub", *self.listing()]
        except SisockdaqError:
            return None

    def wait_listed(self, name: str, deadline: float = DEADLINE) -> None:
        """Wait until the hub lists a node."""
        wait_until(lambda: name in (self.listing_or_none() or ()), deadline, f"{name} to be listed")

    def wait_gone(self, name: str, deadline: float = DEADLINE) -> None:
        """Wait until the hub lists a node no more."""
        wait_until(lambda: name not in (self.listing_or_none() or (name,)), deadline, f"{name} to be gone")

    def wait_for(self, field: str, samples: int = 1, deadline: float = DEADLINE) -> list[Any]:
        """Wait until ``node::field`` has so many samples; return their values."""
        node, _, name = field.partition("::")

        def enough() -> list[Any] | None:
            values: list[Any] = self.call(f"consumer.{node}.get_data", [name], 1, 0)["data"][name]
            return values if len(values) >= samples else None

        return wait_until(enough, deadline, f"{samples} samples of {field}") or []

    # Ending.

    def stop_nodes(self) -> None:
        """Stop all nodes that were started."""
        while self._started:
            node = self._started.pop()
            node.stop() if isinstance(node, RunningNode) else node.kill()

    def close(self) -> None:
        """Stop everything."""
        self.stop_nodes()
        if self._client is not None:
            self._client.close()
        for caller in self._callers.values():
            with contextlib.suppress(SisockdaqError):
                caller.close()
        self.stop_hub()
        self.router.stop()

    def __enter__(self) -> Network:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
