"""A writer's memory over its death, and the very files that are asked for."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sisockdaq.acquisition import AcquisitionState, Record, Request
from sisockdaq.errors import AcquisitionRefused, GeometryError, MaskError
from sisockdaq.frames import Ledger
from sisockdaq.nexus.archive import Archive
from sisockdaq.nexus.index import Index
from sisockdaq.nexus.journal import Journal, Unfinished, record_object
from sisockdaq.nexus.placing import find_place, name_of
from sisockdaq.nexus.reader import DataFileReader, read_master
from tests.nexus import data
from tests.nexus.rig import finished, kill, running, wait_for


def test_a_writer_that_comes_back_too_late_seals_the_files_and_says_so(tmp_path: Path) -> None:
    journal = tmp_path / "state" / "journal.sqlite"
    root = tmp_path / "data"
    with running(root, journal=journal) as (sources, engine):
        sources.pause_at = 15
        engine.start(Request("run", 40, run_id="a-run"))
        wait_for(lambda: engine.status()["frames_written"] == 15 and sources.paused.is_set(), "15 frames")
        started = engine.status()["started"]
        kill(engine)
        let_end(sources)
        second = sources.attach_writer(root, journal=journal)
        status = finished(second)
        assert (status["acquisition"], status["acquisition_state"]) == ("run", "FAILED")
        assert status["message"].startswith("ERROR: the writer died, and the frame source had ended")
        assert (status["frames_written"], status["run_id"], status["started"]) == (15, "a-run", started)
        assert status["files"] == [str(root / f"run_data_{n:06d}.h5") for n in (1, 2)]
        ledger = Ledger.from_dict(status["ledger"])
        assert ledger.balance() == []
        assert (ledger.frames_complete, ledger.packets_received) == (15, 15 * data.PACKETS)
        log = second.log()
        second.close()
    master = read_master(root / "run_master.h5")
    assert (master.images_written, master.ledger) == (15, status["ledger"])
    assert master.end_reason.startswith("failed: the writer died")
    with DataFileReader(root / "run_data_000002.h5") as file:
        assert file.summary().finished
        assert file.summary().rows == 5
        np.testing.assert_array_equal(file.image(4), data.image(14))
    assert [(each["acquisition"], each["state"]) for each in log] == [("run", "FAILED")]
    assert Journal(journal).left_behind() == []


def let_end(sources: Any) -> None:
    """Let the source end its acquisition while no writer is there."""
    sources.resume.set()
    sources.pause_at = None
    wait_for(lambda: sources.images.status()["published"] >= 40, "the source's end")


def test_the_next_life_remembers_what_the_last_one_did(tmp_path: Path) -> None:
    journal = tmp_path / "journal.sqlite"
    with running(tmp_path, journal=journal) as (sources, engine):
        for name, frames in (("a", 3), ("b", 12)):
            engine.start(Request(name, frames, run_id=frames))
            last = finished(engine)
        engine.close()
        second = sources.attach_writer(tmp_path, journal=journal)
        status = second.status()
        assert (status["state"], status["record"], status["ledger"]) == ("READY", last["record"], last["ledger"])
        log = second.log()
        assert [each["info"]["run_id"] for each in log] == [12, 3]
        assert [each["state"] for each in second.log(1)] == ["FINISHED"]
        second.start(Request("c", 2))
        assert finished(second)["acquisition"] == "c"
        assert [each["acquisition"] for each in second.log()] == ["c", "b", "a"]
        second.close()


def test_a_writer_that_is_stopped_in_order_leaves_one_record_and_tells_its_source(tmp_path: Path) -> None:
    journal = tmp_path / "journal.sqlite"
    with running(tmp_path, journal=journal) as (sources, engine):
        sources.pause_at = 5
        engine.start(Request("run", 100))
        wait_for(lambda: engine.status()["frames_written"] == 5 and sources.paused.is_set(), "5 frames")
        engine.close()
        kept = Journal(journal)
        assert [(each.state, each.message) for each in kept.newest(9)] == [("FAILED", "ERROR: the writer was stopped")]
        assert kept.left_behind() == []
        second = sources.attach_writer(tmp_path, journal=journal)
        sources.pause_at = None
        second.start(Request("next", 3))
        assert finished(second)["acquisition_state"] == "FINISHED"
        second.close()


def test_files_that_cannot_be_sealed_are_told_with_the_reason(tmp_path: Path) -> None:
    journal = tmp_path / "journal.sqlite"
    record = Record(Request("gone", 9, run_id=1), started=5.0)
    Journal(journal).begin(Unfinished(record, 10, "bslz4", data.IMAGES, [data.RESULTS]))
    with running(tmp_path, journal=journal) as (_, engine):
        status = finished(engine)
        assert (status["acquisition"], status["acquisition_state"]) == ("gone", "FAILED")
        assert status["message"].startswith("ERROR: the writer died")
        engine.start(Request("next", 3))
        assert finished(engine)["acquisition_state"] == "FINISHED"
        assert [each["acquisition"] for each in engine.log()] == ["next", "gone"]


def test_a_damaged_journal_is_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    path.write_bytes(b"no database at all" * 100)
    journal = Journal(path)
    journal.begin(Unfinished(Record(Request("a")), 10, "none", data.IMAGES))
    journal.end(Record(Request("a"), AcquisitionState.FINISHED, ended=1.0))
    assert [each.request.acquisition for each in Journal(path).newest(5)] == ["a"]
    assert path.with_name("journal.sqlite.damaged").exists()


def test_the_file_that_is_asked_for_is_the_master(tmp_path: Path) -> None:
    with running(tmp_path) as (_, engine):
        path = tmp_path / "run.h5"
        before = time.time_ns()
        engine.start(Request("run", 12, output_file=str(path)))
        status = finished(engine)
        assert sorted(each.name for each in tmp_path.glob("run*")) == [
            "run.h5",
            "run_data_000001.h5",
            "run_data_000002.h5",
        ]
        record = status["record"]
        assert before <= record["info"].pop("run_id") <= time.time_ns()
        assert record["info"] == {"n_images": 12, "output_file": str(path)}
        assert (record["message"], record["state"]) == ("Completed.", "FINISHED")
        stats = record["stats"]
        assert (stats["n_write_completed"], stats["n_write_requested"]) == (12, 12)
        assert stats["start_time"] < stats["stop_time"]
        assert len(read_master(path).files) == 2
        archive = Archive(tmp_path, Index(None))
        archive.scan()
        assert [(each["acquisition"], each["frames"], each["ledger"]) for each in archive.acquisitions()] == [
            ("run", 12, status["ledger"])
        ]
        archive.close()
        with pytest.raises(AcquisitionRefused) as refusal:
            engine.start(Request("run", 1, output_file=str(path)))
        assert "run.h5 exists" in refusal.value.reasons[0]


def test_before_the_first_acquisition_there_is_an_empty_one(tmp_path: Path) -> None:
    with running(tmp_path) as (_, engine):
        assert engine.status()["record"] == record_object(None)
        assert engine.log() == []


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("run.h5", "is not absolute"),
        ("{root}/../run.h5", 'contains ".."'),
        ("/etc/run.h5", "is not below a folder"),
        ("{root}/no/run.h5", "there is no folder"),
        ("{root}/link/run.h5", "is not below a folder"),
        ("{root}/", "names no file"),
        ("{root}/a\nb.h5", "control character"),
        ("{root}/run_data_000001.h5", "is the name of a data file"),
        ("{root}/.run.h5", "hidden"),
    ],
)
def test_a_path_that_may_not_be_is_refused(tmp_path: Path, path: str, reason: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    with pytest.raises(AcquisitionRefused) as refusal:
        find_place(root, [root], Request("run", output_file=path.format(root=root)))
    assert reason in str(refusal.value)


@pytest.mark.parametrize(
    ("path", "name"),
    [("/x/run.h5", "run"), ("/x/run_master.h5", "run"), ("/x/run", "run"), ("/x/run.1", "run.1"), ("/x/a.nxs", "a")],
)
def test_the_name_follows_from_the_path(path: str, name: str) -> None:
    assert name_of(path) == name


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may write as another user")
def test_files_and_folders_are_the_users(tmp_path: Path) -> None:
    user = 12345
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    (tmp_path / "data").mkdir()
    (tmp_path / "private").mkdir(mode=0o700)
    os.chown(tmp_path / "data", user, user)
    with running(tmp_path / "data", allowed=[tmp_path]) as (_, engine):
        engine.start(Request("sub/run", 25, user_id=user))
        assert finished(engine)["acquisition_state"] == "FINISHED"
        with pytest.raises(AcquisitionRefused) as refusal:
            engine.start(Request("x", 5, output_file=str(tmp_path / "private" / "x.h5"), user_id=user))
        assert "is not writable for user 12345" in refusal.value.reasons[0]
        engine.start(Request("own", 1))
        finished(engine)
    made = [tmp_path / "data" / "sub", *(tmp_path / "data" / "sub").iterdir()]
    assert len(made) == 5
    assert {path.stat().st_uid for path in made} == {user}
    assert (tmp_path / "data" / "own_master.h5").stat().st_uid == 0


def test_each_check_refuses_or_warns_as_the_site_says(tmp_path: Path) -> None:
    def no_mask(source: Any) -> Any:
        raise MaskError("the mask is of another detector")

    def no_geometry(source: Any) -> None:
        raise GeometryError("the PONI file is not whole")

    broken: dict[str, Any] = {"mask_of": no_mask, "geometry_of": no_geometry}
    with running(tmp_path, **broken) as (_, engine):
        with pytest.raises(AcquisitionRefused) as refusal:
            engine.start(Request("run", 10**12))
        reasons = "\n".join(refusal.value.reasons)
        assert "needed" in reasons
        assert "another detector" in reasons
        assert "PONI" not in reasons
    with running(tmp_path, **broken, checks={"mask": "warn", "geometry": "off"}) as (_, engine):
        engine.start(Request("run", 3))
        assert [text.split(" ")[:4] for text in finished(engine)["warnings"]] == [["the", "mask", "is", "of"]]
    with running(tmp_path, **broken, checks={"geometry": "refuse", "mask": "off"}) as (_, engine):
        with pytest.raises(AcquisitionRefused, match="cannot start") as refusal:
            engine.start(Request("next", 3))
        assert refusal.value.reasons == ["the PONI file is not whole"]


@pytest.mark.parametrize("severity", ["refuse", "warn", "off", None])
def test_small_buffers_of_the_receiver_refuse_or_warn(tmp_path: Path, severity: str | None) -> None:
    small = "the kernel granted 208 KiB of receive buffer, 32 MiB wanted   → sysctl -w net.core.rmem_max=33554432"
    warned = replace(data.IMAGES, meta={**data.IMAGES.meta, "warnings": {"buffers": small}})
    with running(tmp_path, checks={} if severity is None else {"buffers": severity}) as (sources, engine):
        sources.images.describe(warned)
        wait_for(lambda: engine._descriptions[None].meta.get("warnings"), "the warning")
        if severity == "refuse":
            with pytest.raises(AcquisitionRefused) as refusal:
                engine.start(Request("run", 3))
            assert refusal.value.reasons == [small]
        else:
            engine.start(Request("run", 3))
            assert finished(engine)["warnings"] == ([] if severity == "off" else [small])
