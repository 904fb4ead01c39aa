"""Pedestals and bad pixels: against numpy's mean and standard deviation, and against faults that were put in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sisockdaq.conversion import STAGES, DarkLimits, DarkStatistics, JungfrauModel, Pedestal, stage_of
from sisockdaq.conversion.pedestal import PIXEL_FAULTS, fault_bit
from sisockdaq.errors import ConfigurationError

SHAPE = (8, 32)
MODEL = JungfrauModel.drawn(SHAPE, seed=4)
FEW = DarkLimits(least_frames=3)


def darks(stage, count, first=0):
    return np.stack([MODEL.dark(stage, first + frame) for frame in range(count)])


def added(frames, stage, limits=FEW):
    statistics = DarkStatistics(frames.shape[1:], limits)
    for frame in frames:
        statistics.add(frame, stage)
    return statistics


def names(faults, pixel):
    return {PIXEL_FAULTS[bit] for bit in range(32) if faults[pixel] >> bit & 1}


@pytest.mark.parametrize("stage", STAGES)
def test_mean_and_noise_are_numpys(stage):
    frames = darks(stage, 60)
    pedestal = added(frames, stage).pedestal()
    row, adc = STAGES.index(stage), (frames & 0x3FFF).astype(float)
    np.testing.assert_allclose(pedestal.mean[row], adc.mean(0), rtol=1e-6)
    np.testing.assert_allclose(pedestal.noise[row], adc.std(0), rtol=1e-6)
    assert (pedestal.frames[row] == 60).all()
    assert pedestal.stages == (stage,)
    assert not pedestal.bad().any()
    others = [other for other in range(3) if other != row]
    assert np.isnan(pedestal.mean[others]).all()


@given(st.integers(0, 2**32), st.integers(1, 12), st.sampled_from(STAGES))
@settings(max_examples=40, deadline=None)
def test_only_pixels_in_the_runs_stage_count(seed, count, stage):
    frames = np.random.default_rng(seed).integers(0, 2**16, (count, 4, 8)).astype(np.uint16)
    statistics = added(frames, stage, DarkLimits(least_frames=1))
    pedestal = statistics.pedestal()
    row, code = STAGES.index(stage), (0, 1, 3)[STAGES.index(stage)]
    special = np.isin(frames, [0x4000, 0xC000, 0xFFFF])
    here = (frames >> 14 == code) & ~special
    np.testing.assert_array_equal(pedestal.frames[row], here.sum(0))
    adc = np.where(here, frames & 0x3FFF, np.nan)
    seen = here.any(0)
    np.testing.assert_allclose(pedestal.mean[row][seen], np.nanmean(adc[:, seen], 0), rtol=1e-6)
    np.testing.assert_allclose(pedestal.noise[row][seen], np.nanstd(adc[:, seen], 0), rtol=1e-5, atol=1e-3)
    assert np.isnan(pedestal.mean[row][~seen]).all()
    assert statistics.shares[stage] == pytest.approx(here.mean())
    nothing = (frames >> 14 == 2) | (frames == 0xFFFF)
    assert pedestal.origin["runs"][stage]["pixels_in_no_stage"] == nothing.sum()


def test_bad_pixels_are_found_and_named():
    frames = darks("G1", 80)
    generator = np.random.default_rng(0)
    frames[:, 0, 0] = 0x4000 | 9000  # never changes
    frames[:, 1, 1] = 0x4000 | (9000 + generator.integers(-200, 200, 80)).astype(np.uint16)
    frames[:, 2, 2] = 3000  # does not switch
    frames[::5, 3, 3] = 3000  # does not switch now and then
    frames[::20, 4, 4] = 3000  # seldom enough
    frames[:, 5, 5] = 0x8000 | 77  # in no stage
    pedestal = added(frames, "G1").pedestal()
    found = {tuple(place): names(pedestal.faults, tuple(place)) for place in np.argwhere(pedestal.bad()).tolist()}
    assert found == {
        (0, 0): {"G1 dead"},
        (1, 1): {"G1 noisy"},
        (2, 2): {"G1 in another stage"},
        (3, 3): {"G1 in another stage"},
        (5, 5): {"G1 in another stage"},
    }
    summary = pedestal.summary()
    assert summary["bad"] == 5
    assert summary["G1"]["in another stage"] == 3


def test_a_detector_in_another_stage_is_seen():
    statistics = added(darks("G0", 5), "G1")
    assert statistics.shares == {"G1": 0.0}
    assert statistics.pedestal().bad().all()


def test_frames_are_sorted_by_the_stage_they_are_in():
    statistics = DarkStatistics(SHAPE, FEW)
    for stage in STAGES:
        for frame in darks(stage, 4):
            assert stage_of(frame) == stage
            assert statistics.add(frame) == stage
    between = darks("G0", 1)[0]
    between[::2] |= np.uint16(0x4000)
    between[1::2] |= np.uint16(0xC000)
    assert stage_of(np.full(SHAPE, 0x8001, np.uint16)) is None
    assert statistics.add(np.full(SHAPE, 0x8001, np.uint16)) is None
    assert statistics.undecided == 1
    assert statistics.frames == {"G0": 4, "G1": 4, "G2": 4}


def test_a_run_can_be_taken_anew():
    statistics = added(darks("G0", 5), "G0")
    statistics.forget("G0")
    with pytest.raises(ConfigurationError, match="no dark frame"):
        statistics.pedestal()
    for frame in darks("G0", 4, 50):
        statistics.add(frame, "G0")
    np.testing.assert_allclose(statistics.pedestal().mean[0], darks("G0", 4, 50).mean(0), rtol=1e-6)


@given(st.integers(4, 40), st.integers(4, 40))
@settings(max_examples=25, deadline=None)
def test_an_update_is_the_pedestal_of_all_darks(before, after):
    frames = darks("G0", before + after)
    pooled = added(frames[:before], "G0").pedestal().updated(added(frames[before:], "G0").pedestal())
    whole = added(frames, "G0").pedestal()
    np.testing.assert_allclose(pooled.mean, whole.mean, rtol=1e-6)
    np.testing.assert_allclose(pooled.noise, whole.noise, rtol=1e-4)
    np.testing.assert_array_equal(pooled.frames, whole.frames)


def test_a_window_lets_old_darks_fade():
    old = added(darks("G0", 40), "G0").pedestal()
    drifted = (darks("G0", 10, 100) + 100).astype(np.uint16)
    new = added(drifted, "G0").pedestal()
    rolled = old.updated(new, window=10)
    np.testing.assert_allclose(rolled.mean[0], (old.mean[0] + new.mean[0]) / 2, rtol=1e-6)
    assert (rolled.frames[0] == 20).all()


def test_stages_are_replaced_with_their_faults():
    frames = darks("G1", 10)
    frames[:, 0, 0] = 0x4000 | 9000
    spoiled = darks("G0", 10)
    spoiled[:, 1, 1] = 0x4000 | 5
    old = added(darks("G0", 10), "G0").pedestal().joined(added(frames, "G1").pedestal())
    assert names(old.faults, (0, 0)) == {"G1 dead"}
    joined = old.joined(added(spoiled, "G0").pedestal({"node": "r"}))
    assert names(joined.faults, (0, 0)) == {"G1 dead"}
    assert names(joined.faults, (1, 1)) == {"G0 in another stage"}
    again = joined.joined(added(darks("G1", 10, 30), "G1").pedestal())
    assert names(again.faults, (0, 0)) == set()
    assert names(again.faults, (1, 1)) == {"G0 in another stage"}
    assert again.stages == ("G0", "G1")
    assert set(again.origin["runs"]) == {"G0", "G1"}
    assert again.origin["node"] == "r"


def test_what_does_not_fit_is_refused():
    statistics = DarkStatistics(SHAPE)
    for frame, stage in (
        (np.zeros((3, 3), np.uint16), "G0"),
        (np.zeros(SHAPE, np.int32), "G0"),
        (np.zeros(SHAPE, np.uint16), "G3"),
    ):
        with pytest.raises(ConfigurationError):
            statistics.add(frame, stage)
    with pytest.raises(ConfigurationError, match="cannot be joined"):
        Pedestal.unknown((2, 2)).updated(Pedestal.unknown((3, 3)))
    with pytest.raises(ConfigurationError, match="stages of"):
        Pedestal(*np.zeros((3, 2, 4, 4)), np.zeros((4, 4), np.uint32))
    with pytest.raises(ConfigurationError, match="not a gain stage"):
        fault_bit("G5", "dead")
