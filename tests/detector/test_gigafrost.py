"""GigaFRoST: packets put together here, from the description of the format alone, must become the image."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sisockdaq.nodes.detector_receiver import DetectorReceiver

from sisockdaq.detector.description import DetectorOptions
from sisockdaq.detector.gigafrost import HEADER, pack12, unpack12
from sisockdaq.detector.layout import Layout
from sisockdaq.detector.receiver import ReceiverSettings
from sisockdaq.detector.recording import Recording, RecordingWriter
from sisockdaq.detector.replay import replay
from sisockdaq.detector.sender import PacketSender
from sisockdaq.detector.simulator import Disturbance, Simulation, simulate
from sisockdaq.errors import ConfigurationError
from sisockdaq.testing.waiting import wait_until
from tests.detector.rig import running
from tests.sources.rig import record_to_archive

SMALL = DetectorOptions.checked(model="gigafrost", image_width=96, image_height=40, packet_rows=4)
RAGGED = DetectorOptions.checked(model="gigafrost", image_width=120, image_height=44, packet_rows=3)
PATIENT = ReceiverSettings(frame_timeout=2.0, overtaken_by=4)
HASTY = ReceiverSettings(frame_timeout=0.15, overtaken_by=4)


def squeeze(values: list[int]) -> bytes:
    """Two pixels in three bytes: p0 = b0 | (b1 & 15) << 8, p1 = b1 >> 4 | b2 << 4."""
    out = bytearray()
    for p0, p1 in zip(values[::2], values[1::2], strict=True):
        out += bytes((p0 & 0xFF, p0 >> 8 | (p1 & 0xF) << 4, p1 >> 4))
    return bytes(out)


def camera(image: np.ndarray, frame: int, rows: int, *, status: int = 0, scan: int = 7) -> dict[tuple[int, int], bytes]:
    """All packets of a frame as the camera sends them: {(stream, starting row): datagram}."""
    height, width = image.shape
    packets = {}
    for quadrant in range(4):  # SW, SE, NW, NE
        west, north = quadrant % 2 == 0, quadrant >= 2
        columns = slice(0, width // 2) if west else slice(width // 2, width)
        half = image[: height // 2][::-1] if north else image[height // 2 :]
        for link in range(2):
            lines = half[link::2, columns]
            for start in range(0, len(lines), rows):
                part = lines[start : start + rows]
                flags = quadrant << 6 | link << 5 | 5 << 2 | (height // 2) >> 8
                header = struct.pack(
                    "<BBBBIIHHQII", 0xCB, width // 2 // 12, (height // 2) & 0xFE, flags, scan, frame, status, start,
                    (123 << 40) | (1000 + frame), 5, 6,
                )  # fmt: skip
                odd = len(part) % 2 and (width // 2) % 48
                data = squeeze(part.reshape(-1).tolist()) + bytes(36 if odd else 0)
                packets[2 * quadrant + link, start] = header + data
    return packets


def picture(options: DetectorOptions, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 4096, options.shape).astype(np.uint16)


def as_array(packet: bytes) -> np.ndarray:
    return np.frombuffer(packet, np.uint8)


def test_the_header_lies_where_the_format_says():
    assert HEADER.itemsize == 32
    assert [HEADER.fields[name][1] for name in HEADER.names] == [0, 1, 2, 3, 4, 8, 12, 14, 16, 24, 28]


@given(st.lists(st.integers(0, 4095), min_size=2, max_size=96).filter(lambda v: len(v) % 2 == 0))
@settings(max_examples=50)
def test_pixels_are_packed_as_the_format_says(values):
    assert pack12(np.array(values)).tobytes() == squeeze(values)
    assert unpack12(squeeze(values)).tolist() == values


def test_a_value_beyond_twelve_bits_is_refused():
    with pytest.raises(ValueError, match="4096 does not fit into 12 bits"):
        pack12(np.array([4096, 0]))


def test_the_whole_sensor_is_what_the_camera_sends():
    whole = DetectorOptions.checked(model="gigafrost")
    assert whole.shape == (2016, 2016)
    assert (whole.streams, whole.rows_per_packet, whole.packets_per_stream) == (8, 4, 126)
    assert whole.datagram_bytes == 32 + 6048
    assert whole.title == "GigaFRoST 2016×2016"


@given(st.integers(2, 84), st.integers(1, 40), st.data())
@settings(max_examples=40, deadline=None)
def test_every_pixel_has_one_packet_whatever_the_region(blocks, quarter, data):
    rows = data.draw(st.one_of(st.none(), st.integers(1, quarter)))
    options = DetectorOptions.checked(
        model="gigafrost", image_width=24 * blocks, image_height=4 * quarter, packet_rows=rows
    )
    assert 1 <= options.rows_per_packet <= quarter
    assert options.payload_bytes <= 7400 or rows is not None
    layout = Layout.of(options)
    places = np.concatenate([layout.pixels(packet) for packet in range(options.packets_per_frame)])
    assert np.array_equal(np.sort(places), np.arange(options.shape[0] * options.shape[1]))


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"modules": 2}, "no modules"),
        ({"bit_depth": 12}, "bit_depth 16"),
        ({"interfaces": 2}, "has neither"),
        ({"image_width": 100}, "multiple of 24"),
        ({"image_height": 40, "packet_rows": 11}, "only 10 rows"),
    ],
)
def test_a_wrong_description_is_refused_with_the_reason(wrong, why):
    with pytest.raises(ConfigurationError, match=why):
        DetectorOptions.checked(model="gigafrost", **wrong)


def test_other_detectors_have_no_region():
    with pytest.raises(ConfigurationError, match="are for GigaFRoST"):
        DetectorOptions.checked(model="jungfrau", image_width=96)


@pytest.mark.parametrize("options", [SMALL, RAGGED], ids=["even", "ragged, padded"])
def test_frames_in_any_order_with_losses_become_the_image(options):
    """Shuffled packets, some lost, ports mixed up: what came is in its place, the rest has the fill value."""

    @given(st.randoms(use_true_random=False), st.sets(st.integers(0, options.packets_per_frame - 1), max_size=5))
    @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
    def exchange(random, lost):
        nonlocal number
        number += 1
        image = picture(options, number)
        layout = Layout.of(options)
        packets = camera(image, number, options.rows_per_packet)
        order = list(packets)
        for gone in sorted(lost, reverse=True):
            stream, packet = divmod(gone, options.packets_per_stream)
            order.remove((stream, packet * options.rows_per_packet))
        random.shuffle(order)
        already = len(rig.producer.frames)
        for stream, start in order:
            rig.send((stream + number) % 8, [as_array(packets[stream, start])])
        frame = rig.producer.wait_frames(already + 1)[already]
        want = image.copy()
        want[layout.covered(np.array(sorted(lost)))] = options.fill
        np.testing.assert_array_equal(frame.pixels, want)
        assert frame.header.number == number
        assert frame.header.packets_expected - frame.header.packets_received == len(lost)
        assert frame.header.timestamp == 1000 + number
        seen = image[want != options.fill]
        assert (frame.header.total, frame.header.maximum) == (seen.sum(dtype=np.uint64), seen.max())
        missing = np.flatnonzero(np.unpackbits(frame.packet_mask, bitorder="little")[: options.packets_per_frame] == 0)
        assert set(missing.tolist()) == lost

    number = 0
    with running(options, settings=HASTY) as rig:
        exchange()


def test_what_is_not_a_packet_of_this_image_is_counted_by_kind():
    image = picture(SMALL)
    packets = {place: as_array(data) for place, data in camera(image, 1, 4).items()}

    def changed(place, at, value):
        wrong = packets[place].copy()
        wrong[at] = value
        return wrong

    good = packets[0, 0]
    bad = [
        good[:20], good[:-1], np.concatenate((good, good[:36])), good[:0],  # four of a wrong size
        changed((0, 0), 1, 5),  # and one of another row length
        changed((0, 0), 0, 0xCC),
        changed((0, 0), 14, 200),
        changed((0, 0), 13, 0x80),
    ]  # fmt: skip
    with running(SMALL, settings=PATIENT) as rig:
        rig.send(0, [good, good, *bad])
        counts = rig.settled(2 + len(bad))
        assert counts["duplicate"] == 1
        assert {kind: count for kind, count in counts["invalid"].items() if count} == {
            "size": 5, "detector_type": 1, "packet_number": 1, "not_stored": 1,
        }  # fmt: skip
        for place in list(packets)[1:]:
            rig.send(place[0], [packets[place]])
        np.testing.assert_array_equal(rig.producer.wait_frames(1)[0].pixels, image)


def test_other_packets_than_described_are_noticed():
    with running(SMALL, settings=PATIENT) as rig:
        packets = camera(picture(SMALL), 1, 2)
        for (stream, _), data in packets.items():
            rig.send(stream, [as_array(data)])
        counts = rig.settled(len(packets))
        assert counts["invalid"]["size"] == len(packets) - 8  # the last of each stream has the two rows that are left
        assert rig.receiver.other_packet_rows == 2


@pytest.mark.parametrize("options", [SMALL, RAGGED], ids=["even", "ragged"])
def test_the_simulator_sends_what_the_camera_would(options):
    simulation = Simulation(options, seed=2)
    want = camera(simulation.image(3), 3, options.rows_per_packet)
    for stream, packets in enumerate(simulation.packets(3, 1003)):
        for packet, start in zip(packets, range(0, options.stream_rows, options.rows_per_packet), strict=True):
            assert packet.tobytes()[32:] == want[stream, start][32:]
            ours, theirs = (np.frombuffer(data[:32], HEADER)[0] for data in (packet.tobytes(), want[stream, start]))
            for name in ("protocol", "row_blocks", "flags", "frame_index", "starting_row"):
                assert ours[name] == theirs[name]


def test_a_simulated_run_of_the_whole_sensor_arrives():
    options = DetectorOptions.checked(model="gigafrost")
    simulation = Simulation(options, seed=3, patterns=1)
    with running(options, slots=6, settings=PATIENT) as rig:
        simulate(options, rig.targets, frames=5, rate=20, simulation=simulation)
        for frame in rig.producer.wait_frames(5):
            np.testing.assert_array_equal(frame.pixels, simulation.image(frame.header.number))


@pytest.mark.parametrize("options", [SMALL, RAGGED], ids=["even", "ragged"])
def test_what_was_recorded_is_replayed(tmp_path, options):
    images = {number: picture(options, number) for number in (203, 204)}
    writer = RecordingWriter(tmp_path / "raw", range(50000, 50008))
    for number, image in images.items():
        for (stream, _), packet in camera(image, number, options.rows_per_packet).items():
            writer.write(stream, memoryview(packet))
    writer.write(3, memoryview(b"short"))
    writer.close()
    with Recording(tmp_path / "raw") as recording, running(options, settings=PATIENT) as rig:
        assert recording.frames == list(images)
        replay(recording, rig.targets, rate=20)
        rig.producer.wait_frames(2)  # a busy machine may read frame 303 of one socket before 203 of another
        replay(recording, rig.targets, rate=20, shuffle=True, first_frame=303)
        frames = rig.producer.wait_frames(4)
        assert [frame.header.number for frame in frames] == [203, 204, 303, 304]
        for frame in frames:
            np.testing.assert_array_equal(frame.pixels, images[frame.header.number % 100 + 200])
        sent = replay(recording, rig.targets, rate=20, first_frame=1000, drop=[(1, 0)])
        assert [len(lost) for lost in sent.lost.values()] == [1, 1]


def test_one_frame_of_a_module_that_has_the_cameras_first_byte(tmp_path):
    """Frame 203 of slsDetector begins with 0xCB, too."""
    options = DetectorOptions(model="jungfrau", modules=2, readout_rows=16)
    writer = RecordingWriter(tmp_path / "raw", [50000, 50001])
    for stream, packets in enumerate(Simulation(options).packets(0xCB)):
        for packet in packets:
            writer.write(stream, memoryview(packet.tobytes()))
    writer.close()
    with Recording(tmp_path / "raw") as recording:
        assert recording.frames == [0xCB]


def test_a_disturbed_run_is_accounted_for():
    simulation = Simulation(RAGGED, seed=4)
    with running(RAGGED, settings=HASTY) as rig:
        sent = simulate(
            RAGGED, rig.targets, frames=8, rate=50, simulation=simulation,
            disturbance=Disturbance(loss=0.05, duplicates=0.1, invalid=0.1, shuffle=True),
        )  # fmt: skip
        counts = rig.settled(sent.packets)
        assert sum(counts["invalid"].values()) == sent.invalid
        frames = rig.producer.wait_frames(8)
        assert sum(f.header.packets_expected - f.header.packets_received for f in frames) == sum(
            map(len, sent.lost.values())
        )


def test_the_way_to_the_archive(network, tmp_path):
    """Camera → receiver → writer → archive, the camera's packets being other ones than described."""
    running_node = network.start(
        DetectorReceiver, name="receiver", udp=[{"port": 0}] * 8,
        detector={"model": "gigafrost", "image_width": 96, "image_height": 40, "packet_rows": 5},
    )  # fmt: skip
    node, images = running_node.node, {number: picture(SMALL, number) for number in range(1, 30)}

    def send(number):
        with PacketSender([("127.0.0.1", port) for port in node.ports], 100) as sender:
            for (stream, _), data in camera(images[number], number, 4).items():
                sender.send_one(stream, as_array(data))

    numbers = iter(images)

    def learnt():
        if node.receiver is not None and node.detector.rows_per_packet == 5:
            send(next(numbers, 29))
        return node.detector.rows_per_packet == 4 and node.receiver is not None

    wait_until(learnt, 20, "the packets to be learnt")

    def send_some():
        for number in (25, 26, 27):
            send(number)

    status = record_to_archive(network, "receiver", tmp_path, 3, send_some)
    assert status["ledger"]["packets_expected"] == status["ledger"]["packets_received"] == 3 * 24
    for frame, number in enumerate((25, 26, 27)):
        stored = network.client.image("receiver::image", run="run_1", frame=frame)
        np.testing.assert_array_equal(stored.values, images[number])
