"""`ImageWatch`: hears of new images below folders, once they are whole.

The kernel tells when a file was closed after writing or moved here; a file that is only made is not told of, for it is
not yet written. Where the kernel tells nothing, as on some network file systems, folders are looked at now and then,
and a file counts as whole when it has not changed for a while.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from watchdog.events import FileClosedEvent, FileMovedEvent, FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.polling import PollingObserver

from sisockdaq.errors import ConfigurationError, StorageError

__all__ = ["ENDINGS", "ImageWatch"]

ENDINGS = (".tif", ".tiff", ".cbf", ".edf")

_SETTLED = 2.0
"""Time without a change after which a file counts as whole where the kernel tells nothing [s]."""


class ImageWatch:
    """Calls `notice` with each new image, from a thread of its own.

    Parameters
    ----------
    folders : sequence of Path
        Watched with all that is below them.
    notice : callable
    endings : sequence of str
        Which files count.
    polling : float, optional
        Look every so many seconds instead of being told [s].
    """

    def __init__(
        self,
        folders: Sequence[Path],
        notice: Callable[[Path], object],
        *,
        endings: Sequence[str] = ENDINGS,
        polling: float | None = None,
    ) -> None:
        self.folders = [folder.resolve() for folder in folders]
        self._notice = notice
        self._endings = tuple(one.lower() for one in endings)
        self._polling = polling
        self._observer: Any = None

    def start(self) -> None:
        """Watch.

        Raises
        ------
        ConfigurationError, StorageError
        """
        self.check()
        self._observer = Observer() if self._polling is None else PollingObserver(timeout=self._polling)
        for folder in self.folders:
            if self._polling is None:
                events: list[type[FileSystemEvent]] = [FileClosedEvent, FileMovedEvent]
                self._observer.schedule(_Whole(self._see), os.fspath(folder), recursive=True, event_filter=events)
            else:
                handler = _Settling(self._see, max(_SETTLED, 2 * self._polling))
                self._observer.schedule(handler, os.fspath(folder), recursive=True)
        try:
            self._observer.start()
        except OSError as error:
            raise StorageError(
                f"cannot watch {', '.join(map(str, self.folders))}: {error.strerror}",
                remedy="look every few seconds instead: --polling 2",
            ) from None

    def check(self) -> None:
        """Raise ConfigurationError where there is nothing to watch."""
        for folder in self.folders:
            if not folder.is_dir():
                raise ConfigurationError(f"{folder} is no folder", remedy="name folders in which images appear")

    def close(self) -> None:
        """Watch no more."""
        if self._observer is not None and self._observer.is_alive():
            self._observer.stop()
            self._observer.join(5.0)

    def _see(self, path: Path) -> None:
        if not path.name.startswith(".") and path.name.lower().endswith(self._endings):
            self._notice(path)


class _Whole(FileSystemEventHandler):
    """Passes on files that the kernel says are closed or moved here."""

    def __init__(self, notice: Callable[[Path], object]) -> None:
        super().__init__()
        self._notice = notice

    def on_closed(self, event: FileSystemEvent) -> None:
        self._notice(Path(os.fsdecode(event.src_path)))

    def on_moved(self, event: FileSystemEvent) -> None:
        if not event.is_directory and event.dest_path:
            self._notice(Path(os.fsdecode(event.dest_path)))


class _Settling(FileSystemEventHandler):
    """Passes on files that have not changed for a while."""

    def __init__(self, notice: Callable[[Path], object], settled: float) -> None:
        super().__init__()
        self._notice = notice
        self._settled = settled
        self._timers: dict[Path, threading.Timer] = {}

    def on_any_event(self, event: FileSystemEvent) -> None:
        name = event.dest_path or event.src_path
        if event.is_directory or event.event_type not in ("created", "modified", "moved"):
            return
        path = Path(os.fsdecode(name))
        if path in self._timers:
            self._timers.pop(path).cancel()
        timer = threading.Timer(self._settled, self._whole, (path,))
        timer.daemon = True
        self._timers[path] = timer
        timer.start()

    def _whole(self, path: Path) -> None:
        self._timers.pop(path, None)
        self._notice(path)
