"""Stream V2 over ZeroMQ keeps what the contract asks of a back end without a way back, and speaks with others."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cbor2
import numpy as np
import pytest
import zmq
from cbor2 import CBORTag

from sisockdaq.errors import FrameSourceError, PortTaken
from sisockdaq.frames import (
    Arm,
    Attached,
    Consumer,
    Description,
    Detached,
    End,
    Ledger,
    Producer,
    Report,
    Settled,
    Start,
    make_consumer,
    make_producer,
    parse_policy,
)
from sisockdaq.frames.memory import MemoryBus
from sisockdaq.frames.stream2_bus import Stream2Consumer, Stream2Output, Stream2Producer
from tests.frames.bus_contract import (
    DESCRIPTION,
    SOON,
    BusContract,
    Plane,
    attach,
    end,
    frame,
    put,
    settled,
    start,
    take,
    until,
)


class StreamPlane:
    has_back_channel = False

    def __init__(self, folder: Path, compression: str = "bslz4") -> None:
        self.path = folder / "stream.sock"
        self.address = f"stream2://{self.path}"
        self.compression = compression
        self.made: list[Producer | Consumer] = []

    def producer(self, description: Description, slots: int, **options: Any) -> Producer:
        options = {"patience": SOON, "compression": self.compression} | options
        producer = make_producer(self.address, description, slots=slots, **options)
        self.made.append(producer)
        return producer

    def consumer(self, name: str, policy: str, **options: Any) -> Consumer:
        consumer = make_consumer(self.address, name=name, policy=policy, **options)
        self.made.append(consumer)
        return consumer


@pytest.fixture(params=["bslz4", "none"])
def stream(request: pytest.FixtureRequest) -> Iterator[StreamPlane]:
    with tempfile.TemporaryDirectory(prefix="stream-") as folder:
        plane = StreamPlane(Path(folder), request.param)
        yield plane
        for made in reversed(plane.made):  # consumers first: a producer waits a moment for those that pull
            made.close()


class TestStream2(BusContract):
    @pytest.fixture
    def plane(self, stream: StreamPlane) -> Plane:
        return stream


@pytest.fixture
def foreign() -> Iterator[zmq.Socket[bytes]]:
    """A sender that is not ours: a bare PUSH socket."""
    context = zmq.Context()
    push = context.socket(zmq.PUSH)
    push.bind("tcp://127.0.0.1:*")
    yield push
    context.destroy(linger=0)


def endpoint(push: zmq.Socket[bytes]) -> str:
    address = push.getsockopt(zmq.LAST_ENDPOINT)
    assert isinstance(address, bytes)
    return address.decode().rstrip("\0")


@pytest.fixture
def listener(foreign: zmq.Socket[bytes]) -> Iterator[Stream2Consumer]:
    consumer = Stream2Consumer(endpoint(foreign), "writer", parse_policy("lossless"))
    yield consumer
    consumer.close()


PIXELS = np.arange(12, dtype="<u4").reshape(3, 4)
SERIES = {"series_id": 7, "series_unique_id": "01GE0"}
DATE = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)


def send(push: zmq.Socket[bytes], kind: str, **fields: Any) -> None:
    push.send(cbor2.dumps({"type": kind, **SERIES, **fields}))


def send_image(push: zmq.Socket[bytes], number: int, **fields: Any) -> None:
    data = {"threshold_1": CBORTag(40, [[3, 4], CBORTag(70, (PIXELS + number).tobytes())])}
    send(push, "image", image_id=number, data=data, **fields)


def test_a_detectors_series(foreign: zmq.Socket[bytes], listener: Stream2Consumer) -> None:
    send(foreign, "start", image_size_x=4, image_size_y=3, image_dtype="uint32", number_of_images=3, count_time=0.5)
    for number in (0, 1, 1, 2):
        send_image(
            foreign, number, series_date=DATE, start_time=[number, 4], stop_time=[number + 1, 4], real_time=[1, 4]
        )
    send(foreign, "end")
    attached = listener.next(SOON)
    assert isinstance(attached, Attached)
    assert (attached.description.shape, attached.description.dtype) == ((3, 4), "uint32")
    mark = listener.next(SOON)
    assert isinstance(mark, Start)
    assert (mark.acquisition, mark.frames, mark.meta["count_time"]) == ("01GE0", 3, 0.5)
    for number in range(3):
        with frame(listener.next(SOON)) as borrowed:
            assert (borrowed.header.number, borrowed.header.index) == (number, number)
            assert borrowed.header.time == DATE.timestamp() + number / 4
            assert borrowed.header.last == DATE.timestamp() + (number + 1) / 4
            np.testing.assert_array_equal(borrowed.pixels, PIXELS + number)
    assert isinstance(listener.next(SOON), End)
    listener.request(Report("01GE0", {"frames_written": 3}))
    ledger = settled(listener)
    assert ledger.balance() == []
    assert (ledger.frames_expected, ledger.frames_complete, ledger.consumers["writer"].taken) == (3, 3, 3)
    assert listener.status()["duplicates"] == 1


def test_images_that_did_not_come_are_named(foreign: zmq.Socket[bytes], listener: Stream2Consumer) -> None:
    send(foreign, "start", image_size_x=4, image_size_y=3, image_dtype="uint32", number_of_images=5)
    for number in (0, 3):
        send_image(foreign, number)
    foreign.send(b"\xa1nonsense")
    send(foreign, "end")
    attach_and_start(listener)
    for number in (0, 3):
        with frame(listener.next(SOON)) as borrowed:
            assert borrowed.header.index == number
    assert isinstance(listener.next(SOON), End)
    listener.request(Report("01GE0", {}))
    ledger = settled(listener)
    assert ledger.balance() == []
    assert ledger.frames_dropped == {"not_received": 3}
    assert listener.status()["refused"] == 1


def attach_and_start(consumer: Consumer) -> None:
    assert isinstance(consumer.next(SOON), Attached)
    assert isinstance(consumer.next(SOON), Start)


def test_a_lost_end_ends_with_the_next_series(foreign: zmq.Socket[bytes], listener: Stream2Consumer) -> None:
    size = {"image_size_x": 4, "image_size_y": 3, "image_dtype": "uint32"}
    send(foreign, "start", number_of_images=2, **size)
    send_image(foreign, 0)
    foreign.send(cbor2.dumps({"type": "start", "series_id": 8, "series_unique_id": "next", **size}))
    attach_and_start(listener)
    with frame(listener.next(SOON)):
        pass
    mark = listener.next(SOON)
    assert isinstance(mark, End)
    assert mark.reason == "failed"
    second = [listener.next(SOON), listener.next(SOON)]
    assert any(isinstance(mark, Start) and mark.acquisition == "next" for mark in second)


def test_images_of_another_shape_are_refused(foreign: zmq.Socket[bytes], listener: Stream2Consumer) -> None:
    send(foreign, "start", image_size_x=5, image_size_y=3, image_dtype="uint32")
    send_image(foreign, 0)
    send(foreign, "end")
    attach_and_start(listener)
    assert isinstance(listener.next(SOON), End)
    assert listener.status()["refused"] == 1


def test_a_start_that_tells_nothing_is_completed_by_the_first_image(
    foreign: zmq.Socket[bytes], listener: Stream2Consumer
) -> None:
    send(foreign, "start")
    assert isinstance(listener.next(SOON), Start)
    send_image(foreign, 0)
    attached = listener.next(SOON)
    assert isinstance(attached, Attached)
    assert (attached.description.shape, attached.description.dtype) == ((3, 4), "uint32")
    with frame(listener.next(SOON)) as borrowed:
        assert borrowed.header.index == 0


def test_a_damaged_image_is_refused_on_arrival(foreign: zmq.Socket[bytes], listener: Stream2Consumer) -> None:
    send(foreign, "start", image_size_x=4, image_size_y=3, image_dtype="uint32", number_of_images=1)
    damaged = CBORTag(56500, ["bslz4", 4, (48).to_bytes(8, "big") + (8192).to_bytes(4, "big") + b"\0\0\0\x05abcde"])
    send(foreign, "image", image_id=0, data={"threshold_1": CBORTag(40, [[3, 4], CBORTag(70, damaged)])})
    send(foreign, "end")
    attach_and_start(listener)
    assert isinstance(listener.next(SOON), End)
    listener.request(Report("01GE0", {}))
    ledger = settled(listener)
    assert ledger.balance() == []
    assert ledger.frames_dropped == {"not_received": 1}
    assert listener.status()["refused"] == 1


def test_the_loss_of_the_sender_is_told(foreign: zmq.Socket[bytes], listener: Stream2Consumer) -> None:
    send(foreign, "start", image_size_x=4, image_size_y=3, image_dtype="uint32")
    attach_and_start(listener)
    foreign.close(linger=0)
    mark = listener.next(SOON)
    assert isinstance(mark, End)
    assert mark.reason == "failed"
    listener.request(Report("01GE0", {}))
    assert {type(listener.next(SOON)), type(listener.next(SOON))} == {Detached, Settled}


def test_a_stream_cannot_be_armed(listener: Stream2Consumer) -> None:
    with pytest.raises(FrameSourceError, match="no way back"):
        listener.request(Arm("run"))


@pytest.mark.parametrize(("policy", "indices"), [("latest", [5]), ("every: 2", [0, 2, 4])])
def test_policies_are_kept_at_the_receiver(foreign: zmq.Socket[bytes], policy: str, indices: list[int]) -> None:
    consumer = Stream2Consumer(endpoint(foreign), "viewer", parse_policy(policy))
    send(foreign, "start", image_size_x=4, image_size_y=3, image_dtype="uint32")
    for number in range(6):
        send_image(foreign, number)
    send(foreign, "end")
    seen = []
    while not isinstance(item := consumer.next(SOON), End):
        if not isinstance(item, Attached | Start):
            with frame(item) as borrowed:
                seen.append(borrowed.header.index)
    consumer.request(Report("01GE0", {}))
    ledger = settled(consumer)
    assert ledger.balance() == []
    assert seen[-1] == indices[-1]
    if policy != "latest":  # how many a viewer gets depends on the network; that it gets the last does not
        assert seen == indices
    consumer.close()


# ---- our own sender --------------------------------------------------------------------------------------------------


def test_without_a_receiver_images_are_dropped_and_counted(tmp_path: Path) -> None:
    producer = Stream2Producer("tcp://127.0.0.1:*", DESCRIPTION, 4, patience=0.0)
    start(producer)
    for index in range(3):
        put(producer, index)
    end(producer, 3)
    until(lambda: producer.status()["consumers"]["stream2"]["dropped"] == 3, "three dropped images")
    assert producer.status()["slots_free"] == 4
    producer.close()


def test_a_taken_port_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(PortTaken, match=address):
            Stream2Producer(address, DESCRIPTION, 4)
    with pytest.raises(FrameSourceError, match="cannot bind"):
        Stream2Producer("tcp://no such host:1", DESCRIPTION, 4)


def test_a_ring_goes_on_as_a_stream(stream: StreamPlane) -> None:
    bus = MemoryBus(DESCRIPTION, 8)
    watcher = bus.consumer("watcher", parse_policy("lossless"))
    attach(bus.producer, watcher)
    output = Stream2Output(
        bus.consumer("stream2", parse_policy("lossless")),
        f"ipc://{stream.path}",
        DESCRIPTION,
        patience=SOON,
        compression=stream.compression,
    )
    far = stream.consumer("far", "lossless")
    until(lambda: len(bus.producer.status()["consumers"]) == 2, "the output attached")
    start(bus.producer, "run", 4)
    for index in range(4):
        put(bus.producer, index)
    end(bus.producer, 4)
    attach_and_start(far)
    assert [take(far) for _ in range(4)] == [0, 1, 2, 3]
    mark = far.next(SOON)
    assert isinstance(mark, End)
    assert mark.counts["frames_complete"] == 4
    far.request(Report("run", {"frames_written": 4}))
    assert settled(far).balance() == []
    watcher.next(SOON)
    for _ in range(4):
        take(watcher)
    watcher.next(SOON)
    watcher.request(Report("run", {}))
    ledger = settled(watcher)
    assert isinstance(ledger, Ledger)
    assert ledger.balance() == []
    assert (ledger.consumers["stream2"].taken, ledger.consumers["stream2"].counts) == (4, {"images_sent": 4})
    output.close()
