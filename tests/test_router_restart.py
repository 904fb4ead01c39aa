"""The router dies: everybody who needs it comes back by himself. One private router for all kinds of nodes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sisockdaq.base import DataNodeServer
from sisockdaq.testing import Network, wait_until
from tests.test_old_nodes import AFTER_CHANGING_THE_IMPORT, RUN, script


class Camera(DataNodeServer):
    """Takes images."""

    def setup(self) -> None:
        self.exposure = self.series("exposure")
        self.every(0.05, self.read, in_thread=True)

    def read(self) -> None:
        self.exposure.append(time.time(), 1.0)


def whole(network: Network, names: set[str]) -> None:
    """Wait until exactly these nodes are listed and each answers, at most 10 s after the router is there."""
    began = time.monotonic()
    wait_until(lambda: set(network.listing_or_none() or ()) == {"the hub", *names}, 10.0, f"{names} to be listed")
    for name in names:
        network.call(f"consumer.{name}.get_fields", 1, 0)
    assert time.monotonic() - began < 10.0


@pytest.mark.timeout(180)
def test_the_network_is_whole_again_after_restarts_of_the_router(
    private_network: Callable[..., Network], tmp_path: Path
) -> None:
    network = private_network()
    inside = network.start(Camera, name="inside")
    network.start_process(Camera, name="camera")
    gauge = network.start_process(Camera, name="gauge")
    series = inside.node.exposure
    with script(network, tmp_path, AFTER_CHANGING_THE_IMPORT + RUN + "runner.run(weather)"):
        network.wait_listed("old_weather")
        network.router.kill()
        assert gauge.terminate() == 0  # an end in order needs no router
        network.restart_router()
        whole(network, {"inside", "camera", "old_weather"})
        # Once more: what came back once must come back every time.
        network.router.stop()
        network.restart_router()
        whole(network, {"inside", "camera", "old_weather"})
    assert inside.node.exposure is series  # the node object lived on, and was set up once
    network.wait_for("camera::exposure", samples=3)
