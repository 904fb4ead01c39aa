"""The writer's engine between real rings and real files."""

from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from sisockdaq.acquisition import Request
from sisockdaq.errors import AcquisitionRefused
from sisockdaq.frames import Ledger
from sisockdaq.nexus import _ordered_file
from sisockdaq.nexus.reader import DataFileReader, read_master
from tests.nexus import data
from tests.nexus.rig import DEADLINE, finished, kill, running, wait_for


def assert_whole(folder: Path, prefix: str, frames: int, images_per_file: int = 10, missing: Any = ()) -> None:
    """Check every number and pixel of an acquisition through our own reader."""
    master = read_master(folder / f"{prefix}_master.h5")
    index = 0
    for name in master.files:
        with DataFileReader(folder / name) as file:
            summary = file.summary()
            assert summary.finished
            times, curve_times = file.times("receiver"), file.times("integrator")
            curves = file.series("integrator", "curve")
            numbers = file.series("receiver", "frame_number")
            assert len(times) == len(curves) == summary.rows
            for row in range(summary.rows):
                if index in missing:
                    assert np.isnan(times[row])
                    assert (file.image(row) == data.FILL).all()
                else:
                    assert times[row] == curve_times[row] == data.frame_time(index)
                    assert numbers[row] == 1000 + index
                    np.testing.assert_array_equal(file.image(row), data.image(index))
                    np.testing.assert_array_equal(curves[row], data.results(index)[: data.BINS])
                index += 1
    assert index == frames


@pytest.mark.parametrize("compression", ["bslz4", "none"])
def test_every_frame_and_result_is_in_the_files_and_the_ledger_balances(tmp_path: Path, compression: str) -> None:
    with running(tmp_path, compression=compression) as (_, engine):
        engine.start(Request("run_0001", 35, meta={"sample_name": "lysozyme"}))
        status = finished(engine)
    assert (status["acquisition_state"], status["message"]) == ("FINISHED", "Completed.")
    assert status["frames_written"] == 35
    assert_whole(tmp_path, "run_0001", 35)
    master = read_master(tmp_path / "run_0001_master.h5")
    assert master.files == tuple(f"run_0001_data_{number:06d}.h5" for number in (1, 2, 3, 4))
    assert master.end_reason == "complete"
    assert master.ledger is not None
    ledger = Ledger.from_dict(master.ledger)
    assert ledger.balance() == []
    assert ledger.consumers["writer"].counts == {"frames_written": 35, "files_closed": 4}
    assert status["ledger"] == master.ledger


def test_a_start_is_answered_when_the_source_has_begun(tmp_path: Path) -> None:
    with running(tmp_path) as (sources, engine):
        sources.pause_at = 0
        status = engine.start(Request("run_0001", 5))
        assert (status["state"], status["acquisition"]) == ("WRITING", "run_0001")
        assert not engine.machine.armed
        sources.resume.set()
        assert finished(engine)["frames_written"] == 5


def test_a_source_that_does_not_begin_ends_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sisockdaq.acquisition.ARM_DEADLINE", 0.2)
    with running(tmp_path) as (sources, engine):
        sources.ignore_arm = True
        with pytest.raises(AcquisitionRefused, match=r"could not begin: the frame source did not begin within 0\.2 s"):
            engine.start(Request("run_0001", 5))
        engine.close()


def test_nobody_is_told_to_send_before_the_source_has_begun(tmp_path: Path) -> None:
    with running(tmp_path) as (sources, engine), ThreadPoolExecutor() as pool:
        with sources.held():
            begun = pool.submit(engine.start, Request("run_0001", 5))
            wait_for(lambda: engine.status()["acquisition"] == "run_0001", "the files")
            status = engine.status()
            assert (status["state"], status["acquisition_state"], status["record"]["state"]) == ("WRITING", None, None)
        assert begun.result(DEADLINE)["acquisition_state"] is not None
        assert finished(engine)["frames_written"] == 5


def test_a_start_waits_for_a_source_that_went_a_moment_ago(tmp_path: Path) -> None:
    with running(tmp_path, results=False) as (sources, engine), ThreadPoolExecutor() as pool:
        sources.go()
        wait_for(lambda: not engine.sources, "the source to be missed")
        begun = pool.submit(engine.start, Request("run_0001", 5))
        wait_for(lambda: engine._waiting, "the start to wait")
        sources.come_back()
        assert begun.result(DEADLINE)["acquisition"] == "run_0001"
        assert finished(engine)["frames_written"] == 5


def test_a_start_that_waits_can_be_stopped(tmp_path: Path) -> None:
    with running(tmp_path, results=False) as (sources, engine), ThreadPoolExecutor() as pool:
        sources.go()
        wait_for(lambda: not engine.sources, "the source to be missed")
        begun = pool.submit(engine.start, Request("run_0001", 5))
        wait_for(lambda: engine._waiting, "the start to wait")
        assert engine.stop()["state"] == "READY"
        with pytest.raises(AcquisitionRefused, match="run_0001 was not begun: it was stopped"):
            begun.result(DEADLINE)


def test_a_start_is_refused_once_the_source_is_not_expected_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sisockdaq.nexus._beginning.BACK_WITHIN", 0.3)
    with running(tmp_path, results=False) as (sources, engine):
        sources.go()
        wait_for(lambda: not engine.sources, "the source to be missed")
        for _ in range(2):
            with pytest.raises(AcquisitionRefused) as refusal:
                engine.start(Request("run_0001", 5))
            assert "no source of frames is attached" in refusal.value.reasons[0]


def test_lost_packets_and_dropped_frames_keep_their_places(tmp_path: Path) -> None:
    with running(tmp_path) as (sources, engine):
        sources.skip = {0, 7, 8, 9, 10, 11, 24}
        sources.lose = {3: 2, 15: 16}
        engine.start(Request("run", 25))
        status = finished(engine)
    assert_whole(tmp_path, "run", 25, missing=sources.skip)
    assert status["message"] == "Completed, 7 images are missing."
    with DataFileReader(tmp_path / "run_data_000001.h5") as file:
        mask = file.packet_mask(3)
        assert mask is not None
        np.testing.assert_array_equal(np.unpackbits(mask, bitorder="little"), [0, 0] + [1] * 14)
        assert file.packet_mask(4) is None
        assert list(file.series("receiver", "packets_lost")[1:7]) == [0, 0, 2, 0, 0, 0]
    with DataFileReader(tmp_path / "run_data_000002.h5") as file:
        assert not np.unpackbits(file.packet_mask(5), bitorder="little").any()  # type: ignore[arg-type]


def test_a_file_whose_frames_were_all_dropped_is_there_and_empty(tmp_path: Path) -> None:
    with running(tmp_path) as (sources, engine):
        sources.skip = set(range(8, 31))
        engine.start(Request("run", 35))
        finished(engine)
    assert_whole(tmp_path, "run", 35, missing=sources.skip)


def test_a_stop_in_the_middle_leaves_as_many_rows_as_images(tmp_path: Path) -> None:
    with running(tmp_path) as (sources, engine):
        sources.pause_at = 13
        engine.start(Request("run", 1000))
        assert sources.paused.wait(10)
        assert engine.status()["state"] == "WRITING"
        engine.stop()
        engine.stop()
        status = finished(engine)
        engine.stop()
        assert (status["acquisition_state"], status["message"]) == ("FINISHED", "Interrupted.")
        assert status["frames_written"] == 13
    assert_whole(tmp_path, "run", 13)


def test_acquisitions_follow_each_other_and_one_at_a_time(tmp_path: Path) -> None:
    with running(tmp_path) as (sources, engine):
        sources.pause_at = 1
        engine.start(Request("a", 3))
        with pytest.raises(AcquisitionRefused, match="a is under way"):
            engine.start(Request("b", 3))
        sources.resume.set()
        finished(engine)
        sources.pause_at = None
        engine.start(Request("sub/b", 1))
        assert finished(engine)["frames_written"] == 1
    assert_whole(tmp_path, "a", 3)
    assert_whole(tmp_path / "sub", "b", 1)


def test_an_open_ended_acquisition_ends_with_stop(tmp_path: Path) -> None:
    with running(tmp_path, source={"frame_time": 0.002}) as (_, engine):
        engine.start(Request("run"))
        wait_for(lambda: engine.status()["frames_written"] > 20, "frames")
        assert engine.status()["time_left"] is None
        engine.stop()
        written = finished(engine)["frames_written"]
    assert_whole(tmp_path, "run", written)


def test_all_obstacles_are_named_at_once_and_nothing_is_begun(tmp_path: Path) -> None:
    (tmp_path / "run_master.h5").write_bytes(b"precious")
    mask = np.zeros((3, 3), np.uint32)
    with running(tmp_path, mask=mask) as (_, engine):
        with pytest.raises(AcquisitionRefused) as refusal:
            engine.start(Request("run", 10**12))
        reasons = "\n".join(refusal.value.reasons)
        assert "run_master.h5 exists" in reasons
        assert "needed" in reasons
        assert "pixel mask" in reasons
        assert engine.status()["state"] == "READY"
        assert engine.status()["acquisition"] is None
    assert (tmp_path / "run_master.h5").read_bytes() == b"precious"


@pytest.mark.parametrize("name", ["", "/etc/run", "../run", "a/../../run", "a\0b", "run/"])
def test_a_name_that_leaves_the_root_is_refused(tmp_path: Path, name: str) -> None:
    with running(tmp_path, results=False) as (_, engine), pytest.raises(AcquisitionRefused):
        engine.start(Request(name, 1))


def test_a_link_out_of_the_root_is_refused(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (root / "link").symlink_to(outside)
    with running(root, results=False) as (_, engine), pytest.raises(AcquisitionRefused) as refusal:
        engine.start(Request("link/run", 1))
    assert "leads out" in refusal.value.reasons[0]


def test_overwriting_replaces_all_files_of_that_name(tmp_path: Path) -> None:
    with running(tmp_path, overwrite=True) as (_, engine):
        engine.start(Request("run", 25))
        finished(engine)
        engine.start(Request("run", 5))
        assert finished(engine)["frames_written"] == 5
    assert_whole(tmp_path, "run", 5)
    assert not (tmp_path / "run_data_000002.h5").exists()


def test_a_full_disk_fails_the_acquisition_with_the_reason_and_the_next_one_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwrite, limit = os.pwrite, {"bytes": 30_000}

    def small_disk(fd: int, buffer: Any, offset: int) -> int:
        if offset + memoryview(buffer).nbytes > limit["bytes"]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(fd, buffer, offset)

    with running(tmp_path, images_per_file=1000) as (_, engine):
        monkeypatch.setattr(_ordered_file.os, "pwrite", small_disk)
        engine.start(Request("run", 500))
        status = finished(engine)
        assert status["acquisition_state"] == "FAILED"
        assert status["message"].startswith("ERROR: no space left for run_data_000001.h5")
        assert status["ledger"]["reason"] in ("failed", "complete")
        assert Ledger.from_dict(status["ledger"]).balance() == []
        limit["bytes"] = 10**9
        engine.start(Request("next", 15))
        assert finished(engine)["acquisition_state"] == "FINISHED"
    assert_whole(tmp_path, "next", 15)
    with DataFileReader(tmp_path / "run_data_000001.h5") as file:
        rows = status["frames_written"]
        assert file.summary().rows >= rows
        for row in range(rows):
            np.testing.assert_array_equal(file.image(row), data.image(row))


def test_a_source_that_goes_ends_the_acquisition_with_what_came(tmp_path: Path) -> None:
    with running(tmp_path) as (sources, engine):
        sources.pause_at = 12
        engine.start(Request("run", 100))
        assert sources.paused.wait(10)
        wait_for(lambda: engine.status()["frames_written"] == 12, "12 frames")
        sources.die()
        status = finished(engine)
        assert status["acquisition_state"] == "FAILED"
        assert "the frame source has gone" in status["message"]
        ledger = Ledger.from_dict(status["ledger"])
        assert ledger.balance() == []
        assert (ledger.reason, ledger.frames_complete, ledger.packets_received) == ("failed", 12, 12 * data.PACKETS)
    with DataFileReader(tmp_path / "run_data_000002.h5") as file:
        assert file.summary().rows == 2


def test_results_that_never_come_are_not_waited_for_without_end(tmp_path: Path) -> None:
    with running(tmp_path) as (sources, engine):
        assert sources.results is not None
        sources.results.close()
        wait_for(lambda: engine.sources == ["receiver"], "the integrator's end")
        sources.results = None
        engine.start(Request("run", 12))
        status = finished(engine)
        assert status["acquisition_state"] == "FINISHED"
    with h5py.File(tmp_path / "run_data_000002.h5") as file:
        assert list(file["/entry/series"]) == ["receiver"]


def test_results_that_come_too_late_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sisockdaq.nexus.engine.DRAIN_WAIT", 0.3)
    with running(tmp_path) as (sources, engine):
        sources.results_until = 7
        engine.start(Request("run", 12))
        status = finished(engine)
        assert status["acquisition_state"] == "FINISHED"
        assert "the results of integrator for 5 of 12 frames are not in the files" in status["message"]


def test_closing_the_writer_in_the_middle_leaves_whole_files(tmp_path: Path) -> None:
    with running(tmp_path) as (sources, engine):
        sources.pause_at = 15
        engine.start(Request("run", 100))
        wait_for(lambda: engine.status()["frames_written"] == 15, "15 frames")
        engine.close()
        sources.resume.set()
    assert read_master(tmp_path / "run_master.h5").end_reason == "failed: the writer was stopped"
    with DataFileReader(tmp_path / "run_data_000002.h5") as file:
        assert file.summary().finished
        assert file.summary().rows == 5


def rows_of(path: Path) -> int:
    with DataFileReader(path) as file:
        return file.summary().sources[-1].rows


def test_a_writer_that_died_goes_on_with_the_same_files(tmp_path: Path) -> None:
    with running(tmp_path) as (sources, engine):
        sources.pause_at = 15
        engine.start(Request("sub/run", 40, meta={"sample_name": "lysozyme"}))
        wait_for(lambda: engine.status()["frames_written"] == 15 and sources.paused.is_set(), "15 frames")
        path = tmp_path / "sub" / "run_data_000002.h5"
        wait_for(lambda: path.exists() and rows_of(path) == 5, "a commit")
        started = read_master(tmp_path / "sub" / "run_master.h5").started
        kill(engine)
        second = sources.attach_writer(tmp_path)
        wait_for(lambda: second.status()["acquisition"] == "sub/run", "the second life")
        assert second.status()["state"] == "WRITING"
        sources.resume.set()
        status = finished(second)
        second.close()
    assert (status["acquisition_state"], status["frames_written"]) == ("FINISHED", 40)
    assert_whole(tmp_path / "sub", "run", 40)
    master = read_master(tmp_path / "sub" / "run_master.h5")
    assert (master.started, master.end_reason, master.meta["sample_name"]) == (started, "complete", "lysozyme")
    assert master.ledger is not None
    ledger = Ledger.from_dict(master.ledger)
    assert ledger.balance() == []
    assert ledger.consumers["writer"].counts["frames_written"] == 40
