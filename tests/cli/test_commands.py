"""The command line as a person meets it: help, new sites, mistakes told without a traceback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sisockdaq.cli.init import new_site
from sisockdaq.cli.up import prepared, site_parts
from sisockdaq.errors import ConfigurationError
from sisockdaq.site import load_site
from sisockdaq.supervisor import CONFIGURATION_ERROR
from tests.command_line import run_command


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SISOCKDAQ_STATE", str(tmp_path / "state"))


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run_command(*arguments)


def test_help_names_every_command() -> None:
    done = command("--help")
    assert done.returncode == 0
    for name in [
        "init",
        "up",
        "run",
        "nodes",
        "fields",
        "get",
        "watch",
        "plot",
        "acquire",
        "simulate",
        "replay",
        "ledger",
    ]:
        assert f" {name} " in done.stdout


def test_a_new_site_is_valid_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "my site"
    done = command("init", str(folder))
    assert done.returncode == 0, done.stderr
    site = load_site(folder, check=None)
    assert site.site == "my-site"
    assert list(site.nodes) == ["receiver", "integrator", "writer", "archive"]


def test_a_site_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "site.yml").write_text("site: mine\n")
    done = command("init", str(tmp_path), "--name", "other")
    assert done.returncode == CONFIGURATION_ERROR
    assert "is there already" in done.stderr
    assert (tmp_path / "site.yml").read_text() == "site: mine\n"


def test_a_bad_name_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is not a site"):
        new_site(tmp_path / "new", "9 lives")
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["up", "{site}", "--set", "router.prt=1"], 'site.yml, --set: router.prt: unknown key; did you mean "port"?'),
        (["up", "nowhere"], "nowhere"),
        (["run", "recever", "--site", "{site}"], 'did you mean "receiver"?'),
        (
            ["run", "integrator", "--site", "{site}", "--set", "nodes.integrator.unit=q_nm"],
            'nodes.integrator.unit: "q_nm" is not a unit; did you mean "q_nm^-1"?',
        ),
    ],
)
def test_a_mistake_is_told_without_a_traceback(tmp_path: Path, arguments: list[str], said: str) -> None:
    new_site(tmp_path, "test")
    done = command(*(argument.format(site=tmp_path) for argument in arguments))
    assert done.returncode == CONFIGURATION_ERROR
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_node_that_cannot_start_says_why_on_stderr(tmp_path: Path) -> None:
    new_site(tmp_path, "test")
    done = command("run", "integrator", "--site", str(tmp_path), "--set", "detector.mask=nowhere.npy")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"{tmp_path}/nowhere.npy: no such mask",
        "   → give its path relative to the site file, or leave the mask out",
    ]
    assert "Traceback" not in done.stdout


def test_a_taken_port_is_told_with_its_holder(tmp_path: Path) -> None:
    new_site(tmp_path, "test")
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        done = command("run", "router", "--site", str(tmp_path), "--set", f"router.port={port}")
    assert done.returncode == 1
    assert f"the router cannot listen on 127.0.0.1:{port}" in done.stderr
    assert f"process {os.getpid()}" in done.stderr


def test_a_site_runs_once_on_a_machine(tmp_path: Path) -> None:
    new_site(tmp_path, "test")
    site = load_site(tmp_path)
    with prepared(site):
        done = command("up", str(tmp_path))
    assert done.returncode == CONFIGURATION_ERROR
    assert "site test is running already" in done.stderr


def test_secrets_are_made_before_any_part_runs(tmp_path: Path) -> None:
    new_site(tmp_path, "test")
    site = load_site(tmp_path)
    with prepared(site):
        for user in ("hub", "consumer", "control", *site.nodes):
            assert site.state.existing_secret(user)
    secrets = site.state.path / "secrets.json"
    assert secrets.stat().st_mode & 0o777 == 0o600
    assert site.state.path.stat().st_mode & 0o777 == 0o700


def test_every_part_reads_the_same_site(tmp_path: Path) -> None:
    new_site(tmp_path, "test")
    parts = site_parts(load_site(tmp_path, overrides=["router.port=9000"]))
    shared = ("run", "--site", str(tmp_path / "site.yml"), "--set", "router.port=9000")
    assert [part.name for part in parts] == ["router", "hub", "receiver", "integrator", "writer", "archive"]
    for part in parts:
        assert part.command[-6:] == (*shared, part.name)


HOLDING_A_LOCK = """
import threading
import h5py, typer
from sisockdaq import cli

def hold(held):
    with h5py._hl.base.phil:
        held.set()
        threading.Event().wait()

def work():
    global file
    file = h5py.File.in_memory()
    held = threading.Event()
    threading.Thread(target=hold, args=(held,), daemon=True).start()
    held.wait()
    print("done")
    raise typer.Exit(3)

app = typer.Typer()
app.command()(work)
cli.app = lambda: app
cli.main()
"""


def test_a_busy_thread_cannot_keep_a_command_from_ending() -> None:
    done = subprocess.run(
        [sys.executable, "-c", HOLDING_A_LOCK], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.returncode) == ("done\n", 3), done.stderr
