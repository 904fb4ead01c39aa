"""``sisockdaq check`` as a person and as a script call it."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
from typer.testing import CliRunner

from sisockdaq.cli import app
from tests.nexus.check.test_check import make


def test_a_good_file_ends_with_status_0_and_a_bad_one_with_1(tmp_path: Path) -> None:
    path = make(tmp_path)
    good = CliRunner().invoke(app(), ["check", str(path)])
    assert good.exit_code == 0
    assert "good for NXmx, neggia, durin, fabio, Albula, CrystFEL, nxmx" in good.stdout
    with h5py.File(path, "r+", libver=("earliest", "v110")) as file:
        del file["/entry/instrument/detector/detectorSpecific/nimages"]
        del file["/entry/instrument/beam/profile"]
    bad = CliRunner().invoke(app(), ["check", str(path)])
    assert bad.exit_code == 1
    assert "detectorSpecific/nimages is missing   → neggia, Albula" in bad.stdout
    assert "beam/profile is missing   (NXmx)" in bad.stdout
    assert "not for neggia, Albula" in bad.stdout
    assert CliRunner().invoke(app(), ["check", str(path), "--for", "durin"]).exit_code == 0


def test_scripts_get_json_of_all_files_the_unreadable_ones_included(tmp_path: Path) -> None:
    path = make(tmp_path)
    result = CliRunner().invoke(app(), ["check", str(path), str(tmp_path / "gone.h5"), "--json"])
    assert result.exit_code == 1
    whole, gone = json.loads(result.stdout)
    assert (whole["path"], whole["failed"], whole["findings"]) == (str(path), [], [])
    assert gone["path"].endswith("gone.h5")
    assert "does not exist" in gone["error"]
