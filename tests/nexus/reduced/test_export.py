"""Curves of a file, given to other programs, are the same curves and say where they come from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sisockdaq.errors import ConfigurationError, StorageError
from sisockdaq.nexus.check import check_file
from sisockdaq.nexus.reduced import (
    AzintFile,
    ReducedFile,
    export_cansas,
    export_text,
    read_reduced,
    reduction_of,
)
from sisockdaq.nexus.reduced.text import FORMATS, CurveFormat, CurveNames, read_curve
from tests.nexus.reduced import content


@pytest.fixture
def found(tmp_path: Path) -> ReducedFile:
    cake, curve = content.cake(), content.curve()
    path = tmp_path / "run_azint.h5"
    with AzintFile(path, [cake, curve], content.reduction(files=("a_master.h5", "b_master.h5")), epoch=4) as file:
        values = content.intensity(curve, 0, 3)
        cakes = content.intensity(cake, 0, 3)
        blocks = {"curve": values, "cake": cakes}
        file.append(content.times(0, 3), blocks, {"curve": values / 10}, index=[5, 6, 9], monitor=np.ones(3))
    return read_reduced(path)


def test_a_reduction_is_read_as_it_was_given(found: ReducedFile) -> None:
    given, read = content.reduction(files=("a_master.h5", "b_master.h5")), reduction_of(found)
    for name in (
        "acquisition",
        "files",
        "instrument",
        "laboratory",
        "sample",
        "polarization",
        "solid_angle",
        "monitor",
    ):
        assert getattr(read, name) == getattr(given, name), name
    assert read.wavelength == pytest.approx(1e-10, rel=1e-15)
    assert read.poni_text == given.poni_text
    np.testing.assert_array_equal(read.mask, given.mask)
    assert read.parameters["error_model"] == "poisson"
    assert (read.program, read.made_by) == ("sisockdaq", given.made_by)


def test_nxcansas_of_a_file(tmp_path: Path, found: ReducedFile) -> None:
    path = tmp_path / "run_cansas.h5"
    export_cansas(found, path)
    assert check_file(path).findings == []
    read = read_reduced(path)
    assert (read.epoch, read.acquisition, read.names["sample"]) == (4, "run_0001", "silica")
    np.testing.assert_array_equal(read.product.intensity, content.intensity(content.curve(), 0, 3))
    np.testing.assert_allclose(read.time, found.time, atol=1e-6, rtol=0)
    with pytest.raises(ConfigurationError, match='no curve "cake"'):
        export_cansas(found, tmp_path / "other.h5", product="cake")


@pytest.mark.parametrize("kind", FORMATS)
def test_text_of_a_file(tmp_path: Path, found: ReducedFile, kind: CurveFormat) -> None:
    names = CurveNames(tmp_path / "text", "{prefix}/{curve}_{frame:04d}.{format}")
    written = export_text(found, names, kind=kind)
    assert [path.relative_to(names.folder).as_posix() for path in written] == [
        f"run_0001/curve_{frame:04d}.{kind}" for frame in (5, 6, 9)
    ]
    curve = read_curve(written[2])
    expected = content.intensity(content.curve(), 2, 1)[0]
    full = np.isfinite(expected) if kind == "dat" else slice(None)
    np.testing.assert_allclose(curve.intensity, expected[full], rtol=1e-9)
    assert curve.title == "run_0001, frame 9"
    assert curve.unit == "q_nm^-1"
    if kind == "dat":
        assert "epoch: 4" in curve.remarks
    with pytest.raises(StorageError, match="exists"):
        export_text(found, names, kind=kind)
    assert export_text(found, names, kind=kind, overwrite=True) == written
