"""The client against a real router, hub and nodes: ours, older ones, archives, and what goes wrong."""

from __future__ import annotations

import itertools
import math
import threading
import time
from typing import Any

import numpy as np
import pytest

from sisockdaq.base import DataNodeServer, control
from sisockdaq.client import Client
from sisockdaq.errors import (
    AcquisitionRefused,
    AuthenticationFailed,
    ConfigurationError,
    ConnectionFailed,
    DeadlineExceeded,
    FieldUnknown,
    IntervalError,
    NodeNotFound,
    NotAuthorized,
    SisockdaqError,
)
from sisockdaq.schema import Axis, Field, FieldList, Reply, Samples, Timeline
from sisockdaq.state import StateDirectory

T0 = 1_700_000_000.0


class Camera(DataNodeServer):
    """A node with every type of field."""

    def setup(self) -> None:
        self.total = self.series("total", units="counts", timeline="frame", keep=1e9, max_samples=20_000_000)
        self.flag = self.series("flag", type="bool", timeline="frame", keep=1e9)
        self.state_ = self.series("state", type="string", keep=1e9)
        axis = Axis(axis="q", unit="nm^-1", values=(1.0, 2.0, 3.0))
        self.curve = self.series("curve", type="array", shape=(3,), dtype="float32", axes=(axis,), keep=1e9)
        self.image = self.series("image", type="array", shape=(4, 5), dtype="uint16", keep=1e9, feed=False)
        self.level = self.series("level", timeline="slow", keep=1e9, feed=False)


class Old(DataNodeServer):
    """An older node: plain procedures only, with an allowance."""

    allowance = 100

    def onJoin(self, details: Any) -> Any:  # noqa: N802
        self.asked: list[tuple[float, float]] = []
        for name, answer in (("get_fields", self.old_fields), ("get_data", self.old_data)):
            self.register(answer, self.uri(f"consumer.{self.name}.{name}"))
        return self.call(self.uri("data_node.add"), self.name, "old", details.session).addCallback(self.mark)

    def mark(self, accepted: bool) -> None:
        self._core().listed = accepted

    def old_fields(self, start: float, end: float) -> Any:
        field = {"description": None, "timeline": "line", "type": "number", "units": "K"}
        return [{"x": field}, {"line": {"interval": 1.0, "field": ["x"]}}]

    def old_data(self, fields: list[str], start: float, end: float, min_stride: float | None = None) -> Any:
        self.asked.append((start, end))
        first, last = max(math.ceil(start), int(T0)), min(math.ceil(end), int(T0) + 1000)
        t = list(range(first, last))
        if len(t) > self.allowance:
            return False
        data = {name: [v - T0 for v in t] if name == "x" else [] for name in fields}
        return {"data": data, "timeline": {"line": {"t": t, "finalized_until": None}} if t else {}}


class Archive(DataNodeServer):
    """Holds the first 60 frames of the camera under their full names."""

    def get_schema(self, start: float, end: float) -> FieldList:
        field = Field(timeline="camera::frame", units="counts")
        return FieldList({"camera::total": field}, {"camera::frame": Timeline(fields=("camera::total",))})

    def get_samples(self, fields: Any, start: float, end: float, *limits: Any) -> Reply:
        t = T0 + np.arange(60) * 0.1
        t = t[(t >= start) & (t < end)] if start > 1 else t
        values = np.round((t - T0) * 10)
        return Reply({name: Samples(t, values, "camera::frame", float(T0 + 6)) for name in fields})


class Writer(DataNodeServer):
    """Counts to the frames it was asked for."""

    def setup(self) -> None:
        self.now: dict[str, Any] = {"state": "READY"}

    @control
    def start(self, acquisition: str, frames: int | None = None, meta: Any = None) -> dict[str, Any]:
        if acquisition == "bad/name":
            raise AcquisitionRefused("cannot start bad/name", reasons=["the name has a slash", "the disk is full"])
        self.now = {"state": "WRITING", "acquisition": acquisition, "frames": frames, "frames_written": 0}
        return self.now

    @control
    def status(self) -> dict[str, Any]:
        if self.now["state"] == "WRITING" and self.now["frames"]:
            self.now["frames_written"] += 1
            if self.now["frames_written"] >= self.now["frames"]:
                return self.stop()
        return self.now

    @control
    def stop(self) -> dict[str, Any]:
        n = self.now["frames_written"]
        counts = {"packets_expected": n, "packets_received": n, "frames_expected": n, "frames_complete": n}
        failed = self.now["acquisition"] == "doomed"
        state = {"acquisition_state": "FAILED", "message": "disk full"} if failed else {}
        ledger = {"acquisition": self.now["acquisition"], **counts}
        self.now |= {"state": "READY", "ledger": ledger, "files": ["a.h5"], **state}
        return self.now


@pytest.fixture
def client(network):
    with Client(state=network.state, deadline=10.0) as made:
        yield made


@pytest.fixture
def camera(network):
    return network.start(Camera)


def test_nodes_and_fields_are_tables(network, client, camera):
    nodes = client.nodes()
    assert "camera" in nodes.names
    row = next(row for row in nodes if row.name == "camera")
    assert row.description == "A node with every type of field."
    fields = client.fields("camera")
    assert set(fields.names) == {"total", "flag", "state", "curve", "image", "level"}
    assert next(row for row in fields if row.name == "image").shape == (4, 5)
    assert "4 × 5" in repr(fields)


def test_every_type_comes_as_it_was_appended(client, camera):
    node = camera.node
    node.total.append_block(T0 + np.arange(5), [1.0, math.nan, 3.0, 4.0, 5.0])
    node.flag.append_block(T0 + np.arange(5), [True, False, True, True, False])
    node.state_.append(T0 + 1, "wärm")
    node.curve.append(T0 + 2, [1, 2, 3])
    node.image.append(T0 + 2, np.arange(20).reshape(4, 5))
    names = [f"camera::{name}" for name in ("total", "flag", "state", "curve", "image")]
    data = client.get(*names, start=1)
    assert data.problems == []
    np.testing.assert_array_equal(data["camera::total"].values, [1, math.nan, 3, 4, 5])
    assert data["camera::total"].units == "counts"
    assert data["camera::flag"].values.tolist() == [True, False, True, True, False]
    assert data["camera::state"].values.tolist() == ["wärm"]
    assert data["camera::curve"].values.dtype == np.float32
    assert data["camera::curve"].axis.tolist() == [1, 2, 3]
    np.testing.assert_array_equal(data["camera::image"].values[0], np.arange(20).reshape(4, 5))
    np.testing.assert_array_equal(np.asarray(client.image("camera::image")), np.arange(20).reshape(4, 5))
    assert data["camera::total"].sources == ("camera",)


def test_ten_million_points_come_through(client, camera):
    n = 10_000_000
    camera.node.total.append_block(T0 + np.arange(n) / 1000, np.arange(n))
    found = client.get("camera::total", start=1)["camera::total"]
    assert len(found) == n
    assert found.values[-1] == n - 1
    assert found.t[-1] == T0 + (n - 1) / 1000
    assert client.nodes().names.count("camera") == 1
    few = client.get("camera::total", start=1, max_points=1000)["camera::total"]
    assert len(few) <= 1000
    assert few.values[[0, -1]].tolist() == [0, n - 1]


def test_a_span_from_file_to_live_has_every_sample_once(network, client, camera):
    network.start(Archive)
    camera.node.total.append_block(T0 + np.arange(40, 100) * 0.1, np.arange(40, 100))
    found = client.get("camera::total", start=T0 - 1, end=T0 + 100)["camera::total"]
    assert found.values.tolist() == list(range(100))
    assert found.sources == ("archive", "camera")
    assert found.finalized_until == pytest.approx(T0 + 9.9)
    assert found.units == "counts"


def test_an_archive_that_got_a_field_a_moment_ago_is_asked_too(network, client, camera, monkeypatch):
    monkeypatch.setattr("sisockdaq.client._asking.LACKING_AGE", 0.0)
    archive = network.start(Archive).node
    archive.get_schema = lambda start, end: FieldList()
    camera.node.total.append_block(T0 + np.arange(40, 100) * 0.1, np.arange(40, 100))
    assert len(client.get("camera::total", start=T0 - 1, end=T0 + 100)["camera::total"]) == 60
    del archive.get_schema
    assert len(client.get("camera::total", start=T0 - 1, end=T0 + 100)["camera::total"]) == 100


def test_what_left_the_live_cache_between_two_answers_is_asked_for_again(network, client, camera):
    """The archive answers at once, with 60 frames; the camera so late that it has let go of the first 80 by then."""
    archive = network.start(Archive).node
    asked = []

    def get_samples(fields: Any, start: float, end: float, *limits: Any) -> Reply:
        asked.append((start, end))
        t = T0 + np.arange(60 if len(asked) == 1 else 90) * 0.1
        t = t[(t >= start) & (t < end)]
        final = float(t[-1]) if len(t) else T0
        return Reply({name: Samples(t, np.round((t - T0) * 10), "camera::frame", final) for name in fields})

    archive.get_samples = get_samples
    camera.node.total.append_block(T0 + np.arange(80, 100) * 0.1, np.arange(80, 100))
    found = client.get("camera::total", start=T0 - 1, end=T0 + 100)["camera::total"]
    assert found.values.tolist() == list(range(100))
    assert asked[1:] == [(pytest.approx(T0 + 5.9), pytest.approx(T0 + 8.0))]


def test_an_archive_answers_for_a_node_that_is_gone(network, client):
    network.start(Archive)
    assert len(client.get("camera::total", start=1)["camera::total"]) == 60
    assert len(client.get("archive::camera::total", start=1)["archive::camera::total"]) == 60


def test_an_older_node_is_asked_plainly_and_in_halves(network, client):
    old = network.start(Old)
    found = client.get("old::x", start=T0 - 100, end=T0 + 1100)["old::x"]
    assert found.values.tolist() == list(range(1000))
    assert found.units == "K"
    assert len(old.node.asked) > 8
    assert client.fields("old").names == ["x"]


def test_one_node_that_fails_costs_only_its_own_field(network, client, camera):
    camera.node.total.append(T0, 1.0)

    class Broken(Archive):
        """Fails."""

        def get_samples(self, *args: Any) -> Any:
            raise RuntimeError("the disk is on fire")

    network.start(Broken)
    data = client.get("camera::total", start=1)
    assert data["camera::total"].values.tolist() == [1.0]
    assert "disk is on fire" in data.problems[0]
    assert "broken" in data.problems[0]
    with pytest.raises(Exception, match="disk is on fire"):
        client.get("broken::camera::total", start=1)


def test_mistakes_name_what_there_is(network, client, camera):
    with pytest.raises(FieldUnknown, match='no field "totl"; did you mean "total"'):
        client.get("camera::totl")
    with pytest.raises(NodeNotFound, match='no node "camra" on this network; did you mean "camera"'):
        client.get("camra::total")
    with pytest.raises(NodeNotFound, match="no node"):
        client.fields("nobody")
    with pytest.raises(FieldUnknown, match="node::field"):
        client.get("total")
    with pytest.raises(IntervalError, match="reversed"):
        client.get("camera::total", start=0, end=-60)
    with pytest.raises(ConfigurationError, match="max_points"):
        client.get("camera::total", max_points=0)
    with pytest.raises(FieldUnknown, match="not an image"):
        client.image("camera::total")
    with pytest.raises(FieldUnknown, match="no image yet"):
        client.image("camera::image")
    with pytest.raises(ConfigurationError, match="policy"):
        client.watch("camera::total", policy="some")  # type: ignore[arg-type]


def test_a_wrong_password_is_said_as_such(network):
    with pytest.raises(AuthenticationFailed, match="consumer"):
        Client(state=network.state, user="consumer", secret="wrong")
    url = network.endpoint.url
    with pytest.raises(AuthenticationFailed, match="nobody"):
        Client(url=url, user="nobody", secret="x", certificate=network.endpoint.certificate)


def test_a_client_of_another_machine_comes_over_tls(network, camera):
    camera.node.total.append_block(T0 + np.arange(300_000), np.arange(300_000))
    secret = network.state.secret("consumer")
    certificate = network.endpoint.certificate
    with Client(url=network.endpoint.url, user="consumer", secret=secret, certificate=certificate) as remote:
        found = remote.get("camera::total", start=1)["camera::total"]
        assert found.values.tolist() == list(range(300_000))


def test_a_router_that_is_not_there_is_said_at_once(tmp_path):
    state = StateDirectory(tmp_path / "state").make()
    state.secret("consumer")
    with pytest.raises(ConfigurationError, match="no site has run"):
        Client(state=state)
    state.write_endpoint({"url": "ws://127.0.0.1:9/ws", "realm": "r", "base_uri": "b", "socket": "", "certificate": ""})
    begun = time.monotonic()
    with pytest.raises(ConnectionFailed, match="cannot connect"):
        Client(state=state)
    assert time.monotonic() - begun < 5


def test_the_consumer_may_not_control(network, client, camera):
    reader = Client(url=network.endpoint.url, user="consumer", secret=network.state.secret("consumer"),
                    certificate=network.endpoint.certificate)  # fmt: skip
    with reader, pytest.raises(NotAuthorized):
        reader.call_control("camera", "start")


def test_a_call_to_a_frozen_node_ends(network):
    class Frozen(DataNodeServer):
        """Never answers."""

        def get_schema(self, start: float, end: float) -> Any:
            from twisted.internet.defer import Deferred

            return Deferred()

    network.start(Frozen)
    with Client(state=network.state, deadline=1.0) as client, pytest.raises(DeadlineExceeded, match="frozen"):
        client.fields("frozen")


def test_watching_gives_each_sample_once(client, camera):
    with client.watch("camera::total", timeout=10) as watch:
        camera.node.total.append(T0, 0.0)
        camera.node.total.append_block(T0 + np.arange(1, 50), np.arange(1, 50))
        got = list(itertools.islice(watch, 50))
    assert [sample.value for sample in got] == list(range(50))
    assert watch.gaps == []
    assert got[0].units == "counts"


def test_watching_a_curve_gives_its_axis(client, camera):
    with client.watch("camera::curve", timeout=10) as watch:
        camera.node.curve.append(T0, [5, 6, 7])
        sample = next(watch)
    assert sample.values.tolist() == [5, 6, 7]
    assert sample.axis.tolist() == [1, 2, 3]


def test_a_field_without_a_feed_is_asked_for(client, camera):
    with client.watch("camera::image", timeout=10) as watch:
        camera.node.image.append(T0, np.ones((4, 5)))
        assert next(watch).value.sum() == 20
        camera.node.image.append(T0 + 1, np.zeros((4, 5)))
        assert next(watch).value.sum() == 0


def test_what_was_missed_is_recovered_and_said(client, camera, monkeypatch):
    import sisockdaq.client._watch as module

    monkeypatch.setattr(module, "QUEUE", 2)
    with client.watch("camera::total", timeout=10) as watch:
        camera.node.total.append(T0, 0.0)
        first = next(watch)
        for i in range(1, 60):
            camera.node.total.append(T0 + i, float(i))
            camera.call(camera.node._core().feeds._flush, camera.node.total.timeline)
        client.wait_for("camera::total", 60)
        got = [first, *itertools.islice(watch, 59)]
    assert [sample.value for sample in got] == list(range(60))
    (gap,) = watch.gaps
    assert gap.complete
    assert gap.recovered > 0
    assert "nothing lost" in str(gap)
    assert "too slow" in str(gap)


def test_the_latest_passes_over_what_is_older(client, camera):
    with client.watch("camera::total", policy="latest", timeout=10) as watch:
        camera.node.total.append(T0, 0.0)
        next(watch)
        camera.node.total.append_block(T0 + np.arange(1, 100), np.arange(1, 100))
        sample = next(watch)
    assert sample.value == 99
    assert sample.skipped == 98


@pytest.mark.parametrize("ago", [0.5, 1e6], ids=["recent", "long ago"])
def test_the_latest_is_the_newest_however_prominent_others_are(client, camera, ago):
    values = np.zeros(100)
    values[50], values[-1] = 1e6, 1.0
    camera.node.level.append_block(time.time() - ago - np.arange(100)[::-1] / 100, values)
    with client.watch("camera::level", policy="latest", timeout=10) as watch:
        assert next(watch).value == 1.0


def test_a_watch_can_be_closed_from_another_thread(client, camera):
    watch = client.watch("camera::total")
    timer = threading.Timer(0.1, watch.close)
    timer.start()
    assert list(watch) == []
    with client.watch("camera::total", timeout=0.1) as brief, pytest.raises(DeadlineExceeded, match="no sample"):
        next(brief)


def test_an_acquisition_from_start_to_ledger(network, client):
    network.start(Writer, name="writer", wait=True)
    seen: list[Any] = []
    run = client.acquire("run_1", frames=3, writer="writer", wait=False)
    run.wait(10, on_status=seen.append)
    assert [status["frames_written"] for status in seen][-1] == 3
    assert run.ledger.frames_complete == 3
    assert run.files == ["a.h5"]
    assert client.ledger(run).balance() == []


def test_waiting_bears_a_writer_that_was_restarted(network, client):
    writer = network.start(Writer, name="writer").node
    run = client.acquire("run_5", frames=3, writer="writer", wait=False)
    under_way, writer.now = writer.now, {"state": "READY"}
    seen: list[dict[str, Any]] = []
    back = threading.Timer(0.3, lambda: setattr(writer, "now", under_way))
    back.start()
    run.wait(10, on_status=seen.append)
    assert seen[-1]["frames_written"] == 3
    client.acquire("run_6", frames=3, writer="writer", wait=False)
    assert run.status()["acquisition"] == "run_5"
    with pytest.raises(SisockdaqError, match="knows of run_6, not of run_4"):
        client.run("run_4", writer="writer").wait(5)


def test_an_open_ended_acquisition_is_stopped(network, client):
    network.start(Writer, name="writer")
    run = client.acquire("run_2", writer="writer")
    with pytest.raises(Exception, match="not closed yet"):
        _ = run.ledger
    assert run.stop().status()["state"] == "READY"


def test_a_refusal_gives_all_reasons(network, client):
    network.start(Writer, name="writer")
    with pytest.raises(AcquisitionRefused) as caught:
        client.acquire("bad/name", frames=1, writer="writer")
    assert caught.value.reasons == ["the name has a slash", "the disk is full"]
    with pytest.raises(ConfigurationError, match="0 frames"):
        client.acquire("x", frames=0, writer="writer")
    with pytest.raises(Exception, match="disk full"):
        client.acquire("doomed", frames=1, writer="writer")
    with pytest.raises(NodeNotFound, match="no control procedure"):
        client.call_control("writer", "dance")


def test_a_closed_client_says_so(network):
    client = Client(state=network.state)
    client.close()
    client.close()
    with pytest.raises(ConnectionFailed, match="closed"):
        client.nodes()


def test_the_client_outlives_the_router(private_network):
    network = private_network(nodes=("camera",))
    node = network.start(Camera)
    with Client(state=network.state, deadline=20) as client, client.watch("camera::total", timeout=30) as watch:
        node.node.total.append(T0, 0.0)
        assert next(watch).value == 0
        network.router.kill()
        for i in range(1, 5):
            node.node.total.append(T0 + i, float(i))
        network.restart_router()
        client.wait_for("camera::total", 5, deadline=30)
        node.node.total.append(T0 + 5, 5.0)
        assert [sample.value for sample in itertools.islice(watch, 5)] == [1, 2, 3, 4, 5]
        assert watch.gaps[0].complete


def test_the_only_writer_is_found_by_its_type(network, client):
    class FileWriterLike(Writer):
        """As the file writer."""

    FileWriterLike.__module__ = "sisockdaq.nodes.file_writer"
    with pytest.raises(NodeNotFound, match="no file writer"):
        client.acquire("run", frames=1)
    network.start(FileWriterLike, name="first")
    assert client.acquire("run", frames=1).writer == "first"
    network.start(FileWriterLike, name="second")
    with pytest.raises(ConfigurationError, match="first, second"):
        client.acquire("run", frames=1)
