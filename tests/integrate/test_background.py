"""Backgrounds: curves from results, arrays and text files, images as a scaled dark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sisockdaq.errors import ConfigurationError, GeometryError
from sisockdaq.integrate import Integrator, Sector, average, load_geometry, radial_unit
from sisockdaq.integrate.background import load_background, read_curve
from tests.integrate.geometries import PIXEL

SHAPE = (61, 87)
SMALL = {"distance": 0.1, "poni1": 0.002, "poni2": 0.0031, "rot1": 0.05, "wavelength": 1e-10}


def small(**options: Any) -> Integrator:
    return Integrator(SMALL, **{"shape": SHAPE, "pixel_size": PIXEL, "bins": 40, "error_model": "poisson", **options})


def picture(seed: int = 0, mean: float = 100) -> Any:
    return np.random.default_rng(seed).poisson(mean, SHAPE).astype(np.uint16)


def test_a_result_is_subtracted_and_its_errors_are_added() -> None:
    empty_beam = small().integrate(picture(1, 20), monitor=2.0)
    sample = small().integrate(picture(2))
    ours = small(background=empty_beam, background_scale=0.7).integrate(picture(2))
    assert sample.sigma is not None
    assert empty_beam.sigma is not None
    assert ours.sigma is not None
    np.testing.assert_allclose(ours.intensity, sample.intensity - 0.7 * empty_beam.intensity, rtol=1e-12)
    np.testing.assert_allclose(ours.sigma, np.hypot(sample.sigma, 0.7 * empty_beam.sigma), rtol=1e-12)
    np.testing.assert_array_equal(ours.sum_signal, sample.sum_signal)
    mean = average([ours, ours])
    np.testing.assert_allclose(mean.intensity, ours.intensity, rtol=1e-12)
    assert mean.sigma is not None
    expected = np.hypot(sample.sigma / np.sqrt(2), 0.7 * empty_beam.sigma)  # the background's error does not average
    np.testing.assert_allclose(mean.sigma, expected, rtol=1e-12)


def test_a_curve_on_another_axis_is_interpolated_with_its_errors() -> None:
    axis = small().axis
    x = np.array([axis[3], axis[3] + 4, axis[3] + 100])
    background = load_background((x, [1.0, 3.0, 3.0], [0.1, 0.2, 0.2]))
    at = np.array([x[0] - 2.1, x[0] - 1.9, x[0], x[0] + 1, x[0] + 4, x[2] + 47, x[2] + 49])
    values, sigma = background.onto(at, radial_unit("q_nm^-1"), 2.0)
    np.testing.assert_allclose(values, [np.nan, 2, 2, 3, 6, 6, np.nan])
    assert sigma is not None
    np.testing.assert_allclose(sigma[[1, 2, 4]], [0.2, 0.2, 0.4])
    np.testing.assert_allclose(sigma[3], 2 * np.hypot(0.75 * 0.1, 0.25 * 0.2))
    assert np.isnan(sigma[[0, -1]]).all()


def test_axes_of_the_same_quantity_are_converted() -> None:
    per_angstrom = small(unit="q_A^-1").integrate(picture(1))
    ours = small(background=per_angstrom).integrate(picture(1))
    np.testing.assert_allclose(ours.intensity[~np.isnan(ours.intensity)], 0, atol=1e-9)
    with pytest.raises(ConfigurationError, match=r"in 2th_deg, the curve in q_nm\^-1"):
        small(background=small(unit="2th_deg").integrate(picture(1)))


def test_a_background_image_is_a_scaled_dark() -> None:
    image, behind, dark = picture(2), picture(1, 20), np.full(SHAPE, 3.0)
    ours = small(background=behind, background_scale=0.5, dark=dark).integrate(image, monitor=4.0)
    expected = small(dark=dark + 0.5 * behind).integrate(image, monitor=4.0)
    np.testing.assert_array_equal(ours.intensity, expected.intensity)
    assert ours.background is None


def test_sectors_have_the_integrators_background_or_their_own() -> None:
    flat = ([0.0, 1000.0], [5.0, 5.0])
    sectors = {"same": Sector(), "own": Sector(background=([0.0, 1000.0], [1.0, 1.0])), "fine": Sector(bins=50)}
    parts = small(background=flat, sectors=sectors).integrate_all(picture())
    plain = small(sectors=sectors).integrate(picture())
    np.testing.assert_allclose(parts["same"].intensity, plain.intensity - 5)
    np.testing.assert_allclose(parts["own"].intensity, plain.intensity - 1)
    assert parts["fine"].background is not None
    with pytest.raises(ConfigurationError, match="sector angle: the background is in q_nm"):
        small(background=small().integrate(picture()), sectors={"angle": Sector(unit="2th_deg")})


def test_pyfais_own_files_are_read(tmp_path: Path) -> None:
    pyfai = load_geometry(SMALL, shape=SHAPE, pixel_size=PIXEL)
    for name, model in (("b.dat", "poisson"), ("c.dat", None)):
        path = tmp_path / name
        theirs = pyfai.integrate1d(
            picture(1), 40, unit="q_nm^-1", method=("no", "csc", "cython"), filename=str(path), error_model=model
        )
        curve = read_curve(path)
        assert curve.unit in ("", "q_nm^-1")  # some versions of pyFAI leave it out by mistake
        np.testing.assert_allclose(curve.intensity, theirs.intensity, rtol=1e-5)
        assert (curve.sigma is None) == (model is None)
        ours = small(background=path).integrate(picture(1))
        np.testing.assert_allclose(ours.intensity, 0, atol=1e-2)


CHI = """2-Theta scan 10 20
2-Theta Angle (Degrees)
Intensity
       3
  1.0000000E+00  2.0000000E+00
  2.0000000E+00  3.0000000E+00
  3.0000000E+00  5.0000000E+00
"""


def test_fit2ds_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "air.chi"
    path.write_text(CHI)
    curve = read_curve(path)
    assert curve.unit == "2th_deg"
    np.testing.assert_array_equal(curve.axis, [1, 2, 3])
    np.testing.assert_array_equal(curve.intensity, [2, 3, 5])


@pytest.mark.parametrize(
    ("label", "unit"),
    [
        ("# q_A^-1 I sigma", "q_A^-1"),
        ("# q_nm^-1 I", "q_nm^-1"),
        ("q [1/nm], intensity", "q_nm^-1"),
        ("q [Å⁻¹]; I", "q_A^-1"),
        ("#       2th_deg             I", "2th_deg"),
        ("# 2th_rad I", "2th_rad"),
        ("# r_mm I", "r_mm"),
        ("# x y", ""),
    ],
)
def test_the_header_tells_the_unit(tmp_path: Path, label: str, unit: str) -> None:
    path = tmp_path / "b.txt"
    path.write_text(f"a title with q in nm\n{label}\n2, 3\n\n1; 2\n3 nan\n")
    curve = read_curve(path)
    assert curve.unit == unit
    np.testing.assert_array_equal(curve.axis, [1, 2])
    np.testing.assert_array_equal(curve.intensity, [2, 3])


@pytest.mark.parametrize(
    ("background", "message"),
    [
        ("nowhere.chi", r"nowhere\.chi: no such background"),
        ("nowhere.edf", r"nowhere\.edf: no such background image"),
        (([1, 2],), "has 1 parts"),
        (([1, 2], [1, 2, 3]), r"not a curve but arrays of \(2,\), \(3,\)"),
        (([1, 1], [1, 2]), "two points at one place"),
        (([1, 2], [np.nan, np.nan]), "no point that is a number"),
        ((["a"], [1]), "not made of numbers"),
        (([5000, 6000], [1, 2]), "the background goes from 5000 to 6000, the curve from"),
    ],
)
def test_what_is_no_background_is_refused(background: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        small(background=background)


def test_a_file_without_numbers_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "b.dat"
    path.write_text("# nothing\n1\n2\n")
    with pytest.raises(ConfigurationError, match=r"b\.dat: has no two columns of numbers"):
        small(background=path)


def test_geometry_is_still_checked_first() -> None:
    with pytest.raises(GeometryError, match="distance"):
        Integrator({**SMALL, "distance": -1}, shape=SHAPE, pixel_size=PIXEL, background="nowhere.chi")
