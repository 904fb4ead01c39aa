"""`Feeder`: publishes each new image below some folders, for servers that subscribe.

At most `WAITING` files wait to be published; then the oldest go, and are counted.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import zmq
from sisockdaq.gateways.saxsdog.watch import ENDINGS, ImageWatch

from sisockdaq.errors import PortTaken
from sisockdaq.saxsdog.wire import new_file_message

__all__ = ["Feeder"]

WAITING = 100_000


class Feeder:
    """A publisher of new files.

    Parameters
    ----------
    folders : sequence of Path
        Watched with all that is below them.
    address : str
        Where it publishes, as ``tcp://127.0.0.1:9823``; port ``*`` lets the system choose.
    prefix : str, optional
        What stands for the watched folder on the server's machine. Default: paths are absolute.
    endings, polling
        As those of `ImageWatch`.
    told : callable
        Called with each path that was published.

    Attributes
    ----------
    address : str
    published, dropped : int
    """

    def __init__(
        self,
        folders: Sequence[Path],
        address: str,
        *,
        prefix: str | None = None,
        endings: Sequence[str] = ENDINGS,
        polling: float | None = None,
        told: Callable[[str], None] = lambda path: None,
    ) -> None:
        self.address = address
        self.published = self.dropped = 0
        self._prefix = prefix
        self._told = told
        self._waiting: deque[str] = deque(maxlen=WAITING)
        self._new = threading.Event()
        self._watch = ImageWatch(folders, self._notice, endings=endings, polling=polling)
        self._socket: Any = None

    def start(self) -> None:
        """Bind and watch.

        Raises
        ------
        PortTaken, ConfigurationError, StorageError
        """
        self._watch.check()
        self._socket = zmq.Context.instance().socket(zmq.PUB)
        self._socket.set(zmq.LINGER, 1000)
        self._socket.set(zmq.SNDHWM, WAITING)
        try:
            self._socket.bind(self.address)
        except zmq.ZMQError as error:
            self.close()
            raise PortTaken(
                f"cannot publish at {self.address}: {error.strerror}",
                remedy="end what holds it, or choose another --port",
            ) from None
        self.address = self._socket.get(zmq.LAST_ENDPOINT).decode().rstrip("\0")
        self._watch.start()

    def publish_waiting(self, timeout: float) -> int:
        """Publish what was heard of, after a wait of at most `timeout` seconds; return how many files that were."""
        self._new.wait(timeout)
        self._new.clear()
        count = 0
        while self._waiting:
            path = self._waiting.popleft()
            self._socket.send(new_file_message(path))
            self._told(path)
            count += 1
        self.published += count
        return count

    def close(self) -> None:
        """Watch no more."""
        self._watch.close()
        if self._socket is not None:
            self._socket.close()

    def _notice(self, path: Path) -> None:
        self.dropped += len(self._waiting) == WAITING
        self._waiting.append(self._named(path))
        self._new.set()

    def _named(self, path: Path) -> str:
        if self._prefix is None:
            return str(path)
        for folder in self._watch.folders:
            if path.is_relative_to(folder):
                return os.path.join(self._prefix, path.relative_to(folder))  # noqa: PTH118 - the server's own form
        return str(path)
