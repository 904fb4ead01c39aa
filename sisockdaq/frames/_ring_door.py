"""The unix socket at which a ring's consumers knock: one producer a path, whatever an earlier one left behind."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from pathlib import Path

from sisockdaq.errors import FrameSourceError
from sisockdaq.frames._ring_wire import sockets_of

__all__ = ["Door"]

_BACKLOG = 64

_PREDECESSOR_GONE_WITHIN = 0.5
"""Time between the end of a killed process's sockets and that of its locks [s]."""


class Door:
    """A listening socket, held under a file lock that the kernel drops with the process.

    The lock (``<path>.lock``, an empty file that stays) tells a living producer from a socket file that a dead one
    left; without it two producers that start together could each take the other's socket for a dead one's.

    Raises
    ------
    FrameSourceError
        When another process publishes here, or the folder cannot be used.
    """

    def __init__(self, path: Path, source: str) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = os.open(f"{path}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise FrameSourceError(
                f"frames of {source}: cannot use the folder {path.parent}: {error.strerror}"
            ) from error
        if not _lock(self._lock):
            os.close(self._lock)
            raise FrameSourceError(
                f"frames of {source}: another process publishes at {path}",
                remedy=f"stop it first (`lsof {path}.lock` names it), or give this source another name",
            )
        try:
            path.unlink(missing_ok=True)
            self.listener = sockets_of(path)
            self.listener.bind(str(path))
            path.chmod(0o600)
            self.listener.listen(_BACKLOG)
        except (OSError, ValueError) as error:
            os.close(self._lock)
            raise FrameSourceError(f"frames of {source}: cannot listen at {path}: {error}") from error

    def accept(self) -> socket.socket | None:
        """Return a new connection, non-blocking; None when it has gone already."""
        with contextlib.suppress(OSError):
            connection, _ = self.listener.accept()
            connection.setblocking(False)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            return connection
        return None

    def close(self) -> None:
        """Stop listening and remove the socket file."""
        self.listener.close()
        self.path.unlink(missing_ok=True)
        os.close(self._lock)


def _lock(descriptor: int) -> bool:
    """Lock a file; a predecessor that is just dying is given a moment to let go."""
    until = time.monotonic() + _PREDECESSOR_GONE_WITHIN
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError:
            if time.monotonic() > until:
                return False
            time.sleep(0.02)
