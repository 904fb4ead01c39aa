"""``./run`` on a machine where something is missing or already there; no environment is really made here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]

PIP = """#!{python}
import sys
arguments = sys.argv[1:]
if arguments[:3] == ["-m", "pip", "install"]:
    print("Collecting numpy")
    print("Installing collected packages: numpy")
    if {broken}:
        print("ERROR: No space left on device")
        sys.exit(1)
print("called", *arguments)
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder with what ``./run`` reads."""
    for name in ("run", "pyproject.toml", "setup.py"):
        (tmp_path / name).write_bytes((REPOSITORY / name).read_bytes())
    (tmp_path / "run").chmod(0o755)
    return tmp_path


def run(clone: Path, *arguments: str, script: str = "run") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(clone / script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def environment(clone: Path, *, broken: bool = False) -> None:
    """Put a stand-in for the environment's interpreter, so that nothing is downloaded."""
    python = clone / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(PIP.format(python=sys.executable, broken=broken))
    python.chmod(0o755)


def test_help_teaches_without_making_anything(clone: Path) -> None:
    done = run(clone)
    assert done.returncode == 0
    assert "./run demo" in done.stdout
    assert not (clone / ".venv").exists()


def test_an_unknown_command_is_told(clone: Path) -> None:
    done = run(clone, "demonstrate")
    assert done.returncode == 1
    assert 'run: "demonstrate" is not a command' in done.stderr
    assert not (clone / ".venv").exists()


def test_a_missing_venv_module_names_the_package(clone: Path) -> None:
    text = (clone / "run").read_text()
    # What Debian's python3 without python3-venv does at this import.
    (clone / "bare").write_text(text.replace("import ensurepip", "raise ImportError  #"))
    done = run(clone, "demo", script="bare")
    assert done.returncode == 1
    assert "Python's venv module is missing" in done.stderr
    assert "apt install python3-venv" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_old_python_is_told(clone: Path) -> None:
    (clone / "old").write_text((clone / "run").read_text().replace("OLDEST = (3, 11)", "OLDEST = (9, 0)"))
    done = run(clone, "test", script="old")
    assert done.returncode == 1
    assert "Python 9.0 or newer is needed" in done.stderr


def test_the_first_call_installs_and_the_second_starts_at_once(clone: Path) -> None:
    environment(clone)
    first = run(clone, "demo", "--check")
    assert first.returncode == 0
    assert first.stdout == "called -m sisockdaq.cli demo --check\n"
    assert first.stderr.splitlines()[0].endswith("  0 %")
    assert first.stderr.splitlines()[-1].endswith("100 %")
    log = (clone / ".venv" / "install.log").read_text()
    assert "sisockdaq.warm" in log
    second = run(clone, "demo")
    assert (second.returncode, second.stderr) == (0, "")
    assert (clone / ".venv" / "install.log").read_text() == log


def test_a_changed_project_file_installs_again(clone: Path) -> None:
    environment(clone)
    run(clone, "demo")
    (clone / "pyproject.toml").write_text((clone / "pyproject.toml").read_text() + "\n")
    assert "making the environment" in run(clone, "demo").stderr


def test_a_failed_installation_gives_pip_s_reason_and_is_tried_again(clone: Path) -> None:
    environment(clone, broken=True)
    done = run(clone, "demo")
    assert done.returncode == 1
    assert "ERROR: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert "making the environment" in run(clone, "demo").stderr


def test_relative_file_names_are_the_caller_s(clone: Path, tmp_path: Path) -> None:
    environment(clone)
    python = clone / ".venv" / "bin" / "python"
    python.write_text(f"#!{sys.executable}\nimport os\nprint(os.getcwd())\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = subprocess.run(
        [sys.executable, str(clone / "run"), "demo"], cwd=elsewhere, capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines()[-1] == os.fspath(elsewhere)
