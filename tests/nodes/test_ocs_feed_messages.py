"""What OCS agents may publish, and what becomes of it; expected values follow the contract of a feed's message."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sisockdaq.nodes.ocs_feed.addresses import FeedAddress, Source, chosen, subscriptions
from sisockdaq.nodes.ocs_feed.cache import COUNTS, NAMED, FeedCache, Limits, Prefix
from sisockdaq.nodes.ocs_feed.messages import AHEAD, FAULTS, LONGEST_STRING

from sisockdaq.series import SeriesStore

NOW = 1_700_000_000.0
LAKESHORE = Source("LSA22YE", "temperatures")


class Cache:
    """A cache over a plain store, and what it said."""

    def __init__(self, prefix: Prefix = "none", **limits: Any) -> None:
        self.store = SeriesStore()
        self.said: list[str] = []
        self.cache = FeedCache(self.store.series, prefix=prefix, limits=Limits(**limits), say=self.said.append)

    def take(self, blocks: Any, source: Source = LAKESHORE, **feed: Any) -> None:
        self.cache.take(source, [[blocks, {"record": True, "feed_name": source.feed, **feed}]], NOW)

    def values(self, name: str) -> tuple[list[float], list[Any]]:
        found = self.store.get([name], -1e12, 1e12).samples[name]
        return found.t.tolist(), found.values.tolist()

    def faults(self) -> dict[str, int]:
        return {name: n for name, n in self.cache.counts.items() if n and name not in ("messages", "samples")}


def block(t: list[Any], data: dict[Any, Any], name: str = "temps") -> dict[str, Any]:
    return {name: {"block_name": name, "timestamps": t, "data": data, "influxdb_tags": None}}


def test_fields_are_typed_from_their_data_and_share_the_blocks_timeline():
    made = Cache()
    made.take(block([1, 2.5], {"a": [1.5, 2], "ok": [True, False], "state": ["idle", "cool"], "n": [1, None]}))
    made.take(block([3], {"a": [math.nan], "ok": [True], "state": [None], "n": [4]}))
    listing = made.store.fields()
    assert {name: (entry.type, entry.timeline) for name, entry in listing.fields.items()} == {
        "a": ("number", "temps"),
        "ok": ("bool", "temps"),
        "state": ("string", "temps"),
        "n": ("number", "temps"),
    }
    assert listing.fields["a"].description == "observatory.LSA22YE.feeds.temperatures"
    np.testing.assert_equal(made.values("a"), ([1, 2.5, 3], [1.5, 2, math.nan]))
    assert made.values("ok") == ([1, 2.5, 3], [True, False, True])
    assert made.values("state") == ([1, 2.5, 3], ["idle", "cool", None])
    np.testing.assert_equal(made.values("n")[1], [1, math.nan, 4])
    assert made.cache.counts["samples"] == 12
    assert made.faults() == {}


def test_values_of_another_type_go_to_a_field_beside_and_are_counted():
    made = Cache()
    made.take(block([1], {"a": [1.0], "b": [True], "s": ["x"]}))
    made.take(block([2, 3], {"a": ["error", 3.0], "b": [1, 0.5], "s": [7, True]}))
    made.take(block([4], {"a": [True], "b": [None], "s": ["y"]}))
    assert made.values("a") == ([1, 3, 4], [1, 3, 1])
    assert made.values("a.string") == ([2], ["error"])
    assert made.values("b") == ([1], [True])
    assert made.values("b.number") == ([2, 3], [1, 0.5])
    assert made.values("s") == ([1, 4], ["x", "y"])
    assert made.values("s.number") == ([2, 3], [7, 1])
    assert made.faults() == {"type_changes": 5}
    assert len(made.said) == 3


def test_a_field_that_begins_with_missing_values_waits_for_its_type():
    made = Cache()
    made.take(block([1], {"a": [None], "b": [1]}))
    made.take(block([2, 3, 4], {"a": [None, True, None], "b": [2, 3, 4]}))
    assert made.values("a") == ([3], [True])
    assert made.values("b") == ([1, 2, 3, 4], [1, 2, 3, 4])
    assert made.faults() == {}


good = block([1, 2], {"good": [1, 2]}, "good")


@pytest.mark.parametrize(
    ("kind", "blocks"),
    [
        ("block", {"x": None}),
        ("block", {"x": {"timestamps": [1], "data": {"a": [1]}, "block_name": 3}}),
        ("block", {"x": {"block_name": "x", "data": {"a": [1]}}}),
        ("block", {"x": {"block_name": "x", "timestamps": [1]}}),
        ("block", {"x": {"block_name": "x", "timestamps": 1.0, "data": {"a": 1}}}),
        ("times", block([math.nan], {"a": [1]}, "x")),
        ("times", block([math.inf], {"a": [1]}, "x")),
        ("times", block(["1"], {"a": [1]}, "x")),
        ("times", block([True], {"a": [1]}, "x")),
        ("times", block([10**400], {"a": [1]}, "x")),
        ("ahead", block([NOW + AHEAD + 1], {"a": [1]}, "x")),
        ("lengths", block([1, 2], {"a": [1]}, "x")),
        ("lengths", block([1], {"a": []}, "x")),
        ("values", block([1], {"a": 1}, "x")),
        ("values", block([1], {"a": [[1]]}, "x")),
        ("values", block([1], {"a": [{}]}, "x")),
        ("values", block([1], {"a": [b"raw"]}, "x")),
        ("values", block([1], {"a": [10**400]}, "x")),
        ("values", block([1], {"a": ["x" * (LONGEST_STRING + 1)]}, "x")),
        ("name", block([1], {"a b": [1]}, "x")),
        ("name", block([1], {"1a": [1]}, "x")),
        ("name", block([1], {"": [1]}, "x")),
        ("name", block([1], {"_": [1]}, "x")),
        ("name", block([1], {"ä": [1]}, "x")),
        ("name", block([1], {"a\n": [1]}, "x")),
        ("name", block([1], {"a" * 256: [1]}, "x")),
        ("name", block([1], {7: [1]}, "x")),
    ],
)
def test_what_is_malformed_is_counted_by_kind_named_once_and_costs_nothing_else(kind, blocks):
    made = Cache()
    for _ in range(3):
        made.take({**blocks, **good})
    assert made.faults() == {f"faulty_{kind}": 3}
    assert len(made.said) == 1
    assert made.said[0].startswith("observatory.LSA22YE.feeds.temperatures: ")
    assert made.values("good") == ([1, 2], [1, 2])
    assert set(made.store.fields().fields) == {"good"}


def test_a_faulty_column_costs_only_itself():
    made = Cache()
    made.take(block([1, 2], {"a": [1, 2], "b": [1], "c-d": [1, 2]}))
    assert made.values("a") == ([1, 2], [1, 2])
    assert made.faults() == {"faulty_lengths": 1, "faulty_name": 1}


@pytest.mark.parametrize(
    "arguments", [[], [None], ["text"], [[{}]], [[{}, {}, {}]], [{}, {}], [[None, {}]], [[[], {}]]]
)
def test_what_is_no_message_is_counted(arguments):
    made = Cache()
    made.cache.take(LAKESHORE, arguments, NOW)
    assert made.faults() == {"faulty_message": 1}


def test_a_feed_of_free_form_is_counted_apart():
    made = Cache()
    made.take("anything", record=False)
    assert made.faults() == {"faulty_free_form": 1}


def test_legal_names_and_empty_blocks_are_no_faults():
    made = Cache()
    made.take({**block([], {"a": []}), **block([1], {}, "y"), **block([1], {"__x9": [1], "z" * 255: [2]}, "z")})
    assert made.faults() == {}
    assert set(made.store.fields().fields) == {"__x9", "z" * 255}


def test_halves_of_characters_do_not_spoil_a_reply():
    made = Cache()
    made.take(block([1], {"s": ["a\ud800b"]}))
    (text,) = made.values("s")[1]
    assert text.encode()
    assert (text[0], text[-1]) == ("a", "b")


def test_a_sample_of_the_future_does_not_clear_the_cache():
    made = Cache(keep=3600.0)
    made.take(block([NOW - 10], {"a": [1]}))
    made.take(block([NOW + 1e7], {"a": [2]}))
    made.take(block([NOW], {"a": [3]}))
    assert made.values("a") == ([NOW - 10, NOW], [1, 3])


def test_a_field_of_two_blocks_keeps_its_timeline():
    made = Cache()
    made.take(block([1], {"a": [1]}, "first"))
    made.take(block([2], {"a": [2], "b": [3]}, "second"))
    assert made.values("a") == ([1, 2], [1, 2])
    assert made.store.fields().fields["b"].timeline == "second"
    assert made.faults() == {}


def test_a_block_is_a_timeline_that_a_topic_can_name():
    made = Cache()
    made.take({**block([1], {"a": [1]}, "no. 1 #x"), **block([1], {"b": [1]}, "")})
    assert {e.timeline for e in made.store.fields().fields.values()} == {"no__1__x", "block"}


def test_a_block_does_not_take_the_nodes_own_timeline():
    store = SeriesStore()
    cache = FeedCache(store.series, taken_timelines=("status",))
    cache.take(LAKESHORE, [[block([1], {"a": [1]}, "status"), {}]], NOW)
    assert store.fields().fields["a"].timeline == "LSA22YE.temperatures.status"


def test_several_feeds_are_told_apart():
    other = Source("LSA33", "temperatures")
    for prefix, names in (
        ("target.feed", {"LSA22YE.temperatures.a", "LSA33.temperatures.a"}),
        ("target", {"LSA22YE.a", "LSA33.a"}),
    ):
        made = Cache(prefix)
        made.take(block([1], {"a": [1]}))
        made.take(block([1], {"a": [2]}), other)
        listing = made.store.fields()
        assert set(listing.fields) == names
        assert len(listing.timelines) == 2
    made = Cache("none")
    made.take(block([1], {"a": [1]}))
    made.take(block([1], {"a": [2], "b": [3]}), other)
    assert made.values("a") == ([1], [1])
    assert made.values("b") == ([1], [3])
    assert made.store.fields().fields["b"].timeline == "LSA33.temperatures.temps"
    assert made.faults() == {"names_taken": 1}


def test_a_flood_of_names_is_refused_counted_and_named():
    made = Cache(max_fields=5)
    for i in range(1000):
        made.take(block([i], {f"x{i}": [1], "kept": [i]}, f"block{i}"))
    assert len(made.store.fields().fields) == 5
    assert made.cache.counts["fields_refused"] == 1000 - 4
    assert len(made.said) == NAMED
    assert "x4 is not kept" in made.said[0]
    assert len(made.values("kept")[0]) == 1000
    assert len(made.cache._timelines) <= 5


def test_a_flood_of_feeds_is_refused_counted_and_named():
    made = Cache("target.feed", max_feeds=2)
    for i in range(100):
        made.take(block([1], {"a": [1]}), Source(f"agent{i}", "x"))
    assert set(made.store.fields().fields) == {"agent0.x.a", "agent1.x.a"}
    assert made.cache.counts["feeds_refused"] == 98
    assert "agent2" in made.said[0]
    assert len(made.said) == NAMED


def test_every_kind_of_fault_has_its_count():
    assert {f"faulty_{kind}" for kind in FAULTS} <= set(COUNTS)


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.binary(max_size=3),
    st.just(10**400),
)  # fmt: skip
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3),
    max_leaves=8,
)
near = st.fixed_dictionaries(
    {
        "block_name": st.sampled_from(["temps", "good", "a b", ""]) | anything,
        "timestamps": st.lists(st.floats(0, 2e9) | st.integers(0, 9) | scalars, max_size=3) | anything,
        "data": st.dictionaries(
            st.sampled_from(["a", "b", "c d", "_e", "extra"]) | st.text(max_size=3), st.lists(scalars, max_size=3)
        )
        | anything,
    }
)
messages = st.lists(
    st.tuples(st.dictionaries(st.text(max_size=3), near | anything, max_size=3) | anything, st.booleans()), max_size=8
)


@settings(max_examples=100, deadline=None)
@given(messages, st.lists(anything, max_size=2))
def test_nothing_that_comes_raises_or_costs_a_good_block(drawn, arguments):
    """Good blocks, between and inside messages of anything, are kept whole; every message is accounted for."""
    made = Cache(keep=1e12)
    expected = []
    for i, (blocks, with_good) in enumerate(drawn):
        if with_good and isinstance(blocks, dict):
            expected.append(i)
            blocks = {**blocks, **block([i, i + 0.5], {"good": [i, None], "name": [str(i), "x"]}, "good block")}
        made.take(blocks)
    made.cache.take(LAKESHORE, arguments, NOW)
    assert made.cache.counts["messages"] == len(drawn) + 1
    if expected:
        kept = dict(zip(*made.values("good"), strict=True))
        assert {t: v for t, v in kept.items() if t == int(t)} == {i: i for i in expected}
        assert made.values("name")[1] == [text for i in expected for text in (str(i), "x")]
    for name in made.store.fields().fields:
        made.values(name)


def test_patterns_become_wildcards_and_overlaps_count_once():
    wanted = [
        FeedAddress(target="LSA*", feed="*"),
        FeedAddress(target="LSA22YE", feed="temperatures"),
        FeedAddress(target="*", feed="temperatures"),
        FeedAddress(target="LSA22YE", feed="*"),
        FeedAddress(target="BF?", feed="[pt]*"),
    ]
    made = subscriptions(wanted, "observatory")
    assert [(one.uri, one.wildcard) for one in made] == [
        ("observatory.LSA22YE.feeds.temperatures", False),
        ("observatory..feeds.", True),
        ("observatory..feeds.temperatures", True),
        ("observatory.LSA22YE.feeds.", True),
    ]
    assert chosen(made, LAKESHORE) is made[0]
    assert chosen(made, Source("LSA9", "x")) is made[1]
    assert chosen(made, Source("other", "temperatures")) is made[2]
    assert chosen(made, Source("BF1", "pressures")) is made[1]
    assert chosen(made, Source("BF1", "x")) is None
    assert chosen(made, Source("BF12", "p")) is None


def test_addresses_are_read_from_topics():
    assert Source.of_topic("observatory.LSA22YE.feeds.temperatures", "observatory") == LAKESHORE
    assert Source.of_topic("a.b.c.d.feeds.e", "a.b") == Source("c.d", "e")
    for topic in ("observatory.LSA22YE.ops", "other.x.feeds.y", "observatory.feeds.x", None, "observatory.x.feeds."):
        assert Source.of_topic(topic, "observatory") is None
    assert LAKESHORE.topic("observatory") == "observatory.LSA22YE.feeds.temperatures"
