"""Typed arrays, the messages of a reply, and feed events, through the three serializers that the network uses."""

from __future__ import annotations

import json

import autobahn.twisted  # noqa: F401 - chooses the framework that the serializers need
import cbor2
import msgpack
import numpy as np
import pytest
from autobahn.wamp.message import Result
from autobahn.wamp.serializer import CBORSerializer, JsonSerializer, MsgPackSerializer
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sisockdaq import wire
from sisockdaq.errors import ReplyInvalid
from sisockdaq.schema import Reply, Samples, column

SERIALIZERS = [CBORSerializer, MsgPackSerializer, JsonSerializer]


def carried(serializer, value):
    """Return what a value is after a trip as the result of a call."""
    codec = serializer()
    data, _ = codec.serialize(Result(1, args=[value]))
    return codec.unserialize(data)[0].args[0]


def same(a, b):
    assert a.shape == b.shape
    if b.dtype.kind == "O":
        assert a.tolist() == b.tolist()
    else:
        assert a.dtype == b.dtype.newbyteorder("=")
        np.testing.assert_array_equal(a, b)


def test_the_form_is_the_one_that_is_documented():
    assert wire.encode_array(np.array([1.5, -2.0])) == {
        "dtype": "<f8",
        "shape": [2],
        "data": bytes.fromhex("000000000000f83f00000000000000c0"),
    }
    assert wire.encode_array(np.array([258], ">u2"))["data"] == b"\x02\x01"
    assert json.loads(wire.encode_array(["ä", None])["data"]) == ["ä", None]


@pytest.mark.parametrize("serializer", SERIALIZERS)
@pytest.mark.parametrize(
    "array",
    [
        np.array([1.0, np.nan, np.inf]),
        np.arange(6, dtype=np.uint16).reshape(1, 2, 3),
        np.array([2**63 - 1, -(2**63)]),
        np.array([2**64 - 1], np.uint64),
        np.array([True, False]),
        np.empty((0, 4), np.float32),
        np.arange(10.0)[::3],
        np.array([1, 2], ">i4"),
        column(["a", "ö", None, ""]),
        column([True, None]),
    ],
    ids=lambda array: f"{array.dtype}{list(array.shape)}",
)
def test_arrays_travel_through_each_serializer(serializer, array):
    same(wire.decode_array(carried(serializer, wire.encode_array(array))), array)


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(
        st.one_of(hnp.integer_dtypes(), hnp.unsigned_integer_dtypes(), hnp.floating_dtypes(), hnp.boolean_dtypes()),
        hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=5),
    )
)
def test_any_array_comes_back(array):
    back = wire.decode_array(msgpack.unpackb(msgpack.packb(wire.encode_array(array))))
    np.testing.assert_array_equal(back, array)
    assert cbor2.loads(cbor2.dumps(wire.encode_array(array))) == wire.encode_array(array)


@pytest.mark.parametrize(
    "message",
    [
        None,
        {},
        {"dtype": "<f8", "shape": [2], "data": b"12345678"},
        {"dtype": "|O", "shape": [1], "data": b"12345678"},
        {"dtype": "<M8[s]", "shape": [1], "data": b"12345678"},
        {"dtype": "<f8", "shape": [-1], "data": b"12345678"},
        {"dtype": "<f8", "shape": [1], "data": "12345678"},
        {"dtype": "json", "shape": [2], "data": b"[1]"},
        {"dtype": "json", "shape": [1], "data": b"{"},
        {"dtype": "nonsense", "shape": [1], "data": b"1"},
    ],
)
def test_what_is_no_array_is_refused(message):
    with pytest.raises(ReplyInvalid):
        wire.decode_array(message)


def reply_of(n: int) -> Reply:
    t = np.arange(n) * 0.5 + 1e9
    return Reply(
        {
            "a": Samples(t, np.sin(t), "line", 1e9 + 5, 1e9),
            "b": Samples(t, np.arange(n), "line", 1e9 + 5),
            "words": Samples(t[:3], column(["x", None, "ß"][:n]), "words"),
            "images": Samples(t[:2], np.arange(min(n, 2) * 6, dtype=np.uint16).reshape(-1, 2, 3), "images"),
        },
        ["missing"],
        ["one problem"],
    )


def assembled(messages) -> Reply:
    *progressive, result = messages
    assembler = wire.Assembler()
    for message in progressive:
        assembler.add(message)
    return assembler.finish(result)


@pytest.mark.parametrize("serializer", SERIALIZERS)
@pytest.mark.parametrize("chunk", [64, 1000, wire.CHUNK_BYTES])
def test_a_reply_comes_whole_or_in_parts(serializer, chunk):
    reply = reply_of(200)
    sent = list(wire.messages(reply, chunk=chunk))
    assert len(sent) == 1 or all(len(m["data"]) <= chunk for m in sent[1:-1])
    back = assembled([carried(serializer, message) for message in sent])
    assert back.unknown == ["missing"]
    assert back.problems == ["one problem"]
    for name, samples in reply.samples.items():
        same(back.samples[name].t, samples.t)
        same(back.samples[name].values, samples.values)
        assert back.samples[name].timeline == samples.timeline
        assert back.samples[name].finalized_until == samples.finalized_until
        assert back.samples[name].covers_from == samples.covers_from


def test_shared_times_travel_once():
    t = np.arange(1000.0)
    reply = Reply({"a": Samples(t, t * 2, "x"), "b": Samples(t, t * 3, "x")})
    assert next(wire.messages(reply))["bytes"] == 3 * 8000


def test_an_empty_reply_is_one_message():
    (message,) = wire.messages(Reply(unknown=["x"]))
    assert assembled([message]).unknown == ["x"]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 300), st.integers(1, 5000))
def test_any_chunk_size_gives_the_same_reply(n, chunk):
    t = np.arange(float(n))
    back = assembled(wire.messages(Reply({"a": Samples(t, t.astype(np.float32), "x")}), chunk=chunk))
    np.testing.assert_array_equal(back.samples["a"].values, t)


def test_lost_and_misplaced_parts_are_noticed():
    sent = list(wire.messages(reply_of(100), chunk=100))
    with pytest.raises(ReplyInvalid, match="expected"):
        assembled(sent[:3] + sent[4:])
    with pytest.raises(ReplyInvalid, match="bytes of the reply came"):
        assembled([*sent[:-2], sent[-1]])
    with pytest.raises(ReplyInvalid, match="belong"):
        assembled([sent[0], sent[0], *sent[1:]])
    with pytest.raises(ReplyInvalid, match="ended"):
        assembled([sent[0]])
    with pytest.raises(ReplyInvalid, match="ended"):
        wire.Assembler().finish({"data": {}, "timeline": {}})
    with pytest.raises(ReplyInvalid, match="ended"):
        wire.Assembler().finish(None)


def test_a_reply_that_is_too_large_to_hold_is_refused_before_memory_is_taken():
    head = next(wire.messages(reply_of(100), chunk=100))
    with pytest.raises(ReplyInvalid, match="max_points"):
        wire.Assembler(limit=100).add(head)
    with pytest.raises(ReplyInvalid, match="add up"):
        wire.Assembler().add({**head, "bytes": 5})
    with pytest.raises(ReplyInvalid, match="version"):
        wire.Assembler().add({**head, "version": 2})


def test_a_caller_without_progress_is_told_when_it_asks_too_much():
    t = np.arange(wire.SINGLE_MESSAGE_BYTES / 8)
    with pytest.raises(ReplyInvalid, match="receive_progress"):
        wire.single_message(Reply({"a": Samples(t, t + 1, "x")}))
    small = Reply({"a": Samples(t[:10], t[:10] + 1, "x")})
    np.testing.assert_array_equal(wire.Assembler().finish(wire.single_message(small)).samples["a"].values, t[:10] + 1)


@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_feed_events_travel(serializer):
    event = wire.encode_event("life-1", 7, [1.0, 2.0], {"x": [1.5, np.nan], "s": ["a", "b"], "c": np.ones((2, 4))})
    back = wire.FeedEvent.parse(carried(serializer, event))
    assert (back.epoch, back.sequence) == ("life-1", 7)
    np.testing.assert_array_equal(back.t, [1.0, 2.0])
    np.testing.assert_array_equal(back.data["x"], [1.5, np.nan])
    assert back.data["s"].tolist() == ["a", "b"]
    assert back.data["c"].shape == (2, 4)


@pytest.mark.parametrize("bad", [None, {}, {"epoch": "e", "sequence": 0, "t": wire.encode_array([1.0]), "data": []}])
def test_what_is_no_event_is_refused(bad):
    with pytest.raises(ReplyInvalid, match="feed event"):
        wire.FeedEvent.parse(bad)


def test_an_event_of_unequal_lengths_is_refused():
    with pytest.raises(ReplyInvalid, match="as many"):
        wire.FeedEvent.parse(wire.encode_event("e", 0, [1.0], {"x": [1.0, 2.0]}))


@settings(max_examples=100, deadline=None)
@given(
    st.floats(0, 4e9),
    st.floats(1e-6, 1e4),
    st.sampled_from([0.0, 1e-9, 1e-6, 1e-3, 0.5]),
    st.integers(0, 2**32),
    st.integers(64, 300),
)
def test_times_come_out_as_the_very_floats_that_went_in(first, spacing, jitter, seed, n):
    """Bit for bit, however regular they are: live and archived samples are joined by them."""
    noise = np.random.default_rng(seed).normal(size=n)
    t = np.sort(first + spacing * (np.arange(n) + jitter * noise))
    back = assembled(wire.messages(Reply({"a": Samples(t, np.zeros(n), "x")})))
    assert back.samples["a"].t.tobytes() == t.tobytes()


def test_regular_times_travel_small_and_irregular_ones_as_they_are():
    regular = 1.7e9 + np.arange(1000) / 100
    head = next(wire.messages(Reply({"a": Samples(regular, regular + 1, "x")}), chunk=100))
    assert [column["bytes"] for column in head["columns"]] == [999, 8000]
    odd = np.cumsum(10.0 ** np.arange(-150, 150))
    assert "steps" not in next(wire.messages(Reply({"a": Samples(odd, odd, "x")})))["columns"][0]
    before_1970 = np.arange(-100.0, 0.0)
    back = assembled(wire.messages(Reply({"a": Samples(before_1970, before_1970, "x")})))
    np.testing.assert_array_equal(back.samples["a"].t, before_1970)


@pytest.mark.parametrize(
    "change",
    [{"steps": {}}, {"steps": {"dtype": "<f8", "first": 0, "mean": 1}}, {"shape": []}, {"dtype": "<f4"}, {"steps": 5},
     {"shape": [3]}],
)  # fmt: skip
def test_steps_that_are_not_of_times_are_refused(change):
    t = np.arange(100.0)
    (message,) = wire.messages(Reply({"a": Samples(t, t + 1, "x")}))
    message["columns"][0] |= change
    with pytest.raises(ReplyInvalid):
        assembled([message])
