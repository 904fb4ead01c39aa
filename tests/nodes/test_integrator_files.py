"""Files of a running integrator: no frame waits for them, and what is missing is counted and named."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sisockdaq.nodes.integrator import keeping
from sisockdaq.nodes.integrator.keeping import Keeper, _spans

from sisockdaq.frames import FrameHeader
from sisockdaq.integrate.reduction import Reducer
from sisockdaq.integrate.saving import ReducedFiles
from sisockdaq.integrate.settings import IntegrationSettings, make_integrator
from sisockdaq.nexus.check import check_file
from sisockdaq.nexus.reduced import read_epochs
from sisockdaq.testing.waiting import wait_until

SHAPE = (40, 52)
PLACE = {"distance": 0.1, "poni1": 0.0015, "poni2": 0.0021, "wavelength": 1e-10}


def reducer(epoch: int = 1, **options: Any) -> Reducer:
    wanted = IntegrationSettings.model_validate({"geometry": PLACE, "bins": 30, **options})
    return Reducer(make_integrator(wanted, shape=SHAPE, pixel_size=75e-6), wanted, epoch)


def add(keeper: Keeper, made: Reducer, acquisition: str, frames: range) -> None:
    for index in frames:
        image = np.random.default_rng(index).poisson(9, SHAPE).astype(np.uint16)
        header = FrameHeader(100 + index, 50.0 + index, 50.5 + index, index, 1, 1)
        keeper.add(acquisition, made, header, made.reduce(image))


def found(folder: Path, pattern: str) -> dict[int | None, list[int]]:
    return {part.epoch: part.numbers["frame_number"].tolist() for part in read_epochs(sorted(folder.glob(pattern)))}


def test_each_epoch_has_a_file(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path / "new", ["nxazint", "chi"])
    add(keeper, reducer(3), "run/1", range(4))
    add(keeper, reducer(4, mask=None, polarization=0.9), "run/1", range(4, 6))
    keeper.end()
    add(keeper, reducer(4), "run 2", range(1))  # ends with the node
    keeper.close(30)
    assert found(tmp_path / "new", "run_1_azint*") == {3: [100, 101, 102, 103], 4: [104, 105]}
    assert found(tmp_path / "new", "run_2_azint*") == {4: [100]}
    assert len(list(tmp_path.glob("new/*.chi"))) == keeper.saved == 7
    assert (keeper.not_saved, keeper.problem) == (0, "")


def test_cakes_are_in_the_nexus_files(tmp_path: Path) -> None:
    keeper, made = Keeper(tmp_path, ["nxazint", "nxcansas", "dat"]), reducer(cake={"azimuth_bins": 5, "bins": 12})
    add(keeper, made, "run", range(3))
    keeper.close(30)
    assert (keeper.saved, keeper.problem) == (3, "")
    (part,) = read_epochs(tmp_path.glob("run_azint*"))
    cake = part.products["cake"]
    assert cake.intensity.shape == (3, 5, 12)
    image = np.random.default_rng(2).poisson(9, SHAPE).astype(np.uint16)
    np.testing.assert_array_equal(
        cake.intensity[2], made.integrator.integrate2d(image, azimuth_bins=5, bins=12).intensity
    )
    assert part.products["curve"].intensity.shape == (3, 30)
    assert len(list(tmp_path.glob("*.dat"))) == 3
    assert not [finding for path in tmp_path.glob("*.h5") for finding in check_file(path).findings]


def test_an_acquisition_that_cannot_be_saved_does_not_harm_the_next(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for acquisition in ("first", "first", "second"):
        keeper = Keeper(tmp_path, ["nxazint"])
        add(keeper, reducer(), acquisition, range(3))
        keeper.end()
        add(keeper, reducer(), f"{acquisition}_b" if acquisition == "second" else "other", range(2))
        keeper.close(30)
    assert "first_azint_000001.h5 is there already" in caplog.text
    assert "not in the files: frames 0-2" in caplog.text
    assert found(tmp_path, "second_azint*") == {1: [100, 101, 102]}
    assert found(tmp_path, "first_azint*") == {1: [100, 101, 102]}


def test_curves_over_mm_cannot_be_nxcansas(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path, ["nxcansas"])
    add(keeper, reducer(unit="r_mm"), "run", range(2))
    keeper.close(30)
    assert (keeper.saved, keeper.not_saved) == (0, 2)
    assert keeper.problem


def test_a_slow_disk_costs_files_not_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    writing, go_on = threading.Event(), threading.Event()
    plain = ReducedFiles.add

    def slow(self: ReducedFiles, *arguments: Any, **more: Any) -> None:
        writing.set()
        go_on.wait(30)
        plain(self, *arguments, **more)

    monkeypatch.setattr(ReducedFiles, "add", slow)
    monkeypatch.setattr(keeping, "MOST_WAITING", 3)
    keeper, made = Keeper(tmp_path, ["nxazint"]), reducer()
    add(keeper, made, "run", range(1))
    assert writing.wait(30)
    add(keeper, made, "run", range(1, 8))
    assert keeper.not_saved == 4
    assert "too slow" in keeper.problem
    keeper.end()
    go_on.set()
    wait_until(lambda: "not in the files" in caplog.text, 30, "the names of the frames")
    keeper.close(30)
    assert "frames 4-7" in caplog.text
    assert found(tmp_path, "run_azint*") == {1: [100, 101, 102, 103]}
    assert keeper.saved + keeper.not_saved == 8


def test_cakes_that_wait_are_bounded_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writing, go_on = threading.Event(), threading.Event()
    plain = ReducedFiles.add

    def slow(self: ReducedFiles, *arguments: Any, **more: Any) -> None:
        writing.set()
        go_on.wait(30)
        plain(self, *arguments, **more)

    monkeypatch.setattr(ReducedFiles, "add", slow)
    made = reducer(cake={"azimuth_bins": 5, "bins": 12})
    one = made.reduce(np.ones(SHAPE, np.uint16)).cake
    assert one is not None
    monkeypatch.setattr(keeping, "MOST_CAKE_BYTES", 2 * one.nbytes)
    keeper = Keeper(tmp_path, ["nxazint"])
    add(keeper, made, "run", range(1))
    assert writing.wait(30)
    add(keeper, made, "run", range(1, 6))
    assert (keeper.not_saved, keeper.problem) == (3, "the disk is too slow")
    go_on.set()
    wait_until(lambda: keeper.saved == 3, 30, "what had room")
    add(keeper, made, "run", range(6, 7))
    keeper.close(30)
    assert found(tmp_path, "run_azint*") == {1: [100, 101, 102, 106]}


@given(st.sets(st.integers(0, 40), min_size=1))
def test_spans_name_each_number_once(numbers: set[int]) -> None:
    named: list[int] = []
    for span in _spans(list(numbers)).split(", "):
        low, _, high = span.partition("-")
        named.extend(range(int(low), int(high or low) + 1))
    assert named == sorted(numbers)
