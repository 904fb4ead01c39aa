"""Curves as text: what is written is read, by us, by numpy, and with the headers of other programs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pyFAI.io import DefaultAiWriter

from sisockdaq.errors import ConfigurationError, FileUnreadable, StorageError
from sisockdaq.nexus.reduced.text import FORMATS, CurveFormat, CurveNames, TextCurve, read_curve, write_curve

Q = np.linspace(0.1, 4.0, 50)


def example(*, errors: bool = True, empty: bool = False) -> TextCurve:
    intensity = 100 * np.exp(-Q)
    if empty:
        intensity[[3, 20]] = np.nan
    sigma = np.sqrt(intensity) if errors else None
    return TextCurve(Q, intensity, sigma, "run_0001, frame 17", "q_nm^-1", ("file: run_0001_master.h5", "epoch: 2"))


def assert_same(found: TextCurve, wanted: TextCurve) -> None:
    np.testing.assert_allclose(found.axis, wanted.axis, rtol=1e-9)
    np.testing.assert_allclose(found.intensity, wanted.intensity, rtol=1e-9)
    assert (found.sigma is None) == (wanted.sigma is None)
    if found.sigma is not None:
        np.testing.assert_allclose(found.sigma, wanted.sigma, rtol=1e-9)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("errors", [True, False])
def test_what_was_written_is_read(tmp_path: Path, kind: CurveFormat, errors: bool) -> None:
    path, curve = tmp_path / f"run.{kind}", example(errors=errors)
    write_curve(path, curve)
    found = read_curve(path)
    assert_same(found, curve)
    assert (found.title, found.unit) == (curve.title, "q_nm^-1")
    assert found.remarks == (curve.remarks if kind == "dat" else ())
    assert list(tmp_path.iterdir()) == [path]


def test_the_layout_of_chi_is_fit2ds(tmp_path: Path) -> None:
    write_curve(tmp_path / "run.chi", example(empty=True))
    lines = (tmp_path / "run.chi").read_text().splitlines()
    assert lines[:4] == ["run_0001, frame 17", "q (nm^-1)", "Intensity", "          50"]
    table = np.loadtxt(tmp_path / "run.chi", skiprows=4)
    assert table.shape == (50, 3)
    assert np.flatnonzero(np.isnan(table[:, 1])).tolist() == [3, 20]
    np.testing.assert_allclose(table[:, 0], Q, rtol=1e-9)


def test_dat_has_only_full_bins_and_remarks_that_are_no_numbers(tmp_path: Path) -> None:
    write_curve(tmp_path / "run.dat", example(empty=True))
    table = np.loadtxt(tmp_path / "run.dat")
    assert table.shape == (48, 3)
    assert np.isfinite(table).all()
    head = [line for line in (tmp_path / "run.dat").read_text().splitlines() if line.startswith("#")]
    assert head == [
        "# run_0001, frame 17",
        "# file: run_0001_master.h5",
        "# epoch: 2",
        "# q (nm^-1) | I | sigma",
    ]


@settings(max_examples=60, deadline=None)
@given(arrays.arrays(np.float64, st.tuples(st.integers(1, 30), st.just(3)), elements=st.floats(width=32)))
def test_any_numbers_come_back(tmp_path_factory: pytest.TempPathFactory, table: np.ndarray) -> None:
    path = tmp_path_factory.mktemp("any") / "run.chi"
    curve = TextCurve(table[:, 0], table[:, 1], table[:, 2])
    write_curve(path, curve)
    assert_same(read_curve(path), curve)


@pytest.mark.parametrize("title", ["1 2 3", "", "two\nlines", "  spaces  ", "# sharp", "π", "12"])
def test_any_title_leaves_the_numbers_alone(tmp_path: Path, title: str) -> None:
    for kind in FORMATS:
        curve = TextCurve(Q, Q**2, None, title, "2th_deg", ("5 6 7",))
        write_curve(tmp_path / f"run.{kind}", curve)
        found = read_curve(tmp_path / f"run.{kind}")
        assert_same(found, curve)
        assert found.unit == "2th_deg"


def test_files_of_pyfai_are_read(tmp_path: Path) -> None:
    curve = example()
    writer = DefaultAiWriter(str(tmp_path / "pyfai.dat"))
    writer.save1D(str(tmp_path / "pyfai.dat"), Q, curve.intensity, curve.sigma, dim1_unit="q_nm^-1")
    found = read_curve(tmp_path / "pyfai.dat")
    np.testing.assert_allclose(found.intensity, curve.intensity, rtol=1e-5)
    np.testing.assert_allclose(found.sigma, curve.sigma, rtol=1e-5)


@pytest.mark.parametrize(
    "text",
    [
        "sample\n0.1 1 0.5\n0.2 2 0.5\n0.3 3 0.5\n",
        "Sample: 3 mg/ml\n5\n\n 0.1, 1, 0.5\n 0.2, 2, 0.5\n0.3, 3, 0.5\nfooter 1 2\n",
        "0.1\t1\t0.5\t7\n0.2\t2\t0.5\t7\n0.3\t3\t0.5\t7",
        "1 2\n# 2 columns above\n0.1 1e0 5E-1\n0.2 2.0 .5\n0.3 +3 0.5\n",
    ],
)
def test_headers_of_strangers_are_passed(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.dat").write_text(text)
    found = read_curve(tmp_path / "run.dat")
    assert found.axis.tolist() == [0.1, 0.2, 0.3]
    assert found.intensity.tolist() == [1, 2, 3]
    assert found.sigma is not None
    assert found.sigma.tolist() == [0.5] * 3


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileUnreadable, match="does not exist"):
        read_curve(tmp_path / "gone.chi")
    (tmp_path / "text.chi").write_text("no numbers\nat all\n")
    with pytest.raises(FileUnreadable, match="no columns"):
        read_curve(tmp_path / "text.chi")
    (tmp_path / "empty.chi").write_bytes(b"")
    with pytest.raises(FileUnreadable, match="no columns"):
        read_curve(tmp_path / "empty.chi")
    with pytest.raises(FileUnreadable, match="cannot be read"):
        read_curve(tmp_path)


def test_a_file_is_not_overwritten_unasked(tmp_path: Path) -> None:
    path = tmp_path / "run.chi"
    write_curve(path, example())
    with pytest.raises(StorageError, match="exists"):
        write_curve(path, example(errors=False))
    assert read_curve(path).sigma is not None
    write_curve(path, example(errors=False), overwrite=True)
    assert read_curve(path).sigma is None
    with pytest.raises(StorageError, match="cannot be written"):
        write_curve(tmp_path / "no folder" / "run.chi", example())
    with pytest.raises(ConfigurationError, match="no format"):
        write_curve(tmp_path / "run.csv", example())
    with pytest.raises(ConfigurationError, match="no curve"):
        TextCurve(Q, Q[:5])
    assert [each.name for each in tmp_path.iterdir()] == ["run.chi"]


def test_names_of_many_frames(tmp_path: Path) -> None:
    assert CurveNames(tmp_path).path("run_0001", 17).name == "run_0001_000017.chi"
    names = CurveNames(tmp_path, "{prefix}/{curve}_e{epoch}_{frame:04d}.{format}")
    found = names.path("run_0001", 17, curve="sector", epoch=3, kind="dat")
    assert found.relative_to(tmp_path) == Path("run_0001/sector_e3_0017.dat")
    assert len({names.path("r", frame) for frame in range(100)}) == 100
    for pattern in ("{prefix}.chi", "{frame}_{who}.chi", "{frame", "{frame:q}", "../{frame}.chi", "/{frame}.chi", "{}"):
        with pytest.raises(ConfigurationError, match="does not name"):
            CurveNames(tmp_path, pattern)
    with pytest.raises(ConfigurationError, match="no file in"):
        CurveNames(tmp_path).path("../run", 1)
    with pytest.raises(ConfigurationError, match="no file in"):
        CurveNames(tmp_path).path("/run", 1)
