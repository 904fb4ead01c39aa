"""The ocs_feed node on a real router: with a real agent of OCS, and with sessions at the OCS port."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sisockdaq.nodes.ocs_feed import OcsFeed
from sisockdaq.nodes.ocs_feed.addresses import Source
from sisockdaq.nodes.ocs_feed.cache import FeedCache, Limits

from sisockdaq._wamp.reactor import in_reactor
from sisockdaq.errors import ConfigurationError
from sisockdaq.series import SeriesStore
from sisockdaq.testing import Network, wait_until
from tests.ocs import fake_data_agent


def publish(network: Network, target: str, feed: str, t: float, data: dict[str, Any], name: str = "temps") -> None:
    block = {"block_name": name, "timestamps": [t], "data": {field: [value] for field, value in data.items()}}
    about = {"agent_address": f"observatory.{target}", "feed_name": feed, "record": True, "session_id": "1"}
    network.ocs_caller().publish(f"observatory.{target}.feeds.{feed}", [{name: block}, about])


def latest(network: Network, field: str) -> Any:
    return network.wait_for(field)[-1]


def test_a_real_agents_channels_are_served_as_another_subscriber_heard_them(network: Network) -> None:
    network.start(OcsFeed, name="faker", target="faker-1", feed="false_temperatures")
    fed = network.caller().subscribe(network.uri("consumer.faker.feed.temps"))
    with fake_data_agent(network) as agent:
        agent.wait_for_messages(3)
        heard = len(agent.samples("channel_00")[0])
        network.client.wait_for("faker::channel_02", samples=heard)
    names = [f"faker::{channel}" for channel in agent.channels]
    found = network.client.get(*names, start=1)
    for channel in agent.channels:
        t, values = agent.samples(channel)
        np.testing.assert_array_equal(found[f"faker::{channel}"].t, t)
        np.testing.assert_array_equal(found[f"faker::{channel}"].values, values)
    fields, timelines = network.call("consumer.faker.get_fields", 1, 0)
    assert fields["channel_00"] == {
        "description": "observatory.faker-1.feeds.false_temperatures",
        "timeline": "temps",
        "type": "number",
        "units": None,
    }
    assert timelines["temps"]["field"] == ["channel_00", "channel_01", "channel_02"]
    assert timelines["temps"]["interval"] == pytest.approx(0.1, rel=0.01)
    assert fed
    assert latest(network, "faker::ocs_feed.feeds") == 1
    assert max(network.wait_for("faker::ocs_feed.sample_rate")) > 0
    assert latest(network, "faker::ocs_feed.dropped") == 0


def test_names_and_patterns_in_one_node_and_malformed_blocks_between(network: Network) -> None:
    running = network.start(
        OcsFeed,
        name="fridge",
        feeds=[
            {"target": "LSA*", "feed": "*"},
            {"target": "LSA22YE", "feed": "temperatures"},
            {"target": "bluefors", "feed": "press?res"},
        ],
        max_feeds=3,
    )
    now = time.time()
    publish(network, "LSA22YE", "temperatures", now, {"ch1": 4.2, "state": "cold", "locked": True})
    publish(network, "LSA33", "temperatures", now, {"ch1": 0.1})
    publish(network, "bluefors", "pressures", now, {"p1": 1e-6})
    publish(network, "bluefors", "other", now, {"p1": 1})
    publish(network, "other", "temperatures", now, {"ch1": 1})
    publish(network, "LSA44", "temperatures", now, {"ch1": 1})
    agent = network.ocs_caller()
    address = "observatory.LSA22YE.feeds.temperatures"
    for message in (None, "text", [], [{"b": None}, {}], [{}, {"record": False}]):
        agent.publish(address, message)
    agent.publish(address)
    agent.publish(address, {"free": "form"}, {"record": False})
    in_reactor(lambda: agent.session.publish(address, subscription=1, details=3), deadline=5)
    publish(network, "LSA22YE", "temperatures", now + 1, {"ch1": 4.3, "state": "cold", "locked": False})

    assert network.wait_for("fridge::LSA22YE.temperatures.ch1", samples=2) == [4.2, 4.3]
    fields, _ = network.call("consumer.fridge.get_fields", 1, 0)
    assert {name: entry["type"] for name, entry in fields.items() if not name.startswith("ocs_feed.")} == {
        "LSA22YE.temperatures.ch1": "number",
        "LSA22YE.temperatures.state": "string",
        "LSA22YE.temperatures.locked": "bool",
        "LSA33.temperatures.ch1": "number",
        "bluefors.pressures.p1": "number",
    }
    reply = network.call(
        "consumer.fridge.get_data", ["LSA22YE.temperatures.state", "LSA22YE.temperatures.locked"], 1, 0
    )
    assert reply["data"] == {
        "LSA22YE.temperatures.state": ["cold", "cold"],
        "LSA22YE.temperatures.locked": [True, False],
    }
    counts = running.call(running.node.status)
    assert counts["messages"] == 5 + 8
    assert counts["samples"] == 8
    assert {name: n for name, n in counts.items() if name.startswith("faulty_") and n} == {
        "faulty_message": 6,
        "faulty_block": 1,
        "faulty_free_form": 1,
    }
    assert (counts["feeds"], counts["fields"], counts["feeds_refused"], counts["subscriptions"]) == (3, 5, 1, 3)
    assert counts["by_feed"][address]["faults"] == 8
    assert counts["dropped"] == 7 + 1
    wait_until(lambda: latest(network, "fridge::ocs_feed.faulty_message") == 6, what="the count of faults")


def test_one_feed_keeps_its_fields_names_and_is_fed_live(network: Network) -> None:
    network.start(OcsFeed, name="plain", target="LSA9", feed="temperatures", description="the dilution fridge")
    assert {"name": "plain", "description": "the dilution fridge"} in network.call("consumer.get_data_node")
    events = network.caller().subscribe(network.uri("consumer.plain.feed.temps"))
    publish(network, "LSA9", "temperatures", time.time(), {"ch1": 4.2, "state": "cold"})
    (event,) = wait_until(lambda: events, what="the feed's event")
    assert event["sequence"] == 0
    assert set(event["data"]) == {"ch1", "state"}
    assert network.call("consumer.plain.get_data", ["ch1"], -60, 0)["data"] == {"ch1": [4.2]}


def test_a_spike_of_one_sample_stays_under_both_limits(network: Network) -> None:
    network.start(OcsFeed, name="spiky", target="LSA8", feed="temperatures")
    t = time.time() - np.arange(1000.0)[::-1] / 10
    values = np.sin(t).tolist()
    values[617] = 99.0
    block = {"block_name": "temps", "timestamps": t.tolist(), "data": {"ch1": values}}
    about = {"agent_address": "observatory.LSA8", "feed_name": "temperatures", "record": True, "session_id": "1"}
    network.ocs_caller().publish("observatory.LSA8.feeds.temperatures", [{"temps": block}, about])
    network.wait_for("spiky::ch1", samples=1000)
    strided = network.call("consumer.spiky.get_data", ["ch1"], -200, 0, 5.0)
    assert min(np.diff(strided["timeline"]["temps"]["t"])) >= 5.0
    assert len(strided["data"]["ch1"]) <= 21
    few = network.client.get("spiky::ch1", start=-200, max_points=20)["spiky::ch1"]
    assert len(few) <= 20
    for found in (strided["data"]["ch1"], few.values.tolist()):
        assert found.count(99.0) == 1


def test_two_nodes_share_no_cache(network: Network) -> None:
    for target in ("A1", "A2"):
        network.start(OcsFeed, name=f"node_{target.lower()}", target=target, feed="x")
    publish(network, "A1", "x", time.time(), {"a": 1})
    publish(network, "A2", "x", time.time(), {"b": 1})
    assert network.wait_for("node_a1::a") == [1]
    assert network.wait_for("node_a2::b") == [1]
    assert "b" not in network.call("consumer.node_a1.get_fields", 1, 0)[0]


def test_where_the_router_forbids_it_the_node_stays_and_says_so(network: Network) -> None:
    running = network.start(OcsFeed, name="deaf", target="A", feed="x", address_root="elsewhere")
    assert network.wait_for("deaf::ocs_feed.subscriptions")[-1] == 0
    assert running.call(running.node.status)["subscriptions"] == 0


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, r"no feed is given; write feeds: \[\{target"),
        ({"target": "A"}, "target and feed belong together"),
        ({"feeds": [{"target": "A B", "feed": "x"}]}, "cannot be part of an address"),
        ({"target": "A", "feed": "x..y"}, "cannot be part of an address"),
        ({"target": "A", "feed": "x", "buffer_time": 0}, "greater than 0"),
        ({"target": "A", "feed": "x", "address_root": "a b"}, "cannot be part of an address"),
    ],
)
def test_a_wrong_option_is_named(network: Network, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        network.start(OcsFeed, name="wrong", **options)


def test_the_old_variables_set_the_options() -> None:
    fields = OcsFeed.Options.model_fields
    known = {name: field.json_schema_extra for name, field in fields.items() if field.json_schema_extra}
    assert {name: extra["environment"] for name, extra in known.items()} == {  # type: ignore[index,call-overload]
        "target": "TARGET",
        "feed": "FEED",
        "buffer_time": "BUFFER_TIME",
    }


def test_it_takes_the_place_of_a_data_feed_container(network: Network, tmp_path: Path) -> None:
    """With the variables of sisock's container, against the TLS port; it keeps as much as BUFFER_TIME says."""
    old = {
        "TARGET": "LSA77",
        "FEED": "temperatures",
        "NAME": "lakeshore",
        "DESCRIPTION": "lakeshore 77",
        "BUFFER_TIME": "60",
        "CROSSBAR_HOST": network.plan.local_host,
        "CROSSBAR_TLS_PORT": str(network.plan.port),
        "WAMP_SECRET": network.credentials("server").secret,
        "WAMP_REALM": network.plan.realm,
        "WAMP_BASE_URI": network.plan.base_uri,
        "XDG_STATE_HOME": str(tmp_path),
    }
    (tmp_path / ".crossbar").mkdir()
    certificate = network.endpoint.certificate
    assert certificate is not None
    shutil.copy(certificate, tmp_path / ".crossbar" / "server_cert.pem")
    log = tmp_path / "log"
    with log.open("wb") as output:
        joined = subprocess.Popen(
            [sys.executable, "-m", "sisockdaq.cli", "join", "ocs_feed"],
            env={**os.environ, **old}, cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        wait_until(lambda: joined.poll() is not None or "lakeshore" in network.listing(), 30, "the node to be listed")
        assert joined.poll() is None, log.read_text()
        assert {"name": "lakeshore", "description": "lakeshore 77"} in network.call("consumer.get_data_node")
        now = time.time()
        wait_until(lambda: latest(network, "lakeshore::ocs_feed.subscriptions") == 1, what="the subscription")
        for t in (now - 100, now - 50, now):
            publish(network, "LSA77", "temperatures", t, {"Channel_01_T": t})
        assert wait_until(lambda: len(network.wait_for("lakeshore::Channel_01_T")) == 2, what="the newest 60 s")
    finally:
        joined.terminate()
        assert joined.wait(15) == 0, log.read_text()


ROWS = 720_000
CHANNELS = 4
"""Of the cache that is measured: an hour at 200 Hz of an agent with some channels."""


def test_the_costs_do_not_grow_with_the_cache() -> None:
    """Medians; the limits are the promised ones, and what is measured is below a tenth of them."""
    store = SeriesStore()
    cache = FeedCache(store.series, limits=Limits(keep=ROWS / 200))
    source = Source("LSA22YE", "temperatures")
    end = 1_700_000_000.0
    channels = [f"channel_{i:02}" for i in range(CHANNELS)]

    def message(first: int, rows: int) -> list[Any]:
        t = [end + (first + i) / 200 for i in range(rows)]
        data = {name: [float(i) for i in range(rows)] for name in channels}
        return [[{"temps": {"block_name": "temps", "timestamps": t, "data": data}}, {"record": True}]]

    for first in range(-ROWS, 0, 20_000):
        cache.take(source, message(first, 20_000), end)
    assert len(store.timelines["temps"]) == ROWS
    appends, queries = [], []
    for i in range(200):
        one = message(i, 1)
        begun = time.perf_counter()
        cache.take(source, one, end)
        appends.append(time.perf_counter() - begun)
    newest = end + 199 / 200
    for i in range(50):
        last = newest - i * 60
        begun = time.perf_counter()
        reply = store.get(channels, last - 10, last)
        queries.append(time.perf_counter() - begun)
        assert len(reply.samples["channel_00"]) == pytest.approx(2000, abs=1)
    print(f"append {statistics.median(appends) * 1e6:.0f} µs, query {statistics.median(queries) * 1e6:.0f} µs")
    assert len(store.timelines["temps"]) == pytest.approx(ROWS, abs=2)
    assert statistics.median(appends) < 1e-3
    assert statistics.median(queries) < 5e-3
