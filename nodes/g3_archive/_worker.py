"""A process that opens ``.g3`` files for the node: killed when it takes too long, made again when it died.

so3g is C++ that a damaged file may crash, and it holds Python's lock while it reads; so neither a crash nor a long read
can touch the node. The process ends with the node, however that ends: it reads from a pipe whose other end is here.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from sisockdaq.errors import DeadlineExceeded, FileUnreadable

__all__ = ["Worker"]

_CODE = "import sys; from {module} import serve; serve(int(sys.argv[1]))"

_END = 5.0
"""Longest wait for a killed process to be gone [s]."""


class Worker:
    """One process at a time, started when first needed; may be called from several threads, one at a time is served.

    Attributes
    ----------
    deaths : int
        How often the process died or was killed at work.
    """

    def __init__(self) -> None:
        self.deaths = 0
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The process's number, None while there is none."""
        process = self._process
        return None if process is None else process.pid

    def call(self, function: str, path: str, *arguments: Any, deadline: float) -> Any:
        """Call a function of `_frames` in the process.

        Parameters
        ----------
        function : str
            ``scan`` or ``read``.
        path : str
            The file, its first argument.
        *arguments
            The others.
        deadline : float
            Longest time for everything, the wait for other callers included [s].

        Raises
        ------
        FileUnreadable
            The file cannot be read, or the process died over it, twice.
        DeadlineExceeded
            It took too long; the process was killed.
        """
        until = time.monotonic() + deadline
        if not self._lock.acquire(timeout=max(deadline, 0.0)):
            raise DeadlineExceeded(f"{path} was not read within {deadline:g} s: other files were before it")
        try:
            request = (function, (path, *arguments))
            try:
                good, answer = self._ask(request, path, until, deadline)
            except _DiedError:
                # Perhaps it was another's doing: only a file over which it dies twice is at fault.
                good, answer = self._ask(request, path, until, deadline)
        finally:
            self._lock.release()
        if not good:
            raise FileUnreadable(f"{path}: {answer}")
        return answer

    def close(self) -> None:
        """End the process, also one at work, and start no other."""
        self._closed = True
        process = self._process
        if process is not None and process.poll() is None:
            process.kill()
        with self._lock:
            self._end()

    def _ask(self, request: Any, path: str, until: float, deadline: float) -> Any:
        try:
            pipe = self._started()
            pipe.send(request)
            if not pipe.poll(max(0.0, until - time.monotonic())):
                self._died()
                raise DeadlineExceeded(f"{path} was not read within {deadline:g} s")
            return pipe.recv()
        except (EOFError, OSError):
            code = self._died()
            raise _DiedError(f"{path}: the process that read it {_ending(code)}") from None

    def _started(self) -> Connection:
        if self._closed:
            raise FileUnreadable("the node is ending")
        if self._pipe is None or self._process is None or self._process.poll() is not None:
            self._end()
            here, there = Pipe()
            code = _CODE.format(module=__name__.rpartition(".")[0] + "._frames")
            with there:
                self._process = subprocess.Popen(
                    [sys.executable, "-c", code, str(there.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[there.fileno()],
                )
            self._pipe = here
        return self._pipe

    def _died(self) -> int | None:
        self.deaths += not self._closed
        return self._end()

    def _end(self) -> int | None:
        """Kill the process if it lives; return how it ended."""
        process, self._process = self._process, None
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            pipe.close()
        if process is None:
            return None
        with contextlib.suppress(subprocess.TimeoutExpired):
            # One that crashed is about to be gone; its own code says more than that of a kill.
            process.wait(0.2)
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_END)
        return process.returncode


class _DiedError(FileUnreadable):
    """The process ended at work."""


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return f"was ended by {signal.Signals(-code).name}"
    return f"ended with code {code}"
