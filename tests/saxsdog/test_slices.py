"""Cuts through GISAXS images, against the mean written down pixel by pixel."""

import math

import numpy as np
import pytest

from sisockdaq.saxsdog.calibration import read_calibration
from sisockdaq.saxsdog.integration import Reduction
from tests.saxsdog import literal

SHAPE = (40, 31)
ROWS, COLUMNS = SHAPE


def cut(**changes):
    return {
        "Direction": "y", "Plane": "Vertical", "CutPosition": 12, "CutMargin": 2, "IncidentAngle": 0.3, "MaskRef": 0,
    } | changes  # fmt: skip


def image():
    return np.random.default_rng(4).integers(0, 90, SHAPE).astype(np.int32)


def reduce(entry, valid):
    conf = literal.calibration(Slices=[entry], Geometry__PixelSizeMicroM=[172.0, 100.0])
    return Reduction(read_calibration(conf), [valid]).reduce(image())[1], conf


@pytest.mark.parametrize("direction", ["x", "y"])
@pytest.mark.parametrize("plane", ["Vertical", "InPlane"])
def test_a_cut_equals_its_mean_pixel_by_pixel(direction, plane):
    valid = np.random.default_rng(5).random(SHAPE) < 0.5
    entry = cut(Direction=direction, Plane=plane)
    curve, conf = reduce(entry, valid)
    beam_y, beam_x = conf["Geometry"]["BeamCenter"]
    wanted = []
    for place in range(ROWS if direction == "y" else COLUMNS):
        pixels = []
        for across in range(9, 14):  # position 12 ± 2, counted from 1; rows from the bottom
            row, column = (place, across) if direction == "y" else (ROWS - 1 - across, place)
            if valid[row, column]:
                pixels.append(int(image()[row, column]))
        away = place - (ROWS - beam_y) if direction == "y" else place - beam_x
        size = 0.172 if plane == "Vertical" and direction == "y" else 0.1
        angle = math.atan(away * size / 800)
        wave = 1.54 * literal.ANGSTROM
        if plane == "Vertical":
            q = -2 * math.pi / wave * (math.sin(angle) + math.sin(math.radians(0.3)))
        else:
            q = 4 * math.pi / wave * math.sin(angle / 2)
        count = len(pixels) or math.nan
        wanted.append((q, sum(pixels) / count, math.sqrt(sum(pixels)) / count))
    np.testing.assert_allclose(curve.array, np.array(wanted).T, rtol=1e-9)
    assert ("q_{v}" in curve.columns[0]) == (plane == "Vertical")
    assert (curve.kind, curve.key, curve.parameters) == ("Slice", "S1", None)
    wire = curve.to_wire("a.tif")
    assert wire.keys() == {"array", "columnLabels", "kind", "conf", "slice", "Image"}
    assert wire["slice"] == entry


def test_without_a_mask_every_pixel_counts():
    curve, _ = reduce(cut(MaskRef=-1), np.eye(*SHAPE, dtype=bool))
    np.testing.assert_allclose(curve.array[1], image()[:, 9:14].mean(axis=1))


def test_a_band_over_the_edge_is_cut_off_there():
    curve, _ = reduce(cut(CutPosition=1), np.ones(SHAPE, bool))
    np.testing.assert_allclose(curve.array[1], image()[:, :3].mean(axis=1))
    curve, _ = reduce(cut(CutPosition=ROWS, Direction="x"), np.ones(SHAPE, bool))
    np.testing.assert_allclose(curve.array[1], image()[:3].mean(axis=0))
