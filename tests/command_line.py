"""The ``sisockdaq`` command for tests that call it often: a process each, but Python and its imports are loaded once.

Starting Python costs most of such a call. Here one process has loaded the command line and what its commands use, and
forks a child for every call; the child is what ``python -m sisockdaq.cli`` would be: its own process, environment,
folder, streams and exit status.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

LOADED = ("typer.rich_utils", "rich.table", "sisockdaq.client", "sisockdaq.session", "h5py")
"""What the commands of the tests import on their way; none of it starts a thread or a reactor."""


class CommandLine:
    """The forking process, of which there is one in a test run."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="sisockdaq-test-")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.command_line"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        atexit.register(self.close)

    def close(self) -> None:
        """End the process; children that still run are not its concern any more."""
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()
        self._folder.cleanup()

    def run(
        self, arguments: tuple[str, ...], environment: Mapping[str, str], folder: Path, timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Run one command to its end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        out, err = (str(Path(self._folder.name, name)) for name in ("out", "err"))
        order = {
            "arguments": arguments, "environment": dict(environment), "folder": str(folder), "out": out, "err": err,
            "timeout": timeout,
        }  # fmt: skip
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        status = json.loads(self._process.stdout.readline())
        said = (Path(out).read_text(), Path(err).read_text())
        if status is None:
            raise subprocess.TimeoutExpired(["sisockdaq", *arguments], timeout, *said)
        return subprocess.CompletedProcess(["sisockdaq", *arguments], status, *said)


@functools.cache
def _command_line() -> CommandLine:
    return CommandLine()


def run_command(
    *arguments: str, environment: Mapping[str, str] | None = None, folder: Path | None = None, timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run ``sisockdaq`` with this process's environment and folder, or others; return its status and what it said."""
    chosen = os.environ if environment is None else environment
    return _command_line().run(arguments, chosen, folder or Path.cwd(), timeout)


def _become(order: dict[str, object]) -> None:
    """Be the command: never returns."""
    os.chdir(str(order["folder"]))
    os.environ.clear()
    os.environ.update(order["environment"])  # type: ignore[call-overload]
    sys.path[1:1] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))  # as Python does at its start
    nothing = os.open(os.devnull, os.O_RDONLY)
    for number, path in ((1, order["out"]), (2, order["err"])):
        os.dup2(os.open(str(path), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
    os.dup2(nothing, 0)
    sys.argv = ["sisockdaq", *order["arguments"]]  # type: ignore[misc]
    from sisockdaq.cli import main

    status = 1
    try:
        main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    finally:  # a traceback is printed as Python would, by the hook
        error = sys.exc_info()
        if error[0] not in (None, SystemExit):
            sys.excepthook(*error)  # type: ignore[arg-type]
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _serve(orders: IO[str], answers: IO[str]) -> None:
    """Fork a child for each line; answer with its exit status, or null for one that was ended after its time."""
    for line in orders:
        order = json.loads(line)
        child = os.fork()
        if child == 0:
            _become(order)
        handle = os.pidfd_open(child)
        in_time = bool(select.select([handle], [], [], order["timeout"])[0])
        os.close(handle)
        if not in_time:
            os.kill(child, 9)
        _, ended = os.waitpid(child, 0)
        answers.write(json.dumps(os.waitstatus_to_exitcode(ended) if in_time else None) + "\n")
        answers.flush()


if __name__ == "__main__":
    import importlib

    from sisockdaq.cli import app

    app()
    for name in LOADED:
        importlib.import_module(name)
    _serve(sys.stdin, sys.stdout)
