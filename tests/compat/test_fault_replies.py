"""Faults of replies that the existing implementation has, each with the test that shows that it is not here.

| Measured there | Shown here by |
|---|---|
| a reply over 1 MiB never arrives, and its error neither | `test_a_large_reply_is_data_or_false_and_everybody_stays` |
| over 16 MiB the router closes the node's connection for good | likewise, and `tests/test_base.py` for typed callers |
| numpy scalars and arrays fail in every serializer | `test_numpy_inside_a_reply_arrives_over_each_serializer` |
| NaN becomes invalid JSON | likewise; `tests/test_schema.py::test_the_plain_reply_is_strict_json_with_none_for_nan` |
| strings are typed "number" | `test_strings_are_typed_as_strings` |
| the live cache is shared between instances | `test_two_nodes_of_a_class_share_nothing` |
| it costs O(cache) for each message and each query | `test_cost_of_the_cache_by_its_size`; in figures, \
`tests/test_series.py::test_the_cost_does_not_grow_with_the_cache` |

The router, its limits and the callers are those of an old network: a caller drops its connection at a message over
1 MiB, as everything does that runs under autobahn's ApplicationRunner.
"""

from __future__ import annotations

import math
import statistics
import time
from typing import Any

import numpy as np
import pytest
from autobahn.twisted.websocket import WampWebSocketClientFactory
from autobahn.wamp.serializer import CBORSerializer, JsonSerializer, MsgPackSerializer
from autobahn.wamp.types import ComponentConfig

from sisockdaq._wamp.link import Endpoint, LinkedSession, _client_endpoint, call_within, the_reactor
from sisockdaq._wamp.reactor import in_reactor
from sisockdaq.base import DataNodeServer
from sisockdaq.errors import ReplyInvalid
from sisockdaq.series import SeriesStore
from sisockdaq.testing import Network, wait_until

RUNNER_LIMIT = 1048576
"""Largest message of autobahn's ApplicationRunner [bytes]."""

MAX_POINTS = (10, 1_000, 15_000, 20_000, 26_000, 32_000, 58_000, 100_000, 1_000_000)
"""Sizes on both sides of 1 MiB as JSON and as CBOR, and of 16 MiB."""


class OldCaller:
    """A consumer with the limits of ApplicationRunner."""

    def __init__(self, network: Network, serializer: Any) -> None:
        self._network = network
        self.session = LinkedSession(ComponentConfig(network.endpoint.realm), network.credentials("consumer"))
        factory = WampWebSocketClientFactory(lambda: self.session, url=network.endpoint.url, serializers=[serializer])
        factory.setProtocolOptions(
            maxFramePayloadSize=RUNNER_LIMIT, maxMessagePayloadSize=RUNNER_LIMIT, failByDrop=True
        )
        over_tls = Endpoint(network.endpoint.url, certificate=network.endpoint.certificate)
        in_reactor(lambda: _client_endpoint(over_tls, the_reactor()).connect(factory))
        wait_until(self.session.is_attached, 15, "the login")

    def call(self, procedure: str, *args: Any) -> Any:
        where = self._network.uri(procedure)
        return in_reactor(call_within, self.session, 15.0, where, *args, deadline=16.0)

    def close(self) -> None:
        if self.session.is_attached():
            in_reactor(self.session.leave)


@pytest.fixture(params=[JsonSerializer, MsgPackSerializer, CBORSerializer], ids=["json", "msgpack", "cbor"])
def caller(request: pytest.FixtureRequest, network: Network) -> Any:
    made = OldCaller(network, request.param())
    yield made
    made.close()


class Wide(DataNodeServer):
    """Any number of the longest numbers that there are."""

    def setup(self) -> None:
        for size in MAX_POINTS:
            noise = -np.random.default_rng(1).uniform(1e-101, 1e-100, size)
            self.series(f"n{size}", timeline=f"l{size}", keep=1e12, feed=False).append_block(
                1_700_000_000.123456 + np.arange(size) / 1000, noise
            )
        names = self.series("names", type="string", keep=1e12, feed=False)
        names.append_block(1_700_000_000.0 + np.arange(2000), ["\N{GREEK SMALL LETTER MU}" * 300] * 2000)


def test_a_large_reply_is_data_or_false_and_everybody_stays(network: Network, caller: OldCaller) -> None:
    node = network.start(Wide)
    answered = {}
    for size in MAX_POINTS:
        reply = caller.call("consumer.wide.get_data", [f"n{size}"], 1, 0)
        assert reply is False or len(reply["data"][f"n{size}"]) == size
        answered[size] = reply is not False
    assert caller.call("consumer.wide.get_data", ["names"], 1, 0) is False
    # What fits is not refused, and what is refused is had in parts.
    assert [size for size, there in answered.items() if there] == [10, 1_000, 15_000, 20_000]
    half = caller.call("consumer.wide.get_data", ["n26000"], 1, 1_700_000_013.0)
    assert len(half["data"]["n26000"]) == 13_000 - 123
    assert caller.session.is_attached()
    assert node.listed


class Many(DataNodeServer):
    """More fields than a message of old can name."""

    def get_fields(self, start: float, end: float) -> Any:
        names = [f"field_{i}" for i in range(20_000)]
        entry = {"description": "One of very many.", "timeline": "l", "type": "number", "units": "K"}
        return dict.fromkeys(names, entry), {"l": {"interval": 1.0, "field": names}}


def test_a_listing_that_is_too_large_is_an_error_that_arrives(network: Network, caller: OldCaller) -> None:
    network.start(Many)
    with pytest.raises(ReplyInvalid, match="more than a plain caller can take"):
        caller.call("consumer.many.get_fields", 1, 0)
    assert caller.session.is_attached()


class Numpy(DataNodeServer):
    """A sisock subclass that answers with what numpy gives it."""

    def get_fields(self, start: float, end: float) -> Any:
        field = {"description": None, "timeline": "l", "type": "number", "units": None}
        return {"x": field}, {"l": {"interval": np.float32(0.5), "field": np.array(["x"])}}

    def get_data(self, field: Any, start: float, end: float, min_stride: Any = None) -> Any:
        values = {
            "f64": np.array([1.5, math.nan, math.inf]),
            "f32": [np.float32(0.5), np.float32(math.nan), np.float32(2)],
            "i": np.arange(3, dtype=np.uint64),
            "scalar": [np.int16(-1), np.uint8(2), np.int64(3)],
            "b": np.array([True, False, True]),
            "bs": [np.bool_(True), np.bool_(False), True],
            "s": np.array(["a", "é", ""]),
            "ss": [np.str_("a"), "b", None],
        }
        return {"data": values, "timeline": {"l": {"t": np.arange(3.0), "finalized_until": np.float64(2)}}}


def test_numpy_inside_a_reply_arrives_over_each_serializer(network: Network, caller: OldCaller) -> None:
    network.start(Numpy)
    assert caller.call("consumer.numpy.get_data", ["x"], 1, 0) == {
        "data": {
            "f64": [1.5, None, None],
            "f32": [0.5, None, 2.0],
            "i": [0, 1, 2],
            "scalar": [-1, 2, 3],
            "b": [True, False, True],
            "bs": [True, False, True],
            "s": ["a", "é", ""],
            "ss": ["a", "b", None],
        },
        "timeline": {"l": {"t": [0.0, 1.0, 2.0], "finalized_until": 2.0}},
    }
    fields, timelines = caller.call("consumer.numpy.get_fields", 1, 0)
    assert fields["x"]["type"] == "number"
    assert timelines["l"] == {"interval": 0.5, "field": ["x"]}


class Words(DataNodeServer):
    """A string, a number and a bool, appended by the test."""

    def setup(self) -> None:
        self.state_ = self.series("state", type="string", timeline="l")
        self.flag = self.series("flag", type="bool", timeline="l")
        self.number = self.series("number", timeline="l")


def test_strings_are_typed_as_strings(network: Network, caller: OldCaller) -> None:
    node = network.start(Words).node
    for series, value in ((node.state_, "open"), (node.flag, True), (node.number, 1.5)):
        series.append(1000.0, value)
    fields, _ = caller.call("consumer.words.get_fields", 1, 0)
    assert {name: entry["type"] for name, entry in fields.items()} == {
        "state": "string", "flag": "bool", "number": "number"
    }  # fmt: skip
    assert caller.call("consumer.words.get_data", ["state", "flag", "number"], 1, 0)["data"] == {
        "state": ["open"], "flag": [True], "number": [1.5]
    }  # fmt: skip


def test_two_nodes_of_a_class_share_nothing(network: Network) -> None:
    one, two = network.start(Words, name="one"), network.start(Words, name="two")
    one.node.number.append(1000.0, 1.0)
    assert network.call("consumer.one.get_data", ["number"], 1, 0)["data"] == {"number": [1.0]}
    assert network.call("consumer.two.get_data", ["number"], 1, 0)["data"] == {"number": []}
    assert two.node.store is not one.node.store


def test_cost_of_the_cache_by_its_size() -> None:
    """An append and a short query cost in a cache of 400,000 samples what they cost in one of 4,000."""

    def cost(size: int) -> tuple[float, float]:
        cached = SeriesStore().series("a", keep=1e9, max_samples=size)
        cached.append_block(np.arange(float(size)), np.zeros(size))
        appends, queries = [], []
        for i in range(500):
            begun = time.perf_counter()
            cached.append(float(size + i), 1.0)
            between = time.perf_counter()
            assert len(cached.query(size - 100.0, float(size))) == 100
            queries.append(time.perf_counter() - between)
            appends.append(between - begun)
        return statistics.median(appends), statistics.median(queries)

    small, large = cost(4_000), cost(400_000)
    # Where it grows with the cache, this is a hundred times.
    assert large[0] < 20 * small[0]
    assert large[1] < 20 * small[1]
