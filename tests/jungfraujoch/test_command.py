"""The command as its own process: options, HTTP, signals, a disk that is full."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from sisockdaq.errors import PortTaken
from sisockdaq.jungfraujoch import StreamWriter, WriterOptions
from sisockdaq.testing import wait_until
from tests.jungfraujoch.conftest import images_of
from tests.jungfraujoch.sender import Sender, frame, image, start, tagged

START = 40.0
"""Time for a process to begin on a machine that does much else [s]."""

BASE = [sys.executable, "-m", "sisockdaq.jungfraujoch"]


@contextlib.contextmanager
def running(sender: Sender, root: Path, *options: str, before: str = "") -> Iterator[tuple[Any, Any, str]]:
    """Run the command; give a function that asks it, its process and its HTTP address."""
    arguments = [f"-R{root}", "-H0", "--flush_interval=0.05", *options, sender.address]
    command = [*BASE, *arguments]
    if before:
        code = f"import sys; {before}; from sisockdaq.jungfraujoch.command import main; main()"
        command = [sys.executable, "-c", code, *arguments]
    log = root.parent / "log"
    with log.open("w") as stream, subprocess.Popen(command, stderr=stream) as process:
        try:
            found = wait_until(lambda: re.search(r"http://\S+(?=/status)", log.read_text()), START, "the command")
            address = found[0]
            wait_until(lambda: ask(address, "/status")["connected"] == 1)
            yield (lambda path, **more: ask(address, path, **more)), process, address
        finally:
            process.terminate()
            process.wait(20)


def ask(address: str, path: str, method: str = "GET", **headers: str) -> Any:
    request = urllib.request.Request(address + path, method=method, headers=headers)
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "root"
    made.mkdir()
    return made


def test_state_cancel_and_sigterm_in_the_middle(sender: Sender, root: Path) -> None:
    with running(sender, root, "-r", "0", "--zmq_file_port=0", "-w50", "-W", "10") as (asked, process, _):
        assert asked("/state")["state"] == "READY"
        sender.send(start(images=100), *(frame(index) for index in range(6)))
        wait_until(lambda: asked("/status")["images"].get("safe") == 6)
        state = asked("/state")
        assert (state["state"], state["file_prefix"], state["progress"], state["synchronised"]) == (
            "WRITING", "run", 0.06, True)  # fmt: skip
        for path, method, code in (
            ("/cancel", "GET", 405),
            ("/nothing", "GET", 404),
            ("/logs/all", "GET", 404),
            ("/status", "POST", 405),
        ):
            with pytest.raises(urllib.error.HTTPError) as refused:
                asked(path, method=method)
            assert refused.value.code == code
            assert "error" in json.load(refused.value)
        with pytest.raises(urllib.error.HTTPError) as refused:
            asked("/cancel", method="POST", Origin="http://elsewhere.example")
        assert refused.value.code == 403
        assert asked("/state")["state"] == "WRITING"
        assert asked("/cancel", method="POST")["message"] == "Interrupted."
        (logged,) = asked("/logs/5")["logs"]
        assert (logged["acquisition"], logged["message"], logged["ledger"]["acquisition"]) == (
            "run", "Interrupted.", "run")  # fmt: skip
        np.testing.assert_array_equal(images_of(root)[:6], [image(index) for index in range(6)])
        # The next series is in the middle when the process is asked to end.
        two = {"series_unique_id": "two"}
        sender.send(start("two", 100, **two), *(frame(index, **two) for index in range(6)))
        wait_until(lambda: asked("/status")["file_prefix"] == "two" and asked("/status")["images"]["written"] == 6)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    with h5py.File(root / "two_data_000002.h5") as file:
        assert file["entry"].attrs["finished"] == 1
    np.testing.assert_array_equal(images_of(root, "two")[:6], [image(index) for index in range(6)])
    with h5py.File(root / "two_master.h5") as file:
        assert b"the writer was ended" in file["entry/acquisition/end_reason"][()]


def test_a_full_disk_fails_the_series_and_the_next_one_works(sender: Sender, root: Path) -> None:
    """The kernel refuses to make a file longer than this, as it refuses on a full disk."""
    limit = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))"
    )
    shape = (200, 200)
    noise = np.random.default_rng(0).integers(0, 65535, shape).astype("<u2")
    large = tagged(noise)
    with running(sender, root, "--compression=none", before=limit) as (asked, _, _):
        header = start(images=30, per_file=1000) | {"image_size_y": shape[0], "image_size_x": shape[1]}
        sender.send(header, *(frame(index, large) for index in range(30)))
        status = wait_until(lambda: (s := asked("/status"))["acquisition_state"] == "FAILED" and s)
        assert "run_data_000001.h5 has reached the largest file size" in status["message"]
        wait_until(lambda: asked("/status")["messages"]["discarded"] + status["images"]["written"] > 20)
        sender.run(range(5), prefix="next")
        wait_until(lambda: asked("/status")["file_prefix"] == "next" and asked("/status")["state"] == "READY")
        assert asked("/status")["message"] == "Completed."
    np.testing.assert_array_equal(images_of(root, "next"), [image(index) for index in range(5)])
    with h5py.File(root / "run_data_000001.h5") as file:
        rows = file["entry/data/data"]
        for row in rows:
            np.testing.assert_array_equal(row, noise)


@pytest.mark.skipif(os.geteuid() != 0, reason="a small file system can be mounted by root only")
def test_a_disk_without_space(sender: Sender, root: Path) -> None:
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(root)], check=False).returncode:
        pytest.skip("no file system may be mounted here")
    try:
        noise = tagged(np.random.default_rng(0).integers(0, 65535, (200, 200)).astype("<u2"))
        with running(sender, root) as (asked, _, _):
            header = start(images=30, per_file=1000) | {"image_size_y": 200, "image_size_x": 200}
            sender.send(header, *(frame(index, noise) for index in range(30)))
            status = wait_until(lambda: (s := asked("/status"))["acquisition_state"] == "FAILED" and s)
            assert status["message"].startswith("ERROR: no space left for run_")
            for path in root.iterdir():
                path.unlink()
            sender.run(range(5), prefix="next")
            wait_until(lambda: asked("/status")["file_prefix"] == "next" and asked("/status")["state"] == "READY")
            assert asked("/status")["message"] == "Completed."
    finally:
        subprocess.run(["umount", "-l", str(root)], check=True)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["-R/does/not/exist", "tcp://127.0.0.1:9"], 78, "is no folder"),
        (["nonsense"], 78, "cannot connect to"),
        (["--compression=gzip", "tcp://127.0.0.1:9"], 78, "gzip"),
        (["-H99999", "tcp://127.0.0.1:9"], 2, "http_port"),
        ([], 2, "ADDRESS"),
    ],
)
def test_mistakes_are_said_in_a_line(tmp_path: Path, arguments: list[str], status: int, said: str) -> None:
    done = subprocess.run([*BASE, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (status, False)
    assert said in done.stderr


def test_a_port_in_use_is_named(tmp_path: Path, sender: Sender) -> None:
    port = sender.address.rpartition(":")[2]
    command = [*BASE, "-H", port, "tcp://127.0.0.1:9"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"jfjoch_writer: HTTP port {port} on 127.0.0.1 cannot be opened")
    for key in ("republish", "notices"):
        with pytest.raises(PortTaken, match=port):
            StreamWriter(WriterOptions(tmp_path, ["tcp://127.0.0.1:9"], **{key: sender.address}))


@pytest.mark.parametrize("layout", ["vds", "integrated"])
def test_the_layout_of_the_master_is_chosen(sender: Sender, root: Path, layout: str) -> None:
    with running(sender, root, f"--master={layout}") as (asked, _, _):
        sender.run(range(3))
        wait_until(lambda: asked("/status")["acquisition_state"] == "FINISHED")
    with h5py.File(root / "run_master.h5") as file:
        np.testing.assert_array_equal(file["entry/data/data"], [image(index) for index in range(3)])
    assert (root / "run_data_000001.h5").exists() == (layout == "vds")


def test_an_unknown_layout_is_a_line_and_status_78(sender: Sender, root: Path) -> None:
    command = [*BASE, f"-R{root}", "--master=best", sender.address]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 78
    assert done.stderr.startswith("jfjoch_writer: master layout “best” is not known")
    assert done.stderr.endswith("legacy, vds or integrated\n")
