"""Whatever comes, nothing hangs, closed files stay valid, and what is missing is filled and counted."""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path
from typing import Any

import cbor2
import h5py
import numpy as np
import pytest

from sisockdaq.jungfraujoch import StreamWriter
from sisockdaq.testing import wait_until
from tests.jungfraujoch.conftest import StartWriter, finished, images_of
from tests.jungfraujoch.sender import SHAPE, Sender, end, frame, image, payload, start, tagged

EMPTY = np.full(SHAPE, 65535, "<u2")


def works(sender: Sender, writer: StreamWriter, folder: Path) -> None:
    """The next series is written as if nothing had been."""
    sender.run(range(5), prefix="next", series_unique_id="one")
    assert finished(writer, "next")["message"] == "Completed."
    np.testing.assert_array_equal(images_of(folder, "next"), [image(index) for index in range(5)])


def test_missing_images_are_filled_and_counted(sender: Sender, start_writer: StartWriter, tmp_path: Path) -> None:
    writer = start_writer()
    sender.run([0, 2, 3, 12, 13], images=18)  # a gap, two files of which nothing came, and the end
    status = finished(writer)
    assert status["images"]["missing"] == 13
    assert status["message"] == "Completed, 13 images are missing."
    assert status["progress"] == pytest.approx(5 / 18)
    rows = images_of(tmp_path)
    assert len(rows) == 16
    for index, row in enumerate(rows):
        np.testing.assert_array_equal(row, image(index) if index in (0, 2, 3, 12, 13) else EMPTY)
    works(sender, writer, tmp_path)


@pytest.mark.parametrize(("dtype", "given", "fill"), [("<i2", None, -32768), ("<u2", 77, 77), ("<u2", 70000, 65535)])
def test_the_error_value_is_the_senders_or_the_types(
    sender: Sender, start_writer: StartWriter, tmp_path: Path, dtype: str, given: Any, fill: int
) -> None:
    writer = start_writer()
    more = {} if given is None else {"error_value": given}
    header = start(images=3, **more)
    del header["image_dtype"]
    sender.send(header, frame(2, tagged(image(2, dtype))), end())
    finished(writer)
    assert (images_of(tmp_path)[:2] == fill).all()


def test_the_detector_says_how_many_it_took(sender: Sender, start_writer: StartWriter, tmp_path: Path) -> None:
    writer = start_writer()
    sender.send(start(images=1000), frame(0), frame(1), end(max_image_number=3))
    status = finished(writer)
    assert (status["images"]["expected"], status["images"]["missing"]) == (3, 1)
    assert len(images_of(tmp_path)) == 3


def test_duplicates_count_once(sender: Sender, start_writer: StartWriter, tmp_path: Path) -> None:
    writer = start_writer()
    sender.send(start(images=6), *(frame(i) for i in (0, 1, 1, 2)), frame(0, tagged(image(9))))
    sender.send(*(frame(i) for i in (3, 3, 4, 5)), end())
    status = finished(writer)
    assert status["images"]["written"] == 6
    assert status["images"]["duplicates"] + status["images"]["late"] == 3
    np.testing.assert_array_equal(images_of(tmp_path), [image(index) for index in range(6)])


def test_any_order(sender: Sender, start_writer: StartWriter, tmp_path: Path) -> None:
    writer = start_writer()
    order = [int(i) for i in np.random.default_rng(3).permutation(24)]
    sender.run(order, images=24)
    assert finished(writer)["message"] == "Completed."
    np.testing.assert_array_equal(images_of(tmp_path), [image(index) for index in range(24)])


def test_an_image_far_too_late_is_counted(sender: Sender, start_writer: StartWriter, tmp_path: Path) -> None:
    """More files are begun after it than may be open at once."""
    writer = start_writer()
    sender.run([1, *(index for index in range(4, 60) if index % 4), 0], images=60)
    status = finished(writer)
    assert status["images"]["late"] == 1
    assert status["images"]["written"] + status["images"]["missing"] == 60


@pytest.mark.parametrize("shape", [(0, 48), (32, 0), (0, 0)])
def test_zero_size_images(sender: Sender, start_writer: StartWriter, tmp_path: Path, shape: tuple[int, int]) -> None:
    writer = start_writer()
    sender.send(start(images=2), frame(0, tagged(np.zeros(shape, "<u2"))), frame(1), end())
    status = finished(writer)
    assert (status["images"]["refused"], status["images"]["written"]) == (1, 1)
    assert "no pixels" in status["message"]
    sender.send(start("zero", image_size_x=0), frame(0), end())
    wait_until(lambda: "image_size_x is 0" in writer.status()["message"])
    works(sender, writer, tmp_path)


def test_numbers_out_of_range(sender: Sender, start_writer: StartWriter, tmp_path: Path) -> None:
    writer = start_writer()
    odd = [frame(2), frame(3), frame(2**40), frame(2**63), frame(-1), {**frame(0), "image_id": 1.5}]
    sender.send(start(images=2), frame(0), *odd, frame(1), end())
    status = finished(writer)
    assert (status["images"]["written"], status["images"]["out_of_range"]) == (2, 4)
    assert status["messages"]["unreadable"] == 2
    works(sender, writer, tmp_path)


def test_without_an_announced_number_a_wild_jump_is_left_out(
    sender: Sender, start_writer: StartWriter, tmp_path: Path
) -> None:
    writer = start_writer()
    sender.send(start(images=None), frame(0), frame(10**9), frame(1), end())
    status = finished(writer)
    assert (status["images"]["written"], status["images"]["out_of_range"]) == (2, 1)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"number_of_images": -1}, "number_of_images is -1"),
        ({"number_of_images": 2**70}, "number_of_images"),
        ({"images_per_file": 10**9}, "images_per_file"),
        ({"images_per_file": "many"}, "images_per_file is many"),
        ({"image_size_x": 2**31}, "image_size_x"),
        ({"image_size_x": 2**20, "image_size_y": 2**20}, "pixels are possible"),
        ({"image_dtype": "complex64"}, "complex64"),
        ({"error_value": "none"}, "error_value"),
        ({"pixel_mask": {"default": tagged(np.zeros((2, 2), "<u4"))}}, "pixel_mask is (2, 2)"),
    ],
)
def test_a_senseless_header_is_refused_with_the_reason(
    sender: Sender, start_writer: StartWriter, tmp_path: Path, more: dict[str, Any], reason: str
) -> None:
    writer = start_writer()
    sender.send({**start("odd"), **more}, frame(0), frame(1), end())
    wait_until(lambda: writer.status()["messages"]["discarded"] == 2)
    status = writer.status()
    assert reason in status["message"]
    assert not status["synchronised"]
    assert list(tmp_path.iterdir()) == []
    works(sender, writer, tmp_path)


@pytest.mark.parametrize(
    "more", [{"sensor_material": {"a": 1}}, {"beam_center_x": "left"}, {"count_time": 2**80}, {"sample_name": [[1], 2]}]
)
def test_a_senseless_fact_costs_no_image(
    sender: Sender, start_writer: StartWriter, tmp_path: Path, more: dict[str, Any]
) -> None:
    writer = start_writer()
    sender.send(start("odd", 2, **more), frame(0), frame(1), end())
    assert finished(writer, "odd")["images"]["written"] == 2
    with h5py.File(tmp_path / "odd_data_000001.h5") as file:
        np.testing.assert_array_equal(file["entry/data/data"][:2], [image(0), image(1)])
    works(sender, writer, tmp_path)


def test_an_image_of_another_kind_is_left_out(sender: Sender, start_writer: StartWriter, tmp_path: Path) -> None:
    writer = start_writer()
    wrong = [tagged(image(1, "<u4")), tagged(image(1, shape=(4, 4))), tagged(np.zeros((2, 2, 2), "<u2"))]
    sender.send(start(images=2), *(frame(1, each) for each in wrong), frame(0), frame(1), end())
    status = finished(writer)
    assert (status["images"]["written"], status["images"]["refused"]) == (2, 3)


def test_a_lost_end_is_noticed_by_the_next_start(sender: Sender, start_writer: StartWriter, tmp_path: Path) -> None:
    writer = start_writer()
    sender.send(start("first", 10), frame(0), frame(1))
    sender.send({**start("second", 2), "series_unique_id": "two"})
    sender.send(*({**frame(i), "series_unique_id": "two"} for i in range(2)), end(series_unique_id="two"))
    assert finished(writer, "second")["message"] == "Completed."
    assert writer.status()["messages"]["ends_lost"] == 1
    lost = writer.machine.history[1]
    assert (str(lost.state), lost.frames_written) == ("FAILED", 2)
    assert "no end message came; a new series began" in lost.message
    np.testing.assert_array_equal(images_of(tmp_path, "first")[:2], [image(0), image(1)])


def test_a_lost_end_after_all_images_ends_the_series_in_time(
    sender: Sender, start_writer: StartWriter, tmp_path: Path
) -> None:
    writer = start_writer(end_timeout=0.2)
    sender.send(start(images=3), *(frame(index) for index in range(3)))
    status = finished(writer)
    assert (status["message"], status["messages"]["ends_lost"]) == ("Completed.", 1)


def test_a_sender_that_is_gone_ends_its_series(start_writer: StartWriter, tmp_path: Path, sender: Sender) -> None:
    writer = start_writer(end_timeout=0.2)
    sender.send(start(images=30), frame(0))
    wait_until(lambda: writer.status()["images"].get("written") == 1)
    sender.socket.close(linger=0)
    status = finished(writer)
    assert status["acquisition_state"] == "FAILED"
    assert "the sender has gone" in status["message"]
    assert len(images_of(tmp_path)) == 4


def test_a_new_start_of_the_same_series_is_passed_over(
    sender: Sender, start_writer: StartWriter, tmp_path: Path
) -> None:
    writer = start_writer()
    sender.send(start(images=2), frame(0), start(images=2), frame(1), end())
    status = finished(writer)
    assert (status["message"], status["messages"]["repeated_starts"]) == ("Completed.", 1)


def test_an_end_or_images_without_a_start(sender: Sender, start_writer: StartWriter, tmp_path: Path) -> None:
    writer = start_writer()
    sender.send(end(), frame(0), frame(1), end())
    wait_until(lambda: writer.status()["messages"]["strays"] == 2)
    assert "start message did not come" in writer.status()["desynchronised_by"]
    works(sender, writer, tmp_path)
    assert writer.status()["synchronised"]


def test_broken_messages_are_counted(sender: Sender, start_writer: StartWriter, tmp_path: Path) -> None:
    writer = start_writer()
    good = cbor2.dumps(frame(1))
    large = cbor2.dumps(frame(1, tagged(image(1, shape=(200, 200)))))
    broken = [good[: len(good) // 2], large[: len(large) // 2], large[:-1], b"", b"\xff" * 40, cbor2.dumps([1]),
              cbor2.dumps({"type": "other"}), cbor2.dumps({**frame(1), "data": {}})]  # fmt: skip
    short = tagged(image(1), ("bslz4", payload(image(1))[:5]))
    wrong = tagged(image(1), ("bslz4", payload(image(1, shape=(4, 4)))))
    unknown = tagged(image(1), ("jpeg", b"x" * 100))
    sender.send(start(images=2), *broken, *(frame(1, each) for each in (short, wrong, unknown)), frame(0), frame(1))
    sender.socket.send_multipart([good, b"more"])
    sender.send(end())
    status = finished(writer)
    assert status["images"]["written"] == 2
    assert status["messages"]["unreadable"] == len(broken) + 4
    works(sender, writer, tmp_path)


@pytest.mark.parametrize(
    "prefix", ["", "/etc/run", "../run", "a/../../run", "a/..", "..", "run\0", "link/run", "a/", "x" * 300]
)
def test_no_prefix_leads_out_of_the_root(
    sender: Sender, start_writer: StartWriter, tmp_path: Path, prefix: str
) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (root / "link").symlink_to(outside)
    writer = start_writer(root=root)
    sender.send(start(prefix), frame(0), end())
    wait_until(lambda: writer.status()["messages"]["discarded"] == 1)
    assert writer.status()["messages"]["series_refused"] == 1
    assert list(outside.iterdir()) == []
    assert [path.name for path in root.iterdir()] == ["link"]


def test_existing_files_are_refused_or_replaced(sender: Sender, start_writer: StartWriter, tmp_path: Path) -> None:
    writer = start_writer()
    sender.run(range(3))
    finished(writer)
    before = (tmp_path / "run_data_000001.h5").read_bytes()
    sender.run(range(2))
    wait_until(lambda: writer.status()["messages"]["discarded"] == 2)
    assert "exists" in writer.status()["message"]
    assert (tmp_path / "run_data_000001.h5").read_bytes() == before
    writer.close()
    again = start_writer(overwrite=True)
    sender.run(range(1))
    assert finished(again)["message"] == "Completed."
    assert len(images_of(tmp_path)) == 1


def test_cancel_leaves_files_that_can_be_read(sender: Sender, start_writer: StartWriter, tmp_path: Path) -> None:
    writer = start_writer()
    sender.send(start(images=100), *(frame(index) for index in range(6)))
    wait_until(lambda: writer.status()["images"].get("written") == 6)
    status = writer.cancel()
    assert (status["acquisition_state"], status["message"]) == ("FINISHED", "Interrupted.")
    np.testing.assert_array_equal(images_of(tmp_path)[:6], [image(index) for index in range(6)])
    sender.send(frame(6), frame(7), end())
    wait_until(lambda: writer.status()["messages"]["discarded"] == 2)
    works(sender, writer, tmp_path)
    assert writer.cancel()["file_prefix"] == "next"  # nothing is under way: nothing happens


@pytest.mark.parametrize("per_file", [1000, 0])
def test_a_header_of_a_million_images_costs_no_more(
    sender: Sender, start_writer: StartWriter, tmp_path: Path, per_file: int
) -> None:
    """Time and memory from the start message to the end of the series, with ten images."""
    writer = start_writer(compression="none")
    taken: dict[int, tuple[float, int]] = {}
    for count in (10, 10, 1_000_000, 10, 1_000_000):  # the first is for warming up
        prefix = f"run{len(list(tmp_path.glob('*_master.h5')))}"
        tracemalloc.start()
        begin = time.perf_counter()
        sender.run(range(10), images=count, prefix=prefix, per_file=per_file)
        status = finished(writer, prefix)
        took, peak = time.perf_counter() - begin, tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert status["images"]["written"] == 10
        assert status["images"]["missing"] == count - 10
        best = taken.get(count, (took, peak))
        taken[count] = min(best[0], took), min(best[1], peak)
    (short, little), (long, much) = taken[10], taken[1_000_000]
    assert long < 3 * short + 0.25
    assert much < little + 16 * 2**20


def test_more_images_than_a_master_can_count_are_refused(sender: Sender, start_writer: StartWriter) -> None:
    writer = start_writer()
    sender.send(start(images=2**40), frame(0), end())
    wait_until(lambda: "number_of_images is 1099511627776; 0 to 4294967295" in writer.status()["message"])


def test_a_far_image_of_a_long_series_costs_nothing(sender: Sender, start_writer: StartWriter, tmp_path: Path) -> None:
    writer = start_writer()
    sender.send(start(images=2**32 - 1), frame(0), frame(2**32 - 3), end(max_image_number=2**32 - 1))
    status = finished(writer)
    assert (status["images"]["written"], status["images"]["missing"]) == (2, 2**32 - 3)
    works(sender, writer, tmp_path)
