"""Mistakes made at the command line of a running site: told in one or two lines, and nothing else suffers."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from sisockdaq.cli.init import new_site
from sisockdaq.errors import StorageError
from sisockdaq.supervisor import CONFIGURATION_ERROR
from tests.command_line import run_command
from tests.endtoend.house import DEADLINE, House, series_of, wait_for


def command(*arguments: str, **environment: str) -> tuple[int, str]:
    """Run ``sisockdaq``; return its exit status and what it said on stderr."""
    done = run_command(*arguments, environment={**os.environ, **environment}, timeout=DEADLINE)
    assert "Traceback" not in done.stdout + done.stderr
    return done.returncode, done.stderr


@pytest.fixture(scope="module")
def taken(running: House) -> str:
    """The name of an acquisition that is in the files."""
    return running.acquire(5)[0].name


@pytest.fixture
def unharmed(house: House) -> Iterator[House]:
    """The site, of which every part is the same process after the test, and takes data."""
    before = {part.name: part.pid for part in house.trial.supervisor.status()}
    yield house
    assert {part.name: part.pid for part in house.trial.supervisor.status()} == before
    run, _ = house.acquire(5)
    assert run.ledger.balance() == []
    assert run.ledger.reported("frames_written") == 5


def test_questions_that_cannot_be_answered(unharmed: House) -> None:
    site = unharmed.trial.site.site
    for arguments, reason, next_step in (
        (["get", "integrator::totl"], 'integrator has no field "totl"; did you mean "total"?', "sisockdaq fields"),
        (["get", "integratr::total"], 'no node "integratr"', "the nodes are archive, integrator, receiver, writer"),
        (["get", "integrator::total", "--start", "-1h", "--end", "-2h"], "is reversed", "-3600 to 0 is the last hour"),
        (["get", "integrator::total", "--last", "soon"], '"soon" is not a duration', "write it as 90s"),
        (["fields", "nobody"], 'no node "nobody"', "the nodes are"),
        (["watch", "integrator::nothing"], 'integrator has no field "nothing"', "sisockdaq fields"),
        (["ledger", "nothing"], 'no acquisition "nothing" is known', "sisockdaq ledger"),
    ):
        status, said = command(*arguments, "--site", site)
        assert status in (1, CONFIGURATION_ERROR), arguments
        lines = said.splitlines()
        assert reason in lines[0]
        assert next_step in lines[1]
        assert len(lines) == 2


def test_acquisitions_that_cannot_be_taken(unharmed: House, taken: str) -> None:
    site = unharmed.trial.site
    root = site.resolve_output("runs")
    before = sorted(root.rglob("*"))
    for arguments, reason in (
        (["../evil"], '"../evil" contains ".."'),
        (["a/../../evil"], 'contains ".."'),
        (["/tmp/evil"], "is absolute"),
        ([taken], f"{taken}_master.h5 exists in {root}   → choose another name"),
        (["x", "--directory", ".."], '".."'),
        (["big", "--frames", "10000000000"], f"free in {root} (10000000000 frames × 524 kB"),
        (["x", "--writer", "nobody"], 'no node "nobody"'),
        (["x", "--writer", "archive"], "archive is no file writer"),
        (["x", "--meta", "nonsense"], '"nonsense" is not a fact'),
    ):
        frames = [] if "--frames" in arguments else ["--frames", "3"]
        status, said = command("acquire", *arguments, *frames, "--site", site.site)
        assert status in (1, CONFIGURATION_ERROR), arguments
        assert reason in said
        assert "→" in said
    assert sorted(root.rglob("*")) == before


def test_one_acquisition_at_a_time(house: House) -> None:
    run = house.start(10)
    status, said = command("acquire", "second", "--frames", "3", "--site", house.trial.site.site)
    assert (status, said) == (1, f"{run.name} is under way   → wait for its end, or stop it\nnothing was started.\n")
    house.send(10).wait()
    run.wait(DEADLINE, progress=False)
    assert run.ledger.reported("frames_written") == 10


def test_logins_that_are_refused(unharmed: House) -> None:
    site = unharmed.trial.site
    trusted = {"SISOCKDAQ_CERTIFICATE": str(site.state.tls / "server_cert.pem")}
    for environment, reason in (
        ({**trusted, "SISOCKDAQ_SECRET": "wrong"}, "refused user 'consumer': WAMP-CRA client signature is invalid"),
        ({**trusted, "SISOCKDAQ_SECRET": "wrong", "SISOCKDAQ_USER": "nobody"}, 'no principal with authid "nobody"'),
        ({"SISOCKDAQ_SECRET": "wrong"}, "certificate verify failed"),
        (trusted, 'needs the secret of user "consumer"'),
    ):
        status, said = command("nodes", "--site", site.url, **environment)
        assert status in (1, CONFIGURATION_ERROR)
        assert reason in said
        assert "→" in said


def test_a_second_start_of_a_part_leaves_the_first_alone(unharmed: House) -> None:
    """The same ports and names: router, receiver and a node of a name that is taken."""
    site = unharmed.trial.site
    port = site.router.port
    for part, reason in (
        ("router", f"the router cannot listen on 127.0.0.1:{port}"),
        ("receiver", "is taken by"),
    ):
        status, said = command("run", part, *site.arguments)
        assert status == 1
        assert reason in said
        assert "process" in said
        assert "→" in said


@pytest.fixture
def site_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SISOCKDAQ_STATE", str(tmp_path / "state"))
    folder = tmp_path / "site"
    new_site(folder, "mistaken")
    return folder


def _missing(folder: Path) -> str:
    return "detector.mask=missing.npy"


def _small(folder: Path) -> str:
    np.save(folder / "small.npy", np.zeros((10, 20), "u1"))
    return "detector.mask=small.npy"


def _broken(folder: Path) -> str:
    (folder / "broken.npy").write_text("not an array")
    return "detector.mask=broken.npy"


def _other_detector(folder: Path) -> str:
    text = (folder / "detector.poni").read_text()
    (folder / "other.poni").write_text(text.replace("[512, 1024]", "[1024, 2048]"))
    return "detector.geometry=other.poni"


@pytest.mark.parametrize(
    ("mistake", "reason"),
    [
        (_missing, "missing.npy: no such mask"),
        (_small, "small.npy: has 10 × 20 pixels (rows × columns), the images have 512 × 1024"),
        (_broken, "broken.npy: cannot be read as a mask"),
        (_other_detector, "other.poni: is for images of 1024 × 2048 pixels (rows × columns), not 512 × 1024"),
    ],
)
@pytest.mark.parametrize("part", ["integrator", "writer"])
def test_inputs_that_do_not_fit_the_detector(
    site_folder: Path, part: str, mistake: Callable[[Path], str], reason: str
) -> None:
    status, said = command("run", part, "--site", str(site_folder), "--set", mistake(site_folder))
    assert status == 1
    assert reason in said
    assert "→" in said
    assert "pickle" not in said


def test_wrong_keys_are_all_told_at_once_and_nothing_is_begun(site_folder: Path) -> None:
    file = site_folder / "site.yml"
    file.write_text(file.read_text().replace("bins: 1000", "binz: 1000").replace("model: jungfrau", "model: jungfro"))
    status, said = command("up", str(site_folder))
    assert status == CONFIGURATION_ERROR
    lines = said.splitlines()
    assert any("site.yml, line" in line and "detector.model" in line and "jungfrau" in line for line in lines)
    assert not (site_folder.parent / "state").exists()


def test_a_taken_udp_port_is_told_with_its_holder(site_folder: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
        ports = f"nodes.receiver.udp=[{{port: {port}}}]"
        status, said = command("run", "receiver", "--site", str(site_folder), "--set", ports)
    assert status == 1
    assert said.startswith(f"UDP port {port} on 127.0.0.1 is taken by ")
    assert f"(process {os.getpid()})" in said
    assert "→ stop that program, or give the receiver other ports" in said


@pytest.fixture
def small_disk(house: House) -> Iterator[Path]:
    """A disk of 72 MB below the writer's folder, where the system lets us have one."""
    folder = house.trial.site.resolve_output("runs") / "small"
    folder.mkdir(parents=True, exist_ok=True)
    line = ["mount", "-t", "tmpfs", "-o", "size=72m", "none", str(folder)]
    if shutil.which(line[0]) is None or subprocess.run(line, capture_output=True, check=False).returncode != 0:
        pytest.skip("this user may not mount a small disk")
    yield folder
    # Lazily: a reader may have a file open for a moment more.
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_disk_that_is_too_small_is_told_before_anything_begins(unharmed: House, small_disk: Path) -> None:
    site = unharmed.trial.site.site
    status, said = command("acquire", "full", "--frames", "1000", "--directory", "small", "--site", site)
    assert status == 1
    assert f"free in {small_disk} (1000 frames × 524 kB" in said
    assert "→ free some, or --directory" in said
    assert list(small_disk.iterdir()) == []


def test_a_disk_that_runs_full_ends_one_acquisition_and_nothing_else(unharmed: House, small_disk: Path) -> None:
    run = unharmed.client.acquire("full", directory="small", wait=False)
    sending = unharmed.send(None, rate=50)
    wait_for(lambda: run.status()["frames_written"] > 50, "frames in more than one file")
    with (small_disk / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
        while True:
            filler.write(bytes(1 << 20))
    with pytest.raises(StorageError, match=f"no space left for .* in {small_disk}"):
        run.wait(DEADLINE, progress=False)
    sending.stop()
    assert run.ledger.balance() == []
    written = run.status()["frames_written"]
    assert 50 <= written < run.ledger.frames_expected
    numbers = [number for number in series_of(run.status()["master"], "receiver", "time") if not np.isnan(number)]
    assert len(numbers) == written
