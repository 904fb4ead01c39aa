"""A disk that is really full, where this may be tried: a small file system in memory, mounted by root."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sisockdaq.acquisition import Request
from sisockdaq.frames import Ledger
from sisockdaq.nexus.reader import DataFileReader, read_master
from tests.nexus import data
from tests.nexus.rig import finished, running, wait_for
from tests.nexus.test_engine import assert_whole

LEFT = 300_000
"""Bytes that stay free: enough for some hundred small frames."""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=80m", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("a file system can be mounted by root only; the injected error is tested elsewhere")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place: Path, left: int) -> Path:
    """Take all but `left` bytes of a file system."""
    free = os.statvfs(place)
    filler = place / "filler"
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize - left)
    return filler


def test_the_acquisition_fails_with_the_reason_and_the_next_one_works(small_disk: Path) -> None:
    with running(small_disk, images_per_file=10_000) as (sources, engine):
        sources.pause_at = 20
        engine.start(Request("run", 5000))
        wait_for(lambda: engine.status()["frames_written"] == 20, "20 frames")
        filler = fill(small_disk, LEFT)
        sources.resume.set()
        status = finished(engine)
        assert status["acquisition_state"] == "FAILED"
        assert status["message"].startswith("ERROR: no space left for run_data_000001.h5")
        assert Ledger.from_dict(status["ledger"]).balance() == []
        filler.unlink()
        sources.pause_at = None
        engine.start(Request("next", 25))
        assert finished(engine)["acquisition_state"] == "FINISHED"
    assert_whole(small_disk, "next", 25, images_per_file=10_000)
    with DataFileReader(small_disk / "run_data_000001.h5") as file:
        assert file.summary().rows >= status["frames_written"] >= 20
        for row in range(status["frames_written"]):
            np.testing.assert_array_equal(file.image(row), data.image(row))
    assert read_master(small_disk / "run_master.h5").acquisition == "run"
