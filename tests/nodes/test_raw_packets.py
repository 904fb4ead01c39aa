"""Raw packets beside or instead of images, acquisition by acquisition: receiver and writer on a real router.

What is recorded is replayed into the same receiver, and compared with the first images by their hashes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sisockdaq.nodes.detector_receiver import DetectorReceiver
from sisockdaq.nodes.file_writer import FileWriter

from sisockdaq.detector.description import DetectorOptions
from sisockdaq.detector.kernel import warm_up
from sisockdaq.detector.recording import Recording
from sisockdaq.detector.replay import replay
from sisockdaq.detector.simulator import Disturbance, Simulation, simulate
from sisockdaq.errors import AcquisitionRefused, StorageError
from sisockdaq.frames import Settled, make_consumer
from sisockdaq.frames.ledger import Ledger
from sisockdaq.testing.network import Network
from sisockdaq.testing.waiting import wait_until
from tests.endtoend.house import images_of

DETECTOR = {"model": "jungfrau", "modules": 2, "readout_rows": 64}
OPTIONS = DetectorOptions.model_validate(DETECTOR)
PACKETS = OPTIONS.packets_per_frame
DEADLINE = 30.0


class Pair:
    """A receiver and a writer."""

    def __init__(self, network: Network, folder: Path, **receiver: Any) -> None:
        warm_up()
        self.network, self.folder = network, folder
        self.simulation = Simulation(OPTIONS, seed=11)
        ports = [{"port": 0}] * OPTIONS.streams
        self.receiver = network.start(DetectorReceiver, name="receiver", detector=DETECTOR, udp=ports, **receiver).node
        self.writer = network.start(FileWriter, directory=str(folder), frames="receiver", results=[]).node
        self.attached()

    def attached(self) -> None:
        wait_until(lambda: self.writer.engine and self.writer.engine.sources, DEADLINE, "the writer to be attached")

    @property
    def targets(self) -> list[tuple[str, int]]:
        return [("127.0.0.1", port) for port in self.receiver.ports]

    def call(self, procedure: str, **arguments: Any) -> dict[str, Any]:
        return dict(self.network.call(f"control.file_writer.{procedure}", user="control", **arguments))

    def send(self, frames: int, first: int, **disturbance: Any) -> None:
        simulate(
            OPTIONS,
            self.targets,
            frames=frames,
            rate=200,
            first_frame=first,
            simulation=self.simulation,
            disturbance=Disturbance(**disturbance),
        )

    def ended(self) -> dict[str, Any]:
        def over() -> dict[str, Any] | None:
            status = self.call("status")
            return status if status["state"] == "READY" else None

        return dict(wait_until(over, DEADLINE, "the end of the acquisition"))

    def replayed(self, folder: Path, name: str, frames: int, seen: int) -> dict[str, Any]:
        """Replay a recording into an acquisition once `seen` frames before it are through."""
        self.published(seen)
        self.call("start", acquisition=name, frames=frames)
        with Recording(folder) as recording:
            replay(recording, self.targets, rate=200, first_frame=self.next_number())
        return self.ended()

    def published(self, frames: int) -> None:
        """Return when so many frames have been published."""
        wait_until(
            lambda: self.receiver.receiver.counters()["frames"]["published"] == frames, DEADLINE, f"{frames} frames"
        )

    def next_number(self) -> int:
        """Return a frame number beyond all that were seen."""
        latest = self.receiver.store.timelines["frame"].series["frame_number"].latest()
        return int(latest[1]) + 1000


@pytest.fixture
def pair(network: Network, tmp_path: Path) -> Iterator[Pair]:
    yield Pair(network, tmp_path)
    network.stop_nodes()


def hashes(master: str) -> list[str]:
    return [hashlib.sha256(image.tobytes()).hexdigest() for image in images_of(master)]


def test_packets_beside_images_give_the_same_images_again(pair: Pair) -> None:
    pair.send(2, first=1)  # of no acquisition
    pair.published(2)
    pair.call("start", acquisition="run_1", frames=6, raw="beside")
    pair.send(9, first=10)  # three more than wanted
    status = pair.ended()
    assert (status["acquisition_state"], status["frames_written"]) == ("FINISHED", 6)
    ledger = Ledger.from_dict(status["ledger"])
    assert (ledger.packets_recorded, ledger.frames_recorded) == (6 * PACKETS, 6)
    assert ledger.balance() == []
    folder = Path(status["raw"])
    assert folder == pair.folder / "run_1_raw"
    with Recording(folder) as recording:
        assert recording.acquisition == "run_1"
        assert recording.frames == list(range(10, 16))
    again = pair.replayed(folder, "run_2", 6, seen=11)
    assert again["frames_written"] == 6
    assert again["raw"] is None
    assert hashes(again["master"]) == hashes(status["master"])


def test_packets_instead_of_images_make_no_image_file(pair: Pair) -> None:
    started = pair.call("start", acquisition="run_1", frames=8, raw="instead")
    assert started["files"] == []
    pair.send(8, first=5, lost_frames=frozenset({7}))
    pair.send(1, first=13)
    status = pair.ended()
    assert (status["acquisition_state"], status["message"]) == ("FINISHED", "Completed, 1 images are missing.")
    assert (status["files"], status["master"], status["frames_written"]) == ([], None, 7)
    assert sorted(path.name for path in pair.folder.iterdir()) == ["run_1_raw"]
    ledger = Ledger.from_dict(status["ledger"])
    assert (ledger.packets_recorded, ledger.frames_recorded) == (7 * PACKETS, 7)
    assert ledger.consumers["file_writer"].taken == 7
    assert ledger.consumers["file_writer"].counts == {"frames_written": 0, "files_closed": 0}
    assert ledger.balance() == []
    assert "packets of 7 frames recorded" in ledger.summary()
    kept = json.loads((pair.folder / "run_1_raw" / "acquisition.json").read_text())
    assert (kept["frames"], kept["counts"]["packets_lost"]) == ([[5, 6], [8, 12]], PACKETS)
    logged = pair.call("status")["record"]
    assert logged["info"]["output_file"] == status["raw"]
    assert logged["stats"]["n_write_completed"] == 7
    # The same receiver makes of it what the detector had sent, the frame that was lost left out.
    again = pair.replayed(pair.folder / "run_1_raw", "run_2", 8, seen=8)
    images = images_of(again["master"])
    assert again["frames_written"] == 7
    for index, number in enumerate(range(5, 13)):
        expected = pair.simulation.image(number) if number != 7 else images[2]
        assert (images[index] == expected).all()
    assert again["ledger"]["frames_dropped"] == {"no_packet": 1}


def test_what_stands_in_the_way_of_a_recording_refuses_the_start(pair: Pair) -> None:
    refusals = []
    for mode in ("only", "beside"):
        folder = pair.folder / "run_1_raw"
        folder.mkdir(exist_ok=True)
        (folder / "1.dat").touch()
        with pytest.raises(AcquisitionRefused) as refusal:
            pair.call("start", acquisition="run_1", frames=1, raw=mode)
        refusals += refusal.value.reasons
    assert "one of beside, instead" in refusals[0]
    assert "holds a recording already" in refusals[1]
    assert pair.call("status")["state"] == "READY"


def test_a_recording_that_breaks_fails_the_acquisition_that_is_nothing_else(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Any, stream: int, datagram: memoryview) -> None:
        self.error = StorageError("recording ended after 0 packets: No space left on device")

    monkeypatch.setattr("sisockdaq.detector.recording.RecordingWriter.write", full)
    pair.call("start", acquisition="run_1", frames=5, raw="instead")
    pair.send(5, first=1)
    status = pair.ended()
    assert status["acquisition_state"] == "FAILED"
    assert "No space left on device" in status["message"]
    pair.published(5)
    pair.call("start", acquisition="run_2", frames=5, raw="beside")
    pair.send(5, first=10)
    status = pair.ended()
    assert (status["acquisition_state"], status["frames_written"]) == ("FINISHED", 5)
    assert status["ledger"]["packets_recorded"] == 0
    assert Ledger.from_dict(status["ledger"]).balance() != []


def test_a_folder_that_cannot_be_made_is_said(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sisockdaq.nexus.starting._raw_obstacles", lambda *_: [])
    (pair.folder / "run_1_raw").write_text("in the way")
    pair.call("start", acquisition="run_1", frames=5, raw="instead")
    status = pair.ended()
    assert status["acquisition_state"] == "FAILED"
    assert "cannot record into" in status["message"]


def test_frames_numbered_by_bunch_are_replayed_by_bunch(network: Network, tmp_path: Path) -> None:
    from sisockdaq.detector.sender import PacketSender

    pair = Pair(network, tmp_path, image_id="bunch_id")
    pair.call("start", acquisition="run_1", frames=3, raw="beside")
    with PacketSender(pair.targets, OPTIONS.datagram_bytes) as sender:
        for number in (1, 2, 3):
            frame = [packets.copy() for packets in pair.simulation.packets(number)]
            for packets in frame:
                packets.reshape(len(packets), -1)[:, 16:24].view("<u8")[:] = 70 + 10 * number
            sender.send_frame(frame)
    status = pair.ended()
    assert status["frames_written"] == 3
    with Recording(Path(status["raw"])) as recording:
        assert recording.frames == [80, 90, 100]
    assert hashes(pair.replayed(Path(status["raw"]), "run_2", 3, seen=3)["master"]) == hashes(status["master"])


def test_a_consumer_sees_every_frame_of_an_acquisition_without_images(pair: Pair) -> None:
    consumer = make_consumer(pair.receiver.frames_address, name="view", reports=False)
    try:
        consumer.next(DEADLINE)
        pair.call("start", acquisition="run_1", frames=4, raw="instead")
        pair.send(4, first=1)
        seen = 0
        while not isinstance(item := consumer.next(DEADLINE), Settled):
            if hasattr(item, "pixels"):
                with item:
                    seen += 1
    finally:
        consumer.close()
    assert seen == 4
    assert item.ledger["frames_recorded"] == 4
