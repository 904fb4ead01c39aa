"""What recorded acquisitions give out: every frame at its place, whatever holds it; what is not there is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import fabio.edfimage
import fabio.tifimage
import h5py
import hdf5plugin
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sisockdaq.errors import ConfigurationError, FileUnreadable
from sisockdaq.nexus.layout import MasterLayout
from sisockdaq.reprocessing import Recorded, open_recorded, ranges
from tests.nexus import data
from tests.nexus.check.test_check import IMAGES, make
from tests.nexus.test_masters import FRAMES, begin, end, write

LOST = (3, 11, 12)


def one(*paths: Path) -> Recorded:
    (opening,) = open_recorded(paths)
    return opening()


@pytest.fixture(params=get_args(MasterLayout))
def master(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A master of every layout, without the frames of `LOST`."""
    files = begin(tmp_path, request.param)
    for index in range(FRAMES):
        if index not in LOST:
            write(files, index)
    return end(files)


def test_every_layout_of_ours_gives_every_frame_at_its_place(master: Path) -> None:
    with one(master) as recorded:
        assert (recorded.name, recorded.total, recorded.shape) == ("run", FRAMES, data.SHAPE)
        assert recorded.present.tolist() == [index for index in range(FRAMES) if index not in LOST]
        assert ranges(recorded.missing()) == "3, 11-12"
        assert recorded.fill_value == data.FILL
        assert recorded.mask is not None
        assert np.argwhere(recorded.mask).tolist() == [[1, 2]]
        assert recorded.about == {
            "sample": "Silberbehenat äöü",
            "instrument": "X06DA",
            "laboratory": "Swiss Light Source",
        }
        for index in recorded.present.tolist():
            frame = recorded.frame(index)
            assert (frame.index, frame.time, frame.number) == (index, data.frame_time(index), 1000 + index)
            np.testing.assert_array_equal(frame.load(), data.image(index))


def test_a_data_file_alone_keeps_the_places_of_its_frames(tmp_path: Path) -> None:
    files = begin(tmp_path, "legacy")
    for index in range(FRAMES):
        write(files, index)
    end(files)
    with one(tmp_path / "run_data_000002.h5") as recorded:
        assert recorded.present.tolist() == list(range(10, 20))
        assert recorded.missing() == []
        np.testing.assert_array_equal(recorded.frame(13).load(), data.image(13))


def test_frames_that_were_cut_off_at_the_end_are_told_only_where_they_were_to_come(tmp_path: Path) -> None:
    files = begin(tmp_path, "legacy", frames=FRAMES)
    for index in range(20):
        write(files, index)
    files.finish()
    files.seal(ended=1.7e9 + 25, reason="stopped", ledger={})
    with one(files.master) as recorded:
        assert recorded.total == 20
        assert recorded.missing() == []


@pytest.mark.parametrize("layout", ["legacy", "integrated"])
def test_a_file_that_grows_or_was_left_gives_what_was_committed(tmp_path: Path, layout: MasterLayout) -> None:
    files = begin(tmp_path, layout)
    for index in range(7):
        write(files, index)
    files.commit(0.0)
    with one(files.master) as recorded:
        assert "still grows" in recorded.note
        assert recorded.present.tolist() == list(range(7))
        np.testing.assert_array_equal(recorded.frame(6).load(), data.image(6))
    for entry in files._open.values():
        entry.file.abandon()  # as its writer's death would leave it
    with one(files.master) as recorded:
        assert "left by a writer" in recorded.note
        assert len(recorded.present) == 7


def test_a_missing_data_file_is_named(master: Path) -> None:
    data_file = master.with_name("run_data_000002.h5")
    if not data_file.exists():
        pytest.skip("an integrated master has no data files")
    data_file.unlink()
    with pytest.raises(FileUnreadable, match=r"run_data_000002\.h5, which is not there"):
        one(master)


def test_a_strangers_master_is_read_and_its_times_are_made_of_its_frame_time(tmp_path: Path) -> None:
    path = make(tmp_path)
    with h5py.File(path, "r+", locking=False) as file:
        detector = file["/entry/instrument/detector"]
        detector["frame_time"] = 0.25
        mask = detector["pixel_mask"][()]
        mask[2, 3] = 1
        detector["pixel_mask"][...] = mask
    with one(path) as recorded:
        assert recorded.present.tolist() == list(range(IMAGES))
        assert recorded.fill_value == 65535
        assert recorded.mask is not None
        assert recorded.mask[2, 3]
        times = [recorded.frame(index).time for index in range(IMAGES)]
        assert np.diff(times).tolist() == [0.25, 0.25]
        np.testing.assert_array_equal(recorded.frame(1).load().ravel(), np.arange(60, 120))


@pytest.mark.parametrize(
    "options",
    [
        {"chunks": (2, 4, 4), "compression": "gzip"},
        {"chunks": (1, 6, 10), "compression": "gzip"},
        {"chunks": (1, 6, 10), **hdf5plugin.Bitshuffle(cname="none")},
        {"chunks": None},
    ],
)
def test_other_chunks_and_filters_are_read_through_hdf5(tmp_path: Path, options: dict[str, Any]) -> None:
    images = np.arange(240, dtype="<i4").reshape(4, 6, 10)
    with h5py.File(tmp_path / "x.nxs", "w") as file:
        file.create_dataset("entry/data/data", data=images, **options)
    with one(tmp_path / "x.nxs") as recorded:
        assert (recorded.name, recorded.fill_value) == ("x", np.iinfo(np.int32).min)
        np.testing.assert_array_equal([recorded.frame(index).load() for index in range(4)], images)


def test_image_files_are_one_acquisition_by_their_numbers(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 1000, (5, 6, 10)).astype(np.uint16)
    numbers = [7, 8, 10, 11, 100]
    paths = []
    for number, image in zip(numbers, images, strict=True):
        paths.append(tmp_path / f"agbh_{number:04d}.tif")
        fabio.tifimage.TifImage(data=image).write(str(paths[-1]))
    with one(*reversed(paths)) as recorded:
        assert (recorded.name, recorded.total) == ("agbh", 94)
        assert recorded.present.tolist() == [0, 1, 3, 4, 93]
        assert ranges(recorded.missing()) == "2, 5-92"
        assert recorded.wanted(slice(1, 50)).tolist() == [1, 3, 4]
        assert [recorded.frame(index).number for index in recorded.present] == numbers
        np.testing.assert_array_equal([recorded.frame(index).load() for index in recorded.present], images)


def test_one_file_of_several_images_is_an_acquisition(tmp_path: Path) -> None:
    image = fabio.edfimage.EdfImage(data=np.zeros((6, 10), np.uint16))
    image.append_frame(data=np.ones((6, 10), np.uint16))
    image.write(str(tmp_path / "both.edf"))
    with one(tmp_path / "both.edf") as recorded:
        assert recorded.present.tolist() == [0, 1]
        assert [int(recorded.frame(index).load().max()) for index in (0, 1)] == [0, 1]


def test_what_is_no_recording_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "notes_1.txt").write_text("nothing")
    with h5py.File(tmp_path / "empty.h5", "w") as file:
        file["entry/note"] = 1
    for name, reason in (("gone.h5", "no such file"), ("notes_1.txt", "no image"), ("empty.h5", "has no images")):
        with pytest.raises(FileUnreadable, match=rf"{name}.* {reason}"):
            one(tmp_path / name)
    with pytest.raises(FileUnreadable, match="is a folder"):
        one(tmp_path)


@given(
    present=st.sets(st.integers(0, 60)),
    first=st.none() | st.integers(-70, 70),
    last=st.none() | st.integers(-70, 70),
    step=st.integers(1, 5),
    start=st.integers(0, 3),
)
def test_what_is_wanted_and_what_is_missing_are_all(
    present: set[int], first: int | None, last: int | None, step: int, start: int
) -> None:
    class Some(Recorded):
        total = 61

        def _find(self) -> Any:
            return np.array(sorted(each for each in present if each >= start), np.int64)

        def frame(self, index: int) -> Any: ...

        def close(self) -> None: ...

    some = Some()
    some.start = start
    inside = [each for each in range(61)[slice(first, last)] if each >= start]
    wanted = some.wanted(slice(first, last))
    gone = [each for low, high in some.missing(slice(first, last)) for each in range(low, high + 1)]
    assert sorted([*wanted.tolist(), *gone]) == inside
    stepped = some.wanted(slice(first, last, step)).tolist()
    assert stepped == [each for each in range(61)[slice(first, last, step)] if each in set(wanted.tolist())]
    with pytest.raises(ConfigurationError):
        some.wanted(slice(None, None, -1))
