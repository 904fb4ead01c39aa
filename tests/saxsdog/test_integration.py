"""Curves against SAXSdog's formulas written down literally, over random geometries and masks."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sisockdaq.errors import ConfigurationError, MaskError
from sisockdaq.saxsdog import binning
from sisockdaq.saxsdog.binning import _Kinds
from sisockdaq.saxsdog.calibration import read_calibration
from sisockdaq.saxsdog.integration import Reduction
from tests.saxsdog import literal

SHAPE = (40, 31)


def picture(seed=1, shape=SHAPE, high=50):
    return np.random.default_rng(seed).integers(0, high, shape).astype(np.int32)


def valid(seed=2, share=0.9, shape=SHAPE):
    return np.random.default_rng(seed).random(shape) < share


def check(conf, mask, image, rtol=1e-9):
    (curve,) = Reduction(read_calibration(conf), [mask]).reduce(image)
    entry = conf["Masks"][0]
    wanted = np.array(literal.radial(conf, entry, mask, image))
    assert curve.array.shape == wanted.shape
    np.testing.assert_allclose(curve.array, wanted, rtol=rtol, atol=1e-12)
    if not entry["Phi-mode"]:
        expected = literal.parameters(entry, wanted[0], wanted[1])
        assert curve.parameters == pytest.approx(expected, rel=rtol)
    return curve


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_curve_equals_the_formulas(data):
    draw = data.draw
    conf = literal.calibration(
        Geometry__BeamCenter=[draw(st.floats(0, 40)), draw(st.floats(0, 31))],
        Geometry__DedectorDistanceMM=draw(st.floats(20, 3000)),
        Geometry__Tilt={"TiltRotDeg": draw(st.floats(-180, 180)), "TiltAngleDeg": draw(st.floats(-20, 20))},
        Wavelength=draw(st.floats(0.3, 3)),
        Masks=[
            literal.mask(
                Oversampling=draw(st.integers(1, 5)),
                PixelPerRadialElement=draw(st.sampled_from([0.5, 1, 2.5])),
                qStart=draw(st.floats(0, 0.05)),
                qStop=draw(st.floats(0.06, 5)),
            )
        ],
    )
    if draw(st.booleans()):
        conf["PolarizationCorrection"] = {"Fraction": draw(st.floats(0, 1)), "Angle": draw(st.floats(-90, 90))}
    check(conf, valid(draw(st.integers(0, 99)), draw(st.sampled_from([0.3, 0.95]))), picture(draw(st.integers(0, 99))))


def test_the_azimuth_is_an_axis_too():
    conf = literal.calibration(
        Masks=[literal.mask(**{"Phi-mode": True, "qStart": 0.03, "qStop": 0.15, "PixelPerRadialElement": 0.05})]
    )
    curve = check(conf, valid(), picture())
    assert curve.columns[0] == "Phi Angle [rad]"
    assert curve.parameters == {"I0": 0, "I1": 0, "I2": 0}
    assert -np.pi < curve.array[0, 0] < curve.array[0, -1] < np.pi


def test_a_bin_without_valid_pixels_is_nan():
    mask = valid(share=1.0)
    mask[:, :20] = False
    curve = check(literal.calibration(), mask, picture())
    assert np.isnan(curve.array[1:, 5:]).any()
    assert np.isfinite(curve.array[0]).all()


def test_a_beam_centre_outside_of_the_image_keeps_its_own_q():
    check(literal.calibration(Geometry__BeamCenter=[-30.0, 70.0]), valid(), picture())


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "uint32", "int64", "float32", "float64"])
def test_any_type_of_pixels_gives_the_same(dtype):
    check(literal.calibration(), valid(), picture().astype(dtype))


def test_counts_beyond_32_bits_add_up_exactly():
    image = np.full(SHAPE, 2**31 - 1, np.int32)
    (curve,) = Reduction(read_calibration(literal.calibration()), [valid()]).reduce(image)
    np.testing.assert_allclose(curve.array[1][np.isfinite(curve.array[1])], 2**31 - 1, rtol=1e-14)


def test_masked_pixels_are_not_looked_at():
    image, mask = picture().astype(float), valid()
    image[~mask] = np.nan
    (curve,) = Reduction(read_calibration(literal.calibration()), [mask]).reduce(image)
    clean = np.where(mask, image, 0)
    (wanted,) = Reduction(read_calibration(literal.calibration()), [mask]).reduce(clean)
    np.testing.assert_array_equal(curve.array, wanted.array)


def test_several_masks_and_slices_have_their_numbers_and_names():
    cut = {"Direction": "y", "Plane": "Vertical", "CutPosition": 12, "CutMargin": 2, "IncidentAngle": 0.2, "MaskRef": 0}
    conf = literal.calibration(Masks=[literal.mask(), literal.mask(Oversampling=1)], Slices=[cut])
    reduction = Reduction(read_calibration(conf), [valid(), valid(3)])
    curves = reduction.reduce(picture())
    assert [curve.key for curve in curves] == ["R0", "R1", "S2"]
    assert reduction.outputs == [("", "Radial0"), ("_cR1", "Radial1"), ("_cS2", "Slice2")]
    conf["GISAXSmode"] = True
    assert Reduction(read_calibration(conf), [valid(), valid(3)]).outputs == reduction.outputs[1:]


def test_a_reduction_may_be_sent_to_another_process():
    reduction = Reduction(read_calibration(literal.calibration()), [valid()])
    copy = pickle.loads(pickle.dumps(reduction))
    (ours,), (theirs,) = reduction.reduce(picture()), copy.reduce(picture())
    np.testing.assert_array_equal(ours.array, theirs.array)
    assert theirs.conf == ours.conf == literal.calibration()


def test_what_does_not_fit_is_refused_with_its_key():
    calibration = read_calibration(literal.calibration())
    with pytest.raises(MaskError, match=r"Masks\.0.*is 3 × 4, Geometry\.Imagesize says 40 × 31"):
        Reduction(calibration, [np.ones((3, 4), bool)])
    with pytest.raises(ConfigurationError, match="names 1, 0 were given"):
        Reduction(calibration, [])
    with pytest.raises(ValueError, match="the image is 5 × 5, the calibration says 40 × 31"):
        Reduction(calibration, [valid()]).reduce(np.zeros((5, 5)))


@pytest.mark.parametrize("marks", ["own", "few", "one"])
def test_pixels_with_the_same_parts_are_one_cell_whatever_their_marks(marks):
    """More kinds than there is room for at first; marks that several kinds share cost time and nothing else."""
    number = 300 if marks == "one" else 40_000
    rows = np.random.default_rng(3).permutation(np.repeat(np.arange(number), 2))
    parts = np.stack([rows // 7, rows], axis=1)
    own = {"own": rows, "few": rows // 3, "one": rows * 0}[marks].astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    valid = np.random.default_rng(4).random(rows.size) < 0.7
    kinds, out = _Kinds(2), np.zeros(rows.size, np.uint32)
    for piece in (slice(0, 100), slice(100, None)):
        kinds.number(parts[piece], own[piece], valid[piece], out[piece])
    np.testing.assert_array_equal(kinds.rows[out[valid]], parts[valid])
    assert len(kinds) == np.unique(rows[valid]).size


def test_threads_change_nothing(monkeypatch):
    """Each bin's sum to the last bit, for one thread, for several, and for pieces of another size."""
    calibration = read_calibration(literal.calibration(Geometry__Tilt={"TiltRotDeg": 40, "TiltAngleDeg": 3}))
    made = []
    for threads, parts in ((1, 2**18), (3, 2**18), (3, 600)):
        monkeypatch.setattr("sisockdaq.saxsdog.binning._THREADS", threads)
        monkeypatch.setattr("sisockdaq.saxsdog.binning._PARTS", parts)
        monkeypatch.setattr("sisockdaq.saxsdog.binning._made", type(binning._made)())
        made.append(Reduction(calibration, [valid()]).reduce(picture())[0].array)
    np.testing.assert_array_equal(made[0], made[1])
    np.testing.assert_array_equal(made[0], made[2])
