"""Joining the network: `run_node` for a process, `NodeHost` inside a running reactor, `Link` for any session.

See `sisockdaq._wamp.link` for how a connection is made and kept.
"""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import txaio
from autobahn.wamp.types import ComponentConfig
from pydantic import BaseModel
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger
from twisted.python.failure import Failure

from sisockdaq._wamp.link import (
    Credentials,
    Endpoint,
    Link,
    LinkedSession,
    call_within,
    error_of,
    login_error,
    the_reactor,
)
from sisockdaq.errors import SisockdaqError
from sisockdaq.state import StateDirectory

if TYPE_CHECKING:
    from sisockdaq.base import DataNodeServer
    from sisockdaq.site import Site

__all__ = [
    "Credentials",
    "Endpoint",
    "Link",
    "LinkedSession",
    "NodeHost",
    "call_within",
    "error_of",
    "login_error",
    "run_host",
    "run_node",
    "run_until_signal",
    "the_reactor",
]

_log = Logger("sisockdaq.session")

TEARDOWN_DEADLINE = 10.0
"""Time that leaving the network and a node's `teardown` get when the process ends [s]."""


class NodeHost:
    """One node in this process, from `start` to `stop`; both are to be called in the reactor's thread.

    Parameters
    ----------
    kind : type
        The node's class.
    name : str
    endpoint : Endpoint
    credentials : Credentials
    options : mapping or Options
    site, state : optional
        What the node finds as ``self.site`` and ``self.state``.
    description : str, optional
        Instead of the class's own.

    Raises
    ------
    ConfigurationError
        An option is wrong.
    """

    def __init__(
        self,
        kind: type[DataNodeServer],
        name: str,
        endpoint: Endpoint,
        credentials: Credentials,
        options: Mapping[str, Any] | BaseModel | None = None,
        site: Site | None = None,
        state: StateDirectory | None = None,
        description: str | None = None,
    ) -> None:
        extra = {
            "name": name,
            "description": description,
            "options": options,
            "site": site,
            "state": state,
            "base_uri": endpoint.base_uri,
            "credentials": credentials,
        }
        self.node = kind(ComponentConfig(endpoint.realm, extra))
        self.node._core().managed = True
        self.link = Link(self.node, endpoint)

    @inlineCallbacks
    def start(self) -> Any:
        """Set the node up and keep it joined; the Deferred fires when it was stopped, or fails with the reason."""
        core = self.node._core()
        yield core.set_up()
        yield self.link.start()

    @inlineCallbacks
    def stop(self) -> Any:
        """Leave the network, then tear the node down."""
        yield self.link.stop()
        yield self.node._core().tear_down()


def run_node(
    kind: type[DataNodeServer],
    name: str,
    site: Site,
    options: Mapping[str, Any] | BaseModel | None = None,
) -> None:
    """Run a node of a site until SIGTERM or SIGINT.

    Raises
    ------
    SisockdaqError
        Why it could not start or stay: options, devices, a refused login.
    """
    state = site.state
    endpoint = site_endpoint(site)
    run_host(NodeHost(kind, name, endpoint, Credentials(name, state.secret(name)), options, site, state))


def run_host(host: NodeHost) -> None:
    """Run a node until SIGTERM or SIGINT; what `run_node` does, for a node without a site.

    Raises
    ------
    SisockdaqError
        Why it could not start or stay.
    """

    @inlineCallbacks
    def start() -> Any:
        yield host.node._core().set_up()
        spare_start_up_objects()
        yield host.start()

    run_until_signal(start, host.stop)


def spare_start_up_objects() -> None:
    """Keep the garbage collector from looking again and again at what lives as long as the process.

    Imported libraries and compiled kernels are some 200,000 objects; one full collection over them stops all threads
    of a node for 60 to 80 ms, and frames with it.
    """
    gc.collect()
    gc.freeze()


def site_endpoint(site: Any) -> Endpoint:
    """Return where the router of a site listens, whether it runs already or not."""
    state: StateDirectory = site.state
    return Endpoint(
        url=site.url,
        realm=site.realm,
        base_uri=site.base_uri,
        socket=state.router_socket,
        certificate=site.certificate,
    )


def run_until_signal(start: Callable[[], Deferred[Any]], stop: Callable[[], Deferred[Any]]) -> None:
    """Run the reactor: `start` at its beginning, `stop` at SIGTERM or SIGINT, and end when `start`'s Deferred fires.

    Raises
    ------
    Exception
        What `start` failed with.
    """
    reactor = the_reactor()
    txaio.use_twisted()
    start_logging: Any = vars(txaio)["start_logging"]  # made by use_twisted, so unknown to a type checker
    start_logging(out=sys.stdout, level="info")
    failed: list[Failure] = []

    def end(result: Any) -> None:
        if isinstance(result, Failure):
            failed.append(result)
        with contextlib.suppress(ReactorNotRunning):  # a signal has stopped it before
            reactor.stop()

    def begin() -> None:
        start().addBoth(end)

    def leave() -> Deferred[Any]:
        leaving = stop()
        leaving.addTimeout(TEARDOWN_DEADLINE, reactor)
        return leaving.addErrback(_log_failed_stop)

    reactor.callWhenRunning(begin)
    reactor.addSystemEventTrigger("before", "shutdown", leave)
    reactor.run()
    if failed:
        error = failed[0].value
        if isinstance(error, SisockdaqError):
            raise error
        failed[0].raiseException()


def _log_failed_stop(failure: Failure) -> None:
    _log.failure("the stop was not in order", failure=failure)
