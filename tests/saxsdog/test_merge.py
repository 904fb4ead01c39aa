"""Merging, with images whose log is known."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sisockdaq.errors import ConfigurationError
from sisockdaq.saxsdog.listing import Allowed
from sisockdaq.saxsdog.logtables import Table, mac_epoch, wall_seconds
from sisockdaq.saxsdog.merge import Merging, join, merge_configuration, time_shift
from sisockdaq.saxsdog.wire import Attachment
from sisockdaq.testing import wait_until
from tests.saxsdog.test_logtables import HEADER, tiff

T0 = wall_seconds("2014:07:10 15:00:00")
"""When the first exposure began."""


def configuration(**changes: Any) -> dict[str, Any]:
    peak = {
        "TimeEpoch": "Mac", "TimeOffset": 0.0, "FirstImageCorrelation": True, "ZeroImageCorrelation": False,
        "Name": "Peak", "Files": [{"RemotePath": [], "LocalPath": "peak.log"}],
    }  # fmt: skip
    dlog = {
        "TimeEpoch": "Unix", "TimeOffset": 2.0, "FirstImageCorrelation": False, "ZeroImageCorrelation": False,
        "Name": "Dlogger", "Files": [{"RemotePath": ["logs", "dlog.log"], "LocalPath": ""}],
    }  # fmt: skip
    return {
        "TimeOffset": 0.0, "LogDataTables": [peak, dlog],
        "OutputFormats": {"csv": True, "hdf": True, "exel": False, "json": True},
        "OutputFileBaseName": ".//results//logs//", "HDFOptions": {"IncludeCHI": True, "IncludeTIF": True}, **changes,
    }  # fmt: skip


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Three exposures of half a second, 10 s apart; the shutter's clock is 100 s late, the logger's 2 s early."""
    images = tmp_path / "data" / "run1"
    (images / "one").mkdir(parents=True)
    (images / "work").mkdir()
    for n in range(3):
        tiff(images / "one" / f"a_{n:05}.tif", HEADER, f"2014:07:10 15:00:{10 * n:02}")
        (images / "work" / f"a_{n:05}.chi").write_text("chi")
        (images / "work" / f"a_{n:05}_cS1.chi").write_text("slice")
    log = ["Requested Measured End File\n"]
    log += [f"0.5 0.5 2014-07-10T15:00:{10 * n:02}.500 /disk2/images/a_{n:05}.tif\n" for n in range(3)]
    (images / "one" / "images.log").write_text("".join(log))
    logs = tmp_path / "data" / "logs"
    logs.mkdir()
    lines = [f"{T0 + 2 + t}\t{t}\n" for t in range(-1, 30)]
    (logs / "dlog.log").write_text("time\tIoni\n" + "".join(lines))
    return tmp_path / "data"


def shutter() -> Attachment:
    stamps = [T0 + mac_epoch() - 100 + 10 * n for n in range(3)]
    return Attachment("peak.log", "time\tDuration\n" + "".join(f"{t}\t0.5\n" for t in stamps))


def merged(base: Path, conf: dict[str, Any], *attachments: Attachment) -> tuple[Merging, dict[str, Any]]:
    merging = Merging()
    merging.start(conf, attachments, base / "run1", Allowed(base))
    wait_until(lambda: not merging.runs, 30, "the end of the merge")
    return merging, merging.result()


def test_images_are_joined_with_their_logs(base: Path) -> None:
    merging, result = merged(base, configuration(), shutter())
    assert result["result"] == "mergedata", result
    out = base / "run1" / "results" / "logs"
    with (out / "run1.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["filename (Img)"] for row in rows] == ["a_00000.tif", "a_00001.tif", "a_00002.tif"]
    assert [row[""] for row in rows] == [f"2014-07-10 15:00:{s}.250000" for s in ("00", "10", "20")]
    # The shutter's shift of 100 s is every table's: the logger begins only later than the images.
    assert [row["Ioni (Dlogger)"] for row in rows] == ["", "", ""]
    assert [float(row["Duration (Peak)"]) for row in rows] == [0.5] * 3
    assert result["data"]["syncplot"]["CalculatedTimeshift"] == "0:01:40"
    images = result["data"]["syncplot"]["Images"]
    assert list(images.values()) == [{"Exposure_time [s] (Img)": 0.5}] * 3
    assert len(result["data"]["syncplot"]["Shutter"]) == 3
    assert {kind: len(paths) for kind, paths in result["data"]["fileslist"].items()} == {"R": 3, "S1": 3}
    said = merging.news()
    assert "Base-directory of merge is" in said
    assert "Time shift (FirstImage): +100.000 s" in said
    assert merging.news() == ""
    assert (merging.newly_finished(), merging.newly_finished()) == (1, 0)


def test_each_format_has_the_same_numbers(base: Path) -> None:
    openpyxl: Any = pytest.importorskip("openpyxl", reason="openpyxl, which writes Excel files, is not installed")
    formats = {"csv": True, "hdf": True, "exel": True, "json": True}
    _, result = merged(base, without_shift() | {"OutputFormats": formats}, shutter())
    assert result["result"] == "mergedata", result
    out = base / "run1" / "results" / "logs"
    expected = [0.25, 10.25, 20.25]
    name = "Ioni (Dlogger)"
    table = json.loads((out / "run1.json").read_text())[name]
    assert list(table.values()) == pytest.approx(expected)
    assert [float(t) for t in table] == pytest.approx([1e3 * (T0 + t) for t in expected])
    with h5py.File(out / "run1.hdf") as file:
        assert file["LogData"][name][:].tolist() == pytest.approx(expected)
        assert file["LogData/time"][:].tolist() == pytest.approx([T0 + t for t in expected])
        assert [image.shape for image in file["Images"].values()] == [(4, 5)] * 3
        assert [one["CHI"].asstr()[()] for one in file["Graphs/S1"].values()] == ["slice"] * 3
    sheet = list(openpyxl.load_workbook(out / "run1.xlsx").active.values)
    assert [row[sheet[0].index(name)] for row in sheet[1:]] == pytest.approx(expected)
    with (out / "run1_igor.csv").open() as stream:
        igor = list(csv.DictReader(stream))
    assert [float(row[""]) for row in igor] == pytest.approx([T0 + t + 2082844800 for t in expected])
    assert (out / "run1R.txt").read_text().count("\n") == 3
    assert "Writing" not in (out / "run1consolidate_log.log").read_text()
    assert sorted(path.name for path in out.glob("*.csv")) == [
        "Dlogger.csv", "Imagedata.csv", "Peak.csv", "run1.csv", "run1_igor.csv"
    ]  # fmt: skip


def without_shift() -> dict[str, Any]:
    conf = configuration()
    conf["LogDataTables"][0]["FirstImageCorrelation"] = False
    return conf


def test_only_what_is_asked_for_is_written(base: Path) -> None:
    formats = {"csv": False, "hdf": False, "exel": False, "json": False}
    merged(base, configuration(OutputFormats=formats, OutputFileBaseName="../merged/all"), shutter())
    names = sorted(path.name for path in (base / "merged").iterdir())
    assert names == [
        "Dlogger.csv", "Imagedata.csv", "Peak.csv", "run1allR.txt", "run1allS1.txt", "run1all_igor.csv",
        "run1allconsolidate_log.log",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"OutputFileBaseName": "../../elsewhere/"}, "outside of the folders"),
        ({"OutputFileBaseName": "/etc/"}, "outside of the folders"),
        ({"TimeOffset": "soon"}, "TimeOffset"),
        ({"LogDataTables": [{"Name": "a/b", "Files": [{"LocalPath": "x"}]}]}, "without a slash"),
        ({"LogDataTables": [{"Name": "a", "Files": [{"LocalPath": "x"}]}]}, "x did not come with the request"),
        ({"LogDataTables": [{"Name": "a", "Files": [{"RemotePath": ["..", "x"]}]}]}, "outside of the folders"),
        ({"LogDataTables": [{"Name": "a", "Files": [{"RemotePath": ["x"]}]}]}, "No such file"),
        ({"LogDataTables": [{"Name": "a"}]}, "a has no files"),
    ],
)
def test_mistakes_are_told_before_anything_begins(base: Path, change: dict[str, Any], text: str) -> None:
    merging = Merging()
    with pytest.raises((ConfigurationError, OSError, ValueError), match=text):
        merging.start(configuration(**change), [shutter()], base / "run1", Allowed(base))
    assert not merging.runs
    assert not (base / "run1" / "results").exists()


def test_what_goes_wrong_later_is_in_the_status(base: Path) -> None:
    conf = configuration()
    conf["LogDataTables"][0] |= {"FirstImageCorrelation": False, "ZeroImageCorrelation": True}
    merging, result = merged(base, conf, shutter())
    assert "there is no zero image" in result["data"]["Error"]
    assert "The datamerger was stopped!" in merging.news()


def test_a_broken_image_is_named_and_passed_over(base: Path) -> None:
    (base / "run1" / "one" / "b.tif").write_bytes(b"II*\0half")
    merging, result = merged(base, configuration(), shutter())
    assert result["result"] == "mergedata"
    assert "ERROR in" in merging.news()
    assert len(result["data"]["syncplot"]["Images"]) == 3


def test_the_shift_is_that_of_the_first_or_of_the_zero_image() -> None:
    starts, names = np.array([50.0, 60.0]), np.array(["x_0.tif", "zero_1M_00000.tif"], object)
    table = Table(np.array([10.0, 20.0]))

    def shift(**flags: bool) -> float:
        conf = merge_configuration({"LogDataTables": [{"Name": "Peak", **flags}]})
        return time_shift(conf, [table], starts, names)

    assert shift() == 0
    assert shift(FirstImageCorrelation=True) == 40
    assert shift(ZeroImageCorrelation=True) == 50
    with pytest.raises(ValueError, match="only one table"):
        shift(FirstImageCorrelation=True, ZeroImageCorrelation=True)


@settings(max_examples=50)
@given(
    st.lists(st.floats(0, 100), min_size=1, max_size=20, unique=True),
    st.lists(st.tuples(st.floats(-10, 110), st.floats(0, 4)), min_size=1, max_size=10),
)
def test_values_lie_between_the_readings_beside_them(times: list[float], images: list[tuple[float, float]]) -> None:
    stamps = np.sort(np.array(times))
    values = np.random.default_rng(0).normal(size=len(stamps))
    starts, exposures = (np.array(column) for column in zip(*images, strict=True))
    found = join(starts, exposures, {}, [Table(stamps, {"a": values})]).columns["a"]
    for middle, value in zip(starts + exposures / 2, found, strict=True):
        before, after = values[stamps <= middle], values[stamps >= middle]
        if not len(before):
            assert np.isnan(value)
        elif not len(after):
            assert value == values[-1]
        else:
            low, high = sorted((before[-1], after[0]))
            assert low - 1e-9 <= value <= high + 1e-9


def test_long_exposures_are_averaged_and_text_stays() -> None:
    table = Table(np.arange(20.0), {"n": np.arange(20.0), "state": np.array(list("abcdefghijklmnopqrst"), object)})
    found = join(np.array([2.0, 2.0, -9.0]), np.array([10.0, 1.0, 1.0]), {}, [table]).columns
    assert found["n"][:2].tolist() == [7.0, 2.5]
    assert np.isnan(found["n"][2])
    assert found["state"].tolist() == ["h", "c", ""]
