"""The conversion between receiver and ring: order, slots that come back, and what is shown."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from sisockdaq.conversion import Converter, JungfrauModel, Pedestal
from sisockdaq.conversion.live import RAW_FILL, ConvertingProducer
from sisockdaq.detector.description import DetectorOptions
from sisockdaq.frames.messages import End, FrameHeader, Start
from tests.detector.fakes import FakeProducer

DETECTOR = DetectorOptions(model="jungfrau", readout_rows=8)
MODEL = JungfrauModel.drawn(DETECTOR.shape)
DEADLINE = 20.0


class Ring(FakeProducer):
    """Of float32 frames."""

    def __init__(self, slots):
        super().__init__(DETECTOR, slots)
        self.pixels = np.zeros((slots, *DETECTOR.shape), np.float32)
        self.closed = False

    def close(self):
        self.closed = True


def converter():
    ones = np.ones_like(MODEL.pedestal)
    faults = np.zeros(MODEL.shape, np.uint32)
    return Converter(Pedestal(MODEL.pedestal, ones, ones.astype(np.uint32), faults), MODEL.gain)


@pytest.fixture
def make():
    made = []

    def start(slots=4, ring_slots=8, show=None):
        made.append(ConvertingProducer(Ring(ring_slots), converter(), slots, show=show))
        return made[-1], made[-1]._ring

    yield start
    for one in made:
        one.close()
        assert one._ring.closed


def frame(producer, number, light=5.0):
    slot = producer.acquire()
    assert slot is not None
    producer.pixels[slot] = MODEL.raw(np.full(MODEL.shape, light), number)
    producer.packet_masks[slot] = 3
    header = FrameHeader(number, float(number), float(number), packets_expected=2, packets_received=2, total=1e9)
    producer.saw(header, producer.pixels[slot])
    return slot, header


def test_frames_and_marks_stay_in_order_and_are_converted(make):
    shown = []
    producer, ring = make(show=lambda header, image, found: shown.append((header.number, header.total, found.empty)))
    producer.start(Start("run", 12))
    for number in range(12):
        producer.flush()
        producer.publish(*frame(producer, number))
    producer.end(End("run", "complete"))
    producer.flush()
    assert isinstance(ring.log[0], Start)
    assert isinstance(ring.log[-1], End)
    assert [entry.number for entry in ring.log[1:-1]] == list(range(12))
    for published in ring.frames:
        assert published.pixels.mean() == pytest.approx(5.0, abs=0.1)
        assert published.header.total == pytest.approx(published.pixels.sum(dtype=float), rel=1e-5)
        assert published.header.maximum == published.pixels.max()
        assert (published.packet_mask == 3).all()
    assert shown == [(number, ring.frames[number].header.total, 0) for number in range(12)]
    assert producer.status()["unconverted"] == 0


def test_no_slot_is_lost_and_none_is_given_twice(make):
    producer, ring = make(slots=3, ring_slots=8)
    for _ in range(5):
        taken = [producer.acquire() for _ in range(4)]
        assert taken[3] is None
        assert len(set(taken)) == 4
        for slot in taken[:3]:
            producer.discard(slot)
    assert len(ring._free) == 8
    scarce, small = make(slots=6, ring_slots=2)
    slots = [scarce.acquire() for _ in range(3)]
    assert slots[2] is None
    scarce.discard(slots[0])
    assert scarce.acquire() is not None
    assert len(small._free) == 0


def test_what_is_dropped_is_still_shown(make):
    shown = []
    producer, ring = make(show=lambda header, image, found: shown.append((header.number, image is None)))
    slot, _ = frame(producer, 1)
    producer.discard(slot)
    producer.saw(FrameHeader(2, 2.0, 2.0), None)
    producer.flush()
    assert shown == [(1, False), (2, True)]
    assert ring.frames == []
    assert len(ring._free) == 8


def test_lost_packets_and_a_frame_without_any_value(make):
    producer, ring = make()
    slot, header = frame(producer, 1)
    producer.pixels[slot] = RAW_FILL
    producer.publish(slot, header)
    producer.flush()
    assert np.isnan(ring.frames[0].pixels).all()
    assert (ring.frames[0].header.total, ring.frames[0].header.maximum) == (0.0, 0.0)


def test_a_view_that_fails_costs_no_frame(make):
    def show(*_):
        raise RuntimeError("no view")

    producer, ring = make(show=show)
    for number in range(2):
        producer.publish(*frame(producer, number))
    producer.flush()
    assert [published.header.number for published in ring.frames] == [0, 1]


def test_another_converter_takes_over_between_frames(make):
    producer, ring = make()
    producer.publish(*frame(producer, 0))
    producer.flush()
    producer.converter = Converter(Pedestal.unknown(MODEL.shape), MODEL.gain)
    producer.publish(*frame(producer, 1))
    producer.flush()
    assert np.isfinite(ring.frames[0].pixels).all()
    assert np.isnan(ring.frames[1].pixels).all()


def test_the_receiver_does_not_wait_for_the_conversion(make):
    go, begun = threading.Event(), threading.Event()

    def slow(*_):
        begun.set()
        assert go.wait(DEADLINE)

    producer, ring = make(show=slow)
    producer.publish(*frame(producer, 0))
    assert begun.wait(DEADLINE)
    producer.publish(*frame(producer, 1))
    assert ring.frames == []
    go.set()
    producer.flush()
    assert len(ring.frames) == 2


def test_a_ring_of_other_frames_is_refused():
    with pytest.raises(ValueError, match="other images"):
        ConvertingProducer(FakeProducer(DETECTOR), converter(), 2)
