"""A site that is looked at before anything is started."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from sisockdaq.cli import app

SITE = """\
site: looked_at
data: data
detector: {{model: jungfrau, modules: 1, mask: mask.npy}}
nodes:
  receiver: {{type: detector_receiver, udp: [{{port: {port}}}], receive_buffer: {buffer}}}
  writer: {{type: file_writer, directory: runs, checks: {{mask: {mask}}}}}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SISOCKDAQ_STATE", str(tmp_path / "state"))
    np.save(tmp_path / "mask.npy", np.zeros((512, 1024), bool))
    write(tmp_path)
    return tmp_path


def write(folder: Path, *, port: int = 0, buffer: int = 2**16, mask: str = "refuse") -> None:
    (folder / "site.yml").write_text(SITE.format(port=port, buffer=buffer, mask=mask))


def doctor(folder: Path) -> tuple[int, dict[str, Any]]:
    done = CliRunner().invoke(app(), ["doctor", str(folder), "--json"])
    return done.exit_code, json.loads(done.stdout)


def checks(found: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        (each["check"], each["severity"]) for each in found["findings"] if each["check"] not in ("space", "buffers")
    ]


def test_a_site_in_order_is_ready_and_nothing_is_made(folder: Path) -> None:
    status, found = doctor(folder)
    assert (status, found["site"], found["ok"], checks(found)) == (0, "looked_at", True, [])
    assert not (folder / "state").exists()
    assert not (folder / "data").exists()


@pytest.mark.parametrize(("severity", "status"), [("refuse", 1), ("warn", 0)])
def test_a_mask_of_another_shape_refuses_or_warns(folder: Path, severity: str, status: int) -> None:
    np.save(folder / "mask.npy", np.zeros((5, 5), bool))
    write(folder, mask=severity)
    ended, found = doctor(folder)
    assert (ended, checks(found)) == (status, [("mask", severity)])


def test_a_taken_port_and_a_file_for_a_folder_are_told_at_once(folder: Path) -> None:
    (folder / "data").mkdir()
    (folder / "data" / "runs").touch()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        write(folder, port=other.getsockname()[1])
        status, found = doctor(folder)
    assert status == 1
    assert checks(found) == [("ports", "refuse"), ("folder", "refuse")]


def test_a_mistake_in_the_file_is_a_finding(folder: Path) -> None:
    (folder / "site.yml").write_text("site: x\nnodes: {a: {type: nonsense}}\n")
    status, found = doctor(folder)
    assert (status, checks(found)) == (1, [("file", "refuse")])
    assert "line 2" in found["findings"][0]["text"]


@pytest.mark.parametrize(
    ("change", "reason", "severity"),
    [
        ({}, "", ""),
        ({"distance": 100.0}, "0.1 m if the number is in mm", "warn"),
        ({"poni2": -0.1}, "lies outside of the image", "warn"),
    ],
)
def test_a_geometry_that_is_hardly_meant_is_told(
    folder: Path, change: dict[str, float], reason: str, severity: str
) -> None:
    place = {"distance": 0.1, "poni1": 0.02, "poni2": 0.04, "wavelength": 1e-10, **change}
    text = (folder / "site.yml").read_text().replace("mask: mask.npy", f"geometry: {json.dumps(place)}")
    (folder / "site.yml").write_text(text)
    status, found = doctor(folder)
    assert status == 0
    told = [each for each in found["findings"] if each["check"] == "geometry"]
    assert [each["severity"] for each in told] == ([severity] if severity else [])
    assert all(reason in each["text"] for each in told)


def test_a_poni_of_other_pixels_is_told(folder: Path) -> None:
    poni = """poni_version: 2.1
Detector: Detector
Detector_config: {"pixel1": 172e-6, "pixel2": 172e-6, "max_shape": [512, 1024], "orientation": 3}
Distance: 0.1
Poni1: 0.04
Poni2: 0.08
Wavelength: 1e-10
"""
    (folder / "other.poni").write_text(poni)
    (folder / "site.yml").write_text(
        (folder / "site.yml").read_text().replace("mask: mask.npy", "geometry: other.poni")
    )
    _, found = doctor(folder)
    assert any("pixels of 172 × 172 µm, the detector's are 75 µm" in each["text"] for each in found["findings"])
