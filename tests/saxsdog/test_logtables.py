from __future__ import annotations

import os
import time
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, TiffImagePlugin

from sisockdaq.saxsdog.logtables import mac_epoch, read_image_facts, read_image_log, read_table, together, wall_seconds

HEADER = """# Pixel_size 172e-6 m x 172e-6 m
# Silicon sensor, thickness 0.000320 m
# Exposure_time 0.500000 s
# Exposure_period 0.503000 s
# Tau = 199.1e-09 s
# Count_cutoff 1048574 counts
# N_excluded_pixels = 321
# Image_path: /disk2/images/
"""


def tiff(path: Path, description: str = HEADER, date: str = "2014:07:10 15:13:39") -> Path:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[270], tags[306] = description, date
    Image.fromarray(np.zeros((4, 5), np.int32)).save(path, tiffinfo=tags)
    return path


def test_a_header_of_a_pilatus_is_read(tmp_path: Path) -> None:
    facts = read_image_facts(tiff(tmp_path / "a.tif"))
    assert facts["date"] == "2014-07-10T15:13:39"
    assert facts["Exposure_time [s]"] == 0.5
    assert facts["Exposure_period [s]"] == 0.503
    assert facts["Tau [s]"] == pytest.approx(1.991e-7)
    assert facts["Count_cutoff [counts]"] == 1048574
    assert facts["N_excluded_pixels"] == 321
    assert facts["Image_path"] == "/disk2/images/"
    assert facts["Pixel_size [m]"] == 172e-6


def test_a_stamp_in_the_description_is_read(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif", "# 2014-07-10T15:13:39.123\n" + HEADER, date="")
    assert read_image_facts(path)["date"] == "2014-07-10T15:13:39.123"
    (tmp_path / "b.tif").write_bytes(b"no picture")
    with pytest.raises(OSError, match="cannot identify"):
        read_image_facts(tmp_path / "b.tif")


@given(st.text())
def test_any_header_is_taken(text: str) -> None:
    from sisockdaq.saxsdog.logtables import _fact

    for line in text.splitlines():
        assert isinstance(_fact(line), dict)


def test_times_are_those_of_the_wall() -> None:
    assert wall_seconds("1970:01:02 00:00:01") == 86401
    assert wall_seconds("1970-01-01T00:00:00.25") == 0.25
    with pytest.raises(ValueError, match="not a date"):
        wall_seconds("yesterday")


@pytest.mark.parametrize("zone", ["UTC", "Europe/Vienna", "America/New_York"])
def test_the_mac_epoch_is_the_originals(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        expected = (datetime.fromtimestamp(0) - datetime(1904, 1, 1)).total_seconds()
        assert mac_epoch() == expected
    finally:
        monkeypatch.undo()
        time.tzset()
        assert "TZ" not in os.environ or os.environ["TZ"] != zone


def test_a_table_is_read_in_order_of_time() -> None:
    text = "time\tIoni\tState\n30\t3.5\topen\n10\t1.5\tshut\n20\t\topen\n"
    table = read_table(text, "log", "Unix")
    assert table.times.tolist() == [10, 20, 30]
    np.testing.assert_array_equal(table.columns["Ioni"], [1.5, np.nan, 3.5])
    assert table.columns["State"].tolist() == ["shut", "open", "open"]
    mac = read_table(text, "log", "Mac")
    assert (table.times - mac.times).tolist() == [mac_epoch()] * 3
    assert list(table.shifted(5).renamed("Peak").columns) == ["Ioni (Peak)", "State (Peak)"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [("", "is empty"), ("a b\n1 2\n", "line 1: no columns"), ("t\ta\n1\t2\nnoon\t3\n", 'line 3: "noon" is no time'),
     ("t\ta\nnan\t2\n", "line 2: the time is nan")],
)  # fmt: skip
def test_broken_tables_are_told_by_line(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=f"log.*{reason}"):
        read_table(text, "log")


def test_files_of_a_table_are_put_together() -> None:
    one, two = read_table("t\ta\n1\t2\n5\t6\n", "one"), read_table("t\ta\tb\n3\t4\tx\n", "two")
    both = together([one, two])
    assert both.times.tolist() == [1, 3, 5]
    assert both.columns["a"].tolist() == [2, 4, 6]
    assert both.columns["b"][1] == "x"


def test_the_detectors_log_is_read() -> None:
    found = read_image_log(
        "Requested Measured EndTime File\n"
        "-------\n"
        "1.000 1.002 2014-07-10T15:13:39.500 /disk2/a_0.tif\n"
        "2014-07-10T15:13:41.500 /disk2/a_1.tif\n"
        "what is this\n"
    )
    assert set(found) == {"/disk2/a_0.tif", "/disk2/a_1.tif"}
    assert found["/disk2/a_0.tif"].measured == 1.002
    assert found["/disk2/a_0.tif"].end == wall_seconds("2014-07-10T15:13:39.5")
    assert np.isnan(found["/disk2/a_1.tif"].measured)
