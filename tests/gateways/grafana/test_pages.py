"""What each data source plugin asks, answered by a gateway on a real network."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from sisockdaq.base import DataNodeServer
from sisockdaq.schema import Field, FieldList, Reply, Samples, Timeline
from sisockdaq.session import Endpoint
from sisockdaq.testing import Network, wait_until
from sisockdaq.testing.network import SHARED_USER
from tests.gateways.grafana.rig import T0, Reader, Weather, gateway

MS = round(T0 * 1e3)
FIELDS = ["weather::broken", "weather::count", "weather::open", "weather::sky", "weather::temperature"]


@pytest.fixture
def weather(network: Network, grafana: Reader) -> Reader:
    network.start(Weather)
    grafana.wait_searched("weather::sky")
    return grafana


# Health.


def test_without_a_router_it_is_there_and_says_so(network: Network) -> None:
    nowhere = Endpoint("ws://127.0.0.1:9/ws", realm=network.endpoint.realm)
    with gateway(network, endpoint=nowhere, joined=False, deadline=0.5) as reader:
        for path in ("/", "/healthz"):
            answer = reader.ask("GET", path)
            assert answer.status == 503
            assert answer.json["status"] == "waiting for the router"
        assert reader.post("/search", {}) == []
        (failed,) = reader.query("weather::count")
        assert failed["datapoints"] == []
        assert "error" in failed
        assert b"sisockdaq_gateway_joined 0.0" in reader.ask("GET", "/prometheus").body


# SimpleJson and simPod.


def test_search_lists_full_names_without_arrays(weather: Reader) -> None:
    assert [name for name in weather.post("/search", {"target": ""}) if name.startswith("weather")] == FIELDS
    assert weather.post("/search", {"target": "TEMP"}) == ["weather::temperature"]
    assert "weather" in weather.post("/search", {"target": "nodes"})
    assert weather.post("/search", {"target": "weather"}) == FIELDS
    assert weather.post("/search", {"target": "w*::c*"}) == ["weather::count"]


def test_simpod_s_listings(weather: Reader) -> None:
    metrics = {entry["value"]: entry for entry in weather.post("/metrics", {})}
    assert metrics.keys() >= set(FIELDS)
    (payload,) = metrics["weather::count"]["payloads"]
    assert payload["type"] == "select"
    asked = {"metric": "weather::count", "payload": {}, "name": payload["name"]}
    assert weather.post("/metric-payload-options", asked) == payload["options"]
    assert weather.post("/metric-payload-options", {"name": "other"}) == []
    assert {"__text": "weather", "__value": "weather"} in weather.post("/variable", {"payload": {"target": "nodes"}})
    named = weather.post("/variable", {"payload": {"target": "weather"}})
    assert [entry["__value"] for entry in named] == FIELDS


def test_a_field_list_changes_by_itself(network: Network, grafana: Reader) -> None:
    node = network.start(Weather, name="gauge")
    grafana.wait_searched("gauge::count")
    network.stop(node)
    node.stop()
    grafana.wait_searched("gauge::count", gone=True)


def test_series_hold_values_and_epoch_milliseconds(weather: Reader) -> None:
    temperature, count, is_open = weather.query("weather::temperature", "weather::count", "weather::open")
    assert temperature["target"] == "weather::temperature"
    assert temperature["unit"] == "suffix:K"
    assert temperature["datapoints"] == [[i / 4, MS + 1000 * i] for i in range(5)]
    assert count["datapoints"] == [[i, MS + 1000 * i] for i in range(5)]
    assert is_open["datapoints"] == [[value, MS + 1000 * i] for i, value in enumerate([1, 0, 1, 1, 0])]


def test_tables_have_typed_columns_and_strings_are_always_tables(weather: Reader) -> None:
    asked = [{"target": name, "type": "table"} for name in ("weather::temperature", "weather::open", "weather::x")]
    temperature, is_open, bad, sky = weather.query(*asked, "weather::sky")
    assert temperature["columns"][0] == {"text": "Time", "type": "time"}
    assert temperature["columns"][1]["type"] == "number"
    assert temperature["rows"][1] == [MS + 1000, 0.25]
    assert is_open["columns"][1]["type"] == "boolean"
    assert [row[1] for row in is_open["rows"]] == [True, False, True, True, False]
    assert (bad["type"], bad["rows"]) == ("table", [])
    assert "no field" in bad["error"]
    assert sky["columns"][1] == {"text": "weather::sky", "type": "string"}
    assert [row[1] for row in sky["rows"]] == list("abcab")


def test_variables_hidden_and_empty_targets(weather: Reader) -> None:
    scoped = {"field": {"text": "both", "value": ["count", "temperature"]}, "node": {"value": "weather"}}
    hidden = {"target": "weather::sky", "hide": True}
    reply = weather.query("${node}::$field", "weather::{open,broken}", hidden, {"target": ""}, scopedVars=scoped)
    names = ["weather::count", "weather::temperature", "weather::open", "weather::broken"]
    assert [entry["target"] for entry in reply] == names


def test_ad_hoc_filters_choose_fields(weather: Reader) -> None:
    keys = [entry["text"] for entry in weather.post("/tag-keys", {})]
    assert "units" in keys
    assert {"text": "K"} in weather.post("/tag-values", {"key": "units"})
    assert weather.post("/tag-values", {"key": "colour"}) == []
    only = [{"key": "units", "operator": "=", "value": "K"}, {"key": "node", "operator": "=~", "value": "(a+)+$"}]
    (series,) = weather.query("weather::count", "weather::temperature", adhocFilters=only)
    assert series["target"] == "weather::temperature"
    assert "=~" in series["meta"]["notices"][0]["text"]


def test_points_are_limited_as_asked(weather: Reader) -> None:
    (few,) = weather.query("weather::temperature", maxDataPoints=4)
    assert [value for value, _ in few["datapoints"]][:: len(few["datapoints"]) - 1] == [0, 1]
    assert len(few["datapoints"]) <= 4
    (all_,) = weather.query({"target": "weather::temperature", "payload": {"points": "all"}}, maxDataPoints=4)
    assert len(all_["datapoints"]) == 5


def test_annotations_are_acquisitions(network: Network, grafana: Reader) -> None:
    network.start(Archive)
    grafana.wait_searched("live::x")
    body = {"range": {"from": MS, "to": MS + 1e6}, "annotation": {"name": "runs", "query": "run"}}
    (found,) = grafana.post("/annotations", body)
    assert found["title"] == "run_1"
    assert (found["time"], found["timeEnd"], found["isRegion"]) == (MS + 1000, MS + 9000, True)
    assert found["text"] == "run_1: 8 frames, 3 packets lost, finished"
    assert "lost packets" in found["tags"]
    assert grafana.post("/annotations", {"range": {"from": 1, "to": 2}}) == []
    assert grafana.get("/api/acquisitions")[0]["title"] == "run_1"


# Infinity.


def test_infinity_gets_flat_objects_and_the_same_as_csv(weather: Reader) -> None:
    span = f"from={MS}&to=2023-11-14T22:13:23Z"  # three seconds
    one = weather.get(f"/api/query?field=weather::temperature&{span}")
    assert one == [{"time": MS + 1000 * i, "value": i / 4} for i in range(3)]
    wide = weather.get(f"/api/query?field=weather::count,weather::sky&{span}")
    assert wide[2] == {"time": MS + 2000, "weather::count": 2, "weather::sky": "c"}
    long = weather.get(f"/api/query?field=weather::count&field=weather::open&shape=long&{span}")
    assert [row["value"] for row in long] == [0, True, 1, False, 2, True]  # in the order of time
    assert long[1] == {"time": MS, "field": "weather::open", "value": True}
    answer = weather.ask("GET", f"/api/query?field=weather::count,weather::open,weather::broken&format=csv&{span}")
    assert answer.headers["content-type"].startswith("text/csv")
    rows = list(csv.reader(io.StringIO(answer.body.decode())))
    assert rows[0] == ["time", "weather::count", "weather::open", "weather::broken"]
    assert rows[2] == [str(MS + 1000), "1.0", "False", ""]
    assert len(rows) == 4


def test_infinity_s_limits_and_errors(weather: Reader) -> None:
    span = f"from={MS}&to={MS + 5000}"
    assert len(weather.get(f"/api/query?field=weather::temperature&max_points=4&{span}")) <= 4
    assert len(weather.get(f"/api/query?field=weather::temperature&interval=2500ms&{span}")) <= 3
    partly = weather.ask("GET", f"/api/query?field=weather::count,weather::nothing&{span}")
    assert partly.status == 200
    assert partly.json[0] == {"time": MS, "weather::count": 0, "weather::nothing": None}
    assert "nothing" in partly.headers["x-sisockdaq-problems"]
    assert weather.ask("GET", f"/api/query?field=ghost::x&{span}").status == 404
    for wrong in ("", "field=weather::count&from=x", "field=weather::count&shape=round"):
        assert weather.ask("GET", f"/api/query?{wrong}").status == 400
    assert weather.ask("HEAD", f"/api/query?field=weather::count&{span}").body == b""


def test_listings_for_infinity(weather: Reader) -> None:
    entries = {entry["name"]: entry for entry in weather.get("/api/nodes")}
    assert entries["weather"]["description"].startswith("Five samples")
    fields = {entry["name"]: entry for entry in weather.get("/api/fields?node=weather")}
    assert list(fields) == FIELDS
    assert fields["weather::temperature"]["units"] == "K"
    assert fields["weather::temperature"]["type"] == "number"
    assert weather.get("/api/fields?node=nobody") == []
    assert weather.ask("GET", "/api/fields?node=weather&format=csv").body.startswith(b"name,node,field,type,units")


# Archives and older nodes.


class Archive(DataNodeServer):
    """Has the older half of ``live::x``, and one acquisition."""

    def _get_schema_blocking(self, start: float, end: float) -> FieldList:
        return FieldList({"live::x": Field(timeline="x", units="V")}, {"x": Timeline(fields=("live::x",))})

    def _get_samples_blocking(
        self, fields: list[str], start: float, end: float, max_points: int | None, min_stride: float | None
    ) -> Reply:
        t = T0 + np.arange(60.0)
        kept = t[(t >= start) & (t < end)]
        return Reply({name: Samples(kept, kept - T0, "x") for name in fields})

    def after_onJoin(self, details: Any) -> Any:  # noqa: N802
        entry = {"acquisition": "run_1", "span": [T0 + 1, T0 + 9], "frames": 8, "state": "finished",
                 "ledger": {"packets_lost": 3}}  # fmt: skip
        return self.register(lambda: [entry], self.uri(f"consumer.{self.name}.acquisitions"))


class Live(DataNodeServer):
    """Has the newer half of ``live::x``, and some of the older one."""

    def setup(self) -> None:
        t = T0 + np.arange(50.0, 100.0)
        self.series("x", units="V", keep=1e9).append_block(t, t - T0)


def test_archived_and_live_samples_are_one_series(network: Network, grafana: Reader) -> None:
    network.start(Archive)
    network.start(Live)
    grafana.wait_searched("live::x")
    assert grafana.post("/search", {"target": "live::x"}) == ["live::x"]

    def whole() -> bool:
        (series,) = grafana.query("live::x")
        return [value for value, _ in series["datapoints"]] == list(range(100))

    wait_until(whole, 10, "all samples, each once")


@pytest.fixture
def old_node(network: Network) -> Iterator[Any]:
    """An older node, written by the contract: plain calls only, ``fields`` and ``group0``, ``false`` for too much."""
    caller = network.caller(SHARED_USER)
    asked: list[Any] = []

    def get_fields(start: float, end: float) -> Any:
        return [
            {"bolo": {"description": None, "timeline": "group0", "type": "number", "units": "pW"}},
            {"group0": {"interval": None, "fields": ["bolo"]}},
        ]

    def get_data(field: list[str], start: float, end: float, min_stride: float | None = None) -> Any:
        asked.append(min_stride)
        t = [T0 + i for i in range(1000) if start <= T0 + i < end]
        if len(t) > 400:
            return False
        values = [500.0 if when == T0 + 777 else 1.0 for when in t]
        timeline = {"group0": {"t": t, "finalized_until": T0 + 1000, "fields": ["bolo"]}} if t else {}
        return {"data": {"bolo": values}, "timeline": timeline}

    caller.register(network.uri("consumer.old.get_fields"), get_fields)
    caller.register(network.uri("consumer.old.get_data"), get_data)
    session = caller.session._session_id
    assert network.call("data_node.add", "old", "An older node.", session, user=SHARED_USER) is True
    yield asked
    network.call("data_node.subtract", "old", session, user=SHARED_USER)
    caller.close()
    network._callers.pop(SHARED_USER)


def test_an_older_node_is_drawn_with_its_spike(grafana: Reader, old_node: list[Any]) -> None:
    grafana.wait_searched("old::bolo")
    (series,) = grafana.query("old::bolo", last=MS + 1_000_000, maxDataPoints=50)
    values = [value for value, _ in series["datapoints"]]
    assert 20 <= len(values) <= 50
    assert max(values) == 500.0
    assert old_node[0] == pytest.approx(1000 * 2 / 50_000)  # what one message can hold


# Prometheus.


class Receiver(DataNodeServer):
    """Counts packets."""

    def setup(self) -> None:
        import time

        self.series("packets_lost_total", units="packets", timeline="status").append(time.time(), 7)
        self.series("samples_lost", timeline="recording").append(time.time(), 2)
        self.series("other", timeline="frame").append(time.time(), 1.0)


def test_prometheus_reads_nodes_and_their_newest_numbers(network: Network, grafana: Reader) -> None:
    network.start(Receiver)
    grafana.wait_searched("receiver::packets_lost_total")
    found: dict[tuple[str, str], float] = {}

    def scrape() -> bool:
        answer = grafana.ask("GET", "/prometheus")
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        for family in text_string_to_metric_families(answer.body.decode()):
            assert family.documentation
            for sample in family.samples:
                labels = sample.labels
                found[sample.name, labels.get("field") or labels.get("node") or labels.get("path", "")] = sample.value
        return ("sisockdaq_field", "packets_lost_total") in found

    wait_until(scrape, 15, "the receiver's numbers")
    assert found["sisockdaq_field", "packets_lost_total"] == 7
    assert found["sisockdaq_field", "samples_lost"] == 2
    assert ("sisockdaq_field", "other") not in found
    assert found["sisockdaq_node_up", "receiver"] == 1
    assert found["sisockdaq_gateway_joined", ""] == 1
    assert found["sisockdaq_gateway_requests_total", "/search"] >= 1
    own = Reader(grafana.metrics_port)  # type: ignore[attr-defined]
    assert own.ask("GET", "/metrics").body.startswith(b"# HELP sisockdaq_")
    assert own.ask("GET", "/query").status == 404
