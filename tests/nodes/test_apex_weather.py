"""The APEX weather station: file names, and what callers get of the files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sisockdaq.nodes.apex_weather import FIELDS, ApexWeather, file_name

from sisockdaq.errors import ConfigurationError
from sisockdaq.testing import Network
from tests.textfiles.test_file import write


@given(
    st.sampled_from(sorted(FIELDS)),
    st.integers(0, 10**11),
    st.integers(0, 10**8),
    st.from_regex(r"[A-Za-z0-9.-]{0,9}", fullmatch=True),
    st.sampled_from(["", "_part", "_1_2"]),
)
def test_a_file_name_says_field_and_span(field: str, start: int, length: int, prefix: str, more: str) -> None:
    named = file_name(f"{prefix}_{field}_{start}_{start + length}{more}.dat")
    assert named is not None
    assert (named.field, named.span) == (field, (float(start), float(start + length)))


@given(st.text(max_size=40))
def test_other_names_are_nobody_s(name: str) -> None:
    named = file_name(name)
    assert named is None or name.split("_")[1] == named.field


@pytest.mark.parametrize(
    "name",
    [
        "apex_humidity_1_2.txt",
        "apex_humidity_1.dat",
        "apex_humidity_2_1.dat",
        "apex_rain_1_2.dat",
        "apex_humidity_x_2.dat",
        "apex_humidity_1_2.dat.part",
        "x_apex_humidity_1_2.dat",
    ],
)
def test_not_a_file_of_the_station(name: str) -> None:
    assert file_name(name) is None


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    targets = tmp_path / "targets"
    targets.mkdir()
    for day in range(5):
        start = 1_500_000_000 + day * 86_400
        for field, base in (("humidity", 30), ("winddirection", 180)):
            rows = "".join(f"{start + minute * 60}.5 {base + day}.25\n" for minute in range(1440))
            write(targets / f"APEX_{field}_{start}_{start + 86_399}.dat", rows)
    return tmp_path


def test_days_are_one_series(network: Network, directory: Path) -> None:
    running = network.start(ApexWeather, directory=str(directory))
    assert running.node.folder.status.files_read == 2  # the newest of each field
    begin = 1_500_000_000
    fields, timelines = network.call("consumer.apex_weather.get_fields", begin, begin + 5 * 86_400)
    assert set(fields) == {"humidity", "winddirection"}
    assert fields["winddirection"] == {
        "description": "APEX weather station wind direction.",
        "timeline": "winddirection",
        "type": "number",
        "units": "deg",
    }
    assert timelines["humidity"] == {"interval": None, "field": ["humidity"]}
    middle = begin + 86_400
    reply = network.call("consumer.apex_weather.get_data", ["humidity", "dewpoint", "rain"], middle - 120, middle + 60)
    assert reply == {
        "data": {"humidity": [30.25, 30.25, 31.25], "dewpoint": [], "rain": []},
        "timeline": {"humidity": {"t": [middle - 119.5, middle - 59.5, middle + 0.5], "finalized_until": None}},
    }
    assert running.node.folder.status.files_read == 4
    everything = network.call("consumer.apex_weather.get_data", ["humidity"], 1, 0)
    assert len(everything["data"]["humidity"]) == 5 * 1440
    assert everything["timeline"]["humidity"]["finalized_until"] == begin + 5 * 86_400 - 59.5
    assert network.call("consumer.apex_weather.get_fields", 1, begin)[0] == {}


def test_a_folder_without_targets(network: Network, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"targets does not exist   → set the option directory"):
        network.start(ApexWeather, directory=str(tmp_path))


def test_units_of_all_fields() -> None:
    assert {field: units for field, (_, units) in FIELDS.items()} == {
        "humidity": "%",
        "pressure": "mBar",
        "radiometer": "mm",
        "dewpoint": "C",
        "temperature": "C",
        "windspeed": "km/h",
        "winddirection": "deg",
    }
