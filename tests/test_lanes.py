"""The second lane of the suite: what it says is reported as if it had run here, and its death is a failure."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]

CONFTEST = """
from pathlib import Path
from tests import lanes
lanes.HERE, lanes.BESIDE = Path(__file__).parent, ("beside",)
pytest_plugins = ["tests.lanes"]
"""
FIRST = "def test_here(): pass"
BESIDE = """
import os, pytest
def test_passes(): assert os.nice(0) >= 10
@pytest.mark.skip(reason="for no reason")
def test_skips(): pass
def test_fails(): assert 1 + 1 == 3
@pytest.fixture
def broken(): raise ValueError("it broke")
def test_stops(broken): pass
"""


def run(folder: Path, beside: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    files = {"conftest.py": CONFTEST, "test_first.py": FIRST, "beside/test_second.py": beside}
    (folder / "checks" / "beside").mkdir(parents=True)
    for name, text in files.items():
        (folder / "checks" / name).write_text(text)
    (folder / "pytest.ini").write_text("[pytest]\ntestpaths = checks\n")
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", *arguments]
    path = {"PYTHONPATH": str(REPOSITORY), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PATH": ""}
    return subprocess.run(command, cwd=folder, env=path, capture_output=True, text=True, check=False)


def test_what_the_second_lane_says_is_reported_here(tmp_path: Path) -> None:
    done = run(tmp_path, BESIDE)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert re.search("1 failed, 2 passed, 1 skipped.*, 1 error in", done.stdout)
    assert "FAILED checks/beside/test_second.py::test_fails - assert (1 + 1) == 3" in done.stdout
    assert "ERROR checks/beside/test_second.py::test_stops - ValueError: it broke" in done.stdout


def test_all_is_well_when_both_lanes_are(tmp_path: Path) -> None:
    done = run(tmp_path, "def test_passes(): pass")
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 passed" in done.stdout


@pytest.mark.parametrize("beside", ["import os\ndef test_dies(): os._exit(0)", "not Python"])
def test_a_lane_that_cannot_go_on_fails_the_whole(tmp_path: Path, beside: str) -> None:
    done = run(tmp_path, beside)
    assert done.returncode != 0
    assert "the second lane of the tests ended with" in done.stderr
    assert "1 passed" in done.stdout


def test_a_selection_runs_in_one_lane(tmp_path: Path) -> None:
    done = run(tmp_path, "def test_passes(): pass", "-k", "passes")
    assert done.returncode == 0
    assert "1 passed, 1 deselected" in done.stdout
