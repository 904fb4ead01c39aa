"""What Infinity needs of flat replies beyond their being right: rows in the order of time, fields of one kind."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sisockdaq.gateways.grafana import listings, questions, replies
from sisockdaq.gateways.grafana.listings import Row

from sisockdaq.client import FieldData
from sisockdaq.schema import Field

times = st.lists(st.integers(0, 10**9), max_size=30, unique=True).map(sorted)


def found(name: str, t: list[int], values: list[Any]) -> FieldData:
    return FieldData(name, np.array(t, np.float64), np.array(values, object), Field(timeline="t", type="string"))


def rows_of(data: dict[str, FieldData]) -> list[dict[str, Any]]:
    return list(json.loads(b"".join(replies.as_rows(data, list(data), "long"))))


@given(st.dictionaries(st.sampled_from(["a::x", "a::y", "b::z"]), times))
def test_long_rows_are_in_the_order_of_time_and_complete(given_times: dict[str, list[int]]) -> None:
    data = {name: found(name, t, [f"{name} at {one}" for one in t]) for name, t in given_times.items()}
    rows = rows_of(data)
    assert all(a["time"] <= b["time"] for a, b in pairwise(rows))
    for name, t in given_times.items():
        mine = [(row["time"], row["value"]) for row in rows if row["field"] == name]
        assert mine == [(1000 * one, f"{name} at {one}") for one in t]
    assert len(rows) == sum(map(len, given_times.values()))


def test_many_long_rows_come_in_pieces_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replies, "_ROWS", 7)
    even = found("n::even", list(range(0, 40, 2)), list(range(0, 40, 2)))
    odd = found("n::odd", list(range(1, 40, 2)), list(range(1, 40, 2)))
    rows = rows_of({"n::even": even, "n::odd": odd})
    assert [row["value"] for row in rows] == list(range(40))


def row(name: str, kind: str) -> Row:
    node, _, field = name.partition("::")
    return Row(name, node, field, kind, None, None, "t", None)


KNOWN = {name: row(name, kind) for name, kind in {"a::n": "number", "a::s": "string", "b::b": "bool"}.items()}


def names(**parameters: list[str]) -> list[str]:
    query = questions.api_query(parameters, KNOWN, now=1e9, cap=100)
    assert not any(one.error for one in query.wanted)
    return [one.name for one in query.wanted]


def test_a_query_can_be_for_one_kind() -> None:
    assert names(field=["*"]) == ["a::n", "a::s", "b::b"]
    assert names(field=["*"], type=["number"]) == ["a::n"]
    assert names(field=["{a,b}::*"], type=["string,bool"]) == ["a::s", "b::b"]


def test_a_pattern_may_match_nothing() -> None:
    assert names(field=["*::lost*"]) == []


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(questions.BadRequest, match="type=image"):
        names(field=["*"], type=["image"])


def test_listings_can_be_for_some_nodes_and_kinds() -> None:
    def listed(**parameters: list[str]) -> list[str]:
        return [
            entry["name"]
            for entry in listings.fields_of(KNOWN, questions.nodes_of(parameters), questions.types_of(parameters))
        ]

    assert listed() == ["a::n", "a::s", "b::b"]
    assert listed(node=["b"]) == ["b::b"]
    assert listed(node=["{a,b}"], type=["number", "bool"]) == ["a::n", "b::b"]
    assert listed(node=["a,b"], type=["string"]) == ["a::s"]
