"""What a worker process of the queue does: read a picture, reduce it, write its files, tell of it.

It is started with one end of a pipe. It says ``ready``, gets the `Plan`, then paths in lists, and answers with lists of
`Done`. ``None`` in place of a list ends it after the picture in hand, and so does the end of the pipe: a worker never
outlives its queue.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import NamedTuple

from sisockdaq.saxsdog.chi import chi_text, write_chi
from sisockdaq.saxsdog.integration import Curve, Reduction
from sisockdaq.saxsdog.pictures import PictureReader, PictureUnfinished

__all__ = ["READY", "Done", "Plan", "Task", "output_base", "reduce_picture", "serve"]

READY = "ready"

_TELL = 0.05
"""Results are told at least so often [s]: more often costs the queue's process a wake-up each."""

_SHOW = 0.2
"""Curves of the newest picture are sent at most so often while others wait [s]."""


@dataclass(frozen=True)
class Plan:
    """What is the same for all pictures of a queue.

    Attributes
    ----------
    directory : str
        The folder that all pictures lie below.
    relative : str
        The results' folder, from the folder of each picture.
    output : str or None
        One folder for all results instead.
    overwrite : bool
        Reduce again what has its ``.chi`` files.
    live_list : str or None
        A file that gets a line for each ``.chi``.
    """

    reduction: Reduction
    directory: str
    relative: str
    output: str | None
    overwrite: bool
    live_list: str | None


class Task(NamedTuple):
    """A list of pictures; ``last`` when nothing waits behind them, so that the newest curves are wanted."""

    paths: Sequence[str]
    last: bool


class Done(NamedTuple):
    """What became of a picture.

    ``outcome`` is reduced, skipped (it had its files), failed, or unfinished (not readable, which may change);
    ``reason`` and ``changed`` (the file's time) are told of the latter two.
    """

    path: str
    outcome: str
    reason: str = ""
    changed: float = 0.0
    time: float = 0.0
    taken: str = ""
    base: str = ""
    files: dict[str, str] | None = None
    parameters: dict[str, dict[str, float]] | None = None
    curves: list[Curve] | None = None


def serve(handle: int) -> None:
    """Work until told to end; ``handle`` is the pipe's end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the queue decides what it means
    with Connection(handle) as pipe, contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        pipe.send(READY)
        _Server(pipe, pickle.loads(pipe.recv_bytes())).run()


class _Server:
    def __init__(self, pipe: Connection, plan: Plan) -> None:
        self._pipe, self._plan = pipe, plan
        self._reader = PictureReader()
        self._paths: deque[str] = deque()
        self._done: list[Done] = []
        self._newest: tuple[int, list[Curve]] | None = None
        self._last = False
        self._told = self._shown = 0.0

    def run(self) -> None:
        while self._fetch():
            done, curves = reduce_picture(self._plan, self._reader, self._paths.popleft())
            if curves:
                self._newest = len(self._done), curves
            self._done.append(done)
            if time.monotonic() - self._told > _TELL:
                self._tell()
        self._tell()

    def _fetch(self) -> bool:
        """Take what is in the pipe; wait for it when there is nothing to do. False when this is the end."""
        while not self._paths or self._pipe.poll():
            if not self._paths:
                self._tell()
            task: Task | None = self._pipe.recv()
            if task is None:
                return False
            self._paths.extend(task.paths)
            self._last = task.last
        return True

    def _tell(self) -> None:
        if not self._done:
            return
        now = time.monotonic()
        if self._newest is not None and (now - self._shown > _SHOW or (self._last and not self._paths)):
            place, curves = self._newest
            self._done[place] = self._done[place]._replace(curves=curves)
            self._shown = now
        self._newest = None
        self._pipe.send(self._done)
        self._done, self._told = [], now


def output_base(plan: Plan, path: str) -> str:
    """Return where a picture's results go: a path without what tells curves apart and without ``.chi``."""
    folder, name = os.path.split(path)
    if plan.output is not None:
        inside = os.path.relpath(path, plan.directory)
        return os.path.join(plan.output, os.path.splitext(inside)[0].replace(os.sep, "_"))  # noqa: PTH118, PTH122
    return os.path.join(os.path.normpath(os.path.join(folder, plan.relative)), os.path.splitext(name)[0])  # noqa: PTH118, PTH122


def reduce_picture(plan: Plan, reader: PictureReader, path: str) -> tuple[Done, list[Curve]]:
    """Read, reduce and write one picture; whatever is wrong with it is told, not raised."""
    try:
        return _reduce(plan, reader, path)
    except (PictureUnfinished, FileNotFoundError) as error:
        return Done(path, "unfinished", _reason(error), _changed(path), time.time()), []
    except Exception as error:  # whatever is wrong with one picture, the queue goes on
        return Done(path, "failed", _reason(error), time=time.time()), []


def _reduce(plan: Plan, reader: PictureReader, path: str) -> tuple[Done, list[Curve]]:
    base = output_base(plan, path)
    outputs = plan.reduction.outputs
    files = {key: f"{base}{suffix}.chi" for suffix, key in outputs}
    there = set() if plan.overwrite else {name for name in files.values() if os.path.isfile(name)}  # noqa: PTH113
    listed = {**files, "JSON": f"{base}.json"}
    if len(there) == len(files):
        _list(plan, [(name, None) for name in files.values()])
        return Done(path, "skipped", time=time.time(), base=base, files=listed), []
    picture = reader.read(path)
    curves = plan.reduction.reduce(picture.image)
    os.makedirs(os.path.dirname(base), exist_ok=True)  # noqa: PTH103, PTH120
    for curve, name in zip(curves, files.values(), strict=True):
        if name not in there:
            write_chi(name, chi_text(curve, plan.reduction.header))
    _list(plan, [(name, curve.parameters) for name, curve in zip(files.values(), curves, strict=True)])
    parameters = {curve.key: curve.parameters for curve in curves if curve.parameters is not None}
    done = Done(path, "reduced", "", 0.0, time.time(), picture.time, base, listed, parameters)
    return done, curves


def _list(plan: Plan, entries: Sequence[tuple[str, dict[str, float] | None]]) -> None:
    """Add lines to the live list, in one piece: other workers write into it as well."""
    if plan.live_list is None:
        return
    above = os.path.dirname(plan.directory)  # noqa: PTH120
    lines = []
    for name, values in entries:
        numbers = values or {"I0": 0, "I1": 0, "I2": 0}
        place = os.path.relpath(name, above)
        lines.append(f"{os.sep}{place}, {numbers['I0']}, {numbers['I1']}, {numbers['I2']}\n")
    handle = os.open(plan.live_list, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        os.write(handle, "".join(lines).encode())
    finally:
        os.close(handle)


def _changed(path: str) -> float:
    try:
        return os.stat(path).st_mtime  # noqa: PTH116
    except OSError:
        return time.time()


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) if isinstance(error, OSError | ValueError) and str(error) else f"{type(error).__name__}: {error}"
