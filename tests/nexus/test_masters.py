"""The three layouts of a master, as fabio, silx, nxmx and HDF5 itself see them; nothing here reads with our own reader
but where it is said."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import fabio
import h5py
import hdf5plugin  # noqa: F401 - registers the filters
import numpy as np
import pytest
import silx.io
import silx.io.nxdata

from sisockdaq.errors import StorageError
from sisockdaq.nexus.archive import Archive
from sisockdaq.nexus.datafile import DataFile
from sisockdaq.nexus.fileset import AcquisitionFiles
from sisockdaq.nexus.filters import COMPRESSIONS, filter_of
from sisockdaq.nexus.index import Index
from sisockdaq.nexus.layout import MasterLayout
from sisockdaq.nexus.nxmx import MasterContent, master_tree
from sisockdaq.nexus.reader import DataFileReader, read_master
from sisockdaq.nexus.results import ROI_NUMBERS, rois_plan, spots_plan
from tests.nexus import data
from tests.nexus.test_files import FACTS
from tests.nexus.test_ordered_file import Recorder, apply, assert_rows_whole

LAYOUTS: tuple[MasterLayout, ...] = get_args(MasterLayout)
FRAMES, SPOTS = 25, 4
MORE: dict[str, Any] = {
    **FACTS,
    "instrument_name": "X06DA",
    "source_name": "Swiss Light Source",
    "total_flux": 1e12,
    "goniometer": {"omega": {"start": 10.0, "increment": 0.5}, "phi": {"start": 0, "increment": 0}},
}


def spots(index: int) -> np.ndarray:
    """As many spots as the index says, at most four."""
    number, vector = index % (SPOTS + 1), np.zeros(1 + 3 * SPOTS)
    vector[0] = number
    for list_number in range(3):
        begin = 1 + list_number * SPOTS
        vector[begin : begin + number] = index + 10 * list_number + np.arange(number)
    return vector


def plan(layout: MasterLayout, **changes: Any) -> Any:
    """A plan with results, spots and a region."""
    base = data.plan(10)
    results = (*base.results, spots_plan(SPOTS), rois_plan(["beam"]))
    return replace(base, results=results, master=layout, **changes)


def begin(folder: Path, layout: MasterLayout, *, frames: int | None = FRAMES, **changes: Any) -> AcquisitionFiles:
    """Files of an acquisition with a mask, a flat field and pedestals."""
    chosen = plan(layout, **changes)
    content = MasterContent("run", chosen.image, MORE, frames_requested=frames, started=1.7e9)
    files = AcquisitionFiles(folder, "run", chosen, content)
    mask = np.zeros(data.SHAPE, np.uint32)
    mask[1, 2] = 256
    flat = np.full(data.SHAPE, 1.25, np.float32)
    assert files.calibrate(mask=mask, flatfield=flat, calibration={"pedestal_g0": flat * 2})
    return files


def write(files: AcquisitionFiles, index: int) -> None:
    files.write_image(index, data.payload(index), data.header(index), now=0.0)
    files.write_results("integrator", index, data.frame_time(index), data.results(index))
    files.write_results("spots", index, data.frame_time(index), spots(index))
    files.write_results("roi", index, data.frame_time(index), index + np.arange(6.0))


def end(files: AcquisitionFiles) -> Path:
    files.finish()
    files.seal(ended=1.7e9 + 25, reason="complete", ledger={"frames_expected": FRAMES})
    return files.master


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> MasterLayout:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def master(tmp_path: Path, layout: MasterLayout) -> Path:
    files = begin(tmp_path, layout)
    for index in range(FRAMES):
        write(files, index)
    return end(files)


def expected() -> np.ndarray:
    return np.array([data.image(index) for index in range(FRAMES)])


def test_fabio_and_silx_see_every_image_once(master: Path, layout: MasterLayout) -> None:
    with fabio.open(str(master)) as image:
        assert image.nframes == FRAMES
        np.testing.assert_array_equal([image.getframe(i).data for i in range(FRAMES)], expected())
    with silx.io.open(str(master)) as file:
        shown = silx.io.nxdata.get_default(file)
        assert shown is not None
        rows = 10 if layout == "legacy" else FRAMES
        np.testing.assert_array_equal(shown.signal[()], expected()[:rows])


def test_nxmx_reads_the_same_facts_from_every_layout(master: Path) -> None:
    nxmx = pytest.importorskip("nxmx", reason="the reader of DIALS (PyPI: nxmx) is not installed")
    with h5py.File(master) as file:
        (entry,) = nxmx.NXmx(file).entries
        assert entry.definition == "NXmx"
        assert (entry.end_time - entry.start_time).total_seconds() == 25
        assert entry.end_time_estimated == entry.end_time
        assert entry.source.name == "Swiss Light Source"
        (sample,), (instrument,) = entry.samples, entry.instruments
        assert (sample.name, instrument.name) == ("Silberbehenat äöü", "X06DA")
        (beam,), (detector,) = instrument.beams, instrument.detectors
        assert beam.incident_wavelength.to("angstrom").magnitude == pytest.approx(1.0)
        assert beam.total_flux.to("Hz").magnitude == 1e12
        assert detector.distance.to("m").magnitude == 0.2
        assert detector.sensor_thickness.to("um").magnitude == pytest.approx(320)
        assert (detector.sensor_material, detector.saturation_value) == ("Si", 65534)
        assert detector.count_time.to("ms").magnitude == pytest.approx(0.9)
        assert np.argwhere(detector.pixel_mask[()]).tolist() == [[1, 2]]
        (module,) = detector.modules
        assert module.data_size.tolist() == list(data.SHAPE)
        chain = nxmx.get_dependency_chain(module.fast_pixel_direction)
        origin = nxmx.get_cumulative_transformation(chain)[0] @ [0, 0, 0, 1]
        # One pixel along fast, from (3.5, 4.25) pixels off the beam, 200 mm behind the sample [mm].
        np.testing.assert_allclose(origin[:3], [(3.5 - 1) * 0.075, 4.25 * 0.075, 200])
        turned = nxmx.get_cumulative_transformation(nxmx.get_dependency_chain(sample.depends_on))
        angles = np.degrees(np.arctan2(turned[:, 1, 2], turned[:, 1, 1]))
        np.testing.assert_allclose(angles, 10 + 0.5 * np.arange(FRAMES))
        group = entry.data[0]
        name = group.signal if isinstance(group.signal, str) else group.signal.decode()
        np.testing.assert_array_equal(group[name][0], data.image(0))


def test_every_layout_is_what_the_strictest_readers_take(master: Path) -> None:
    for path in (master, *master.parent.glob("run_data_*.h5")):
        assert path.read_bytes()[8] == 0, "superblock of version 0"
    with h5py.File(master) as file:
        detector = file["/entry/instrument/detector"]
        mask = detector["pixel_mask"]
        assert mask == detector["detectorSpecific/pixel_mask"]
        assert mask.id.get_create_plist().get_layout() == h5py.h5d.CONTIGUOUS
        assert mask.dtype == np.uint32
        np.testing.assert_array_equal(detector["flatfield"], np.full(data.SHAPE, 1.25))
        np.testing.assert_array_equal(detector["calibration/pedestal_g0"], np.full(data.SHAPE, 2.5))
        specific = detector["detectorSpecific"]
        assert specific["nimages"][()] * specific["ntrigger"][()] == FRAMES
        classes: list[tuple[str, bytes]] = []

        def look(name: str, item: h5py.HLObject) -> None:
            if isinstance(item, h5py.Group):
                classes.append((name, item.attrs["NX_class"]))
            types = [item.attrs.get_id(key).get_type() for key in item.attrs]
            types += [item.id.get_type()] if isinstance(item, h5py.Dataset) else []
            for kind in types:
                assert not (isinstance(kind, h5py.h5t.TypeStringID) and kind.is_variable_str()), name

        file.visititems(look)
        last = {nx_class: name for name, nx_class in classes}
        assert last[b"NXdata"] == "entry/data", "XDS' durin takes the last one, DIALS the first"
        assert [nx_class for _, nx_class in classes].count(b"NXdata") == 1
        assert last[b"NXdetector"] == "entry/instrument/detector"


def test_results_are_where_programs_look_for_them(master: Path, layout: MasterLayout) -> None:
    paths = [master] if layout != "legacy" else sorted(master.parent.glob("run_data_*.h5"))
    files = [h5py.File(path) for path in paths]

    def read(name: str) -> np.ndarray:
        return np.concatenate([file[name][()] for file in files])

    found = read("/entry/MX/nPeaks")
    assert found.dtype.kind in "iu"
    assert found.tolist() == [index % 5 for index in range(FRAMES)]
    for number, name in enumerate(("peakXPosRaw", "peakYPosRaw", "peakTotalIntensity")):
        lists = read(f"/entry/MX/{name}")
        assert lists.shape == (FRAMES, SPOTS)
        for index in range(FRAMES):
            begin = 1 + number * SPOTS
            np.testing.assert_array_equal(lists[index], spots(index)[begin : begin + SPOTS])
    np.testing.assert_array_equal(read("/entry/azint/image")[7], data.results(7)[: data.BINS])
    np.testing.assert_array_equal(read("/entry/azint/sigma")[7], data.results(7)[data.BINS : 2 * data.BINS])
    assert files[0]["/entry/azint/bin_to_q"][()].tolist() == [0, 0.5, 1, 1.5, 2]
    assert files[0]["/entry/azint/bin_to_q"].attrs["units"] == b"nm^-1"
    for number, name in enumerate(ROI_NUMBERS):
        assert read(f"/entry/roi/beam/{name}").tolist() == [index + number for index in range(FRAMES)]
    assert read("/entry/detector/number").tolist() == [1000 + index for index in range(FRAMES)]
    assert read("/entry/detector/timestamp").tolist() == [1000 * index for index in range(FRAMES)]
    assert set(read("/entry/detector/exptime")) == {FACTS["count_time"]}
    assert set(read("/entry/detector/packets_expected")) == set(read("/entry/detector/packets_received")) == {16}
    for file in files:
        file.close()


def test_our_own_reader_and_archive_take_every_layout(master: Path, layout: MasterLayout) -> None:
    summary = read_master(master)
    names = [f"run_data_{number:06d}.h5" for number in (1, 2, 3)]
    assert list(summary.files) == ([master.name] if layout == "integrated" else names)
    assert (summary.layout, summary.images_written, summary.ended) == (layout, FRAMES, 1.7e9 + 25)
    assert summary.ledger == {"frames_expected": FRAMES}
    archive = Archive(master.parent, Index(None))
    try:
        archive.scan()
        (acquisition,) = archive.acquisitions()
        assert (acquisition["frames"], acquisition["state"], acquisition["end_reason"]) == (
            FRAMES,
            "finished",
            "complete",
        )
        image = archive.image("run", 17).samples["image"]
        np.testing.assert_array_equal(image.values[0], data.image(17))
        total = archive.get(["integrator::total"], 0, 2e9).samples["integrator::total"]
        np.testing.assert_array_equal(total.values, [data.results(index)[10] for index in range(FRAMES)])
    finally:
        archive.close()


def test_frames_that_never_came_read_as_the_error_value(tmp_path: Path, layout: MasterLayout) -> None:
    files = begin(tmp_path, layout)
    for index in (0, 1, 13, 20):
        write(files, index)
    files.finish(22)
    files.seal(ended=1.7e9 + 25, reason="stopped", ledger=None)
    with fabio.open(str(files.master)) as image:
        assert image.nframes == 22
        for index in range(22):
            wanted = data.image(index) if index in (0, 1, 13, 20) else np.full(data.SHAPE, data.FILL)
            np.testing.assert_array_equal(image.getframe(index).data, wanted)
    with h5py.File(files.master) as file:
        specific = file["/entry/instrument/detector/detectorSpecific"]
        assert (specific["nimages"][()], specific["nimages_written"][()]) == (22, 4)


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("dtype", ["<u2", "<u4", "<i4"])
def test_chunks_are_stored_as_they_came_and_hdf5_unpacks_them(tmp_path: Path, compression: str, dtype: str) -> None:
    base = data.plan(10, compression=compression, results=False)
    chosen = replace(base, image=replace(base.image, dtype=dtype, fill_value=7, compression=compression))
    packing = filter_of(compression)
    image = (data.image(3).astype(dtype) - 40).astype(dtype)
    chunk = bytes(packing.pack(image, np.empty(packing.bound(image.shape, image.dtype), np.uint8)))
    file = DataFile(tmp_path / "run_data_000001.h5", chosen, "run", 1)
    file.write_image(0, chunk, data.header(0))
    file.write_image(1, image.tobytes(), data.header(1), packed=compression == "none")
    file.close()
    with h5py.File(file.path) as opened:
        dataset = opened["/entry/data/data"]
        assert dataset.id.read_direct_chunk((0, 0, 0))[1] == chunk
        np.testing.assert_array_equal(dataset[()], [image, image])
    with DataFileReader(file.path) as reader:
        np.testing.assert_array_equal(reader.image(0), image)
        np.testing.assert_array_equal(reader.image(1), image)


def test_an_integrated_master_is_readable_after_every_single_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = replace(data.plan(10**9), master="integrated")
    tree = master_tree(MasterContent("run", chosen.image, MORE, frames_requested=80, layout="integrated", plan=chosen))
    recorder = Recorder(monkeypatch)
    file = DataFile(tmp_path / "run_master.h5", chosen, "run", 1, tree=tree)
    committed = {len(recorder.changes): 0}
    for index in range(80):
        file.write_image(index, data.payload(index), data.header(index))
        file.write_results("integrator", index, data.frame_time(index), data.results(index))
        if index % 17 == 16:
            file.commit()
            committed[len(recorder.changes)] = index + 1
    file.close()
    monkeypatch.undo()
    copy, content, rows, first = tmp_path / "copy.h5", bytearray(), 0, min(committed)
    for position, change in enumerate(recorder.changes, 1):
        apply(content, change)
        rows = committed.get(position, rows)
        if position >= first and (position % 5 == 0 or position in committed):
            copy.write_bytes(content)
            assert_rows_whole(copy, rows)
            with h5py.File(copy) as opened:
                assert opened["/entry/definition"][()] == b"NXmx"


def test_sealing_an_integrated_master_changes_values_in_their_places_only(tmp_path: Path) -> None:
    files = begin(tmp_path, "integrated", frames=None)
    for index in range(12):
        write(files, index)
    files.finish()
    before = np.frombuffer(files.master.read_bytes(), np.uint8)
    places: list[tuple[int, int]] = []
    with h5py.File(files.master) as file:
        assert file["/entry/end_time"][()] == b""

        def look(_: str, item: h5py.HLObject) -> None:
            if isinstance(item, h5py.Dataset) and item.chunks is None and item.id.get_offset() is not None:
                places.append((item.id.get_offset(), item.id.get_offset() + item.nbytes))

        file.visititems(look)
    files.seal(ended=1.7e9 + 12, reason="stopped", ledger={"x" * 40_000: 1})
    after = np.frombuffer(files.master.read_bytes(), np.uint8)
    assert len(after) == len(before)
    changed = np.flatnonzero(before != after)
    assert changed.size
    assert all(any(low <= offset < high for low, high in places) for offset in changed)
    summary = read_master(files.master)
    assert (summary.end_reason, summary.images_written) == ("stopped", 12)
    assert list(summary.ledger or {}) == ["too_large_for_this_file"]


@pytest.mark.parametrize("rows_before", [0, 7, 12])
def test_an_acquisition_goes_on_in_the_layout_it_was_begun_in(
    tmp_path: Path, layout: MasterLayout, rows_before: int
) -> None:
    files = begin(tmp_path, layout)
    for index in range(rows_before):
        write(files, index)
    files.commit(0.0)
    for entry in files._open.values():
        entry.file.abandon()
    chosen = plan("legacy")  # whatever the writer is told now
    content = MasterContent("run", chosen.image, MORE, frames_requested=FRAMES, started=5.0)
    again = AcquisitionFiles(tmp_path, "run", chosen, content, resume=True)
    assert again.images == rows_before
    for index in range(rows_before, FRAMES):
        write(again, index)
    end(again)
    with fabio.open(str(again.master)) as image:
        np.testing.assert_array_equal([image.getframe(i).data for i in range(FRAMES)], expected())
    assert read_master(again.master).layout == layout
    assert read_master(again.master).started == 1.7e9


def test_calibration_that_comes_too_late_for_an_integrated_master_is_said(tmp_path: Path) -> None:
    files = begin(tmp_path, "integrated")
    write(files, 0)
    assert not files.calibrate(flatfield=np.ones(data.SHAPE))
    end(files)


_FOLLOWER = """
import sys, h5py, hdf5plugin
with h5py.File(sys.argv[1], "r", libver="latest", swmr=True) as file:
    images = file["/entry/data/data"]
    for line in sys.stdin:
        images.refresh()
        print(images.shape[0], int(images[-1, 0, 1]) if images.shape[0] else -1, flush=True)
"""


@pytest.mark.parametrize("layout", ["legacy", "integrated"])
def test_a_swmr_reader_follows_the_file(tmp_path: Path, layout: MasterLayout) -> None:
    files = begin(tmp_path, layout, swmr=True)
    write(files, 0)
    files.commit(0.0)
    path = files.files[0]
    with subprocess.Popen(
        [sys.executable, "-c", _FOLLOWER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as follower:
        assert follower.stdin is not None
        assert follower.stdout is not None
        for index in range(1, 8):
            write(files, index)
            files.commit(0.0)
            follower.stdin.write("\n")
            follower.stdin.flush()
            assert follower.stdout.readline().split() == [str(index + 1), str(data.image(index)[0, 1])]
        follower.stdin.close()
        assert follower.wait(20) == 0
    end(files)
    with fabio.open(str(files.master)) as image:
        assert image.nframes == 8


def test_a_swmr_file_of_a_dead_writer_is_not_gone_on_with(tmp_path: Path) -> None:
    files = begin(tmp_path, "legacy", swmr=True)
    write(files, 0)
    files.finish()
    with pytest.raises(StorageError, match="SWMR"):
        DataFile(files.files[0], plan("legacy", swmr=True), "run", 1, resume=True)
    with pytest.raises(StorageError, match="exists"):
        DataFile(files.files[0], plan("legacy", swmr=True), "run", 1)


def test_a_region_with_an_impossible_name_is_refused() -> None:
    with pytest.raises(ValueError, match="part of a path"):
        rois_plan(["a/b"])
