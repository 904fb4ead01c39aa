"""Hear of new and closed files below a folder from the kernel.

Only events that say "there is something new to read" are asked for: a file that was made, moved here or closed after
writing. Writes are not, for a growing file has thousands of them a second.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from watchdog.events import (
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer

from sisockdaq.nexus.layout import acquisition_of
from sisockdaq.nexus.placing import is_named_master
from sisockdaq.nexus.series_file import is_series_file

__all__ = ["FolderWatch"]

_EVENTS: list[type[FileSystemEvent]] = [FileCreatedEvent, FileMovedEvent, FileClosedEvent, FileDeletedEvent]


class FolderWatch(FileSystemEventHandler):
    """Calls `changed` with the path of each of our files that something happened to; from a thread of its own."""

    def __init__(self, root: Path, changed: Callable[[Path], None]) -> None:
        super().__init__()
        self._changed = changed
        self._observer = Observer()
        self._observer.schedule(self, os.fspath(root), recursive=True, event_filter=_EVENTS)
        self._observer.start()

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Pass the paths on."""
        for path in (event.src_path, event.dest_path):
            name = Path(os.fsdecode(path))
            if path and not name.name.startswith(".") and _may_be_ours(name):
                self._changed(name)

    def close(self) -> None:
        """Stop watching."""
        self._observer.stop()
        self._observer.join(5.0)


def _may_be_ours(path: Path) -> bool:
    return acquisition_of(path.name) is not None or is_series_file(path.name) or is_named_master(path)
