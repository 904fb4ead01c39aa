"""What gateway authors subclass: `Gateway`, a face of the network for another protocol.

A gateway listens to programs that know nothing of the network, and answers them from it. It declares its options,
binds its ports in `Gateway.start`, and asks the network through `Gateway.client` in threads (`Gateway.in_thread`). The
rest is here: joining as a user of its own, joining again after any loss, saying to the supervisor what it waits for,
and a stop in order. It promises that a gateway is there before the router is, and stays while the router is away::

    class Temperatures(Gateway):
        class Options(Gateway.Options):
            port: int = Field(7000, description="TCP port.")

        def start(self):
            self.port = reactor.listenTCP(self.options.port, MyFactory(self), interface="127.0.0.1")

        def stop(self):
            return self.port.stopListening()

        def answer(self, name):                         # a Deferred
            return self.in_thread(self.client.get_each, [name], -60, 0)

Gateways are found by the entry-point group ``sisockdaq.gateways``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from twisted.internet.defer import Deferred, inlineCallbacks, maybeDeferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from sisockdaq._node.workers import Workers
from sisockdaq.client import ServingClient
from sisockdaq.errors import ConfigurationError
from sisockdaq.notify import notify_ready, notify_status
from sisockdaq.session import Credentials, Endpoint, run_until_signal, site_endpoint, spare_start_up_objects
from sisockdaq.state import StateDirectory

if TYPE_CHECKING:
    from sisockdaq.site import Site

__all__ = ["Gateway", "GatewayHost", "run_gateway", "run_site_gateway"]

THREADS, WAITING = 24, 200
"""Threads of a gateway for its questions, and how many more may wait; what comes then is refused."""

COMPUTING = 4
"""Threads for work that waits for nobody."""

REFRESH_PERIOD = 5.0
"""Time between two looks at the listings of all nodes [s]."""

LOOK_PERIOD = 0.5
"""Time between two looks whether the network is joined [s]."""

SWITCH_INTERVAL = 0.001
"""How long a thread may keep the others from running Python [s]; the default of 5 ms is felt by who asks for health."""


class Gateway:
    """A face of the network for another protocol.

    Attributes
    ----------
    name : str
    options : Options
        Checked before the gateway is made.
    client : ServingClient
        The network; its blocking methods are for `in_thread`.
    site : Site or None
    state : StateDirectory or None
        The site's private folder on this machine.
    """

    class Options(BaseModel):
        """Options of a gateway; a subclass adds its own."""

        model_config = ConfigDict(extra="forbid")

        deadline: float = Field(8.0, gt=0, le=60, description="Longest wait for the answer of one node [s].")

    options: Any
    about: str = "on the network"
    """What the supervisor shows while all is well; a gateway that listens says where, in `start`."""

    def __init__(
        self, name: str, options: Any, client: ServingClient, site: Site | None, state: StateDirectory | None
    ) -> None:
        self.name = name
        self.options = options
        self.client = client
        self.site = site
        self.state = state
        self.log = Logger(f"sisockdaq.{name}")
        self._workers = Workers(THREADS, WAITING, name=f"{name}-worker")
        self._computers = Workers(COMPUTING, WAITING, name=f"{name}-computer")
        self._timers: list[LoopingCall] = []

    # What an author writes.

    def start(self) -> Any:
        """Bind ports, start timers. Called once, before the network is joined; may return a Deferred."""

    def stop(self) -> Any:
        """Let go of ports. Called once, when the process ends; may return a Deferred."""

    # What an author uses.

    @property
    def joined(self) -> bool:
        """Whether the network is joined now."""
        return self.client.joined

    def in_thread(
        self, function: Callable[..., Any], *args: Any, deadline: float = 30.0, **kwargs: Any
    ) -> Deferred[Any]:
        """Call a blocking function in a thread; the Deferred fails after `deadline` seconds, or when too many wait."""
        return self._workers.run(function, *args, deadline=deadline, **kwargs)

    def compute(self, function: Callable[..., Any], *args: Any, deadline: float = 60.0, **kwargs: Any) -> Deferred[Any]:
        """Like `in_thread`, for work that waits for no node: its threads are never all taken by one that hangs."""
        return self._computers.run(function, *args, deadline=deadline, **kwargs)

    def every(self, seconds: float, function: Callable[[], Any]) -> None:
        """Call a function in the reactor's thread now and then; one call at a time, and an error ends no timer."""

        def call() -> Any:
            return maybeDeferred(function).addErrback(
                lambda failure: self.log.warn("{what}: {error}", what=function.__name__, error=str(failure.value))
            )

        timer = LoopingCall(call)
        self._timers.append(timer)
        timer.start(seconds)

    # What the host calls.

    def _end(self) -> Deferred[Any]:
        for timer in self._timers:
            if timer.running:
                timer.stop()
        ended: Deferred[Any] = maybeDeferred(self.stop)
        return ended.addBoth(self._stop_workers)

    def _stop_workers(self, result: Any) -> Any:
        self._workers.stop()
        self._computers.stop()
        return result


class GatewayHost:
    """One gateway in this process, from `start` to `stop`; both are to be called in the reactor's thread.

    Parameters
    ----------
    kind : type
        The gateway's class.
    name : str
    endpoint : Endpoint
    credentials : Credentials
    options : mapping or Options
    site, state : optional
        What the gateway finds as ``self.site`` and ``self.state``.

    Raises
    ------
    ConfigurationError
        An option is wrong.
    """

    def __init__(
        self,
        kind: type[Gateway],
        name: str,
        endpoint: Endpoint,
        credentials: Credentials,
        options: Mapping[str, Any] | BaseModel | None = None,
        site: Site | None = None,
        state: StateDirectory | None = None,
    ) -> None:
        checked = _options(kind, name, options)
        client = ServingClient(endpoint, credentials, deadline=checked.deadline)
        self.gateway = kind(name, checked, client, site, state)
        self._said: str | None = None
        self._ready = False

    @inlineCallbacks
    def start(self) -> Any:
        """Start the gateway, join and stay; the Deferred fires when it was stopped, or fails with the reason."""
        gateway = self.gateway
        yield maybeDeferred(gateway.start)
        gateway.every(REFRESH_PERIOD, gateway.client.refresh)
        gateway.every(LOOK_PERIOD, self._look)
        yield gateway.client.begin()

    @inlineCallbacks
    def stop(self) -> Any:
        """Leave the network, then stop the gateway."""
        yield self.gateway.client.leave()
        yield self.gateway._end()

    def _look(self) -> None:
        """Tell the supervisor when something has changed."""
        client = self.gateway.client
        said = self.gateway.about if client.joined else f"waiting for the router: {client.failure or 'not joined yet'}"
        if said == self._said:
            return
        self._said = said
        notify_status(said)  # first, so that whoever sees it become ready does not see the old reason
        if client.joined and not self._ready:
            self._ready = True
            notify_ready()


def run_gateway(
    kind: type[Gateway],
    name: str,
    endpoint: Endpoint,
    credentials: Credentials,
    options: Mapping[str, Any] | BaseModel | None = None,
    site: Site | None = None,
    state: StateDirectory | None = None,
) -> None:
    """Run a gateway until SIGTERM or SIGINT; parameters as those of `GatewayHost`.

    Raises
    ------
    SisockdaqError
        Why it could not start or stay: options, a port that is taken, a refused login.
    """
    sys.setswitchinterval(SWITCH_INTERVAL)
    host = GatewayHost(kind, name, endpoint, credentials, options, site, state)
    spare_start_up_objects()
    run_until_signal(host.start, host.stop)


def run_site_gateway(
    kind: type[Gateway], name: str, site: Site, options: Mapping[str, Any] | BaseModel | None = None
) -> None:
    """Run a gateway of a site, as the user of its own name, until SIGTERM or SIGINT; raises as `run_gateway`."""
    state = site.state
    run_gateway(kind, name, site_endpoint(site), Credentials(name, state.secret(name)), options, site, state)


def _options(kind: type[Gateway], name: str, given: Mapping[str, Any] | BaseModel | None) -> Any:
    if isinstance(given, kind.Options):
        return given
    try:
        return kind.Options.model_validate(dict(given or {}))
    except ValidationError as error:
        problems = [f"{name}.{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
        raise ConfigurationError("\n".join(problems), problems=problems) from None
