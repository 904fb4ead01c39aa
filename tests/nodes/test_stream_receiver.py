"""The Stream V2 receiver: a sender of the contract's words, real rings, writer and archive."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from pydantic import ValidationError
from sisockdaq.nodes.stream_receiver import StreamReceiver

from sisockdaq.errors import AcquisitionRefused, ConfigurationError
from sisockdaq.frames import NO_ACQUISITION, Arm, Attached, Detached, End, Settled, Start
from sisockdaq.testing.network import Network
from sisockdaq.testing.waiting import wait_until
from tests.sources.rig import consumer_of, frames_of, picture, record_to_archive, take
from tests.sources.sender import DATE, Sender, typed

SHAPE = (20, 30)
MASK = np.where(np.arange(600).reshape(SHAPE) % 97 == 3, np.uint32(2), np.uint32(0))
FLAT = np.linspace(0.9, 1.1, 600, dtype=np.float32).reshape(SHAPE)
LOOKUP = np.arange(64, dtype=np.uint32).reshape(2, 32)
"""What a detector tells of its pixels."""


def start(network: Network, sender: Sender, **options: Any) -> Any:
    return network.start(StreamReceiver, name="receiver", connect=sender.addresses, **options)


def counters(running: Any) -> dict[str, Any]:
    return running.node.pump.counters()


def seen(running: Any) -> int:
    counts = counters(running)
    return sum(counts["frames"].values()) + counts["duplicate"] + sum(counts["refused"].values())


def test_from_the_stream_to_the_archive(network: Network, tmp_path: Path) -> None:
    with Sender() as sender:
        start(network, sender, shape=SHAPE, dtype="uint16")

        def send() -> None:
            sender.start(1, SHAPE, "uint16", 12)
            for number in range(12):
                if number != 7:
                    sender.image(number, picture(number))
            sender.end()

        status = record_to_archive(network, "receiver", tmp_path, 12, send)
    assert status["acquisition_state"] == "FINISHED"
    assert status["frames_written"] == 11
    ledger = status["ledger"]
    assert ledger["frames_dropped"] == {"not_received": 1}
    assert (ledger["frames_expected"], ledger["frames_complete"]) == (12, 11)
    image = network.client.image("receiver::image", run="run_1", frame=8)
    np.testing.assert_array_equal(image.values, picture(8))
    totals = network.client.get("receiver::sum", start=DATE.timestamp() - 1, end=DATE.timestamp() + 2)["receiver::sum"]
    assert totals.values.tolist() == [float(picture(n).sum()) for n in range(12) if n != 7]
    np.testing.assert_allclose(totals.t, [DATE.timestamp() + n / 100 for n in range(12) if n != 7])


@pytest.mark.parametrize("master", ["legacy", "vds", "integrated"])
def test_facts_that_come_after_arming_are_in_the_file(network: Network, tmp_path: Path, master: str) -> None:
    with Sender() as sender:
        start(network, sender, shape=SHAPE, dtype="uint16")

        def send() -> None:
            tables = {"pixel_mask": MASK, "flatfield": FLAT, "countrate_correction_lookup_table": LOOKUP}
            told = {key: {"1": typed(value, "none")} for key, value in tables.items()}
            told["countrate_correction_lookup_table"] = typed(LOOKUP, "bslz4")
            facts = {"beam_center_x": 12.5, "count_time": 0.02, "detector_serial_number": "E-1"}
            sender.start(1, SHAPE, "uint16", 3, **facts, **told)
            for number in range(3):
                sender.image(number, picture(number))
            sender.end()

        status = record_to_archive(network, "receiver", tmp_path, 3, send, master=master, meta={"count_time": 0.5})
    assert status["acquisition_state"] == "FINISHED"
    with h5py.File(status["master"], locking=False) as file:
        instrument = file["entry/instrument"]
        assert instrument["beam/incident_energy"][()] == 12400.0
        assert instrument["detector/x_pixel_size"][()] == 75e-6
        assert instrument["detector/beam_center_x"][()] == 12.5
        assert instrument["detector/serial_number"][()] == b"E-1"
        assert instrument["detector/count_time"][()] == 0.5  # who starts an acquisition has the last word
        np.testing.assert_array_equal(instrument["detector/pixel_mask"], MASK)
        np.testing.assert_array_equal(instrument["detector/flatfield"], FLAT)
        found = instrument["detector/calibration/countrate_correction_lookup_table"]
        np.testing.assert_array_equal(found, LOOKUP)
    image = network.client.image("receiver::image", run="run_1", frame=2)
    np.testing.assert_array_equal(image.values, picture(2))


def test_an_open_ended_acquisition_ends_with_its_series(network: Network) -> None:
    with Sender() as sender:
        running = start(network, sender, shape=SHAPE, dtype="int32")
        consumer = consumer_of(running)
        try:
            assert isinstance(consumer.next(20.0), Attached)
            consumer.request(Arm("run_1"))
            assert isinstance(consumer.next(20.0), Start)
            sender.start(4, SHAPE, "int32", 5, error_value=-2147483648)
            for number, compression in enumerate(("bslz4", "none", "bslz4")):
                sender.image(number, picture(number, dtype="int32"), compression)
            sender.end()
            items = take(consumer, Settled)
        finally:
            consumer.close()
    assert [header.index for header, _ in frames_of(items)] == [0, 1, 2]
    for header, pixels in frames_of(items):
        np.testing.assert_array_equal(pixels, picture(header.number, dtype="int32"))
    described = [item for item in items if isinstance(item, Attached)]
    assert described[-1].description.meta["incident_energy"] == 12400.0
    end = next(item for item in items if isinstance(item, End))
    assert (end.reason, end.counts["frames_expected"]) == ("complete", 5)
    assert items[-1].ledger["frames_dropped"] == {"not_received": 2}


def test_the_ring_follows_the_images_that_come(network: Network) -> None:
    with Sender() as sender:
        running = start(network, sender)
        with pytest.raises(AcquisitionRefused, match="not known yet"):
            running.node.pump.arm(Arm("early", 1))
        sender.start(1, SHAPE, "uint16", 1)
        sender.image(0, picture(0))
        sender.end()
        wait_until(lambda: seen(running) == 1, 20, "the first image")
        consumer = consumer_of(running)
        try:
            assert consumer.next(20.0).description.shape == SHAPE
            sender.start(2, (8, 16), "uint32", 2)
            assert isinstance(consumer.next(20.0), Detached)
            attached = consumer.next(20.0)
            assert (attached.description.shape, np.dtype(attached.description.dtype)) == ((8, 16), np.uint32)
            sender.image(0, picture(1, (8, 16), "uint32"))
            with consumer.next(20.0) as frame:
                np.testing.assert_array_equal(frame.pixels, picture(1, (8, 16), "uint32"))
                assert frame.header.index == NO_ACQUISITION
            running.node.pump.arm(Arm("run", 1))
            sender.image(1, picture(2, (9, 16), "uint32"))  # not as announced
            sender.end()
            end = next(item for item in take(consumer, End) if isinstance(item, End))
        finally:
            consumer.close()
    assert end.counts["frames_dropped"] == {"wrong_shape": 1}
    assert counters(running)["frames"]["wrong_shape"] == 1


def test_what_is_wrong_with_messages_is_counted_by_kind(network: Network) -> None:
    with Sender() as sender:
        running = start(network, sender, shape=SHAPE, dtype="uint16", channel="1")
        sender.send(b"\xff\x00 not cbor")
        sender.send({"type": "news"})
        sender.start(1, SHAPE, "uint16", 9)
        sender.image(0, picture(0))
        sender.image(0, picture(0))
        sender.image(1, picture(1)[None], "none")
        whole = picture(2)
        sender.image(2, whole, data={"2": None})
        sender.image(3, whole, series_id=77)
        from tests.sources import sender as words

        payload = bytearray(words.bslz4(whole))
        payload[16:24] = b"\xff" * 8
        broken = words.cbor2.CBORTag(69, words.cbor2.CBORTag(56500, ["bslz4", 2, bytes(payload)]))
        sender.image(4, whole, data={"1": words.cbor2.CBORTag(40, [list(SHAPE), broken])})
        sender.end()
        sender.image(5, whole)
        wait_until(lambda: seen(running) == 9, 20, "all messages")
        counts = counters(running)
    assert counts["frames"] == {"published": 1, "ring_full": 0, "damaged": 1, "wrong_shape": 0}
    assert counts["duplicate"] == 1
    assert counts["refused"] == {"not_understood": 3, "not_an_image": 1, "stray": 2}


def test_several_sockets_bring_one_series_in_any_order(network: Network) -> None:
    with Sender(2) as sender:
        running = start(network, sender, shape=SHAPE, dtype="uint16", series_as_acquisitions=True)
        consumer = consumer_of(running)
        try:
            assert isinstance(consumer.next(20.0), Attached)
            sender.start(1, SHAPE, "uint16", 6)
            for number in (3, 4, 5):
                sender.image(number, picture(number), to=1)
            for number in (0, 1, 2):
                sender.image(number, picture(number), to=0)
            sender.end()
            items = take(consumer, Settled)
        finally:
            consumer.close()
    begun = next(item for item in items if isinstance(item, Start))
    assert (begun.acquisition, begun.frames) == ("series-1", 6)
    assert sorted(header.index for header, _ in frames_of(items)) == list(range(6))
    for header, pixels in frames_of(items):
        assert header.index == header.number
        np.testing.assert_array_equal(pixels, picture(header.number))
    assert items[-1].ledger["frames_complete"] == items[-1].ledger["frames_expected"] == 6


@pytest.mark.parametrize("how", ["a new start", "the sender goes"])
def test_a_series_without_its_end_fails_and_the_next_works(network: Network, how: str) -> None:
    with Sender() as sender:
        running = start(network, sender, shape=SHAPE, dtype="uint16")
        consumer = consumer_of(running)
        try:
            assert isinstance(consumer.next(20.0), Attached)
            running.node.pump.arm(Arm("run_1", 10))
            sender.start(1, SHAPE, "uint16", 10)
            sender.image(0, picture(0))
            wait_until(lambda: seen(running) == 1, 20, "the image")
            if how == "a new start":
                sender.start(2, SHAPE, "uint16", 1)
            else:
                sender.sockets[0].close(linger=0)
            end = next(item for item in take(consumer, End) if isinstance(item, End))
            assert end.reason == "failed"
            assert end.counts["frames_expected"] == 1
        finally:
            consumer.close()


def test_joining_within_a_series_takes_the_rest(network: Network) -> None:
    with Sender() as sender:
        sender.series = (3, "x")
        running = start(network, sender, shape=SHAPE, dtype="uint16")
        running.node.pump.arm(Arm("run_1", 2))
        sender.image(41, picture(41))
        sender.image(42, picture(42))
        wait_until(lambda: running.node.ledger().get("acquisition") == "run_1", 20, "the end")
        assert running.node.ledger()["frames_complete"] == 2


def test_how_it_fares_is_served(network: Network) -> None:
    with Sender() as sender:
        start(network, sender)
        sender.start(1, SHAPE, "uint16", 1)
        sender.image(0, picture(0))
        sender.image(0, picture(0))
        assert network.wait_for("receiver::frame_number") == [0]
        image = network.client.get("receiver::image", start=DATE.timestamp() - 1, end=DATE.timestamp() + 1)
        np.testing.assert_array_equal(image["receiver::image"].values[0], picture(0))

        def status() -> dict[str, Any]:
            return dict(network.call("control.receiver.status", user="control"))

        wait_until(lambda: status()["counters"]["duplicate"] == 1, 20, "the count")
        assert status()["state"] == "READY"
        assert status()["shape"] == list(SHAPE)
        wait_until(lambda: 1 in network.wait_for("receiver::frames_duplicate"), 20, "the count on the network")


def test_options_are_checked(network: Network) -> None:
    with pytest.raises(ValidationError):
        StreamReceiver.Options(connect=[])
    with pytest.raises(ValidationError, match="type of pixels"):
        StreamReceiver.Options(connect=["tcp://x:1"], dtype="words")
    with pytest.raises(ConfigurationError, match="go together"):
        network.start(StreamReceiver, name="receiver", connect=["tcp://127.0.0.1:1"], shape=(1, 2))
