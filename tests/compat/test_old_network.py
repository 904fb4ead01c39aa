"""An existing sisock site's programs and ours on one network, each reading the other.

The network is as such sites have it: realm ``test_realm``, base URI ``org.simonsobservatory``, one user for all
nodes, one for all readers, a plain port for OCS that (by the switch for the oldest sites) lets nodes live there.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from sisockdaq.base import DataNodeServer
from sisockdaq.errors import NotAuthorized, SisockdaqError
from sisockdaq.testing import Caller, Network, wait_until
from tests.compat.old_programs import ARCHIVES, BRIDGE, FEED, run

SERIALIZERS = ("json", "msgpack", "cbor")
OLD_NODES = [f"{kind}_{serializer}" for kind in ("weather", "scanner") for serializer in SERIALIZERS]
HOUSEKEEPING = "observatory.LSA22YE.feeds.temperatures.Channel 07 R"


class Camera(DataNodeServer):
    """Takes images."""

    def setup(self) -> None:
        self.exposure = self.series("exposure", units="s", keep=10)
        self.exposure.append(10.0, 0.1)
        self.exposure.append(11.0, 0.2)


@pytest.fixture
def archives(old_network: Network, tmp_path: Path):
    """Old nodes with each serializer, beside a node of ours."""
    with run(old_network, tmp_path / "archives", ARCHIVES) as script:
        old_network.start(Camera)
        for name in OLD_NODES:
            old_network.wait_listed(name)
        wait_until(lambda: len(script.said("accepted")) == len(OLD_NODES), what="the hub's answers")
        yield script
    for name in OLD_NODES:
        old_network.wait_gone(name)


def test_old_and_new_nodes_are_read_by_old_and_new_readers(archives, old_network: Network, tmp_path: Path) -> None:
    assert all(answer["accepted"] is True for answer in archives.said("accepted"))

    # Ours: a plain call, and the client.
    for serializer in SERIALIZERS:
        weather = old_network.call(f"consumer.weather_{serializer}.get_data", ["temperature", "nothing"], 1, 0)
        assert weather == {
            "data": {"temperature": [1.5, 2.5], "nothing": []},
            "timeline": {"apex": {"t": [10.0, 11.0], "finalized_until": 11.0}},
        }
        assert old_network.call(f"consumer.weather_{serializer}.get_data", ["temperature"], 2, 0) is False
        temperature = f"weather_{serializer}::temperature"
        housekeeping = f"scanner_{serializer}::{HOUSEKEEPING}"
        data = old_network.client.get(temperature, start=1, end=20)
        assert list(data[temperature].t) == [10.0, 11.0]
        assert list(data[temperature].values) == [1.5, 2.5]
        data = old_network.client.get(housekeeping, start=1, end=20)
        assert list(data[housekeeping].values) == [7.0, 8.0]

    # Theirs: what the HTTP bridge and the page do, with each serializer, while nodes come and go.
    for serializer in SERIALIZERS:
        with run(old_network, tmp_path / serializer, BRIDGE, user="simonsobs", SERIALIZER=serializer) as bridge:
            (found,) = wait_until(lambda: bridge.said("found"), what="the bridge's first look") or []
            names = {entry["name"] for entry in found["found"]}
            assert names == {"camera", *OLD_NODES}
            read = {answer["read"]: answer for answer in bridge.said("read")}
            assert read["camera"]["fields"]["exposure"]["units"] == "s"
            assert read["camera"]["data"]["data"]["exposure"] == [0.1, 0.2]
            timeline = read["camera"]["fields"]["exposure"]["timeline"]
            assert read["camera"]["data"]["timeline"][timeline]["t"] == [10.0, 11.0]
            assert read["weather_json"]["data"]["data"]["state"] == ["open", "shut"]
            assert read["scanner_cbor"]["timelines"] == {"group0": {"interval": None, "fields": [HOUSEKEEPING]}}
            late = old_network.start(Camera, name="late")
            wait_until(lambda: "late" in {a["read"] for a in bridge.said("read")}, what="the late node to be read")
            old_network.stop(late)
            gone = wait_until(lambda: bridge.said("gone"), what="the late node's end")
            assert gone == [{"gone": {"name": "late", "description": "Takes images."}}]


def test_the_client_says_that_a_node_refused_so_much(archives, old_network: Network) -> None:
    with pytest.raises(SisockdaqError, match=r"weather_json"):
        old_network.client.get("weather_json::temperature", start=2, end=20)


def test_a_data_feed_node_of_the_oldest_sites_lives_at_the_plain_port(old_network: Network, tmp_path: Path) -> None:
    with run(old_network, tmp_path / "feed", FEED) as feed:
        old_network.wait_listed("old_feed")
        wait_until(lambda: feed.said("subscribed"), what="the node's subscription")
        block = {"block_name": "temps", "timestamps": [10.0], "data": {"channel_01": [4.2]}}
        old_network.ocs_caller().publish(
            "observatory.LSA22YE.feeds.temperatures",
            [{"temps": block}, {"agent_address": "observatory.LSA22YE", "feed_name": "temperatures"}],
        )
        assert old_network.wait_for("old_feed::channel_01") == [4.2]
        # A restart of the hub finds it again: it has no way to hear of it.
        old_network.stop_hub()
        old_network.start_hub()
        old_network.wait_listed("old_feed")
    old_network.wait_gone("old_feed")


def test_full_rights_do_not_reach_what_is_the_hub_s(old_network: Network) -> None:
    nobody = old_network.ocs_caller()
    for topic in ("consumer.data_node_added", "consumer.data_node_subtracted", "data_node.hub_started"):
        with pytest.raises(NotAuthorized):
            nobody.publish(old_network.uri(topic), {})
    for procedure in ("data_node.ad", "control.camera.start"):
        with pytest.raises(NotAuthorized):
            nobody.register(old_network.uri(procedure), lambda: None)
    with pytest.raises(NotAuthorized):
        nobody.call(old_network.uri("control.camera.start"))
    with pytest.raises(NotAuthorized, match="may not speak for session"):
        nobody.call(old_network.uri("data_node.add"), "ghost", "", 1)


@pytest.mark.parametrize("user", ["simonsobs", "consumer"])
def test_the_readers_user_can_register_nothing(old_network: Network, user: str) -> None:
    reader = Caller(old_network.endpoint, old_network.credentials(user))
    try:
        for procedure in (
            "consumer.posing.get_data",
            "consumer.camera.get_fields",
            "data_node.x",
            "control.a.b",
            "a.b",
        ):
            with pytest.raises(NotAuthorized):
                reader.register(old_network.uri(procedure), lambda: None)
            with pytest.raises(NotAuthorized):
                reader.publish(old_network.uri(procedure), None)
    finally:
        reader.close()
