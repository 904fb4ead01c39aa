"""Weather as callers see it: the package's sample, any folder of such files, files that grow."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from sisockdaq.nodes.weather import Weather

from sisockdaq.errors import ConfigurationError
from sisockdaq.testing import Network, wait_until
from sisockdaq.wire import FeedEvent
from tests.textfiles.test_file import write

REAL = Path(__file__).parents[3] / "shared" / "data" / "apex-weather"
BEGIN, END = 1_499_904_000, 1_501_113_600  # 13 to 27 July 2017

HEADER = "# Wind.\n# minutely\n# km/h\n"


def test_the_sample_is_a_fortnight(network: Network) -> None:
    network.start(Weather)
    fields, timelines = network.call("consumer.weather.get_fields", BEGIN, END)
    assert set(fields) == {"dewpoint", "humidity", "pressure", "radiometer", "temperature", "windspeed"}
    assert fields["windspeed"] == {
        "description": "Wind speed.",
        "timeline": "ten_minutely",
        "type": "number",
        "units": "km/h",
    }
    assert timelines["hourly"] == {"interval": 3600.0, "field": ["dewpoint", "humidity", "pressure", "temperature"]}
    assert timelines["ten_minutely"] == {"interval": 600.0, "field": ["radiometer", "windspeed"]}
    reply = network.call("consumer.weather.get_data", ["temperature", "humidity", "nothing"], 1, 0)
    assert len(reply["data"]["temperature"]) == len(reply["data"]["humidity"]) == 14 * 24 + 1
    assert reply["data"]["nothing"] == []
    assert reply["timeline"]["hourly"]["t"][:2] == [BEGIN, BEGIN + 3600]
    assert reply["timeline"]["hourly"]["finalized_until"] == END
    assert all(-30 < value < 20 for value in reply["data"]["temperature"])
    assert network.call("consumer.weather.get_fields", 1000, 2000) == [{}, {}]


def test_limits(network: Network, tmp_path: Path) -> None:
    rows = [(1000 + i, 50 if i == 777 else i % 3) for i in range(3000)]
    write(tmp_path / "wind.dat", HEADER + "".join(f"{t} {v}\n" for t, v in rows))
    network.start(Weather, directory=str(tmp_path), max_points=200)
    reply = network.call("consumer.weather.get_data", ["wind"], 1, 0)
    assert 100 < len(reply["data"]["wind"]) <= 200
    assert max(reply["data"]["wind"]) == 50
    reply = network.call("consumer.weather.get_data", ["wind"], 1, 0, 100)
    times = reply["timeline"]["minutely"]["t"]
    assert max(reply["data"]["wind"]) == 50
    assert all(b - a >= 100 for a, b in itertools.pairwise(times))
    few = network.client.get("weather::wind", start=1, max_points=20)["weather::wind"]
    assert len(few.t) <= 20
    assert few.values.max() == 50
    many = network.client.get("weather::wind", start=1, max_points=1000)["weather::wind"]
    assert 100 < len(many.t) <= 200
    # the interval is [start, end)
    assert network.call("consumer.weather.get_data", ["wind"], 1000, 1003)["data"]["wind"] == [0, 1, 2]


def test_rows_that_are_appended_are_fed(network: Network, tmp_path: Path) -> None:
    for name in ("wind", "gust"):
        write(tmp_path / f"{name}.dat", HEADER + "100 1\n160 2\n")
    running = network.start(Weather, directory=str(tmp_path), refresh=0.02)
    events = network.caller().subscribe(network.uri("consumer.weather.feed.minutely"))
    write(tmp_path / "wind.dat", "220 3\n280 ", mode="a")
    write(tmp_path / "wind.dat", "4\n", mode="a")

    def fed() -> list[tuple[float, float]]:
        parsed = [FeedEvent.parse(event) for event in list(events)]
        return [
            pair for e in parsed if "wind" in e.data for pair in zip(e.t.tolist(), e.data["wind"].tolist(), strict=True)
        ]

    wait_until(lambda: len(fed()) == 2, what="the new rows")
    assert fed() == [(220.0, 3.0), (280.0, 4.0)]
    assert network.call("consumer.weather.get_data", ["wind"], 200, 0)["data"]["wind"] == [3, 4]
    write(tmp_path / "rain.dat", "# Rain.\n# daily\n# mm\n100 1\n")
    wait_until(lambda: "rain" in running.node.folder.fields, what="the new file")
    wait_until(lambda: network.wait_for("weather::files")[-1] == 3, what="the status to tell it")


def test_a_program_that_watches_gets_every_row(network: Network, tmp_path: Path) -> None:
    for name in ("gust", "wind"):
        write(tmp_path / f"{name}.dat", HEADER + "100 1\n")
    network.start(Weather, directory=str(tmp_path), refresh=0.02)
    with network.client.watch("weather::wind", timeout=10) as watch:
        for i in range(2, 12):
            write(tmp_path / "gust.dat", f"{100 * i} 0\n", mode="a")  # the same timeline, but not the same event
            write(tmp_path / "wind.dat", f"{100 * i} {i}\n", mode="a")
        seen = [next(watch) for _ in range(10)]
        assert [(sample.t, sample.value) for sample in seen] == [(100.0 * i, float(i)) for i in range(2, 12)]
        assert watch.gaps == []


def test_what_is_wrong_is_told(network: Network, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere does not exist   → set the option directory"):
        network.start(Weather, directory=str(tmp_path / "nowhere"))
    network.stop_nodes()
    write(tmp_path / "wind.dat", HEADER + "100 1\nbroken\n160 2\n160 3\n")
    (tmp_path / "locked.dat").mkdir()
    network.start(Weather, directory=str(tmp_path))
    assert network.call("consumer.weather.get_data", ["wind"], 1, 0)["data"]["wind"] == [1, 3]
    told = network.call("consumer.weather.get_data", ["files_unreadable", "rows_broken", "rows_repeated"], 1, 0)
    assert {name: values[-1] for name, values in told["data"].items()} == {
        "files_unreadable": 1,
        "rows_broken": 1,
        "rows_repeated": 1,
    }


def test_a_file_without_comments_is_a_field_of_its_own_timeline(network: Network, tmp_path: Path) -> None:
    write(tmp_path / "plain.dat", "100 1\n")
    network.start(Weather, directory=str(tmp_path))
    fields, timelines = network.call("consumer.weather.get_fields", 1, 200)
    assert fields == {"plain": {"description": None, "timeline": "plain", "type": "number", "units": None}}
    assert timelines == {"plain": {"interval": None, "field": ["plain"]}}


def test_real_files(network: Network) -> None:
    if not REAL.is_dir():
        pytest.skip("the example data apex-weather is not here")
    network.start(Weather, directory=str(REAL))
    fields, timelines = network.call("consumer.weather.get_fields", 1_500_000_000, 1_500_100_000)
    assert fields["apex_radiometer"] == {
        "description": "The APEX radiometer data.",
        "timeline": "minutely",
        "type": "number",
        "units": "mm",
    }
    assert timelines["minutely"] == {"interval": 60.0, "field": ["apex_radiometer", "apex_windspeed"]}
    rows = [line.split() for line in (REAL / "apex_windspeed.dat").read_text().splitlines() if line[0] != "#"]
    last = {float(t): float(v) for t, v in rows}
    reply = network.call("consumer.weather.get_data", ["apex_windspeed"], 1, 0)
    assert reply["timeline"]["minutely"]["t"] == sorted(last)
    assert reply["data"]["apex_windspeed"] == [last[t] for t in sorted(last)]
