"""How fast samples come from a node to a client: our typed arrays against plain JSON lists, through the same router.

Ours: `Client.get`, over the unix socket as on one machine, and over the TLS WebSocket as from another. The rival: a
session on the TLS WebSocket with the JSON serializer that calls the plain ``get_data`` of the very same node, as an
older client does. A plain reply above the message limit never arrives, so the rival asks in spans of `RIVAL_SPAN`
points, each below 1 MiB of JSON, one after the other; that costs it little. Beyond `RIVAL_MOST` points its time is that
of `RIVAL_MOST`, multiplied: it grows with the number of points.

The times are those of a detector at 1 kHz, with a jitter of 50 µs; the values are noise, which nothing could pack. The
floor is the time that the bytes which our reply has need from the same node, in the same chunks, without any meaning.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from autobahn.twisted.websocket import WampWebSocketClientFactory
from autobahn.wamp.serializer import JsonSerializer
from autobahn.wamp.types import CallOptions, ComponentConfig, RegisterOptions

from sisockdaq import flow
from sisockdaq._wamp.link import LinkedSession, _client_endpoint, call_within
from sisockdaq._wamp.reactor import in_reactor
from sisockdaq.base import DataNodeServer
from sisockdaq.client import Client
from sisockdaq.schema import Reply, Samples
from sisockdaq.testing import Network, wait_until
from sisockdaq.wire import CHUNK_BYTES, messages

T0 = 1_700_000_000.0

SIZES = (10_000, 100_000, 1_000_000, 10_000_000)

JITTER = 50e-6
"""Standard deviation of the times [s], far below the spacing: host clocks and interrupts."""

RIVAL_SPAN = 20_000
"""Points of one plain reply: about 0.8 MiB of JSON, times and values."""

RIVAL_MOST = 1_000_000

_DEADLINE = 120.0


class Points(DataNodeServer):
    """Noise, in a field for each size."""

    def setup(self) -> None:
        """Make the samples."""
        for size in SIZES:
            series = self.series(f"n{size}", keep=1e9, max_samples=size)
            series.append_block(*samples(size))

    def after_onJoin(self, details: Any) -> Any:  # noqa: N802 - sisock's name
        """Offer the floor."""
        where = self.uri(f"consumer.{self.name}.bytes")
        return self.register(self._bytes, where, options=RegisterOptions(details_arg="details"))

    def _bytes(self, count: int, details: Any = None) -> Any:
        chunk = bytes(CHUNK_BYTES)
        parts = ({"data": chunk[: min(CHUNK_BYTES, count - at)]} for at in range(0, count, CHUNK_BYTES))
        return flow.send(self, details.progress, parts)


def samples(size: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return times [s] and values."""
    noise = np.random.default_rng(1)
    return T0 + np.arange(size) / 1000 + noise.normal(scale=JITTER, size=size), noise.normal(size=size)


class Rival:
    """An older client: plain calls on a WebSocket with JSON."""

    def __init__(self, network: Network) -> None:
        self.session = LinkedSession(ComponentConfig(network.endpoint.realm), network.credentials("consumer"))
        self._procedure = network.uri("consumer.points.get_data")
        factory = WampWebSocketClientFactory(
            lambda: self.session, url=network.endpoint.url, serializers=[JsonSerializer()]
        )
        limit = 16 * 2**20
        factory.setProtocolOptions(maxFramePayloadSize=limit, maxMessagePayloadSize=limit, tcpNoDelay=True)
        remote = type(network.endpoint)(network.endpoint.url, certificate=network.endpoint.certificate)

        def connect() -> Any:
            from sisockdaq._wamp.link import the_reactor

            return _client_endpoint(remote, the_reactor()).connect(factory)

        in_reactor(connect)
        wait_until(self.session.is_attached, 15, "the rival's login")

    def get(self, size: int) -> tuple[list[float], list[float]]:
        """Return a field's times and values, fetched span by span."""
        values: list[float] = []
        times: list[float] = []
        for first in range(0, size, RIVAL_SPAN):
            span = (T0 + first / 1000 - 0.0005, T0 + min(first + RIVAL_SPAN, size) / 1000 - 0.0005)
            field = f"n{size}"
            reply = in_reactor(
                call_within, self.session, _DEADLINE, self._procedure, [field], *span, deadline=_DEADLINE
            )
            values += reply["data"][field]
            times += reply["timeline"][field]["t"]
        assert len(values) == len(times) == size
        return times, values

    def close(self) -> None:
        """Leave."""
        in_reactor(self.session.leave)


def run(quick: bool = False) -> list[dict[str, Any]]:
    """Return the rows; ``quick`` takes fewer rounds and leaves the largest size out."""
    with tempfile.TemporaryDirectory() as folder, Network(Path(folder) / "state") as network:
        network.start_process(Points, name="points")
        secret = network.state.secret("consumer")
        with (
            Client(state=network.state, deadline=_DEADLINE) as local,
            Client(url=network.endpoint.url, user="consumer", secret=secret,
                   certificate=network.endpoint.certificate, deadline=_DEADLINE) as remote,
        ):  # fmt: skip
            rival = Rival(network)
            rows = []
            for size in SIZES[:-1] if quick else SIZES:
                rows += _compare(size, local, remote, rival, rounds=3 if quick else 5)
            rival.close()
    return rows


def _compare(size: int, local: Client, remote: Client, rival: Rival, rounds: int) -> list[dict[str, Any]]:
    """Measure all in turn, round by round."""
    rival_size = min(size, RIVAL_MOST)
    sent = next(messages(Reply({"x": Samples(*samples(size))})))["bytes"]
    rival_rounds = {10_000: rounds, 100_000: 3}.get(size, 1)
    contenders: dict[str, Callable[[], Any]] = {
        "unix socket": lambda: _ours(local, size),
        "TLS WebSocket": lambda: _ours(remote, size),
        "floor unix socket": lambda: move(local, sent),
        "floor TLS WebSocket": lambda: move(remote, sent),
        "rival": lambda: rival.get(rival_size),
    }
    median = median_times(contenders, rounds, rival_rounds)
    other = median["rival"] * size / rival_size
    scaled = "" if rival_size == size else f", {size // rival_size} × its time for {rival_size:.0e} points"
    return [
        {
            "benchmark": "getdata",
            "case": f"{size:.0e} points, {way}",
            "value": 1e3 * median[way],
            "unit": "ms",
            "against": f"plain JSON lists over the TLS WebSocket ({1e3 * other:.0f} ms{scaled})",
            "ratio": other / median[way],
            "floor_share": min(median[f"floor {way}"] / median[way], 1.0),
        }
        for way in ("unix socket", "TLS WebSocket")
    ]


def median_times(contenders: Mapping[str, Callable[[], Any]], rounds: int, rival_rounds: int) -> dict[str, float]:
    """Return the median time of each [s], taken in turn, round by round; "rival" takes part in the first ones only."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name, act in contenders.items():
            if name == "rival" and number >= rival_rounds:
                continue
            begun = time.perf_counter()
            act()
            times[name].append(time.perf_counter() - begun)
    return {name: statistics.median(taken) for name, taken in times.items()}


def _ours(client: Client, size: int) -> None:
    found = client.get(f"points::n{size}", start=1)[f"points::n{size}"]
    assert len(found) == size


def move(client: Client, count: int) -> None:
    """Move so many bytes from the node, as progressive results that nobody reads."""
    network = client._network
    options = CallOptions(on_progress=lambda message: None)
    network.call("consumer.points.bytes", count, options=options, deadline=_DEADLINE)


if __name__ == "__main__":
    # By its own name: the node's process must be able to import the class.
    from benchmarks import getdata
    from benchmarks.__main__ import show

    show(getdata.run())
