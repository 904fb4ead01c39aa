"""A redis-server of the gateway's own, on this machine: started with it, started again when it dies, ended with it.

Whoever connects without a login may read the streams of std-daq and nothing else, as its clients do; writing takes a
user whose secret stays in the site's state directory. Nothing is kept on disk.
"""

from __future__ import annotations

import contextlib
import ctypes
import shutil
import signal
import subprocess
import time
from pathlib import Path
from urllib.parse import quote

from twisted.logger import Logger

from sisockdaq.errors import ConfigurationError
from sisockdaq.state import StateDirectory
from sisockdaq.supervisor import RestartPolicy

__all__ = ["RedisServer"]

WRITER = "sisockdaq"
"""User that may write."""

ENDING = 3.0
"""Time that the server gets to end before it is killed [s]."""

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)
_log = Logger("sisockdaq.std_daq")


class RedisServer:
    """One redis-server; for one thread.

    Parameters
    ----------
    state : StateDirectory
    port : int
        TCP port on 127.0.0.1; 0: only the unix socket.
    memory : int
        Most memory for data [bytes].

    Raises
    ------
    ConfigurationError
        No redis-server is installed.
    """

    def __init__(self, state: StateDirectory, port: int, memory: int) -> None:
        program = shutil.which("redis-server")
        if program is None:
            raise ConfigurationError(
                "no redis-server is installed", remedy="install it, name one with redis: {url: …}, or leave redis out"
            )
        self._program = program
        self._state = state.make()
        self._port = port
        self._memory = memory
        self._secret = state.secret("redis")
        self._process: subprocess.Popen[bytes] | None = None
        self._failures = 0
        self._start_at = 0.0
        self._policy = RestartPolicy()

    @property
    def socket(self) -> Path:
        """Its unix socket."""
        return self._state.sockets / "redis.sock"

    @property
    def url(self) -> str:
        """Where the user who may write connects."""
        return f"unix://{WRITER}:{quote(self._secret)}@{self.socket}"

    @property
    def shown(self) -> str:
        """Where others connect."""
        return f"redis://127.0.0.1:{self._port}" if self._port else f"unix://{self.socket}"

    @property
    def pid(self) -> int | None:
        """Its process; None while it does not run."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def look(self) -> None:
        """Start it when it does not run and it is time; blocks no longer than a fork takes."""
        if self.pid is not None or time.monotonic() < self._start_at:
            return
        if self._process is not None:
            _log.warn("redis-server has ended with {code}", code=self._process.returncode)
        self._start_at = time.monotonic() + self._policy.delay(self._failures + 1)
        self._failures += 1
        self.socket.unlink(missing_ok=True)
        with (self._state.logs / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, "-"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                preexec_fn=_end_with_parent,
            )
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError), self._process.stdin as stream:
            stream.write(self._configuration().encode())

    def stop(self) -> None:
        """End it."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(ENDING)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _configuration(self) -> str:
        """Return the configuration; it holds the secret, and goes through a pipe."""
        lines = [
            f"port {self._port}",
            "bind 127.0.0.1",
            f"unixsocket {self.socket}",
            "unixsocketperm 700",
            f"dir {self._state.path}",
            'save ""',
            "appendonly no",
            "daemonize no",
            f"maxmemory {self._memory}",
            "maxmemory-policy noeviction",
            "maxclients 200",
            "user default on nopass ~daq:* resetchannels -@all +@read +@connection +info +command -@dangerous",
            f"user {WRITER} on >{self._secret} ~daq:* resetchannels -@all +@read +@write +@connection -@dangerous",
        ]
        return "\n".join(lines) + "\n"


def _end_with_parent() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
