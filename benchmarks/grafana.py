"""How fast a panel gets its samples: our Grafana gateway against plain JSON lists through the same router.

Ours: ``POST /query`` of one target, from the request to the last byte, the gateway in a process of its own. Once as a
panel asks, with ``maxDataPoints`` of `PANEL`, and once for all points. The rival: a session on the TLS WebSocket with
the JSON serializer calls the plain ``get_data`` of the very same node, as the older bridge does, in spans that fit
(`benchmarks.getdata`), and makes the panel's JSON by ``json.dumps`` of a list of pairs. It has no notion of
``maxDataPoints``: it gives all points, whatever is asked.

The rival's time is thus that of all points in both cases; that ours sends fewer for a panel is part of what is
compared, and the rows for all points show what is left without it. The floor is the time in which the
bytes of our reply come from the node, without any meaning (for all points only).
"""

from __future__ import annotations

import http.client
import json
import multiprocessing
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sisockdaq.gateways.grafana import Grafana

from benchmarks.getdata import RIVAL_SPAN, T0, Points, Rival, median_times, move
from sisockdaq.client import Client
from sisockdaq.gateway import run_gateway
from sisockdaq.router import free_port
from sisockdaq.session import Credentials, Endpoint
from sisockdaq.state import StateDirectory
from sisockdaq.testing import Network, wait_until

SIZES = (10_000, 100_000, 1_000_000)

PANEL = 1500
"""Points of a wide panel."""


class Bridge(Rival):
    """The rival: all points of a field as the JSON of a panel."""

    def panel(self, size: int) -> bytes:
        """Return the reply to ``/query``; made in pieces, so that the router's pings are answered meanwhile."""
        times, values = self.get(size)
        pieces = []
        for at in range(0, size, RIVAL_SPAN):
            some = slice(at, at + RIVAL_SPAN)
            pieces.append(json.dumps([[v, 1000.0 * t] for v, t in zip(values[some], times[some], strict=True)])[1:-1])
        return f'[{{"target": "points::n{size}", "datapoints": [{", ".join(pieces)}]}}]'.encode()


def serve(folder: str, port: int) -> None:
    """Be the gateway's process."""
    state = StateDirectory(Path(folder))
    user = Credentials("consumer", state.secret("consumer"))
    options = {"port": port, "max_points": max(SIZES), "log_level": "error"}
    run_gateway(Grafana, "grafana", Endpoint.of_state(state), user, options, state=state)


@contextmanager
def gateway(network: Network) -> Iterator[int]:
    """Run a gateway until the block ends; yield its port."""
    port = free_port()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(str(network.state.path), port))
    process.start()
    try:
        wait_until(lambda: _lists(port), 60, "the gateway")
        yield port
    finally:
        process.terminate()
        process.join(15)


def ask(port: int, size: int, points: int) -> bytes:
    """Return the reply to ``/query``."""
    limits = {"from": 1000 * (T0 - 1), "to": 1000 * (T0 + size)}
    body = {"range": limits, "maxDataPoints": points, "targets": [{"target": f"points::n{size}", "refId": "A"}]}
    return _post(port, "/query", body)


def run(quick: bool = False) -> list[dict[str, Any]]:
    """Return the rows; ``quick`` takes fewer rounds and leaves the largest size out."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, Network(Path(folder) / "state") as network:
        network.start_process(Points, name="points")
        rival = Bridge(network)
        with gateway(network) as port, Client(state=network.state) as client:
            for size in SIZES[:-1] if quick else SIZES:
                rows += _compare(size, port, client, rival, rounds=3 if quick else 7)
        rival.close()
    return rows


def _compare(size: int, port: int, client: Client, rival: Bridge, rounds: int) -> list[dict[str, Any]]:
    """Measure all in turn, round by round."""
    panel, whole = (len(json.loads(ask(port, size, points))[0]["datapoints"]) for points in (PANEL, size))
    assert panel <= PANEL
    assert whole == size
    rival_rounds = {10_000: rounds, 100_000: 3}.get(size, 1)
    sent = len(ask(port, size, size))
    contenders: dict[str, Callable[[], Any]] = {
        "panel": lambda: ask(port, size, PANEL),
        "whole": lambda: ask(port, size, size),
        "floor": lambda: move(client, sent),
        "rival": lambda: rival.panel(size),
    }
    median = median_times(contenders, rounds, rival_rounds)
    cases = {"panel": f"panel of {PANEL} points", "whole": "all points"}
    return [
        {
            "benchmark": "grafana",
            "case": f"{size:.0e} points, {words}",
            "value": 1e3 * median[case],
            "unit": "ms",
            "against": f"plain JSON lists and json.dumps of all ({1e3 * median['rival']:.0f} ms)",
            "ratio": median["rival"] / median[case],
            "floor_share": min(median["floor"] / median[case], 1.0) if case == "whole" else None,
        }
        for case, words in cases.items()
    ]


def _lists(port: int) -> bool:
    try:
        return f"points::n{SIZES[0]}" in json.loads(_post(port, "/search", {}))
    except OSError:
        return False


def _post(port: int, path: str, body: Any) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        return connection.getresponse().read()
    finally:
        connection.close()


if __name__ == "__main__":
    # By its own name: the gateway's process must be able to import the module.
    from benchmarks import grafana
    from benchmarks.__main__ import show

    show(grafana.run())
