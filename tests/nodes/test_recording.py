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

from sisockdaq.base import DataNodeServer
from sisockdaq.errors import ConfigurationError
from sisockdaq.testing import wait_until
from sisockdaq.testing.network import Network, RunningNode

NOW = 1_800_000_000.0
T = NOW - 5000.0
"""Before now, so that relative times work too, and far from any rounding."""


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
