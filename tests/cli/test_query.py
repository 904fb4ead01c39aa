"""The reading commands against a real network, as a person and as a program use them."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from sisockdaq.cli import _reading, query
from sisockdaq.errors import ConfigurationError, FieldUnknown, NodeNotFound
from tests.command_line import run_command
from tests.test_client import T0, Camera, Writer


@pytest.fixture
def camera(network):
    node = network.start(Camera).node
    node.total.append_block(T0 + np.arange(30), np.arange(30) * 1.5)
    node.state_.append(T0, "[warm]")
    node.curve.append(T0, [1, 4, 2])
    node.image.append(T0, np.arange(20).reshape(4, 5))
    return node


@pytest.fixture
def command(network, camera, monkeypatch):
    monkeypatch.setenv("SISOCKDAQ_SITE", str(network.state.path))
    app = typer.Typer()
    query.add_commands(app)

    def call(*arguments: str) -> str:
        result = CliRunner().invoke(app, list(arguments))
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return str(result.stdout)

    return call


def test_nodes(command):
    lines = command("nodes").splitlines()
    assert lines[0].split() == ["node", "type", "uptime", "description"]
    assert any(line.startswith("camera") and "every type of field" in line for line in lines)
    rows = json.loads(command("nodes", "--json"))
    assert next(row for row in rows if row["name"] == "camera")["description"] == "A node with every type of field."


def test_fields(command):
    text = command("fields", "camera")
    assert "4 × 5" in text
    assert "counts" in text
    found = json.loads(command("fields", "camera", "--json"))["fields"]
    assert {row["name"] for row in found} == {"total", "flag", "state", "curve", "image", "level"}


def test_get_for_people_programs_and_tables(command):
    text = command("get", "camera::total", "--start", "1")
    assert "30 samples from camera" in text
    assert "10 earlier ones" in text
    assert "43.5" in text
    found = json.loads(command("get", "camera::total", "camera::curve", "--start", "1", "--json"))
    assert found["fields"]["camera::total"]["values"] == [i * 1.5 for i in range(30)]
    assert found["fields"]["camera::curve"]["values"] == [[1, 4, 2]]
    rows = list(csv.reader(io.StringIO(command("get", "camera::total", "camera::state", "--last", "all", "--csv"))))
    assert rows[0] == ["time", "camera::total [counts]", "camera::state"]
    assert rows[1] == [str(T0), "0.0", "[warm]"]
    assert rows[2][2] == ""
    assert len(rows) == 31


def test_a_span_and_a_number_of_points(command):
    found = json.loads(command("get", "camera::total", "--start", str(T0 + 5), "--end", str(T0 + 15), "--json"))
    assert found["fields"]["camera::total"]["t"][0] == T0 + 5
    assert len(found["fields"]["camera::total"]["t"]) == 10
    few = json.loads(command("get", "camera::total", "--last", "all", "--points", "5", "--json"))
    assert len(few["fields"]["camera::total"]["t"]) <= 5


def test_plots(command, camera):
    assert "camera::total [counts]" in command("plot", "camera::total", "--last", "all", "--width", "60")
    drawn = command("plot", "camera::curve", "--width", "60", "--height", "10").splitlines()
    assert drawn[-1].split() == ["1", "3"]
    assert "@" in command("plot", "camera::image", "--width", "60", "--log")
    with pytest.raises(ConfigurationError, match="text"):
        command("plot", "camera::state", "--last", "all")
    with pytest.raises(ConfigurationError, match="no samples in that span"):
        command("plot", "camera::flag")


def test_watch_ends_after_a_count(network, camera):
    process = subprocess.Popen(
        [sys.executable, "-m", "sisockdaq.cli", "watch", "camera::image", "--count", "1", "--json"],
        env={**os.environ, "SISOCKDAQ_SITE": str(network.state.path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert json.loads(out)["value"][0] == [0, 1, 2, 3, 4]


def test_acquire_and_ledger(network, command):
    network.start(Writer, name="file_writer")
    text = command("acquire", "run_1", "--frames", "3", "--writer", "file_writer", "--meta", "sample=LaB6")
    assert "a.h5" in text
    assert "3 complete" in text
    assert "balanced" in text
    found = json.loads(command("acquire", "run_2", "--frames", "2", "--writer", "file_writer", "--json"))
    assert found["ledger"]["frames_complete"] == 2
    assert found["balance"] == []
    with pytest.raises(ConfigurationError, match="fact"):
        command("acquire", "x", "--frames", "1", "--writer", "file_writer", "--meta", "nonsense")


def test_mistakes_are_errors_a_person_can_read(command):
    with pytest.raises(NodeNotFound, match="no node"):
        command("fields", "nobody")
    with pytest.raises(FieldUnknown, match="did you mean"):
        command("get", "camera::totl")
    with pytest.raises(ConfigurationError, match="two ways"):
        command("get", "camera::total", "--last", "1h", "--start", "1")


def test_a_mistake_shows_no_traceback(network):
    done = run_command("get", "nobody::x", "--site", str(network.state.path))
    assert done.returncode == 1
    assert 'no node "nobody"' in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_site_names_those_there_are(monkeypatch, tmp_path):
    monkeypatch.setenv("SISOCKDAQ_STATE", str(tmp_path))
    with pytest.raises(ConfigurationError, match="no site has run"):
        _reading.connect(None)
    for name in ("alpha", "beta"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "endpoint.json").write_text("{}")
    with pytest.raises(ConfigurationError, match="alpha, beta"):
        _reading.connect(None)
    with pytest.raises(ConfigurationError, match="gamma"):
        _reading.connect("gamma")


@pytest.mark.parametrize(
    ("text", "expected"), [("90s", 90), ("10m", 600), ("1h", 3600), ("2d", 172800), ("1.5", 1.5), ("1w", 604800)]
)
def test_durations(text: str, expected: float):
    assert _reading.seconds(text) == expected


@pytest.mark.parametrize("text", ["", "h", "1y", "-1h", "soon"])
def test_what_is_no_duration(text: str):
    with pytest.raises(ConfigurationError, match="duration"):
        _reading.seconds(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("now", 0.0), ("-1h", -3600.0), ("1700000000", 1.7e9), ("2023-11-14T22:13:20+00:00", 1.7e9)],
)
def test_moments(text: str, expected: Any):
    assert _reading.moment(text) == expected


def test_what_is_no_moment():
    with pytest.raises(ConfigurationError, match="not a time"):
        _reading.moment("tomorrow")
