"""The network's health in Prometheus' words: which nodes are up, what they count, and how this gateway does.

The families:

- ``sisockdaq_node_up{node, type}``: 1 for a node that the hub lists, 0 for one that it has listed before;
- ``sisockdaq_node_uptime_seconds``, ``sisockdaq_node_last_answer_timestamp_seconds``, ``sisockdaq_node_health{key}``:
  what the hub knows of each;
- ``sisockdaq_field{node, field, units}``: the newest value of each number field of the timelines ``status`` and
  ``recording`` (rates, packets and samples lost, ring use), or of the fields that the option ``metrics`` names;
- ``sisockdaq_gateway_…``: requests, their durations, whether the network is joined, what was left out.

Nodes' and fields' names are labels, so that none needs to be bent into a metric's name. Families are bounded.
"""

from __future__ import annotations

import fnmatch
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from sisockdaq.gateways.grafana.listings import Row

from sisockdaq.client import FieldData

__all__ = ["CONTENT_TYPE", "MOST_FIELDS", "STATUS_AGE", "Metrics"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

MOST_FIELDS = 1000
"""Fields whose values are shown; how many more there are is shown, too."""

MOST_NODES = 1000
"""Nodes that are remembered."""

STATUS_AGE = 60.0
"""A newest value that is older than this is not shown [s]."""

_TOLD = ("status", "recording")

_SHOWN_ELSEWHERE = frozenset({"time", "started", "uptime"})


class Metrics:
    """What is shown, filled in from the hub's status and the nodes' newest values.

    Parameters
    ----------
    patterns : sequence of str
        Full names of fields with ``*`` and ``?``; none: the number fields of the timelines `_TOLD`.
    """

    def __init__(self, patterns: Sequence[str] = ()) -> None:
        self.joined = False
        self._patterns = tuple(patterns)
        self._nodes: dict[str, Mapping[str, Any]] = {}
        self._up: set[str] = set()
        self._fields: list[tuple[Row, float]] = []
        self._left_out = 0
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self._requests = Counter(
            "sisockdaq_gateway_requests", "Requests answered.", ["path", "code"], registry=self._registry
        )
        self._seconds = Histogram(
            "sisockdaq_gateway_request_seconds", "Time to answer.", ["path"], registry=self._registry
        )

    def seen(self, path: str, code: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(path, str(code)).inc()
        self._seconds.labels(path).observe(seconds)

    def wanted(self, rows: Mapping[str, Row]) -> list[str]:
        """Return the fields whose newest values are to be shown, and count those left out."""
        found = [name for name, row in rows.items() if self._wants(row)]
        self._left_out = max(len(found) - MOST_FIELDS, 0)
        return found[:MOST_FIELDS]

    def update(self, status: Mapping[str, Any], data: Mapping[str, FieldData], rows: Mapping[str, Row]) -> None:
        """Take the hub's status and the newest values."""
        entries = {str(entry["name"]): entry for entry in status.get("nodes", ()) if "name" in entry}
        self._up = set(entries)
        for name, entry in entries.items():
            if name in self._nodes or len(self._nodes) < MOST_NODES:
                self._nodes[name] = entry
        self._fields = [
            (rows[name], float(one.values[-1]))
            for name, one in data.items()
            if name in rows and len(one) and one.values.dtype.kind in "biuf"
        ]

    def text(self) -> bytes:
        """Return the exposition."""
        return generate_latest(self._registry)

    def describe(self) -> list[Any]:
        """Say nothing beforehand: the labels come and go."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Give all but the request counters; called by the registry."""
        joined = GaugeMetricFamily("sisockdaq_gateway_joined", "Whether the gateway is on the network.")
        joined.add_metric([], float(self.joined))
        left_out = GaugeMetricFamily("sisockdaq_gateway_fields_left_out", "Fields beyond the limit of what is shown.")
        left_out.add_metric([], float(self._left_out))
        yield from (joined, left_out, *self._of_nodes(), self._of_fields())

    def _of_nodes(self) -> Iterator[GaugeMetricFamily]:
        up = GaugeMetricFamily("sisockdaq_node_up", "Whether the hub lists the node.", labels=["node", "type"])
        uptime = GaugeMetricFamily("sisockdaq_node_uptime_seconds", "Time since its start.", labels=["node"])
        answer = GaugeMetricFamily(
            "sisockdaq_node_last_answer_timestamp_seconds", "When it last answered the hub.", labels=["node"]
        )
        health = GaugeMetricFamily("sisockdaq_node_health", "Numbers of its health.", labels=["node", "key"])
        for name, entry in sorted(self._nodes.items()):
            listed = name in self._up
            up.add_metric([name, str(entry.get("type") or "")], float(listed and self.joined))
            if not listed:
                continue
            for family, key in ((uptime, "uptime"), (answer, "last_answer")):
                if _is_number(entry.get(key)):
                    family.add_metric([name], float(entry[key]))
            for key, value in (entry.get("health") or {}).items():
                if _is_number(value) and key not in _SHOWN_ELSEWHERE:
                    health.add_metric([name, str(key)], float(value))
        yield from (up, uptime, answer, health)

    def _of_fields(self) -> GaugeMetricFamily:
        family = GaugeMetricFamily("sisockdaq_field", "Newest value of a field.", labels=["node", "field", "units"])
        for row, value in self._fields:
            family.add_metric([row.node, row.field, row.units or ""], value)
        return family

    def _wants(self, row: Row) -> bool:
        if row.type not in ("number", "bool"):
            return False
        if self._patterns:
            return any(fnmatch.fnmatchcase(row.name, pattern) for pattern in self._patterns)
        return row.timeline in _TOLD


class Age:
    """Whether something is old enough to be asked for again."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._at = -math.inf

    def over(self) -> bool:
        """Whether it is; if so, it is new from now on."""
        now = time.monotonic()
        if now - self._at < self._seconds:
            return False
        self._at = now
        return True


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
