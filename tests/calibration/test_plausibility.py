"""Every implausibility has a case, and what is right has none."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sisockdaq.calibration import Geometry, check_geometry, check_image, check_mask
from sisockdaq.calibration.geometry import ELECTRONVOLT_METRE

GOOD = Geometry(
    0.2, 0.0896, 0.0844, wavelength=1e-10, pixel_size=(172e-6, 172e-6), shape=(1043, 981), detector="Pilatus 1M"
)


def only(geometry):
    found = check_geometry(geometry)
    assert len(found) == 1, found
    assert found[0].remedy
    return found[0]


@settings(max_examples=30, deadline=None)
@given(
    st.floats(0.02, 30),
    st.tuples(st.floats(2, 980), st.floats(2, 1042)),
    st.floats(-0.7, 0.7),
    st.floats(1e-11, 4e-10),
    st.booleans(),
)
def test_a_usual_place_is_not_complained_of(distance, centre, tilt, wavelength, stated):
    geometry = Geometry.of_beam(
        distance,
        centre,
        GOOD.pixel_size,
        tilt=tilt,
        rotation=1.0,
        wavelength=wavelength,
        energy=ELECTRONVOLT_METRE / wavelength if stated else None,
        shape=GOOD.shape,
        detector="PILATUS3 1M",
    )
    assert check_geometry(geometry) == []


@pytest.mark.parametrize(
    ("changes", "about", "severity", "reason"),
    [
        ({"distance": 200.0}, "distance", "error", "0.2 m if the number is in mm"),
        ({"distance": 80.0}, "distance", "warning", "0.08 m if the number is in mm"),
        ({"distance": 200_000.0}, "distance", "error", "0.2 m if the number is in µm"),
        ({"distance": 0.0002}, "distance", "error", "0.2 m if the number is in m, where the format expects mm"),
        ({"distance": 1e12}, "distance", "error", "in any unit"),
        ({"wavelength": 1.0}, "wavelength", "error", "1e-10 m if the number is in Å"),
        (
            {"wavelength": 0.1},
            "wavelength",
            "error",
            "in Å, or 1e-10 m if the number is in nm",
        ),
        ({"wavelength": 1e-20}, "wavelength", "error", "1e-10 m if the number is in m, where the format expects Å"),
        ({"wavelength": 12.4e-10}, "wavelength", "warning", "the energy (12.4 keV), it is 0.99987 Å"),
        ({"wavelength": 12398.4e-10}, "wavelength", "error", "the energy (12398.4 eV), it is 1 Å"),
        ({"wavelength": 12.4}, "wavelength", "error", "the energy (12.4 keV)"),
        ({"wavelength": 12398.4}, "wavelength", "error", "the energy (12398.4 eV)"),
        ({"wavelength": None}, "wavelength", "warning", "no q can be computed"),
        ({"energy": 8000.0}, "energy", "error", "8000 eV is a wavelength of 1.5498 Å, but the file says 1 Å"),
        ({"energy": 12.39842}, "energy", "error", "they agree if the energy was meant in keV"),
        ({"pixel_size": (172.0, 172.0)}, "pixel_size", "error", "0.000172 m if the number is in µm"),
        ({"pixel_size": (0.172, 0.172)}, "pixel_size", "error", "0.000172 m if the number is in mm"),
        ({"pixel_size": (172e-9,) * 2}, "pixel_size", "warning", "0.000172 m if the number is in mm, where"),
        ({"pixel_size": (172e-12,) * 2}, "pixel_size", "error", "0.000172 m if the number is in m, where"),
        ({"pixel_size": (75e-6, 75e-6)}, "pixel_size", "error", "a pixel of Pilatus 1M is 172 × 172 µm"),
        ({"pixel_size": (75e-6, 75e-6), "detector": ""}, "pixel_size", "warning", "172 × 172 µm"),
        ({"pixel_size": (172e-6, 20e-6), "detector": "", "shape": (1043, 982)}, "pixel_size", "warning", "20 µm wide"),
        ({"shape": (1043, 980)}, "shape", "warning", "a Pilatus 1M has 1043 × 981"),
        ({"rot1": 1.2}, "rot1", "warning", "if it was meant in degrees, it is 0.020944 rad"),
        ({"rot2": -2.5}, "rot2", "error", "if it was meant in degrees, it is -0.043633 rad"),
        ({"rot3": 90.0}, "rot3", "error", "if it was meant in degrees, it is 1.5708 rad"),
        ({"poni1": 520.3}, "poni1", "error", "0.089492 m if it was meant in pixels, 0.5203 m if in mm"),
        ({"poni1": 0.0, "poni2": 0.0}, "beam_centre", "warning", "never been set"),
        ({"poni2": -0.05}, "beam_centre", "warning", "lies outside of the image's 981 columns and 1043 rows"),
        ({"poni2": 1000 * 172e-6}, "beam_centre", "warning", "x and y may be exchanged"),
        ({"distance": math.nan}, "distance", "error", "not a finite number"),
        ({"distance": -0.2}, "distance", "error", "not above 0"),
        ({"wavelength": 0.0}, "wavelength", "error", "not above 0"),
        ({"pixel_size": (0.0, 0.0)}, "pixel_size", "error", "a pixel has no size"),
    ],
)
def test_what_is_implausible_is_named_with_its_likely_reason(changes, about, severity, reason):
    geometry = GOOD.changed(**changes)
    if "rot1" in changes or "rot2" in changes:
        geometry = geometry.changed(shape=None)  # a lean moves the beam away, which is another finding
    found = only(geometry)
    assert (found.about, found.severity) == (about, severity)
    assert reason in found.reason


def test_images_of_a_round_size_tell_nothing_of_their_detector():
    assert check_geometry(GOOD.changed(shape=(1024, 1024), pixel_size=(75e-6, 75e-6), detector="")) == []


def test_a_binned_detector_is_none_of_another_size():
    assert check_geometry(GOOD.changed(pixel_size=(344e-6, 344e-6), shape=None)) == []


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ((1043, 981), None),
        ((981, 1043), "rows and columns were exchanged"),
        ((1679, 1475), "1679 × 1475 pixels (rows × columns), the geometry is for 1043 × 981"),
        ((3, 1043, 981), "not rows and columns"),
    ],
)
def test_an_image_of_another_detector(shape, reason):
    found = check_image(GOOD, shape)
    assert [each.severity for each in found] == ([] if reason is None else ["error"])
    assert reason is None or reason in found[0].reason


def test_an_image_that_is_binned():
    geometry = GOOD.changed(shape=(1000, 800))
    assert "is binned 2 × 2" in check_image(geometry, (500, 400))[0].reason
    assert "for binned images" in check_image(geometry, (2000, 1600))[0].reason


GAPS = np.zeros((1043, 981), bool)
GAPS[195:212] = GAPS[407:424] = GAPS[619:636] = GAPS[831:848] = True
GAPS[:, 487:494] = True


def test_a_mask_that_covers_the_gaps_of_the_detector():
    mask = GAPS.copy()
    mask[500:520, 470:500] = True
    assert check_mask(GOOD, mask) == []


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        (np.zeros((1679, 1475), bool), "1679 × 1475 pixels (rows × columns), the detector 1043 × 981"),
        (np.zeros((981, 1043), bool), "rows and columns are exchanged"),
        (np.ones((1043, 981), bool), "leaves no pixel"),
        (~GAPS, "leaves out 9"),
        (~GAPS, "marks the pixels that are good"),
        (np.zeros((1043, 981), bool), "covers 0 % of the"),
        (np.roll(GAPS, 60, axis=0), "covers"),
    ],
)
def test_a_mask_of_another_detector_or_the_other_way_round(mask, reason):
    assert any(reason in each.reason for each in check_mask(GOOD, mask))


def test_a_mask_that_is_upside_down():
    gaps = np.zeros((20, 30), bool)
    gaps[2:5] = True
    geometry = GOOD.changed(shape=(20, 30), detector="")
    assert "upside down" in check_mask(geometry, gaps[::-1], gaps)[0].reason
    assert check_mask(geometry, gaps, gaps) == []
