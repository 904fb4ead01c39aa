"""Serve what is in series files under the names it had live; a part of `archive.Archive`.

``finalized_until`` of an answer is the newest time that the files have of the field: series are recorded in the order
of their times, so that nothing before it will be added. A sample that came late is the exception, as it is live.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sisockdaq.errors import FileUnreadable, ReplyInvalid
from sisockdaq.nexus._opening import ReaderPool
from sisockdaq.nexus.index import Index, Stamp
from sisockdaq.nexus.reader import file_state
from sisockdaq.nexus.series_index import SeriesIndex, TablePiece
from sisockdaq.nexus.series_plan import SeriesPlan
from sisockdaq.nexus.series_reader import SeriesFileReader
from sisockdaq.schema import SEPARATOR, FieldList, Samples, Timeline, split_name

__all__ = ["SeriesArchive"]

_MOST_BYTES = 512 * 2**20
"""Largest answer for one field [bytes]; more is refused with advice instead of filling the memory."""

_Rows = tuple[TablePiece, SeriesPlan, npt.NDArray[np.intp]]
"""Rows of one field in one file."""


class SeriesArchive:
    """The series files of an archive.

    Parameters
    ----------
    index : Index
    pool : ReaderPool
    """

    def __init__(self, index: Index, pool: ReaderPool) -> None:
        self.index, self._pool = SeriesIndex(index), pool
        self._times = lru_cache(maxsize=512)(self._read_times)

    def look(self, path: Path, seen: Stamp, known: tuple[Stamp, str] | None) -> None:
        """Read what is new in a file: all of it, or the rows that a growing one has got since."""
        # Asked first: only what is read once nobody has the file open any more is all that it will ever hold.
        state = file_state(path, finished=False)
        grown_only = known is not None and known[1] != "broken" and seen.size >= known[0].size
        rows = self.index.rows(path) if grown_only else {}
        try:
            if rows:
                finished, growths = self._pool.read(SeriesFileReader, path, lambda reader: reader.growth(rows))
                self.index.grow(path, growths, "finished" if finished else state, seen)
            else:
                summary = self._pool.read(SeriesFileReader, path, SeriesFileReader.summary)
                self.index.put(summary, "finished" if summary.finished else state, seen)
        except FileUnreadable as error:
            self.index.put_broken(path, error.message, seen)

    def add_fields(self, listing: FieldList, start: float | None, end: float | None) -> None:
        """Add the entries of what has samples in ``[start, end)``; a field's newest file has the word."""
        spans: dict[str, list[float]] = {}
        members: dict[str, dict[str, None]] = {}
        for kind in self.index.kinds(start, end):
            node, timeline = kind.plan.node, f"{kind.plan.node}{SEPARATOR}{kind.plan.timeline}"
            span = spans.setdefault(timeline, [0.0, 0.0])
            span[0] += kind.seconds
            span[1] += kind.intervals
            for plan in kind.plan.fields:
                name = f"{node}{SEPARATOR}{plan.name}"
                if name not in listing.fields or name in members.get(listing.fields[name].timeline, {}):
                    listing.fields[name] = plan.entry(timeline)
                    members.setdefault(timeline, {})[name] = None
        for timeline, (seconds, intervals) in spans.items():
            named = [name for name in members.get(timeline, {}) if listing.fields[name].timeline == timeline]
            if named and timeline not in listing.timelines:
                interval = seconds / intervals if intervals and seconds > 0 else None
                listing.timelines[timeline] = Timeline(interval=interval, fields=tuple(named))

    def get(
        self, names: Sequence[str], start: float, end: float, problems: list[str], *, max_points: int | None = None
    ) -> dict[str, Samples]:
        """Return the samples in ``[start, end)`` of those fields that a file has.

        Each file is opened once for all of its fields. What cannot be read is named in `problems`.

        Raises
        ------
        ReplyInvalid
            When the answer would be too large.
        """
        found: dict[str, Samples] = {}
        wanted: dict[Path, list[tuple[str, _Rows, int]]] = {}
        for name in names:
            pieces = self.index.pieces(name, start, end)
            if not pieces and not self.index.knows(name):
                continue
            chosen, step = self._choose(name, pieces, start, end, problems, max_points)
            plan = chosen[-1][1] if chosen else None
            timeline = f"{split_name(name)[0]}{SEPARATOR}{pieces[-1].plan.timeline}" if pieces else ""
            found[name] = Samples.empty(timeline, plan.type if plan else "number")
            found[name].finalized_until = self.index.latest(name)
            for rows in chosen:
                wanted.setdefault(rows[0].path, []).append((name, rows, step))
        parts: dict[str, list[tuple[npt.NDArray[np.float64], npt.NDArray[np.generic]]]] = {name: [] for name in found}
        for path, asked in sorted(wanted.items(), key=lambda item: item[0].name):
            for name, rows, step in asked:
                try:
                    parts[name].append(self._read(rows, step))
                except FileUnreadable as error:
                    problems.append(f"{path.name}: {error.message}")
        return {name: _joined(samples, parts[name]) for name, samples in found.items()}

    def _choose(
        self,
        name: str,
        pieces: Sequence[TablePiece],
        start: float,
        end: float,
        problems: list[str],
        most: int | None,
    ) -> tuple[list[_Rows], int]:
        """Return which rows of which file are wanted, and every how many of them."""
        field = split_name(name)[1]
        chosen: list[_Rows] = []
        for piece in pieces:
            plan = next(each for each in piece.plan.fields if each.name == field)
            try:
                times = self._times(piece.path, piece.number, piece.version, piece.state)
            except FileUnreadable as error:
                problems.append(f"{piece.path.name}: {error.message}")
                continue
            rows = np.flatnonzero((times >= start) & (times < end))
            if rows.size:
                chosen.append((piece, plan, rows))
        newest = chosen[-1][1] if chosen else None
        fitting = [each for each in chosen if newest is not None and _alike(each[1], newest)]
        if len(fitting) < len(chosen):
            problems.append(f"{name}: samples of another type or shape than the newest were left out")
        total = sum(rows.size for _, _, rows in fitting)
        # Only arrays are thinned before they are read: of numbers a single spike must be found.
        step = max(1, -(-total // most)) if most and newest is not None and newest.shape else 1
        size = newest.row_bytes if newest is not None else 0
        if total // step * size > _MOST_BYTES:
            raise ReplyInvalid(
                f"{total} samples of {name} are {total * size / 1e9:.1f} GB, more than one answer may have",
                remedy="ask a shorter span, or give max_points",
            )
        return fitting, step

    def _read_times(self, path: Path, number: int, version: tuple[int, int], state: str) -> npt.NDArray[np.float64]:
        """Return the times of a table; kept as long as the file has not changed."""
        return self._pool.read(
            SeriesFileReader, path, lambda reader: reader.times(number), version=version, keep=state != "growing"
        )

    def _read(self, rows: _Rows, step: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.generic]]:
        piece, plan, chosen = rows
        times = self._times(piece.path, piece.number, piece.version, piece.state)

        def read(reader: SeriesFileReader) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.generic]]:
            mine = chosen[chosen < reader.rows(piece.plan.node, plan.name)][::step]
            if not mine.size:
                return np.empty(0), np.empty((0, *plan.shape))
            first, last = int(mine[0]), int(mine[-1]) + 1
            regular = mine.size == len(range(first, last, step))
            values = reader.values(piece.plan.node, plan.name, first, last, step if regular else 1)
            return times[mine], values if regular else values[mine - first]

        return self._pool.read(SeriesFileReader, piece.path, read, version=piece.version, keep=piece.state != "growing")


def _alike(one: SeriesPlan, other: SeriesPlan) -> bool:
    return one.shape == other.shape and (one.type == "string") == (other.type == "string")


def _joined(samples: Samples, parts: Sequence[tuple[npt.NDArray[np.float64], npt.NDArray[np.generic]]]) -> Samples:
    """Put pieces together in the order of time; of samples with the same time the one written last is taken."""
    filled = [(t, values) for t, values in parts if len(t)]
    if not filled:
        return samples
    t, values = np.concatenate([t for t, _ in filled]), np.concatenate([values for _, values in filled])
    if not np.all(t[1:] > t[:-1]):
        backwards, rows = np.unique(t[::-1], return_index=True)
        t, values = backwards, values[::-1][rows]
    return Samples(t, values, samples.timeline, samples.finalized_until)
