"""Connections: both transports, real reasons of failure, coming back, leaving in order."""

from __future__ import annotations

import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from autobahn.wamp.exception import ApplicationError, TransportLost
from autobahn.wamp.types import ComponentConfig

from sisockdaq._wamp.reactor import in_reactor
from sisockdaq.base import DataNodeServer
from sisockdaq.errors import (
    AcquisitionRefused,
    AuthenticationFailed,
    ConnectionFailed,
    DeadlineExceeded,
    NodeNotFound,
    NotAuthorized,
    SisockdaqError,
)
from sisockdaq.router._certificate import ensure_certificate
from sisockdaq.session import Credentials, Endpoint, Link, LinkedSession, error_of
from sisockdaq.testing import Caller, Network, wait_until


def link(endpoint: Endpoint, credentials: Credentials) -> Link:
    def make() -> Link:
        made = Link(LinkedSession(ComponentConfig(endpoint.realm), credentials), endpoint)
        made.start().addErrback(lambda _: None)
        return made

    return in_reactor(make)


def failure_of(endpoint: Endpoint, credentials: Credentials) -> SisockdaqError:
    """Return why a connection cannot be made."""
    tried = link(endpoint, credentials)
    try:
        failure = wait_until(lambda: tried.failure, what="a failure")
        assert failure is not None
        return failure
    finally:
        in_reactor(tried.stop)


def test_both_transports_reach_the_hub(network: Network) -> None:
    for endpoint in (network.endpoint, replace(network.endpoint, socket=None)):
        caller = Caller(endpoint, network.credentials("consumer"))
        assert caller.call(network.uri("consumer.get_data_node")) == []
        caller.close()


@pytest.mark.parametrize("over", ["socket", "tls"])
def test_a_refused_login_has_the_router_s_reason_and_is_final(network: Network, over: str) -> None:
    endpoint = network.endpoint if over == "socket" else replace(network.endpoint, socket=None)
    with pytest.raises(AuthenticationFailed, match=r"refused user 'gauge': WAMP-CRA client signature is invalid"):
        Caller(endpoint, Credentials("gauge", "not the secret"))
    with pytest.raises(AuthenticationFailed, match=r'refused user \'stranger\': no principal with authid "stranger"'):
        Caller(endpoint, Credentials("stranger", "x"))


def test_secrets_are_not_shown(network: Network) -> None:
    credentials = Credentials("gauge", "not the secret")
    assert "not the secret" not in repr(credentials)
    with pytest.raises(AuthenticationFailed) as refused:
        Caller(network.endpoint, credentials)
    assert "not the secret" not in str(refused.value)


def test_a_missing_realm_is_named(network: Network) -> None:
    failure = failure_of(replace(network.endpoint, realm="other_realm"), network.credentials("consumer"))
    assert isinstance(failure, ConnectionFailed)
    assert "has no realm 'other_realm'" in str(failure)


def test_a_router_that_is_not_there_is_named(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"ws://127.0.0.1:{free.getsockname()[1]}/ws"
        failure = failure_of(Endpoint(url), Credentials("consumer", "x"))
    assert url in str(failure)
    assert "refused" in str(failure)


def test_a_certificate_of_another_router_is_not_trusted(network: Network, tmp_path: Path) -> None:
    other, _ = ensure_certificate(tmp_path)
    failure = failure_of(replace(network.endpoint, socket=None, certificate=other), network.credentials("consumer"))
    assert "TLS: certificate verify failed" in str(failure)


def test_a_certificate_that_is_not_there_yet_is_waited_for(network: Network, tmp_path: Path) -> None:
    path = tmp_path / "cert.pem"
    waiting = link(replace(network.endpoint, socket=None, certificate=path), network.credentials("consumer"))
    try:
        wait_until(lambda: "No such file" in str(waiting.failure), what="the reason")
        path.write_bytes((network.state.tls / "server_cert.pem").read_bytes())
        wait_until(lambda: waiting.session.is_attached(), what="the login")
    finally:
        in_reactor(waiting.stop)


def test_a_router_s_socket_is_used_as_soon_as_it_is_there(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sisockdaq._wamp.link.FIRST_DELAY", 600.0)
    monkeypatch.setattr("sisockdaq._wamp.link.LONGEST_DELAY", 600.0)
    place = tmp_path / "router.sock"
    nowhere = replace(network.endpoint, url="wss://127.0.0.1:1/ws", socket=place)
    waiting = link(nowhere, network.credentials("consumer"))
    try:
        wait_until(lambda: waiting.failure, what="the first try")
        assert network.endpoint.socket is not None
        place.symlink_to(network.endpoint.socket)
        wait_until(lambda: waiting.session.is_attached(), what="the login")
    finally:
        in_reactor(waiting.stop)


def test_a_server_that_says_nothing_does_not_hold_a_stop(tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        waiting = link(Endpoint(f"ws://127.0.0.1:{silent.getsockname()[1]}/ws"), Credentials("consumer", "x"))
        silent.settimeout(5)
        connection, _ = silent.accept()
        began = time.monotonic()
        in_reactor(waiting.stop)
        assert time.monotonic() - began < 5
        connection.close()


def test_a_stopped_link_was_told_so_before_it_started() -> None:
    idle = Link(LinkedSession(ComponentConfig("realm")), Endpoint("ws://127.0.0.1:1/ws"))
    in_reactor(idle.stop)
    in_reactor(idle.when_done)


def test_calls_end_with_what_went_wrong(network: Network) -> None:
    consumer = network.caller()
    with pytest.raises(NodeNotFound, match="nobody on the network answers to"):
        consumer.call(network.uri("consumer.nobody.get_data"))
    node = network.caller("camera")
    started: list[Any] = []

    def never(*_: Any) -> Any:
        from twisted.internet.defer import Deferred

        started.append(True)
        return Deferred()

    node.register(network.uri("consumer.camera.never"), never)
    with pytest.raises(DeadlineExceeded, match=r"consumer\.camera\.never gave no answer within 0\.2 s"):
        consumer.call(network.uri("consumer.camera.never"), deadline=0.2)
    assert started


def test_a_call_before_the_login_fails_at_once(network: Network) -> None:
    session = LinkedSession(ComponentConfig("realm"))
    from sisockdaq.session import call_within

    with pytest.raises(ConnectionFailed, match="not connected"):
        in_reactor(call_within, session, 5.0, "a.b")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (TransportLost(), ConnectionFailed),
        (ApplicationError("wamp.error.no_such_procedure"), NodeNotFound),
        (ApplicationError("wamp.error.not_authorized"), NotAuthorized),
        (ApplicationError("wamp.error.canceled"), ConnectionFailed),
        (ApplicationError("sisockdaq.error.acquisition_refused", "no", reasons=["a"]), AcquisitionRefused),
        (ApplicationError("org.other.error", "text"), SisockdaqError),
        (ZeroDivisionError(), ZeroDivisionError),
    ],
)
def test_errors_of_requests(error: Exception, kind: type[Exception]) -> None:
    assert type(error_of(error, "a.b")) is kind


class Gauge(DataNodeServer):
    """Runs in a process of its own."""

    def setup(self) -> None:
        self.pressure = self.series("pressure")
        self.every(0.05, self.read, in_thread=True)

    def read(self) -> None:
        self.pressure.append(time.time(), 1.0)

    def teardown(self) -> None:
        print("torn down", flush=True)


def test_a_node_s_process_ends_in_order_on_sigterm(network: Network) -> None:
    node = network.start_process(Gauge)
    network.wait_for("gauge::pressure", samples=2)
    began = time.monotonic()
    assert node.terminate() == 0
    assert time.monotonic() - began < 5
    assert "torn down" in node.log
    assert "Traceback" not in node.log
    network.wait_gone("gauge")


def test_a_node_s_process_ends_with_the_reason_when_it_cannot_start(network: Network) -> None:
    node = network.start_process(Gauge, wait=False, colour="red")
    assert node.wait() == 1
    assert "gauge: colour: Extra inputs are not permitted" in node.log
    assert "Traceback" not in node.log
