"""The file watcher: files written by fabio, pillow and by hand, half-written ones, real writer and archive."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import fabio.cbfimage
import fabio.edfimage
import fabio.tifimage
import numpy as np
import pytest
from sisockdaq.nodes.file_watcher import FileWatcher

from sisockdaq.errors import ConfigurationError
from sisockdaq.frames import Arm, End, Start
from sisockdaq.testing.network import Network
from sisockdaq.testing.waiting import wait_until
from tests.sources.rig import consumer_of, frames_of, picture, record_to_archive, take

_CLASSES = {"tif": fabio.tifimage.TifImage, "cbf": fabio.cbfimage.CbfImage, "edf": fabio.edfimage.EdfImage}


def bytes_of(pixels: np.ndarray, suffix: str, folder: Path) -> bytes:
    """What a camera writes, made beside the folder that is watched."""
    path = folder / f"made.{suffix}"
    _CLASSES[suffix](data=pixels).write(str(path))
    data = path.read_bytes()
    path.unlink()
    return data


@pytest.fixture
def watched(tmp_path: Path) -> Path:
    folder = tmp_path / "frames"
    folder.mkdir()
    return folder


def start(network: Network, folder: Path, **options: Any) -> Any:
    chosen = {"order_wait": 0.3, "patience": 0.8, "scan_interval": 0.2, **options}
    return network.start(FileWatcher, name="camera", directory=str(folder), **chosen)


def test_from_files_to_the_archive(network: Network, watched: Path, tmp_path: Path) -> None:
    start(network, watched, shape=(20, 30), dtype="int32")

    def send() -> None:
        for number in (1, 2, 4, 3, 5):
            (watched / f"run_{number:04d}.cbf").write_bytes(bytes_of(picture(number, dtype="int32"), "cbf", tmp_path))

    status = record_to_archive(network, "camera", tmp_path / "data", 5, send)
    assert status["frames_written"] == 5
    assert status["ledger"]["frames_complete"] == 5
    for frame in range(5):
        stored = network.client.image("camera::image", run="run_1", frame=frame)
        np.testing.assert_array_equal(stored.values, picture(frame + 1, dtype="int32"))


@pytest.mark.parametrize("suffix", ["tif", "cbf", "edf"])
def test_a_half_written_file_is_tried_again(network: Network, watched: Path, tmp_path: Path, suffix: str) -> None:
    running = start(network, watched, shape=(20, 30), dtype="int32", patience=20)
    data = bytes_of(picture(1, dtype="int32"), suffix, tmp_path)
    consumer = consumer_of(running)
    try:
        consumer.next(20.0)
        path = watched / f"a_7.{suffix}"
        path.write_bytes(data[: len(data) - 100])  # and closed, as by a writer that died or that opens it again
        assert consumer.next(1.0) is None
        with path.open("ab") as file:
            file.write(data[len(data) - 100 :])
        with consumer.next(20.0) as frame:
            assert frame.header.number == 7
            np.testing.assert_array_equal(frame.pixels, picture(1, dtype="int32"))
    finally:
        consumer.close()
    assert running.node.pump.counters()["refused"] == {}


def test_what_is_lost_or_of_no_use_is_counted(network: Network, watched: Path, tmp_path: Path) -> None:
    (watched / "run_0000.tif").write_bytes(bytes_of(picture(0), "tif", tmp_path))  # was there before
    running = start(network, watched, shape=(20, 30), dtype="uint16")
    running.node.pump.arm(Arm("run", 4))
    consumer = consumer_of(running)
    try:
        items = [consumer.next(20.0)]
        assert items[0].acquisition.acquisition == "run"
        for number in (1, 4):
            (watched / f"run_{number:04d}.tif").write_bytes(bytes_of(picture(number), "tif", tmp_path))
        (watched / "run_0003.tif").write_bytes(b"not a picture at all")
        (watched / "run.tif").write_bytes(b"x")
        (watched / "notes_0001.txt").write_bytes(b"x")
        items += take(consumer, End)
    finally:
        consumer.close()
    (watched / "run_0002.tif").write_bytes(bytes_of(picture(2), "tif", tmp_path))
    wait_until(lambda: running.node.pump.counters()["refused"].get("late") == 1, 20, "the late file")
    assert [header.number for header, _ in frames_of(items)] == [1, 4]
    assert [header.index for header, _ in frames_of(items)] == [0, 3]
    assert items[-1].counts["frames_dropped"] == {"not_received": 2}
    assert running.node.pump.counters()["refused"] == {"no_number": 1, "unreadable": 1, "late": 1}


def test_another_name_is_another_series(network: Network, watched: Path, tmp_path: Path) -> None:
    for name in ("a_1", "a_2", "b_1"):
        (watched / f"{name}.edf").write_bytes(bytes_of(picture(3), "edf", tmp_path))
    running = start(network, watched, existing=True, series_as_acquisitions=True, shape=(20, 30), dtype="uint16")
    wait_until(lambda: running.node.ledger(), 20, "the second series")
    assert running.node.ledger() == {
        "acquisition": "a", "reason": "complete", "frames_expected": 2, "frames_complete": 2, "frames_partial": 0,
        "frames_dropped": {}, "messages_refused": {},
    }  # fmt: skip


def test_a_file_that_is_moved_in_and_one_in_a_folder_within_are_found(
    network: Network, watched: Path, tmp_path: Path
) -> None:
    running = start(network, watched, recursive=True)
    (watched / "within").mkdir()
    for number, place in ((1, watched), (2, watched / "within")):
        made = tmp_path / f"r{number}_1.tif.part"
        made.write_bytes(bytes_of(picture(number), "tif", tmp_path))
        made.rename(place / f"r{number}_1.tif")
    wait_until(lambda: running.node.pump.counters()["frames"]["published"] == 2, 20, "both files")


def test_a_fast_camera_loses_nothing(network: Network, watched: Path, tmp_path: Path) -> None:
    running = start(network, watched, shape=(20, 30), dtype="uint16", order_wait=5)
    data = bytes_of(picture(1), "tif", tmp_path)
    running.node.pump.arm(Arm("run", 150))

    def write(first: int) -> None:
        for number in range(first, 151, 3):
            (watched / f"f{number}.tif").write_bytes(data)

    consumer = consumer_of(running)
    try:
        writers = [threading.Thread(target=write, args=(first,)) for first in (1, 2, 3)]
        for writer in writers:
            writer.start()
        items = take(consumer, End)
        for writer in writers:
            writer.join(20.0)
    finally:
        consumer.close()
    assert not any(isinstance(item, Start) for item in items)  # it had begun before this consumer came
    assert [header.number for header, _ in frames_of(items)] == list(range(1, 151))
    assert items[-1].counts["frames_complete"] == 150


def test_a_folder_that_is_not_there_is_named(network: Network, watched: Path) -> None:
    with pytest.raises(ConfigurationError, match="no folder to watch"):
        start(network, watched / "missing")
