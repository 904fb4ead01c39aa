"""The receiver node: real packets, a real router, frames in shared memory and numbers on the network."""

from __future__ import annotations

import socket
import time

import numpy as np
import pytest
from pydantic import ValidationError
from sisockdaq.nodes.detector_receiver import DetectorReceiver

from sisockdaq.detector.description import DetectorOptions
from sisockdaq.detector.kernel import warm_up
from sisockdaq.detector.recording import Recording
from sisockdaq.detector.simulator import Disturbance, Simulation, simulate
from sisockdaq.errors import ConfigurationError, PortTaken
from sisockdaq.frames import Arm, End, Settled, Start, make_consumer
from sisockdaq.testing.waiting import wait_until

DETECTOR = {"model": "jungfrau", "readout_rows": 64}
OPTIONS = DetectorOptions(**DETECTOR)


@pytest.fixture(scope="module")
def simulation():
    warm_up()
    return Simulation(OPTIONS, seed=3)


def start(network, **options):
    return network.start(DetectorReceiver, name="receiver", detector=DETECTOR, udp=[{"port": 0}], **options)


def targets(running):
    return [("127.0.0.1", port) for port in running.node.ports]


def take(consumer, until):
    """Return all marks and frames (copied) up to a mark of that kind."""
    seen = []
    for _ in range(400):
        item = consumer.next(20.0)
        assert item is not None, f"nothing came for 20 s after {seen[-3:]}"
        if hasattr(item, "pixels"):
            with item as frame:
                seen.append((frame.header, frame.pixels.copy(), frame.packet_mask.copy()))
        else:
            seen.append(item)
            if isinstance(item, until):
                return seen
    raise AssertionError("no end")


def test_an_acquisition_reaches_consumers_and_clients(network, simulation):
    running = start(network)
    consumer = make_consumer(running.node.frames_address, name="test", reports=False)
    try:
        attached = consumer.next(20.0)
        assert attached.description.shape == OPTIONS.shape
        assert attached.description.meta["detector_description"] == "JUNGFRAU"
        consumer.request(Arm("run_1", 12))
        assert isinstance(consumer.next(20.0), Start)
        sent = simulate(
            OPTIONS,
            targets(running),
            frames=12,
            rate=200,
            simulation=simulation,
            disturbance=Disturbance(lost_frames=frozenset({5})),
        )
        assert sent.frames == 12
        seen = take(consumer, Settled)
    finally:
        consumer.close()
    frames = [item for item in seen if isinstance(item, tuple)]
    assert [type(item) for item in seen if not isinstance(item, tuple)] == [End, Settled]
    assert [header.number for header, *_ in frames] == [1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12]
    assert [header.index for header, *_ in frames] == [0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11]
    for header, pixels, _ in frames:
        np.testing.assert_array_equal(pixels, simulation.image(header.number))
    ledger = seen[-1].ledger
    assert ledger["packets_expected"] == 12 * 16
    assert ledger["packets_lost"] == 16
    assert ledger["frames_dropped"] == {"no_packet": 1}

    field = network.client.wait_for("receiver::frame_number", samples=11)
    assert field.values.tolist() == [header.number for header, *_ in frames]
    np.testing.assert_array_equal(field.t, [header.time for header, *_ in frames])
    total = network.client.get("receiver::sum", start=-60)["receiver::sum"]
    assert total.values.tolist() == [float(pixels.sum(dtype=np.uint64)) for _, pixels, _ in frames]
    image = network.client.get("receiver::image", start=-60)["receiver::image"]
    np.testing.assert_array_equal(image.values[0], frames[0][1])
    status = network.call("control.receiver.status", user="control")
    assert status["state"] == "READY"
    assert status["counters"]["packets"] == 11 * 16
    assert network.call("control.receiver.ledger", user="control")["acquisition"] == "run_1"


def test_status_fields_are_served(network, simulation):
    running = start(network)
    simulate(
        OPTIONS, targets(running), frames=3, rate=100, simulation=simulation, disturbance=Disturbance(duplicates=1)
    )
    wait_until(lambda: running.node.receiver.counters()["duplicate"] == 48, 20, "all duplicates")
    begin = time.time()

    def counted():
        field = network.client.get("receiver::packets_duplicate", start=begin)["receiver::packets_duplicate"]
        return 48 in field.values

    wait_until(counted, 20, "the count on the network")
    names = {entry.name for entry in network.client.fields("receiver")}
    assert {"frame_rate", "packet_rate", "data_rate", "ring_use", "packets_invalid", "image", "sum"} <= names


def test_packets_are_recorded_and_frames_go_out_as_stream2(network, simulation, tmp_path):
    running = start(
        network,
        record=str(tmp_path / "raw"),
        stream2={"bind": f"ipc://{tmp_path}/s.sock", "compression": "bslz4"},
    )
    consumer = make_consumer(f"stream2://{tmp_path}/s.sock", name="far", reports=False)
    try:
        running.node.receiver.arm(Arm("run_2", 4))
        simulate(OPTIONS, targets(running), frames=4, rate=100, simulation=simulation)
        seen = take(consumer, End)
    finally:
        consumer.close()
    port = running.node.ports[0]
    network.stop(running)
    images = [pixels for item in seen if isinstance(item, tuple) for pixels in item[1:2]]
    assert len(images) == 4
    for number, pixels in enumerate(images, 1):
        np.testing.assert_array_equal(pixels, simulation.image(number))
    with Recording(tmp_path / "raw") as recording:
        assert recording.ports == [port]
        assert recording.frames == [1, 2, 3, 4]
        assert len(recording.streams[0].begin) == 4 * 16


def test_a_taken_port_is_named(network):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        with pytest.raises(PortTaken, match=str(port)):
            network.start(DetectorReceiver, name="receiver", detector=DETECTOR, udp=[{"port": port}])


def test_as_many_ports_as_streams_are_wanted(network):
    with pytest.raises(ConfigurationError, match="2 streams, 1 ports"):
        network.start(
            DetectorReceiver, name="receiver", detector={"model": "jungfrau", "interfaces": 2}, udp=[{"port": 0}]
        )


def test_options_are_checked():
    with pytest.raises(ValidationError):
        DetectorReceiver.Options(udp=[])
    with pytest.raises(ValidationError):
        DetectorReceiver.Options(udp=[{"port": 1}], overtaken=3)
    with pytest.raises(ValidationError, match="at least 10"):
        DetectorReceiver.Options(udp=[{"port": 1}], overtaken_by=6, ring_slots=8)
