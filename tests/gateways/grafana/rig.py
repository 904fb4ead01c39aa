"""A gateway on the network of the tests, and a reader of its HTTP."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from sisockdaq.gateways.grafana import Grafana

from sisockdaq._wamp.reactor import in_reactor
from sisockdaq.base import DataNodeServer
from sisockdaq.gateway import GatewayHost
from sisockdaq.session import Credentials, Endpoint
from sisockdaq.testing import Network, wait_until

T0 = 1_700_000_000.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What came over HTTP; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        def refuse(word: str) -> Any:
            raise AssertionError(f"{word} is not JSON")

        return json.loads(self.body, parse_constant=refuse)


class Reader:
    """Asks one gateway."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, raw, {"content-type": "application/json", **headers})
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        answer = self.ask("GET", path)
        assert answer.status == 200, answer.body
        return answer.json

    def post(self, path: str, body: Any) -> Any:
        answer = self.ask("POST", path, body)
        assert answer.status == 200, answer.body
        return answer.json

    def query(self, *targets: Any, first: Any = T0 * 1e3, last: Any = (T0 + 1e6) * 1e3, **more: Any) -> list[Any]:
        wanted = [{"target": target, "refId": "A"} if isinstance(target, str) else target for target in targets]
        reply = self.post("/query", {"range": {"from": first, "to": last}, "targets": wanted, **more})
        assert isinstance(reply, list)
        return reply

    def wait_searched(self, name: str, *, gone: bool = False) -> None:
        """Wait until a name is listed, or is no more; asking is all that is done."""
        wait_until(lambda: (name in self.post("/search", {})) != gone, 10, f"{name} in /search")


@contextmanager
def gateway(
    network: Network, *, endpoint: Endpoint | None = None, joined: bool = True, **options: Any
) -> Iterator[Reader]:
    """Run a gateway as the user ``consumer`` until the block ends."""

    def make() -> GatewayHost:
        host = GatewayHost(Grafana, "grafana", endpoint or network.endpoint, user, {"port": 0, **options})
        host.start().addErrback(lambda _: None)
        return host

    user = Credentials("consumer", network.state.secret("consumer"))
    host = in_reactor(make)
    try:
        if joined:
            wait_until(lambda: host.gateway.joined, 15, "the gateway's login")
        reader = Reader(host.gateway.port)
        reader.metrics_port = host.gateway.metrics_port  # type: ignore[attr-defined]
        yield reader
    finally:
        in_reactor(host.stop)


class Weather(DataNodeServer):
    """Five samples in each of four fields, a second apart, and a picture."""

    def setup(self) -> None:
        t = T0 + np.arange(5.0)
        self.series("temperature", units="K", keep=1e9, timeline="slow").append_block(t, np.arange(5.0) / 4)
        self.series("count", keep=1e9).append_block(t, np.arange(5))
        self.series("broken", keep=1e9).append_block(t, np.array([1.0, np.nan, np.inf, -np.inf, 2.0]))
        open_ = self.series("open", type="bool", keep=1e9)
        words = self.series("sky", type="string", keep=1e9)
        for when, is_open, word in zip(t.tolist(), [True, False, True, True, False], "abcab", strict=True):
            open_.append(when, is_open)
            words.append(when, word)
        self.series("picture", type="array", shape=(2, 2), dtype="uint16", keep=1e9)


class Million(DataNodeServer):
    """A million samples of noise below 1, and one spike."""

    def setup(self) -> None:
        n = 1_000_000
        values = np.random.default_rng(1).uniform(-1, 1, n)
        values[654_321] = 1000.0
        self.series("noise", keep=1e9, max_samples=n).append_block(T0 + np.arange(n) / 1000, values)
