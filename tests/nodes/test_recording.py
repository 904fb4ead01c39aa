"""Series on a real network: recorded, served again, and joined with what is live."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sisockdaq.nodes.file_writer import FileWriter
from sisockdaq.nodes.hdf5_archive import Hdf5Archive
from sisockdaq.nodes.ocs_feed import OcsFeed

from sisockdaq.base import DataNodeServer
from sisockdaq.errors import ConfigurationError, SisockdaqError
from sisockdaq.nexus.archive import Archive
from sisockdaq.nexus.index import Index
from sisockdaq.testing import wait_until
from sisockdaq.testing.network import Network, RunningNode
from tests.ocs import fake_data_agent


class Source(DataNodeServer):
    """A node whose samples a test makes."""

    class Options(DataNodeServer.Options):
        keep: float = 36000.0

    def setup(self) -> None:
        keep = self.options.keep
        for name in ("a", "b"):
            self.series(name, units="V", description=f"Voltage {name}", timeline="pair", keep=keep)
        self.series("state", type="string", keep=keep)
        self.series("shutter", type="bool", keep=keep)
        self.series("curve", type="array", shape=(4,), dtype="<f4", axes=[{"axis": "q", "unit": "1/nm"}], keep=keep)
        self.series("unwanted", keep=keep)

    def feed(self, first: int, stop: int) -> None:
        """Append rows `first` … `stop`, in the reactor's thread."""
        for i in range(first, stop):
            t = row_time(i)
            self.store.timelines["pair"].append(t, {"a": float(i), "b": -float(i)})
            self.store.timelines["state"].append(t, {"state": f"état {i}" if i % 3 else None})
            self.store.timelines["shutter"].append(t, {"shutter": i % 2 == 0})
            self.store.timelines["curve"].append(t, {"curve": np.arange(4) + i})
            self.store.timelines["unwanted"].append(t, {"unwanted": i})


START = time.time() - 3000.0


def row_time(i: int) -> float:
    return START + i * 0.1


RECORD = ["source::[abcs]*"]


def start_writer(network: Network, folder: Path, **options: Any) -> RunningNode:
    chosen = {"record": RECORD, "flush_interval": 0.05, **options}
    return network.start(FileWriter, directory=str(folder), **chosen)


def recorded(writer: RunningNode) -> int:
    return int(writer.node.recorder.recording.samples)


def start_archive(network: Network, folder: Path) -> RunningNode:
    return network.start(Hdf5Archive, directory=str(folder), growing_interval=0.05, scan_interval=3600)


def feed(source: RunningNode, first: int, stop: int) -> None:
    source.call(source.node.feed, first, stop)


def check(network: Network, rows: range, *, fresh: bool = True) -> None:
    """The client sees each of those rows once, from wherever."""
    names = [f"source::{name}" for name in ("a", "b", "state", "shutter", "curve")]
    data = network.client.get(*names, start=START - 100)
    times = [row_time(i) for i in rows]
    for name in names:
        np.testing.assert_array_equal(data[name].t, times, err_msg=name)
    np.testing.assert_array_equal(data["source::a"].values, [float(i) for i in rows])
    np.testing.assert_array_equal(data["source::b"].values, [-float(i) for i in rows])
    assert data["source::state"].values.tolist() == [f"état {i}" if i % 3 else None for i in rows]
    assert data["source::shutter"].values.tolist() == [i % 2 == 0 for i in rows]
    np.testing.assert_array_equal(data["source::curve"].values, [np.arange(4) + i for i in rows])


def test_series_are_recorded_and_joined_with_what_is_live(network: Network, tmp_path: Path) -> None:
    source = network.start(Source)
    feed(source, 0, 50)
    writer = start_writer(network, tmp_path)
    wait_until(lambda: recorded(writer) == 50 * 5, 10, "what the cache held")
    feed(source, 50, 120)
    wait_until(lambda: recorded(writer) == 120 * 5, 10, "what came by feed")
    archive = start_archive(network, tmp_path)
    wait_until(lambda: archive.node.archive.status()["files_growing"] == 1, 10, "the growing file")
    reply = archive.node.archive.get(["source::a", "source::unwanted"], START, START + 1000)
    assert reply.unknown == ["source::unwanted"]
    np.testing.assert_array_equal(reply.samples["source::a"].t, [row_time(i) for i in range(120)])
    assert reply.samples["source::a"].finalized_until == row_time(119)
    check(network, range(120))
    network.stop(source)
    network.wait_gone("source")
    again = network.start(Source)
    feed(again, 120, 200)
    wait_until(lambda: recorded(writer) == 200 * 5, 10, "the node that came back")
    check(network, range(200))
    status = writer.node.recorder.status()
    assert status["samples_lost"] == 0
    network.stop(writer)
    wait_until(lambda: archive.node.archive.status()["files_whole"] >= 1, 10, "the finished file")
    network.stop(again)
    network.wait_gone("source")
    check(network, range(200))


def test_a_writer_and_a_router_that_were_away_miss_nothing(
    private_network: Callable[..., Network], tmp_path: Path
) -> None:
    network = private_network(())
    source = network.start(Source)
    writer = start_writer(network, tmp_path)
    feed(source, 0, 20)
    wait_until(lambda: recorded(writer) == 20 * 5, 10, "the first samples")
    network.stop(writer)
    feed(source, 20, 40)
    writer = start_writer(network, tmp_path)
    wait_until(lambda: recorded(writer) == 20 * 5, 10, "what came while the writer was away")
    network.router.kill()
    feed(source, 40, 60)
    network.restart_router()
    wait_until(lambda: recorded(writer) == 40 * 5, 20, "what came while the router was away")
    wait_until(lambda: source.listed and writer.listed, 20, "the nodes to be listed")
    feed(source, 60, 80)
    wait_until(lambda: recorded(writer) == 60 * 5, 10, "what comes now")
    status = writer.node.recorder.status()
    assert (status["samples_lost"], status["recording_gaps"]) == (0, 0)
    network.stop(writer)
    archive = Archive(tmp_path, Index(None))
    archive.scan()
    np.testing.assert_array_equal(
        archive.get(["source::a"], 1.0, time.time()).samples["source::a"].t, [row_time(i) for i in range(80)]
    )
    archive.close()


def test_what_a_writer_has_to_say(network: Network, tmp_path: Path) -> None:
    source = network.start(Source, keep=10.0)
    feed(source, 0, 10)
    writer = start_writer(network, tmp_path, record=["source::a", "source::state"], recording={"file_length": 1})
    assert network.wait_for("file_writer::samples_recorded")
    wait_until(lambda: network.wait_for("file_writer::samples_recorded")[-1] == 20, 10, "the number")
    assert network.wait_for("file_writer::recording_fields")[-1] == 2
    assert network.wait_for("file_writer::recording_problem")[-1] == ""
    second = int(time.time())
    wait_until(lambda: int(time.time()) > second, 2, "the end of the file's second")
    feed(source, 10, 12)
    first = network.wait_for("file_writer::last_series_file")[0]
    assert first.startswith(str(tmp_path / "series"))
    assert first.endswith("Z.h5")
    assert network.wait_for("file_writer::samples")[0] == 20
    with pytest.raises(ConfigurationError, match="only records series"):
        network.call("control.file_writer.start", user="control", acquisition="run")
    # What its cache has let go is said.
    network.stop(writer)
    feed(source, 12, 1000)
    writer = start_writer(network, tmp_path, record=["source::a"])
    wait_until(lambda: writer.node.recorder.gaps == 1, 10, "the gap")
    assert "source::a: samples from" in writer.node.recorder.gap


def test_a_recorder_beside_a_writer_of_images_is_in_nobodys_way(network: Network, tmp_path: Path) -> None:
    start_writer(network, tmp_path)
    with pytest.raises(SisockdaqError, match="no acquisition"):
        network.client.ledger()
    network.start(FileWriter, name="images", directory=str(tmp_path), frames="nobody")
    with pytest.raises(SisockdaqError) as refused:  # it is asked, and nobody gives it images
        network.client.acquire("run", frames=1)
    assert "which writer" not in str(refused.value)
    assert "only records series" not in str(refused.value)


def test_a_queue_that_is_full_leaves_samples_to_the_nodes_cache(network: Network, tmp_path: Path) -> None:
    source = network.start(Source)
    writer = start_writer(network, tmp_path, record=["source::a"], recording={"memory": 1 << 16}, flush_interval=0.5)
    wait_until(lambda: writer.node.recorder.fields == 1, 10, "the field")
    for first in range(0, 8000, 500):
        feed(source, first, first + 500)
    wait_until(lambda: recorded(writer) == 8000, 30, "all samples")
    assert writer.node.recorder.status()["samples_lost"] == 0


def test_an_older_node_without_a_feed_is_asked(network: Network, tmp_path: Path) -> None:
    class Old(DataNodeServer):
        """As written for sisock."""

        def get_fields(self, start: float, end: float) -> Any:
            field = {"old": {"description": None, "timeline": "line", "type": "number", "units": "K"}}
            return field, {"line": {"interval": 1.0, "field": ["old"]}}

        def get_data(self, field: Any, start: float, end: float, min_stride: float | None = None) -> Any:
            t = [row_time(i) for i in range(20) if start <= row_time(i) < end]
            return {"data": {"old": t}, "timeline": {"line": {"t": t, "finalized_until": row_time(19)}}}

    network.start(Old)
    writer = start_writer(network, tmp_path, record=["old"])
    wait_until(lambda: recorded(writer) == 20, 10, "the samples")


def test_an_agent_of_ocs_is_recorded(network: Network, tmp_path: Path) -> None:
    feeding = network.start(OcsFeed, name="ocs", target="faker-1", feed="false_temperatures")
    writer = start_writer(network, tmp_path, record=["ocs::channel_*"])
    with fake_data_agent(network) as agent:
        agent.wait_for_messages(2)
        wait_until(lambda: recorded(writer) >= 3 * len(agent.samples("channel_00")[0]), 20, "the agent's samples")
        network.stop(writer)
        agent.wait_for_messages(len(agent.messages) + 1)
    start_archive(network, tmp_path)
    t, values = agent.samples("channel_00")
    network.wait_for("ocs::channel_00", samples=len(t))
    data = network.client.get("ocs::channel_00", start=-7200)["ocs::channel_00"]
    np.testing.assert_array_equal(data.t, t)
    np.testing.assert_array_equal(data.values, values)
    assert set(data.sources) == {"hdf5_archive", "ocs"}
    # And what the node no longer has is in the files.
    network.stop(feeding)
    network.wait_gone("ocs")
    data = network.client.get("ocs::channel_00", start=-7200)["ocs::channel_00"]
    np.testing.assert_array_equal(data.t, t[: len(data.t)])
    assert len(data.t) > 10
