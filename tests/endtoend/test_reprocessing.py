"""Recorded frames integrated again: with the same settings the numbers that were live, to the last bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pyFAI.integrator.azimuthal import AzimuthalIntegrator

from sisockdaq.detector.simulator import Disturbance
from sisockdaq.integrate import Integrator
from sisockdaq.nexus.reduced import read_reduced
from tests.command_line import run_command
from tests.endtoend.house import House, series_of


def test_reprocessing_gives_the_live_numbers_and_another_poni_gives_pyfais(house: House, tmp_path: Path) -> None:
    first = house.next_frame
    gone = frozenset({first + 4, first + 31})
    run, _ = house.acquire(40, disturbance=Disturbance(loss=0.02, lost_frames=gone))
    house.archived(run, 40)
    master = Path(run.status()["master"])
    here = [index for index in range(40) if first + index not in gone]

    site = house.trial.site.file
    same = run_command("integrate", str(master), "--site", str(site), "--to", str(tmp_path), "--no-cache", timeout=120)
    assert same.returncode == 0, same.stderr
    assert "not in the files of the acquisition: 4, 31" in same.stderr
    (path,) = tmp_path.glob("*_azint_000001.h5")
    again = read_reduced(path)
    assert again.index.tolist() == here
    live = {name: series_of(master, "integrator", name)[here] for name in ("curve", "sigma", "total", "unusable")}
    assert live["unusable"].max() > 0
    np.testing.assert_array_equal(again.product.intensity, live["curve"])
    np.testing.assert_array_equal(again.product.sigma, live["sigma"])
    np.testing.assert_array_equal(again.numbers["total"], live["total"])
    np.testing.assert_array_equal(again.numbers["unusable"], live["unusable"])
    np.testing.assert_array_equal(again.numbers["frame_number"], np.array(here) + first)
    np.testing.assert_array_equal(again.time, series_of(master, "receiver", "time")[here])

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
