"""What Grafana loads at its start: the files are current, complete in themselves, and refer to each other rightly."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).parents[3]
PROVISIONING = REPOSITORY / "gateways" / "grafana" / "provisioning"
DASHBOARDS = sorted((PROVISIONING / "dashboards" / "sisockdaq").glob("*.json"))

CORE_PANELS = {"timeseries", "stat", "gauge", "state-timeline", "table", "text", "row", "barchart", "heatmap"}
"""Panel types that every Grafana has."""

COLUMN_TYPES = {"string", "number", "timestamp", "timestamp_epoch", "timestamp_epoch_s", "boolean"}
"""Types that the Infinity data source knows."""


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_dashboards", PROVISIONING / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def source() -> dict[str, Any]:
    """The provisioned data source."""
    return dict(yaml.safe_load((PROVISIONING / "datasources" / "sisockdaq.yaml").read_text())["datasources"][0])


def test_the_files_are_current(generator: ModuleType) -> None:
    made = generator.dashboards()
    found = {path.name: path.read_text() for path in DASHBOARDS}
    assert found == made, "run: python gateways/grafana/provisioning/generate.py"


def test_every_file_can_be_read_at_once() -> None:
    assert len(DASHBOARDS) == 3
    for path in DASHBOARDS:
        assert len(path.read_text().splitlines()) < 500, path.name


def test_identifiers_are_unique() -> None:
    dashboards = [json.loads(path.read_text()) for path in DASHBOARDS]
    assert len({dashboard["uid"] for dashboard in dashboards}) == len(dashboards)
    assert len({dashboard["title"] for dashboard in dashboards}) == len(dashboards)


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_is_sane(path: Path, source: dict[str, Any]) -> None:
    dashboard = json.loads(path.read_text())
    wanted = {"type": source["type"], "uid": source["uid"]}
    panels = dashboard["panels"]
    variables = dashboard["templating"]["list"]
    assert dashboard["title"]
    assert dashboard["description"]
    assert "id" not in dashboard  # Grafana gives it
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert {panel["type"] for panel in panels} <= CORE_PANELS
    names = {variable["name"] for variable in variables}
    for panel in panels:
        assert panel["title"]
        assert panel["targets"]
        assert panel["datasource"] == wanted
        assert panel.get("repeat", "") in {"", *names}
    for query in [
        *(target for panel in panels for target in panel["targets"]),
        *(variable["query"]["infinityQuery"] for variable in variables),
        *(annotation["target"] for annotation in dashboard["annotations"]["list"]),
    ]:
        assert query["datasource"] == wanted
        assert query["url"].startswith("/")  # the address before it is the data source's
        assert query["source"] == "url"
        assert {column["type"] for column in query["columns"]} <= COLUMN_TYPES
    for variable in variables:
        assert variable["datasource"] == wanted
        assert variable["current"]["value"]  # so that the page opens with something chosen


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_panels_do_not_overlap(path: Path) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(path.read_text())["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_data_sources_have_different_uids_and_no_password() -> None:
    entries = []
    for path in sorted((PROVISIONING / "datasources").iterdir()):
        content = yaml.safe_load(path.read_text())
        assert content["apiVersion"] == 1
        entries += content["datasources"]
    assert len({entry["uid"] for entry in entries}) == len(entries) == 4
    for entry in entries:
        assert not {"basicAuthUser", "user", "password", "secureJsonData"} & set(entry)
        assert entry["url"].startswith("$")


def test_only_one_data_source_is_loaded_unasked(source: dict[str, Any]) -> None:
    """Grafana reads ``*.yaml`` and ``*.yml`` only; the plugins of the others are not maintained."""
    assert [path.name for path in (PROVISIONING / "datasources").glob("*.y*ml")] == ["sisockdaq.yaml"]
    assert source["jsonData"]["allowedHosts"] == [source["url"]]


def test_the_provider_finds_the_dashboards() -> None:
    provider = yaml.safe_load((PROVISIONING / "dashboards" / "sisockdaq.yaml").read_text())["providers"][0]
    inside = Path(provider["options"]["path"]).relative_to("/etc/grafana/provisioning")
    assert sorted((PROVISIONING / inside).glob("*.json")) == DASHBOARDS
