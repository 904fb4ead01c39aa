"""`Geometry` against pyFAI: its numbers, Fit2D's, and PONI files there and back."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pyFAI.integrator.azimuthal import AzimuthalIntegrator

from sisockdaq.calibration import Geometry, read_geometry
from sisockdaq.calibration.geometry import detector_class
from sisockdaq.errors import GeometryError, StorageError
from sisockdaq.integrate import load_geometry

from .places import PIXEL, SHAPE, angles_of, geometries


@settings(max_examples=30, deadline=None)
@given(geometries())
def test_the_beam_is_where_pyfai_says(geometry):
    assume(all(angle == 0 or abs(angle) > 1e-6 for angle in (geometry.rot1, geometry.rot2)))  # pyFAI takes less for 0
    fit2d = geometry.to_pyfai().getFit2D()
    assert geometry.beam_centre == pytest.approx((fit2d["centerX"], fit2d["centerY"]), abs=1e-4)
    assert geometry.beam_distance == pytest.approx(fit2d["directDist"] / 1e3)
    assert math.degrees(geometry.tilt) == pytest.approx(fit2d["tilt"], abs=1e-5)


@settings(max_examples=30, deadline=None)
@given(
    st.floats(0.01, 10),
    st.tuples(st.floats(-500, 1000), st.floats(-500, 1000)),
    st.floats(-40, 40),
    st.floats(-180, 180),
)
def test_fit2ds_parameters_become_what_pyfai_makes_of_them(distance, centre, tilt, rotation):
    mine = Geometry.of_beam(
        distance, centre, PIXEL, tilt=math.radians(tilt), rotation=math.radians(rotation), shape=SHAPE
    )
    theirs = AzimuthalIntegrator(detector=mine.to_pyfai().detector)
    theirs.setFit2D(distance * 1e3, *centre, tilt, rotation, pixelX=172, pixelY=172)
    np.testing.assert_allclose(angles_of(mine), theirs.center_array(SHAPE, "2th_rad"), atol=1e-7)
    assert mine.beam_centre == pytest.approx(centre, abs=1e-3)
    back = mine.to_fit2d()
    again = Geometry.of_beam(
        back["directDist"] / 1e3,
        (back["centerX"], back["centerY"]),
        PIXEL,
        tilt=math.radians(back["tilt"]),
        rotation=math.radians(back["tiltPlanRotation"]),
        shape=SHAPE,
    )
    np.testing.assert_allclose(angles_of(again), angles_of(mine), atol=1e-6)


@settings(max_examples=15, deadline=None)
@given(geometries())
def test_a_poni_file_says_the_same_again(tmp_path_factory, geometry):
    path = tmp_path_factory.mktemp("poni") / "detector.poni"
    geometry.save(path)
    read = read_geometry(path)
    assert read.kind == "PONI file"
    numbers = ("distance", "poni1", "poni2", "rot1", "rot2", "rot3", "wavelength", "pixel_size", "shape")
    assert {name: getattr(read, name) for name in numbers} == {name: getattr(geometry, name) for name in numbers}
    np.testing.assert_array_equal(load_geometry(path, shape=SHAPE).center_array(SHAPE, "2th_rad"), angles_of(geometry))


@pytest.mark.parametrize("orientation", [1, 2, 3, 4])
def test_the_beam_is_where_rings_are_around_however_pyfai_turns_the_image(orientation):
    from pyFAI.detectors import Detector

    sensor = Detector(*PIXEL, max_shape=SHAPE, orientation=orientation)
    geometry = Geometry.of_pyfai(AzimuthalIntegrator(0.1, 0.01, 0.02, 0.05, -0.04, 0.1, detector=sensor))
    angle = geometry.to_pyfai().center_array(SHAPE, "2th_rad")
    row, column = np.unravel_index(np.argmin(angle), SHAPE)
    x, y = geometry.beam_centre
    assert (column, row) == (int(x), int(y))


def test_another_pixel_size_leaves_the_beam_in_its_pixel():
    geometry = Geometry.of_beam(1.0, (100.5, 50.25), PIXEL)
    assert geometry.changed(pixel_size=(75e-6, 75e-6)).beam_centre == pytest.approx((100.5, 50.25))


def test_a_known_detector_stays_known_in_the_poni_file(tmp_path):
    geometry = Geometry.of_beam(1.0, (490, 520), PIXEL, shape=(1043, 981), detector="PILATUS3 1M, S/N 10-0123, Si")
    geometry.save(tmp_path / "p.poni")
    assert "Detector: Pilatus1M" in (tmp_path / "p.poni").read_text()


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("Dectris EIGER2 Si 9M", None),
        ("Dectris EIGER2 9M", "Eiger2_9M"),
        ("PILATUS 6M, S/N 60-0109", "Pilatus6M"),
        ("Dectris Eiger 16M, E-32-0101", "Eiger16M"),
        ("Pilatus1M", "Pilatus1M"),
        ("Detector", None),
        ("", None),
    ],
)
def test_detectors_are_known_by_the_names_that_files_have(name, known):
    found = detector_class(name)
    assert (found and found.__name__) == known


def test_what_cannot_be_used_is_refused_and_no_file_is_overwritten(tmp_path):
    with pytest.raises(GeometryError, match=r"x\.poni: distance is -1"):
        Geometry(-1.0, 0, 0, pixel_size=PIXEL, shape=SHAPE, origin="x.poni").to_pyfai()
    with pytest.raises(GeometryError, match="61 × 97"):
        Geometry(1.0, 0, 0, pixel_size=PIXEL, shape=SHAPE).to_pyfai((10, 10))
    with pytest.raises(GeometryError, match="tilt is nan"):
        Geometry.of_beam(1.0, (1, 1), PIXEL, tilt=math.nan)
    path = tmp_path / "there.poni"
    path.write_text("mine")
    with pytest.raises(StorageError, match="exists already"):
        Geometry(1.0, 0, 0, pixel_size=PIXEL).save(path)
    Geometry(1.0, 0, 0, pixel_size=PIXEL).save(path, replace_file=True)
    assert read_geometry(path).distance == 1.0
