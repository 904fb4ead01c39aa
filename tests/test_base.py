"""A node on a real network: what it serves, and that it stays."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import pytest
from pydantic import Field
from twisted.internet.defer import Deferred

from sisockdaq import schema
from sisockdaq.base import DataNodeServer, control
from sisockdaq.downsample import thin
from sisockdaq.errors import (
    AcquisitionRefused,
    ConfigurationError,
    DeadlineExceeded,
    IntervalError,
    NotAuthorized,
    ReplyInvalid,
    SisockdaqError,
)
from sisockdaq.schema import FieldList, Reply, Samples, Timeline
from sisockdaq.testing import Network, wait_until
from sisockdaq.wire import Assembler, FeedEvent


class Gauge(DataNodeServer):
    """Chamber pressure."""

    class Options(DataNodeServer.Options):
        start: float = Field(1.0, gt=0)
        samples: int = 0

    def setup(self) -> None:
        self.setups = getattr(self, "setups", 0) + 1
        self.pressure = self.series("pressure", units="mbar", keep=1e9)
        self.state_text = self.series("state", type="string", timeline="slow", keep=1e9)
        self.valve = self.series("valve", type="bool", timeline="slow", keep=1e9)
        self.image = self.series("image", type="array", shape=(2, 3), dtype="uint16", keep=1e9)
        if self.options.samples:
            t = self.options.start + np.arange(self.options.samples)
            self.pressure.append_block(t, np.sin(t))

    @control
    def set_level(self, level: float, unit: str = "mbar") -> dict[str, Any]:
        if level < 0:
            raise AcquisitionRefused("cannot set", reasons=["below zero"])
        return {"level": np.float64(level), "unit": unit}

    @control(name="slow", in_thread=True)
    def slow_procedure(self) -> str:
        return "done"

    @control
    def broken(self) -> None:
        raise ZeroDivisionError("by nothing")


def test_plain_calls_get_plain_lists(network: Network) -> None:
    node = network.start(Gauge).node
    node.pressure.append(1000.0, 2.5)
    node.pressure.append(1001.0, math.nan)
    node.state_text.append(1000.5, "open")
    node.valve.append(1000.5, np.bool_(True))
    node.image.append(1000.0, np.ones((2, 3)))
    fields, timelines = network.call("consumer.gauge.get_fields", 1, 0)
    assert fields["pressure"] == {"description": None, "timeline": "pressure", "type": "number", "units": "mbar"}
    assert fields["state"]["type"] == "string"
    assert "image" not in fields  # callers of old know no arrays
    assert set(timelines) == {"pressure", "slow"}
    reply = network.call("consumer.gauge.get_data", ["pressure", "state", "valve", "no_such"], 1, 0)
    assert reply["data"] == {"pressure": [2.5, None], "state": ["open"], "valve": [True], "no_such": []}
    assert reply["timeline"]["slow"]["t"] == [1000.5]
    # min_stride by position and by keyword
    for extra in ([None], []):
        assert network.call("consumer.gauge.get_data", ["state"], 1, 0, *extra)["data"] == {"state": ["open"]}
    assert network.call("consumer.gauge.get_data", ["state"], 1, 0, min_stride=5.0)["data"] == {"state": ["open"]}


def test_array_fields_are_in_the_schema(network: Network) -> None:
    node = network.start(Gauge).node
    node.image.append(1000.0, np.arange(6).reshape(2, 3))
    fields, _ = network.call("consumer.gauge.get_schema", 1, 0)
    assert fields["image"]["type"] == "array"
    assert list(fields["image"]["shape"]) == [2, 3]
    message = network.call("consumer.gauge.get_arrays", ["image"], 1, 0)
    image = Assembler().finish(message).samples["image"]
    assert image.values.tolist() == [[[0, 1, 2], [3, 4, 5]]]
    assert image.values.dtype == np.uint16


def test_large_replies_come_in_chunks(network: Network) -> None:
    network.start(Gauge, samples=1_000_000)
    assembler = Assembler()
    parts, last = network.caller().call_progressive(network.uri("consumer.gauge.get_arrays"), ["pressure"], 1, 0)
    assert len(parts) > 10
    for part in parts:
        assembler.add(part)
    samples = assembler.finish(last).samples["pressure"]
    assert len(samples) == 1_000_000
    np.testing.assert_array_equal(samples.values, np.sin(1.0 + np.arange(1_000_000)))


def test_a_plain_reply_beyond_the_allowance_is_false(network: Network) -> None:
    network.start(Gauge, samples=1_000_000)
    assert network.call("consumer.gauge.get_data", ["pressure"], 1, 0) is False
    network.call("consumer.gauge.ping")  # the node kept its connection


def test_a_caller_without_progress_is_told_that_it_is_too_much(network: Network) -> None:
    network.start(Gauge, samples=1_000_000)
    with pytest.raises(SisockdaqError, match="MiB"):
        network.call("consumer.gauge.get_arrays", ["pressure"], 1, 0)


def test_wrong_questions_get_clear_errors(network: Network) -> None:
    network.start(Gauge)
    with pytest.raises(IntervalError, match="reversed"):
        network.call("consumer.gauge.get_data", ["pressure"], 2000, 1000)
    with pytest.raises(SisockdaqError, match=r"gauge\.get_data: missing a required argument"):
        network.call("consumer.gauge.get_data", ["pressure"])


def test_appended_samples_are_fed_in_sequence(network: Network) -> None:
    node = network.start(Gauge).node
    events = network.caller().subscribe(network.uri("consumer.gauge.feed.pressure"))
    for i in range(50):
        node.pressure.append(1000.0 + i, float(i))
    read = lambda: [FeedEvent.parse(event) for event in events]  # noqa: E731
    wait_until(lambda: sum(len(event.t) for event in read()) == 50, what="all samples in the feed")
    parsed = read()
    assert [event.sequence for event in parsed] == list(range(len(parsed)))
    assert len({event.epoch for event in parsed}) == 1
    assert np.concatenate([event.data["pressure"] for event in parsed]).tolist() == [float(i) for i in range(50)]


def test_publish_feed_from_any_thread(network: Network) -> None:
    node = network.start(Gauge).node
    events = network.caller().subscribe(network.uri("consumer.gauge.feed.files"))
    node.publish_feed("files", {"t": [5.0], "data": {"name": ["a.h5"], "size": [3]}})
    event = FeedEvent.parse(wait_until(lambda: events and events[0], what="the event"))
    assert event.data["name"].tolist() == ["a.h5"]
    assert event.data["size"].tolist() == [3]


def test_control_procedures_are_for_the_role_control(network: Network) -> None:
    network.start(Gauge)
    assert network.call("control.gauge.set_level", 2, user="control") == {"level": 2.0, "unit": "mbar"}
    assert network.call("control.gauge.set_level", level=3, unit="Pa", user="control")["unit"] == "Pa"
    assert network.call("control.gauge.slow", user="control") == "done"
    with pytest.raises(NotAuthorized):
        network.call("control.gauge.set_level", 2, user="consumer")
    with pytest.raises(AcquisitionRefused) as refused:
        network.call("control.gauge.set_level", -1, user="control")
    assert refused.value.reasons == ["below zero"]
    with pytest.raises(SisockdaqError, match=r"gauge\.broken failed: ZeroDivisionError: by nothing"):
        network.call("control.gauge.broken", user="control")


class Album(DataNodeServer):
    """Offers procedures of its own."""

    def setup(self) -> None:
        self.register_procedure("titles", lambda n, upper=False: ["TITLE" if upper else "title"] * n)
        self.register_procedure("picture", self.picture, in_thread=True)

    def picture(self, side: int) -> Reply:
        image = np.arange(side * side, dtype=np.uint16).reshape(1, side, side)
        return Reply({"image": Samples(np.array([5.0]), image, "album")})


def test_a_node_s_own_procedures_are_for_every_consumer(network: Network) -> None:
    network.start(Album)
    assert network.call("consumer.album.titles", 2, upper=True) == ["TITLE", "TITLE"]
    with pytest.raises(SisockdaqError, match=r"album\.titles: missing a required argument: 'n'"):
        network.call("consumer.album.titles")
    with pytest.raises(ReplyInvalid, match="more than one message may hold"):
        network.call("consumer.album.titles", 2_000_000)
    assembler = Assembler()
    parts, last = network.caller().call_progressive(network.uri("consumer.album.picture"), 1500)
    for part in parts:
        assembler.add(part)
    image = assembler.finish(last).samples["image"].values[0]
    np.testing.assert_array_equal(image, np.arange(1500 * 1500, dtype=np.uint16).reshape(1500, 1500))


def test_a_wrong_option_is_named(network: Network) -> None:
    with pytest.raises(ConfigurationError) as refused:
        network.start(Gauge, start=-1, speed=3)
    assert len(refused.value.problems) == 2
    assert "gauge: start: Input should be greater than 0" in str(refused.value)


class BrokenSetup(DataNodeServer):
    def setup(self) -> None:
        raise ConfigurationError("no such device /dev/nothing")


def test_an_error_in_setup_is_the_reason_of_the_failed_start(network: Network) -> None:
    with pytest.raises(ConfigurationError, match="/dev/nothing"):
        network.start(BrokenSetup)


class OldStyle(DataNodeServer):
    """A subclass as in sisock: own answers, numpy inside, no super().__init__."""

    name = "old_style"
    description = "of old"

    def __init__(self, config: Any) -> None:
        from autobahn.twisted.wamp import ApplicationSession

        ApplicationSession.__init__(self, config)
        self.joined = 0

    def after_onJoin(self, details: Any) -> None:  # noqa: N802
        self.joined += 1

    def get_fields(self, start: float, end: float) -> Any:
        return {"x": {"description": None, "timeline": "line", "type": "number", "units": None}}, {
            "line": {"interval": np.float32(0.5), "field": ["x"]}
        }

    def get_data(self, field: Any, start: float, end: float) -> Any:  # no min_stride
        t = np.arange(3.0)
        return {"data": {"x": t * math.nan}, "timeline": {"line": {"t": t, "finalized_until": np.float64(2.0)}}}


def test_a_sisock_subclass_runs(network: Network) -> None:
    running = network.start(OldStyle)
    assert running.node.joined == 1
    fields, timelines = network.call("consumer.old_style.get_fields", 1, 0)
    assert timelines == {"line": {"interval": 0.5, "field": ["x"]}}
    assert set(fields) == {"x"}
    reply = network.call("consumer.old_style.get_data", ["x"], 1, 0)
    assert reply == {
        "data": {"x": [None] * 3},
        "timeline": {"line": {"t": [0.0, 1.0, 2.0], "finalized_until": 2.0}},
    }
    message = network.call("consumer.old_style.get_arrays", ["x"], 1, 0)
    assert Assembler().finish(message).samples["x"].t.tolist() == [0.0, 1.0, 2.0]


class Blocking(DataNodeServer):
    deadline = 1.0

    def setup(self) -> None:
        import threading

        self.release = threading.Event()
        self.asked: list[Any] = []

    def _get_fields_blocking(self, start: float, end: float) -> Any:
        return {}, {}

    def _get_data_blocking(self, field: Any, start: float, end: float, min_stride: float | None = None) -> Any:
        self.asked.append((start, end))
        if field == ["slow"]:
            self.release.wait(10)
        return {"data": {name: [] for name in field}, "timeline": {}}


def test_blocking_twins_run_in_threads_under_a_deadline(network: Network) -> None:
    node = network.start(Blocking).node
    network.call("consumer.blocking.get_data", ["x"], -60, 0)
    start, end = node.asked[0]
    assert start == pytest.approx(time.time() - 60, abs=10)
    assert end == pytest.approx(start + 60, abs=1)
    with pytest.raises(DeadlineExceeded, match="longer than 1 s"):
        network.call("consumer.blocking.get_data", ["slow"], -60, 0)
    assert network.call("consumer.blocking.get_fields", 1, 0) == [{}, {}]  # not blocked meanwhile
    node.release.set()


class Recorded(DataNodeServer):
    """Numbers and images from somewhere; answers only the questions with typed arrays."""

    def _get_schema_blocking(self, start: float, end: float) -> FieldList:
        fields = {
            "height": schema.Field(timeline="t", type="number", units="m"),
            "image": schema.Field(timeline="t", type="array", shape=(2, 2), dtype="<f8"),
        }
        return FieldList(fields, {"t": Timeline(interval=1.0, fields=tuple(fields))})

    def _get_samples_blocking(
        self, fields: list[str], start: float, end: float, max_points: int | None, min_stride: float | None
    ) -> Reply:
        t = np.arange(np.ceil(start), end)
        known = {"height": Samples(t, 2 * t, "t")} if "height" in fields else {}
        reply = Reply({name: thin(samples, max_points, min_stride) for name, samples in known.items()})
        reply.unknown.extend(name for name in fields if name not in known)
        return reply


def test_the_plain_answers_follow_from_those_with_typed_arrays(network: Network) -> None:
    network.start(Recorded, name="recorded")
    caller = network.caller()
    fields, timelines = caller.call(network.uri("consumer.recorded.get_fields"), 1, 0)
    assert set(fields) == {"height"}
    assert timelines == {"t": {"interval": 1.0, "field": ["height"]}}
    reply = caller.call(network.uri("consumer.recorded.get_data"), ["height", "width"], 100, 104, 2)
    t = reply["timeline"]["t"]["t"]
    assert len(t) == 2
    assert t[1] - t[0] >= 2
    assert reply["data"]["height"] == [2 * time for time in t]
    assert reply["data"]["width"] == []
    samples = network.client.get("recorded::height", start=100, end=103)["recorded::height"]
    assert samples.values.tolist() == [200, 202, 204]


def test_a_node_that_is_known_by_another_secret_says_so(network: Network) -> None:
    from sisockdaq.errors import AuthenticationFailed
    from sisockdaq.session import Credentials
    from sisockdaq.testing import Caller

    with pytest.raises(AuthenticationFailed, match=r"'camera'.*signature is invalid"):
        Caller(network.endpoint, Credentials("camera", "wrong"))


class SlowToOpen(DataNodeServer):
    """Opens its device late in its setup, as a node does that compiles before."""

    def setup(self) -> Deferred[None]:
        self.open = False
        self.opening: Deferred[None] = Deferred()
        return self.opening.addCallback(self.begin)

    def begin(self, _: None) -> None:
        self.open = True

    def teardown(self) -> None:
        self.open = False


def test_what_setup_opens_after_the_teardown_is_let_go_again(network: Network) -> None:
    started = network.start(SlowToOpen, wait=False)
    wait_until(lambda: hasattr(started.node, "opening"), 15, "the setup to begin")
    network.stop(started)
    started.call(started.node.opening.callback, None)
    assert started.node._core().ready
    assert not started.node.open
