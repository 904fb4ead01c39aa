"""Our nodes at the router and the hub of an existing sisock site, started as its containers were: `sisockdaq join`."""

from __future__ import annotations

import os
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from autobahn.wamp.serializer import CBORSerializer, JsonSerializer, MsgPackSerializer
from typer.testing import CliRunner

from sisockdaq.cli import app
from sisockdaq.router import free_port
from sisockdaq.testing import wait_until
from tests.command_line import run_command
from tests.compat.old_site import DEADLINE, SECRETS, OldSite

pytestmark = pytest.mark.timeout(180)

NODE = '''
"""A node of a third party."""
import numpy as np
from pydantic import Field
from sisockdaq.base import DataNodeServer, control
from sisockdaq.schema import Field as Column, FieldList, Reply, Samples, Timeline
from sisockdaq.downsample import thin


class Thermometer(DataNodeServer):
    """Temperatures that are known beforehand."""

    class Options(DataNodeServer.Options):
        offset: float = Field(0.0, description="Added to all.", json_schema_extra={"environment": "THERMOMETER_OFFSET"})
        max_points: int | None = Field(None, ge=1, json_schema_extra={"environment": "MAX_POINTS"})

    def setup(self):
        assert self.site is None
        self.most = self.series("unused")

    @control
    def calibrate(self):
        return True

    def get_fields(self, start, end):
        return ({"t": {"description": None, "timeline": "l", "type": "number", "units": "K"}},
                {"l": {"interval": 1.0, "field": ["t"]}})

    def get_data(self, field, start, end, min_stride=None):
        times = np.arange(max(1, int(start)), min(int(end), 101), dtype=float)[: self.options.max_points]
        return {"data": {"t": times + self.options.offset}, "timeline": {"l": {"t": times, "finalized_until": None}}}
'''


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OldSite]:
    made = OldSite(tmp_path_factory.mktemp("old") / "site")
    (made.folder / "thermometer.py").write_text(NODE)
    # What pip leaves of an installed package with a node in it.
    package = made.folder / "thermometer-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: thermometer\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[sisockdaq.nodes]\nthermometer = thermometer:Thermometer\n")
    yield made
    made.close()


def test_a_node_is_listed_and_answers_as_a_container_of_old_did(site: OldSite) -> None:
    node = site.join("thermometer", NAME="cryostat", DESCRIPTION="The new one.", THERMOMETER_OFFSET="0.5")
    site.wait_listed("cryostat")
    assert (site.listing() or {})["cryostat"] == "The new one."
    for serializer in (JsonSerializer(), MsgPackSerializer(), CBORSerializer()):
        bridge = site.caller(serializer)
        fields, timelines = bridge.call("consumer.cryostat.get_fields", 1, 0)
        assert fields["t"] == {"description": None, "timeline": "l", "type": "number", "units": "K"}
        assert timelines["l"] == {"interval": 1.0, "field": ["t"]}
        assert bridge.call("consumer.cryostat.get_data", ["t"], 1, 4) == {
            "data": {"t": [1.5, 2.5, 3.5]},
            "timeline": {"l": {"t": [1.0, 2.0, 3.0], "finalized_until": None}},
        }
        bridge.call("consumer.cryostat.get_data", ["t"], 1, 4, min_stride=2.0)
    site.end(node)
    site.wait_gone("cryostat")


def test_it_comes_back_after_restarts_of_hub_and_router(site: OldSite) -> None:
    node = site.join("thermometer")
    site.wait_listed("thermometer")
    site.end(site.hub)
    site.start_hub()
    site.wait_listed("thermometer")
    site.end(site.hub)
    site.router.kill()
    site.start_router()
    site.start_hub()
    site.wait_listed("thermometer")
    assert site.caller().call("consumer.thermometer.get_data", ["t"], 1, 3)["data"] == {"t": [1.0, 2.0]}
    assert "Traceback" not in site.log("thermometer")
    node.terminate()
    assert node.wait(DEADLINE) == 0
    site.wait_gone("thermometer")


def test_a_successor_waits_until_the_name_is_free(site: OldSite) -> None:
    first = site.join("thermometer", "--name", "shared")
    site.wait_listed("shared")
    second = site.run(
        [sys.executable, "-m", "sisockdaq.cli", "join", "thermometer", "--name", "shared"],
        "successor",
        site.environment(THERMOMETER_OFFSET="0.5"),
    )
    wait_until(lambda: "another process holds the name" in site.log("successor"), DEADLINE, "the successor waits")
    site.end(first)
    wait_until(lambda: "listed by the hub" in site.log("successor"), DEADLINE, "the successor is listed")
    assert site.caller().call("consumer.shared.get_data", ["t"], 1, 3)["data"] == {"t": [1.5, 2.5]}
    site.end(second)
    site.wait_gone("shared")


def test_a_router_that_allows_only_the_contract_does_not_keep_a_node_out(site: OldSite) -> None:
    node = site.join("thermometer", "--name", "narrow", user="narrow")
    site.wait_listed("narrow")
    assert site.caller().call("consumer.narrow.get_data", ["t"], 1, 3)["data"] == {"t": [1.0, 2.0]}
    assert "does not let this user offer org.simonsobservatory.control.narrow.calibrate" in site.log("thermometer")
    site.end(node)
    site.wait_gone("narrow")


def test_each_container_of_old_has_its_successor(site: OldSite) -> None:
    """Nodes as they come, the feed of an agent by the open port, and the gateway as the consumer that it was."""
    without_secret = site.environment(TARGET="LSA22YE", FEED="temperatures", NAME="LSA22YE", DESCRIPTION="LS372")
    for name in ("WAMP_USER", "WAMP_SECRET", "CROSSBAR_TLS_PORT"):
        del without_secret[name]
    port = free_port()
    feed = [sys.executable, "-m", "sisockdaq.cli", "join", "ocs-feed", "--ocs"]
    started = [
        site.join("weather", MAX_POINTS="100"),
        site.join("sensors"),
        site.run(feed, "feed", without_secret),
        site.join("grafana", user="simonsobs", PORT=str(port), LOGLEVEL="debug"),
    ]
    for name in ("weather", "sensors", "LSA22YE"):
        site.wait_listed(name)
    assert (site.listing() or {})["LSA22YE"] == "LS372"
    bridge = site.caller(CBORSerializer())
    # The fortnight that comes with the node, as sisock's example node has it.
    reply = bridge.call("consumer.weather.get_data", ["temperature"], 1_499_900_000, 1_501_200_000)
    assert 50 <= len(reply["data"]["temperature"]) <= 100

    agent = site.caller(JsonSerializer(), user="server")

    def published() -> bool:
        agent.publish("observatory.LSA22YE.feeds.temperatures", MESSAGE)
        return bool(bridge.call("consumer.LSA22YE.get_data", ["channel_01_t"], 1, 0)["data"].get("channel_01_t"))

    wait_until(published, DEADLINE, "what the agent has published")
    wait_until(lambda: "LSA22YE::channel_01_t" in search(port), DEADLINE, "the field in the gateway's list")
    for process in started:
        site.end(process)
    site.wait_gone("sensors")


MESSAGE = [
    {"temps": {"block_name": "temps", "timestamps": [1_700_000_000.0], "data": {"channel_01_t": [4.2]}}},
    {
        "agent_address": "observatory.LSA22YE", "agg_params": {}, "feed_name": "temperatures", "record": True,
        "address": "observatory.LSA22YE.feeds.temperatures", "session_id": "1", "agent_class": "Lakeshore372Agent",
    },
]  # fmt: skip
"""What an agent of OCS publishes."""


def search(port: int) -> str:
    """Return what the gateway answers to ``/search``; nothing while it is not there."""
    try:
        asked = urllib.request.Request(f"http://127.0.0.1:{port}/search", data=b"{}", method="POST")
        with urllib.request.urlopen(asked, timeout=10) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def test_our_hub_in_the_old_network(site: OldSite) -> None:
    site.end(site.hub)
    hub = site.join("hub")
    node = site.join("thermometer", "--name", "ours")
    site.wait_listed("ours")
    # A session that serves nothing of that name is not listed, though the router does not say who calls.
    with pytest.raises(Exception, match="does not serve"):
        site.caller(user="server").call("data_node.add", "ghost", "None.", 12345)
    site.end(node)
    site.wait_gone("ours")
    site.end(hub)
    site.start_hub()


def told(site: OldSite, *arguments: str, folder: Path | None = None, **variables: str) -> tuple[int, str]:
    """Run ``sisockdaq join`` with a mistake; return its exit status and what it says."""
    environment = {**site.environment(), **variables}
    done = run_command("join", *arguments, environment=environment, folder=folder or site.folder)
    assert "Traceback" not in done.stdout + done.stderr
    assert not [secret for secret in SECRETS.values() if secret in done.stdout + done.stderr]
    return done.returncode, done.stdout + done.stderr


def test_mistakes_are_told_by_the_name_of_their_variable(site: OldSite, tmp_path: Path) -> None:
    status, text = told(site, "thermometer", WAMP_SECRET="")
    assert (status, "WAMP_SECRET is not set" in text) == (78, True)
    assert 'MAX_POINTS: "many"' in told(site, "thermometer", MAX_POINTS="many")[1]
    assert ".crossbar/server_cert.pem" in told(site, "thermometer", folder=tmp_path)[1]
    status, text = told(site, "thermometer", WAMP_SECRET="wrong")
    assert status == 1
    assert "refused user 'server'" in text
    assert "wrong" not in text


def test_the_list_names_the_variables_of_a_type() -> None:
    text = CliRunner().invoke(app(), ["join", "--list", "g3-archive"]).output
    assert "WAMP_SECRET " in text
    assert "SQL_PASSWD " in text
    assert "MAX_POINTS " in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [([], "a TYPE is missing"), (["wether"], 'no type "wether"'), (["hub", "--set", "a=1"], "the hub has no options")],
)
def test_what_cannot_be_joined_is_said(arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAMP_SECRET", "any")
    command = ["join", *arguments, "--certificate", __file__]
    assert said in str(CliRunner().invoke(app(), command).exception)


def test_the_secret_is_in_no_process_list_and_no_log(site: OldSite) -> None:
    node = site.join("thermometer", "--name", "quiet")
    site.wait_listed("quiet")
    command = Path(f"/proc/{node.pid}/cmdline").read_bytes() if os.path.exists("/proc") else b""  # noqa: PTH110
    assert SECRETS["server"].encode() not in command
    site.end(node)
    assert SECRETS["server"] not in site.log("*")
    site.wait_gone("quiet")
