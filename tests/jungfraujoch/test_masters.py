"""The three layouts of a master, and the metadata in it, as h5py, fabio and silx see them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import fabio
import h5py
import numpy as np
import pytest
import silx.io
import silx.io.nxdata

from sisockdaq.jungfraujoch.metadata import FACTS_ROOM, Metadata
from sisockdaq.nexus.layout import MasterLayout
from sisockdaq.testing import wait_until
from tests.jungfraujoch.conftest import StartWriter, finished
from tests.jungfraujoch.sender import SHAPE, Message, Sender, end, frame, image, start, tagged
from tests.jungfraujoch.test_results import IMAGES, header, results

LAYOUTS: tuple[MasterLayout, ...] = get_args(MasterLayout)
EMPTY = np.full(SHAPE, 65535, "<u2")


def seen_by_fabio(master: Path) -> Any:
    with fabio.open(str(master)) as found:
        return np.array([found.getframe(index).data for index in range(found.nframes)])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_reader_sees_every_image_once(
    sender: Sender, start_writer: StartWriter, tmp_path: Path, layout: MasterLayout
) -> None:
    writer = start_writer(master=layout)
    sender.send(header(count_time=0.5, pixel_mask={"default": tagged(np.eye(*SHAPE, dtype="<u4"))}))
    sender.send({"type": "calibration", "data": {"pedestal": tagged(np.ones(SHAPE, "<u2"))}})
    sender.send(*(frame(index, **results(index)) for index in range(IMAGES)), end())
    assert finished(writer)["message"] == "Completed."
    master = tmp_path / "run_master.h5"
    names = sorted(path.name for path in tmp_path.glob("*.h5"))
    data = [] if layout == "integrated" else [f"run_data_00000{number}.h5" for number in (1, 2, 3)]
    assert names == [*data, "run_master.h5"]
    expected = [image(index) for index in range(IMAGES)]
    np.testing.assert_array_equal(seen_by_fabio(master), expected)
    with silx.io.open(str(master)) as file:
        shown = silx.io.nxdata.get_default(file)
        np.testing.assert_array_equal(shown.signal[()], expected[:4] if layout == "legacy" else expected)
    with h5py.File(master) as file:
        detector = file["entry/instrument/detector"]
        assert detector["detectorSpecific/nimages"][()] == IMAGES
        np.testing.assert_array_equal(detector["pixel_mask"], np.eye(*SHAPE))
        assert detector["calibration/pedestal"][0, 0] == 1
        assert file["entry/end_time"][()] != b""
        assert file["entry/acquisition/end_reason"][()] == b"complete"
        if layout != "legacy":
            assert file["entry/MX/nPeaks"][()].tolist() == list(range(IMAGES))
            assert file["entry/azint/image"][9].tolist() == [9, 10, 11, 12]
            assert file["entry/roi/beam/sum"][()].tolist() == [1000 + index for index in range(IMAGES)]
            np.testing.assert_allclose(file["entry/detector/exptime"], (np.arange(IMAGES) + 1) / 1000)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_exposure_of_the_start_message_is_that_of_images_which_say_none(
    sender: Sender, start_writer: StartWriter, tmp_path: Path, layout: MasterLayout
) -> None:
    writer = start_writer(master=layout)
    images = [frame(index) for index in range(3)]
    for each in images:
        del each["real_time"]
    sender.send(start(images=3, count_time=0.5), *images, end())
    finished(writer)
    place = tmp_path / ("run_data_000001.h5" if layout == "legacy" else "run_master.h5")
    with h5py.File(place) as file:
        assert file["entry/detector/exptime"][()].tolist() == [0.5, 0.5, 0.5]


@pytest.mark.parametrize("layout", ["vds", "integrated"])
def test_missing_images_and_any_order_keep_rows_and_numbers_together(
    sender: Sender, start_writer: StartWriter, tmp_path: Path, layout: MasterLayout
) -> None:
    """A gap, files of which nothing came, the end missing, an image twice."""
    writer = start_writer(master=layout)
    came = [13, 0, 2, 12, 3, 3]
    sender.run(came, images=18)
    status = finished(writer)
    assert (status["images"]["written"], status["images"]["missing"]) == (5, 13)
    assert status["images"]["duplicates"] == 1
    rows = seen_by_fabio(tmp_path / "run_master.h5")
    assert len(rows) == (18 if layout == "integrated" else 16)
    for index, row in enumerate(rows):
        np.testing.assert_array_equal(row, image(index) if index in came else EMPTY)


def test_a_virtual_dataset_shows_images_at_their_rows_while_files_before_are_missing(
    sender: Sender, start_writer: StartWriter, tmp_path: Path
) -> None:
    writer = start_writer(master="vds")
    sender.send(start(images=20), frame(13))
    wait_until(lambda: (tmp_path / "run_master.h5").exists())
    with h5py.File(tmp_path / "run_master.h5") as file:
        rows = file["entry/data/data"]
        assert len(rows) == 14
        np.testing.assert_array_equal(rows[13], image(13))
        np.testing.assert_array_equal(rows[5], EMPTY)
    sender.send(end())
    finished(writer)


def test_one_file_is_not_made_of_images_that_go_to_several_receivers(
    sender: Sender, start_writer: StartWriter, tmp_path: Path
) -> None:
    writer = start_writer(master="integrated")
    sender.send(start(images=2, write_master_file=False), frame(0), end())
    wait_until(lambda: "shares the images between receivers" in writer.status()["message"])
    assert "vds" in writer.status()["message"]
    assert list(tmp_path.glob("*.h5")) == []


def test_one_file_takes_no_wild_jump_and_goes_on(sender: Sender, start_writer: StartWriter, tmp_path: Path) -> None:
    writer = start_writer(master="integrated")
    sender.send(start(images=2**31), frame(0), frame(2**30), frame(1), end(max_image_number=2))
    status = finished(writer)
    assert (status["images"]["written"], status["images"]["out_of_range"]) == (2, 1)
    sender.run(range(3), prefix="next", series_unique_id="one")
    finished(writer, "next")
    np.testing.assert_array_equal(seen_by_fabio(tmp_path / "next_master.h5"), [image(index) for index in range(3)])


def test_a_cancelled_single_file_is_readable(sender: Sender, start_writer: StartWriter, tmp_path: Path) -> None:
    writer = start_writer(master="integrated")
    sender.send(start(images=100), *(frame(index) for index in range(6)))
    wait_until(lambda: writer.status()["images"].get("safe") == 6)
    np.testing.assert_array_equal(  # by another process: HDF5 in this one knows the file as it is written
        _rows_by_another(tmp_path / "run_master.h5"), [6, 48 * 32]
    )
    writer.cancel()
    rows = seen_by_fabio(tmp_path / "run_master.h5")
    np.testing.assert_array_equal(rows[:6], [image(index) for index in range(6)])
    assert (rows[6:] == EMPTY).all()


def _rows_by_another(path: Path) -> list[int]:
    code = "import sys, h5py; d = h5py.File(sys.argv[1])['entry/data/data']; print(len(d), d.shape[1] * d.shape[2])"
    found = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    return [int(word) for word in found.stdout.split()]


def metadata(*indices: int, **facts: Any) -> Message:
    images = [{"image_id": i, "bkg_estimate": i / 2, "real_time": [1, 4], "spots": [], "text": "x"} for i in indices]
    return {"type": "metadata", "series_id": 1, "series_unique_id": "one", "images": images, **facts}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_metadata_stand_in_the_master_at_the_end(
    sender: Sender, start_writer: StartWriter, tmp_path: Path, layout: MasterLayout
) -> None:
    writer = start_writer(master=layout)
    sender.send(start(images=3), frame(0), metadata(0, 1, rotation="off"), frame(1), frame(2))
    sender.send(metadata(2, rotation="on", dataset={"name": "x"}), metadata(7, series_unique_id="other"), end())
    status = finished(writer)
    counts = status["images"]
    assert (status["messages"]["metadata"], status["messages"]["metadata_strays"]) == (3, 1)
    assert counts["metadata_images"] == 3
    with h5py.File(tmp_path / "run_master.h5") as file:
        group = file["entry/metadata"]
        assert json.loads(group["json"][()]) == {"rotation": "on", "dataset": {"name": "x"}}
        if layout == "integrated":
            assert "images" not in group
            assert "an integrated master has no place" in status["message"]
            assert counts["metadata_left_out"] == 6 + 6
        else:
            assert group["images/image_id"][()].tolist() == [0, 1, 2]
            assert group["images/bkg_estimate"][()].tolist() == [0, 0.5, 1]
            assert group["images/real_time"][()].tolist() == [0.25] * 3
            assert counts["metadata_left_out"] == 6  # lists and texts
    np.testing.assert_array_equal(seen_by_fabio(tmp_path / "run_master.h5"), [image(index) for index in range(3)])


def test_metadata_have_limits_and_take_anything() -> None:
    kept = Metadata()
    odd = [None, 5, {}, {"image_id": -1}, {"image_id": True}, {"image_id": 2**63}, {"image_id": 1, "a/b": 1, "a_b": 2}]
    kept.add({"long": "x" * FACTS_ROOM, "images": odd, "mask": None, "array": [1, [float("nan")]]})
    kept.add({"images": "none"})
    kept.add({"images": [{"image_id": 2, **{f"k{number}": 1 for number in range(40)}}]})
    assert (kept.images, kept.left_out) == (2, 1 + 6 + 1 + 9)
    tree = kept.tree()
    assert tree is not None
    assert json.loads(tree.items["json"].value) == {"mask": None, "array": [1, [None]]}  # type: ignore[union-attr, arg-type]
    columns = tree.items["images"].items  # type: ignore[union-attr]
    assert columns["a_b"].value[0] == 1  # type: ignore[union-attr, index]
    assert np.isnan(columns["a_b"].value[1])  # type: ignore[union-attr, index]
    assert Metadata().tree() is None
