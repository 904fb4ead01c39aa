"""Recordings and their replay; the published EIGER 9M frame comes out as documented (data/README.md)."""

from __future__ import annotations

import hashlib
import io
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest

from sisockdaq.detector.description import DetectorOptions, eiger_position
from sisockdaq.detector.formats import HEADER
from sisockdaq.detector.layout import Layout
from sisockdaq.detector.receiver import ReceiverSettings
from sisockdaq.detector.recording import Recording, RecordingWriter
from sisockdaq.detector.replay import replay
from sisockdaq.detector.simulator import Simulation, simulate
from sisockdaq.errors import FileUnreadable, StorageError
from tests.detector.rig import running

SAMPLE = Path(__file__).parents[3] / "shared" / "data" / "eiger9m" / "frame29512.tar.xz"
SMALL = DetectorOptions(model="jungfrau", modules=2, readout_rows=32)
PATIENT = ReceiverSettings(frame_timeout=30.0)


@pytest.fixture(scope="module")
def sample():
    if not SAMPLE.exists():
        pytest.skip(f"the EIGER sample is not at {SAMPLE}")
    with Recording(SAMPLE) as recording:
        yield recording


def test_the_sample_replayed_is_the_documented_image(sample):
    assert sample.ports == list(range(50020, 50092))
    assert sample.frames == [29512]
    places = {}
    for index, stream in enumerate(sample.streams):
        assert len(stream.begin) == 128
        header = np.array(stream.datagram(0)[:48]).view(HEADER)[0]
        places[index] = eiger_position(int(header["row"]), int(header["column"]))
    options = DetectorOptions(model="eiger", bit_depth=32, module_positions=places)
    with running(options, settings=ReceiverSettings(frame_timeout=2.0), slots=5) as rig:
        replay(sample, rig.targets, rate=5)
        replay(sample, rig.targets, rate=5, shuffle=True, first_frame=29513)
        for frame in rig.producer.wait_frames(2):
            assert frame.pixels.shape == (3264, 3106)
            assert frame.pixels.sum(dtype=np.uint64) == frame.header.total == 9792514662
            assert frame.pixels.max() == frame.header.maximum == 1539720
            assert hashlib.sha256(frame.pixels.tobytes()).hexdigest().startswith("5d0697728ee32bb8")
        sent = replay(sample, rig.targets, rate=5, first_frame=29514, loss=0.01, drop=[(0, 0), (71, 127)])
        partial = rig.producer.wait_frames(3)[2]
        lost = sent.lost[29514]
        assert {0, 71 * 128 + 127} < set(lost)
        missing = Layout.of(options).covered(np.array(lost))
        whole = rig.producer.frames[0].pixels
        np.testing.assert_array_equal(partial.pixels, np.where(missing, np.uint32(2**32 - 1), whole))
        assert partial.header.packets_received == 9216 - len(lost)


def test_what_is_recorded_can_be_replayed(tmp_path):
    simulation = Simulation(SMALL)
    writer = RecordingWriter(tmp_path / "raw", [50001, 50000])
    with running(SMALL, settings=PATIENT, recorder=writer) as rig:
        simulate(SMALL, rig.targets, frames=3, rate=None, first_frame=8, simulation=simulation)
        rig.sender.send_one(0, b"not a packet")
        rig.settled(49)
        rig.producer.wait_frames(3)
    writer.close()
    assert writer.datagrams == 49
    with Recording(tmp_path / "raw") as recording:
        assert recording.ports == [50000, 50001]
        assert recording.frames == [8, 9, 10]
        assert recording.streams[1].datagram(24).tobytes() == b"not a packet"
        with running(SMALL, settings=PATIENT) as rig:
            sent = replay(recording, rig.targets[::-1], rate=None, repeat=2, first_frame=100)
            assert (sent.frames, sent.packets) == (6, 98)
            frames = rig.producer.wait_frames(6)
            assert rig.settled(98)["invalid"]["size"] == 2
    assert [frame.header.number for frame in frames] == [100, 101, 102, 103, 104, 105]
    for frame, number in zip(frames, [8, 9, 10] * 2, strict=True):
        np.testing.assert_array_equal(frame.pixels, simulation.image(number))


def test_records_of_any_length_are_found(tmp_path):
    packets = [b"a", b"", bytes(60)]
    (tmp_path / "7.dat").write_bytes(b"".join(struct.pack("<Q", len(packet)) + packet for packet in packets))
    (tmp_path / "8.dat").write_bytes(b"")
    with Recording(tmp_path) as recording:
        stream = recording.streams[0]
        assert [stream.datagram(i).tobytes() for i in range(3)] == packets
        assert stream.frame.tolist() == [-1, -1, 0]
        assert len(recording.streams[1].begin) == 0


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("7.dat", struct.pack("<Q", 100) + b"short", "no whole record at byte 0"),
        ("7.dat", struct.pack("<Q", 2**40), "no whole record at byte 0"),
        ("7.dat", struct.pack("<Q", 1) + b"x" + b"1234", "no whole record at byte 9"),
        ("seven.dat", b"", "not named by a UDP port"),
        ("7.txt", b"", "holds no <port>.dat"),
    ],
)
def test_broken_recordings_are_refused(tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FileUnreadable, match=reason):
        Recording(tmp_path)


def test_a_missing_and_a_cut_archive_are_refused(tmp_path):
    with pytest.raises(FileUnreadable, match="there is no recording"):
        Recording(tmp_path / "none.tar.xz")
    path = tmp_path / "cut.tar.xz"
    with tarfile.open(path, "w:xz") as tar:
        entry = tarfile.TarInfo("7.dat")
        entry.size = 100_000
        tar.addfile(entry, io.BytesIO(np.random.default_rng(0).bytes(100_000)))
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(FileUnreadable, match="cannot be unpacked"):
        Recording(path)


def test_an_archive_cannot_write_outside_its_folder(tmp_path):
    path = tmp_path / "bad.tar"
    with tarfile.open(path, "w") as tar:
        entry = tarfile.TarInfo("../../9.dat")
        tar.addfile(entry, io.BytesIO(b""))
    with Recording(path) as recording:
        assert recording.ports == [9]
    assert not (tmp_path.parent / "9.dat").exists()


def test_a_recording_is_never_written_over(tmp_path):
    RecordingWriter(tmp_path, [1]).close()
    with pytest.raises(StorageError, match="holds a recording already"):
        RecordingWriter(tmp_path, [2])


def test_a_full_disk_ends_the_recording_only():
    writer = RecordingWriter.__new__(RecordingWriter)
    writer.error, writer.datagrams = None, 0
    writer._files = [open("/dev/full", "wb", buffering=0)]  # noqa: SIM115, PTH123
    writer.write(0, memoryview(b"x"))
    assert "recording ended after 0 packets" in str(writer.error)
    writer.write(0, memoryview(b"x"))
    writer.close()
