"""The UCSC radiometer: file names of both kinds, days of a year in UTC, rows without a measurement."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sisockdaq.nodes.ucsc_radiometer import UcscRadiometer, day_to_unix, file_name

from sisockdaq.testing import Network
from tests.textfiles.test_file import write


def unix(*when: int) -> float:
    return datetime(*when, tzinfo=UTC).timestamp()  # type: ignore[misc, arg-type]


@given(st.dates(datetime(1970, 1, 2).date(), datetime(2200, 1, 1).date()), st.booleans(), st.booleans())
def test_both_kinds_of_names(date: object, day_first: bool, padded: bool) -> None:
    year, day = (int(part) for part in date.strftime("%Y %j").split())  # type: ignore[attr-defined]
    number = f"{day:03}" if padded else str(day)
    named = file_name(f"PWV_UCSC_{number}-{year:04}.txt" if day_first else f"PWV_UCSC_{year:04}-{number}.txt")
    assert named is not None
    assert named.span is not None
    begin = datetime(year, 1, 1, tzinfo=UTC) + timedelta(day - 1)
    assert named.span[0] < begin.timestamp() < (begin + timedelta(1)).timestamp() < named.span[1]
    assert named.span[1] - named.span[0] < 86400 + 600


@pytest.mark.parametrize(
    "name",
    [
        "PWV_UCSC_2019-366.txt",
        "PWV_UCSC_2020-367.txt",
        "PWV_UCSC_2019-000.txt",
        "PWV_UCSC_0000-001.txt",
        "PWV_UCSC_19-001.txt",
        "PWV_UCSC_2019-001.txt~",
        "PWV_2019-001.txt",
        "PWV_UCSC_2019-001.dat",
    ],
)
def test_not_a_file_of_the_radiometer(name: str) -> None:
    assert file_name(name) is None


def test_days_of_a_year() -> None:
    assert day_to_unix(np.array([1.0, 1.5, 60.0, 365.0007]), 2019).tolist() == [
        unix(2019, 1, 1),
        unix(2019, 1, 1, 12),
        unix(2019, 3, 1),
        unix(2019, 12, 31) + 60.48,
    ]
    assert day_to_unix(np.array([60.0, 366.5]), 2020).tolist() == [unix(2020, 2, 29), unix(2020, 12, 31, 12)]


@pytest.fixture(params=["UTC", "America/Santiago", "Pacific/Kiritimati"])
def _time_zone(request: pytest.FixtureRequest) -> Iterator[None]:
    old = os.environ.get("TZ")
    os.environ["TZ"] = request.param
    time.tzset()
    yield
    if old is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = old
    time.tzset()


@pytest.mark.usefixtures("_time_zone")
def test_rows_of_all_days(network: Network, tmp_path: Path) -> None:
    folder = tmp_path / "PWV"
    folder.mkdir()
    write(folder / "PWV_UCSC_201-2018.txt", "day pwv\n201.0000 1.10\n201.0007 NaN\n\n201.0014 1.30\n")
    write(folder / "PWV_UCSC_2018-202.txt", "day pwv\n\n202.5 2.5\nnot a row\n202.75 9.5")
    write(folder / "PWV_UCSC_2020-366.txt", "day pwv\n366.5 0.4\n")
    write(folder / "notes.txt", "1 2\n")
    network.start(UcscRadiometer, directory=str(tmp_path))
    first = unix(2018, 7, 20)
    fields, timelines = network.call("consumer.ucsc_radiometer.get_fields", first, first + 86400)
    assert fields == {
        "pwv": {"description": "PWV from UCSC Radiometer", "timeline": "pwv", "type": "number", "units": "mm"}
    }
    assert timelines == {"pwv": {"interval": 60.48, "field": ["pwv"]}}
    reply = network.call("consumer.ucsc_radiometer.get_data", ["pwv"], 1, 0)
    assert reply["data"] == {"pwv": [1.1, 1.3, 2.5, 9.5, 0.4]}
    assert reply["timeline"]["pwv"]["t"] == [
        first,
        first + 2 * 60.48,
        unix(2018, 7, 21, 12),
        unix(2018, 7, 21, 18),
        unix(2020, 12, 31, 12),
    ]
    assert reply["timeline"]["pwv"]["finalized_until"] == unix(2020, 12, 31, 12)
    part = network.call("consumer.ucsc_radiometer.get_data", ["pwv"], first + 1, unix(2018, 7, 21, 18))
    assert part["data"]["pwv"] == [1.3, 2.5]
    assert network.call("consumer.ucsc_radiometer.get_fields", unix(2019, 1, 1), unix(2019, 2, 1))[0] == {}
