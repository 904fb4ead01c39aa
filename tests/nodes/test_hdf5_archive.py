"""The archive as callers see it, beside a writer that is at work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sisockdaq.nodes.hdf5_archive import Hdf5Archive

from sisockdaq.errors import FieldUnknown
from sisockdaq.testing.network import Network
from tests.nexus import data
from tests.nexus.rig import wait_for
from tests.nexus.test_archive import T, begin, whole, write


def test_old_callers_get_plain_numbers_and_our_client_everything(network: Network, tmp_path: Path) -> None:
    whole(tmp_path, "run_0001", 25)
    network.start(Hdf5Archive, directory=str(tmp_path))
    fields, timelines = network.call("consumer.hdf5_archive.get_fields", 1, 0)
    assert fields["integrator::total"]["units"] == "counts"
    assert "integrator::curve" not in fields
    assert "integrator::total" in timelines["integrator::frame"]["field"]
    reply = network.call("consumer.hdf5_archive.get_data", ["integrator::total"], T(2), T(5))
    line = reply["timeline"]["integrator::frame"]
    assert line["t"] == [T(2), T(3), T(4)]
    assert line["finalized_until"] == T(24)
    assert reply["data"]["integrator::total"] == [data.results(i)[2 * data.BINS] for i in (2, 3, 4)]
    curve = network.client.get("integrator::curve", start=1)["integrator::curve"]
    np.testing.assert_array_equal(curve.values, [data.results(i)[: data.BINS] for i in range(25)])
    image = network.client.image("receiver::image", run="run_0001", frame=17)
    np.testing.assert_array_equal(image.values, data.image(17))
    assert network.client.acquisitions()[-1]["ledger"] == {"frames_expected": 25}
    with pytest.raises(FieldUnknown, match="no frame 99"):
        network.client.image("receiver::image", run="run_0001", frame=99)


def test_new_files_are_seen_by_watching_and_growing_ones_followed(network: Network, tmp_path: Path) -> None:
    running = network.start(Hdf5Archive, directory=str(tmp_path), scan_interval=3600, growing_interval=0.05)
    files = begin(tmp_path / "new" / "folder", "run")
    write(files, 0, 3)
    files.commit(0.0)
    archive = running.node.archive

    def rows() -> int:
        return len(archive.get(["receiver::sum"], T(0), T(100)).samples["receiver::sum"])

    wait_for(lambda: rows() == 3, "the new file")
    assert archive.status()["files_growing"] == 1
    write(files, 3, 14)
    files.commit(0.0)
    wait_for(lambda: rows() == 14, "what was added, and the second file")
    files.finish()
    wait_for(lambda: archive.status()["files_growing"] == 0, "the end of the file")
    assert network.wait_for("hdf5_archive::files_whole")


def test_without_a_watch_scanning_finds_everything(network: Network, tmp_path: Path) -> None:
    running = network.start(
        Hdf5Archive, directory=str(tmp_path), watch=False, scan_interval=0.05, growing_interval=0.05
    )
    whole(tmp_path, "run", 12)
    wait_for(lambda: running.node.archive.status()["files_whole"] == 2, "the scan")
    (tmp_path / "bad_data_000001.h5").write_bytes(b"x")
    wait_for(lambda: running.node.archive.status()["files_broken"] == 1, "the broken file")
