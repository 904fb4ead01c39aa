"""Rings of calibrants in images that pyFAI's geometry makes: found where they are, and what is off by how much."""

from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from sisockdaq.calibration import Geometry, find_rings, load_calibrant
from sisockdaq.calibration.overlay import draw_overlay, save_overlay
from sisockdaq.errors import ConfigurationError, GeometryError, StorageError

from .places import PIXEL, image_of

SHAPE = (487, 619)
SAXS = Geometry.of_beam(1.2, (290.7, 232.6), PIXEL, wavelength=1e-10, shape=SHAPE, origin="saxs.poni")
WAXS = Geometry.of_beam(0.15, (100.0, 80.0), PIXEL, tilt=0.15, rotation=0.5, wavelength=5e-11, shape=SHAPE)


@pytest.fixture(scope="module")
def saxs():
    return image_of(SAXS, "AgBh")


@pytest.fixture(scope="module")
def waxs():
    return image_of(WAXS, "LaB6")


def moved(geometry, x=0.0, y=0.0):
    return geometry.changed(poni1=geometry.poni1 + y * PIXEL[0], poni2=geometry.poni2 + x * PIXEL[1])


def test_all_rings_are_found_where_they_are(saxs, waxs):
    for geometry, image, calibrant, least in ((SAXS, saxs, "AgBh", 3), (WAXS, waxs, "LaB6", 10)):
        report = find_rings(geometry, image, calibrant)
        assert report.count("found") == len(report.rings) >= least
        assert report.findings == ()
        assert report.scale == pytest.approx(1, abs=2e-3)
        assert max(abs(ring.shift) for ring in report.rings) < 0.5
    assert [ring.spacing for ring in find_rings(SAXS, saxs, "agbh").rings] == pytest.approx([58.38, 29.19, 19.46])


@pytest.mark.parametrize("factor", [1.01, 1.08, 0.95])
def test_a_distance_that_is_a_little_off_is_told_with_the_right_one(saxs, factor):
    (finding,) = find_rings(SAXS.changed(distance=1.2 * factor), saxs, "AgBh").findings
    assert finding.about == "distance"
    told = float(finding.reason.split("a distance of ")[1].split()[0])
    assert told == pytest.approx(1.2, rel=2e-3)


@pytest.mark.parametrize("factor", [0.5, 0.75, 1.33, 1.67])
def test_a_distance_that_is_far_off_is_guessed_from_the_pattern(saxs, factor):
    (finding,) = find_rings(SAXS.changed(distance=1.2 * factor), saxs, "AgBh").findings
    assert (finding.about, finding.severity) == ("distance", "error")
    assert float(finding.reason.split("a distance of ")[1].split()[0]) == pytest.approx(1.2, rel=5e-3)


@pytest.mark.parametrize(("x", "y"), [(3, 0), (-1, 1), (10, -5), (-15, -12)])
def test_a_beam_centre_that_is_off_is_told_with_the_right_one(saxs, x, y):
    report = find_rings(moved(SAXS, x, y), saxs, "AgBh")
    assert report.centre_shift == pytest.approx((-x, -y), abs=0.6)
    (finding,) = report.findings
    assert finding.about == "beam_centre"


def test_rings_behind_a_mask_and_gaps_do_not_mislead(saxs):
    image = saxs.copy()
    image[200:217] = np.iinfo(image.dtype).max  # as detectors mark them
    mask = np.zeros(SHAPE, bool)
    mask[225:, 280:300] = True
    image[mask] = 100_000
    report = find_rings(SAXS, image, "AgBh", mask)
    assert report.count("found") == 3
    assert report.findings == ()
    signed = np.where(mask, -2, saxs).astype(np.int32)
    assert find_rings(SAXS, signed, "AgBh").findings == ()
    unknown = np.where(mask, np.nan, saxs)
    assert find_rings(SAXS, unknown, "AgBh").findings == ()


def test_an_image_without_rings_or_of_something_else(saxs, waxs):
    flat = np.random.default_rng(1).poisson(20, SHAPE).astype(np.uint16)
    (finding,) = find_rings(SAXS, flat, "AgBh").findings
    assert "none of the 3 rings" in finding.reason
    assert find_rings(WAXS, waxs, "CeO2").findings
    (finding,) = find_rings(SAXS, saxs, "LaB6").findings
    assert "no ring of LaB6 would lie in the image" in finding.reason


def test_what_is_needed_is_asked_for(saxs, tmp_path):
    with pytest.raises(ConfigurationError, match='"Unobtainium" is no calibrant') as caught:
        find_rings(SAXS, saxs, "Unobtainium")
    assert "AgBh" in caught.value.remedy
    with pytest.raises(GeometryError, match="no wavelength"):
        find_rings(SAXS.changed(wavelength=None), saxs, "AgBh")
    spacings = tmp_path / "mine.D"
    spacings.write_text("58.38\n29.19\n")
    assert list(load_calibrant(str(spacings)).dspacing) == [58.38, 29.19]


# The picture


def points_of(picture, colour):
    """Return x and y of the points of (nearly) a colour, without the margins."""
    pixels = np.asarray(picture)[46 : 46 + SHAPE[0], 70 : 70 + SHAPE[1]].astype(int)
    y, x = np.nonzero((np.abs(pixels - np.array(colour)) < 40).all(axis=-1))
    return x, y


def test_the_picture_has_rings_where_theory_puts_them(saxs):
    blank = np.zeros(SHAPE, np.uint8)
    picture = draw_overlay(SAXS, blank, "AgBh")
    x, y = points_of(picture, (80, 220, 255))
    assert x.size > 500
    radius = np.hypot(x + 0.5 - 290.7, y + 0.5 - 232.6)
    radii = 1.2 / PIXEL[0] * np.tan(2 * np.arcsin(1 / 2 / np.array([58.38, 29.19, 19.46])))
    off = np.abs(radius[:, None] - radii).min(axis=1)
    assert np.mean(off < 1.5) > 0.7  # the rest are labels
    for expected in radii:
        assert np.any(np.abs(radius - expected) < 1)


def test_the_picture_shows_image_mask_and_what_became_of_rings(saxs, tmp_path):
    mask = np.zeros(SHAPE, bool)
    mask[200:217] = True
    shifted = SAXS.changed(distance=1.25)
    report = find_rings(shifted, saxs, "AgBh", mask)
    save_overlay(tmp_path / "rings.png", shifted, saxs, "AgBh", mask, report.rings)
    with Image.open(tmp_path / "rings.png") as picture:
        assert picture.format == "PNG"
        assert picture.size == (SHAPE[1] + 100, SHAPE[0] + 124)
        grey = points_of(picture, (110, 116, 122))
        assert np.median(grey[1]) == pytest.approx(208, abs=2)
        assert points_of(picture, (255, 176, 32))[0].size > 200
        bright = np.asarray(picture)[46 : 46 + SHAPE[0], 70 : 70 + SHAPE[1]].sum(axis=-1)
    ring = 1.2 / PIXEL[0] * math.tan(2 * math.asin(1 / 2 / 58.38))
    row, column = round(232.6 + ring / math.sqrt(2)), round(290.7 - ring / math.sqrt(2))
    assert bright[row - 2 : row + 3, column - 2 : column + 3].max() > 2 * bright[row + 30, column + 5]
    with pytest.raises(StorageError, match="cannot be written"):
        save_overlay(tmp_path / "no" / "rings.png", SAXS, saxs, "AgBh")


@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (3000, 2), (1900, 1300)])
def test_images_of_any_size_are_drawn(shape):
    geometry = Geometry.of_beam(0.1, (-5.0, 3.0), PIXEL, wavelength=1e-10, shape=shape)
    picture = draw_overlay(geometry, np.ones(shape, np.float32), "CeO2")
    assert max(picture.size) <= 1400
