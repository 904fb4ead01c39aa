"""``sisockdaq pedestal`` against a real receiver: guided by questions, and by a script."""

from __future__ import annotations

import json
import shlex
import sys

import numpy as np
import pytest
import typer
from sisockdaq.nodes.detector_receiver import DetectorReceiver
from typer.testing import CliRunner

from sisockdaq.cli import pedestal
from sisockdaq.conversion import load_pedestal
from sisockdaq.conversion.simulated import model_of
from sisockdaq.detector.description import DetectorOptions
from sisockdaq.errors import AcquisitionRefused, ConfigurationError

DETECTOR = {"model": "jungfrau", "readout_rows": 64}
MODEL = model_of(DetectorOptions(**DETECTOR))


@pytest.fixture
def command(network, tmp_path, monkeypatch):
    conversion = {"pedestal": str(tmp_path / "pedestal.h5")}
    network.start(DetectorReceiver, name="receiver", detector=DETECTOR, udp=[{"port": 0}], conversion=conversion)
    monkeypatch.setenv("SISOCKDAQ_SITE", str(network.state.path))
    app = typer.Typer()
    pedestal.add_commands(app)

    def call(*arguments, answers=None):
        result = CliRunner().invoke(app, list(arguments), input=answers)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result

    return call


def test_a_script_takes_darks_of_the_simulator_in_all_stages(command, tmp_path):
    found = json.loads(command("--simulate", "--frames", "60", "--json").stdout)
    assert found["file"] == str(tmp_path / "pedestal.h5")
    assert found["bad"] == 0
    assert {stage: found[stage]["frames"] for stage in ("G0", "G1", "G2")} == {"G0": 60, "G1": 60, "G2": 60}
    assert found["G0"]["noise"] == pytest.approx(12, rel=0.2)
    np.testing.assert_allclose(load_pedestal(tmp_path / "pedestal.h5").mean, MODEL.pedestal, atol=15)

    text = command("--simulate", "--frames", "50", "--stages", "G1", "--update")
    assert "[1/1] G1" in text.stderr
    assert "are bad" in text.stdout
    pooled = load_pedestal(tmp_path / "pedestal.h5")
    assert (pooled.frames[1] == 110).all()
    assert (pooled.frames[0] == 60).all()


def test_a_command_sets_the_stage(command, tmp_path):
    note = tmp_path / "told"
    script = f"import sys; open({str(note)!r}, 'a').write(' '.join(sys.argv[1:]) + ';')"
    switch = f"{shlex.quote(sys.executable)} -c {shlex.quote(script)} {{stage}} {{mode}}"
    command("--simulate", "--frames", "50", "--switch", switch, "--stages", "g0,g2", "--json")
    assert note.read_text() == "G0 dynamic;G2 forceswitchg2;"


def test_a_person_is_told_what_to_do_and_a_silent_detector_is_named(command):
    with pytest.raises(AcquisitionRefused, match="no dark came for 1 s"):
        command("--stages", "G1", "--frames", "50", "--patience", "1", answers="\n")
    with pytest.raises(AcquisitionRefused, match="no dark came"):
        command("--yes", "--stages", "G0", "--frames", "50", "--patience", "1")


def test_a_detector_in_another_stage_is_noticed(command, monkeypatch):
    from sisockdaq.conversion import simulated

    right = simulated.dark_simulation
    monkeypatch.setattr(simulated, "dark_simulation", lambda detector, stage: right(detector, "G0"))
    with pytest.raises(AcquisitionRefused, match="not in G1"):
        command("--simulate", "--frames", "50", "--stages", "G1")


def test_what_makes_no_sense_is_refused(command):
    with pytest.raises(ConfigurationError, match="no gain stages"):
        command("--stages", "G4")
    with pytest.raises(ConfigurationError, match="--switch"):
        command("--switch", "set '")
    with pytest.raises(ConfigurationError, match="make no pedestal"):
        command("--yes", "--frames", "5")
