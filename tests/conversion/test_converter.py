"""Converted frames against the plain version, for every raw value and every kind of pixel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sisockdaq.conversion import Converter, JungfrauModel, Pedestal
from sisockdaq.conversion.kernels import BLOCK, warm_up
from sisockdaq.conversion.simulated import model_of, raw_simulation
from sisockdaq.detector.description import DetectorOptions
from sisockdaq.detector.simulator import Simulation
from sisockdaq.errors import ConfigurationError
from tests.conversion import reference

SHAPE = (24, 64)  # three blocks
MODEL = JungfrauModel.drawn(SHAPE, seed=2)


@pytest.fixture(scope="module", autouse=True)
def compiled():
    warm_up(darks=False)


def pedestal_of(model, bad=None):
    faults = np.zeros(model.shape, np.uint32)
    if bad is not None:
        faults[bad] = 1
    return Pedestal(
        model.pedestal.copy(), np.ones_like(model.pedestal), np.ones(model.pedestal.shape, np.uint32), faults
    )


def plain(model, raw, bad=None):
    none = np.zeros(model.shape, bool)
    return reference.energies(raw, model.pedestal.astype(float), model.gain.astype(float), none if bad is None else bad)


def close(got, wanted):
    """Agree to what float32 maps can hold: 1e-6 of the ADC's range in the pixel's gain."""
    np.testing.assert_array_equal(np.isnan(got), np.isnan(wanted))
    np.testing.assert_array_equal(np.isinf(got), np.isinf(wanted))
    known = np.isfinite(wanted)
    error = np.abs(got[known] - wanted[known])
    assert (error <= 1e-6 * np.abs(wanted[known]) + 1e-6 * 16384 / np.abs(MODEL.gain).min()).all()


def agree(found, out):
    """The statistics are those of the frame itself."""
    good = np.isfinite(out)
    assert found.total == pytest.approx(out[good].sum(dtype=float), rel=1e-5, abs=1e-2)
    assert found.maximum == (out[good].max() if good.any() else -np.inf)


def test_every_raw_value_converts_as_the_plain_version():
    side = 256
    model = JungfrauModel.drawn((side, side), seed=1)
    raw = np.arange(2**16, dtype=np.uint16).reshape(side, side)
    got = np.empty(raw.shape, np.float32)
    found = Converter(pedestal_of(model), model.gain).convert_into(raw, got)
    wanted = reference.energies(raw, model.pedestal.astype(float), model.gain.astype(float), np.zeros(raw.shape, bool))
    np.testing.assert_array_equal(np.isnan(got), np.isnan(wanted))
    np.testing.assert_array_equal(np.isinf(got), np.isinf(wanted))
    known = np.isfinite(wanted)
    scale = np.abs(1 / model.gain[np.array([0, 1, 1, 2])[raw >> 14], *np.indices(raw.shape)])
    assert (np.abs(got[known] - wanted[known]) <= 1e-6 * 16384 * scale[known]).all()
    assert found.empty == 2**14 + 2  # all of code 2 (0xFFFF is of code 3), 0xFFFF, 0x4000
    assert found.saturated == 1
    assert found.maximum == got[known].max()
    assert found.total == pytest.approx(got[known].sum(dtype=float), rel=1e-5)


@st.composite
def raw_frames(draw):
    """Frames with any mix of stages, special values and bad pixels."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    shares = np.array(draw(st.lists(st.floats(0, 1), min_size=4, max_size=4)))
    shares[0] += 1e-3
    code = generator.choice(4, SHAPE, p=shares / shares.sum())
    raw = (generator.integers(0, 2**14, SHAPE) | (code << 14)).astype(np.uint16)
    special = generator.random(SHAPE) < draw(st.sampled_from([0.0, 0.01, 1.0]))
    raw[special] = generator.choice(np.array([0xC000, 0x4000, 0xFFFF, 0x8000, 0], np.uint16), int(special.sum()))
    bad = generator.random(SHAPE) < draw(st.sampled_from([0.0, 0.02, 1.0]))
    return raw, bad


@given(raw_frames(), st.sampled_from([None, 5.0, 0.0]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_energies_of_any_frame(frame, threshold, mark):
    raw, bad = frame
    out = np.empty(SHAPE, np.float32)
    found = Converter(pedestal_of(MODEL, bad), MODEL.gain, threshold=threshold, mark_saturated=mark).convert_into(
        raw, out
    )
    wanted = plain(MODEL, raw, bad)
    saturated = np.isposinf(wanted)
    assert found.saturated == saturated.sum()
    assert found.empty == np.isnan(wanted).sum()
    if threshold is not None:
        edge = np.abs(wanted - threshold) < 1e-2
        wanted[wanted < threshold] = 0
        wanted[edge] = out[edge]  # either side of the threshold, within rounding
    if not mark:
        wanted[saturated] = np.nan
    close(out, wanted)
    agree(found, out)


@given(raw_frames(), st.sampled_from([np.uint16, np.int32]), st.sampled_from([None, 0.7]))
@settings(max_examples=60, deadline=None)
def test_photons_of_any_frame(frame, dtype, threshold):
    raw, bad = frame
    energy = 8.05
    converter = Converter(
        pedestal_of(MODEL, bad), MODEL.gain, output="photons", photon_energy=energy, dtype=dtype, threshold=threshold
    )
    out = np.empty(SHAPE, dtype)
    found = converter.convert_into(raw, out)
    light = plain(MODEL, raw, bad)
    fill = 65535 if dtype == np.uint16 else -(2**31)
    assert converter.fill == fill
    wanted = reference.photons(light, energy, dtype, -np.inf if threshold is None else threshold, fill)
    difference = np.abs(out.astype(np.int64) - wanted.astype(np.int64))
    with np.errstate(invalid="ignore"):
        near_edge = np.abs(light / energy % 1 - 0.5) < 1e-2
    if threshold is not None:
        near_edge |= np.abs(light / energy - threshold) < 1e-2
    assert (difference[~near_edge & np.isfinite(light)] <= 1e-6 * np.abs(wanted[~near_edge & np.isfinite(light)])).all()
    assert (difference <= 1).all()
    known = np.isfinite(light)
    np.testing.assert_array_equal(out[~known], wanted[~known])
    assert found.empty == np.isnan(light).sum()
    assert found.saturated == np.isposinf(light).sum()
    assert found.total == out[known].sum(dtype=np.int64)
    assert found.maximum == (out[known].max() if known.any() else -np.inf)


def test_too_many_photons_for_the_type_are_brought_below_the_marks():
    model = JungfrauModel(MODEL.pedestal, MODEL.gain * 1e-6)
    raw = np.full(SHAPE, 0x3FFF, np.uint16)
    for dtype, most in ((np.uint16, 65533), (np.int32, 2**31 - 256)):
        converter = Converter(pedestal_of(model), model.gain, output="photons", photon_energy=0.01, dtype=dtype)
        np.testing.assert_array_equal(converter.convert(raw), np.full(SHAPE, most, dtype))


@pytest.mark.parametrize("scale", [1e-4, 2e-6])
@pytest.mark.parametrize("values", [(0, 2**14), (2**13, 2**14), (0, 2**16)])
def test_the_sum_is_exact_however_large_it_is(values, scale):
    shape = (9, BLOCK // 8 + 5)
    model = JungfrauModel.drawn(shape)
    gain = model.gain * scale
    raw = np.random.default_rng(0).integers(*values, shape).astype(np.uint16)
    raw[(raw == 0x4000) | (raw == 0xFFFF)] = 0
    raw[raw >> 14 == 2] = 0
    raw[raw == 0xC000] = 1
    converter = Converter(pedestal_of(model), gain, output="photons", photon_energy=0.02, dtype=np.int32)
    out = np.empty(shape, np.int32)
    found = converter.convert_into(raw, out)
    assert np.abs(out.astype(np.int64)).sum() > 2**31
    assert (found.total, found.maximum) == (out.sum(dtype=np.int64), out.max())


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.uint16])
def test_threads_and_parts_give_the_same_frame(dtype):
    generator = np.random.default_rng(0)
    shape = (40, BLOCK // 8 + 3)  # no whole number of blocks
    model = JungfrauModel.drawn(shape)
    raw = generator.integers(0, 2**16, shape).astype(np.uint16)
    options = {"output": "photons", "photon_energy": 3.0, "dtype": dtype}
    one = Converter(pedestal_of(model), model.gain, **options)
    many = Converter(pedestal_of(model), model.gain, threads=3, **options)
    try:
        whole, shared, parts = (np.empty(shape, dtype) for _ in range(3))
        first, second = one.convert_into(raw, whole), many.convert_into(raw, shared)
        np.testing.assert_array_equal(whole, shared)
        pieces = [one.convert_into(raw, parts, rows=rows) for rows in ((0, 8), (8, 31), (31, 40))]
        np.testing.assert_array_equal(whole, parts)
        for found in (second, pieces):
            found = found if isinstance(found, list) else [found]
            assert sum(piece.empty for piece in found) == first.empty
            assert sum(piece.saturated for piece in found) == first.saturated
            assert max(piece.maximum for piece in found) == first.maximum
            assert sum(piece.total for piece in found) == pytest.approx(first.total, rel=1e-5)
    finally:
        many.close()


def test_a_stage_without_darks_gives_no_values():
    pedestal = pedestal_of(MODEL)
    pedestal.mean[2] = np.nan
    raw = MODEL.dark("G0")
    raw[3:5] = MODEL.dark("G2")[3:5]
    out = Converter(pedestal, MODEL.gain).convert(raw)
    assert np.isnan(out[3:5]).all()
    assert np.isfinite(np.delete(out, [3, 4], axis=0)).all()
    nothing = Converter(Pedestal.unknown(SHAPE), MODEL.gain)
    assert np.isnan(nothing.convert(raw)).all()
    assert nothing.bad.all()


def test_a_mask_adds_bad_pixels():
    mask = np.zeros(SHAPE, bool)
    mask[2, 3] = True
    converter = Converter(pedestal_of(MODEL), MODEL.gain, mask=mask)
    np.testing.assert_array_equal(converter.bad, mask)
    np.testing.assert_array_equal(np.isnan(converter.convert(MODEL.raw(np.ones(SHAPE)))), mask)


def test_known_photons_come_back_through_all_stages():
    light = np.random.default_rng(3).poisson(4, SHAPE)
    light[4, :20], light[5, :20] = 500, 5000
    raw = MODEL.raw(light * 10.0)
    assert set((raw >> 14).ravel().tolist()) == {0, 1, 3}
    out = Converter(pedestal_of(MODEL), MODEL.gain, output="photons", photon_energy=10.0, dtype=np.int32).convert(raw)
    dim = light < 300
    np.testing.assert_array_equal(out[dim], light[dim])
    np.testing.assert_allclose(out[~dim], light[~dim], rtol=0.01)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"gains": MODEL.gain[:2]}, "gain maps have the shape"),
        ({"output": "photons"}, "energy of one"),
        ({"output": "photons", "photon_energy": -1.0}, "energy of one"),
        ({"dtype": np.int32}, "need float32"),
        ({"output": "photons", "photon_energy": 1.0, "dtype": np.int8}, "cannot be converted to int8"),
        ({"output": "eV"}, "not an output"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, reason):
    with pytest.raises(ConfigurationError, match=reason):
        Converter(pedestal_of(MODEL), **{"gains": MODEL.gain, **options})


def test_arrays_that_do_not_fit_are_refused():
    converter = Converter(pedestal_of(MODEL), MODEL.gain)
    raw, out = np.zeros(SHAPE, np.uint16), np.empty(SHAPE, np.float32)
    for wrong in ((raw[:4], out), (raw.astype(np.int32), out), (raw, out.astype(float)), (raw.T, out)):
        with pytest.raises(ValueError, match="is needed"):
            converter.convert_into(*wrong)


def test_the_simulators_raw_frames_convert_to_its_images():
    detector = DetectorOptions(model="jungfrau", readout_rows=64)
    plain, raw = Simulation(detector, seed=3), raw_simulation(detector, 12.0, seed=3)
    model = model_of(detector)
    converter = Converter(pedestal_of(model), model.gain, output="photons", photon_energy=12.0, dtype=np.int32)
    assert raw.patterns == plain.patterns
    for number in range(plain.patterns):
        got, counts = converter.convert(raw.image(number)), (plain.image(number) & 0x3FFF).astype(np.int32)
        dim = counts < 18  # in G0, whose noise is far below a photon
        assert 0 < dim.sum() < dim.size
        np.testing.assert_array_equal(got[dim], counts[dim])
        np.testing.assert_allclose(got, counts, atol=2)
