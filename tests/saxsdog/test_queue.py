"""The queue with its worker processes: half-written and broken files, dying workers, closing, aborting, the lists."""

import contextlib
import json
import os
import signal
import threading
from pathlib import Path

import fabio
import numpy as np
import pytest

from sisockdaq.errors import StorageError
from sisockdaq.saxsdog.calibration import read_calibration
from sisockdaq.saxsdog.chi import chi_text
from sisockdaq.saxsdog.integration import Reduction
from sisockdaq.saxsdog.queue import PictureQueue
from sisockdaq.testing import wait_until
from tests.saxsdog import literal

SHAPE = (40, 31)
DEADLINE = 30.0


def reduction(**changes):
    changes.setdefault("Threads", 1)
    conf = literal.calibration(**changes)
    return Reduction(read_calibration(conf), [np.ones(SHAPE, bool)] * len(conf["Masks"]))


def write_picture(path: Path, seed=0) -> np.ndarray:
    image = np.random.default_rng(seed).integers(0, 100, SHAPE).astype(np.int32)
    path.parent.mkdir(parents=True, exist_ok=True)
    fabio.tifimage.TifImage(image).write(str(path))
    return image


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "frames").mkdir()
    return tmp_path / "frames"


@contextlib.contextmanager
def running(*arguments, **options):
    queue = PictureQueue(*arguments, **options)
    queue.start()
    try:
        yield queue
    finally:
        queue.abort()
        assert queue.pids == []


def test_pictures_become_chi_files_and_are_remembered(folder):
    made = reduction(**{"Masks": [literal.mask(), literal.mask(Oversampling=1)], "Live-Filelisting": True})
    images = {number: write_picture(folder / f"a_{number}.tif", number) for number in range(5)}
    with running(made, folder) as queue:
        assert queue.latest() is None
        assert queue.readdir()
        assert queue.wait_idle(DEADLINE)
        counts = queue.counts()
        assert (counts.processed, counts.failed, counts.waiting, counts.in_hand) == (5, 0, 0, 0)
        assert counts.rate > 0
        state = queue.state()
        assert state.keys() == {"images processed", "queue length", "time", "start time"}
        assert (state["images processed"], state["queue length"]) == (5, 0)
        latest = queue.latest()
        history, parameters, files = queue.history(), queue.integral_parameters(), queue.file_lists()
        live = queue.live_list.read_text().splitlines()
    work = folder.parent / "work"
    assert sorted(path.name for path in work.iterdir()) == sorted(
        f"a_{number}{end}.chi" for number in range(5) for end in ("", "_cR1")
    )
    for number, image in images.items():
        for curve, end in zip(made.reduce(image), ("", "_cR1"), strict=True):
            assert (work / f"a_{number}{end}.chi").read_bytes() == chi_text(curve)
    assert latest["filename"] == str(work / "a_4")
    assert [graph["kind"] for graph in latest["graphs"]] == ["Radial", "Radial"]
    assert latest["graphs"][0]["Image"] == str(folder / "a_4.tif")
    np.testing.assert_array_equal(latest["graphs"][1]["array"], made.reduce(images[4])[1].array)
    assert json.loads(json.dumps(latest))["graphs"][0]["Integparam"].keys() == {"I0", "I1", "I2"}
    assert len(history) == 5
    assert parameters.keys() == {"R0", "R1"}
    assert parameters["R0"].keys() == {"time", "file", "I0", "I1", "I2"}
    place = parameters["R0"]["file"].index(str(work / "a_3"))
    assert parameters["R0"]["I2"][place] == made.reduce(images[3])[0].parameters["I2"]
    assert files["Radial0"] == [str(work / f"a_{number}.chi") for number in range(5)]
    assert files["JSON"][0] == str(work / "a_0.json")
    wanted = made.reduce(images[0])[0].parameters
    assert f"/work/a_0.chi, {wanted['I0']}, {wanted['I1']}, {wanted['I2']}" in live
    assert len(live) == 10


def test_what_has_its_files_is_skipped_unless_they_are_to_be_written_over(folder):
    write_picture(folder / "a.tif")
    (folder.parent / "work").mkdir()
    chi = folder.parent / "work" / "a.chi"
    chi.write_text("old")
    with running(reduction(), folder) as queue:
        queue.put(folder / "a.tif")
        assert queue.wait_idle(DEADLINE)
        assert (queue.counts().skipped, queue.counts().processed) == (1, 1)
        assert queue.file_lists()["Radial0"] == [str(chi)]
    assert chi.read_text() == "old"
    with running(reduction(OverwriteFiles=True), folder) as queue:
        queue.put("a.tif")
        assert queue.wait_idle(DEADLINE)
        assert queue.counts().reduced == 1
    assert chi.read_text().startswith('{"Title"')


def test_only_pictures_below_the_folder_are_taken_and_only_so_many(folder):
    queue = PictureQueue(reduction(), folder, limit=2)
    assert not queue.put(folder / "a.txt")
    assert not queue.put(folder / "../elsewhere/a.tif")
    assert not queue.put(folder / ".hidden.tif")
    assert not queue.put("/etc/a.tif")
    assert queue.put(folder / "a.tif")
    assert queue.put(folder / "a.tif"), "what waits already is taken, and waits once"
    assert queue.put(folder / "sub" / "b.cbf")
    assert not queue.put(folder / "c.edf"), "full"
    assert (queue.counts().waiting, queue.counts().ignored) == (2, 5)
    queue.close()
    assert not queue.put(folder / "d.tif")
    assert not queue.readdir()
    queue.abort()
    assert (queue.counts().waiting, queue.counts().dropped) == (0, 2)


def test_a_half_written_picture_is_tried_until_it_is_whole(folder):
    write_picture(folder / "whole.tif")
    content = (folder / "whole.tif").read_bytes()
    half = folder / "half.tif"
    half.write_bytes(content[: len(content) // 2])
    with running(reduction(), folder) as queue:
        queue.put(half)
        wait_until(lambda: queue.counts().retries >= 2, DEADLINE)
        assert queue.counts().failed == 0
        half.write_bytes(content)
        assert queue.wait_idle(DEADLINE)
        assert (queue.counts().reduced, queue.counts().failed) == (1, 0)


def test_a_broken_picture_has_failed_by_name_and_the_queue_goes_on(folder):
    (folder / "broken.tif").write_bytes(b"no picture")
    fabio.edfimage.EdfImage(np.zeros((3, 4), np.int32)).write(str(folder / "small.edf"))
    for path in folder.iterdir():
        os.utime(path, (0, 0))
    write_picture(folder / "good.tif")
    with running(reduction(), folder, patience=0.3) as queue:
        queue.readdir()
        queue.put("missing.tif")
        assert queue.wait_idle(DEADLINE)
        assert (queue.counts().reduced, queue.counts().failed) == (1, 3)
        reasons = {Path(failure.path).name: failure.reason for failure in queue.failures()}
    assert reasons["small.edf"].startswith("the image is 3 × 4, the calibration says 40 × 31: ")
    assert "No such file" in reasons["missing.tif"]
    assert reasons["broken.tif"]


def test_a_worker_that_dies_is_replaced_and_nothing_is_lost(folder):
    for number in range(4):
        write_picture(folder / f"{number}.tif", number)
    blocked = folder / "blocked.tif"
    os.mkfifo(blocked)  # opening it holds the worker until it is killed
    with running(reduction(), folder) as queue:
        queue.put(blocked)
        for number in range(4):
            queue.put(folder / f"{number}.tif")
        for _ in range(2):
            wait_until(lambda: queue.pids and queue.counts().in_hand, DEADLINE)
            os.kill(queue.pids[0], signal.SIGKILL)
            dead = queue.counts().restarts
            wait_until(lambda dead=dead: queue.counts().restarts > dead, DEADLINE)
        assert queue.wait_idle(DEADLINE)
        counts = queue.counts()
        assert (counts.reduced, counts.failed, counts.restarts) == (4, 1, 2)
        (failure,) = queue.failures()
        assert failure.path == str(blocked)
        assert "SIGKILL" in failure.reason


def test_closing_works_off_what_is_queued_and_ends_the_workers(folder):
    for number in range(20):
        write_picture(folder / f"{number}.tif", number)
    with running(reduction(Threads=2), folder) as queue:
        threads = [
            threading.Thread(target=lambda part=part: [queue.put(f"{number}.tif") for number in range(part, 20, 4)])
            for part in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        queue.close()
        assert not queue.put("1.tif")
        assert queue.wait_idle(DEADLINE)
        assert queue.counts().reduced == 20
        wait_until(lambda: not queue.pids, DEADLINE)
        assert queue.counts().restarts == 0


def test_aborting_finishes_the_picture_in_hand_and_drops_the_rest(folder):
    for number in range(300):
        write_picture(folder / f"{number}.tif", number)
    with running(reduction(), folder) as queue:
        queue.readdir()
        wait_until(lambda: queue.counts().processed > 0, DEADLINE)
        queue.abort()
        counts = queue.counts()
        assert counts.processed + counts.dropped <= 300
        assert (counts.waiting, counts.in_hand, counts.failed) == (0, 0, 0)
    made = list((folder.parent / "work").iterdir())
    assert len(made) == counts.processed
    assert all(path.suffix == ".chi" for path in made), "no half-written file is left"


def test_aborting_waits_for_the_picture_in_hand(folder):
    for number in range(5):
        write_picture(folder / f"{number}.tif", number)
    with running(reduction(**{"Live-Filelisting": True}), folder) as queue:
        queue.live_list.unlink()
        os.mkfifo(queue.live_list)  # opening it holds the worker in the midst of its first picture
        for number in range(5):
            queue.put(f"{number}.tif")
        wait_until(lambda: (folder.parent / "work" / "0.chi").is_file(), DEADLINE)
        ending = threading.Thread(target=queue.abort)
        ending.start()
        wait_until(lambda: queue._leaving, DEADLINE)
        assert queue.counts().processed == 0
        assert ending.is_alive()
        with queue.live_list.open() as reader:
            ending.join(DEADLINE)
            listed = reader.read().splitlines()
        counts = queue.counts()
        assert counts.processed >= 1
        assert counts.dropped >= 1
        assert counts.processed + counts.dropped == 5
        assert len(listed) == counts.processed


def test_one_folder_for_all_results_keeps_pictures_of_subfolders_apart(folder, tmp_path):
    write_picture(folder / "x" / "a.tif")
    write_picture(folder / "y" / "a.tif")
    with running(reduction(), folder, output=tmp_path / "out") as queue:
        queue.readdir()
        assert queue.wait_idle(DEADLINE)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["x_a.chi", "y_a.chi"]


def test_a_live_list_that_cannot_be_written_is_told_at_once(folder):
    (folder.parent / "results").write_text("a file where the folder should be")
    queue = PictureQueue(reduction(**{"Live-Filelisting": True}), folder)
    with pytest.raises(StorageError, match=r"filelist_frames\.log"):
        queue.start()
