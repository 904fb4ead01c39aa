"""Places, names and chunk sizes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sisockdaq.errors import AcquisitionRefused
from sisockdaq.nexus.checks import folder_obstacles, request_obstacles, space_obstacle
from sisockdaq.nexus.layout import (
    ImagePlan,
    ResultsPlan,
    acquisition_of,
    chunk_rows,
    data_name,
    master_name,
    place,
    resolve_prefix,
)
from sisockdaq.nexus.placing import Place
from tests.nexus import data


@given(st.integers(0, 10**9), st.integers(1, 10**6))
def test_every_index_has_one_place(index: int, images_per_file: int) -> None:
    number, row = place(index, images_per_file)
    assert 0 <= row < images_per_file
    assert (number - 1) * images_per_file + row == index


@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_a_chunk_tree_stays_one_node(row_bytes: int, rows: int) -> None:
    size = chunk_rows(row_bytes, rows)
    assert 1 <= size <= rows
    assert -(-rows // size) <= 64


@given(st.text("abc_-/.0", min_size=1, max_size=20), st.integers(1, 999_999))
def test_names_are_read_back(prefix: str, number: int) -> None:
    assert acquisition_of(data_name(prefix, number)) == (prefix, number)
    assert acquisition_of(master_name(prefix)) == (prefix, 0)


@pytest.mark.parametrize("name", ["run.h5", "run_data_1.h5", "_master.h5", "run_data_0000001.h5", "x.txt"])
def test_other_names_are_not_ours(name: str) -> None:
    assert acquisition_of(name) is None


@given(acquisition=st.text(max_size=12), directory=st.none() | st.text("ab./\\\0", max_size=8))
def test_no_name_leads_out_of_the_root(
    tmp_path_factory: pytest.TempPathFactory, acquisition: str, directory: str
) -> None:
    root = tmp_path_factory.getbasetemp() / "root"
    root.mkdir(exist_ok=True)
    try:
        folder, prefix = resolve_prefix(root, acquisition, directory)
    except AcquisitionRefused:
        return
    assert folder.resolve().is_relative_to(root.resolve())
    assert prefix
    assert "/" not in prefix


def test_an_absolute_directory_is_taken_only_below_the_root(tmp_path: Path) -> None:
    assert resolve_prefix(tmp_path, "run", str(tmp_path / "a")) == (tmp_path / "a", "run")
    with pytest.raises(AcquisitionRefused, match="absolute"):
        resolve_prefix(tmp_path, "run", "/etc")


def test_results_are_described_by_the_sources_meta() -> None:
    plan = ResultsPlan.from_description(data.RESULTS)
    curve, _, total, _ = plan.fields
    assert (curve.start, curve.width, curve.scalar, curve.axis, curve.axis_dataset) == (0, 5, False, "q", "axis_q")
    assert (total.scalar, total.units) == (True, "counts")
    assert [axis.dataset for axis in plan.axes] == ["axis_q"]


def test_the_disk_that_is_too_small_is_named_with_figures(tmp_path: Path) -> None:
    image = ImagePlan("receiver", (1024, 1024), "<u2")
    assert space_obstacle(tmp_path, image, 10, None) is None
    reason = space_obstacle(tmp_path / "not" / "yet", image, 10**9, 7.7)
    assert reason is not None
    assert "272 TB needed" in reason
    assert "÷ 7.7, the compression seen so far" in reason
    raw = space_obstacle(tmp_path, ImagePlan("receiver", (1024, 1024), "<u2", "none"), 10**9, 7.7)
    assert raw is not None
    assert "÷" not in raw


def test_what_is_asked_of_the_source_is_checked() -> None:
    assert request_obstacles(10, data.IMAGES, None) == []
    reasons = "\n".join(request_obstacles(0, data.RESULTS, "other"))
    assert "0 frames" in reasons
    assert "does not publish images" in reasons
    assert "in acquisition other" in reasons
    assert "no source" in request_obstacles(None, None, None)[0]


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert (
        "is not a folder"
        in folder_obstacles(Place(tmp_path / "file" / "sub", "run", "run_master.h5"), overwrite=False)[0]
    )
