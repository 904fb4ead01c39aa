"""Converted JUNGFRAU frames through everything behind the receiver: files, archive, client, integrator."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401  (gives h5py the filter of the files)
import numpy as np
import pytest
from sisockdaq.nodes.detector_receiver import DetectorReceiver
from sisockdaq.nodes.file_writer import FileWriter
from sisockdaq.nodes.hdf5_archive import Hdf5Archive
from sisockdaq.nodes.integrator import Integrator

from sisockdaq.conversion import STAGES, JungfrauModel, save_gains
from sisockdaq.conversion.kernels import warm_up as warm_up_conversion
from sisockdaq.detector.description import DetectorOptions
from sisockdaq.detector.kernel import warm_up
from sisockdaq.detector.simulator import Disturbance, Simulated, Simulation, simulate
from sisockdaq.integrate.kernels import warm_up as warm_up_integration
from sisockdaq.nexus.check import check_file
from sisockdaq.site import Site, load_site
from sisockdaq.testing.network import Network
from sisockdaq.testing.waiting import wait_until

DETECTOR = DetectorOptions(model="jungfrau", readout_rows=64)
MODEL = JungfrauModel.drawn(DETECTOR.shape, seed=11)
ENERGY = 10.0
FRAMES, DARKS = 6, 50
DEAD, MASKED = (5, 7), (20, 21)
"""A pixel that never changes, and one that the site leaves out."""

RAW_SATURATION = 16_000
SITE = f"""
site: test
data: data
detector:
  model: jungfrau
  readout_rows: 64
  saturation_value: {RAW_SATURATION}
  mask: mask.npy
  geometry: {{distance: 0.2, poni1: 0.0024, poni2: 0.03, wavelength: 1.0e-10}}
nodes:
  receiver: {{type: detector_receiver, udp: [{{port: 50000}}]}}
  integrator: {{type: integrator, bins: 100}}
  file_writer: {{type: file_writer, results: [integrator]}}
"""


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    warm_up()
    warm_up_conversion()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    save_gains(MODEL.gain, tmp_path / "gains.h5")
    mask = np.zeros(DETECTOR.shape, bool)
    mask[MASKED] = True
    np.save(tmp_path / "mask.npy", mask)
    (tmp_path / "site.yml").write_text(SITE)
    return load_site(tmp_path / "site.yml")


def send(
    receiver: Any, images: list[Any], frames: int | None, first: int, stop: Any = None, **disturbance: Any
) -> Simulated:
    return simulate(
        DETECTOR,
        [("127.0.0.1", port) for port in receiver.ports],
        frames=frames,
        rate=100,
        first_frame=first,
        simulation=Simulation(DETECTOR, images=images),
        disturbance=Disturbance(**disturbance),
        stop=stop,
    )


def seen(receiver: Any, number: int) -> bool:
    """Whether that frame has come through the receiver."""
    return bool(receiver.store.timelines["frame"].series["frame_number"].latest()[1] == number)


def take_pedestal(network: Network, receiver: Any) -> int:
    """Take darks of all stages; return the number of the next frame.

    Each stage is sent until it has its darks, as a detector does: how many of them a busy machine has to pass over is
    its own affair. The frames still on their way are taken in before the next stage.
    """
    first = 1
    for stage in STAGES:
        images = [MODEL.dark(stage, frame) for frame in range(16)]
        for image in images:
            image[DEAD] = images[0][DEAD]
        network.call("control.receiver.take_dark", stage, DARKS, user="control")
        stop = threading.Event()
        with ThreadPoolExecutor() as pool:
            sending = pool.submit(send, receiver, images, None, first, stop=stop)
            try:
                wait_until(
                    lambda: not network.call("control.receiver.dark_status", user="control")["active"], 60, stage
                )
            finally:
                stop.set()
            first += sending.result(20).frames
        wait_until(partial(seen, receiver, first - 1), 20, "the last dark to be seen")
    assert network.call("control.receiver.save_pedestal", user="control")["bad"] == 1
    return first


def light() -> Any:
    """Photons that need all three stages."""
    photons = np.random.default_rng(1).poisson(3, DETECTOR.shape)
    photons[10:20, 10:30] = 300
    photons[30:34, 100:120] = 4000
    return photons


def test_kernels_for_converted_pixels_are_compiled_beforehand() -> None:
    """What the integrator must compile when frames come keeps them in the ring meanwhile, until it is full."""
    compiled = {np.dtype(each) for each in signature(warm_up_integration).parameters["dtypes"].default}
    assert {np.dtype(name) for name in ("float32", "int32", "uint16")} <= compiled


@pytest.mark.parametrize("output", ["photons", "keV"])
def test_converted_frames_reach_files_archive_and_curves(
    network: Network, site: Site, tmp_path: Path, output: str
) -> None:
    (network.state.path / "detector-receiver.json").unlink(missing_ok=True)
    conversion = {"output": output, "gain": "gains.h5"}
    if output == "photons":
        conversion["photon_energy"] = ENERGY  # keV need none
    receiver = network.start(
        DetectorReceiver, name="receiver", site=site, udp=[{"port": 0}], ring_slots=64, conversion=conversion
    ).node
    integrator = network.start(Integrator, site=site, **site.nodes["integrator"].options).node
    writer = network.start(FileWriter, site=site, images_per_file=4, **site.nodes["file_writer"].options).node
    network.start(Hdf5Archive, site=site, scan_interval=0.2, growing_interval=0.05)
    first = take_pedestal(network, receiver)
    wait_until(lambda: len(writer.engine.sources) == 2 and integrator.live.state.attached, 20, "all to attach")

    meta = {"count_time": 0.01, "frame_time": 0.01, "source_name": "a source", "total_flux": 1e12}
    network.call("control.file_writer.start", "run", FRAMES, meta=meta, user="control")
    raw = [MODEL.raw(light() * ENERGY, frame) for frame in range(4)]
    send(receiver, raw, FRAMES, first, loss=0.2)
    status: dict[str, Any] = {}

    def ended() -> bool:
        status.update(network.call("control.file_writer.status", user="control"))
        return status["state"] == "READY"

    wait_until(ended, 30, "the end of the acquisition")
    assert (status["acquisition_state"], status["frames_written"]) == ("FINISHED", FRAMES), status["message"]
    assert status["ledger"]["frames_partial"] > 0

    # What the file says.
    dtype = np.dtype("int32" if output == "photons" else "float32")
    unit = 1.0 if output == "photons" else ENERGY
    with h5py.File(status["master"], locking=False) as master:  # archive and test are one process
        detector = master["entry/instrument/detector"]
        error, mask = detector["error_value"][()], detector["pixel_mask"][()]
        underload, saturation = detector["underload_value"][()], detector["saturation_value"][()]
        images = np.concatenate([master[f"entry/data/data_{n:06d}"][()] for n in (1, 2)])
        sums = np.concatenate([master[f"entry/series/data_{n:06d}"]["receiver/sum"][()] for n in (1, 2)])
        assert detector["bit_depth_readout"][()] == 16
        assert detector["bit_depth_image"][()] == 32
    assert images.dtype == dtype
    assert np.isnan(error) if output == "keV" else error == np.iinfo(dtype).min
    without = np.isnan(images) if output == "keV" else images == error
    assert mask[MASKED] != 0
    assert mask[DEAD] & 2
    assert np.count_nonzero(mask) == 2
    assert without[:, *DEAD].all()
    whole_packets = without.reshape(FRAMES, 16, 4096).all(axis=2)  # four rows each
    lost = np.repeat(whole_packets, 4, axis=1)[:, :, None]
    assert whole_packets.sum() == status["ledger"]["packets_lost"] > 0
    assert np.count_nonzero(without & ~lost) == np.count_nonzero(~lost[:, DEAD[0]])
    expected = np.broadcast_to(light() * unit, images.shape)
    np.testing.assert_allclose(images[~without], expected[~without], rtol=0.02, atol=0.4 * unit)
    assert underload < 0
    assert images[~without].min() >= underload
    assert images[~without].max() <= saturation
    assert saturation != RAW_SATURATION
    np.testing.assert_allclose(sums, np.where(without, 0, images).sum(axis=(1, 2), dtype=float), rtol=1e-6)
    found = check_file(Path(status["master"])).findings
    assert [each.where for each in found if "NXmx" in each.required_by] == []

    # The archive and the client.
    wait_until(lambda: any(e["frames"] == FRAMES for e in network.client.acquisitions()), 20, "the archive")
    image = network.client.image("receiver::image", run="run", frame=2)
    np.testing.assert_array_equal(image.values, images[2])
    np.testing.assert_array_equal(image.mask, without[2])
    live = network.client.image("receiver::image")
    assert live.values.dtype == dtype

    # The integrator leaves out what has no value.
    unusable = network.wait_for("integrator::unusable", samples=FRAMES)
    gone = without.copy()
    gone[:, *MASKED] = False
    assert unusable[-FRAMES:] == gone.sum(axis=(1, 2)).tolist()
    total = network.wait_for("integrator::total", samples=FRAMES)
    used = ~without[-1]
    used[MASKED] = False
    assert total[-1] == pytest.approx(images[-1][used].sum(dtype=float), rel=1e-6)
    curve = network.client.get("integrator::curve", start=-60)["integrator::curve"].values[-1]
    assert np.isfinite(curve).all()
    maximum = network.wait_for("integrator::maximum", samples=FRAMES)
    assert maximum[-1] == images[-1][used].max()
