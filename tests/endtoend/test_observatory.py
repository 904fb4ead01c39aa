"""The example observatory as it is shipped: agents and slow sensors at one end, a Grafana panel at the other."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from sisockdaq.cli._trial import Trial, example_site, private_site, trial
from sisockdaq.router import RouterPlan
from sisockdaq.session import Endpoint
from sisockdaq.site import Site
from sisockdaq.testing.network import Caller
from sisockdaq.testing.waiting import wait_until
from tests.endtoend.panels import Gateway, dashboard, targets
from tests.gateways.grafana.frames import data_frames
from tests.ocs import FakeDataAgent, fake_data_agent

pytestmark = pytest.mark.timeout(240)

DEADLINE = 60.0
FORTNIGHT = {"from": "2017-07-13T00:00:00.000Z", "to": "2017-07-27T00:00:00.000Z"}
"""What the weather sample covers."""


class SiteNetwork:
    """As much of a test network as an OCS agent needs, of a running site."""

    def __init__(self, site: Site) -> None:
        self.plan = RouterPlan.of(site)
        self._caller: Caller | None = None

    def ocs_caller(self) -> Caller:
        if self._caller is None:
            assert self.plan.ocs_url is not None
            self._caller = Caller(Endpoint(self.plan.ocs_url, self.plan.realm, self.plan.base_uri), None)
        return self._caller

    def close(self) -> None:
        if self._caller is not None:
            self._caller.close()


@dataclass
class Observatory:
    """The running site, its gateway, and an agent that publishes."""

    trial: Trial
    gateway: Gateway
    agent: FakeDataAgent

    def field(self, channel: int) -> str:
        return f"ocs::{self.agent.target}.{self.agent.feed}.{self.agent.channels[channel]}"

    def recent(self, field: str, start: float) -> list[tuple[float, Any]]:
        """Return what a panel from `start` [s] until now shows of a field."""
        return self.gateway.samples_or_none(**{"field": field, "from": int(1e3 * start), "to": "now"})

    def kill(self, part: str) -> None:
        """Kill a part; return when the supervisor has another process of it up."""
        before = self._status(part).pid
        assert before is not None
        os.kill(before, signal.SIGKILL)
        wait_until(
            lambda: self._status(part).state == "up" and self._status(part).pid not in (None, before),
            DEADLINE,
            f"{part} to be up again",
        )

    def _status(self, part: str) -> Any:
        return next(status for status in self.trial.supervisor.status() if status.name == part)


@pytest.fixture(scope="module")
def observatory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observatory]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SISOCKDAQ_STATE", str(tmp_path_factory.mktemp("s")))
        with trial(private_site(example_site("observatory"), "test")) as running:
            network = SiteNetwork(running.site)
            try:
                with fake_data_agent(network) as agent:  # type: ignore[arg-type]
                    yield Observatory(running, Gateway(running.site), agent)
            finally:
                network.close()


def test_the_site_is_one_that_old_programs_find(observatory: Observatory) -> None:
    site = observatory.trial.site
    assert (site.realm, site.base_uri) == ("test_realm", "org.simonsobservatory")
    assert {node["name"] for node in observatory.gateway.get("/api/nodes")} == set(site.nodes)


def test_what_an_agent_publishes_is_on_a_panel(observatory: Observatory) -> None:
    """Sample by sample what another subscriber of OCS received."""
    agent = observatory.agent
    begun = time.time() - 60.0
    agent.wait_for_messages(len(agent.messages) + 2)
    for channel, name in enumerate(agent.channels):
        times, values = agent.samples(name)
        shown = wait_until(
            lambda channel=channel, last=times[-1]: (
                (found := observatory.recent(observatory.field(channel), begun))
                and found[-1][0] >= 1e3 * last - 1
                and found
            ),
            DEADLINE,
            f"{name} on the panel",
        )
        received = {round(t, 3): value for t, value in zip(times, values, strict=True)}
        panel = {round(t / 1e3, 3): value for t, value in shown}
        common = sorted(received.keys() & panel.keys())
        assert len(common) == len(received)
        assert [panel[t] for t in common] == pytest.approx([received[t] for t in common], abs=1e-12)


def test_grafana_makes_a_curve_of_it(observatory: Observatory) -> None:
    fields = [observatory.field(channel) for channel in range(len(observatory.agent.channels))]
    wait_until(lambda: observatory.recent(fields[0], time.time() - 60), DEADLINE, "samples")
    now = time.time()
    body = {
        "range": {"from": _iso(now - 60), "to": _iso(now)},
        "maxDataPoints": 100,
        "targets": [{"target": name, "refId": ref} for name, ref in zip([*fields, "ocs::gone"], "ABCD", strict=True)],
    }
    reply = observatory.gateway.post("/query", body)
    frames = data_frames(reply)
    assert [frame.ref for frame in frames] == list("ABCD")
    for frame in frames[:3]:
        assert [column.type for column in frame.columns] == ["time", "number"]
        assert 0 < len(frame.columns[1].values) <= 100
    assert [column.values for column in frames[3].columns] == [[], []]
    assert reply[3]["error"]


def test_the_weather_of_2017_is_there(observatory: Observatory) -> None:
    files = resources.files("sisockdaq.nodes.weather").joinpath("sample").iterdir()
    names = {f"weather::{Path(file.name).stem}" for file in files if file.name.endswith(".dat")}
    assert "weather::temperature" in names
    assert names <= {row["name"] for row in observatory.gateway.get("/api/fields?node=weather")}
    for name in names:
        rows = observatory.gateway.samples(field=name, max_points=200, **FORTNIGHT)
        assert 0 < len(rows) <= 200
        assert [t for t, _ in rows] == sorted(t for t, _ in rows)
    [frame] = data_frames([observatory.gateway.get(_query("weather::temperature", max_points=200, **FORTNIGHT))])
    assert [(column.name, column.type) for column in frame.columns] == [("time", "time"), ("value", "number")]


def test_every_panel_of_the_housekeeping_page_has_data(observatory: Observatory) -> None:
    page = dashboard("housekeeping")
    fields = observatory.gateway.get("/api/fields?node=ocs&type=number")
    values = {
        "node": ["ocs", "sensors"],
        "field": [row["name"] for row in fields][:5],
        "__from": str(int(1e3 * (time.time() - 600))),
        "__to": str(int(1e3 * time.time())),
        "__interval_ms": "1000",
    }
    for target in targets(page):
        rows = observatory.gateway.get(target.url(values))
        if "number" in target.query["url"]:
            assert rows, target.title
            assert {type(row["value"]) for row in rows} <= {int, float, type(None)}
        times = [row["time"] for row in rows]
        assert times == sorted(times), target.title  # what Infinity needs to part the fields
    for variable in page["templating"]["list"]:
        [column, _] = variable["query"]["infinityQuery"]["columns"]
        url = variable["query"]["infinityQuery"]["url"].replace("$node", "ocs")
        assert all(row[column["selector"]] for row in observatory.gateway.get(url))


def test_a_panel_comes_back_after_its_node_was_killed(observatory: Observatory) -> None:
    observatory.kill("ocs")
    back = time.time()
    wait_until(lambda: observatory.recent(observatory.field(0), back), DEADLINE, "samples from the new process")


def test_panels_come_back_after_the_router_was_killed(observatory: Observatory) -> None:
    """Gateway and nodes find the new router by themselves; an agent of OCS gives up after 10 s and is started anew."""
    field = next(
        row["name"] for row in observatory.gateway.get("/api/fields?node=sensors&type=number") if row["units"] == "%"
    )
    observatory.kill("router")
    back = time.time()
    wait_until(observatory.gateway.is_healthy, DEADLINE, "the gateway to have joined again")
    wait_until(lambda: observatory.recent(field, back), DEADLINE, f"{field} after the restart")
    assert observatory.gateway.samples(field="weather::temperature", max_points=10, **FORTNIGHT)
    network = SiteNetwork(observatory.trial.site)
    try:
        with fake_data_agent(network, "faker-2") as agent:  # type: ignore[arg-type]
            name = f"ocs::{agent.target}.{agent.feed}.{agent.channels[0]}"
            wait_until(lambda: observatory.recent(name, back), DEADLINE, f"{name} on the panel")
    finally:
        network.close()


def _query(field: str, **parameters: Any) -> str:
    return "/api/query?" + urlencode({"field": field, **parameters})


def _iso(t: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(t)) + f".{int(t % 1 * 1000):03d}Z"
