"""The hub on a real router: who may list whom, frozen nodes, second holders, restarts."""

from __future__ import annotations

import time

import pytest

from sisockdaq.base import DataNodeServer
from sisockdaq.errors import NotAuthorized
from sisockdaq.testing import Caller, Network, wait_until


class Camera(DataNodeServer):
    """Takes images."""

    def setup(self) -> None:
        self.exposure = self.series("exposure", units="s")


class Gauge(Camera):
    """Takes pressures."""


def test_a_node_is_announced_listed_and_subtracted(network: Network) -> None:
    added = network.caller().subscribe(network.uri("consumer.data_node_added"))
    subtracted = network.caller().subscribe(network.uri("consumer.data_node_subtracted"))
    node = network.start(Camera)
    entry = {"name": "camera", "description": "Takes images."}
    assert entry in network.call("consumer.get_data_node")
    wait_until(lambda: added, what="the event of the new node")
    network.stop(node)
    wait_until(lambda: subtracted, what="the event of the node that left")
    assert (added, subtracted) == ([entry], [entry])
    assert network.listing() == []


def test_the_status_says_type_version_uptime_and_last_answer(network: Network) -> None:
    network.start(Camera)

    def answered() -> dict[str, object] | None:
        nodes = network.call("consumer.get_status")["nodes"]
        return nodes[0] if nodes and nodes[0]["last_answer"] else None

    status = wait_until(answered, what="the first answer to the hub's question")
    assert status is not None
    assert status["name"] == "camera"
    assert status["type"] == "tests.hub.test_session:Camera"
    assert 0 <= float(str(status["uptime"])) < 30
    assert float(str(status["last_answer"])) == pytest.approx(time.time(), abs=30)


def test_nobody_speaks_for_another_session_or_name(network: Network) -> None:
    node = network.start(Camera)
    mine = Caller(network.endpoint, network.credentials("gauge"))
    try:
        own = mine.session._session_id
        with pytest.raises(NotAuthorized, match="may not speak for session"):
            mine.call(network.uri("data_node.add"), "gauge", "a ghost", 123456)
        with pytest.raises(NotAuthorized, match="may not use the name 'ghost'"):
            mine.call(network.uri("data_node.add"), "ghost", "", own)
        with pytest.raises(NotAuthorized, match="is no name for a node"):
            mine.call(network.uri("data_node.add"), "get_status", "", own)
        with pytest.raises(NotAuthorized):
            mine.call(network.uri("data_node.subtract"), "camera", node.node._session_id)
        assert network.listing() == ["camera"]
    finally:
        mine.close()


def test_a_second_holder_waits_and_takes_over_when_the_first_is_killed(network: Network) -> None:
    first = network.start_process(Camera)
    second = network.start(Camera, wait=False)
    wait_until(lambda: second.node.is_attached(), what="the second holder's login")
    session = network.call("consumer.get_status")["nodes"][0]["session"]
    assert session != second.node._session_id
    first.kill()
    second.wait_listed()
    assert network.call("consumer.get_status")["nodes"][0]["session"] == second.node._session_id
    assert network.call("consumer.camera.ping")["epoch"] == second.node._core().feeds.epoch


@pytest.mark.parametrize("user", ["camera", "borrowed"])
def test_a_frozen_node_is_evicted_within_ten_seconds_and_another_takes_its_name(network: Network, user: str) -> None:
    frozen = network.start_process(Camera, name=user)
    waiting = network.start(Camera, name=user, wait=False)
    frozen.freeze()
    began = time.monotonic()
    waiting.wait_listed(12.0)
    assert time.monotonic() - began < 10.0
    assert "exposure" in dict(waiting.node.store.fields().fields)
    network.call(f"consumer.{user}.ping")  # the frozen one's procedures are gone from the router
    # Once thawed, it finds its session ended, comes back and waits in its turn.
    frozen.thaw()
    wait_until(lambda: "waiting for it to leave" in frozen.log, what="the thawed node to wait")
    network.stop(waiting)
    network.wait_listed(user)


def test_all_nodes_are_listed_again_after_a_restart_of_the_hub(network: Network) -> None:
    network.start(Camera)
    network.start_process(Gauge)
    network.stop_hub()
    began = time.monotonic()
    network.start_hub()
    wait_until(lambda: sorted(network.listing()) == ["camera", "gauge"], 10.0, "both nodes to be listed")
    assert time.monotonic() - began < 10.0


def test_a_node_that_starts_before_the_hub_is_listed_when_it_comes(network: Network) -> None:
    network.stop_hub()
    node = network.start(Camera, wait=False)
    try:
        wait_until(lambda: node.node.is_attached(), what="the node's login")
    finally:
        network.start_hub()
    node.wait_listed()
