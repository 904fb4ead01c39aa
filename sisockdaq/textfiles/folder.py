"""The files of one folder as fields: which file has which field and span, and the samples of an interval.

A `Folder` promises

- only files that an interval meets are opened: by the span in the file's name until it was read, then by what is in it;
- rows are joined over all files of a field: sorted by time, of several rows at one time the last (in the order of the
  files, then of the rows) counts;
- what cannot be read is named in `Folder.problems` and left out, the rest is served;
- ``finalized_until`` goes no further than the rows of the field's newest file, and of any other file that was seen to
  change in the last `GROWING` seconds;
- a reply under a limit needs memory for `CHUNK_ROWS` rows, however many are in the interval.

All methods may be called from any thread.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sisockdaq.downsample import thin
from sisockdaq.errors import ConfigurationError, FileUnreadable, ReplyInvalid
from sisockdaq.schema import Samples
from sisockdaq.textfiles.cache import BlockCache
from sisockdaq.textfiles.file import Form, TextFile
from sisockdaq.textfiles.rows import Floats, in_order

__all__ = ["CACHE_BYTES", "CHUNK_ROWS", "GROWING", "MOST_ROWS", "Folder", "Named", "Status"]

CACHE_BYTES = 64 << 20
"""Decoded samples that are kept [bytes]: four million."""

GROWING = 120.0
"""A file that is not its field's newest counts as growing for so long after a change [s]."""

CHUNK_ROWS = 1 << 20
"""Rows that are collected before they are thinned."""

MOST_ROWS = 1 << 24
"""Most samples of one field in a reply: 256 MiB."""

_FEWEST = 1000
"""Each chunk keeps at least so many samples, so that the last thinning has a choice."""

_TRIES = 3
"""How often a file that changes while it is read is tried."""


@dataclass(frozen=True)
class Named:
    """What a file's name says.

    Attributes
    ----------
    field : str
        The field that the file holds.
    form : Form
        How its rows are meant.
    span : tuple of float, optional
        Times that its rows are between, both ends included [s]; None when the name does not say.
    """

    field: str
    form: Form
    span: tuple[float, float] | None = None


class Status(NamedTuple):
    """Numbers of what was found and read."""

    files: int
    files_read: int
    files_unreadable: int
    rows_broken: int
    rows_repeated: int
    feed_rows_skipped: int


class _Entry(NamedTuple):
    named: Named
    file: TextFile

    @property
    def order(self) -> tuple[float, str]:
        return self.named.span[0] if self.named.span else 0.0, self.file.path.name

    def meets(self, start: float, end: float) -> bool:
        """Whether it may have rows in ``[start, end)``."""
        said, found = self.named.span, self.file.span
        if said is None and found is None:
            return not self.file.known
        return (said is not None and said[0] < end and said[1] >= start) or (
            found is not None and found[0] < end and found[1] >= start
        )


class Folder:
    """The files of a folder that a name rule knows.

    Parameters
    ----------
    root : Path
    named : callable
        ``named(file_name)`` returns a `Named`, or None for files of others.
    cache_bytes : int
        Bytes of decoded samples that are kept.
    """

    def __init__(self, root: Path, named: Callable[[str], Named | None], cache_bytes: int = CACHE_BYTES) -> None:
        self.root = root
        self.cache = BlockCache(cache_bytes)
        self._named = named
        self._files: dict[str, _Entry] = {}
        self._fields: dict[str, list[_Entry]] = {}
        self._others: set[str] = set()
        self._problems: dict[str, str] = {}
        self._fed: dict[str, float] | None = None
        self.skipped = 0
        self._looking = threading.Lock()

    # Finding.

    def require(self) -> None:
        """Make sure that the folder can be read.

        Raises
        ------
        ConfigurationError
        """
        try:
            with os.scandir(self.root):
                return
        except OSError as error:
            reason = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
            remedy = "set the option directory to the folder of the files, and mount it if this runs in a container"
            raise ConfigurationError(f"the folder {self.root} {reason}", remedy=remedy) from None

    def look(self) -> None:
        """List the folder, and read what is new in files that were read before or that are their field's newest."""
        with self._looking:
            self._list()
            for entries in list(self._fields.values()):
                for entry in entries:
                    if entry.file.known or entry is entries[-1] or entry.named.span is None:
                        self._update(entry)

    def _list(self) -> None:
        place = str(self.root)
        try:
            names = {found.name for found in os.scandir(self.root)}
        except OSError as error:
            self._problems[place] = f"{place} cannot be listed: {error.strerror or error}"
            return
        self._problems.pop(place, None)
        gone = self._files.keys() - names
        new = names - self._files.keys() - self._others
        if not gone and not new:
            return
        files = {name: entry for name, entry in self._files.items() if name not in gone}
        for name in new:
            named = self._named(name)
            if named is None:
                self._others.add(name)
            else:
                files[name] = _Entry(named, TextFile(self.root / name, named.form, self.cache))
        self._others &= names
        for name in gone:
            self._problems.pop(name, None)
        fields: dict[str, list[_Entry]] = {}
        for entry in sorted(files.values(), key=lambda entry: entry.order):
            fields.setdefault(entry.named.field, []).append(entry)
        self._files, self._fields = files, fields  # replaced as wholes: readers need no lock

    def _update(self, entry: _Entry) -> bool:
        """Read what is new of a file; return whether it can be read."""
        name = entry.file.path.name
        try:
            entry.file.update()
        except FileUnreadable as error:
            self._problems[name] = error.message
            return False
        self._problems.pop(name, None)
        return True

    # What there is.

    @property
    def fields(self) -> list[str]:
        """Names of all fields."""
        return sorted(self._fields)

    @property
    def problems(self) -> list[str]:
        """What cannot be read and why, and the first broken line of each file that has one."""
        broken = [
            f"{entry.file.path}: {entry.file.counts[0]} lines are no rows, the first is {entry.file.first_broken!r}"
            for entry in list(self._files.values())
            if entry.file.first_broken
        ]
        return [*self._problems.values(), *broken]

    @property
    def status(self) -> Status:
        """The numbers."""
        entries = list(self._files.values())
        counts = [entry.file.counts for entry in entries if entry.file.known]
        return Status(
            files=len(entries),
            files_read=len(counts),
            files_unreadable=len(self._problems),
            rows_broken=sum(broken for broken, _ in counts),
            rows_repeated=sum(repeated for _, repeated in counts),
            feed_rows_skipped=self.skipped,
        )

    def holds(self, field: str, start: float, end: float) -> bool:
        """Whether a field may have data in ``[start, end)``."""
        return next(self._meeting(field, start, end), None) is not None

    def header(self, field: str) -> list[str]:
        """Texts of the comment lines at the beginning of the field's newest file."""
        entries = self._fields.get(field, [])
        return entries[-1].file.header if entries else []

    def interval(self, field: str) -> float | None:
        """Middle distance of times in the field's newest file [s], or None."""
        entries = self._fields.get(field, [])
        return entries[-1].file.interval if entries else None

    # Samples.

    def read(
        self,
        field: str,
        start: float,
        end: float,
        *,
        max_points: int | None = None,
        min_stride: float | None = None,
        terminated: bool = False,
    ) -> tuple[Samples, list[str]]:
        """Return a field's samples of ``[start, end)`` and what could not be read.

        Parameters
        ----------
        field : str
        start, end : float
            UNIX times [s].
        max_points, min_stride : optional
            Limits, as those of `sisockdaq.downsample.thin`.
        terminated : bool
            Leave out a last line that lacks its line end.

        Raises
        ------
        ReplyInvalid
            When there are more than `MOST_ROWS` samples.
        """
        problems: list[str] = []
        limited = max_points is not None or bool(min_stride)
        fewest = None if max_points is None else max(max_points, _FEWEST)
        kept, chunk, rows, total = [], [], 0, 0
        for piece in self._pieces(field, start, end, problems, terminated):
            chunk.append(piece)
            rows += len(piece[0])
            if limited and rows >= CHUNK_ROWS:
                kept.append(_joined(chunk, fewest, min_stride))
                total += len(kept[-1])
                chunk, rows = [], 0
            if total + rows > MOST_ROWS:
                raise ReplyInvalid(
                    f"{field} has more than {MOST_ROWS} samples in this span, too many for one answer",
                    remedy="ask a shorter span, or give max_points",
                )
        samples = _joined([*((part.t, part.values) for part in kept), *chunk], max_points, min_stride)
        samples.finalized_until = self._final(field, start, end)
        return samples, problems

    def news(self, most: int) -> dict[str, tuple[Floats, Floats]]:
        """Return the rows later than any that a call before has seen, at most so many newest of a field.

        The first call returns nothing: it takes what is there as seen. Rows beyond `most` are counted in `skipped`.
        """
        if self._fed is None:
            self._fed = {field: self._latest(field) for field in self.fields}
            return {}
        found = {}
        for field in self.fields:
            after = math.nextafter(self._fed.get(field, -math.inf), math.inf)
            try:
                samples, _ = self.read(field, after, math.inf, terminated=True)
            except ReplyInvalid:  # a whole archive was put into the folder; that is nothing to be fed
                self._fed[field] = self._latest(field)
                self.skipped += MOST_ROWS
                continue
            if len(samples):
                self._fed[field] = float(samples.t[-1])
                self.skipped += max(len(samples) - most, 0)
                found[field] = samples.t[-most:], samples.values[-most:]
        return found

    def _latest(self, field: str) -> float:
        return max((e.file.span[1] for e in self._fields.get(field, []) if e.file.span), default=-math.inf)

    def _meeting(self, field: str, start: float, end: float) -> Iterator[_Entry]:
        """Yield the files that may have rows in the interval; the newest may have grown beyond what is known."""
        entries = self._fields.get(field, [])
        for entry in entries:
            later = entry is entries[-1] and (entry.named.span is None or entry.named.span[0] < end)
            if entry.meets(start, end) or (later and self._update(entry) and entry.meets(start, end)):
                yield entry

    def _pieces(
        self, field: str, start: float, end: float, problems: list[str], terminated: bool
    ) -> Iterator[tuple[Floats, Floats]]:
        for entry in self._meeting(field, start, end):
            try:
                yield from _read(entry.file, start, end, terminated)
                self._problems.pop(entry.file.path.name, None)
            except FileUnreadable as error:
                self._problems[entry.file.path.name] = error.message
                problems.append(error.message)

    def _final(self, field: str, start: float, end: float) -> float | None:
        """Return the time before which nothing will change; None when nothing in the interval will."""
        entries = self._fields.get(field, [])
        limit = math.inf
        now = time.monotonic()
        for entry in entries:
            changed = entry.file.changed_at
            if entry is entries[-1] or (changed is not None and now - changed < GROWING):
                reached = entry.file.final_until
                if reached is None:
                    reached = entry.named.span[0] if entry.named.span else start
                limit = min(limit, reached)
        return None if end <= limit else limit


def _read(file: TextFile, start: float, end: float, terminated: bool) -> Iterator[tuple[Floats, Floats]]:
    """Yield a file's rows; begin anew when it changes before the first came."""
    for attempt in range(_TRIES):
        file.update()
        begun = False
        try:
            for piece in file.read(start, end, provisional=not terminated):
                begun = True
                yield piece
            return
        except FileUnreadable:
            if begun or attempt == _TRIES - 1:
                raise


def _joined(pieces: list[tuple[Floats, Floats]], max_points: int | None, min_stride: float | None) -> Samples:
    if not pieces:
        return Samples.empty()
    t, values = in_order(np.concatenate([t for t, _ in pieces]), np.concatenate([values for _, values in pieces]))
    return thin(Samples(t, values), max_points, min_stride)
