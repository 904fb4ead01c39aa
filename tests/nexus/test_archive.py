"""What is in files is found again: every sample once, honest about what may still come."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sisockdaq.errors import FieldUnknown, FileUnreadable, ReplyInvalid
from sisockdaq.nexus import archive as archive_module
from sisockdaq.nexus.archive import Archive
from sisockdaq.nexus.fileset import AcquisitionFiles
from sisockdaq.nexus.index import Index
from sisockdaq.nexus.nxmx import MasterContent
from sisockdaq.nexus.reader import DataFileReader, DataFileSummary
from tests.nexus import data

T = data.frame_time


def begin(folder: Path, prefix: str, first: int = 0, images_per_file: int = 10) -> AcquisitionFiles:
    chosen = data.plan(images_per_file)
    return AcquisitionFiles(folder, prefix, chosen, MasterContent(prefix, chosen.image, started=T(first)))


def write(files: AcquisitionFiles, first: int, stop: int, *, offset: int = 0, lost: int = 0, skip: int = -1) -> None:
    """Write frames `first` … `stop`; their times are those of frame ``index + offset``."""
    for index in range(first, stop):
        if index == skip:
            continue
        header = data.header(index, lost=lost)
        header.time = T(index + offset)
        files.write_image(index, data.payload(index), header, np.array([254, 255], "u1"), now=0.0)
        files.write_results("integrator", index, header.time, data.results(index))


def whole(folder: Path, prefix: str, frames: int, *, offset: int = 0) -> None:
    files = begin(folder, prefix)
    write(files, 0, frames, offset=offset)
    files.finish(frames)
    files.seal(ended=T(frames + offset), reason="complete", ledger={"frames_expected": frames})


@pytest.fixture
def index() -> Index:
    return Index(None)


def test_series_curves_and_images_come_back_under_their_live_names(tmp_path: Path, index: Index) -> None:
    whole(tmp_path, "a", 25)
    whole(tmp_path / "sub", "b", 5, offset=100)
    archive = Archive(tmp_path, index)
    assert archive.scan() == 3 + 1 + 1 + 1
    listing = archive.fields()
    assert {
        "receiver::sum",
        "receiver::image",
        "receiver::frame_number",
        "integrator::curve",
        "integrator::total",
    } <= set(listing.fields)
    curve = listing.fields["integrator::curve"]
    assert (curve.type, curve.shape, curve.dtype, curve.units) == ("array", (data.BINS,), "<f8", "counts")
    assert (curve.axes[0].axis, curve.axes[0].unit) == ("q", "nm^-1")
    assert curve.axes[0].values == (0.0, 0.5, 1.0, 1.5, 2.0)
    assert listing.timelines["receiver::frame"].interval == pytest.approx(1 / 7)
    fields = ["integrator::total", "integrator::curve", "receiver::image", "receiver::nothing", "nobody::total"]
    reply = archive.get(fields, T(0), T(1000))
    assert reply.unknown == ["receiver::nothing", "nobody::total"]
    frames = [*range(25), *range(5)]
    expected = [T(i) for i in range(25)] + [T(100 + i) for i in range(5)]
    for name in fields[:3]:
        np.testing.assert_array_equal(reply.samples[name].t, expected)
    total = reply.samples["integrator::total"]
    np.testing.assert_array_equal(total.values, [data.results(i)[2 * data.BINS] for i in frames])
    np.testing.assert_array_equal(reply.samples["receiver::image"].values, [data.image(i) for i in frames])
    assert total.finalized_until == T(104)


def test_an_interval_is_half_open_and_limits_are_kept(tmp_path: Path, index: Index) -> None:
    whole(tmp_path, "a", 25)
    archive = Archive(tmp_path, index)
    archive.scan()
    samples = archive.get(["integrator::total"], T(3), T(12)).samples["integrator::total"]
    np.testing.assert_array_equal(samples.t, [T(i) for i in range(3, 12)])
    few = archive.get(["receiver::image"], T(0), T(100), max_points=5).samples["receiver::image"]
    assert len(few) == 5
    assert len(archive.get(["receiver::sum"], T(0), T(100), max_points=4).samples["receiver::sum"]) <= 4
    assert len(archive.get(["receiver::sum"], T(50), T(100)).samples["receiver::sum"]) == 0


def test_an_answer_that_would_fill_the_memory_is_refused(
    tmp_path: Path, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole(tmp_path, "a", 25)
    archive = Archive(tmp_path, index)
    archive.scan()
    monkeypatch.setattr(archive_module, "_MOST_BYTES", 1000)
    with pytest.raises(ReplyInvalid, match="more than one answer"):
        archive.get(["receiver::image"], T(0), T(100))
    assert len(archive.get(["receiver::image"], T(0), T(100), max_points=2).samples["receiver::image"]) <= 2


def test_a_growing_file_is_read_again_and_says_how_far_it_is_final(tmp_path: Path, index: Index) -> None:
    archive = Archive(tmp_path, index)
    files = begin(tmp_path, "run", images_per_file=100)
    write(files, 0, 4)
    files.commit(0.0)
    archive.scan()
    assert archive.status()["files_growing"] == 1
    samples = archive.get(["receiver::sum"], T(0), T(100)).samples["receiver::sum"]
    assert (len(samples), samples.finalized_until) == (4, T(3))
    write(files, 4, 12, skip=6)
    files.commit(0.0)
    assert archive.refresh() == 1
    samples = archive.get(["receiver::sum"], T(0), T(100)).samples["receiver::sum"]
    np.testing.assert_array_equal(samples.t, [T(i) for i in range(12) if i != 6])
    assert samples.finalized_until == T(5)
    write(files, 6, 7)
    files.finish()
    archive.refresh()
    assert archive.status()["files_growing"] == 0
    samples = archive.get(["receiver::sum"], T(0), T(100)).samples["receiver::sum"]
    np.testing.assert_array_equal(samples.t, [T(i) for i in range(12)])
    assert samples.finalized_until == T(11)


def test_results_that_run_behind_are_final_only_as_far_as_they_are_there(tmp_path: Path, index: Index) -> None:
    archive = Archive(tmp_path, index)
    files = begin(tmp_path, "run")
    for i in range(12):
        files.write_image(i, data.payload(i), data.header(i), now=0.0)
    for i in range(7):
        files.write_results("integrator", i, T(i), data.results(i))
    files.commit(0.0)
    archive.scan()
    reply = archive.get(["receiver::sum", "integrator::total"], T(0), T(100))
    assert reply.samples["receiver::sum"].finalized_until == T(9)
    assert reply.samples["integrator::total"].finalized_until == T(6)
    files.abandon()


def test_a_writer_that_died_leaves_a_file_that_is_not_waited_for(tmp_path: Path, index: Index) -> None:
    archive = Archive(tmp_path, index)
    files = begin(tmp_path, "run")
    write(files, 0, 3)
    files.commit(0.0)
    archive.scan()
    for entry in files._open.values():
        entry.file.abandon()
    archive.refresh()
    assert archive.acquisitions()[0]["state"] == "left"
    assert archive.refresh() == 0
    assert len(archive.get(["receiver::sum"], T(0), T(9)).samples["receiver::sum"]) == 3


def test_broken_files_are_named_and_tried_again_when_they_change(tmp_path: Path, index: Index) -> None:
    archive = Archive(tmp_path, index)
    broken = tmp_path / "a_data_000001.h5"
    broken.write_bytes(b"not HDF5")
    (tmp_path / "a_master.h5").write_bytes(b"")
    (tmp_path / "unrelated.h5").write_bytes(b"")
    archive.scan()
    problems = archive.status()["problems"]
    assert set(problems) == {str(broken), str(tmp_path / "a_master.h5")}
    assert "broken" in problems[str(broken)]
    assert archive.scan() == 0
    broken.unlink()
    (tmp_path / "a_master.h5").unlink()
    whole(tmp_path, "a", 3)
    archive.refresh([broken, tmp_path / "a_master.h5"])
    assert archive.status()["problems"] == {}
    assert archive.acquisitions()[0]["frames"] == 3


def test_a_commit_between_opening_and_reading_does_not_make_a_file_broken(
    tmp_path: Path, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole(tmp_path, "a", 5)
    archive = Archive(tmp_path, index)
    stumbles = dict.fromkeys(("summary", "series"), 2)

    def stumbling(name: str) -> Callable[..., Any]:
        method = getattr(DataFileReader, name)

        def read(self: DataFileReader, *args: Any) -> Any:
            if stumbles[name]:
                stumbles[name] -= 1
                raise FileUnreadable("addr overflow")
            return method(self, *args)

        return read

    for name in stumbles:
        monkeypatch.setattr(DataFileReader, name, stumbling(name))
    archive.scan()
    assert archive.status()["problems"] == {}
    assert len(archive.get(["integrator::total"], T(0), T(1000)).samples["integrator::total"]) == 5
    assert stumbles == {"summary": 0, "series": 0}


def test_a_file_that_is_finished_while_it_is_read_is_read_again(
    tmp_path: Path, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = begin(tmp_path, "a")
    write(files, 0, 3)
    files.commit(now=0.0)
    archive = Archive(tmp_path, index)
    real = DataFileReader.summary

    def finish_after(reader: DataFileReader) -> DataFileSummary:
        summary = real(reader)
        if not files.closed:
            write(files, 3, 8)
            files.finish()
        return summary

    monkeypatch.setattr(DataFileReader, "summary", finish_after)
    archive.scan()
    assert archive.refresh() == 1
    assert len(archive.get(["receiver::sum"], T(0), T(1000)).samples["receiver::sum"]) == 8


def test_a_listing_of_many_files_opens_few(tmp_path: Path, index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(12):
        whole(tmp_path, f"run_{number:02d}", 2, offset=10 * number)
    archive = Archive(tmp_path, index)
    archive.scan()
    opened: list[Path] = []
    real = archive.pool.read
    monkeypatch.setattr(
        archive.pool, "read", lambda kind, path, *rest, **how: (opened.append(path), real(kind, path, *rest, **how))[1]
    )
    assert archive.fields().fields["integrator::curve"].axes[0].values == (0.0, 0.5, 1.0, 1.5, 2.0)
    assert {path.name for path in opened} == {"run_11_data_000001.h5"}


def test_files_that_are_gone_are_forgotten(tmp_path: Path, index: Index) -> None:
    whole(tmp_path, "a", 12)
    archive = Archive(tmp_path, index)
    archive.scan()
    for path in tmp_path.iterdir():
        path.unlink()
    archive.scan()
    assert archive.acquisitions() == []
    assert archive.fields().fields == {}


def test_an_acquisition_is_listed_with_its_span_files_and_ledger(tmp_path: Path, index: Index) -> None:
    whole(tmp_path, "late", 25, offset=50)
    whole(tmp_path, "early", 2)
    archive = Archive(tmp_path, index)
    archive.scan()
    early, late = archive.acquisitions()
    assert (early["acquisition"], late["acquisition"]) == ("early", "late")
    assert late["frames"] == late["frames_written"] == 25
    assert late["span"] == [T(50), T(74)]
    assert [Path(name).name for name in late["files"]] == [f"late_data_{n:06d}.h5" for n in (1, 2, 3)]
    assert late["ledger"] == {"frames_expected": 25}
    assert (late["state"], late["end_reason"], late["source"]) == ("finished", "complete", "receiver")


def test_one_image_by_acquisition_and_index_with_the_lost_packets_as_a_mask(tmp_path: Path, index: Index) -> None:
    files = begin(tmp_path, "run")
    write(files, 0, 12, skip=5)
    pixels = data.image(12)
    pixels[0] = data.FILL
    from sisockdaq.frames.bitshuffle import compress_lz4

    files.write_image(12, compress_lz4(pixels), data.header(12, lost=1), np.array([254, 255], "u1"), now=0.0)
    files.finish()
    archive = Archive(tmp_path, index)
    archive.scan()
    whole_one = archive.image("run", 11).samples
    np.testing.assert_array_equal(whole_one["image"].values, [data.image(11)])
    assert whole_one["image"].t == [T(11)]
    assert whole_one["frame_number"].values == [1011]
    assert "mask" not in whole_one
    partial = archive.image("run", 12).samples
    np.testing.assert_array_equal(partial["image"].values[0], pixels)
    assert partial["mask"].values[0].sum() == partial["mask"].values[0][0].sum() == data.SHAPE[1]
    with pytest.raises(FieldUnknown, match="never received"):
        archive.image("run", 5)
    with pytest.raises(FieldUnknown, match="frames 0 to 12"):
        archive.image("run", 13)
    with pytest.raises(FileUnreadable, match="no acquisition"):
        archive.image("other", 0)


def test_a_damaged_index_is_made_again(tmp_path: Path) -> None:
    place = tmp_path / "state" / "archive.sqlite"
    whole(tmp_path / "data", "a", 3)
    first = Archive(tmp_path / "data", Index(place))
    first.scan()
    first.index.close()
    second = Archive(tmp_path / "data", Index(place))
    assert second.scan() == 0
    assert second.acquisitions()[0]["frames"] == 3
    second.index.close()
    for leftover in place.parent.iterdir():
        leftover.write_bytes(b"\0garbage" * 1000)
    third = Archive(tmp_path / "data", Index(place))
    third.scan()
    assert third.acquisitions()[0]["frames"] == 3
    third.index.close()
