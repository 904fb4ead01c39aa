"""Listings, replies and times, against the examples of the sisock wire contract."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sisockdaq.errors import IntervalError, ReplyInvalid
from sisockdaq.schema import (
    Axis,
    Field,
    FieldList,
    Reply,
    Samples,
    Timeline,
    column,
    plain_values,
    resolve_interval,
    split_name,
    unix_time,
)

NOW = 1_700_000_000.0

OLD_LISTING = [
    {"temperature": {"description": None, "timeline": "weather", "type": "number", "units": "C"}},
    {"weather": {"interval": 60.0, "field": ["temperature"]}},
]


def test_times_follow_the_contract():
    assert unix_time(5.0, NOW) == 5.0
    assert unix_time(0, NOW) == NOW
    assert unix_time(-3600, NOW) == NOW - 3600


def test_all_time_is_from_one_to_now():
    assert resolve_interval(1, 0, NOW) == (1.0, NOW)


@pytest.mark.parametrize(
    ("start", "end", "word"),
    [(0, -60, "reversed"), (5, 4, "reversed"), (5, 5, "empty"), (math.nan, 0, "nan"), (1, math.inf, "inf")],
)
def test_a_bad_interval_is_refused_with_its_reason(start, end, word):
    with pytest.raises(IntervalError, match=word):
        resolve_interval(start, end, NOW)


@pytest.mark.parametrize("bad", [None, "1h", True, [1]])
def test_a_time_that_is_no_number_is_refused(bad):
    with pytest.raises(IntervalError, match="start"):
        resolve_interval(bad, 0, NOW)


def test_an_empty_interval_may_be_allowed():
    assert resolve_interval(7, 7, NOW, allow_empty=True) == (7.0, 7.0)


def test_names_are_cut_at_the_first_separator():
    assert split_name("archive::integrator::total") == ("archive", "integrator::total")
    assert split_name("archive") == ("archive", "")


def test_an_old_listing_is_read_and_written_unchanged():
    listing = FieldList.parse(OLD_LISTING)
    assert listing.problems == []
    assert listing.fields["temperature"].units == "C"
    assert listing.timelines["weather"] == Timeline(interval=60.0, fields=("temperature",))
    assert listing.to_plain() == OLD_LISTING


def test_so3g_timelines_are_read():
    listing = FieldList.parse(
        [
            {"observatory.a.b": {"description": None, "timeline": "group0", "type": "number", "units": None}},
            {"group0": {"interval": None, "fields": ["observatory.a.b"]}},
        ]
    )
    assert listing.timelines["group0"].fields == ("observatory.a.b",)


def test_an_unusable_entry_is_named_and_the_rest_kept():
    fields = {**OLD_LISTING[0], "odd": {"timeline": "weather", "type": "complex"}}
    listing = FieldList.parse([fields, OLD_LISTING[1]], source="weather")
    assert set(listing.fields) == {"temperature"}
    assert len(listing.problems) == 1
    assert "odd" in listing.problems[0]
    assert "type" in listing.problems[0]


@pytest.mark.parametrize("bad", [None, False, {}, [{}], [{}, []], "fields"])
def test_a_reply_that_is_no_listing_is_refused(bad):
    with pytest.raises(ReplyInvalid, match="get_fields"):
        FieldList.parse(bad)


def test_a_loose_interval_becomes_none():
    listing = FieldList.parse([OLD_LISTING[0], {"weather": {"interval": "often", "field": ["temperature"]}}])
    assert listing.timelines["weather"] == Timeline(interval=None, fields=("temperature",))


def test_arrays_are_for_those_who_know_them():
    listing = FieldList(
        {
            "total": Field(timeline="frame"),
            "curve": Field(
                timeline="frame", type="array", shape=(3,), dtype="float64",
                axes=(Axis(axis="q", unit="nm^-1", values=(1.0, 2.0, 3.0)),),
            ),
        },
        {"frame": Timeline(interval=0.01, fields=("total", "curve")), "image": Timeline(fields=())},
    )  # fmt: skip
    plain = listing.to_plain()
    assert set(plain[0]) == {"total"}
    assert plain[1] == {"frame": {"interval": 0.01, "field": ["total"]}}
    assert FieldList.parse(json.loads(json.dumps(listing.to_schema()))) == listing


def test_an_old_reply_is_read():
    listing = FieldList.parse(OLD_LISTING)
    reply = Reply.parse(
        {"data": {"temperature": [1.5, 2]}, "timeline": {"weather": {"t": [10, 20.5], "finalized_until": 20.5}}},
        ["temperature", "nothing"],
        listing,
    )
    found = reply.samples["temperature"]
    np.testing.assert_array_equal(found.t, [10, 20.5])
    np.testing.assert_array_equal(found.values, [1.5, 2])
    assert found.finalized_until == 20.5
    assert reply.unknown == ["nothing"]
    assert len(reply.samples["nothing"]) == 0


def test_an_so3g_reply_names_its_fields_by_group():
    reply = Reply.parse(
        {
            "data": {"a": [1, 2], "b": [3, 4]},
            "timeline": {
                "group0": {"t": [1, 2], "finalized_until": None, "fields": ["a"]},
                "group1": {"t": [5, 6], "finalized_until": None, "fields": ["b"]},
            },
        },
        ["a", "b"],
        FieldList({"a": Field(timeline="x"), "b": Field(timeline="x")}),
    )
    np.testing.assert_array_equal(reply.samples["b"].t, [5, 6])
    assert reply.samples["a"].timeline == "group0"


def test_false_says_too_much_data():
    with pytest.raises(ReplyInvalid, match="more data"):
        Reply.parse(False, ["a"])


@pytest.mark.parametrize("bad", [None, [], {"data": {}}, {"data": [], "timeline": {}}])
def test_a_reply_of_another_form_is_refused(bad):
    with pytest.raises(ReplyInvalid, match="get_data"):
        Reply.parse(bad, ["a"])


def test_values_without_their_times_are_named():
    reply = Reply.parse({"data": {"a": [1, 2]}, "timeline": {"x": {"t": [1]}}}, ["a"])
    assert len(reply.samples["a"]) == 0
    assert "2 values" in reply.problems[0]


def test_unsorted_times_are_sorted():
    reply = Reply.parse({"data": {"a": [1, 2, 3]}, "timeline": {"x": {"t": [3, 1, 2]}}}, ["a"])
    np.testing.assert_array_equal(reply.samples["a"].values, [2, 3, 1])


def test_the_plain_reply_is_strict_json_with_none_for_nan():
    t = np.array([1.0, 2.0])
    reply = Reply(
        {
            "x": Samples(t, np.array([math.nan, 2.5]), "line", 2.0),
            "n": Samples(t, np.array([1, 2]), "line", 2.0),
            "s": Samples(t, column(["a", None]), "words", None),
            "e": Samples.empty("nothing"),
        },
        ["unknown"],
    )
    plain = json.loads(json.dumps(reply.to_plain(), allow_nan=False))
    assert plain == {
        "data": {"x": [None, 2.5], "n": [1, 2], "s": ["a", None], "e": [], "unknown": []},
        "timeline": {
            "line": {"t": [1.0, 2.0], "finalized_until": 2.0},
            "words": {"t": [1.0, 2.0], "finalized_until": None},
        },
    }


def test_fields_of_one_timeline_with_other_times_are_joined():
    reply = Reply(
        {
            "a": Samples(np.array([1.0, 3.0]), np.array([1.0, 3.0]), "line"),
            "b": Samples(np.array([2.0, 3.0]), np.array([20.0, 30.0]), "line"),
        }
    )
    plain = reply.to_plain()
    assert plain["timeline"]["line"]["t"] == [1.0, 2.0, 3.0]
    assert plain["data"] == {"a": [1.0, None, 3.0], "b": [None, 20.0, 30.0]}


@pytest.mark.parametrize(
    ("values", "kind"),
    [([True, False], "b"), ([1, 2], "i"), ([1, 2.5], "f"), ([1, None], "f"), (["a"], "O"), ([True, None], "O"),
     ([2**70], "f"), ([], "f"), ([None], "O")],
)  # fmt: skip
def test_columns_take_the_narrowest_type(values, kind):
    assert column(values).dtype.kind == kind


def test_a_column_of_arrays_is_stacked():
    assert column([[1, 2], [3, 4], [5, 6]]).shape == (3, 2)


numbers = st.one_of(
    st.integers(-(2**62), 2**62), st.floats(), st.booleans(), st.none(), st.text(max_size=5),
    st.floats(width=32).map(np.float32), st.integers(0, 255).map(np.uint8), st.booleans().map(np.bool_),
    st.lists(st.floats(), max_size=4).map(np.array),
)  # fmt: skip
nested = st.recursive(
    numbers, lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=3), x), max_leaves=8
)


@settings(max_examples=100, deadline=None)
@given(nested)
def test_everything_becomes_strict_json(value):
    json.dumps(plain_values(value), allow_nan=False)
