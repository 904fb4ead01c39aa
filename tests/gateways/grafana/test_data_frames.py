"""Replies of a running gateway, turned into data frames by Grafana's own code."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from sisockdaq.testing import Network
from tests.gateways.grafana.frames import Frame, data_frames
from tests.gateways.grafana.rig import T0, Reader, Weather

pytestmark = pytest.mark.timeout(240)

FIRST, LAST = int(T0 * 1e3), int((T0 + 100) * 1e3)
TIMES = [FIRST + 1000 * i for i in range(5)]


@pytest.fixture
def weather(network: Network, grafana: Reader) -> Reader:
    network.start(Weather)
    grafana.wait_searched("weather::temperature")
    return grafana


def flat(fields: str, **parameters: str) -> str:
    more = "".join(f"&{key}={value}" for key, value in parameters.items())
    return f"/api/query?field={quote(fields)}&from={FIRST}&to={LAST}{more}"


def shape(frame: Frame) -> list[tuple[str, str]]:
    return [(column.name, column.type) for column in frame.columns]


def test_series(weather: Reader) -> None:
    """SimpleJson and simPod hand each part of the reply to Grafana as it is."""
    names = ["weather::temperature", "weather::count", "weather::broken", "weather::open"]
    frames = data_frames(
        weather.query(*({"target": name, "refId": ref} for name, ref in zip(names, "ABCD", strict=True)))
    )
    values: list[list[Any]] = [
        [0.0, 0.25, 0.5, 0.75, 1.0],
        [0, 1, 2, 3, 4],
        [1.0, None, None, None, 2.0],
        [1, 0, 1, 1, 0],
    ]
    assert [frame.name for frame in frames] == names
    assert [frame.ref for frame in frames] == list("ABCD")
    for frame, expected in zip(frames, values, strict=True):
        assert [column.type for column in frame.columns] == ["time", "number"]
        assert frame.columns[0].values == TIMES
        assert frame.columns[1].values == expected
    assert frames[0].columns[1].unit == "suffix:K"


def test_tables(weather: Reader) -> None:
    """Strings are tables even where a series was asked for; tables keep bools."""
    reply = weather.query(
        {"target": "weather::sky", "refId": "A", "type": "timeserie"},
        {"target": "weather::open", "refId": "B", "type": "table"},
        {"target": "weather::temperature", "refId": "C", "type": "table"},
    )
    sky, is_open, temperature = data_frames(reply)
    assert shape(sky) == [("Time", "time"), ("weather::sky", "string")]
    assert shape(is_open) == [("Time", "time"), ("weather::open", "boolean")]
    assert shape(temperature) == [("Time", "time"), ("weather::temperature", "number")]
    assert sky.columns[1].values == list("abcab")
    assert is_open.columns[1].values == [True, False, True, True, False]
    assert [frame.columns[0].values for frame in (sky, is_open, temperature)] == [TIMES] * 3


def test_a_target_that_fails_is_an_empty_frame(weather: Reader) -> None:
    good, bad = data_frames(weather.query("weather::temperature", "weather::nothing"))
    assert len(good.columns[0].values) == 5
    assert [column.values for column in bad.columns] == [[], []]


def test_flat_objects_of_one_field(weather: Reader) -> None:
    """Infinity takes a list of flat objects by its keys, as ``toDataFrame`` does."""
    kinds = {"temperature": "number", "open": "boolean", "sky": "string", "broken": "number"}
    frames = data_frames([weather.get(flat(f"weather::{name}")) for name in kinds])
    for frame, kind in zip(frames, kinds.values(), strict=True):
        assert shape(frame) == [("time", "time"), ("value", kind)]
        assert frame.columns[0].values == TIMES
    assert frames[3].columns[1].values == [1.0, None, None, None, 2.0]


def test_flat_objects_of_several_fields(weather: Reader) -> None:
    names = ["weather::count", "weather::open", "weather::sky"]
    wide, long = data_frames([weather.get(flat(",".join(names), shape=form)) for form in ("wide", "long")])
    assert shape(wide) == [("time", "time"), *zip(names, ["number", "boolean", "string"], strict=True)]
    assert wide.column("weather::count").values == [0, 1, 2, 3, 4]
    assert [column.name for column in long.columns] == ["time", "field", "value"]
    assert len(long.columns[0].values) == 15
    assert long.columns[0].values == sorted(long.columns[0].values)


def test_listings(weather: Reader) -> None:
    nodes, fields = data_frames([weather.get("/api/nodes"), weather.get("/api/fields?node=weather")])
    assert "weather" in nodes.column("name").values
    assert nodes.column("description").type == "string"
    assert set(fields.column("type").values) == {"number", "bool", "string"}
    assert "weather::temperature" in fields.column("name").values
