"""A monitor that another node publishes: each frame is divided by the value of its time, or told to have none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sisockdaq.nodes.integrator import Integrator

from sisockdaq.base import DataNodeServer
from sisockdaq.frames import Description, End, FrameHeader, Start, make_producer
from sisockdaq.integrate import Integrator as Engine
from sisockdaq.integrate.reduction import Reducer
from sisockdaq.integrate.settings import IntegrationSettings, make_integrator
from sisockdaq.nexus.check import check_file
from sisockdaq.nexus.reduced import read_epochs, read_reduced
from sisockdaq.site import load_site
from sisockdaq.testing.network import Network
from sisockdaq.testing.waiting import wait_until

SHAPE = (512, 1024)
PLACE = {"distance": 0.2, "poni1": 0.015, "poni2": 0.03, "wavelength": 1.0e-10}
SITE = f"""
site: test
detector: {{model: jungfrau, geometry: {PLACE}}}
nodes:
  receiver: {{type: detector_receiver, udp: [{{port: 50000}}]}}
  integrator: {{type: integrator, bins: 100, sectors: {{right: {{azimuth_range: [-20, 20], bins: 20}}}}}}
"""
PICTURE = np.random.default_rng(0).poisson(40, SHAPE).astype(np.uint16)
START = 1.7e9


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    """Compile what the node will use: on a busy machine that takes longer than a test waits for a node."""
    made = IntegrationSettings.model_validate({"geometry": PLACE, "bins": 100, "sectors": {"right": {"bins": 20}}})
    Reducer(make_integrator(made, shape=SHAPE, pixel_size=75e-6), made).warm_up(np.uint16)


class Ioc(DataNodeServer):
    """The beam's intensity and the sample's transmission."""

    def setup(self) -> None:
        self.series("i0", timeline="fast", keep=1e12)
        self.series("transmission", timeline="slow", keep=1e12)
        self.series("mode", type="string", timeline="slow")

    def put(self, timeline: str, time: float, **values: float) -> None:
        self.store.timelines[timeline].append(START + time, values)


class Bench:
    def __init__(self, network: Network, folder: Path) -> None:
        (folder / "site.yml").write_text(SITE)
        self.network, self.folder = network, folder
        site = load_site(folder / "site.yml", check=["integrator"])
        network.state.make()
        description = Description("receiver", "image", SHAPE, "uint16", packets_per_frame=128, fill_value=65535)
        self.images = make_producer(f"ring://{network.state.frames_socket('receiver')}", description, slots=8)
        factors = {
            "monitor": {"field": "ioc::i0", "match": "linear", "wait": 2},
            "transmission": {"field": "ioc::transmission", "match": "last", "max_age": None, "wait": 0},
        }
        saved = {"save": ["nxazint", "nxcansas", "dat"], "save_directory": folder / "reduced"}
        self.node = network.start(Integrator, site=site, **site.nodes["integrator"].options, **factors, **saved)
        wait_until(lambda: "integrator" in self.images.status()["consumers"], 20, "the integrator to attach")

    def send(self, index: int, time: float) -> None:
        slot = wait_until(lambda: (taken := self.images.acquire()) is not None and [taken], 10, "a free slot")[0]
        self.images.pixels[slot] = PICTURE + max(index, 0)
        self.images.publish(slot, FrameHeader(100 + index, START + time, START + time, index, 128, 128))

    def wait_heard(self, field: str, time: float) -> None:
        live = self.node.node.live
        wait_until(lambda: live.factors.series[field].newest >= START + time, 20, f"{field} to be heard of")

    def configure(self, **changes: Any) -> None:
        self.network.call("control.integrator.configure", changes, user="control", deadline=60.0)

    def status(self) -> dict[str, Any]:
        return dict(self.network.call("control.integrator.status", user="control"))

    def numbers(self, name: str) -> list[float]:
        return list(self.network.client.get(f"integrator::{name}", start=1.0)[f"integrator::{name}"].values)


@pytest.fixture
def bench(network: Network, tmp_path: Path) -> Iterator[Bench]:
    made = Bench(network, tmp_path)
    yield made
    network.stop_nodes()
    made.images.close()


def test_frames_are_divided_by_the_monitor_of_their_time(bench: Bench) -> None:
    wait_until(lambda: bench.status()["message"] == "there is no node ioc", 20, "the missing node to be named")
    ioc: Any = bench.network.start(Ioc, name="ioc").node
    ioc.put("slow", -5000.0, transmission=0.5)  # long before: it is published when it changes
    wait_until(lambda: bench.status()["message"] == "", 20, "the node to be found")
    for place, value in enumerate((2.0, 4.0, 4.0, 0.0, 0.0)):
        ioc.put("fast", place / 10, i0=value)
    ioc.put("slow", 0.22, transmission=0.25)
    bench.wait_heard("ioc::i0", 0.4)
    bench.wait_heard("ioc::transmission", 0.22)
    bench.images.start(Start("run", 4))
    for index in range(4):
        bench.send(index, index / 10 + 0.05)
    wait_until(lambda: bench.status()["frames_integrated"] == 4, 20, "all frames")
    bench.images.end(End("run", "complete", {"frames_expected": 4, "frames_complete": 4}))

    status = bench.status()
    assert (status["frames_not_normalized"], status["frames_dropped"]) == (1, 0)
    assert status["message"] == "the monitor ioc::i0 is 0, not above 0"
    assert bench.numbers("monitor") == pytest.approx([3.0, 4.0, 2.0, 0.0], rel=1e-5)
    assert bench.numbers("transmission") == [0.5, 0.5, 0.25, 0.25]
    engine = Engine(PLACE, shape=SHAPE, pixel_size=75e-6, bins=100, error_model="poisson")
    curves = bench.numbers("curve")
    for index, (m, t) in enumerate(zip(bench.numbers("monitor")[:3], bench.numbers("transmission"), strict=False)):
        expected = engine.integrate(PICTURE + index, monitor=m, transmission=t)
        np.testing.assert_array_equal(curves[index], expected.intensity)
    assert np.isnan(curves[3]).all()
    assert np.isnan(bench.numbers("curve_right")[3]).all()
    assert bench.numbers("total")[3] == (PICTURE + 3).sum()

    # The files say what each frame was divided by, in the places that their definitions have for it.
    (part,) = wait_until(
        lambda: [each for each in read_epochs(bench.folder.glob("reduced/run_azint_*.h5")) if each.state == "finished"],
        20,
        "the file",
    )
    factor = np.multiply(bench.numbers("monitor"), bench.numbers("transmission"))
    np.testing.assert_array_equal(part.monitor, factor)
    np.testing.assert_array_equal(part.numbers["monitor"], bench.numbers("monitor"))
    np.testing.assert_array_equal(part.products["curve"].intensity, curves)
    (cansas,) = bench.folder.glob("reduced/run_cansas_*.h5")
    np.testing.assert_array_equal(read_reduced(cansas).product.intensity, curves)
    for path in bench.folder.glob("reduced/run_*.h5"):
        assert not check_file(path).failed, path
    assert "# monitor: 3" in next(bench.folder.glob("reduced/run_000000*curve.dat")).read_text()

    # Whatever cannot be a monitor is named, with the reason.
    for field, reason in (
        ("ioc::i1", "ioc has no field i1"),
        ("ioc::mode", "ioc::mode is of type string, and cannot be a factor of frames"),
    ):
        bench.configure(monitor=field, transmission=None)
        wait_until(lambda reason=reason: bench.status()["message"] == reason, 20, reason)
    # A field that is only asked for now, and what was published of it before.
    bench.configure(monitor="ioc::i0")
    wait_until(lambda: bench.status()["message"] != reason, 20, "the field to be found")
    bench.send(-1, 0.1)
    wait_until(lambda: bench.numbers("monitor")[-1:] == [4.0], 20, "a frame with what was there before")
