"""The receiver of a JUNGFRAU: darks in each gain, a pedestal of them, and frames whose photons are known."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError
from sisockdaq.nodes.detector_receiver import DetectorReceiver
from sisockdaq.nodes.detector_receiver.conversion import ConversionOptions

from sisockdaq.conversion import STAGES, JungfrauModel, load_pedestal, save_gains
from sisockdaq.conversion.kernels import warm_up as warm_up_conversion
from sisockdaq.detector.description import DetectorOptions
from sisockdaq.detector.kernel import warm_up
from sisockdaq.detector.simulator import Disturbance, Simulation, simulate
from sisockdaq.errors import SisockdaqError
from sisockdaq.frames import Arm, Attached, End, make_consumer
from sisockdaq.testing.waiting import wait_until

DETECTOR = {"model": "jungfrau", "readout_rows": 64}
OPTIONS = DetectorOptions(**DETECTOR)
MODEL = JungfrauModel.drawn(OPTIONS.shape, seed=5)
ENERGY = 10.0
DARKS = 60


@pytest.fixture(scope="module", autouse=True)
def compiled():
    warm_up()
    warm_up_conversion()


@pytest.fixture
def gain(tmp_path):
    save_gains(MODEL.gain, tmp_path / "gains.h5")
    return tmp_path / "gains.h5"


def start(network, tmp_path, **conversion):
    options = {"pedestal": str(tmp_path / "pedestal.h5"), **conversion}
    return network.start(
        DetectorReceiver, name="receiver", detector=DETECTOR, udp=[{"port": 0}], ring_slots=64, conversion=options
    )


def send(running, images, frames, first=1, **disturbance):
    return simulate(
        OPTIONS,
        [("127.0.0.1", port) for port in running.node.ports],
        frames=frames,
        rate=100,
        first_frame=first,
        simulation=Simulation(OPTIONS, images=images),
        disturbance=Disturbance(**disturbance),
    )


def take_darks(network, running, stages=STAGES, first=1):
    """Run through the stages as a person would; return the number of the next frame."""
    for stage in stages:
        network.call("control.receiver.take_dark", stage, DARKS, user="control")
        images = [MODEL.dark(stage, frame) for frame in range(20)]
        send(running, images, DARKS + 20, first)
        first += DARKS + 20
        packets = (first - 1) * OPTIONS.packets_per_frame
        wait_until(lambda packets=packets: running.node.receiver.counters()["packets"] == packets, 20, "all packets")
        wait_until(lambda: not network.call("control.receiver.dark_status", user="control")["active"], 20, "darks")
    return first


def photons():
    """An image of known photons that needs all three stages."""
    light = np.random.default_rng(1).poisson(3, OPTIONS.shape)
    light[10:20, 10:30] = 300
    light[30:34, 100:120] = 4000
    return light


def take(consumer, frames, running, images, first, **disturbance):
    """Return the frames of an acquisition, copied, with the description that they came under."""
    consumer.request(Arm("run", frames))
    wait_until(lambda: running.node.receiver.acquisition()["acquisition"] == "run", 20, "the acquisition")
    send(running, images, frames, first, **disturbance)
    seen = []
    while True:
        item = consumer.next(20.0)
        assert item is not None, "nothing came for 20 s"
        if isinstance(item, End):
            return seen
        if hasattr(item, "pixels"):
            with item as frame:
                if frame.header.index >= 0:
                    seen.append((frame.header, frame.pixels.copy()))


def test_darks_make_a_pedestal_and_frames_have_the_photons_that_were_sent(network, tmp_path, gain):
    running = start(network, tmp_path, output="photons", photon_energy=ENERGY, gain=str(gain))
    assert "no pedestal yet" in network.call("control.receiver.status", user="control")["message"]
    first = take_darks(network, running)
    found = network.call("control.receiver.save_pedestal", user="control")
    assert found["applied"]
    assert found["bad"] == 0
    pedestal = load_pedestal(tmp_path / "pedestal.h5")
    assert pedestal.origin["node"] == "receiver"
    np.testing.assert_allclose(pedestal.mean, MODEL.pedestal, atol=15)
    assert network.call("control.receiver.status", user="control")["message"] == ""

    light = photons()
    consumer = make_consumer(running.node.frames_address, name="test", reports=False)
    try:
        attached = consumer.next(20.0)
        assert isinstance(attached, Attached)
        about = attached.description
        assert (about.dtype, about.fill_value) == ("<i4", -(2**31))
        assert about.meta["conversion"]["output"] == "photons"
        assert about.meta["conversion"]["pedestal_runs"]["G1"]["frames"] == DARKS
        raw = [MODEL.raw(light * ENERGY, frame) for frame in range(4)]
        assert {int(code) for code in np.unique(raw[0] >> 14)} == {0, 1, 3}
        frames = take(consumer, 8, running, raw, first)
    finally:
        consumer.close()
    assert len(frames) == 8
    for header, image in frames:
        dim = light < 200
        np.testing.assert_array_equal(image[dim], light[dim])
        np.testing.assert_allclose(image[~dim], light[~dim], rtol=0.02)
        assert header.total == image.sum(dtype=np.int64)
        assert header.maximum == image.max()
    field = network.client.wait_for("receiver::pixels_without_value", samples=1)
    assert field.values[-1] == 0
    total = network.client.get("receiver::sum", start=-60)["receiver::sum"]
    assert total.values[-1] == frames[-1][0].total
    network.stop(running)

    again = start(network, tmp_path, output="keV", gain=str(gain))  # the pedestal is found again
    consumer = make_consumer(again.node.frames_address, name="test", reports=False)
    try:
        consumer.next(20.0)
        frames = take(consumer, 4, again, raw, 1, loss=0.1)
    finally:
        consumer.close()
    assert sum(header.packets_expected - header.packets_received for header, _ in frames) > 0
    for header, image in frames:
        assert image.dtype == np.float32
        lost = header.packets_expected - header.packets_received
        missing = np.isnan(image)
        assert missing.sum() == lost * 4096
        assert header.total == pytest.approx(image[~missing].sum(dtype=float), rel=1e-6)
        np.testing.assert_allclose(image[~missing], (light * ENERGY)[~missing], rtol=0.02, atol=3)


def test_raw_frames_stay_and_darks_can_be_taken(network, tmp_path):
    running = start(network, tmp_path)
    consumer = make_consumer(running.node.frames_address, name="test", reports=False)
    try:
        about = consumer.next(20.0).description
        assert (about.dtype, about.fill_value) == ("<u2", 65535)
        first = take_darks(network, running, ["G0"])
        images = [MODEL.dark("G1", frame) for frame in range(2)]
        frames = take(consumer, 2, running, images, first)
    finally:
        consumer.close()
    for header, image in frames:
        np.testing.assert_array_equal(image, images[header.number % 2])
    status = network.call("control.receiver.dark_status", user="control")
    assert status["taken"] == {"G0": DARKS}
    assert status["shares"]["G0"] > 0.999


def test_what_makes_no_sense_is_refused(network, tmp_path):
    running = start(network, tmp_path)
    for arguments, reason in (
        (("take_dark", "G7", 100), "not a gain stage"),
        (("take_dark", "G0", 3), "make no pedestal"),
        (("save_pedestal",), "no dark frame"),
        (("save_pedestal", "../../elsewhere.h5"), "no dark frame|no file name"),
    ):
        with pytest.raises(SisockdaqError, match=reason):
            network.call(f"control.receiver.{arguments[0]}", *arguments[1:], user="control")
    running.node.receiver.arm(Arm("run", 5))
    with pytest.raises(SisockdaqError, match="under way"):
        network.call("control.receiver.take_dark", "G0", 100, user="control")


def test_options_are_checked():
    with pytest.raises(ValidationError, match="needs gain"):
        ConversionOptions(output="keV")
    with pytest.raises(ValidationError, match="float32"):
        ConversionOptions(output="keV", gain="gains.h5", dtype="int32")
    with pytest.raises(ValidationError):
        ConversionOptions(pedestals="x")


def test_another_configuration_makes_the_conversion_anew(network, tmp_path, gain):
    """A moved module of the same size converts with the same maps; another size needs maps of its own."""
    running = start(network, tmp_path, output="photons", photon_energy=ENERGY, gain=str(gain))
    kept = network.state.path / "detector-receiver.json"
    first = take_darks(network, running)
    network.call("control.receiver.save_pedestal", user="control")
    part, receiver = running.node.jungfrau, running.node.receiver
    try:
        with pytest.raises(SisockdaqError, match=r"pedestal .* is of 1024×64 pixels, .* has 1024×128"):
            network.call("control.receiver.set_config", {"image_pixel_height": 128}, user="control")
        assert running.node.jungfrau is part
        assert running.node.receiver is receiver  # nothing was stopped for it

        upside_down = {"module_positions": {"0": [0, 63, 1023, 0]}}
        network.call("control.receiver.set_config", upside_down, user="control")
        assert running.node.jungfrau is not part
        light = photons()
        consumer = make_consumer(running.node.frames_address, name="test", reports=False)
        try:
            assert consumer.next(20.0).description.dtype == "<i4"
            detector = running.node.detector
            raw = [MODEL.raw(light * ENERGY, frame) for frame in range(2)]
            simulation = Simulation(detector, images=raw)
            consumer.request(Arm("run", 2))
            wait_until(lambda: running.node.receiver.acquisition()["acquisition"] == "run", 20, "the acquisition")
            targets = [("127.0.0.1", port) for port in running.node.ports]
            simulate(detector, targets, frames=2, rate=100, first_frame=first, simulation=simulation)
            frames = []
            while not isinstance(item := consumer.next(20.0), End):
                if hasattr(item, "pixels"):
                    with item as frame:
                        frames.append(frame.pixels.copy())
        finally:
            consumer.close()
        assert len(frames) == 2
        for image in frames:
            np.testing.assert_allclose(image, light, rtol=0.02)

        (tmp_path / "pedestal.h5").unlink()
        with pytest.raises(SisockdaqError, match="gain maps have the shape"):
            network.call("control.receiver.set_config", {"image_pixel_height": 128}, user="control")
        assert network.call("control.receiver.get_config", user="control")["image_pixel_height"] == 64
    finally:
        network.stop(running)
        kept.unlink(missing_ok=True)
