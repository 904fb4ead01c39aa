"""The stream writer as a node on a real router."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sisockdaq.nodes.jungfraujoch_writer import JungfraujochWriter

from sisockdaq.errors import NotAuthorized
from sisockdaq.testing import wait_until
from sisockdaq.testing.network import Network
from tests.jungfraujoch.conftest import images_of, sender  # noqa: F401 - a fixture
from tests.jungfraujoch.sender import Sender, frame, image, start


def call(network: Network, procedure: str, user: str = "control") -> dict[str, Any]:
    return dict(network.call(f"control.jungfraujoch_writer.{procedure}", user=user))


def test_a_series_is_followed_by_clients_and_cancelled(
    network: Network,
    sender: Sender,  # noqa: F811
    tmp_path: Path,
) -> None:
    running = network.start(
        JungfraujochWriter, directory=str(tmp_path), connect=[sender.address], http_port=0, flush_interval=0.05
    )
    wait_until(lambda: call(network, "status")["connected"] == 1)
    sender.run(range(6))
    wait_until(lambda: call(network, "status")["message"] == "Completed.")
    np.testing.assert_array_equal(images_of(tmp_path), [image(index) for index in range(6)])
    assert network.wait_for("jungfraujoch_writer::last_file", samples=2)[-1] == str(tmp_path / "run_data_000002.h5")
    wait_until(lambda: 6 in list(network.wait_for("jungfraujoch_writer::images_written")))
    port = running.node.http.getHost().port
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/state", timeout=10) as answer:
        assert json.load(answer)["progress"] == 1.0
    sender.send(start("next", 100), frame(0))
    wait_until(lambda: call(network, "status")["images"].get("safe") == 1)
    with pytest.raises(NotAuthorized):
        call(network, "cancel", user="consumer")
    assert call(network, "cancel")["message"] == "Interrupted."
