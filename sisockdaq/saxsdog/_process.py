"""A worker process as the queue sees it: what it has in hand, since when it is silent, how to end it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from multiprocessing import Pipe
from typing import Any

from sisockdaq.saxsdog.workers import Task

__all__ = ["WorkerProcess"]

_CODE = "import sys; from sisockdaq.saxsdog.workers import serve; serve(int(sys.argv[1]))"

_ONE = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
"""One thread a worker: what runs side by side are the workers."""


class WorkerProcess:
    """One process and this end of its pipe.

    Attributes
    ----------
    hand : dict
        The pictures that it was given and has not told of, in their order.
    ready : bool
        Whether it has the plan.
    heard : float
        When it was last heard of, or got work after having none; monotonic [s].
    """

    def __init__(self) -> None:
        here, there = Pipe()
        with there:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _CODE, str(there.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[there.fileno()],
                env={**os.environ, **_ONE},
            )
        self.pipe = here
        self.hand: dict[str, None] = {}
        self.ready = False
        self.heard = time.monotonic()

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def begin(self, plan: bytes) -> None:
        """Send the plan, once it said that it is ready."""
        self.pipe.send_bytes(plan)
        self.ready = True

    def give(self, paths: Sequence[str], last: bool) -> None:
        """Give it pictures."""
        if not self.hand:
            self.heard = time.monotonic()
        self.hand.update(dict.fromkeys(paths))
        self.pipe.send(Task(paths, last))

    def received(self) -> Any:
        """Return the next message.

        Raises
        ------
        EOFError, OSError
            It is gone.
        """
        message = self.pipe.recv()
        self.heard = time.monotonic()
        return message

    def stop(self) -> None:
        """Ask it to end after the picture in hand; one that has not begun is ended at once."""
        if not self.ready:
            self._process.kill()
            return
        with contextlib.suppress(OSError):
            self.pipe.send(None)

    def end(self, patience: float = 0.5) -> str:
        """Wait so long for its end, then kill it; return how it ended, for people."""
        try:
            code = self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self.pipe.close()
        if code < 0:
            with contextlib.suppress(ValueError):
                return f"was ended by {signal.Signals(-code).name}"
        return f"ended with status {code}"

    def kill(self) -> None:
        """End it now."""
        self._process.kill()
