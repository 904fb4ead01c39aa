"""The unix socket at which a ring's consumers knock: one producer a path, whatever an earlier one left behind."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from pathlib import Path

from sisockdaq.errors import FrameSourceError
from sisockdaq.frames._ring_wire import sockets_of

__all__ = ["Door"]

_BACKLOG = 64


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
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise FrameSourceError(
                f"frames of {source}: another process publishes at {path}",
                remedy=f"stop it first (`lsof {path}.lock` names it), or give this source another name",
            ) from None
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
