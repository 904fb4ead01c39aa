"""What can be chosen: nodes, fields, variables, filters. Pure: everything is made from the nodes' listings.

Array fields (curves, images) are not shown: a dashboard cannot draw them. A field that is live and archived is one.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sisockdaq.schema import SEPARATOR, FieldList, split_name

__all__ = ["FILTER_KEYS", "Row", "chosen", "fields_of", "passes", "payloads", "table", "tag_values"]

FILTER_KEYS = ("node", "field", "units", "type", "timeline")
"""Attributes of a field by which ad hoc filters choose."""

WIDTHS = ({"label": "as wide as the panel", "value": "panel"}, {"label": "all there are", "value": "all"})
"""How many points a simPod target asks for."""


@dataclass(frozen=True, slots=True)
class Row:
    """A field that a panel can show; ``name`` is its full name."""

    name: str
    node: str
    field: str
    type: str
    units: str | None
    description: str | None
    timeline: str
    interval: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return it as a flat object."""
        return {key: getattr(self, key) for key in self.__slots__}


def table(listings: Mapping[str, FieldList]) -> dict[str, Row]:
    """Return every field that can be drawn, by full name, in order."""
    rows: dict[str, Row] = {}
    for node, listing in listings.items():
        for field, entry in listing.fields.items():
            if entry.type == "array":
                continue
            archived = SEPARATOR in field
            name = field if archived else f"{node}{SEPARATOR}{field}"
            if archived and name in rows:
                continue
            owner, own = split_name(name)
            line = listing.timelines.get(entry.timeline)
            interval = line.interval if line else None
            rows[name] = Row(name, owner, own, entry.type, entry.units, entry.description, entry.timeline, interval)
    return dict(sorted(rows.items()))


def chosen(rows: Mapping[str, Row], nodes: Sequence[str], text: str) -> list[str]:
    """Return the names that a search or a variable's query asks for.

    ``nodes`` gives the nodes, a node's name its fields, a pattern with ``*`` what matches, anything else the fields
    whose full name holds it; nothing gives all.
    """
    text = text.strip()
    if text == "nodes":
        return sorted(nodes)
    if text in nodes:
        return [name for name, row in rows.items() if row.node == text]
    if "*" in text or "?" in text:
        return [name for name in rows if fnmatch.fnmatchcase(name, text)]
    return [name for name in rows if text.lower() in name.lower()]


def fields_of(rows: Mapping[str, Row], nodes: Collection[str], types: Collection[str] = ()) -> list[dict[str, Any]]:
    """Return the fields of some nodes and types as flat objects; none named means all."""
    return [
        row.to_dict() for row in rows.values() if (not nodes or row.node in nodes) and (not types or row.type in types)
    ]


def payloads() -> list[dict[str, Any]]:
    """Return what a simPod target can choose beside its metric."""
    return [
        {
            "label": "Points",
            "name": "points",
            "type": "select",
            "placeholder": WIDTHS[0]["label"],
            "options": list(WIDTHS),
            "reloadMetric": False,
        }
    ]


def tag_values(rows: Iterable[Row], key: str) -> list[str]:
    """Return the values that an attribute has among the fields."""
    if key not in FILTER_KEYS:
        return []
    return sorted({str(value) for row in rows if (value := getattr(row, key)) is not None})


def passes(row: Row | None, filters: Sequence[tuple[str, str, str]]) -> bool:
    """Whether a field meets ad hoc filters, ``(key, operator, value)`` each; an unknown field meets all."""
    if row is None:
        return True
    return all((str(getattr(row, key) or "") == value) == (operator == "=") for key, operator, value in filters)
