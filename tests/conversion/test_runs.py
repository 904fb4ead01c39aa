"""Dark runs on frames that are offered: what is taken, left out and told."""

from __future__ import annotations

import numpy as np
import pytest

from sisockdaq.conversion import DarkLimits, JungfrauModel
from sisockdaq.conversion.runs import DarkRuns
from sisockdaq.errors import AcquisitionRefused, ConfigurationError
from sisockdaq.testing.waiting import wait_until

SHAPE = (8, 16)
MODEL = JungfrauModel.drawn(SHAPE)


@pytest.fixture
def runs():
    one = DarkRuns(SHAPE, DarkLimits(least_frames=5))
    yield one
    one.close()


def offer(runs, stage, count):
    """Offer darks until so many were taken, or the run is over."""
    seen = []
    while runs.active and len(seen) < count:
        before = runs.status()["frames"]
        dark = MODEL.dark(stage, len(seen))
        runs.offer(dark, complete=True)
        if runs.status()["frames"] > before:
            seen.append(dark)
    return np.stack(seen)


def finished(runs):
    wait_until(lambda: not runs.status()["active"], 20, "the end of the run")
    return runs.status()


def test_a_run_takes_what_it_was_asked_for(runs):
    runs.offer(MODEL.dark("G0"), complete=True)  # nobody asked for it
    runs.take("G0", 30)
    with pytest.raises(AcquisitionRefused, match="under way"):
        runs.take("G1", 30)
    with pytest.raises(AcquisitionRefused, match="under way"):
        runs.pedestal()
    runs.offer(MODEL.dark("G0"), complete=False)
    runs.offer(None, complete=True)
    seen = offer(runs, "G0", 100)
    status = finished(runs)
    assert len(seen) == 30
    assert (status["frames"], status["wanted"], status["partial"], status["taken"]) == (30, 30, 1, {"G0": 30})
    assert status["shares"]["G0"] == 1.0
    np.testing.assert_allclose(runs.pedestal({"node": "n"}).mean[0], seen.mean(0), rtol=1e-6)
    assert runs.pedestal({"node": "n"}).origin["node"] == "n"


def test_a_run_can_be_stopped_taken_again_and_forgotten(runs):
    runs.take("G1", 50)
    offer(runs, "G1", 6)
    runs.stop()
    runs.stop()
    assert finished(runs)["taken"] == {"G1": 6}
    runs.take("G1", 5)
    again = offer(runs, "G1", 5)
    assert finished(runs)["taken"] == {"G1": 5}
    np.testing.assert_allclose(runs.pedestal().mean[1], (again & 0x3FFF).mean(0), rtol=1e-6)
    runs.clear()
    assert runs.status()["taken"] == {}
    with pytest.raises(ConfigurationError, match="no dark frame"):
        runs.pedestal()


def test_frames_that_come_too_fast_are_counted(runs):
    runs.take("G0", 5000)
    dark = MODEL.dark("G0")
    for _ in range(3000):
        runs.offer(dark, complete=True)
    status = runs.status()
    assert status["frames"] + status["skipped"] == 3000
    runs.stop()
    assert finished(runs)["taken"]["G0"] == status["frames"]


def test_what_makes_no_sense_is_refused(runs):
    with pytest.raises(ConfigurationError, match="not a gain stage"):
        runs.take("G3", 100)
    with pytest.raises(ConfigurationError, match="make no pedestal"):
        runs.take("G0", 4)
    assert not runs.active
