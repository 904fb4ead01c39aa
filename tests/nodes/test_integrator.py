"""The integrator as a node: on a real router, with real rings and real packets' worth of frames."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from sisockdaq.nodes.integrator import Integrator

from sisockdaq.errors import ConfigurationError, GeometryError, MaskError
from sisockdaq.frames import Attached, Description, End, FrameHeader, Settled, Start, make_consumer, make_producer
from sisockdaq.integrate import Integrator as Engine
from sisockdaq.site import Site, load_site
from sisockdaq.testing.network import Network
from sisockdaq.testing.waiting import wait_until

SHAPE = (512, 1024)
PLACE = {"distance": 0.2, "poni1": 0.015, "poni2": 0.03, "wavelength": 1.0e-10}
SITE = """
site: test
detector:
  model: jungfrau
  mask: mask.npy
  geometry: {distance: 0.2, poni1: 0.015, poni2: 0.03, wavelength: 1.0e-10}
nodes:
  receiver: {type: detector_receiver, udp: [{port: 50000}]}
  integrator: {type: integrator, split: no, unit: q_A^-1, rois: {beam: [390, 190, 410, 210]}}
"""


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    """Compile what the nodes will use: on a busy machine that takes longer than a test waits for a node."""
    Engine(PLACE, shape=SHAPE, pixel_size=75e-6, error_model="poisson", maximum=True).warm_up(np.uint16)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    mask = np.zeros(SHAPE, bool)
    mask[:, 500:510] = True
    np.save(tmp_path / "mask.npy", mask)
    (tmp_path / "site.yml").write_text(SITE)
    return load_site(tmp_path / "site.yml", check=["integrator"])


@pytest.fixture
def images(network: Network) -> Iterator[Any]:
    network.state.make()
    description = Description("receiver", "image", SHAPE, "uint16", packets_per_frame=128, fill_value=65535)
    producer = make_producer(f"ring://{network.state.frames_socket('receiver')}", description, slots=8)
    yield producer
    network.stop_nodes()
    producer.close()


def send(producer: Any, index: int, image: Any) -> None:
    slot = wait_until(lambda: (taken := producer.acquire()) is not None and [taken], 10, "a free slot")[0]
    producer.pixels[slot] = image
    time = 1.7e9 + index / 100
    producer.publish(slot, FrameHeader(100 + index, time, time + 0.001, index, 128, 128))


def test_curves_are_served_live_and_handed_to_the_writer(network: Network, site: Site, images: Any) -> None:
    feed = network.caller().subscribe(network.uri("consumer.integrator.feed.frame"))
    node = network.start(Integrator, site=site, **site.nodes["integrator"].options)
    wait_until(lambda: "integrator" in images.status()["consumers"], 20, "the integrator to attach")
    writer = make_consumer(f"ring://{network.state.frames_socket('integrator')}", name="writer")
    attached: Any = writer.next(10)
    assert isinstance(attached, Attached)
    assert attached.description.meta["axes"]["curve"]["axis"] == "q"
    assert attached.description.meta["axes"]["curve"]["unit"] == "Å^-1"
    picture = np.random.default_rng(0).poisson(4, SHAPE).astype(np.uint16)
    images.start(Start("run_0001", 3))
    for index in range(3):
        send(images, index, picture + index)
    counts = {"frames_expected": 3, "frames_complete": 3}
    images.end(End("run_0001", "complete", counts))

    options = {"unit": "q_A^-1", "error_model": "poisson", "mask": site.resolve_input("mask.npy")}
    engine = Engine(PLACE, shape=SHAPE, pixel_size=75e-6, **options)
    assert isinstance(writer.next(10), Start)
    layout = attached.description.meta["layout"]
    for index in range(3):
        frame: Any = writer.next(10)
        expected = engine.integrate(picture + index)
        np.testing.assert_array_equal(frame.pixels[slice(*layout["curve"])], expected.intensity)
        np.testing.assert_array_equal(frame.pixels[slice(*layout["sigma"])], expected.sigma)
        np.testing.assert_array_equal(frame.pixels[slice(*layout["total"])], expected.total)
        assert frame.header.time == 1.7e9 + index / 100
        frame.release()
    assert isinstance(writer.next(10), End)
    writer.close()

    totals = network.wait_for("integrator::total", samples=3)
    assert totals == [engine.integrate(picture + index).total for index in range(3)]
    beam = network.wait_for("integrator::roi_beam", samples=3)
    assert beam == [int((picture + index)[190:210, 390:410].sum()) for index in range(3)]
    curves = network.client.get("integrator::curve", start=1.0)["integrator::curve"]
    np.testing.assert_array_equal(curves.t, [1.7e9 + index / 100 for index in range(3)])
    np.testing.assert_array_equal(curves.values[2], engine.integrate(picture + 2).intensity)
    wait_until(lambda: any("curve" in event["data"] for event in list(feed)), 10, "feed events")
    assert node.node.status()["frames_integrated"] == 3


def test_images_of_a_stream_v2_sender_are_integrated(network: Network, site: Site, tmp_path: Path) -> None:
    network.state.make()
    address = f"stream2://{network.state.sockets / 'sender.ipc'}"
    description = Description("detector", "image", SHAPE, "uint16", fill_value=65535)
    sender = make_producer(address, description, slots=8)
    try:
        network.start(Integrator, site=site, **site.nodes["integrator"].options, frames=address)
        writer = make_consumer(f"ring://{network.state.frames_socket('integrator')}", name="writer")
        attached: Any = writer.next(10)
        assert isinstance(attached, Attached)
        total = slice(*attached.description.meta["layout"]["total"])
        picture = np.random.default_rng(0).poisson(4, SHAPE).astype(np.uint16)
        sender.start(Start("run_0001", 2))
        for index in range(2):
            send(sender, index, picture + index)
        sender.end(End("run_0001", "complete", {"frames_expected": 2, "frames_complete": 2}))
        assert isinstance(writer.next(20), Start)
        usable = ~np.load(tmp_path / "mask.npy")
        for index in range(2):
            result: Any = writer.next(20)
            assert result.header.index == index
            assert result.pixels[total][0] == (picture + index)[usable].sum()
            result.release()
    finally:
        network.stop_nodes()
        sender.close()


def test_the_source_hears_how_many_were_integrated(network: Network, site: Site, images: Any) -> None:
    network.start(Integrator, site=site)
    wait_until(lambda: "integrator" in images.status()["consumers"], 20, "the integrator to attach")
    watcher = make_consumer(f"ring://{network.state.frames_socket('receiver')}", name="watcher", reports=False)
    watcher.next(10)
    images.start(Start("run_0002", 2))
    for index in range(2):
        send(images, index, index)
    images.end(End("run_0002", "complete", {"frames_expected": 2, "frames_complete": 2}))
    item: Any = None
    while not isinstance(item, Settled):
        item = watcher.next(10)
        assert item is not None
        if hasattr(item, "release"):
            item.release()
    assert item.ledger["consumers"]["integrator"]["counts"] == {"frames_integrated": 2}
    watcher.close()
    status = network.wait_for("integrator::frames_integrated", samples=1)
    assert status[-1] in (0, 2)


def test_parameters_without_a_detector_lack_the_pixel_size(network: Network, tmp_path: Path) -> None:
    (tmp_path / "site.yml").write_text("site: test\nnodes: {}\n")
    options = {"frames": "receiver", "geometry": PLACE}
    with pytest.raises(GeometryError, match="no pixel size"):
        network.start(Integrator, site=load_site(tmp_path / "site.yml"), **options)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("mask: mask.npy", MaskError, r"mask\.npy: no such mask"),
        ("geometry: none.poni", GeometryError, r"none\.poni: no such file"),
    ],
)
def test_missing_files_are_named(network: Network, tmp_path: Path, text: str, error: Any, message: str) -> None:
    body = f"site: test\ndetector: {{model: jungfrau, geometry: {PLACE}}}\nnodes:\n  integrator: {{type: integrator}}\n"
    (tmp_path / "site.yml").write_text(body)
    key, _, value = text.partition(": ")
    with pytest.raises(error, match=message):
        network.start(Integrator, site=load_site(tmp_path / "site.yml"), frames="receiver", **{key: value})


def test_a_site_without_geometry_or_source_is_refused(network: Network, tmp_path: Path) -> None:
    (tmp_path / "site.yml").write_text("site: test\ndetector: {model: jungfrau}\nnodes: {}\n")
    site = load_site(tmp_path / "site.yml")
    with pytest.raises(ConfigurationError, match="which node's images"):
        network.start(Integrator, site=site)
    with pytest.raises(ConfigurationError, match="there is no geometry"):
        network.start(Integrator, site=site, frames="receiver")


@pytest.mark.parametrize(
    "options",
    [
        {"unit": "q_nm"},
        {"bins": 0},
        {"split": "half"},
        {"policy": "sometimes"},
        {"rois": {"not a name": [0, 0, 1, 1]}},
        {"polarization": 2},
        {"bin": 100},
    ],
)
def test_wrong_options_are_refused(options: Any) -> None:
    with pytest.raises(ValidationError):
        Integrator.Options(**options)


def test_checking_options_needs_neither_pyfai_nor_a_compiler() -> None:
    import subprocess
    import sys

    code = "import sys, sisockdaq.nodes.integrator; print([m for m in ('pyFAI', 'numba', 'fabio') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
