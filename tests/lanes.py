"""The suite in two lanes: what needs neither network nor clock runs beside the rest, in a process of its own.

Most tests wait: for a router, for nodes, for packets at their times. Others only compute. `pytest` without arguments
starts a second, nicer process for the rooms that compute (`BESIDE`) and runs the others itself; what the second says is
reported here, as if it had happened in this process. Asked for files, a selection or a debugger, there is one lane.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

__all__ = ["BESIDE"]

BESIDE = (
    "calibration",
    "conversion",
    "frames",
    "integrate",
    "jungfraujoch",
    "nexus",
    "recording",
    "reprocessing",
    "saxsdog",
    "textfiles",
    "test_acquisition.py",
    "test_dataset.py",
    "test_downsample.py",
    "test_drawing.py",
    "test_kernel_cache.py",
    "test_merge.py",
    "test_project.py",
    "test_reference.py",
    "test_schema.py",
    "test_series.py",
)
"""Rooms and files of the second lane: no session with a router, and nothing whose speed is judged."""

NICER = 10
"""How much nicer the second lane is: it takes the time that the first leaves."""

PIPE = "SISOCKDAQ_TESTS_PIPE"
"""Tells the second process the descriptor that takes its reports."""

ALONE = (
    "keyword", "markexpr", "maxfail", "usepdb", "trace", "collectonly", "lf", "failedfirst", "newfirst", "stepwise"
)  # fmt: skip
"""Options with which there is one lane."""

HERE = Path(__file__).parent


def pytest_configure(config: pytest.Config) -> None:
    """Be the lane that this process is."""
    if pipe := os.environ.pop(PIPE, None):
        os.nice(NICER)
        config.pluginmanager.register(Reporter(config, int(pipe)))
    elif config.args_source is pytest.Config.ArgsSource.TESTPATHS and not _is_selected(config):
        config.pluginmanager.register(SecondLane(config))


def _is_selected(config: pytest.Config) -> bool:
    return any(config.getoption(name, None) for name in ALONE)


class Reporter:
    """In the second process: sends every report as a line of JSON, and at last that there are no more."""

    def __init__(self, config: pytest.Config, pipe: int) -> None:
        self._config = config
        self._pipe = os.fdopen(pipe, "w", encoding="utf-8")

    def _send(self, **line: Any) -> None:
        self._pipe.write(json.dumps(line) + "\n")
        self._pipe.flush()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Say how many tests there are."""
        self._send(collected=len(session.items))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Send what could not be collected."""
        if not report.passed:
            self._send(report=self._serial(report))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Send a report."""
        self._send(report=self._serial(report))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Send the last line."""
        self._send(ended=int(exitstatus))

    def _serial(self, report: Any) -> Any:
        return self._config.hook.pytest_report_to_serializable(config=self._config, report=report)


class SecondLane:
    """In the first process: starts the second, and reports what it says."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._process: subprocess.Popen[bytes] | None = None
        self._lines: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._session: pytest.Session | None = None
        self._reporting = False
        self._ended: int | None = None

    def pytest_ignore_collect(self, collection_path: Path) -> bool | None:
        """Leave its rooms to the second process."""
        return True if collection_path.parent == HERE and collection_path.name in BESIDE else None

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Start the second process."""
        self._session = session
        reading, writing = os.pipe()
        self._output = Path(self._config._tmp_path_factory.getbasetemp()) / "second-lane.log"  # type: ignore[attr-defined]
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *(str(HERE / name) for name in BESIDE)],
                cwd=self._config.rootpath,
                env={**os.environ, PIPE: str(writing)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=[writing],
            )
        os.close(writing)
        threading.Thread(target=self._read, args=(reading,), daemon=True).start()

    def _read(self, pipe: int) -> None:
        """Take its lines; the last is always one with its end."""
        with os.fdopen(pipe, encoding="utf-8") as lines, contextlib.suppress(ValueError):
            for line in lines:
                self._lines.put(json.loads(line))
        self._lines.put({"ended": -1})

    def pytest_runtest_logfinish(self) -> None:
        """Report what has come meanwhile."""
        with contextlib.suppress(queue.Empty):
            while not self._reporting:
                self._report(self._lines.get_nowait())

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self) -> Iterator[None]:
        """Wait for the second process, after the tests of this one."""
        result = yield
        while self._ended is None:
            self._report(self._lines.get())
        if self._ended not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            said = self._output.read_text(errors="replace")
            raise pytest.UsageError(f"the second lane of the tests ended with {self._ended}:\n{said[-4000:]}")
        return result

    def _report(self, line: dict[str, Any]) -> None:
        hook, session = self._config.hook, self._session
        assert session is not None
        self._reporting = True
        if "collected" in line:
            session.testscollected += line["collected"]
        elif "ended" in line:
            self._ended = line["ended"] if self._ended is None else self._ended
        else:
            report = hook.pytest_report_from_serializable(config=self._config, data=line["report"])
            if isinstance(report, pytest.CollectReport):
                hook.pytest_collectreport(report=report)
            else:
                if isinstance(report.longrepr, list):
                    report.longrepr = tuple(report.longrepr)  # where it was skipped: JSON knows no tuples
                hook.pytest_runtest_logreport(report=report)
                if report.when == "teardown":
                    hook.pytest_runtest_logfinish(nodeid=report.nodeid, location=report.location)
        self._reporting = False

    def pytest_sessionfinish(self) -> None:
        """End the second process where this one was interrupted."""
        process = self._process
        if process is None:
            return
        if self._ended is None:
            process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
