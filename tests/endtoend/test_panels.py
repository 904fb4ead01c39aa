"""The provisioned dashboards over a detector at work: every panel that should has data, and the data are right."""

from __future__ import annotations

import time
from itertools import pairwise

from sisockdaq.detector.simulator import Disturbance
from tests.endtoend.house import House, wait_for
from tests.endtoend.panels import Gateway, dashboard, targets

EMPTY = {"Load, memory and disks"}
"""Panels about nodes that this site does not have."""


def test_every_panel_has_data(house: House) -> None:
    begun = time.time()
    run, sent = house.acquire(60, disturbance=Disturbance(loss=0.02))
    assert sent.lost
    house.archived(run, 60)
    gateway = Gateway(house.trial.site)
    wait_for(lambda: "receiver::sum" in {row["name"] for row in gateway.get("/api/fields")}, "the gateway's listing")
    values: dict[str, str | list[str]] = {name: name for name in ("receiver", "integrator", "writer")}
    values |= {"__from": str(int(1e3 * (begun - 1))), "__interval_ms": "20"}
    for name in ("detector", "site-health"):
        for target in targets(dashboard(name)):
            # Status fields come once a second.
            rows = wait_for(
                lambda target=target: (
                    gateway.get_or_none(target.url({**values, "__to": str(int(1e3 * (time.time() + 1)))}))
                    or target.title in EMPTY
                ),
                f"data of the panel {target.title}",
            )
            if rows is not True and "time" in rows[0]:
                assert all(a["time"] <= b["time"] for a, b in pairwise(rows)), target.title


def test_the_panels_tell_what_the_ledger_tells(house: House) -> None:
    begun = time.time()
    run, _ = house.acquire(40)
    house.archived(run, 40)
    gateway = Gateway(house.trial.site)
    shown = gateway.samples(field="receiver::sum", **{"from": int(1e3 * begun), "to": "now"})
    kept = house.client.get("receiver::sum", start=begun)["receiver::sum"]
    assert [value for _, value in shown] == kept.values.tolist()
    assert len(shown) == run.ledger.frames_expected == 40
    marks = gateway.get(f"/api/acquisitions?from={int(1e3 * begun)}&to=now")
    assert any(run.name in f"{mark['title']} {mark['text']}" for mark in marks)
