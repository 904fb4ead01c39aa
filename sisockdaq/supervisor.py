"""Runs the parts of a site as processes of this machine, and keeps them running.

Promises
--------
- A part counts as up when it says so (`sisockdaq.notify`), never after a guessed time.
- A part that dies is started again: at once the first time, then after growing delays (`RestartPolicy`). A part that
  ends with `CONFIGURATION_ERROR` is not: its mistake will not mend itself; the reason is in its status.
- `Supervisor.stop` ends nodes before the hub and the router, so that files are closed while the network still
  stands; what does not end in time is killed, with everything it started.
- When the supervisor itself dies, even by SIGKILL, its parts end (`end_with_parent`).

Each part runs in a session of its own: Ctrl-C in the terminal reaches the supervisor alone, which ends the parts in
order. Output goes to one log a part.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Literal

from sisockdaq.errors import DeadlineExceeded, SisockdaqError

__all__ = [
    "CONFIGURATION_ERROR",
    "Part",
    "PartStatus",
    "RestartPolicy",
    "Supervisor",
    "end_with_parent",
]

CONFIGURATION_ERROR = os.EX_CONFIG
"""Exit status of a part whose site file or options are wrong."""

_PARENT = "SISOCKDAQ_PARENT"
_PR_SET_PDEATHSIG = 1
_LOG_BYTES = 5 * 2**20
"""A log longer than this is put aside as ``.1`` when its part starts."""

State = Literal["starting", "up", "waiting", "failed", "stopping", "stopped"]


@dataclass(frozen=True, slots=True)
class Part:
    """One process of a site.

    Attributes
    ----------
    stage : int
        Orders the stop: higher stages end first (nodes 2, hub 1, router 0).
    last : bool
        Started only when all other parts are up: a simulator, whose packets would otherwise come before its receiver.
    """

    name: str
    kind: str
    command: tuple[str, ...]
    stage: int = 2
    last: bool = False


@dataclass(frozen=True, slots=True)
class PartStatus:
    """What a part is doing since when (monotonic clock); ``message`` is its own last word, or how it ended."""

    name: str
    kind: str
    state: State
    pid: int | None = None
    since: float = 0.0
    restarts: int = 0
    message: str = ""


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """How long a dead part waits: the delays in turn, the last one for ever; from the start after a stable run."""

    delays: tuple[float, ...] = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0)
    stable: float = 30.0
    """A part that was up for so long [s] starts the delays anew."""

    def delay(self, failures: int) -> float:
        """Return the delay before the start that follows failure number `failures` (from 0)."""
        return self.delays[min(failures, len(self.delays) - 1)]


@dataclass(slots=True)
class _Running:
    """A part and its process; touched by the supervisor's thread only."""

    part: Part
    status: PartStatus
    process: subprocess.Popen[bytes] | None = None
    pidfd: int = -1
    words: socket.socket | None = None
    failures: int = 0
    start_at: float | None = None
    last_words: list[str] = field(default_factory=list)


def end_with_parent() -> None:
    """Have the kernel send SIGTERM to this process when the supervisor that started it is gone.

    Does nothing in a process that no supervisor started.
    """
    parent = os.environ.pop(_PARENT, None)
    if parent is None:
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != int(parent):  # it died before the request: no signal will come
        sys.exit(0)


class Supervisor:
    """Starts parts, watches them, starts them again, and ends them.

    Parameters
    ----------
    parts : sequence of Part
        Started in this order, without waiting for one another: each retries until it finds the network. (For `last`,
        see `Part`.)
    logs : Path
        Folder of the logs, ``<part>.log``.
    policy : RestartPolicy
    environment : mapping, optional
        Further environment variables of all parts.
    on_change : callable, optional
        Called with a `PartStatus` at each change, from the supervisor's thread.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        logs: Path,
        *,
        policy: RestartPolicy | None = None,
        environment: Mapping[str, str] | None = None,
        on_change: Callable[[PartStatus], None] | None = None,
    ) -> None:
        self._parts = {part.name: _Running(part, PartStatus(part.name, part.kind, "stopped")) for part in parts}
        self._logs = logs
        self._policy = policy or RestartPolicy()
        self._environment = {**os.environ, **(environment or {}), "PYTHONUNBUFFERED": "1"}
        self._on_change = on_change
        self._changed = threading.Condition()
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        self._selector.register(self._wake_read, selectors.EVENT_READ, None)
        self._orders: list[Callable[[], None]] = []
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)

    def __enter__(self) -> Supervisor:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start all parts."""
        self._logs.mkdir(parents=True, exist_ok=True, mode=0o700)
        for running in self._parts.values():
            running.start_at = None if running.part.last else 0.0
            self._set(running, "starting", message="when all others are up" if running.part.last else "")
        self._thread.start()

    def status(self) -> list[PartStatus]:
        """Return what every part is doing, in the order of the parts."""
        with self._changed:
            return [running.status for running in self._parts.values()]

    def wait_ready(self, timeout: float) -> None:
        """Wait until all parts are up.

        Raises
        ------
        DeadlineExceeded
            Names the parts that are not up after `timeout` seconds.
        SisockdaqError
            A part has failed for good; holds its reason.
        """
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                for running in self._parts.values():
                    if running.status.state == "failed":
                        raise SisockdaqError(
                            f"{running.part.name}: {running.status.message}",
                            remedy=f"see {self.log(running.part.name)}",
                        )
                missing = [run.status for run in self._parts.values() if run.status.state != "up"]
                if not missing:
                    return
                if not self._changed.wait(max(deadline - time.monotonic(), 0.0)) and time.monotonic() >= deadline:
                    words = "; ".join(f"{part.name} ({part.message or part.state})" for part in missing)
                    raise DeadlineExceeded(f"not ready after {timeout:.0f} s: {words}", remedy=f"see {self._logs}")

    def log(self, name: str) -> Path:
        """Return the part's log file."""
        return self._logs / f"{name}.log"

    def restart(self, name: str) -> None:
        """End one part and start it again at once."""
        self._order(lambda: self._signal(self._parts[name], signal.SIGTERM))

    def stop(self, grace: float = 10.0) -> None:
        """End all parts, stage by stage; each stage has `grace` seconds before what is left of it is killed."""
        if self._ended or not self._thread.is_alive():
            return
        for stage in sorted({running.part.stage for running in self._parts.values()}, reverse=True):
            members = [running for running in self._parts.values() if running.part.stage == stage]
            self._order(lambda members=members: self._end(members, signal.SIGTERM))  # type: ignore[misc]
            if not self._wait_stopped(members, grace):
                self._order(lambda members=members: self._end(members, signal.SIGKILL))  # type: ignore[misc]
                self._wait_stopped(members, grace)
        self._ended = True
        self._order(lambda: None)
        self._thread.join()
        self._selector.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _wait_stopped(self, members: list[_Running], timeout: float) -> bool:
        def over() -> bool:
            return all(running.status.state in ("stopped", "failed") for running in members)

        with self._changed:
            return self._changed.wait_for(over, timeout)

    def _order(self, order: Callable[[], None]) -> None:
        with self._changed:
            self._orders.append(order)
        os.write(self._wake_write, b"x")

    # --- the supervisor's thread ---------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._ended:
            for key, _ in self._selector.select(self._until_next_start()):
                if key.data is None:
                    os.read(self._wake_read, 4096)
                elif key.fileobj is key.data.words:
                    self._listen(key.data)
                else:
                    self._bury(key.data)
            with self._changed:
                orders, self._orders = self._orders, []
            for order in orders:
                order()
            now = time.monotonic()
            for running in self._parts.values():
                if running.start_at is not None and running.start_at <= now:
                    self._launch(running)
            self._let_last_start()

    def _let_last_start(self) -> None:
        """Start the parts that wait for all others, once these are up."""
        if all(running.status.state == "up" for running in self._parts.values() if not running.part.last):
            for running in self._parts.values():
                if running.part.last and running.process is None and running.status.state == "starting":
                    self._launch(running)

    def _until_next_start(self) -> float | None:
        times = [running.start_at for running in self._parts.values() if running.start_at is not None]
        return max(min(times) - time.monotonic(), 0.0) if times else None

    def _launch(self, running: _Running) -> None:
        running.start_at = None
        name = f"sisockdaq-{os.getpid()}-{secrets.token_hex(4)}-{running.part.name}"
        words = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        words.bind("\0" + name)  # abstract: leaves no file, whatever happens
        environment = {**self._environment, "NOTIFY_SOCKET": f"@{name}", _PARENT: str(os.getpid())}
        with self._open_log(running.part.name) as log:
            try:
                running.process = subprocess.Popen(
                    running.part.command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=environment,
                    start_new_session=True,
                )
            except OSError as error:
                words.close()
                self._set(running, "failed", message=f"{running.part.command[0]}: {error.strerror}")
                return
        running.words, running.last_words = words, []
        running.pidfd = os.pidfd_open(running.process.pid)
        self._selector.register(words, selectors.EVENT_READ, running)
        self._selector.register(running.pidfd, selectors.EVENT_READ, running)
        self._set(running, "starting", pid=running.process.pid, message="")

    def _open_log(self, name: str) -> IO[bytes]:
        path = self.log(name)
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_size > _LOG_BYTES:
                path.replace(path.with_suffix(".log.1"))
        return path.open("ab")

    def _listen(self, running: _Running) -> None:
        if running.words is None:
            return
        with contextlib.suppress(BlockingIOError):
            for line in running.words.recv(4096).decode(errors="replace").splitlines():
                if line == "READY=1" and running.status.state == "starting":
                    self._set(running, "up")
                elif line.startswith("STATUS="):
                    self._set(running, running.status.state, message=line.removeprefix("STATUS="))

    def _bury(self, running: _Running) -> None:
        """A process has ended: sweep up what it started, and decide what comes next."""
        process = running.process
        if process is None:
            return
        self._listen(running)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # before the wait, so that the number cannot be another's
        code = process.wait()
        for watched in (running.pidfd, running.words):
            if watched is not None:
                self._selector.unregister(watched)
        os.close(running.pidfd)
        if running.words is not None:
            running.words.close()
        running.process, running.words, running.pidfd = None, None, -1
        self._after(running, code)

    def _after(self, running: _Running, code: int) -> None:
        status = running.status
        if status.state == "stopping":
            self._set(running, "stopped", pid=None, message="")
            return
        said = status.message
        if code == CONFIGURATION_ERROR:
            self._set(running, "failed", pid=None, message=said or "its configuration is wrong")
            return
        if status.state == "up" and time.monotonic() - status.since >= self._policy.stable:
            running.failures = 0
        delay = self._policy.delay(running.failures)
        running.failures += 1
        running.start_at = time.monotonic() + delay
        message = "; ".join(filter(None, [_ending(code), said]))
        self._set(running, "waiting", pid=None, restarts=status.restarts + 1, message=message)

    def _signal(self, running: _Running, number: int) -> None:
        if running.process is not None:
            running.process.send_signal(number)

    def _end(self, members: list[_Running], number: int) -> None:
        for running in members:
            running.start_at = None
            if running.process is None:
                if running.status.state != "failed":
                    self._set(running, "stopped")
                continue
            self._set(running, "stopping")
            if number == signal.SIGKILL:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(running.process.pid, number)
            self._signal(running, number)

    def _set(self, running: _Running, state: State, **changes: object) -> None:
        since = running.status.since if running.status.state == state and "pid" not in changes else time.monotonic()
        with self._changed:
            running.status = replace(running.status, state=state, since=since, **changes)  # type: ignore[arg-type]
            self._changed.notify_all()
        if self._on_change is not None:
            self._on_change(running.status)


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended with status {code}"
    try:
        return f"ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"ended by signal {-code}"
