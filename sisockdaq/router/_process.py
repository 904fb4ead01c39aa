"""The router as a process: started, watched until it takes connections, stopped whole.

crossbar is a controller process with a worker process; both are in one process group, which is signalled as a whole,
so that neither outlives the other.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from sisockdaq.errors import ConfigurationError, ConnectionFailed, DeadlineExceeded, PortTaken

__all__ = ["RouterProcess", "free_port", "require_free_port", "router_environment", "template_folder"]

_POLL = 0.05
"""Time between two tries to connect while the router starts [s]; crossbar has no signal for "ready"."""

_STOP_DEADLINE = 15.0
"""Time that a router gets to stop in order [s]; it takes about 4 s."""

_LOG_LINES = 8
"""Lines of the router's log that an error quotes."""


class RouterProcess:
    """A running router.

    Parameters
    ----------
    command : sequence of str
        Runs the router in the foreground.
    log : Path
        Takes its output; appended to.
    socket : Path
        Its unix socket; a leftover of a killed router is removed before the start.
    addresses : sequence of (host, port)
        Its TCP ports.
    """

    def __init__(self, command: Sequence[str], log: Path, socket: Path, addresses: Sequence[tuple[str, int]]) -> None:
        self._command = list(command)
        self._log = log
        self._socket = socket
        self._addresses = list(addresses)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the controller; None before the start."""
        return self._process.pid if self._process else None

    def running(self) -> bool:
        """Whether the controller process lives."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the process; does not wait for it to be ready."""
        if _accepts(self._socket):
            raise PortTaken(
                f"another router listens on {self._socket}", remedy="stop the site that is running with this state"
            )
        self._socket.unlink(missing_ok=True)
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=router_environment(),
                start_new_session=True,
            )

    def wait_until_ready(self, deadline: float) -> None:
        """Return once every transport takes connections.

        Raises
        ------
        DeadlineExceeded, ConnectionFailed
        """
        end = time.monotonic() + deadline
        while not (_accepts(self._socket) and all(map(_accepts, self._addresses))):
            if not self.running():
                raise ConnectionFailed(f"the router stopped while starting: {self._log_end()}", remedy=self._see_log())
            if time.monotonic() > end:
                self.kill()
                raise DeadlineExceeded(
                    f"the router took no connections within {deadline:g} s: {self._log_end()}", remedy=self._see_log()
                )
            time.sleep(_POLL)

    def stop(self, deadline: float = _STOP_DEADLINE) -> None:
        """Stop it in order; after `deadline` seconds, kill it."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(deadline)
        self.kill()

    def kill(self) -> None:
        """Kill controller and worker at once, and wait until they are gone."""
        process = self._process
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        self._wait_for_group(process.pid)
        self._socket.unlink(missing_ok=True)

    def _wait_for_group(self, group: int, deadline: float = 5.0) -> None:
        """Wait until the last process of the group is gone, so that its port is free again."""
        end = time.monotonic() + deadline
        while time.monotonic() < end:
            try:
                os.killpg(group, 0)
            except (ProcessLookupError, PermissionError):
                return
            time.sleep(_POLL)

    def _log_end(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines() if self._log.exists() else []
        return "\n".join(lines[-_LOG_LINES:]) or "nothing in its log"

    def _see_log(self) -> str:
        return f"see {self._log}"


def router_environment() -> dict[str, str]:
    """Return the environment that the router runs in."""
    return {
        **os.environ,
        # Without this, the pure-Python bjdata prints a harmless traceback of numpy at import.
        "PYBJDATA_NO_EXTENSION": "1",
        "PYTHONWARNINGS": "ignore",
        "PYTHONUNBUFFERED": "1",
        # Brings in sitecustomize.py, which says why.
        "PYTHONPATH": os.pathsep.join(filter(None, (str(template_folder()), os.environ.get("PYTHONPATH")))),
    }


def template_folder() -> Path:
    """Return the folder of the router's template: in this package when installed, ``crossbar/`` in a checkout.

    Raises
    ------
    ConfigurationError
        When neither is there.
    """
    package = Path(__file__).parents[1]
    for folder in (package / "router_template", package.parent / "crossbar"):
        if (folder / "router.json").is_file():
            return folder
    raise ConfigurationError("the router's template router.json is missing", remedy="install sisockdaq again")


def require_free_port(host: str, port: int, wanted_by: str, key: str = "router.port") -> None:
    """Raise `PortTaken`, naming the holder where it can be known, unless the TCP port can be listened on."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PortTaken(
                f"{wanted_by} cannot listen on {host}:{port}: {error.strerror or error}{_holder(port)}",
                remedy=f"stop that program, or set another {key} in the site file",
            ) from None


def free_port(host: str = "127.0.0.1") -> int:
    """Return a TCP port that was free a moment ago."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _holder(port: int) -> str:
    """Return who listens on the port, as ``; held by …``, or nothing where the system does not tell."""
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                return f"; held by {psutil.Process(connection.pid).name()} (process {connection.pid})"
    return ""


def _accepts(address: Path | tuple[str, int]) -> bool:
    family = socket.AF_UNIX if isinstance(address, Path) else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(address) if isinstance(address, Path) else address)
        except OSError:
            return False
    return True
