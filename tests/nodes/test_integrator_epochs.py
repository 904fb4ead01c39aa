"""Changing an integrator while it runs: epochs separate old and new, and no frame is lost or counted twice."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from sisockdaq.nodes.integrator import Integrator, node
from typer.testing import CliRunner

from sisockdaq.cli import configure
from sisockdaq.errors import AcquisitionRefused, ConfigurationError, NotAuthorized
from sisockdaq.frames import Attached, Description, End, FrameHeader, Start, make_consumer, make_producer
from sisockdaq.integrate import Integrator as Engine
from sisockdaq.integrate import Sector, load_geometry
from sisockdaq.nexus.reduced import read_epochs
from sisockdaq.site import load_site
from sisockdaq.testing.network import Network
from sisockdaq.testing.waiting import wait_until

SHAPE = (512, 1024)
OLD = {"distance": 0.2, "poni1": 0.015, "poni2": 0.03, "wavelength": 1.0e-10}
NEW = {"distance": 0.21, "poni1": 0.016, "poni2": 0.032, "wavelength": 1.0e-10}
DETECTOR: dict[str, Any] = {"shape": SHAPE, "pixel_size": 75e-6, "error_model": "poisson", "maximum": True}
SITE = f"""
site: test
detector: {{model: jungfrau, geometry: {OLD}}}
nodes:
  receiver: {{type: detector_receiver, udp: [{{port: 50000}}]}}
  integrator: {{type: integrator, bins: 400}}
"""
PICTURE = np.random.default_rng(0).poisson(40, SHAPE).astype(np.uint16)


class Bench:
    """A site's receiver (as a producer of images), its integrator, and its writer (as a consumer of results)."""

    def __init__(self, network: Network, folder: Path, **options: Any) -> None:
        (folder / "site.yml").write_text(SITE)
        self.folder = folder
        self.network = network
        self.site = load_site(folder / "site.yml", check=["integrator"])
        network.state.make()
        description = Description("receiver", "image", SHAPE, "uint16", packets_per_frame=128, fill_value=65535)
        self.images = make_producer(f"ring://{network.state.frames_socket('receiver')}", description, slots=8)
        self.node = network.start(Integrator, site=self.site, **self.site.nodes["integrator"].options, **options)
        wait_until(lambda: "integrator" in self.images.status()["consumers"], 20, "the integrator to attach")
        self.writer = make_consumer(f"ring://{network.state.frames_socket('integrator')}", name="writer")
        self.layout: dict[str, Any] = {}
        self.rows: list[dict[str, Any]] = []
        self.marks: list[Any] = []
        self.numbers = count()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._take)
        self._thread.start()
        wait_until(lambda: bool(self.layout), 20, "the writer to attach")

    def _take(self) -> None:
        while not self._ending.is_set():
            item: Any = self.writer.next(0.1)
            if isinstance(item, Attached):
                self.layout = item.description.meta
            if hasattr(item, "release"):
                parts = {name: item.pixels[a:b].copy() for name, (a, b) in self.layout["layout"].items()}
                self.rows.append({"number": item.header.number, **parts})
                item.release()
            elif item is not None:
                self.marks.append(item)

    def send(self, frames: int = 1, *, index: int | None = None) -> None:
        for _ in range(frames):
            slot = wait_until(lambda: (taken := self.images.acquire()) is not None and [taken], 20, "a free slot")[0]
            number = next(self.numbers)
            self.images.pixels[slot] = PICTURE + number % 7
            time = 1.7e9 + number / 100
            place = number if index is None else index
            self.images.publish(slot, FrameHeader(number, time, time + 0.001, place, 128, 128))

    def call(self, procedure: str, *args: Any, user: str = "control") -> Any:
        return self.network.call(f"control.integrator.{procedure}", *args, user=user, deadline=60.0)

    def epochs(self) -> dict[int, dict[str, Any]]:
        return {epoch["number"]: epoch for epoch in self.call("epochs")}

    def wait_taken(self, frames: int) -> None:
        wait_until(lambda: len(self.rows) >= frames, 30, f"{frames} results")

    def close(self) -> None:
        self._ending.set()
        self._thread.join(10)
        self.writer.close()
        self.network.stop_nodes()
        self.images.close()


@pytest.fixture
def bench(network: Network, tmp_path: Path) -> Iterator[Bench]:
    made = Bench(network, tmp_path, save=["nxazint", "dat"], save_directory=tmp_path / "reduced")
    yield made
    made.close()


def engine(place: dict[str, float], **options: Any) -> Engine:
    return Engine(place, **{**DETECTOR, "bins": 400, **options})


def check_rows(rows: list[dict[str, Any]], made_by: Engine) -> None:
    for row in rows:
        expected = made_by.integrate(PICTURE + row["number"] % 7)
        np.testing.assert_array_equal(row["curve"], expected.intensity)
        np.testing.assert_array_equal(row["sigma"], expected.sigma)
        assert row["total"] == expected.total


def check_pyfai(row: dict[str, Any], place: dict[str, float], **options: Any) -> None:
    pyfai = load_geometry(place, shape=SHAPE, pixel_size=75e-6)
    method = ("no", "csc", "cython")
    image = PICTURE + row["number"] % 7
    expected = pyfai.integrate1d(image, 400, unit="q_nm^-1", method=method, error_model="poisson", **options)
    used = expected.count > 0
    np.testing.assert_allclose(row["curve"][used], expected.intensity[used], rtol=1e-6)
    np.testing.assert_allclose(row["sigma"][used], expected.sigma[used], rtol=1e-6)


def check_files(bench: Bench, counts: Counter[int]) -> None:
    """Find each frame of the acquisition in the files of its epoch, as the writer got it."""
    wait_until(lambda: bench.call("status")["curves_saved"] == 64, 20, "curves in files")
    folder = bench.folder / "reduced"
    found = wait_until(
        lambda: [part for part in read_epochs(sorted(folder.glob("run_0001_azint_*.h5"))) if part.state == "finished"],
        20,
        "whole files",
    )
    found = read_epochs(sorted(folder.glob("run_0001_azint_*.h5")))
    assert {part.epoch: len(part.time) for part in found} == counts
    rows = {row["number"]: row for row in bench.rows}
    for part in found:
        for place, number in enumerate(part.numbers["frame_number"]):
            np.testing.assert_allclose(part.product.intensity[place], rows[number]["curve"], rtol=1e-6)
    assert len(list(folder.glob("run_0001_*.dat"))) == 64
    assert bench.call("status")["curves_not_saved"] == 0


def test_a_site_is_calibrated_anew_while_it_runs(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    first = bench.call("status")["epoch"]
    axis = bench.layout["axes"]["curve"]["values"]
    bench.images.start(Start("run_0001", None))
    sending = threading.Thread(target=bench.send, args=(60,))
    sending.start()
    wait_until(lambda: len(bench.rows) > 3, 20, "curves of the old geometry")

    # Geometry and mask change while frames come: each frame is of one epoch, none is lost.
    mask = np.zeros(SHAPE, bool)
    mask[:, 500:510] = True
    np.save(bench.folder / "mask.npy", mask)
    second = bench.call("configure", {"geometry": NEW, "mask": "mask.npy"})
    assert (second["number"], second["held"]) == (first + 1, "run_0001")
    sending.join(60)
    bench.send(3)  # however slow the machine is, some frames come after the change
    bench.wait_taken(63)

    # What would change the points of the curves waits for the end of the acquisition.
    for changes in ({"bins": 300}, {"sectors": {"left": {}}}, {"unit": "2th_deg"}, {"radial_range": [1, 2]}):
        with pytest.raises(AcquisitionRefused, match="run_0001 is under way"):
            bench.call("configure", changes)
    bench.send()
    bench.wait_taken(64)
    bench.images.end(End("run_0001", "complete", {"frames_expected": 64, "frames_complete": 64}))

    assert [row["number"] for row in bench.rows] == list(range(64))
    told = [int(row["epoch"][0]) for row in bench.rows]
    assert told == sorted(told)
    counts = Counter(told)
    assert set(counts) == {first, first + 1}
    assert {number: bench.epochs()[number]["frames"] for number in counts} == counts
    check_rows([row for row in bench.rows if row["epoch"] == first], engine(OLD))
    held = second["settings"]["radial_range"]
    new = engine(NEW, mask=mask, radial_range=held)
    np.testing.assert_allclose(new.axis, axis, rtol=1e-12)
    check_rows([row for row in bench.rows if row["epoch"] == first + 1], new)
    check_pyfai(bench.rows[0], OLD)
    check_pyfai(bench.rows[-1], NEW, mask=mask, radial_range=held)
    assert bench.layout["axes"]["curve"]["values"] == axis
    assert bench.network.wait_for("integrator::epoch", samples=64) == told

    check_files(bench, counts)

    # Between acquisitions anything can change: here also how many results there are.
    wait_until(lambda: any(isinstance(mark, End) for mark in bench.marks), 20, "the end of the results")
    bench.rows.clear()
    sectors = {"right": {"azimuth_range": [-20, 20], "bins": 50}}
    monkeypatch.setattr(node, "_CAKE_BYTES", 2 * 8 * 18 * 60 + 7)  # room for two
    third = bench.call(
        "configure",
        {
            "sectors": sectors,
            "rois": {"beam": [390, 190, 410, 210]},
            "unit": "q_A^-1",
            "cake": {"azimuth_bins": 18, "bins": 60},
        },
    )
    assert (third["number"], third["held"]) == (first + 2, "")
    wait_until(lambda: "curve_right" in bench.layout["layout"], 20, "the writer to attach again")
    wait_until(
        lambda: bench.node.node._ring.status()["consumers"].get("writer", {}).get("state") == "attached", 20, "writer"
    )
    bench.images.start(Start("run_0002", 3))
    bench.send(3)
    bench.wait_taken(3)
    bench.images.end(End("run_0002", "complete", {"frames_expected": 3, "frames_complete": 3}))
    parts = engine(NEW, mask=mask, unit="q_A^-1", sectors={"right": Sector(azimuth_range=(-20, 20), bins=50)})
    check_rows(bench.rows, parts)
    for row in bench.rows:
        image = PICTURE + row["number"] % 7
        np.testing.assert_array_equal(row["curve_right"], parts.integrate_all(image)["right"].intensity)
        np.testing.assert_array_equal(row["sigma_right"], parts.integrate_all(image)["right"].sigma)
        assert row["roi_beam"] == image[190:210, 390:410].sum()

    cakes = bench.network.client.get("integrator::cake", start=1.0)["integrator::cake"]
    last = PICTURE + bench.rows[-1]["number"] % 7
    np.testing.assert_array_equal(cakes.values[-1], parts.integrate2d(last, azimuth_bins=18, bins=60).intensity)
    assert cakes.values.shape == (2, 18, 60)
    (kept,) = wait_until(
        lambda: [
            part
            for part in read_epochs(sorted((bench.folder / "reduced").glob("run_0002_azint_*.h5")))
            if part.state == "finished"
        ],
        20,
        "the cakes in a file",
    )
    made = [parts.integrate2d(PICTURE + row["number"] % 7, azimuth_bins=18, bins=60) for row in bench.rows]
    np.testing.assert_array_equal(kept.products["cake"].intensity, [cake.intensity for cake in made])
    np.testing.assert_array_equal(kept.products["cake"].sigma, [cake.sigma for cake in made])
    assert [axis.unit for axis in cakes.field.axes] == ["deg", "Å^-1"]

    # The listing has the axis of the newest epoch, the live cache only what is on it.
    client = bench.network.client
    curves = client.get("integrator::curve_right", start=1.0)["integrator::curve_right"]
    assert curves.values.shape == (3, 50)
    listed = client.get("integrator::curve", start=1.0)["integrator::curve"].field.axes[0]
    assert (listed.unit, list(listed.values)) == ("Å^-1", parts.axis.tolist())
    assert len(client.get("integrator::epoch", start=1.0)["integrator::epoch"].values) == 3
    assert bench.call("get_settings")["unit"] == "q_A^-1"


def test_wrong_changes_are_refused_as_a_whole(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> None:
    before, epoch = bench.call("get_settings"), bench.call("status")["epoch"]
    with pytest.raises(ConfigurationError) as caught:
        bench.call("configure", {"bins": 0, "unit": "q", "frames": "camera", "geometry": NEW})
    for part in ("bins: ", "unit: ", "frames: cannot be changed while the node runs", "nothing has changed"):
        assert part in str(caught.value)
    with pytest.raises(ConfigurationError) as caught:
        bench.call(
            "configure", {"geometry": "new.poni", "mask": "new.npy", "flat": "flat.edf", "rois": {"a": [0, 0, 9999, 1]}}
        )
    for part in ("new.poni", "new.npy", "flat.edf", "region a"):
        assert part in str(caught.value)
    secret = tmp_path_factory.mktemp("elsewhere") / "secret.npy"
    np.save(secret, np.zeros(SHAPE))
    (bench.folder / "way_out.npy").symlink_to(secret)
    with pytest.raises(ConfigurationError, match="lies outside"):
        bench.call("configure", {"mask": str(secret), "sectors": {"a": {"mask": "way_out.npy"}}})
    with pytest.raises(NotAuthorized):
        bench.call("configure", {"bins": 10}, user="consumer")
    assert bench.call("get_settings") == before
    assert bench.call("status")["epoch"] == epoch
    bench.send()
    bench.wait_taken(1)
    check_rows(bench.rows, engine(OLD))


def test_the_command_changes_settings_and_shows_epochs(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SISOCKDAQ_SITE", str(bench.network.state.path))
    app = typer.Typer()
    configure.add_commands(app)
    number = bench.call("status")["epoch"]

    def call(*arguments: str) -> Any:
        result = CliRunner().invoke(app, list(arguments))
        if result.exception is not None:
            raise result.exception
        return result.stdout

    assert "bins=321" in call("integrator", "bins=321", "split=no", "cake.azimuth_bins=4")
    assert bench.call("get_settings")["cake"] == {"azimuth_bins": 4, "bins": 200}
    assert json.loads(call("integrator", "geometry.distance=0.3", "geometry.wavelength=1e-10", "--json"))[0][
        "geometry"
    ] == {"distance": 0.3, "poni1": 0, "poni2": 0, "rot1": 0, "rot2": 0, "rot3": 0, "wavelength": 1e-10}
    assert [line.split()[1] for line in call("integrator").splitlines()][-2:] == [str(number + 1), str(number + 2)]
    with pytest.raises(ConfigurationError, match="bins: "):
        call("integrator", "bins=0")
    with pytest.raises(ConfigurationError, match="geometry has a value already"):
        call("integrator", "geometry=a.poni", "geometry.distance=1")
    assert bench.call("status")["epoch"] == number + 2
