"""What every back end of the frame plane must do; `test_bus_*.py` run this suite against each.

A back end brings a `Plane`: how to make the two ends. One without a way back to its source (a stream) keeps
`BusContract`, all others keep `BackChannelContract` as well.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import pytest

from sisockdaq.errors import FrameSourceError
from sisockdaq.frames import (
    Arm,
    Attached,
    BorrowedFrame,
    Consumer,
    Description,
    Detached,
    End,
    FrameHeader,
    Ledger,
    Mark,
    Producer,
    Report,
    Request,
    Settled,
    Start,
    Stop,
    unreceived,
)

SOON = 10.0
"""Deadline for everything that must happen [s]."""

SHAPE, PACKETS = (6, 8), 20
DESCRIPTION = Description("rx", "image", SHAPE, "<u2", PACKETS, 65535, {"model": "jungfrau"})


class Plane(Protocol):
    """The two ends of a back end under test; everything made is closed by the fixture."""

    has_back_channel: bool
    """The source knows its consumers; without, they only see what is published once they are connected."""

    def producer(self, description: Description, slots: int, **options: Any) -> Producer: ...

    def consumer(self, name: str, policy: str, **options: Any) -> Consumer: ...


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition that another thread or process brings about."""
    deadline = time.monotonic() + SOON
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"not in time: {what}"
        pause.wait(0.005)


def attach(producer: Producer, *consumers: Consumer) -> None:
    """Bring consumers in, up to and with their `Attached` mark."""
    for consumer in consumers:
        assert isinstance(consumer.next(SOON), Attached)


def header(index: int, *, number: int | None = None, received: int = PACKETS) -> FrameHeader:
    start = 1.7e9 + index / 3.0
    return FrameHeader(
        1000 + index if number is None else number, start, start + 0.001, index, PACKETS, received, 1.5 * index, 7.0, 42
    )


def put(producer: Producer, index: int, **options: Any) -> FrameHeader:
    """Publish a frame whose pixels tell its index."""
    slot = producer.acquire()
    assert slot is not None, "no free slot"
    producer.pixels[slot] = index
    producer.packet_masks[slot] = 255
    published = header(index, **options)
    producer.publish(slot, published)
    return published


def start(producer: Producer, name: str = "run", frames: int | None = None, **meta: Any) -> None:
    producer.start(Start(name, frames, meta))


def end(producer: Producer, frames: int, name: str = "run", deadline: float = SOON) -> None:
    counts = {"frames_expected": frames, "frames_complete": frames}
    producer.end(End(name, "complete", counts), deadline)


def frame(item: Mark | BorrowedFrame | None) -> BorrowedFrame:
    assert item is not None, "nothing came"
    assert not isinstance(item, Start | End | Settled | Attached | Detached), f"a mark came: {item}"
    return item


def take(consumer: Consumer, *, used: bool = True) -> int:
    """Take the next frame, which must come, and return its index."""
    borrowed = frame(consumer.next(SOON))
    index = borrowed.header.index
    assert int(borrowed.pixels[0, 0]) == index % 65536
    borrowed.release(used=used)
    return index


def settled(consumer: Consumer) -> Ledger:
    mark = consumer.next(SOON)
    assert isinstance(mark, Settled)
    return Ledger.from_dict(mark.ledger)


class BusContract:
    """The suite; a back end's test class inherits it and provides the fixture ``plane``."""

    @pytest.fixture
    def plane(self) -> Plane:
        raise NotImplementedError

    # ---- frames and marks ----------------------------------------------------------------------------------------

    def test_a_consumer_sees_an_acquisition_in_order(self, plane: Plane) -> None:
        producer, consumer = plane.producer(DESCRIPTION, 8), plane.consumer("writer", "lossless")
        if plane.has_back_channel:
            attach(producer, consumer)
        start(producer, "run", 3, sample="silver behenate")
        published = [put(producer, index) for index in range(3)]
        end(producer, 3)
        if not plane.has_back_channel:
            attach(producer, consumer)
        assert consumer.next(SOON) == Start("run", 3, {"sample": "silver behenate"})
        for index in range(3):
            with frame(consumer.next(SOON)) as borrowed:
                assert borrowed.header == published[index]
                assert borrowed.header.complete
                np.testing.assert_array_equal(borrowed.pixels, np.full(SHAPE, index))
                assert borrowed.pixels.dtype == np.dtype("<u2")
                assert borrowed.valid()
        mark = consumer.next(SOON)
        assert isinstance(mark, End)
        assert (mark.acquisition, mark.reason) == ("run", "complete")
        assert mark.counts["frames_complete"] == 3

    def test_the_description_comes_first(self, plane: Plane) -> None:
        producer, consumer = plane.producer(DESCRIPTION, 4), plane.consumer("writer", "lossless")
        if not plane.has_back_channel:
            start(producer)
        mark = consumer.next(SOON)
        assert isinstance(mark, Attached)
        assert mark.description == DESCRIPTION

    def test_a_partial_frame_carries_its_packet_mask(self, plane: Plane) -> None:
        producer, consumer = plane.producer(DESCRIPTION, 4), plane.consumer("writer", "lossless")
        if plane.has_back_channel:
            attach(producer, consumer)
        start(producer)
        slot = producer.acquire()
        assert slot is not None
        producer.packet_masks[slot] = [0b11111110, 0b11111111, 0b0111]
        producer.publish(slot, header(0, received=PACKETS - 2))
        if not plane.has_back_channel:
            attach(producer, consumer)
        assert isinstance(consumer.next(SOON), Start)
        borrowed = frame(consumer.next(SOON))
        assert not borrowed.header.complete
        assert unreceived(borrowed.packet_mask, PACKETS).tolist() == [0, 19]
        borrowed.release()

    def test_numbers_of_numpy_travel(self, plane: Plane) -> None:
        producer, consumer = plane.producer(DESCRIPTION, 4), plane.consumer("writer", "lossless")
        if plane.has_back_channel:
            attach(producer, consumer)
        start(producer, "run", 1, wavelength=np.float64(1.25))
        slot = producer.acquire()
        assert slot is not None
        producer.publish(
            slot,
            FrameHeader(np.uint64(7), np.float64(1.5), np.float64(1.5), np.int64(0), total=np.float32(2.5)),  # type: ignore[arg-type]
        )
        end(producer, np.int64(1))  # type: ignore[arg-type]
        if not plane.has_back_channel:
            attach(producer, consumer)
        assert consumer.next(SOON) == Start("run", 1, {"wavelength": 1.25})
        with frame(consumer.next(SOON)) as borrowed:
            assert (borrowed.header.number, borrowed.header.time, borrowed.header.total) == (7, 1.5, 2.5)
        mark = consumer.next(SOON)
        assert isinstance(mark, End)
        assert mark.counts["frames_complete"] == 1

    def test_pixels_are_read_only(self, plane: Plane) -> None:
        producer, consumer = plane.producer(DESCRIPTION, 4), plane.consumer("writer", "lossless")
        if plane.has_back_channel:
            attach(producer, consumer)
        start(producer)
        put(producer, 0)
        if not plane.has_back_channel:
            attach(producer, consumer)
        consumer.next(SOON)
        with frame(consumer.next(SOON)) as borrowed, pytest.raises(ValueError, match="read-only"):
            borrowed.pixels[0, 0] = 1

    def test_next_returns_none_after_its_timeout(self, plane: Plane) -> None:
        consumer = plane.consumer("writer", "lossless")
        before = time.monotonic()
        assert consumer.next(0.05) is None
        assert time.monotonic() - before < 2.0
        attach(plane.producer(DESCRIPTION, 4), *([consumer] if plane.has_back_channel else []))
        assert consumer.next(0.05) is None

    def test_every_header_value_arrives_bit_for_bit(self, plane: Plane) -> None:
        producer, consumer = plane.producer(DESCRIPTION, 4), plane.consumer("writer", "lossless")
        if plane.has_back_channel:
            attach(producer, consumer)
        start(producer)
        sent = FrameHeader(2**63 + 5, 1.1, 0.1 + 0.2, 0, 20, 19, 1e300, -0.5, 2**64 - 1)
        slot = producer.acquire()
        assert slot is not None
        producer.publish(slot, replace(sent))
        if not plane.has_back_channel:
            attach(producer, consumer)
        consumer.next(SOON)
        with frame(consumer.next(SOON)) as borrowed:
            assert borrowed.header == replace(sent, sequence=borrowed.header.sequence)

    def test_frames_are_released_in_other_threads(self, plane: Plane) -> None:
        producer, consumer = plane.producer(DESCRIPTION, 4), plane.consumer("writer", "lossless")
        if plane.has_back_channel:
            attach(producer, consumer)
        start(producer)
        for index in range(4):
            put(producer, index)
        if not plane.has_back_channel:
            attach(producer, consumer)
        consumer.next(SOON)
        for _ in range(4):
            borrowed = frame(consumer.next(SOON))
            thread = threading.Thread(target=borrowed.release)
            thread.start()
            thread.join(SOON)
        until(lambda: producer.status()["slots_free"] == 4, "all slots free")

    def test_a_discarded_slot_is_free_again(self, plane: Plane) -> None:
        producer = plane.producer(DESCRIPTION, 2)
        first, second = producer.acquire(), producer.acquire()
        assert first is not None
        assert second is not None
        assert producer.acquire() is None
        producer.discard(first)
        assert producer.acquire() == first

    def test_the_end_of_the_source_is_told_and_its_return(self, plane: Plane) -> None:
        producer, consumer = plane.producer(DESCRIPTION, 4), plane.consumer("writer", "lossless")
        start(producer, "first")
        put(producer, 0)
        attached = consumer.next(SOON)
        assert isinstance(attached, Attached)
        producer.close()
        while not isinstance(mark := consumer.next(SOON), Detached):
            assert mark is not None, "the end of the source was not told"
        again = plane.producer(DESCRIPTION, 4)
        if not plane.has_back_channel:
            start(again, "second")
        back = consumer.next(SOON)
        assert isinstance(back, Attached)
        assert back.epoch != attached.epoch

    def test_a_request_without_a_source_is_refused(self, plane: Plane) -> None:
        with pytest.raises(FrameSourceError):
            plane.consumer("writer", "lossless").request(Arm("run"))

    def test_a_second_start_is_a_mistake(self, plane: Plane) -> None:
        producer = plane.producer(DESCRIPTION, 4)
        start(producer, "one")
        with pytest.raises(ValueError, match="under way"):
            start(producer, "two")
        with pytest.raises(ValueError, match="not under way"):
            end(producer, 0, "two")


class BackChannelContract(BusContract):
    """What a back end with a way back to its source must do besides: hold slots, keep policies and the ledger."""

    # ---- policies ------------------------------------------------------------------------------------------------

    def test_lossless_holds_its_slots(self, plane: Plane) -> None:
        producer, consumer = (
            plane.producer(DESCRIPTION, 3),
            plane.consumer("writer", "lossless"),
        )
        attach(producer, consumer)
        for index in range(3):
            put(producer, index)
        assert producer.acquire() is None
        assert producer.status()["slots_free"] == 0
        borrowed = frame(consumer.next(SOON))
        assert producer.acquire() is None
        assert borrowed.valid()
        borrowed.release()
        put(producer, 3)
        assert [take(consumer) for _ in range(3)] == [1, 2, 3]

    def test_slots_come_back_in_any_order(self, plane: Plane) -> None:
        producer, consumer = (
            plane.producer(DESCRIPTION, 3),
            plane.consumer("writer", "lossless"),
        )
        attach(producer, consumer)
        for index in range(3):
            put(producer, index)
        borrowed = [frame(consumer.next(SOON)) for _ in range(3)]
        borrowed[1].release()
        put(producer, 3)
        assert producer.acquire() is None
        np.testing.assert_array_equal(borrowed[0].pixels, np.full(SHAPE, 0))
        np.testing.assert_array_equal(borrowed[2].pixels, np.full(SHAPE, 2))
        for kept in (borrowed[0], borrowed[2]):
            kept.release()

    def test_a_slot_waits_for_every_lossless_consumer(self, plane: Plane) -> None:
        producer = plane.producer(DESCRIPTION, 2)
        one, two = plane.consumer("one", "lossless"), plane.consumer("two", "lossless")
        attach(producer, one, two)
        put(producer, 0)
        put(producer, 1)
        assert [take(one), take(one)] == [0, 1]
        assert producer.acquire() is None
        assert take(two) == 0
        put(producer, 2)
        assert producer.acquire() is None

    @pytest.mark.parametrize("policy", ["latest", "every: 2"])
    def test_the_others_never_hold_the_ring(self, plane: Plane, policy: str) -> None:
        producer, consumer = plane.producer(DESCRIPTION, 2), plane.consumer("viewer", policy)
        attach(producer, consumer)
        put(producer, 0)
        borrowed = frame(consumer.next(SOON))
        assert borrowed.valid()
        for index in range(1, 100):
            put(producer, index)
        assert not borrowed.valid()
        borrowed.release(used=False)
        assert frame(consumer.next(SOON)).header.index >= 97

    def test_latest_takes_the_newest_but_passes_no_mark(self, plane: Plane) -> None:
        producer, consumer = plane.producer(DESCRIPTION, 16), plane.consumer("viewer", "latest")
        attach(producer, consumer)
        start(producer)
        for index in range(5):
            put(producer, index)
        end(producer, 5)
        for index in range(5, 8):
            put(producer, index)
        assert isinstance(consumer.next(SOON), Start)
        assert take(consumer) == 4
        assert isinstance(consumer.next(SOON), End)
        assert take(consumer) == 7
        assert consumer.next(0.02) is None

    def test_every_takes_each_nth(self, plane: Plane) -> None:
        producer, consumer = (
            plane.producer(DESCRIPTION, 16),
            plane.consumer("viewer", "every: 3"),
        )
        attach(producer, consumer)
        for index in range(10):
            put(producer, index)
        assert [take(consumer) for _ in range(4)] == [0, 3, 6, 9]
        assert consumer.next(0.02) is None

    # ---- requests and the ledger ---------------------------------------------------------------------------------

    def test_requests_reach_the_source(self, plane: Plane) -> None:
        producer, consumer = (
            plane.producer(DESCRIPTION, 4),
            plane.consumer("writer", "lossless"),
        )
        asked: list[tuple[str, Request]] = []
        producer.on_request(lambda name, request: asked.append((name, request)))
        attach(producer, consumer)
        consumer.request(Arm("run", 10, {"note": "µ"}))
        consumer.request(Stop("run", "failed"))
        until(lambda: len(asked) == 2, "both requests")
        assert asked == [("writer", Arm("run", 10, {"note": "µ"})), ("writer", Stop("run", "failed"))]

    def test_the_ledger_settles_when_all_have_reported(self, plane: Plane) -> None:
        producer = plane.producer(DESCRIPTION, 8)
        writer, integrator = (plane.consumer(name, "lossless") for name in ("writer", "integrator"))
        attach(producer, writer, integrator)
        start(producer, "run", 4)
        for index in range(4):
            put(producer, index)
        end(producer, 4)
        for consumer, counter in ((writer, "frames_written"), (integrator, "frames_integrated")):
            assert isinstance(consumer.next(SOON), Start)
            assert [take(consumer, used=not (consumer is integrator and i == 2)) for i in range(4)] == [0, 1, 2, 3]
            assert isinstance(consumer.next(SOON), End)
            consumer.request(Report("run", {counter: 4 if consumer is writer else 3}))
        ledgers = [settled(writer), settled(integrator)]
        assert ledgers[0] == ledgers[1]
        assert ledgers[0].balance() == []
        assert (ledgers[0].acquisition, ledgers[0].reason, ledgers[0].frames_published) == ("run", "complete", 4)
        parts = ledgers[0].consumers
        assert (parts["writer"].taken, parts["writer"].dropped, parts["writer"].counts) == (4, 0, {"frames_written": 4})
        assert (parts["integrator"].taken, parts["integrator"].dropped) == (3, 1)

    def test_the_ledger_settles_at_its_deadline(self, plane: Plane) -> None:
        producer, consumer = (
            plane.producer(DESCRIPTION, 8),
            plane.consumer("writer", "lossless"),
        )
        attach(producer, consumer)
        start(producer)
        for index in range(3):
            put(producer, index)
        assert isinstance(consumer.next(SOON), Start)
        take(consumer)
        kept = frame(consumer.next(SOON))
        take(consumer)
        end(producer, 3, deadline=0.1)
        assert isinstance(consumer.next(SOON), End)
        ledger = settled(consumer)
        assert ledger.balance() == []
        assert (ledger.consumers["writer"].taken, ledger.consumers["writer"].held) == (2, 1)
        kept.release()

    def test_who_only_looks_on_is_not_waited_for(self, plane: Plane) -> None:
        producer = plane.producer(DESCRIPTION, 8)
        writer = plane.consumer("writer", "lossless")
        viewer = plane.consumer("viewer", "latest", reports=False)
        attach(producer, writer, viewer)
        start(producer)
        for index in range(3):
            put(producer, index)
        assert isinstance(viewer.next(SOON), Start)
        assert take(viewer) == 2
        end(producer, 3, deadline=3600.0)
        assert isinstance(writer.next(SOON), Start)
        for _ in range(3):
            take(writer)
        assert isinstance(writer.next(SOON), End)
        writer.request(Report("run", {"frames_written": 3}))
        ledger = settled(writer)
        assert ledger.balance() == []
        assert (ledger.consumers["viewer"].taken, ledger.consumers["viewer"].dropped) == (1, 2)

    def test_each_policy_is_accounted_for(self, plane: Plane) -> None:
        producer = plane.producer(DESCRIPTION, 4)
        latest = plane.consumer("latest", "latest")
        third = plane.consumer("third", "every: 3")
        attach(producer, latest, third)
        put(producer, 0, number=1)
        assert take(latest) == 0
        start(producer)
        for index in range(20):
            put(producer, index)
        end(producer, 20)
        for consumer, taken in ((latest, [19]), (third, [])):
            while not isinstance(item := consumer.next(SOON), End):
                if not isinstance(item, Start):
                    with frame(item) as borrowed:
                        taken.append(borrowed.header.index)
            consumer.request(Report("run", {}))
        ledger = settled(latest)
        assert ledger.balance() == []
        assert (ledger.consumers["latest"].taken, ledger.consumers["latest"].dropped) == (1, 19)
        part = ledger.consumers["third"]
        # sequences 1–20 belong to the acquisition: 3, 6, 9, 12, 15, 18 are each third
        assert (part.skipped, part.taken + part.dropped) == (14, 6)

    def test_a_late_comer_missed_what_came_before(self, plane: Plane) -> None:
        producer, early = plane.producer(DESCRIPTION, 8), plane.consumer("early", "lossless")
        attach(producer, early)
        start(producer, "run", None, note="begun")
        put(producer, 0)
        put(producer, 1)
        late = plane.consumer("late", "lossless")
        mark = late.next(SOON)
        assert isinstance(mark, Attached)
        assert mark.acquisition == Start("run", None, {"note": "begun"})
        put(producer, 2)
        end(producer, 3)
        assert take(late) == 2
        assert isinstance(late.next(SOON), End)
        late.request(Report("run", {"frames_written": 1}))
        early.next(SOON)
        for _ in range(3):
            take(early)
        assert isinstance(early.next(SOON), End)
        early.request(Report("run", {}))
        ledger = settled(late)
        assert ledger.balance() == []
        assert (ledger.consumers["late"].taken, ledger.consumers["late"].missed) == (1, 2)

    def test_who_leaves_gives_its_slots_back_and_is_named(self, plane: Plane) -> None:
        producer = plane.producer(DESCRIPTION, 3)
        leaver, stayer = (
            plane.consumer("leaver", "lossless"),
            plane.consumer("stayer", "lossless"),
        )
        attach(producer, leaver, stayer)
        start(producer)
        for index in range(3):
            put(producer, index)
        leaver.next(SOON)
        assert take(leaver) == 0
        until(lambda: producer.status()["consumers"]["leaver"]["taken"] == 1, "the release counted")
        leaver.close()
        stayer.next(SOON)
        assert [take(stayer) for _ in range(3)] == [0, 1, 2]
        until(lambda: producer.status()["slots_free"] == 3, "slots given back")
        put(producer, 3)
        take(stayer)
        end(producer, 4)
        assert isinstance(stayer.next(SOON), End)
        stayer.request(Report("run", {}))
        ledger = settled(stayer)
        assert ledger.balance() == []
        part = ledger.consumers["leaver"]
        assert (part.state, part.taken, part.dropped, part.missed) == ("gone", 1, 2, 1)

    def test_borrowed_frames_outlive_their_consumer(self, plane: Plane) -> None:
        producer, consumer = (
            plane.producer(DESCRIPTION, 2),
            plane.consumer("writer", "lossless"),
        )
        attach(producer, consumer)
        put(producer, 7)
        put(producer, 8)
        borrowed = frame(consumer.next(SOON))
        consumer.close()
        until(lambda: producer.status()["slots_free"] == 1, "the frame that was not taken is given back")
        put(producer, 9)
        assert borrowed.valid()
        np.testing.assert_array_equal(borrowed.pixels, np.full(SHAPE, 7))
        borrowed.release()
        until(lambda: producer.status()["slots_free"] == 2, "the borrowed slot is given back")

    def test_who_hangs_is_thrown_out_and_named(self, plane: Plane) -> None:
        producer = plane.producer(DESCRIPTION, 2, hang_after=0.2)
        hung, good = plane.consumer("hung", "lossless"), plane.consumer("good", "lossless")
        attach(producer, hung, good)
        start(producer)
        put(producer, 0)
        put(producer, 1)
        good.next(SOON)
        take(good)
        take(good)
        slots: list[int] = []

        def freed() -> bool:
            slot = producer.acquire()
            if slot is not None:
                slots.append(slot)
            return bool(slots)

        until(freed, "the hung consumer's slots")
        producer.discard(slots[0])
        put(producer, 2)
        take(good)
        end(producer, 3)
        good.next(SOON)
        good.request(Report("run", {}))
        ledger = settled(good)
        assert ledger.balance() == []
        assert ledger.consumers["hung"].state == "evicted"
        assert (ledger.consumers["hung"].dropped, ledger.consumers["hung"].missed) == (2, 1)
        while not isinstance(mark := hung.next(SOON), Detached):
            assert mark is not None, "the hung consumer was not told"
        assert "thrown out" in mark.reason
        assert isinstance(hung.next(SOON), Attached)

    def test_an_announced_consumer_that_never_came_is_absent(self, plane: Plane) -> None:
        producer, consumer = (
            plane.producer(DESCRIPTION, 4),
            plane.consumer("writer", "lossless"),
        )
        attach(producer, consumer)
        start(producer, consumers=["writer", "integrator"])
        end(producer, 0)
        consumer.next(SOON)
        consumer.next(SOON)
        consumer.request(Report("run", {}))
        ledger = settled(consumer)
        assert ledger.balance() == []
        assert ledger.consumers["integrator"].state == "absent"

    def test_a_new_description_is_a_new_epoch(self, plane: Plane) -> None:
        producer, consumer = (
            plane.producer(DESCRIPTION, 4),
            plane.consumer("writer", "lossless"),
        )
        first = consumer.next(SOON)
        assert isinstance(first, Attached)
        changed = replace(DESCRIPTION, meta={"model": "jungfrau", "axis": list(range(20000))})
        producer.describe(changed)
        second = consumer.next(SOON)
        assert isinstance(second, Attached)
        assert second.description == changed
        assert second.epoch != first.epoch
        with pytest.raises(ValueError, match="stay"):
            producer.describe(replace(DESCRIPTION, shape=(1, 1)))

    def test_ledgers_of_two_acquisitions_do_not_mix(self, plane: Plane) -> None:
        producer, consumer = (
            plane.producer(DESCRIPTION, 16),
            plane.consumer("writer", "lossless"),
        )
        attach(producer, consumer)
        for name, frames in (("one", 2), ("two", 3)):
            start(producer, name)
            for index in range(frames):
                put(producer, index)
            end(producer, frames, name)
        seen: dict[str, Ledger] = {}
        taken = 0
        while len(seen) < 2:
            item = consumer.next(SOON)
            if isinstance(item, Settled):
                seen[item.acquisition] = Ledger.from_dict(item.ledger)
            elif isinstance(item, End):
                consumer.request(Report(item.acquisition, {"frames_written": taken}))
                taken = 0
            elif not isinstance(item, Start):
                frame(item).release()
                taken += 1
        assert [seen[name].consumers["writer"].taken for name in ("one", "two")] == [2, 3]
        assert all(ledger.balance() == [] for ledger in seen.values())
        with pytest.raises(FrameSourceError):
            plane.consumer("nobody", "lossless").request(Report("one", {}))
