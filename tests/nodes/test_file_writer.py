"""The file writer as callers see it, on a real router with real rings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sisockdaq.nodes.file_writer import FileWriter

from sisockdaq.errors import AcquisitionRefused, ConfigurationError, NotAuthorized
from sisockdaq.site import load_site
from sisockdaq.testing.network import Network
from sisockdaq.wire import decode_array
from tests.nexus.rig import Sources, wait_for

SITE = """
site: test
data: data
detector: {model: jungfrau, modules: 1, mask: mask.npy,
           geometry: {distance: 0.2, poni1: 0.015, poni2: 0.03, wavelength: 1.0e-10}}
nodes:
  receiver: {type: detector_receiver, udp: [{port: 50000}]}
  writer: {type: file_writer}
"""


@pytest.fixture
def sources(network: Network) -> Iterator[Sources]:
    network.state.make()
    made = Sources(network.state.frames_socket("receiver"), network.state.frames_socket("integrator"))
    yield made
    network.stop_nodes()
    made.close()


def call(network: Network, procedure: str, **arguments: Any) -> dict[str, Any]:
    return dict(network.call(f"control.file_writer.{procedure}", user="control", **arguments))


def start_writer(network: Network, folder: Path, **options: Any) -> None:
    chosen = {"frames": "receiver", "results": ["integrator"], "images_per_file": 10, **options}
    running = network.start(FileWriter, directory=str(folder), **chosen)
    wait_for(lambda: running.node.engine is not None and len(running.node.engine.sources) == 2, "attaching")


def test_an_acquisition_is_started_followed_and_found_in_its_files(
    network: Network, sources: Sources, tmp_path: Path
) -> None:
    start_writer(network, tmp_path)
    assert call(network, "status")["state"] == "READY"
    files = network.caller().subscribe(network.uri("consumer.file_writer.feed.files"))
    started = call(network, "start", acquisition="run_0001", frames=25, meta={"sample_name": "silver behenate"})
    assert started["acquisition"] == "run_0001"
    status = wait_for(lambda: (s := call(network, "status"))["state"] == "READY" and s, "the end")
    assert status["acquisition_state"] == "FINISHED"
    assert status["frames_written"] == status["frames"] == 25
    assert status["ledger"]["consumers"]["file_writer"]["counts"]["frames_written"] == 25
    assert [Path(name).name for name in status["files"]] == [f"run_0001_data_{n:06d}.h5" for n in (1, 2, 3)]
    assert network.wait_for("file_writer::last_file", samples=3)[-1] == str(tmp_path / "run_0001_data_000003.h5")
    assert network.wait_for("file_writer::state")
    last = str(tmp_path / "run_0001_data_000003.h5")
    wait_for(lambda: any(last in decode_array(event["data"]["last_file"]) for event in list(files)), "file events")


def test_refusals_reach_the_caller_with_all_reasons(network: Network, sources: Sources, tmp_path: Path) -> None:
    start_writer(network, tmp_path)
    (tmp_path / "run_data_000001.h5").touch()
    with pytest.raises(AcquisitionRefused) as refusal:
        call(network, "start", acquisition="run", frames=10**12)
    assert len(refusal.value.reasons) == 2
    assert call(network, "stop")["state"] == "READY"


def test_a_reader_may_not_start(network: Network, sources: Sources, tmp_path: Path) -> None:
    start_writer(network, tmp_path)
    with pytest.raises(NotAuthorized):
        network.call("control.file_writer.start", user="consumer", acquisition="run")


def test_the_site_gives_the_sources_the_folder_and_the_facts(tmp_path: Path) -> None:
    import numpy as np

    (tmp_path / "site.yml").write_text(SITE)
    mask = np.zeros((512, 1024), bool)
    mask[3, 4] = True
    np.save(tmp_path / "mask.npy", mask)
    site = load_site(tmp_path / "site.yml")
    from sisockdaq.nexus.facts import detector_facts, geometry_facts, site_mask

    assert site.detector is not None
    facts = {**detector_facts(site.detector), **geometry_facts(site)}
    assert facts["pixel_size_x"] == 75e-6
    assert facts["beam_center_x"] == pytest.approx(400)
    assert facts["beam_center_y"] == pytest.approx(200)
    assert facts["detector_distance"] == pytest.approx(0.2)
    assert facts["incident_wavelength"] == pytest.approx(1.0)
    stored = site_mask(site)
    assert stored is not None
    assert stored.sum() == stored[3, 4] == 256


def test_a_site_with_two_receivers_must_say_which(network: Network, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="which node's images"):
        network.start(FileWriter, directory=str(tmp_path))
