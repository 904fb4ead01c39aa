"""What is on disk, as h5py, fabio, silx and the demands of other known readers see it."""

from __future__ import annotations

from pathlib import Path

import fabio
import h5py
import hdf5plugin  # noqa: F401 - registers the filter
import numpy as np
import pytest
import silx.io
import silx.io.nxdata

from sisockdaq.errors import StorageError
from sisockdaq.frames.messages import FrameHeader
from sisockdaq.nexus.fileset import AcquisitionFiles, open_files
from sisockdaq.nexus.nxmx import MasterContent
from sisockdaq.nexus.reader import DataFileReader, read_master
from tests.nexus import data

FACTS = {
    "count_time": 0.0009,
    "frame_time": 0.001,
    "beam_center_x": 3.5,
    "beam_center_y": 4.25,
    "detector_distance": 0.2,
    "pixel_size_x": 75e-6,
    "pixel_size_y": 75e-6,
    "sensor_material": "Si",
    "sensor_thickness": 320e-6,
    "saturation_value": 65534,
    "incident_energy": 12398.419843320026,
    "detector_description": "JUNGFRAU",
    "sample_name": "Silberbehenat äöü",
    "unit_cell": {"a": 78, "b": 78, "c": 39, "alpha": 90, "beta": 90, "gamma": 90},
}


@pytest.fixture
def master(tmp_path: Path) -> Path:
    plan = data.plan(10)
    mask = np.zeros(data.SHAPE, np.uint32)
    mask[1, 2] = 256
    content = MasterContent("run", plan.image, FACTS, frames_requested=25, started=1.7e9, mask=mask)
    files = AcquisitionFiles(tmp_path, "run", plan, content)
    for index in range(25):
        files.write_image(index, data.payload(index), data.header(index), now=0.0)
        files.write_results("integrator", index, data.frame_time(index), data.results(index))
    files.finish()
    files.seal(ended=1.7e9 + 25, reason="complete", ledger={"frames_expected": 25, "frames_dropped": {"ring_full": 0}})
    return files.master


def test_h5py_reads_images_through_the_masters_links(master: Path) -> None:
    with h5py.File(master) as file:
        assert list(file["/entry/data"]) == ["data_000001", "data_000002", "data_000003"]
        images = np.concatenate([file[f"/entry/data/data_{number:06d}"][()] for number in (1, 2, 3)])
        np.testing.assert_array_equal(images, [data.image(index) for index in range(25)])
        series = file["/entry/series/data_000002/integrator"]
        np.testing.assert_array_equal(series["curve"][3], data.results(13)[: data.BINS])
        last = file["/entry/data/data_000003"]
        assert (last.attrs["image_nr_low"], last.attrs["image_nr_high"]) == (21, 25)
        assert last.chunks == (1, *data.SHAPE)


def test_fabio_and_silx_open_the_acquisition(master: Path) -> None:
    with fabio.open(str(master)) as image:
        assert image.nframes == 25
        np.testing.assert_array_equal(image.getframe(24).data, data.image(24))
    with silx.io.open(str(master)) as file:
        shown = silx.io.nxdata.get_default(file)
        assert shown is not None
        assert shown.signal.shape == (10, *data.SHAPE)
    with silx.io.open(str(master.with_name("run_data_000001.h5"))) as file:
        curves = silx.io.nxdata.get_default(file["/entry/series/integrator"])
        assert curves is not None
        assert curves.signal.shape == (10, data.BINS)
        np.testing.assert_array_equal(curves.axes[1][()], [0, 0.5, 1, 1.5, 2])


def test_the_master_has_what_nxmx_and_known_readers_demand(master: Path) -> None:
    with h5py.File(master) as file:
        detector, entry = file["/entry/instrument/detector"], file["/entry"]
        assert entry["definition"][()] == b"NXmx"
        assert entry["start_time"][()] == b"2023-11-14T22:13:20.000000Z"
        assert entry["end_time"][()] == entry["end_time_estimated"][()] == b"2023-11-14T22:13:45.000000Z"
        specific = detector["detectorSpecific"]
        assert specific["nimages"][()] * specific["ntrigger"][()] == 25
        assert (specific["x_pixels_in_detector"][()], specific["y_pixels_in_detector"][()]) == (16, 8)
        mask = detector["pixel_mask"]
        assert mask == specific["pixel_mask"]
        assert mask.chunks is None
        assert mask.dtype == np.uint32
        assert mask[1, 2] == mask[()].sum() == 256
        assert detector["x_pixel_size"][()] == 75e-6
        assert detector["x_pixel_size"].attrs["units"] == b"m"
        assert detector["distance"][()] == detector["detector_distance"][()] == 0.2
        assert detector["error_value"][()] == data.FILL
        assert file["/entry/instrument/beam/incident_wavelength"][()] == pytest.approx(1.0)
        assert list(file["/entry/sample/unit_cell"]) == [78, 78, 39, 90, 90, 90]
        assert file["/entry/sample/name"][()].decode() == "Silberbehenat äöü"
        assert file["/entry/ledger/frames_dropped/ring_full"][()] == 0


def test_every_group_has_its_class_and_every_string_a_fixed_length(master: Path) -> None:
    def check(path: Path) -> None:
        with h5py.File(path) as file:

            def look(name: str, item: h5py.HLObject) -> None:
                if isinstance(item, h5py.Group):
                    assert "NX_class" in item.attrs, name
                for key in item.attrs:
                    kind = item.attrs.get_id(key).get_type()
                    assert not (isinstance(kind, h5py.h5t.TypeStringID) and kind.is_variable_str()), (name, key)
                if isinstance(item, h5py.Dataset):
                    kind = item.id.get_type()
                    assert not (isinstance(kind, h5py.h5t.TypeStringID) and kind.is_variable_str()), name

            file.visititems(look)

    check(master)
    check(master.with_name("run_data_000001.h5"))


def test_the_chain_of_transformations_ends(master: Path) -> None:
    with h5py.File(master) as file:
        for name in ("fast_pixel_direction", "slow_pixel_direction"):
            step, seen = f"/entry/instrument/detector/module/{name}", []
            while step != ".":
                seen.append(step)
                assert file[step].attrs["transformation_type"] == b"translation"
                assert len(file[step].attrs["vector"]) == 3
                step = file[step].attrs["depends_on"].decode()
            assert len(seen) == 3


def test_a_master_is_there_from_the_beginning_and_links_only_what_exists(tmp_path: Path) -> None:
    plan = data.plan(10, results=False)
    files = AcquisitionFiles(tmp_path, "run", plan, MasterContent("run", plan.image, FACTS, frames_requested=25))
    assert read_master(files.master).files == ()
    for index in range(12):
        files.write_image(index, data.payload(index), data.header(index), now=0.0)
    summary = read_master(files.master)
    assert summary.files == ("run_data_000001.h5", "run_data_000002.h5")
    assert (summary.ended, summary.ledger, summary.frames_requested) == (None, None, 25)
    files.finish()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("committed", [0, 4])
def test_a_file_that_was_only_begun_lends_no_rows_to_the_one_before(tmp_path: Path, committed: int) -> None:
    plan = data.plan(10)
    files = AcquisitionFiles(tmp_path, "run", plan, MasterContent("run", plan.image, started=1.7e9))
    for index in range(12):
        if index == committed:
            files.commit(0.0)
        files.write_image(index, data.payload(index), data.header(index), now=0.0)
    for entry in files._open.values():
        entry.file.abandon()  # as a writer that is killed before the next commit leaves them
    again = AcquisitionFiles(tmp_path, "run", plan, MasterContent("run", plan.image), resume=True)
    assert (again.images, again.next_index) == (committed, committed)
    again.finish()
    with h5py.File(again.master) as file:
        images = [image for name in sorted(file["entry/data"]) for image in file[f"entry/data/{name}"][()]]
    assert len(images) == committed
    for index, image in enumerate(images):
        np.testing.assert_array_equal(image, data.image(index))


def test_late_results_find_their_file_and_too_late_ones_are_counted(tmp_path: Path) -> None:
    plan = data.plan(10)
    files = AcquisitionFiles(tmp_path, "run", plan, MasterContent("run", plan.image))
    for index in range(15):
        files.write_image(index, data.payload(index), data.header(index), now=0.0)
    for index in range(9):
        files.write_results("integrator", index, data.frame_time(index), data.results(index))
    files.commit(now=1.0)
    assert files.closed == []
    files.write_results("integrator", 9, data.frame_time(9), data.results(9))
    files.commit(now=1.1)
    assert [closed.number for closed in files.closed] == [1]
    for index in range(15, 10 * (open_files(10) + 2) + 1):
        files.write_image(index, data.payload(index), data.header(index), now=2.0)
    assert not files.write_results("integrator", 11, data.frame_time(11), data.results(11))
    files.finish()
    assert files.results_late == 1


@pytest.mark.parametrize(("images_per_file", "expected"), [(1000, 3), (100, 4), (25, 12), (10, 27), (1, 32)])
def test_small_files_stay_open_for_results_as_well(images_per_file: int, expected: int) -> None:
    assert open_files(images_per_file) == expected


def test_results_may_come_before_their_image(tmp_path: Path) -> None:
    plan = data.plan(10)
    files = AcquisitionFiles(tmp_path, "run", plan, MasterContent("run", plan.image))
    for index in range(12):
        assert files.write_results("integrator", index, data.frame_time(index), data.results(index))
    for index in range(12):
        files.write_image(index, data.payload(index), data.header(index), now=0.0)
    files.finish()
    with DataFileReader(tmp_path / "run_data_000002.h5") as file:
        assert list(file.times("integrator")) == [data.frame_time(10), data.frame_time(11)]


def test_an_overtaken_frame_goes_to_its_own_row(tmp_path: Path) -> None:
    plan = data.plan(10)
    files = AcquisitionFiles(tmp_path, "run", plan, MasterContent("run", plan.image))
    for index in (0, 2, 4, 3, 1):
        files.write_image(index, data.payload(index), data.header(index), now=0.0)
        files.write_results("integrator", index, data.frame_time(index), data.results(index))
        files.commit(0.0)
    files.finish()
    with DataFileReader(tmp_path / "run_data_000001.h5") as file:
        assert list(file.times("receiver")) == [data.frame_time(index) for index in range(5)]
        for row in range(5):
            np.testing.assert_array_equal(file.image(row), data.image(row))


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    plan = data.plan(10)
    with pytest.raises(StorageError, match="cannot be prepared"):
        AcquisitionFiles(tmp_path / "file" / "sub", "run", plan, MasterContent("run", plan.image))


def test_an_empty_acquisition_has_a_master_and_no_data_file(tmp_path: Path) -> None:
    plan = data.plan(10)
    files = AcquisitionFiles(tmp_path, "run", plan, MasterContent("run", plan.image, FACTS))
    files.finish(0)
    files.seal(ended=1.0, reason="stopped", ledger=None)
    assert read_master(files.master).files == ()


def test_packet_counts_and_times_are_those_of_the_header(tmp_path: Path) -> None:
    plan = data.plan(10, results=False)
    files = AcquisitionFiles(tmp_path, "run", plan, MasterContent("run", plan.image))
    header = FrameHeader(77, 0.1 + 0.2, 0.4, 0, 16, 16, 5.0, 6.0, 2**63 + 1)
    files.write_image(0, data.payload(0), header, now=0.0)
    files.finish()
    with h5py.File(tmp_path / "run_data_000001.h5") as file:
        group = file["/entry/series/receiver"]
        assert group["time"][0] == 0.1 + 0.2
        assert group["timestamp"][0] == 2**63 + 1
        assert (group["frame_number"][0], group["packets_received"][0], group["sum"][0]) == (77, 16, 5.0)
