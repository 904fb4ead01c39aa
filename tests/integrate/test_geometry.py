"""Pixel positions to the last bit of pyFAI's, and geometries that cannot be right."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from pyFAI.detectors import Detector
from pyFAI.integrator.azimuthal import AzimuthalIntegrator

from sisockdaq.calibration import Hints, read_geometry
from sisockdaq.errors import GeometryError
from sisockdaq.integrate import UNITS, geometry, load_geometry, radial_unit
from sisockdaq.integrate.geometry import locate_pixels
from tests.integrate.geometries import PIXEL, Case, cases
from tests.saxsdog.literal import calibration

PLACE = {"distance": 0.1, "poni1": 0.002, "poni2": 0.003, "wavelength": 1e-10}


@settings(max_examples=25, deadline=None)
@given(cases())
def test_bands_of_rows_give_pyfais_numbers(case: Case) -> None:
    pyfai = case.pyfai()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(geometry, "_PIXELS_PER_BAND", 7 * case.shape[1])
        ours = locate_pixels(
            pyfai, case.unit, split="bbox", solid_angle=case.solid_angle, polarization=case.polarization
        )
    centre = pyfai.array_from_unit(case.shape, "center", case.unit, scale=False)
    delta = pyfai.array_from_unit(case.shape, "delta", case.unit, scale=False)
    np.testing.assert_array_equal(ours.centre, centre.ravel())
    np.testing.assert_array_equal(ours.half_width, delta.ravel())
    weight = np.ones(case.shape)
    if case.solid_angle:
        weight *= pyfai.solidAngleArray(case.shape)
    if case.polarization is not None:
        weight *= pyfai.polarization(case.shape, case.polarization)
    np.testing.assert_allclose(ours.normalization, weight.ravel(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("orientation", [1, 2, 3, 4])
def test_every_orientation_of_the_detector(orientation: int) -> None:
    detector = Detector(PIXEL, PIXEL, max_shape=(50, 70), orientation=orientation)
    pyfai = AzimuthalIntegrator(0.1, 0.001, 0.004, 0.1, 0.2, 0.3, detector=detector, wavelength=1e-10)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(geometry, "_PIXELS_PER_BAND", 700)
        ours = locate_pixels(pyfai, "q_nm^-1", split="bbox")
    np.testing.assert_array_equal(ours.centre, pyfai.center_array((50, 70), "q_nm^-1", scale=False).ravel())
    np.testing.assert_array_equal(ours.half_width, pyfai.delta_array((50, 70), "q_nm^-1", scale=False).ravel())


def test_units_have_pyfais_scale() -> None:
    from pyFAI.units import to_unit

    for name in UNITS:
        assert radial_unit(name).scale == to_unit(name).scale
    assert (radial_unit("q_A^-1").quantity, radial_unit("q_A^-1").unit) == ("q", "Å^-1")
    assert (radial_unit("2th_deg").quantity, radial_unit("r_mm").unit) == ("2theta", "mm")


def test_a_geometry_is_copied() -> None:
    detector = Detector(PIXEL, PIXEL, max_shape=(50, 70))
    mine = AzimuthalIntegrator(0.1, 0.001, 0.004, detector=detector, wavelength=1e-10)
    copy = load_geometry(mine)
    copy.dist = 3
    assert mine.dist == 0.1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"distance": None}, "has no distance"),
        ({"distance": -0.1}, r"distance is -0\.1, and must be greater than 0"),
        ({"distance": float("nan")}, "distance is nan, not a finite number"),
        ({"poni1": float("inf")}, "poni1 is inf"),
        ({"wavelength": 0}, "wavelength is 0, and must be greater than 0"),
        ({"rot1": 45}, r"rot1 is 45 rad .*radians, not degrees"),
        ({"poni2": "left"}, "poni2 is 'left', not a number"),
        ({"poni3": 1}, "no parameter 'poni3'"),
    ],
)
def test_impossible_parameters_are_named(change: Any, message: str) -> None:
    with pytest.raises(GeometryError, match=message):
        load_geometry({**PLACE, **change}, shape=(10, 10), pixel_size=PIXEL)


def test_q_needs_a_wavelength_and_angles_do_not() -> None:
    without = {key: value for key, value in PLACE.items() if key != "wavelength"}
    pyfai = load_geometry(without, shape=(10, 10), pixel_size=PIXEL)
    for unit in ("2th_deg", "2th_rad", "r_mm"):
        locate_pixels(pyfai, unit, split="bbox")
    with pytest.raises(GeometryError, match=r"no wavelength, which q_A\^-1 needs"):
        locate_pixels(pyfai, "q_A^-1", split="no")


PONI = """poni_version: 2.1
Detector: Detector
Detector_config: {"pixel1": 7.5e-05, "pixel2": 7.5e-05, "max_shape": [40, 30], "orientation": 3}
Distance: 0.1
Poni1: 0.002
Poni2: 0.003
Rot1: 0.0
Rot2: 0.0
Rot3: 0.0
Wavelength: 1e-10
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such file"),
        ("", "has no Distance, Poni1, Poni2"),
        ("Distance: 0.1\nPoni1: 0.1\n", "has no Poni2"),
        (PONI.replace("0.1\n", "far\n"), "is not a PONI file"),
        (PONI.replace("Detector: Detector", "Detector: Nonsense"), "is not a PONI file"),
        (PONI.replace("Distance: 0.1", "Distance: -0.1"), r"distance is -0\.1"),
        (PONI.replace("Wavelength: 1e-10", "Wavelength: nan"), "wavelength is nan"),
        (PONI, r"is for images of 40 × 30 pixels \(rows × columns\), not 30 × 40"),
    ],
)
def test_bad_poni_files_are_named(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "detector.poni"
    if text is not None:
        path.write_text(text)
    with pytest.raises(GeometryError, match=message) as refusal:
        load_geometry(path, shape=(30, 40))
    assert str(path) in refusal.value.message


def test_a_binary_file_is_no_poni(tmp_path: Path) -> None:
    (tmp_path / "detector.poni").write_bytes(bytes(range(256)))
    with pytest.raises(GeometryError, match=r"detector\.poni"):
        load_geometry(tmp_path / "detector.poni")


def test_a_geometry_costs_no_import_of_scipys_signal_processing_until_it_is_used() -> None:
    program = """
import sys
from sisockdaq.integrate import load_geometry
load_geometry({"distance": 0.1}, shape=(10, 10), pixel_size=1e-4).getFit2D()
assert "scipy.signal" not in sys.modules
from pyFAI import parallax
from pyFAI.utils import mathutil
widths = mathutil.peak_widths([0.0, 1.0, 3.0, 1.0, 0.0], [2])[0]
import scipy.signal
assert parallax.scipy.signal is scipy.signal
assert scipy.signal.peak_widths([0.0, 1.0, 3.0, 1.0, 0.0], [2])[0] == widths
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


FIT2D = "directDist = 120\ncenterX = 11.5\ncenterY = 21.25\ntilt = 3\ntiltPlanRotation = 40\nwavelength = 1.1\n"


def test_calibrations_of_other_kinds_are_geometries(tmp_path: Path) -> None:
    fit2d, saxsdog = tmp_path / "fit2d.log", tmp_path / "saxsdog.json"
    fit2d.write_text(FIT2D)
    saxsdog.write_text(json.dumps(calibration((40, 30))))
    for path, pixel in ((fit2d, 75e-6), (saxsdog, None)):
        found = load_geometry(path, shape=(40, 30), pixel_size=pixel)
        hints = Hints() if pixel is None else Hints(pixel_size=(pixel, pixel))
        expected = read_geometry(path, hints).to_pyfai((40, 30))
        for unit in ("q_nm^-1", "chi_rad"):
            np.testing.assert_array_equal(found.center_array((40, 30), unit), expected.center_array((40, 30), unit))
    # What the file says goes before what the site says; and it is for images of its own shape.
    assert load_geometry(saxsdog, shape=(40, 30), pixel_size=75e-6).detector.pixel1 == pytest.approx(172e-6)
    with pytest.raises(GeometryError, match="is for images of 40 × 30"):
        load_geometry(saxsdog, shape=(30, 40))
    with pytest.raises(GeometryError, match="how large a pixel is"):
        load_geometry(fit2d, shape=(40, 30))
