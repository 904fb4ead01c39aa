"""What a gateway author gets: options, threads, a client, and a word for the supervisor."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field
from sisockdaq.gateways.grafana import Grafana

from sisockdaq._wamp.reactor import in_reactor
from sisockdaq.base import DataNodeServer
from sisockdaq.errors import AuthenticationFailed, ConfigurationError, DeadlineExceeded, PortTaken
from sisockdaq.gateway import Gateway, GatewayHost
from sisockdaq.session import Credentials, Endpoint
from sisockdaq.testing import Network, wait_until

NOWHERE = Endpoint("ws://127.0.0.1:9/ws")
NOBODY = Credentials("nobody", "x")


class Bell(Gateway):
    """Notes what happens to it."""

    class Options(Gateway.Options):
        rings: int = Field(3, ge=1)

    about = "ringing"

    def start(self) -> None:
        self.seen = ["start"]
        self.every(0.01, self.ring)

    def ring(self) -> None:
        self.seen.append("ring")
        raise ValueError("one error ends no timer")

    def stop(self) -> None:
        self.seen.append("stop")


class Number(DataNodeServer):
    """Has one number."""

    def setup(self) -> None:
        self.series("n", keep=1e9).append(1_700_000_000.0, 7)


def started(host: GatewayHost) -> list[Any]:
    """Start a gateway; return a list that gets its end."""
    ended: list[Any] = []
    in_reactor(lambda: host.start().addBoth(ended.append) and None)
    return ended


def test_a_gateway_joins_asks_in_threads_and_stops_in_order(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network.start(Number)
    words = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    words.bind(str(tmp_path / "notify"))
    words.settimeout(15)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    user = Credentials("consumer", network.state.secret("consumer"))
    host = in_reactor(GatewayHost, Bell, "bell", network.endpoint, user, {"rings": 2})
    ended = started(host)
    said = ""
    while "READY=1" not in said:
        said += words.recv(4096).decode() + "\n"
    assert "STATUS=ringing\nREADY=1" in said
    gateway = host.gateway
    assert gateway.options.rings == 2
    asked = in_reactor(gateway.in_thread, gateway.client.get_each, ["number::n", "number::m"], 1, 0)
    assert asked["number::n"].values.tolist() == [7]
    assert set(asked.errors) == {"number::m"}
    wait_until(lambda: gateway.seen.count("ring") > 2, 5, "the timer")
    with pytest.raises(DeadlineExceeded):
        in_reactor(gateway.compute, threading.Event().wait, 1.0, deadline=0.05)
    in_reactor(host.stop)
    assert gateway.seen[-1] == "stop"
    wait_until(lambda: ended, 5, "its end")
    assert ended == [None]


def test_a_refused_login_is_final(network: Network) -> None:
    host = in_reactor(GatewayHost, Bell, "bell", network.endpoint, NOBODY)
    ended = started(host)
    wait_until(lambda: ended, 15, "the refusal")
    assert isinstance(ended[0].value, AuthenticationFailed)
    in_reactor(host.stop)


def test_options_are_checked() -> None:
    with pytest.raises(ConfigurationError, match=r"bell\.rings: .*greater than or equal to 1"):
        GatewayHost(Bell, "bell", NOWHERE, NOBODY, {"rings": 0})
    with pytest.raises(ConfigurationError, match=r"grafana\.log_level"):
        GatewayHost(Grafana, "grafana", NOWHERE, NOBODY, {"log_level": "loud"})
    assert Grafana.Options.model_validate({"log_level": "WARNING"}).log_level == "warn"


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        host = in_reactor(GatewayHost, Grafana, "grafana", NOWHERE, NOBODY, {"port": port})
        with pytest.raises(PortTaken, match=rf"127\.0\.0\.1:{port}"):
            in_reactor(host.start)
        in_reactor(host.gateway._end)
