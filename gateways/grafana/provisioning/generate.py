"""Write the dashboards: ``python gateways/grafana/provisioning/generate.py``.

Three dashboards for any site: its health, a detector, housekeeping. They find their fields by pattern
(``*::*lost*``), so that a node of one's own appears on them without an edit. Grafana's own exports are thousands of
lines; what is the same for all panels stands here once, and a test fails when a file is not current.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "dashboards" / "sisockdaq"

SOURCE = {"type": "yesoreyeram-infinity-datasource", "uid": "sisockdaq"}
"""The data source of ``datasources/sisockdaq.yaml``."""

SPAN = "from=${__from}&to=${__to}&interval=${__interval_ms}"
"""What Grafana fills in: the panel's span [ms] and the time between two of its points [ms]."""

WIDTH = 200
"""Longest line of a dashboard's file."""

Json = dict[str, Any]

LOSSES = (
    "*::*lost*",
    "*::*dropped*",
    "*::*discarded*",
    "*::*refused*",
    "*::*faulty_*",
    "*::files_broken",
    "*::packets_invalid",
    "*::frames_ring_full",
    "*::recording_gaps",
)
"""Names of fields that count what is missing."""

RATES = ("*::frame_rate", "*::packet_rate", "*::*sample_rate")

USE = ("sensors::cpu_load", "sensors::*_use")


def main() -> None:
    """Write the files."""
    for name, made in dashboards().items():
        (FOLDER / name).write_text(made, encoding="utf-8")


def dashboards() -> dict[str, str]:
    """Return the files: name → text."""
    made = {"site-health.json": site_health(), "detector.json": detector(), "housekeeping.json": housekeeping()}
    return {name: pretty(dashboard) + "\n" for name, dashboard in made.items()}


# --- the dashboards ------------------------------------------------------------------------------------------------


def site_health() -> Json:
    """Who is there, and is anything lost."""
    return dashboard(
        "sisockdaq-health",
        "Site health",
        "Who is on the network, what comes in, and what was lost.",
        [
            node_table("Nodes", (0, 0, 14, 9)),
            stat("Lost since the parts started", series(*LOSSES), (14, 0, 10, 9), limit=1),
            curves("What comes, per second", series(*RATES), (0, 9, 12, 9), units="hertz"),
            curves("Losses", series(*LOSSES), (12, 9, 12, 9), calcs=("lastNotNull", "diff")),
            curves("Bytes per second", series("*::data_rate", "sensors::*_rate"), (0, 18, 12, 8), units="Bps"),
            curves("Load, memory and disks", series(*USE), (12, 18, 12, 8), units="percent"),
            curves("Files and samples kept", series("*::files_*", "*::samples_recorded"), (0, 26, 12, 8)),
            states("States", words("*::state", "*::message", "*::recording_problem"), (12, 26, 12, 8)),
        ],
    )


def detector() -> Json:
    """A detector's way: packets, frames, curves, files."""
    return dashboard(
        "sisockdaq-detector",
        "Detector",
        "From packets to files: rates, losses, sums, the frame ring, the writer.",
        [
            stat("Frames", series("${receiver}::frame_rate"), (0, 0, 4, 5), units="hertz"),
            stat("Packets lost", series("${receiver}::packets_lost_total"), (4, 0, 4, 5), limit=1),
            gauge("Ring in use", series("${receiver}::ring_use"), (8, 0, 4, 5)),
            stat("Frames written", series("${writer}::frames_written"), (12, 0, 4, 5)),
            stat("Acquisition", words("${writer}::acquisition"), (16, 0, 8, 5), text=True),
            curves(
                "Rates of frames",
                series("${receiver}::frame_rate", "${integrator}::frame_rate", "${writer}::frame_rate"),
                (0, 5, 12, 8),
                units="hertz",
            ),
            curves(
                "Rates of data", series("${receiver}::data_rate", "${writer}::data_rate"), (12, 5, 12, 8), units="Bps"
            ),
            curves(
                "Losses",
                series(*(f"${{{part}}}::{what}" for part in DETECTOR_PARTS for what in DETECTOR_LOSSES)),
                (0, 13, 12, 8),
                calcs=("lastNotNull", "diff"),
            ),
            curves("Ring in use", series("${receiver}::ring_use"), (12, 13, 12, 8), units="percent"),
            curves("Sum of the image", series("${receiver}::sum"), (0, 21, 12, 8), units="sci"),
            curves("Total of the curve", series("${integrator}::total"), (12, 21, 12, 8), units="sci"),
            curves("Written", series("${writer}::frames_written", "${writer}::queue"), (0, 29, 12, 8)),
            states("What the writer does", words("${writer}::state", "${writer}::message"), (12, 29, 12, 8)),
        ],
        variables=[node_variable(name, f"The {name}.", name) for name in DETECTOR_PARTS],
    )


DETECTOR_PARTS = ("receiver", "integrator", "writer")
DETECTOR_LOSSES = ("*lost*", "*dropped*", "*discarded*", "frames_ring_full", "frames_partial")


def housekeeping() -> Json:
    """Weather, sensors, agents: any node's fields over time."""
    return dashboard(
        "sisockdaq-housekeeping",
        "Housekeeping",
        "What slow sensors say: choose nodes and fields above.",
        [
            curves("Fields", series("$field"), (0, 0, 24, 11), mean=True),
            curves("$node", series("${node}::*"), (0, 11, 12, 9), repeat="node"),
            states("$node: words and switches", words("${node}::*"), (0, 20, 12, 7), repeat="node"),
        ],
        variables=[
            node_variable("node", "Nodes to show, a panel each.", ["weather", "sensors", "ocs"]),
            variable(
                "field",
                "Fields of these nodes for the upper panel.",
                "/api/fields?node=$node&type=number",
                current=["sensors::cpu_load", "sensors::memory_use"],
            ),
        ],
        links=[
            {
                "title": "The weather that comes with sisockdaq (July 2017)",
                "type": "link",
                "icon": "cloud",
                "url": "/d/sisockdaq-housekeeping?from=1499904000000&to=1501113600000&var-node=weather",
                "tooltip": "The same page on the sample's fortnight.",
            }
        ],
    )


# --- what they are made of -----------------------------------------------------------------------------------------


def dashboard(
    uid: str, title: str, about: str, panels: list[Json], variables: Iterable[Json] = (), links: Iterable[Json] = ()
) -> Json:
    """Return a dashboard of numbered panels, with acquisitions marked in all of them."""
    others = {"title": "sisockdaq", "type": "dashboards", "tags": ["sisockdaq"], "asDropdown": True, "keepTime": True}
    return {
        "uid": uid,
        "title": title,
        "description": about,
        "tags": ["sisockdaq"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "timezone": "utc",
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "links": [others, *links],
        "annotations": {"list": [acquisitions()]},
        "templating": {"list": list(variables)},
        "panels": [{"id": number, **panel} for number, panel in enumerate(panels, 1)],
    }


def acquisitions() -> Json:
    """Return the annotation that marks acquisitions."""
    columns = [column(key, key, "timestamp_epoch") for key in ("time", "timeEnd")]
    columns += [column(key, key, "string") for key in ("title", "text")]
    return {
        "name": "Acquisitions",
        "enable": True,
        "iconColor": "light-blue",
        "datasource": SOURCE,
        "target": query("/api/acquisitions?from=${__from}&to=${__to}", columns, "table"),
    }


def series(*fields: str) -> Json:
    """Return a query for numbers: rows of time, field and value, which Infinity turns into a curve a field."""
    return query(samples(fields, "number"), [*SAMPLE, column("value", "Value", "number")], "timeseries")


def words(*fields: str) -> Json:
    """Return a query for strings and bools; such rows stay rows, and `states` parts them."""
    return query(samples(fields, "string,bool"), [*SAMPLE, column("value", "Value", "string")], "table")


def samples(fields: Iterable[str], kinds: str) -> str:
    """Return the address of samples; Grafana fills in a variable of many values as ``{a,b}``."""
    asked = "&".join(f"field={field}" for field in fields)
    return f"/api/query?{asked}&type={kinds}&{SPAN}&shape=long"


def query(url: str, columns: list[Json], form: str) -> Json:
    """Return a target of the Infinity data source; the server parses, so that alerts work too."""
    return {
        "refId": "A",
        "datasource": SOURCE,
        "type": "json",
        "parser": "backend",
        "source": "url",
        "format": form,
        "url": url,
        "url_options": {"method": "GET", "data": ""},
        "root_selector": "",
        "columns": columns,
        "filters": [],
    }


def column(key: str, name: str, kind: str) -> Json:
    """Return a column of an Infinity query."""
    return {"selector": key, "text": name, "type": kind}


SAMPLE = (column("time", "Time", "timestamp_epoch"), column("field", "field", "string"))


def panel(kind: str, title: str, target: Json, place: tuple[int, int, int, int], defaults: Json, options: Json) -> Json:
    """Return a panel; `place` is x, y, width and height in Grafana's grid of 24 columns."""
    x, y, width, height = place
    return {
        "type": kind,
        "title": title,
        "datasource": SOURCE,
        "gridPos": {"x": x, "y": y, "w": width, "h": height},
        "targets": [target],
        "fieldConfig": {"defaults": {"displayName": "${__field.labels.field}", **defaults}, "overrides": []},
        "options": options,
    }


def curves(
    title: str,
    target: Json,
    place: tuple[int, int, int, int],
    units: str = "none",
    calcs: tuple[str, ...] = ("lastNotNull", "max"),
    mean: bool = False,
    repeat: str | None = None,
) -> Json:
    """Return a panel of curves over time."""
    shown = [*calcs, "mean"] if mean else list(calcs)
    custom = {"lineWidth": 1, "fillOpacity": 8, "showPoints": "auto", "spanNulls": False}
    options = {
        "legend": {"displayMode": "table", "placement": "bottom", "showLegend": True, "calcs": shown},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return repeated(panel("timeseries", title, target, place, {"unit": units, "custom": custom}, options), repeat)


def repeated(made: Json, variable: str | None) -> Json:
    """Return the panel, once for each chosen value of the variable."""
    return made if variable is None else {**made, "repeat": variable, "repeatDirection": "h", "maxPerRow": 2}


def stat(
    title: str,
    target: Json,
    place: tuple[int, int, int, int],
    units: str = "none",
    limit: float | None = None,
    text: bool = False,
) -> Json:
    """Return a panel of newest values; from `limit` on they are red."""
    steps: list[Json] = [{"color": "green", "value": None}]
    if limit is not None:
        steps.append({"color": "red", "value": limit})
    options = {
        "reduceOptions": {"values": False, "calcs": ["lastNotNull"], "fields": "/^Value$/" if text else ""},
        "colorMode": "none" if text else "value",
        "graphMode": "none" if text else "area",
        "textMode": "value" if text else "auto",
    }
    defaults: Json = {"unit": units, "thresholds": {"mode": "absolute", "steps": steps}}
    if text:
        defaults = {"unit": "string", "displayName": None}
    return panel("stat", title, target, place, defaults, options)


def gauge(title: str, target: Json, place: tuple[int, int, int, int]) -> Json:
    """Return a gauge of a share in percent."""
    steps = [{"color": "green", "value": None}, {"color": "orange", "value": 50}, {"color": "red", "value": 80}]
    defaults = {"unit": "percent", "min": 0, "max": 100, "thresholds": {"mode": "absolute", "steps": steps}}
    options = {"reduceOptions": {"values": False, "calcs": ["lastNotNull"], "fields": ""}}
    return panel("gauge", title, target, place, defaults, options)


def states(title: str, target: Json, place: tuple[int, int, int, int], repeat: str | None = None) -> Json:
    """Return a panel of words over time, a row a field."""
    parted = {"fields": ["field"], "keepFields": False, "naming": {"asLabels": True}}
    options = {"mergeValues": True, "showValue": "auto", "legend": {"showLegend": False}, "rowHeight": 0.8}
    made = panel("state-timeline", title, target, place, {"color": {"mode": "palette-classic"}}, options)
    return repeated({**made, "transformations": [{"id": "partitionByValues", "options": parted}]}, repeat)


def node_table(title: str, place: tuple[int, int, int, int]) -> Json:
    """Return the table of nodes."""
    columns = [
        column("name", "Node", "string"),
        column("type", "Type", "string"),
        column("description", "What it is", "string"),
        column("uptime", "Up", "number"),
        column("last_answer", "Last answer", "timestamp_epoch"),
    ]
    target = query("/api/nodes", columns, "table")
    made = panel("table", title, target, place, {"displayName": None}, {"showHeader": True, "cellHeight": "sm"})
    seconds = {"matcher": {"id": "byName", "options": "Up"}, "properties": [{"id": "unit", "value": "dtdurations"}]}
    made["fieldConfig"]["overrides"].append(seconds)
    return made


def node_variable(name: str, about: str, current: str | list[str]) -> Json:
    """Return a choice of nodes; at first the one of that name, or several."""
    return variable(name, about, "/api/nodes", current)


def variable(name: str, about: str, url: str, current: str | list[str]) -> Json:
    """Return a variable whose choices the gateway lists; with a list as first choice, several may be chosen."""
    several = isinstance(current, list)
    columns = [column("name", "__text", "string"), column("name", "__value", "string")]
    asked = {**query(url, columns, "table"), "refId": "variable"}
    return {
        "name": name,
        "label": name,
        "description": about,
        "type": "query",
        "datasource": SOURCE,
        "query": {"queryType": "infinity", "query": "", "infinityQuery": asked},
        "refresh": 2,
        "sort": 1,
        "multi": several,
        "includeAll": several,
        "current": {"text": current, "value": current},
    }


# --- text ----------------------------------------------------------------------------------------------------------


def pretty(value: Any, indent: int = 0) -> str:
    """Return JSON that is short and still has a thing a line: what fits into one line stands in one."""
    line = json.dumps(value, ensure_ascii=False)
    if len(line) + indent <= WIDTH or not isinstance(value, dict | list) or not value:
        return line
    inner = indent + 2
    if isinstance(value, dict):
        parts = [f"{json.dumps(key)}: {pretty(entry, inner)}" for key, entry in value.items()]
    else:
        parts = [pretty(entry, inner) for entry in value]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    body = ",\n".join(" " * inner + part for part in parts)
    return f"{opening}\n{body}\n{' ' * indent}{closing}"


if __name__ == "__main__":
    main()
