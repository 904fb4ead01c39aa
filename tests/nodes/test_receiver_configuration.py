"""A receiver that is configured anew while it runs: all or nothing, and everybody who takes its frames follows."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sisockdaq.nodes.detector_receiver import DetectorReceiver

from sisockdaq.detector.description import DetectorOptions
from sisockdaq.detector.kernel import warm_up
from sisockdaq.detector.recording import Recording
from sisockdaq.detector.replay import replay
from sisockdaq.detector.simulator import Simulation, simulate
from sisockdaq.errors import AcquisitionRefused, ConfigurationError, DeadlineExceeded, PortTaken
from sisockdaq.frames import Arm, Attached, Consumer, Settled, Start, make_consumer
from sisockdaq.testing.network import Network
from sisockdaq.testing.waiting import wait_until

SMALL = {"model": "jungfrau", "readout_rows": 64}
MOVED = {"0": [4, 67, 1027, 4]}
"""The module four pixels from the left and upper edge, upside down."""


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    warm_up()


@pytest.fixture
def receiver(network: Network) -> Iterator[Any]:
    (network.state.path / "detector-receiver.json").unlink(missing_ok=True)
    yield network.start(DetectorReceiver, name="receiver", detector=SMALL, udp=[{"port": 0}]).node
    network.stop_nodes()
    (network.state.path / "detector-receiver.json").unlink(missing_ok=True)


@pytest.fixture
def consumer(receiver: Any) -> Iterator[Consumer]:
    made = make_consumer(receiver.frames_address, name="test", reports=False)
    assert isinstance(made.next(20.0), Attached)
    yield made
    made.close()


def call(network: Network, procedure: str, *arguments: Any) -> Any:
    return network.call(f"control.receiver.{procedure}", *arguments, user="control")


def next_of(consumer: Consumer, kind: type) -> Any:
    """Return the next mark of that kind; frames on the way are let go."""
    for _ in range(200):
        item = consumer.next(20.0)
        assert item is not None, f"no {kind.__name__} came"
        if isinstance(item, kind):
            return item
        if hasattr(item, "release"):
            item.release()
    raise AssertionError(f"no {kind.__name__} came")


def images(consumer: Consumer, detector: DetectorOptions, ports: list[int], count: int = 3) -> list[Any]:
    """Send frames through an acquisition; return their numbers and pixels."""
    consumer.request(Arm("run", count))
    next_of(consumer, Start)
    targets = [("127.0.0.1", port) for port in ports]
    simulate(detector, targets, frames=count, rate=100, simulation=Simulation(detector, seed=7))
    found = []
    while not isinstance(item := consumer.next(20.0), Settled):
        if hasattr(item, "pixels"):
            with item as frame:
                found.append((frame.header.number, frame.pixels.copy()))
    return found


def check(found: list[Any], detector: DetectorOptions, count: int = 3) -> None:
    simulation = Simulation(detector, seed=7)
    assert len(found) == count
    for number, pixels in found:
        np.testing.assert_array_equal(pixels, simulation.image(number))


def test_the_configuration_has_std_daqs_names(network: Network, receiver: Any) -> None:
    config = call(network, "get_config")
    expected = {
        "bit_depth": 16,
        "detector_name": "JUNGFRAU",
        "detector_type": "jungfrau",
        "image_pixel_height": 64,
        "image_pixel_width": 1024,
        "n_modules": 1,
        "start_udp_port": receiver.ports[0],
        "module_positions": {"0": [0, 0, 1023, 63]},
    }
    assert {key: config[key] for key in expected} == expected
    assert call(network, "set_config", config) == config
    assert call(network, "set_config", {}) == config


def test_positions_and_size_change_while_it_runs_and_consumers_follow(
    network: Network, receiver: Any, consumer: Consumer
) -> None:
    check(images(consumer, receiver.detector, receiver.ports), receiver.detector)
    config = call(
        network, "set_config", {"module_positions": MOVED, "image_pixel_width": 1030, "image_pixel_height": 70}
    )
    assert (config["image_pixel_height"], config["image_pixel_width"]) == (70, 1030)
    assert config["module_positions"] == MOVED
    attached = next_of(consumer, Attached)
    assert attached.description.shape == (70, 1030)
    check(images(consumer, receiver.detector, receiver.ports), receiver.detector)
    images_live = receiver.store.timelines["image"].series["image"]
    assert wait_until(images_live.latest, 20, "a live image")[1].shape == (70, 1030)
    assert images_live.field.shape == (70, 1030)


def test_another_detector_on_other_ports(network: Network, receiver: Any, consumer: Consumer) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    changes = {"detector_type": "eiger", "bit_depth": 32, "readout_rows": 512, "n_modules": 4, "module_ids": None}
    config = call(network, "set_config", {**changes, "start_udp_port": port})
    assert receiver.ports == [port, port + 1, port + 2, port + 3]
    assert (config["detector_type"], config["bit_depth"], config["n_modules"]) == ("eiger", 32, 4)
    description = next_of(consumer, Attached).description
    assert (description.shape, np.dtype(description.dtype)) == ((514, 1030), np.dtype("u4"))
    check(images(consumer, receiver.detector, receiver.ports), receiver.detector)


@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        ({"bit_depth": 12, "start_udp_port": 70000, "colour": 1}, ["bit_depth", "start_udp_port", "colour"]),
        ({"n_modules": 2, "module_positions": MOVED}, ["n_modules is 2, module_positions has 1"]),
        ({"module_positions": {"0": [0, 0, 10, 10]}}, ["spans 11 × 11"]),
        ({"image_pixel_height": 10, "fill_value": 70000}, ["smaller than", "70000 does not fit"]),
        ({"n_modules": 0, "gap_value": -1}, ["n_modules", "gap_value"]),
        ({"detector_type": "bsread"}, ["detector_type"]),
        ({"module_positions": {"0": "left"}}, ["module_positions.0"]),
    ],
)
def test_what_is_not_possible_is_refused_whole_with_every_reason(
    network: Network, receiver: Any, changes: dict[str, Any], reasons: list[str]
) -> None:
    before, ring = call(network, "get_config"), receiver._producer
    with pytest.raises(ConfigurationError) as refusal:
        call(network, "set_config", changes)
    assert all(reason in str(refusal.value) for reason in reasons), str(refusal.value)
    assert call(network, "get_config") == before
    assert receiver._producer is ring


def test_a_change_is_answered_when_those_who_take_part_have_followed(
    network: Network, receiver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sisockdaq.nodes.detector_receiver.changing.FOLLOWED_WITHIN", 1.0)
    writer = make_consumer(receiver.frames_address, name="writer")
    try:
        assert isinstance(writer.next(20.0), Attached)
        with pytest.raises(DeadlineExceeded, match="writer did not attach"):
            call(network, "set_config", {"image_pixel_height": 70})
        assert call(network, "get_config")["image_pixel_height"] == 70
        assert next_of(writer, Attached).description.shape == (70, 1024)
        monkeypatch.setattr("sisockdaq.nodes.detector_receiver.changing.FOLLOWED_WITHIN", 30.0)
        with ThreadPoolExecutor() as pool:
            followed = pool.submit(next_of, writer, Attached)
            assert call(network, "set_config", {"image_pixel_height": 80})["image_pixel_height"] == 80
            assert "writer" in receiver._producer.status()["consumers"]
            assert followed.result(20.0).description.shape == (80, 1024)
    finally:
        writer.close()


def test_a_taken_port_leaves_everything_as_it_was(network: Network, receiver: Any, consumer: Consumer) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        with pytest.raises(PortTaken):
            call(network, "set_config", {"start_udp_port": other.getsockname()[1]})
    check(images(consumer, receiver.detector, receiver.ports), receiver.detector)


def test_a_change_that_fails_when_it_is_made_is_taken_back(
    network: Network, receiver: Any, consumer: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_ring = DetectorReceiver._open_ring

    def too_large(self: Any) -> None:
        if self.detector.shape != (64, 1024):
            raise ConfigurationError("there is not enough memory for the frames")
        open_ring(self)

    monkeypatch.setattr(DetectorReceiver, "_open_ring", too_large)
    before = call(network, "get_config")
    with pytest.raises(ConfigurationError, match="not enough memory"):
        call(network, "set_config", {"image_pixel_height": 70})
    assert call(network, "get_config") == before
    assert call(network, "status")["state"] == "READY"
    next_of(consumer, Attached)
    check(images(consumer, receiver.detector, receiver.ports), receiver.detector)


def test_an_acquisition_is_not_disturbed(network: Network, receiver: Any, consumer: Consumer) -> None:
    consumer.request(Arm("run_7", 3))
    next_of(consumer, Start)
    with pytest.raises(AcquisitionRefused, match="run_7 is under way"):
        call(network, "set_config", {"image_pixel_height": 70})
    assert call(network, "set_config", {"bit_depth": 16})["bit_depth"] == 16


def test_a_change_is_kept_for_the_next_start_until_the_site_says_otherwise(network: Network, receiver: Any) -> None:
    call(network, "set_config", {"image_pixel_height": 70, "detector_name": "JF1"})
    port = receiver.ports[0]
    network.stop_nodes()
    again = network.start(DetectorReceiver, name="receiver", detector=SMALL, udp=[{"port": 0}]).node
    wait_until(lambda: again.receiver is not None, 20, "the receiver")
    assert (again.detector.shape, again.detector.name, again.ports) == ((70, 1024), "JF1", [port])
    network.stop_nodes()
    other = {**SMALL, "readout_rows": 128}
    third = network.start(DetectorReceiver, name="receiver", detector=other, udp=[{"port": 0}]).node
    assert third.detector.shape == (128, 1024)


def test_recorded_packets_and_streams_go_on_after_a_change(network: Network, tmp_path: Path) -> None:
    (network.state.path / "detector-receiver.json").unlink(missing_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        bind = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    options: dict[str, Any] = {"record": tmp_path / "raw", "stream2": {"bind": bind}}
    node = network.start(DetectorReceiver, name="receiver", detector=SMALL, udp=[{"port": 0}], **options).node
    consumer = make_consumer(node.frames_address, name="test", reports=False)
    try:
        next_of(consumer, Attached)
        call(network, "set_config", {"module_positions": MOVED, "image_pixel_width": 1030, "image_pixel_height": 70})
        next_of(consumer, Attached)
        taken = images(consumer, node.detector, node.ports)
        detector = node.detector
        network.stop_nodes()
    finally:
        consumer.close()
        (network.state.path / "detector-receiver.json").unlink(missing_ok=True)
    again = network.start(DetectorReceiver, name="again", detector=detector.model_dump(), udp=[{"port": 0}]).node
    second = make_consumer(again.frames_address, name="test", reports=False)
    with Recording(tmp_path / "raw" / "change_001") as recording:
        assert recording.frames == [number for number, _ in taken]
        try:
            next_of(second, Attached)
            second.request(Arm("again", 3))
            next_of(second, Start)
            replay(recording, [("127.0.0.1", port) for port in again.ports], rate=100)
            replayed = []
            while not isinstance(item := second.next(20.0), Settled):
                if hasattr(item, "pixels"):
                    with item as frame:
                        replayed.append((frame.header.number, frame.pixels.copy()))
        finally:
            second.close()
    assert [number for number, _ in replayed] == [number for number, _ in taken]
    for (_, image), (_, other) in zip(taken, replayed, strict=True):
        np.testing.assert_array_equal(image, other)
