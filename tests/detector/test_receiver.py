"""Frames from packets over real sockets: whole, broken, shuffled, doubled, late, and from any detector."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sisockdaq.detector.description import DetectorOptions
from sisockdaq.detector.formats import read_headers
from sisockdaq.detector.layout import Layout
from sisockdaq.detector.receiver import ReceiverSettings
from sisockdaq.detector.simulator import Disturbance, Simulation, simulate
from sisockdaq.frames.bus import unreceived
from sisockdaq.testing.waiting import wait_until
from tests.detector.rig import running

SMALL = DetectorOptions(model="jungfrau", modules=2, readout_rows=32)
PATIENT = ReceiverSettings(frame_timeout=30.0)
"""So long that a busy machine cannot close a frame too early; frames are then closed by others."""

DETECTORS = {
    "jungfrau": SMALL,
    "two interfaces": DetectorOptions(model="jungfrau", interfaces=2),
    "partial, two interfaces": DetectorOptions(model="jungfrau", modules=2, interfaces=2, readout_rows=64),
    "side by side, gap": DetectorOptions(
        model="jungfrau", readout_rows=64, module_positions={0: (0, 0, 1023, 63), 1: (1032, 1, 2055, 64)}, gap_value=9
    ),
    "upward": DetectorOptions(model="jungfrau", readout_rows=64, module_positions={0: (0, 63, 1023, 0)}),
    "to the left": DetectorOptions(model="jungfrau", readout_rows=64, module_positions={0: (1023, 0, 0, 63)}),
    "eiger 4": DetectorOptions(model="eiger", bit_depth=4),
    "eiger 8": DetectorOptions(model="eiger", bit_depth=8),
    "eiger 16": DetectorOptions(model="eiger", bit_depth=16),
    "eiger 32": DetectorOptions(model="eiger", bit_depth=32),
    "eiger 32, to the left": DetectorOptions(model="eiger", bit_depth=32, module_positions={0: (513, 0, 0, 255)}),
    "eiger 8, 1 GbE": DetectorOptions(model="eiger", bit_depth=8, link_speed=1),
}


def copies(simulation, number, stream=0):
    """Return a frame's packets of one stream, to be changed at will."""
    return [packet.copy() for packet in simulation.packets(number)[stream]]


def check(frame, expected, options, lost=()):
    """Hold a published frame to its image, with the packets `lost` filled."""
    layout = Layout.of(options)
    image = expected.copy()
    missing = layout.covered(np.array(sorted(lost), int))
    image[missing] = options.fill
    np.testing.assert_array_equal(frame.pixels, image)
    header = frame.header
    assert header.packets_received == options.packets_per_frame - len(lost)
    assert unreceived(frame.packet_mask, options.packets_per_frame).tolist() == sorted(lost)
    counted = layout.covered(np.arange(options.packets_per_frame)) & ~missing & (expected != options.fill)
    assert header.total == expected[counted].sum(dtype=np.uint64)
    assert header.maximum == (expected[counted].max() if counted.any() else 0)


@pytest.mark.parametrize("shuffle", [False, True], ids=["trains", "shuffled"])
@pytest.mark.parametrize("name", DETECTORS)
def test_whole_frames(name, shuffle):
    options = DETECTORS[name]
    simulation = Simulation(options, seed=1, patterns=3)
    with running(options, settings=PATIENT) as rig:
        for number in (1, 2, 3, 4):
            simulate(
                options, rig.targets, frames=1, rate=None, first_frame=number, simulation=simulation,
                disturbance=Disturbance(shuffle=shuffle), seed=number,
            )  # fmt: skip
            rig.producer.wait_frames(number)
        for frame in rig.producer.frames:
            check(frame, simulation.image(frame.header.number), options)
        assert [frame.header.number for frame in rig.producer.frames] == [1, 2, 3, 4]


def test_the_last_packet_finishes_a_frame():
    simulation = Simulation(SMALL)
    with running(SMALL, settings=PATIENT) as rig:
        rig.send_frame(simulation, 7)
        (frame,) = rig.producer.wait_frames(1)
        assert frame.header.number == 7
        assert frame.header.complete
        assert frame.header.time <= frame.header.last


def test_a_frame_that_lost_its_last_packet_is_closed_in_time():
    simulation = Simulation(SMALL)
    with running(SMALL, settings=ReceiverSettings(frame_timeout=0.2)) as rig:
        rig.send(0, copies(simulation, 1)[:-1])
        rig.send(1, copies(simulation, 1, 1))
        (frame,) = rig.producer.wait_frames(1)
        check(frame, simulation.image(1), SMALL, [7])


def test_a_frame_is_closed_by_one_that_is_new_enough_and_old_pixels_never_show():
    simulation = Simulation(SMALL, patterns=5)
    with running(SMALL, settings=PATIENT, slots=6) as rig:
        for number in range(1, 5):
            rig.send_frame(simulation, number)
        rig.producer.wait_frames(4)
        rig.send(0, copies(simulation, 5)[2:3])
        rig.settled(4 * 16 + 1)
        for number in (6, 7, 8):
            rig.send_frame(simulation, number)
        rig.settled(7 * 16 + 1)
        assert [frame.header.number for frame in rig.producer.frames] == [1, 2, 3, 4], "6 to 8 wait for 5"
        rig.send_frame(simulation, 9)
        rig.producer.wait_frames(9)
        numbers = [frame.header.number for frame in rig.producer.frames]
        assert numbers == list(range(1, 10))
        check(rig.producer.frames[4], simulation.image(5), SMALL, [p for p in range(16) if p != 2])
        times = [frame.header.time for frame in rig.producer.frames]
        assert times == sorted(set(times))


def test_partial_frames_are_dropped_where_the_site_chose_so():
    simulation = Simulation(SMALL)
    settings_ = ReceiverSettings(frame_timeout=0.1, partial="drop")
    with running(SMALL, settings=settings_) as rig:
        for number in range(1, 6):
            rig.send(0, copies(simulation, number)[:3])
        rig.settled(15)
        rig.send_frame(simulation, 20)
        rig.producer.wait_frames(1)
        assert rig.receiver.counters()["frames"] == {"published": 1, "partial": 0, "ring_full": 0, "policy": 5}


def test_a_full_ring_loses_frames_that_are_counted_and_recovers():
    simulation = Simulation(SMALL)
    with running(SMALL, settings=PATIENT, slots=3) as rig:
        rig.producer.hold = True
        for number in range(1, 7):
            rig.send_frame(simulation, number)
        rig.settled(6 * 16)
        assert [frame.header.number for frame in rig.producer.frames] == [1, 2, 3]
        wait_until(lambda: rig.receiver.counters()["frames"]["ring_full"] == 3, 5, "three frames to be dropped")
        rig.producer.let_go()
        rig.send_frame(simulation, 7)
        frame = rig.producer.wait_frames(4)[-1]
        check(frame, simulation.image(7), SMALL)


def test_duplicates_and_late_packets_change_nothing():
    simulation = Simulation(SMALL)
    with running(SMALL, settings=PATIENT) as rig:
        first, second = copies(simulation, 1), copies(simulation, 1, 1)
        liar = first[0].copy()
        liar[48:] = 255
        rig.send(0, [first[0], liar, *first[1:], liar])
        rig.send(1, second[:-1])
        rig.settled(17)
        rig.send(1, second[-1:])
        rig.producer.wait_frames(1)
        rig.send(0, [liar])
        rig.settled(19)
        rig.send(0, copies(simulation, 2))
        for number in (3, 4, 5, 6):
            rig.send_frame(simulation, number)
        rig.producer.wait_frames(6)
        rig.send(1, copies(simulation, 2, 1)[:2])
        counts = rig.settled(19 + 8 + 64 + 2)
        assert (counts["duplicate"], counts["late"]) == (3, 2)
        check(rig.producer.frames[0], simulation.image(1), SMALL)
        check(rig.producer.frames[1], simulation.image(2), SMALL, range(8, 16))


def test_invalid_packets_are_counted_by_kind():
    simulation = Simulation(SMALL)
    with running(SMALL, settings=PATIENT) as rig:
        good = copies(simulation, 1)
        rig.send(0, good[:1])
        rig.settled(1)
        bad = []
        for field, value in [
            ("version", 1), ("detector_type", 1), ("packet_number", 59), ("packet_number", 68),
            ("packet_number", 2**32 - 1), ("module_id", 77), ("frame_number", 2**63 + 5), ("frame_number", 2**40),
        ]:  # fmt: skip
            packet = good[3].copy()
            read_headers(packet.data, len(packet))[field] = value
            bad.append(packet)
        bad += [good[3][:100], good[3][:0], np.concatenate([good[3], good[3][:8]]), np.zeros(65507, np.uint8)]
        rig.send(0, bad)
        counts = rig.settled(1 + len(bad))
        assert counts["invalid"] == {
            "size": 4, "version": 1, "detector_type": 1, "packet_number": 3, "module": 1, "frame_number": 2,
        }  # fmt: skip
        rig.send(0, good[1:])
        rig.send(1, copies(simulation, 1, 1))
        (frame,) = rig.producer.wait_frames(1)
        check(frame, simulation.image(1), SMALL)


def test_another_module_on_a_port_is_believed_only_when_the_first_is_silent():
    simulation = Simulation(SMALL)
    with running(SMALL, settings=PATIENT) as rig:
        rig.send(0, copies(simulation, 1))
        for number in (2, 3, 4):
            packets = copies(simulation, number)
            for packet in packets:
                read_headers(packet.data, len(packet))["module_id"] = 200
            rig.send(0, packets)
        counts = rig.settled(32)
        assert counts["invalid"]["module"] == 8
        assert counts["packets"] == 8 + 16


def test_module_ids_of_the_site_are_held_to():
    options = SMALL.model_copy(update={"module_ids": [4, 5]})
    simulation = Simulation(SMALL)
    with running(options, settings=PATIENT) as rig:
        rig.send(0, copies(simulation, 1) * 4)
        assert rig.settled(32)["invalid"]["module"] == 32
        rig.send_frame(Simulation(options), 1)
        rig.producer.wait_frames(1)


def test_bunch_ids_number_frames_with_any_distance():
    simulation = Simulation(SMALL)
    settings_ = ReceiverSettings(frame_timeout=30.0, image_id="bunch_id")
    with running(SMALL, settings=settings_) as rig:
        for frame, bunch in enumerate((1000, 1004, 900_000_000_000, 900_000_000_004)):
            streams = simulation.packets(frame)
            for packets in streams:
                read_headers(packets.data, packets.shape[1])["bunch_id"] = bunch
            rig.sender.send_frame(streams)
        rig.producer.wait_frames(4)
        assert [frame.header.number for frame in rig.producer.frames] == [1000, 1004, 900_000_000_000, 900_000_000_004]


def test_frames_without_a_bunch_id_are_invalid():
    settings_ = ReceiverSettings(frame_timeout=30.0, image_id="bunch_id")
    with running(SMALL, settings=settings_) as rig:
        streams = Simulation(SMALL).packets(1)
        for packets in streams:
            read_headers(packets.data, packets.shape[1])["bunch_id"] = 0
        rig.sender.send_frame(streams)
        assert rig.settled(16)["invalid"]["frame_number"] == 16


def test_a_detector_that_begins_anew_after_a_pause_is_followed():
    simulation = Simulation(SMALL)
    with running(SMALL, settings=ReceiverSettings(frame_timeout=0.05)) as rig:
        rig.send_frame(simulation, 500)
        rig.producer.wait_frames(1)
        sent = simulate(SMALL, rig.targets, frames=6, rate=10, simulation=simulation, first_frame=500)
        assert sent.frames == 6
        frames = rig.producer.wait_frames(6)
        assert frames[-1].header.number == 505


def test_a_detector_that_begins_anew_without_a_pause_is_believed_in_the_end():
    simulation = Simulation(SMALL)
    with running(SMALL, settings=PATIENT) as rig:
        rig.send_frame(simulation, 10**6)
        rig.producer.wait_frames(1)
        for number in range(1, 8):
            rig.send_frame(simulation, number)
            rig.settled(16 * (number + 1))
        counts = rig.settled(16 * 8)
        assert counts["late"] == 4 * 16
        assert [frame.header.number for frame in rig.producer.wait_frames(4)[1:]] == [5, 6, 7]


def test_a_lone_far_number_does_not_close_frames():
    simulation = Simulation(SMALL)
    with running(SMALL, settings=PATIENT) as rig:
        rig.send(0, copies(simulation, 1))
        rig.send(0, copies(simulation, 2**30)[:1])
        rig.settled(9)
        rig.send(1, copies(simulation, 1, 1))
        (frame,) = rig.producer.wait_frames(1)
        check(frame, simulation.image(1), SMALL)
        for number in range(2**31, 2**31 + 5):
            rig.send_frame(simulation, number)
        frames = rig.producer.wait_frames(6)
        assert [frame.header.number - 2**31 for frame in frames[1:]] == [0, 1, 2, 3, 4]
        assert frames[1].header.packets_received == 15, "the first packet of the jump was not believed"


FUZZED = Simulation(SMALL, patterns=4)
events = st.tuples(st.integers(1, 3), st.integers(0, 15), st.sampled_from(["good", "good", "good", "bad", "short"]))


@given(st.lists(st.lists(events, max_size=40), min_size=1, max_size=4))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_sequence_of_packets_gives_just_the_packets_that_came(bursts):
    """Whatever the order, frames hold exactly what came, the rest is fill, and the counts add up."""
    with running(SMALL, settings=PATIENT) as rig:
        received: dict[int, set[int]] = {}
        sent = duplicates = invalid = 0
        for burst in bursts:
            for number, packet, kind in burst:
                stream, place = divmod(packet, 8)
                datagram = copies(FUZZED, number, stream)[place]
                if kind == "bad":
                    read_headers(datagram.data, len(datagram))["version"] = 9
                rig.sender.send_one(stream, datagram[:100] if kind == "short" else datagram)
                sent += 1
                invalid += kind != "good"
                if kind == "good":
                    duplicates += packet in received.setdefault(number, set())
                    received[number].add(packet)
            rig.settled(sent)
        rig.send_frame(FUZZED, 7)  # closes the others
        counts = rig.settled(sent + 16)
        rig.producer.wait_frames(1)
        rig.producer.wait_for(lambda: rig.producer.frames[-1].header.number == 7)
        assert (counts["duplicate"], sum(counts["invalid"].values()), counts["late"]) == (duplicates, invalid, 0)
        assert counts["packets"] == 16 + sum(map(len, received.values()))
        assert [frame.header.number for frame in rig.producer.frames] == [*sorted(received), 7]
        for frame in rig.producer.frames[:-1]:
            number = frame.header.number
            check(frame, FUZZED.image(number), SMALL, set(range(16)) - received[number])


@given(st.lists(st.binary(min_size=0, max_size=9000), max_size=20), st.integers(0, 2**32))
@settings(max_examples=15, deadline=None)
def test_garbage_does_no_harm(datagrams, seed):
    generator = np.random.default_rng(seed)
    with running(SMALL, settings=PATIENT) as rig:
        rig.send(0, copies(FUZZED, 1)[:4])
        for datagram in datagrams:
            rig.sender.send_one(0, datagram)
        for _ in range(10):
            rig.sender.send_one(1, generator.integers(0, 256, SMALL.datagram_bytes, np.uint8))
        rig.settled(4 + len(datagrams) + 10)
        rig.send(0, copies(FUZZED, 1)[4:])
        rig.send(1, copies(FUZZED, 1, 1))
        (frame,) = rig.producer.wait_frames(1)
        check(frame, FUZZED.image(1), SMALL)
