"""The bsread receiver: messages of the contract's words, a real router, writer and archive."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq
from pydantic import ValidationError
from sisockdaq.nodes.bsread_receiver import BsreadReceiver

from sisockdaq.frames import Arm
from sisockdaq.testing.network import Network
from sisockdaq.testing.waiting import wait_until
from tests.sources.rig import consumer_of, picture, record_to_archive
from tests.sources.sender import bslz4

SHAPE = (20, 30)
BEGIN = 1_790_000_000


class Camera:
    """A bsread sender: multipart messages, one a pulse."""

    def __init__(self, kind: int = zmq.PUSH) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(kind)
        self.socket.setsockopt(zmq.SNDTIMEO, 20_000)
        self.address = f"tcp://127.0.0.1:{self.socket.bind_to_random_port('tcp://127.0.0.1')}"

    def pulse(self, number: int, channels: list[tuple[dict[str, Any], bytes]], **main: Any) -> list[bytes]:
        head = json.dumps({"htype": "bsr_d-1.1", "channels": [entry for entry, _ in channels]}).encode()
        stamp = {"sec": BEGIN + number // 100, "ns": number % 100 * 10_000_000}
        first = {
            "htype": "bsr_m-1.1", "pulse_id": number, "global_timestamp": stamp,
            "hash": hashlib.md5(head).hexdigest(), **main,
        }  # fmt: skip
        parts = [json.dumps(first).encode(), head]
        for _, data in channels:
            parts += [data, np.array([BEGIN, 0], "<i8").tobytes()]
        return parts

    def send(self, parts: list[bytes]) -> None:
        self.socket.send_multipart(parts)

    def close(self) -> None:
        self.socket.close(linger=0)
        self.context.destroy(linger=0)


@pytest.fixture
def camera():
    made = Camera()
    yield made
    made.close()


def image(pixels: np.ndarray, name: str = "CAM:FPICTURE", packed: bool = True) -> tuple[dict[str, Any], bytes]:
    entry = {
        "name": name, "shape": [pixels.shape[1], pixels.shape[0]], "type": pixels.dtype.name, "encoding": "little",
        "compression": "bitshuffle_lz4" if packed else "none",
    }  # fmt: skip
    return entry, bslz4(pixels) if packed else pixels.tobytes()


def scalar(name: str, value: float) -> tuple[dict[str, Any], bytes]:
    return {"name": name, "shape": [1], "type": "float64"}, np.float64(value).tobytes()


def start(network: Network, camera: Camera, **options: Any) -> Any:
    return network.start(BsreadReceiver, name="camera", connect=[camera.address], **options)


def test_from_pulses_to_the_archive(network: Network, camera: Camera, tmp_path: Path) -> None:
    start(network, camera, shape=SHAPE, dtype="uint16")

    def send() -> None:
        for number in range(10):
            pulse = 1000 + 8 * number  # every eighth pulse
            camera.send(camera.pulse(pulse, [scalar("GAS:PRESSURE", number / 2), image(picture(number))]))

    status = record_to_archive(network, "camera", tmp_path, 10, send)
    assert status["frames_written"] == 10
    assert status["ledger"]["frames_complete"] == status["ledger"]["frames_expected"] == 10
    stored = network.client.image("camera::image", run="run_1", frame=4)
    np.testing.assert_array_equal(stored.values, picture(4))
    begin, end = BEGIN + 9, BEGIN + 12
    pressure = network.client.get("camera::GAS:PRESSURE", start=begin, end=end)["camera::GAS:PRESSURE"]
    assert pressure.values.tolist() == [number / 2 for number in range(10)]
    np.testing.assert_allclose(pressure.t, [BEGIN + (1000 + 8 * n) / 100 for n in range(10)])
    numbers = network.client.get("camera::frame_number", start=begin, end=end)["camera::frame_number"]
    assert numbers.values.tolist() == [1000 + 8 * number for number in range(10)]


def test_all_kinds_of_channels_become_fields(network: Network, camera: Camera) -> None:
    running = start(network, camera, image="CAM:2")
    big = {"name": "BIG", "shape": [3], "type": "int32", "encoding": "big"}
    channels = [
        image(picture(1), "CAM:1"),
        image(picture(2, (4, 6), "int32"), "CAM:2", packed=False),
        ({"name": "TEXT", "type": "string"}, "läuft".encode()),
        ({"name": "ON", "type": "bool"}, b"\1"),
        ({"name": "COUNT", "type": "uint64", "shape": [1]}, (2**40).to_bytes(8, "little")),
        (big, np.array([1, -2, 3], ">i4").tobytes()),
        ({"name": "NONE"}, b""),
    ]
    camera.send(camera.pulse(5, channels))
    wait_until(lambda: running.node.pump.counters()["frames"]["published"] == 1, 20, "the frame")
    consumer = consumer_of(running)
    try:
        assert consumer.next(20.0).description.shape == (4, 6)
        camera.send(camera.pulse(6, channels))
        with consumer.next(20.0) as frame:
            np.testing.assert_array_equal(frame.pixels, picture(2, (4, 6), "int32"))
    finally:
        consumer.close()
    assert network.wait_for("camera::TEXT")[0] == "läuft"
    assert network.wait_for("camera::ON")[0] is True
    assert network.wait_for("camera::COUNT")[0] == 2**40
    period = {"start": BEGIN - 1, "end": BEGIN + 1}
    got = network.client.get("camera::BIG", "camera::CAM:1", **period)
    assert got["camera::BIG"].values.tolist() == [[1, -2, 3]] * 2
    np.testing.assert_array_equal(got["camera::CAM:1"].values[0], picture(1))
    assert "NONE" not in {entry.name for entry in network.client.fields("camera")}


def test_what_is_wrong_with_messages_is_counted_by_kind(network: Network, camera: Camera) -> None:
    running = start(network, camera, shape=SHAPE, dtype="uint16", channels=["A"])
    good = camera.pulse(1, [image(picture(1)), scalar("A", 1.0), scalar("B", 1.0)])
    wrong = [
        [b"{", *good[1:]],
        camera.pulse(2, [scalar("A", 2.0)], htype="bsr_m-2.0"),
        camera.pulse(2, [scalar("A", 2.0)], hash="0" * 32),
        camera.pulse(2, [scalar("A", 2.0)], pulse_id="two"),
        camera.pulse(2, [scalar("A", 2.0)], global_timestamp=None),
        good[:-2],
        good[:1],
        camera.pulse(2, [({"name": "A", "shape": [2]}, bytes(15))]),
        camera.pulse(2, [({"name": "A", "compression": "zip"}, bytes(8))]),
        camera.pulse(2, [({"name": "A", "type": "complex"}, bytes(8))]),
        camera.pulse(2, [({"name": "A", "shape": [-1]}, bytes(8))]),
    ]
    damaged = image(picture(3))[0], image(picture(3))[1][:40]
    for parts in [*wrong, camera.pulse(3, [damaged]), good]:
        camera.send(parts)
    wait_until(lambda: running.node.pump.counters()["frames"]["published"] == 1, 20, "the good one")
    counts = running.node.pump.counters()
    assert counts["refused"] == {"not_understood": 4, "version": 1, "hash": 1, "parts": 2, "channel": 3}
    assert counts["frames"]["damaged"] == 1
    assert "B" not in {entry.name for entry in network.client.fields("camera")}


def test_senders_that_publish_are_heard_too(network: Network) -> None:
    camera = Camera(zmq.PUB)
    try:
        running = start(network, camera, mode="sub", shape=SHAPE, dtype="uint16")
        running.node.pump.arm(Arm("run_1", 3))
        number = 0

        def enough() -> bool:
            nonlocal number
            number += 1
            camera.send(camera.pulse(number, [image(picture(number))]))
            return running.node.ledger().get("acquisition") == "run_1"

        wait_until(enough, 20, "three pulses")
        assert running.node.ledger()["frames_complete"] == 3
    finally:
        camera.close()


def test_options_are_checked() -> None:
    with pytest.raises(ValidationError):
        BsreadReceiver.Options(connect=["tcp://x:1"], mode="push")
