"""Replies as Grafana sees them: `data_frames` runs them through ``toDataFrame`` of npm's ``@grafana/data`` under node.

The packages are installed once, by ``npm ci``, beside their lock file in ``js/`` (git ignores them). Where node or the
packages cannot be had, a test is skipped and says why; with ``CI`` set it fails.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

JS = Path(__file__).with_name("js")
INSTALL_DEADLINE = 110.0
RUN_DEADLINE = 60.0


@dataclass(frozen=True, slots=True)
class Column:
    """A field of a data frame."""

    name: str
    type: str
    unit: str | None
    values: list[Any]


@dataclass(frozen=True, slots=True)
class Frame:
    """A data frame as Grafana's panels take it."""

    name: str | None
    ref: str | None
    columns: list[Column]

    def column(self, name: str) -> Column:
        return next(column for column in self.columns if column.name == name)


def data_frames(replies: list[Any]) -> list[Frame]:
    """Return the frame that Grafana makes of each reply: a series, a table, or a list of flat objects."""
    _install()
    done = subprocess.run(
        ["node", "frames.cjs"],
        cwd=JS,
        input=json.dumps(replies, allow_nan=False),
        capture_output=True,
        text=True,
        timeout=RUN_DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [
        Frame(frame["name"], frame["refId"], [Column(**field) for field in frame["fields"]])
        for frame in json.loads(done.stdout)
    ]


def _install() -> None:
    """Install the packages of the lock file, unless that was done; one process at a time."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            _give_up(f"{program} is not installed")
    lock = JS / "package-lock.json"
    stamp = JS / "node_modules" / ".sisockdaq-stamp"
    with (JS / "frames.cjs").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if stamp.exists() and stamp.read_text() == lock.read_text():
            return
        try:
            done = subprocess.run(
                ["npm", "ci"], cwd=JS, capture_output=True, text=True, timeout=INSTALL_DEADLINE, check=False
            )
        except subprocess.TimeoutExpired:
            _give_up(f"npm ci took more than {INSTALL_DEADLINE:.0f} s")
        if done.returncode != 0:
            _give_up(f"npm ci failed: {done.stderr.strip()[-500:]}")
        stamp.write_text(lock.read_text())


def _give_up(reason: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(f"Grafana's own code cannot run: {reason}")
