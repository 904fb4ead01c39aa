"""The stream writer as a node on a real router."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from sisockdaq.nodes.jungfraujoch_writer import JungfraujochWriter

from sisockdaq.errors import NotAuthorized
from sisockdaq.nexus import DataFileReader, read_master
from sisockdaq.nexus.check import check_file
from sisockdaq.nexus.layout import MasterLayout
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
    log = network.call("control.jungfraujoch_writer.log", 5, user="control")
    assert [(each["acquisition"], each["message"]) for each in log[:2]] == [
        ("next", "Interrupted."),
        ("run", "Completed."),
    ]


FACTS = {
    "arm_date": "2026-01-01T00:00:00Z",
    "beam_center_x": 20.5,
    "beam_center_y": 16.0,
    "count_time": 0.001,
    "detector_description": "JUNGFRAU",
    "detector_distance": 0.2,
    "frame_time": 0.001,
    "incident_energy": 12398.4,
    "incident_wavelength": 1.0,
    "instrument_name": "X06SA",
    "pixel_size_x": 75e-6,
    "pixel_size_y": 75e-6,
    "saturation_value": 32000,
    "sample_name": "lysozyme",
    "sensor_material": "Si",
    "sensor_thickness": 320e-6,
    "source_name": "Swiss Light Source",
    "total_flux": 1e12,
}
"""What a start message of Jungfraujoch says beside sizes and names; each number is from its documentation's list."""

LACKING = {"legacy": set(), "vds": {"neggia", "Albula"}, "integrated": set()}
"""Readers that cannot open a master of that kind, whoever made it: they want links to data files."""


@pytest.mark.parametrize("layout", get_args(MasterLayout))
def test_the_sites_choice_of_master_is_that_of_the_files(
    network: Network,
    sender: Sender,  # noqa: F811
    tmp_path: Path,
    layout: MasterLayout,
) -> None:
    network.start(
        JungfraujochWriter, directory=str(tmp_path), connect=[sender.address], master=layout, flush_interval=0.05
    )
    wait_until(lambda: call(network, "status")["connected"] == 1)
    sender.run(range(6), **FACTS)
    wait_until(lambda: call(network, "status")["message"] == "Completed.")
    master = tmp_path / "run_master.h5"
    assert read_master(master).layout == layout
    data = [] if layout == "integrated" else ["run_data_000001.h5", "run_data_000002.h5"]
    assert sorted(path.name for path in tmp_path.glob("*.h5")) == [*data, "run_master.h5"]
    holder = master if layout == "integrated" else tmp_path / data[0]
    with DataFileReader(holder) as reader:
        np.testing.assert_array_equal(reader.image(3), image(3))
    missing = [each for each in check_file(master).findings if "required" in each.by.values()]
    refusing = {name for each in missing for name, demand in each.by.items() if demand == "required"}
    assert refusing == LACKING[layout], missing
