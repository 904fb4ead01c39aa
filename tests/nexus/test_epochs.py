"""What epochs mean, in masters of every layout: those of the acquisition, whatever happens to writers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import h5py
import numpy as np
import pytest

from sisockdaq.frames.messages import Description, FrameHeader
from sisockdaq.nexus.check import check_file
from sisockdaq.nexus.epochs import epochs_of, joined
from sisockdaq.nexus.fileset import AcquisitionFiles
from sisockdaq.nexus.layout import DataFilePlan, ImagePlan, MasterLayout, ResultsPlan
from sisockdaq.nexus.nxmx import MasterContent
from sisockdaq.nexus.reader import read_master

SHAPE = (4, 6)
STARTED = 1.7e9


def epoch(number: int, since: float, **more: Any) -> dict[str, Any]:
    about = {"number": number, "since": STARTED + since, "poni": f"Distance: {number}\n", "mask": "", "masked": 0}
    return {**about, "held": "", "settings": {"bins": number}, **more}


def described(*epochs: dict[str, Any]) -> Description:
    meta = {"layout": {"total": [0, 1], "epoch": [1, 2]}, "axes": {}, "fields": {}, "epochs": list(epochs)}
    return Description("integrator", "results", (2,), "float64", meta=meta)


def numbers(epochs: Any) -> list[int]:
    return [each["number"] for each in epochs.get("integrator", [])]


def test_those_count_that_begin_in_the_acquisition_and_the_one_it_begins_in() -> None:
    told = epochs_of([described(epoch(3, -50), epoch(4, -2), epoch(5, 3))])
    assert numbers(joined({}, told, STARTED)) == [4, 5]
    # What was known stays, also when its source has come again and does not tell of it any more.
    known = joined({}, told, STARTED)
    assert numbers(joined(known, epochs_of([described(epoch(6, 9))]), STARTED)) == [4, 5, 6]
    assert joined(known, told, STARTED) == known


@pytest.mark.parametrize("told", [None, "x", [1], [{"number": 1}], [{"number": "a", "since": 1}], [{"since": 1.0}]])
def test_what_is_no_list_of_epochs_is_left_out(told: Any) -> None:
    assert epochs_of([Description("integrator", "results", (2,), "float64", meta={"epochs": told})]) == {}


def files(folder: Path, layout: MasterLayout, told: Description, **more: Any) -> AcquisitionFiles:
    image = ImagePlan("receiver", SHAPE, "<u2", "none", 65535)
    plan = DataFilePlan(4, image, (ResultsPlan.from_description(told),), master=layout)
    content = MasterContent("run", image, frames_requested=6, started=STARTED, epochs=epochs_of([told]))
    return AcquisitionFiles(folder, "run", plan, content, **more)


def write(made: AcquisitionFiles, index: int, number: int) -> None:
    header = FrameHeader(index, STARTED + index, STARTED + index, index, 1, 1)
    made.write_image(index, np.full(SHAPE, index, "<u2").tobytes(), header, now=float(index))
    made.write_results("integrator", index, STARTED + index, np.array([1.0, number]))


@pytest.mark.parametrize("layout", get_args(MasterLayout))
def test_a_master_says_what_its_epochs_mean(tmp_path: Path, layout: MasterLayout) -> None:
    made = files(tmp_path, layout, described(epoch(3, -50), epoch(4, -2, mask="sha256:ab", masked=7)))
    for index in range(3):
        write(made, index, 4)
    made.commit(0.0)
    if layout != "integrated":
        assert numbers(read_master(made.master).epochs) == [4]
    made.learn_epochs(epochs_of([described(epoch(4, -2, mask="sha256:ab", masked=7), epoch(5, 2.5))]))
    for index in range(3, 6):
        write(made, index, 5)
    made.finish(6)
    made.seal(ended=STARTED + 9, reason="complete", ledger=None)
    found = read_master(made.master).epochs
    assert numbers(found) == [4, 5]
    assert found["integrator"][1]["settings"] == {"bins": 5}
    if layout != "integrated":
        with h5py.File(made.master) as master:
            about = master["entry/epochs/integrator/epoch_000004"]
            assert about["poni"][()] == b"Distance: 4\n"
            assert (about["mask"][()], about["masked"][()]) == (b"sha256:ab", 7)
            assert json.loads(about["settings"][()]) == {"bins": 4}
            assert about["since"][()] == STARTED - 2
    report = check_file(made.master)
    assert "; integrator in epochs 4, 5" in report.about
    assert not [each for each in report.findings if each.rule == "epochs"]


def test_a_writer_that_goes_on_keeps_what_the_dead_one_knew(tmp_path: Path) -> None:
    made = files(tmp_path, "legacy", described(epoch(4, -2)))
    write(made, 0, 4)
    made.learn_epochs(epochs_of([described(epoch(5, 0.5))]))
    made.commit(0.0)
    for entry in made._open.values():
        entry.file.abandon()
    made = files(tmp_path, "legacy", described(epoch(6, 2)), resume=True)
    assert numbers(read_master(made.master).epochs) == [4, 5, 6]
    made.finish(1)


def test_an_epoch_without_a_meaning_is_found(tmp_path: Path) -> None:
    made = files(tmp_path, "legacy", described(epoch(4, -2), epoch(5, 1, poni="")))
    for index, number in enumerate((4, 5, 6)):
        write(made, index, number)
    made.finish(3)
    made.seal(ended=STARTED + 9, reason="complete", ledger=None)
    (finding,) = [each for each in check_file(made.master).findings if each.rule == "epochs"]
    assert finding.where == "/entry/epochs/integrator"
    assert finding.what == "does not say by which geometry frames of epoch 5, 6 were integrated"
    assert not finding.required_by
