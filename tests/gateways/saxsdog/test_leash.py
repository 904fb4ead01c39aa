"""The four commands as a person types them."""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from PIL import Image
from sisockdaq.gateways.saxsdog import cli, verbs
from sisockdaq.gateways.saxsdog.drawing import Look, drawn, save
from sisockdaq.gateways.saxsdog.service import Service

from sisockdaq.saxsdog.network import NetworkEntry, read_network, write_network
from tests.gateways.saxsdog.rig import SECRET, calibration, fit2d_mask, serving, valid_pixels, write_picture


@pytest.fixture
def service(base: Path) -> Iterator[Service]:
    with serving(base) as made:
        yield made


@pytest.fixture
def network(tmp_path: Path, service: Service) -> Path:
    path = tmp_path / "network"
    write_network(
        path, [NetworkEntry(Server=service.address, Feeder="tcp://localhost:9823", Secret=SECRET, Name="Test")]
    )
    return path


@pytest.fixture
def run(network: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run the leash; return what it prints."""

    def run(verb: str, *arguments: str) -> str:
        cli.leash([verb, *arguments, "--network", str(network)])
        return capsys.readouterr().out

    return run


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """A calibration that names another mask and folder, and a mask."""
    (tmp_path / "cal.json").write_text(json.dumps(calibration("elsewhere")))
    (tmp_path / "own.msk").write_bytes(fit2d_mask(valid_pixels()))
    return [str(tmp_path / "cal.json"), str(tmp_path / "own.msk"), "run1"]


def failure(capsys: pytest.CaptureFixture[str], act: Any, *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        act(*arguments)
    assert ended.value.code == 1
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return said.err


def test_every_verb_of_the_seed(run: Any, files: list[str], base: Path, service: Service) -> None:
    assert "images in run1 are reduced" in run("new", *files)
    write_picture(base / "run1" / "a.tif")
    assert "queue restarted with all files" in run("readdir")
    assert "images processed: 1" in run("stat")
    assert json.loads(run("stat", "--json"))["data"]["stat"]["images processed"] == 1
    assert json.loads(run("get"))["Directory"] == ["run1"]
    assert run("listdir") == "run1/\n"
    assert run("listdir", "run1") == "a.tif\n"
    assert run("fileslist").startswith("Radial0\t")
    assert "queue closed" in run("close")
    assert json.loads(run("plotdata", "--json"))["result"] == "plot"
    assert "queue aborted" in run("abort")
    assert run("getmergedata") == "nothing yet\n"
    assert "stat" in run("mergestat")


def test_new_finds_the_mask_beside_the_calibration(run: Any, files: list[str], tmp_path: Path) -> None:
    (tmp_path / "mask.msk").write_bytes(fit2d_mask(valid_pixels()))
    assert "images in run1" in run("new", files[0], "run1")
    assert json.loads(run("get", "--json"))["data"]["attachments"][0]["filename"] == str(tmp_path / "mask.msk")


def test_plot_draws_in_the_terminal_and_into_a_picture(run: Any, files: list[str], base: Path, tmp_path: Path) -> None:
    run("new", *files)
    write_picture(base / "run1" / "a.tif")
    run("readdir")
    shown = run("plot", "--once", "-x", "log", "-s", "1", "-k", "1")
    assert shown.startswith("a\n")
    assert any(0x2800 < ord(letter) <= 0x28FF for letter in shown)
    assert "log Scattering Vector" in shown
    assert "1 pictures, 0 waiting" in shown
    picture = tmp_path / "curves.png"
    assert run("plot", "--save", str(picture)) == f"{picture}\n"
    assert Image.open(picture).size[0] > 100
    assert json.loads(run("plot", "--once", "--json"))["filename"].endswith("/a")


def test_plot_follows_until_it_is_ended(
    run: Any, files: list[str], base: Path, service: Service, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run("new", *files)
    names = iter("abc")

    def next_picture(seconds: float) -> None:
        """Stands for the wait between two questions."""
        name = next(names, None)
        if name is None:
            raise KeyboardInterrupt
        write_picture(base / "run1" / f"{name}.tif")
        service.server.new_file(f"run1/{name}.tif")

    monkeypatch.setattr("sisockdaq.gateways.saxsdog.verbs.time.sleep", next_picture)
    with pytest.raises(SystemExit) as ended:
        run("plot")
    assert ended.value.code == 130
    assert [line for line in capsys.readouterr().out.splitlines() if line in ("a", "b", "c")] == ["a", "b", "c"]


def test_a_window_follows_until_it_is_closed(
    run: Any, files: list[str], base: Path, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The window of a machine without a display: all but the display itself is real."""
    import matplotlib.pyplot as plt

    monkeypatch.setattr("matplotlib.get_backend", lambda: "a window")
    run("new", *files)
    seen: list[str] = []
    names = iter("ab")

    def live(self: Any, seconds: float) -> None:
        """Stands for the window's own loop."""
        seen.append(self.figure.get_suptitle())
        if seconds < 0.1:  # right after it was drawn
            return
        if (name := next(names, None)) is None:
            plt.close(self.figure)
            return
        write_picture(base / "run1" / f"{name}.tif")
        service.server.new_file(f"run1/{name}.tif")

    monkeypatch.setattr("matplotlib.backend_bases.FigureCanvasBase.start_event_loop", live)
    with pytest.raises(SystemExit) as ended:
        run("plot", "--window", "-x", "log")
    assert ended.value.code == 130
    assert list(dict.fromkeys(filter(None, seen))) == ["a", "b"]


def test_plot_waits_for_a_queue_and_draws_a_picture_again_when_it_was_reduced_again(
    run: Any, files: list[str], base: Path, service: Service, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    write_picture(base / "run1" / "a.tif")
    steps = iter(["new", "readdir", "", "readdir", "new", "readdir"])

    def next_step(seconds: float) -> None:
        """Stands for the wait between two questions."""
        step = next(steps, None)
        if step is None:
            raise KeyboardInterrupt
        if step == "new":
            cli.leash(["new", *files, "--network", str(base.parent / "network"), "--json"])
        elif step:
            cli.leash([step, "--network", str(base.parent / "network"), "--json"])

    monkeypatch.setattr("sisockdaq.gateways.saxsdog.verbs.time.sleep", next_step)
    with pytest.raises(SystemExit):
        run("plot")
    said = capsys.readouterr()
    assert [line for line in said.out.splitlines() if line == "a"] == ["a", "a", "a"]
    assert said.err.splitlines() == [
        "the server has no queue   → begin one with `saxsleash new`",
        "no image was reduced yet: waiting for the first",
        "no image was reduced yet: waiting for the first",
    ]


def test_options_may_stand_before_the_verb_and_an_old_word_is_understood(run: Any, network: Path) -> None:
    cli.leash(["-N", "0", "--network", str(network), "stat"])
    assert run("getmergestat").endswith("stat\nnothing new\n")
    assert verbs.verb_first(["-h"]) == ["-h"]
    assert verbs.verb_first(["-S", "tcp://a:1", "listdir", "new"]) == ["listdir", "-S", "tcp://a:1", "new"]


def test_who_asks_before_the_server_has_begun_asks_again(
    run: Any, service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    early = iter([True])
    monkeypatch.setattr(service._guard._memory, "too_old", lambda stamp: next(early, False))
    assert run("stat") == "no queue: begin one with `saxsleash new`\n"
    assert (service.requests, service.refused) == (2, 1)
    monkeypatch.setattr(service._guard._memory, "too_old", lambda stamp: True)
    assert "Untimely request" in failure(capsys, run, "stat")
    assert service.requests == 4, "once more, and no more"


def test_new_tells_what_is_odd(run: Any, files: list[str]) -> None:
    odd = calibration(Wavelength=154.0)
    Path(files[0]).write_text(json.dumps(odd))
    assert "odd: Wavelength: 154 Å is no usual X-ray wavelength" in run("new", *files)


def test_a_window_needs_a_display(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    matplotlib.use("agg")
    assert "no window can be opened here" in failure(capsys, run, "plot", "--window")


def test_drawing_takes_curves_without_a_value() -> None:
    empty = {"array": [[1.0, 2.0], [float("nan")] * 2, [0.0, 0.0]], "columnLabels": ["q", "I", "e"], "kind": "Radial"}
    negative = {"array": [[0.0, 1.0, 2.0], [-1.0, 5.0, 3.0], [1.0, 1.0, 1.0]], "kind": "Slice"}
    text = drawn({"filename": "x", "graphs": [empty, negative]}, Look(log_x=True), width=60, height=30)
    assert "nothing to draw" in text
    x, y, _ = Look(log_x=True).points(negative)
    assert (x.tolist(), y.tolist()) == ([1.0, 2.0], [5.0, 3.0])


def test_an_azimuth_is_never_drawn_as_a_logarithm_and_a_gap_stays_one(tmp_path: Path) -> None:
    graph = {
        "array": [[-2.0, -1.0, 1.0, 2.0], [3.0, float("nan"), 5.0, 6.0], [1.0, float("nan"), 1.0, 1.0]],
        "columnLabels": ["vertical scattering Vector $q_{v} [nm^{-1}]$", "I", "e"], "kind": "Radial",
        "mask": {"Name": "left"}, "Integparam": {"I0": 0, "I1": 0, "I2": 0},
    }  # fmt: skip
    look = Look(log_x=True)
    x, y, _ = look.points(graph)
    assert x.tolist() == [-2.0, -1.0, 1.0, 2.0]
    assert np.isnan(y).tolist() == [False, True, False, False]
    text = drawn({"filename": "x", "graphs": [graph]}, look, width=70, height=20)
    assert "Radial 0 (left): I\n" in text
    assert text.splitlines()[-1].split() == ["-2", "vertical", "scattering", "Vector", "q_v", "[nm⁻¹]", "2"]
    save({"filename": "x", "graphs": [graph]}, look, tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").size[0] > 100


def test_mergedata_follows_to_its_end(run: Any, files: list[str], base: Path, tmp_path: Path) -> None:
    from tests.saxsdog.test_logtables import HEADER, tiff

    run("new", *files)
    tiff(base / "run1" / "a.tif", HEADER)
    (tmp_path / "peak.log").write_text("t\tDuration\n1\t2\n")
    table = {"Name": "Peak", "TimeEpoch": "Unix", "Files": [{"RemotePath": [], "LocalPath": "peak.log"}]}
    conf = {"LogDataTables": [table], "OutputFormats": {"csv": True}}
    (tmp_path / "merge.json").write_text(json.dumps(conf))
    assert "The merge is complete." in run("mergedata", str(tmp_path / "merge.json"))
    assert (base / "run1" / "results" / "logs" / "run1.csv").is_file()
    assert json.loads(run("getmergedata", "--json"))["result"] == "mergedata"


def test_mistakes_are_one_line(
    run: Any, files: list[str], tmp_path: Path, network: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "the server has no queue" in failure(capsys, run, "plot", "--once")
    assert "cannot be read" in failure(capsys, run, "new", str(tmp_path / "none.json"))
    missing = failure(capsys, run, "new", files[0], "none.msk", "run1")
    assert "none.msk cannot be read" in missing
    assert "name the file of mask 0" in missing
    (tmp_path / "broken.json").write_text("{")
    assert "is not JSON" in failure(capsys, run, "new", str(tmp_path / "broken.json"))
    assert "Unsigned attachments" in failure(capsys, run, "new", *files, "--compatible")
    assert "has 1 masks, 2 were given" in failure(capsys, run, "new", files[0], files[1], files[1], "run1")
    assert "outside of the folders" in failure(capsys, run, "listdir", "..")
    nobody = failure(capsys, run, "stat", "--server", "tcp://127.0.0.1:9", "--timeout", "0.1")
    assert "did not answer stat within 0.1 s" in nobody
    write_network(network, [NetworkEntry(Server=read_network(network)[0].Server, Secret="another secret")])
    assert "Wrong signature" in failure(capsys, run, "abort")
    assert "no server 3" in failure(capsys, run, "stat", "-N", "3")


def test_netconf_writes_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "n"
    cli.netconf(["--network", str(path), "--name", "Pilatus1M"])
    (entry,) = read_network(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (entry.Name, entry.Server, entry.Feeder) == ("Pilatus1M", "tcp://localhost:9723", "tcp://localhost:9823")
    assert entry.Secret not in capsys.readouterr().out
    cli.netconf(["--network", str(path), "--add", "--server", "tcp://b:1"])
    assert [one.Server for one in read_network(path)] == ["tcp://localhost:9723", "tcp://b:1"]
    cli.netconf(["--network", str(path), "--json"])
    shown = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [one["Name"] for one in shown] == ["Pilatus1M", "Queue2"]
    assert "Secret" not in shown[0]
    assert "exists" in failure(capsys, lambda *a: cli.netconf(list(a)), "--network", str(path), "--name", "x")
    wrong = failure(capsys, lambda *a: cli.netconf(list(a)), "--network", str(path), "--new", "--server", "b")
    assert '"b" is no address of the form tcp://host:port' in wrong
    cli.netconf(["--network", str(path), "--new"])
    assert read_network(path)[0].Secret != entry.Secret


def test_netconf_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    answers = iter(["tcp://saxs:9000", "", "Eiger"])
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda question: next(answers))
    cli.netconf(["--network", str(tmp_path / "n")])
    (entry,) = read_network(tmp_path / "n")
    assert (entry.Server, entry.Feeder, entry.Name) == ("tcp://saxs:9000", "tcp://localhost:9823", "Eiger")
