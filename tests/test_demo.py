"""The whole house: ``demo --check`` with simulated and with recorded packets, and a site whose parts are killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401  (gives h5py the filter of the files)
import pytest

REPOSITORY = Path(__file__).parents[1]
SAMPLE = REPOSITORY.parent / "shared" / "data" / "eiger9m" / "frame29512.tar.xz"

pytestmark = pytest.mark.timeout(240)


def check(state: Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Run ``demo --check``; return its exit status, its last line, and what it said."""
    done = subprocess.run(
        [sys.executable, "-m", "sisockdaq.cli", "demo", "--check", *arguments],
        env={**os.environ, "SISOCKDAQ_STATE": str(state)},
        capture_output=True,
        text=True,
        check=False,
        timeout=220,
    )
    lines = done.stdout.splitlines()
    return done.returncode, json.loads(lines[-1]) if lines else {}, done.stderr


def test_every_packet_and_frame_is_accounted_for(tmp_path: Path) -> None:
    status, result, said = check(tmp_path, "--frames", "60")
    assert status == 0, said
    expected = {
        "packets_expected": 60 * 256,
        "packets_received": 60 * 256,
        "packets_lost": 0,
        "frames_expected": 60,
        "frames_complete": 60,
        "frames_partial": 0,
        "frames_dropped": 0,
        "frames_integrated": 60,
        "frames_written": 60,
        "frames_archived": 60,
    }
    assert {key: result[key] for key in expected} == expected
    assert result["frames_per_second"] == pytest.approx(100, rel=0.2)
    assert result["latency_ms_p50"] > 0
    with h5py.File(result["file"]) as master:
        assert sum(len(link) for link in master["entry/data"].values()) == 60
    private = [path for path in tmp_path.rglob("*") if path.name in ("secrets.json", "server_key.pem")]
    assert len(private) == 2
    assert {path.stat().st_mode & 0o777 for path in private} == {0o600}


def test_the_eiger_sample_comes_back_bit_for_bit(tmp_path: Path) -> None:
    if not SAMPLE.exists():
        pytest.skip(f"the recorded EIGER frame is not here: {SAMPLE}")
    status, result, said = check(tmp_path, "--replay", str(SAMPLE))
    assert status == 0, said
    assert result["packets_expected"] == result["packets_received"] == 72 * 128
    # From the sample's description.
    assert result["image_sum"] == 9792514662
    assert result["image_max"] == 1539720
    assert result["image_sha256"].startswith("5d0697728ee32bb8")
    assert result["images"] == [
        {key: result[key] for key in ("frame_number", "image_sum", "image_max", "image_sha256")}
    ]
    assert result["frame_number"] == 29512


def test_a_mistake_costs_nothing(tmp_path: Path) -> None:
    status, result, said = check(tmp_path, "--set", "nodes.integrator.unit=q_nm")
    assert status != 0
    assert result == {}
    assert 'did you mean "q_nm^-1"?' in said
    assert "Traceback" not in said
    assert not list(tmp_path.iterdir())
