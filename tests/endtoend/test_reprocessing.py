"""Recorded frames integrated again: with the same settings the numbers that were live, to the last bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import yaml
from pyFAI.integrator.azimuthal import AzimuthalIntegrator

from sisockdaq.detector.simulator import Disturbance
from sisockdaq.integrate import Integrator
from sisockdaq.integrate.epochs import mask_digest
from sisockdaq.nexus.check import check_file
from sisockdaq.nexus.reduced import read_reduced
from tests.command_line import run_command
from tests.endtoend.house import House, series_of, wait_for

PARTS = {
    "sectors": {"right": {"azimuth_range": [-60, 60], "bins": 50}},
    "cake": {"azimuth_bins": 18, "bins": 40},
    "rois": {"beam": [10, 10, 60, 60]},
    "invariants": True,
    "monitor": {"field": "receiver::sum", "max_age": 0.001, "wait": 2},
    "transmission": 0.5,
}
"""Everything that a frame can become; each is divided by the sum of its pixels, which the receiver publishes."""

CURVES = ("curve", "sigma", "curve_right", "sigma_right")
NUMBERS = ("total", "unusable", "monitor", "transmission", "roi_beam", "I0", "I1", "I2", "correlation_length", "Rg")


def site_with(house: House, folder: Path, settings: dict[str, Any]) -> Path:
    """Write a site file whose integrator has other settings."""
    site = yaml.safe_load(house.trial.site.file.read_text())
    site["nodes"]["integrator"] |= settings
    path = folder / "site.yml"
    path.write_text(yaml.safe_dump(site))
    return path


def reprocessed(master: Path, folder: Path, *words: str) -> Any:
    done = run_command("integrate", str(master), *words, "--to", str(folder), "--no-cache", timeout=120)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*_azint_000001.h5")
    return read_reduced(path), done.stderr


def check_same(again: Any, master: Path, rows: list[int], live_file: Path) -> None:
    """Compare what frames became again with what was live: in the master, and cakes in the integrator's own file."""
    for name in CURVES:
        curve = again.products[name.replace("sigma", "curve", 1) if name.startswith("sigma") else name]
        values = curve.sigma if name.startswith("sigma") else curve.intensity
        np.testing.assert_array_equal(values, series_of(master, "integrator", name)[rows], name)
    for name in NUMBERS:
        np.testing.assert_array_equal(again.numbers[name], series_of(master, "integrator", name)[rows], name)
    np.testing.assert_array_equal(again.time, series_of(master, "receiver", "time")[rows])
    live = wait_for(lambda: (found := read_reduced(live_file)).state == "finished" and found, "the live cakes")
    np.testing.assert_array_equal(live.index, rows)
    for name in ("cake", "curve", "curve_right"):
        np.testing.assert_array_equal(again.products[name].intensity, live.products[name].intensity, name)
        np.testing.assert_array_equal(again.products[name].sigma, live.products[name].sigma, name)
    np.testing.assert_array_equal(again.monitor, live.monitor)


def test_reprocessing_gives_the_live_numbers_and_another_poni_gives_pyfais(house: House, tmp_path: Path) -> None:
    first = house.next_frame
    gone = frozenset({first + 4, first + 31})
    with house.integrating(**PARTS) as epoch:
        run, _ = house.acquire(40, disturbance=Disturbance(loss=0.02, lost_frames=gone))
    house.archived(run, 40)
    master = Path(run.status()["master"])
    here = [index for index in range(40) if first + index not in gone]

    again, said = reprocessed(master, tmp_path, "--site", str(site_with(house, tmp_path, PARTS)))
    assert "not in the files of the acquisition: 4, 31" in said
    assert again.index.tolist() == here
    live = house.trial.site.resolve_output("reduced") / f"{run.name}_azint_{epoch['number']:06d}.h5"
    check_same(again, master, here, live)
    assert again.numbers["unusable"].max() > 0
    np.testing.assert_array_equal(again.numbers["monitor"], series_of(master, "receiver", "sum")[here])
    np.testing.assert_array_equal(again.numbers["frame_number"], np.array(here) + first)

    place = {"distance": 0.13, "poni1": 0.011, "poni2": 0.03, "rot1": 0.05, "rot2": -0.02, "wavelength": 1.1e-10}
    poni = tmp_path / "new.poni"
    poni.write_text(Integrator(place, shape=house.detector.shape, pixel_size=house.detector.pixel_size).poni)
    words = ["-g", str(poni), "--bins", "150", "--split", "bbox", "--unit", "q_A^-1", "--to", str(tmp_path / "new")]
    other = run_command("integrate", str(master), *words, "--no-cache", timeout=120)
    assert other.returncode == 0, other.stderr
    (path,) = (tmp_path / "new").iterdir()
    found = read_reduced(path)
    pyfai = AzimuthalIntegrator()
    pyfai.load(str(poni))
    for row in (0, 17, len(here) - 1):
        image = house.client.image("receiver::image", run, here[row]).values
        expected = pyfai.integrate1d(
            image.astype(np.float64),
            150,
            unit="q_A^-1",
            error_model="poisson",
            dummy=house.detector.fill,
            delta_dummy=0,
            method=("bbox", "csc", "cython"),
        )
        used = expected.count > 0
        np.testing.assert_allclose(found.product.radial.values, expected.radial, rtol=1e-6)
        np.testing.assert_allclose(found.product.intensity[row][used], expected.intensity[used], rtol=1e-6)
        np.testing.assert_allclose(found.product.sigma[row][used], expected.sigma[used], rtol=1e-6)
        assert np.isnan(found.product.intensity[row][~used]).all()
    checked = run_command("check", str(path))
    assert checked.returncode == 0, checked.stdout
    assert "good for NXazint1d" in checked.stdout


def test_a_calibration_changed_under_way_is_in_the_files_with_all_that_its_number_means(
    house: House, tmp_path: Path
) -> None:
    folder = house.trial.site.path
    hidden = np.zeros(house.detector.shape, bool)
    hidden[100:140, 300:700] = True
    np.save(folder / "hidden.npy", hidden)
    place = {"distance": 0.12, "poni1": 0.0098, "poni2": 0.0391, "rot1": 0.02, "wavelength": 1.0e-10}
    with house.integrating(**PARTS) as before:
        run = house.start(None)
        sending = house.send(None, rate=50)
        sending.reach(20)
        after = house.configure(geometry=place, mask="hidden.npy")
        sending.reach(sending.sent.frames + 30)
        frames = sending.stop().frames
        ledger = run.stop().ledger
    assert after["number"] == before["number"] + 1
    assert (ledger.frames_expected, ledger.balance()) == (frames, [])
    entry = house.archived(run, frames)
    master = Path(run.status()["master"])

    # Which frames are of which epoch, from the archive; and what it means, from the master and the archive alike.
    start, end = entry["span"]
    told = house.client.get("integrator::epoch", start=start, end=end + 0.001)["integrator::epoch"].values
    assert len(told) == frames
    assert sorted(told) == told.tolist()
    assert set(told) == {before["number"], after["number"]}
    with h5py.File(master) as file:
        about = file["entry/epochs/integrator"]
        assert list(about) == [f"epoch_{epoch['number']:06d}" for epoch in (before, after)]
        for epoch, geometry, mask in ((before, house.detector.geometry.model_dump(), None), (after, place, hidden)):
            means = about[f"epoch_{epoch['number']:06d}"]
            made = Integrator(geometry, shape=house.detector.shape, pixel_size=house.detector.pixel_size)
            assert means["poni"][()].decode() == made.poni
            assert ("mask" in means) == (mask is not None)
            if mask is not None:
                assert means["mask"][()].decode() == mask_digest(mask)
                assert means["masked"][()] == mask.sum()
            assert json.loads(means["settings"][()]) == json.loads(json.dumps(epoch["settings"]))
        everything = json.loads(file["entry/epochs/json"][()])
    assert house.archived(run)["epochs"] == everything
    report = check_file(master)
    assert f"; integrator in epochs {before['number']}, {after['number']}" in report.about
    assert not [each for each in report.findings if each.rule == "epochs"]

    # What the file says of an epoch is enough to make its numbers again, to the last bit.
    rows = np.flatnonzero(told == after["number"]).tolist()
    settings = everything["integrator"][1]["settings"]
    settings["mask"] = str(folder / settings["mask"])
    words = ["--site", str(site_with(house, tmp_path, settings)), "--frames", f"{rows[0]}:{rows[-1] + 1}"]
    again, _ = reprocessed(master, tmp_path, *words)
    live = house.trial.site.resolve_output("reduced") / f"{run.name}_azint_{after['number']:06d}.h5"
    check_same(again, master, rows, live)
