"""The plain way in for OCS: its agents and clients work there, and nothing of the site's own can be touched."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from typing import Any

import pytest

from sisockdaq.errors import NotAuthorized
from sisockdaq.router import OcsAccess, RouterPlan
from sisockdaq.testing import Caller, Network, wait_until
from tests.test_router import config_of

# The configuration.


def test_without_the_setting_there_is_no_such_port() -> None:
    worker = config_of(RouterPlan("trial", nodes=("camera",)))["workers"][0]
    assert [transport["id"] for transport in worker["transports"]] == ["local", "web"]
    text = json.dumps(worker)
    assert "anonymous" not in text
    assert "ocs" not in text


def test_the_port_has_limits_and_pings_as_every_other() -> None:
    plan = RouterPlan("trial", ocs=OcsAccess(port=9001, host="127.0.0.2"))
    ocs = config_of(plan)["workers"][0]["transports"][2]
    assert ocs["endpoint"] == {"type": "tcp", "interface": "127.0.0.2", "port": 9001}
    assert ocs["paths"]["ws"]["options"]["max_message_size"] == 16 * 2**20
    assert ocs["paths"]["ws"]["options"]["auto_ping_interval"] == 2000
    assert ocs["paths"]["call"]["options"]["post_body_limit"] == 2**20


# What OCS does there.


def test_nodes_hear_the_feeds_of_agents(network: Network) -> None:
    agent = network.ocs_caller()
    message = [{"temps": {"block_name": "temps", "timestamps": [1.0], "data": {"ch1": [4.2]}}}, {"feed_name": "temps"}]
    for user in ("camera", "server"):
        heard = Caller(network.endpoint, network.credentials(user))
        try:
            events = heard.subscribe(f"observatory.LSA22YE-{user}.feeds.temps")
            agent.publish(f"observatory.LSA22YE-{user}.feeds.temps", message)
            assert wait_until(lambda: events, what="the feed's message") == [message]  # noqa: B023
        finally:
            heard.close()


def test_an_agent_registers_and_another_calls_it(network: Network) -> None:
    agent = network.ocs_caller()
    agent.register("observatory.thermo.ops", lambda *args: ["here", *args])
    assert agent.call("observatory.thermo.ops", 1, 2) == ["here", 1, 2]


def bridge(network: Network, request: dict[str, Any]) -> dict[str, Any]:
    """Ask the HTTP bridge, as curl does."""
    assert network.plan.ocs is not None
    url = f"http://127.0.0.1:{network.plan.ocs.port}/call"
    asked = subprocess.run(
        ["curl", "-sS", "-m", "20", "-H", "Content-Type: application/json", "-d", json.dumps(request), url],
        capture_output=True,
        check=True,
    )
    return dict(json.loads(asked.stdout))


def test_the_bridge_calls_agents_and_nothing_else(network: Network) -> None:
    network.ocs_caller().register("observatory.heater.ops", lambda action, name: {"did": [action, name]})
    answer = bridge(network, {"procedure": "observatory.heater.ops", "args": ["start", "heat"]})
    assert answer["args"] == [{"did": ["start", "heat"]}]
    for procedure in ("consumer.get_data_node", "consumer.camera.get_data", "data_node.add", "control.camera.start"):
        answer = bridge(network, {"procedure": network.uri(procedure), "args": []})
        assert answer["error"] == "wamp.error.not_authorized"


def test_the_client_of_ocs_reaches_an_agent_over_the_bridge(network: Network) -> None:
    client_http = pytest.importorskip("ocs.client_http", reason="the package ocs is not installed")
    assert network.plan.ocs is not None
    asked: list[Any] = []

    def ops(action: str, op_name: str, params: Any = None, **kwargs: Any) -> Any:
        asked.append((action, op_name, params))
        return [0, "Operation started.", {"op_name": op_name, "status": "running"}]

    network.ocs_caller().register("observatory.fridge.ops", ops)
    network.ocs_caller().register(
        "observatory.fridge", lambda action, *_: [["cool", {}]] if action == "get_tasks" else []
    )
    client = client_http.ControlClient(
        "observatory.fridge", url=f"http://127.0.0.1:{network.plan.ocs.port}/call", realm=network.plan.realm
    )
    assert client.get_tasks() == [["cool", {}]]
    assert client.request("start", "cool", params={"to": 0.1})[:2] == [0, "Operation started."]
    assert asked == [("start", "cool", {"to": 0.1})]


# What nobody can do there.


@pytest.mark.parametrize("procedure", ["consumer.camera.get_data", "data_node.remove", "control.camera.start"])
def test_no_name_of_the_site_can_be_taken_or_called(network: Network, procedure: str) -> None:
    nobody = network.ocs_caller()
    with pytest.raises(NotAuthorized):
        nobody.register(network.uri(procedure), lambda: None)
    with pytest.raises(NotAuthorized):
        nobody.call(network.uri(procedure))


@pytest.mark.parametrize("topic", ["consumer.data_node_added", "consumer.camera.feed.frame", "data_node.hub_started"])
def test_no_topic_of_the_site_can_be_heard_or_told(network: Network, topic: str) -> None:
    nobody = network.ocs_caller()
    with pytest.raises(NotAuthorized):
        nobody.publish(network.uri(topic), {})
    with pytest.raises(NotAuthorized):
        nobody.subscribe(network.uri(topic))


def test_the_meta_api_is_not_for_everybody(network: Network) -> None:
    for procedure in ("wamp.session.list", "wamp.session.kill", "wamp.registration.list"):
        with pytest.raises(NotAuthorized):
            network.ocs_caller().call(procedure)


def test_nodes_only_hear_agents(network: Network) -> None:
    for user in ("camera", "server"):
        caller = Caller(network.endpoint, network.credentials(user))
        try:
            with pytest.raises(NotAuthorized):
                caller.publish("observatory.thermo.feeds.temps", [])
            with pytest.raises(NotAuthorized):
                caller.register(f"observatory.{user}.ops", lambda: None)
            with pytest.raises(NotAuthorized):
                caller.call("observatory.thermo.ops")
        finally:
            caller.close()
    with pytest.raises(NotAuthorized):
        network.caller("consumer").subscribe("observatory.thermo.feeds.temps")


def test_a_login_is_not_possible_at_the_plain_port(network: Network) -> None:
    """A secret must not travel over a connection that is not encrypted."""
    from sisockdaq.errors import SisockdaqError
    from sisockdaq.session import Endpoint

    assert network.plan.ocs_url is not None
    with pytest.raises(SisockdaqError):
        Caller(Endpoint(network.plan.ocs_url, network.plan.realm), network.credentials("camera"))


def test_the_port_says_that_the_router_is_up(network: Network) -> None:
    assert network.plan.ocs is not None
    with urllib.request.urlopen(f"http://127.0.0.1:{network.plan.ocs.port}/health", timeout=10) as reply:
        assert json.load(reply) == {"router": "up", "realm": network.plan.realm}
