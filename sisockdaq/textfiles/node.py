"""The node over a folder of text files; a node author says what file names and fields mean.

It answers the usual questions in threads, publishes rows that are appended to the files while it runs on the feed of
their timeline, and tells what it found in the fields of the timeline ``status``.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import Field as Option
from twisted.logger import Logger

from sisockdaq.base import DataNodeServer
from sisockdaq.schema import Field, FieldList, Reply, Samples, Timeline
from sisockdaq.textfiles.folder import Folder, Named, Status
from sisockdaq.textfiles.rows import Floats

__all__ = ["FEED_ROWS", "TextFilesNode"]

FEED_ROWS = 100_000
"""Most rows of a field that one look may bring to the feed; older ones are in the files all the same."""

_ABOUT = {
    "files": "Files of this node's kind in the folder.",
    "files_read": "Files that were read so far.",
    "files_unreadable": "Files that cannot be read; the log names them.",
    "rows_broken": "Lines that are no rows, in the files that were read.",
    "rows_repeated": "Rows whose time was there already; the last one counts.",
    "feed_rows_skipped": "New rows that were too many for the feed.",
}

_log = Logger("sisockdaq.textfiles")


class TextFilesNode(DataNodeServer):
    """Samples from text files.

    A subclass overrides `named` and `describe`, and says with `subfolder` where below the directory its files are.
    """

    subfolder: ClassVar[str] = ""

    class Options(DataNodeServer.Options):
        """Which folder, and how much of it."""

        directory: Path = Option(
            Path("/data"), description="Folder of the files; a relative path starts at the site file."
        )
        max_points: int | None = Option(
            None,
            ge=1,
            description="Most samples of a field in one reply; all there are when it is left out.",
            json_schema_extra={"environment": "MAX_POINTS"},
        )
        refresh: float = Option(10.0, gt=0, description="Time between looks for new files and new rows [s].")

    # What an author writes.

    def named(self, name: str) -> Named | None:
        """Return what a file name says, None for files of others. Called in any thread."""
        raise NotImplementedError

    def describe(self, field: str) -> tuple[Field, float | None] | None:
        """Return a field's entry and its timeline's interval [s], None for a field that this node does not know."""
        raise NotImplementedError

    def always(self) -> Iterable[str]:
        """Return the fields that callers may ask for though no file has them."""
        return ()

    # What the node does.

    def setup(self) -> Any:
        """Make sure of the folder and look into it, in a thread."""
        for name, about in _ABOUT.items():
            self.series(name, description=about, timeline="status", keep=86400)
        self._told: set[str] = set()
        self.folder = Folder(self.place() / self.subfolder, self.named)
        return self.in_thread(self._begin)

    def place(self) -> Path:
        """Return the folder that the option ``directory`` means."""
        directory: Path = self.options.directory.expanduser()
        return Path(self.site.resolve_input(directory)) if self.site is not None else directory.absolute()

    def _begin(self) -> None:
        self.folder.require()
        self._look()
        self.every(self.options.refresh, self._look, in_thread=True)

    def _look(self) -> None:
        """Look for files and rows; publish what is new, tell what is wrong."""
        self.folder.look()
        for timeline, block in self._blocks(self.folder.news(FEED_ROWS)):
            self.publish_feed(timeline, block)
        status: Status = self.folder.status
        self.store.timelines["status"].append(time.time(), status._asdict())
        for problem in self.folder.problems:
            if problem not in self._told:
                _log.warn("{name}: {problem}", name=self.name, problem=problem)
        self._told = set(self.folder.problems)

    def _blocks(self, news: dict[str, tuple[Floats, Floats]]) -> list[tuple[str, dict[str, Any]]]:
        """Put fields with the same new times of one timeline into one block."""
        blocks: list[tuple[str, dict[str, Any]]] = []
        for field, (t, values) in news.items():
            about = self.describe(field)
            if about is None:
                continue
            timeline = about[0].timeline
            same = (b for line, b in blocks if line == timeline and np.array_equal(b["t"], t))
            block = next(same, None)
            if block is None:
                block = {"t": t, "data": {}}
                blocks.append((timeline, block))
            block["data"][field] = values
        return blocks

    def _get_schema_blocking(self, start: float, end: float) -> FieldList:
        found: dict[str, Field] = {}
        intervals: dict[str, float | None] = {}
        for name in self.folder.fields:
            about = self.describe(name) if self.folder.holds(name, start, end) else None
            if about is not None:
                found[name] = about[0]
                intervals.setdefault(about[0].timeline, about[1])
        timelines = {
            line: Timeline(
                interval=interval, fields=tuple(name for name, entry in found.items() if entry.timeline == line)
            )
            for line, interval in intervals.items()
        }
        own: FieldList = self.store.fields(start, end)
        return FieldList({**found, **own.fields}, {**timelines, **own.timelines})

    def _get_samples_blocking(
        self, fields: list[str], start: float, end: float, max_points: int | None, min_stride: float | None
    ) -> Reply:
        limits = [limit for limit in (max_points, self.options.max_points) if limit is not None]
        most = min(limits, default=None)
        known = set(self.folder.fields)
        own = [name for name in fields if name not in known and self.store.field(name) is not None]
        reply: Reply = self.store.get(own, start, end, max_points=most, min_stride=min_stride)
        for name in dict.fromkeys(fields):
            if name in own:
                continue
            about = self.describe(name) if name in known else None
            if about is None:
                reply.samples.update({name: Samples.empty(name)} if name in self.always() else {})
                reply.unknown.extend([] if name in reply.samples else [name])
                continue
            samples, problems = self.folder.read(name, start, end, max_points=most, min_stride=min_stride)
            samples.timeline = about[0].timeline
            samples.covers_from = None if problems else 0.0  # files forget nothing
            reply.samples[name] = samples
            reply.problems.extend(problems)
        return reply
