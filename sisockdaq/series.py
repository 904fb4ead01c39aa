"""The live cache: the newest samples of a node's fields, for queries and for the feed.

A `Timeline` holds rows: one time and a value for each of its fields. It promises

- appending costs the same however many samples are kept (rows go into blocks of `BLOCK_ROWS`; nothing is ever moved or
  reallocated as a whole), and a query finds its interval by bisection;
- memory is bounded by age (``keep``), by count (``max_samples``) and, for arrays, by bytes (``max_bytes``); what falls
  out is the oldest, counted in `Timeline.forgotten`;
- samples may come late: they are put where they belong. A second sample of one field at the very same time replaces
  the first and is counted in `Timeline.replaced`, because an archive and the cache are joined by the samples' times;
- all methods may be called from any thread.

Fields of one timeline may be appended one by one (`Series.append`) or together (`Timeline.append`): the same time is
the same row. Where a row has no value for a field, a query for that field leaves the row out.

What is new since the last look is taken with `Timeline.drain`, which is what a feed publishes.
"""

from __future__ import annotations

import math
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sisockdaq._block import Arrays, Block, Column, Piece, make_column
from sisockdaq.downsample import thin
from sisockdaq.schema import Axis, Field, FieldList, FieldType, Reply, Samples
from sisockdaq.schema import Timeline as TimelineEntry

__all__ = ["BLOCK_ROWS", "Series", "SeriesStore", "Timeline"]

BLOCK_ROWS = 4096
"""Rows of one block: 32 KiB a column, small enough to make at once, large enough that a day at 10 Hz is 211 blocks."""

DRAIN_LIMIT = 100_000
"""Most new rows that wait for `Timeline.drain`; beyond it the oldest leave the feed (not the cache), counted."""


class Series:
    """One field of a timeline; made by `SeriesStore.series` or `Timeline.add`."""

    def __init__(self, timeline: Timeline, name: str, entry: Field) -> None:
        self.timeline = timeline
        self.name = name
        self.field = entry

    def append(self, t: float, value: Any) -> None:
        """Append one sample; ``t`` is UNIX time [s]."""
        self.timeline.append(t, {self.name: value})

    def append_block(self, t: npt.ArrayLike, values: npt.ArrayLike | Sequence[Any]) -> None:
        """Append samples at once: ``t`` (n,), ``values`` (n, *shape)."""
        self.timeline.append_block(t, {self.name: values})

    def query(
        self, start: float, end: float, *, max_points: int | None = None, min_stride: float | None = None
    ) -> Samples:
        """Return the samples of ``[start, end)``, absolute UNIX times, thinned to the limits."""
        return self.timeline.query([self.name], start, end, max_points=max_points, min_stride=min_stride)[self.name]

    def latest(self) -> tuple[float, Any] | None:
        """Return time and value of the newest sample, or None."""
        return self.timeline.latest(self.name)

    def __len__(self) -> int:
        return self.timeline.count(self.name)


class Timeline:
    """Rows of one or more fields in the order of their times.

    Parameters
    ----------
    name : str
        The timeline's name in the node's listing.
    keep : float
        Age that is kept, measured from the newest sample [s].
    max_samples : int
        Most rows that are kept.
    max_bytes : int
        Most bytes of array samples that are kept.
    """

    def __init__(
        self, name: str, *, keep: float = 3600.0, max_samples: int = 2_000_000, max_bytes: int = 256 << 20
    ) -> None:
        self.name = name
        self.keep = keep
        self.max_samples = max_samples
        self.max_bytes = max_bytes
        self.replaced = 0
        self.forgotten = 0
        self.feed_skipped = 0
        self.on_append: Callable[[Timeline], None] | None = None
        """Called after each append, in the appending thread and without the lock; a feed's hook."""
        self._columns: dict[str, Column] = {}
        self._blocks: list[Block] = []
        self._firsts: list[float] = []
        self._rows = 0
        self._forgotten_until: float | None = None
        self._pending: list[tuple[npt.NDArray[np.float64], dict[str, Any]]] = []
        self._pending_rows = 0
        self._lock = threading.RLock()
        self._series: dict[str, Series] = {}

    @property
    def series(self) -> dict[str, Series]:
        """The fields of this timeline by name."""
        return dict(self._series)

    def add(self, name: str, entry: Field) -> Series:
        """Add a field; rows that are there already have no value for it, and no memory is taken for them.

        Raises
        ------
        ValueError
            When the field is there already, or its dtype or shape cannot be kept.
        """
        with self._lock:
            if name in self._columns:
                raise ValueError(f"the timeline {self.name} has a field {name} already")
            self._columns[name] = make_column(entry)
            self._series[name] = Series(self, name, entry)
            return self._series[name]

    def append(self, t: float, values: Mapping[str, Any]) -> None:
        """Append one row, or complete the row of that time.

        Raises
        ------
        ValueError, TypeError
            When the time is not finite, a field is unknown, or a value is not of the field's type.
        """
        time = float(t)
        if not math.isfinite(time):
            raise ValueError(f"{t!r} is not a time")
        with self._lock:
            row = {name: self._columns[name].one(name, value) for name, value in self._known(values)}
            self._put(time, row)
            if self.on_append is not None:
                self._note(np.array([time]), {name: [value] for name, value in row.items()})
        if self.on_append is not None:
            self.on_append(self)

    def append_block(self, t: npt.ArrayLike, data: Mapping[str, npt.ArrayLike | Sequence[Any]]) -> None:
        """Append rows at once; a block in order costs one copy.

        Parameters
        ----------
        t : array_like, (n,)
            UNIX times [s].
        data : mapping of str to array_like, (n, *shape)
            Values by field.

        Raises
        ------
        ValueError, TypeError
            As `append`; nothing is kept of a block that is refused.
        """
        times = np.asarray(t, dtype=np.float64)
        if times.ndim != 1 or not np.isfinite(times).all():
            raise ValueError(f"the times of a block for {self.name} are not a list of finite numbers")
        if not len(times):
            return
        with self._lock:
            block = {name: self._columns[name].many(name, values) for name, values in self._known(data)}
            for name, values in block.items():
                if len(values) != len(times):
                    raise ValueError(f"{name}: {len(values)} values for {len(times)} times")
            in_order = bool(np.all(times[1:] > times[:-1])) and (not self._rows or times[0] > self._newest())
            if in_order:
                self._extend(times, block)
            else:
                for i, time in enumerate(times.tolist()):
                    self._put(time, {name: values[i] for name, values in block.items()})
            if self.on_append is not None:
                self._note(times, block)
        if self.on_append is not None:
            self.on_append(self)

    def query(
        self,
        fields: Iterable[str],
        start: float,
        end: float,
        *,
        max_points: int | None = None,
        min_stride: float | None = None,
    ) -> dict[str, Samples]:
        """Return each field's samples in ``[start, end)``; fields that are not of this timeline are left out.

        Fields whose rows are all filled share one ``t`` array, unless thinning chose different rows for them.
        """
        wanted = [name for name in fields if name in self._columns]
        with self._lock:
            pieces = self._pieces(start, end)
            t = np.concatenate([block.t[a:b] for block, a, b in pieces]) if pieces else np.empty(0)
            found: dict[str, Samples] = {}
            limits = (max_points, min_stride)
            final = None if not self._rows or end <= self._newest() else self._newest()
            for name in wanted:
                runs: list[Any] = [block.values(name, a, b) for block, a, b in pieces]
                given, times = _given(name, pieces), t
                if isinstance(self._columns[name], Arrays):
                    # Arrays are thinned before they are stacked: one of a thousand images must not copy all of them.
                    rows = thin(Samples(t[given], np.flatnonzero(given)[:, None]), *limits).values[:, 0]
                    items = [item for run in runs for item in run]
                    values, times = self._columns[name].join([[items[row] for row in rows]]), t[rows]
                else:
                    values = self._columns[name].join(runs)
                    if not given.all():
                        values, times = values[given], t[given]
                found[name] = Samples(times, values, self.name, final, self._covers_from())
        return {name: thin(samples, *limits) for name, samples in found.items()}

    def latest(self, field: str) -> tuple[float, Any] | None:
        """Return time and value of the newest sample of a field, or None."""
        column = self._columns[field]
        with self._lock:
            for block in reversed(self._blocks):
                rows = np.flatnonzero(block.marks(field, block.start, block.stop))
                if len(rows):
                    row = block.start + int(rows[-1])
                    return float(block.t[row]), column.load(block.columns[field][row])
        return None

    def count(self, field: str) -> int:
        """Return how many samples of a field are kept."""
        with self._lock:
            return int(np.count_nonzero(_given(field, [(block, block.start, block.stop) for block in self._blocks])))

    def __len__(self) -> int:
        return self._rows

    @property
    def span(self) -> tuple[float, float] | None:
        """Times of the oldest and the newest row, or None."""
        with self._lock:
            return (float(self._blocks[0].t[self._blocks[0].start]), self._newest()) if self._rows else None

    @property
    def interval(self) -> float | None:
        """Mean spacing of the newest rows [s]; None with fewer than two, or when the spacing is irregular."""
        with self._lock:
            if not self._blocks:
                return None
            block = self._blocks[-1]
            if block.stop - block.start < 3 and len(self._blocks) > 1:
                block = self._blocks[-2]
            steps = np.diff(block.t[max(block.start, block.stop - 100) : block.stop])
        if not len(steps):
            return None
        mean = float(steps.mean())
        return mean if float(steps.std()) <= mean else None

    def entry(self) -> TimelineEntry:
        """Return the timeline's entry in the node's listing."""
        return TimelineEntry(interval=self.interval, fields=tuple(self._series))

    def drain(self) -> list[tuple[npt.NDArray[np.float64], dict[str, npt.NDArray[Any]]]]:
        """Take what was appended since the last call, in order, as blocks whose fields are all filled.

        Only fields whose `Field.feed` is set are in it. Nothing is collected while `on_append` is None.
        """
        with self._lock:
            pending, self._pending, self._pending_rows = self._pending, [], 0
        blocks: list[tuple[npt.NDArray[np.float64], dict[str, npt.NDArray[Any]]]] = []
        i = 0
        while i < len(pending):
            names = tuple(pending[i][1])
            j = i
            while j < len(pending) and tuple(pending[j][1]) == names:
                j += 1
            group = pending[i:j]
            data = {name: self._columns[name].join([values[name] for _, values in group]) for name in names}
            blocks.append((np.concatenate([t for t, _ in group]), data))
            i = j
        return blocks

    def _known(self, values: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
        for name in values:
            if name not in self._columns:
                raise ValueError(f"the timeline {self.name} has no field {name}; it has {', '.join(self._columns)}")
        return values.items()

    def _newest(self) -> float:
        last = self._blocks[-1]
        return float(last.t[last.stop - 1])

    def _covers_from(self) -> float | None:
        """Say from when on nothing was forgotten: everything since the node began, or since the last row let go."""
        if self._forgotten_until is not None:
            return math.nextafter(self._forgotten_until, math.inf)
        return float(self._blocks[0].t[self._blocks[0].start]) if self._rows else None

    def _put(self, time: float, row: Mapping[str, Any]) -> None:
        if not self._rows or time > self._newest():
            block = self._room()
            if block.start == block.stop:
                self._firsts[-1] = time
            block.push(time, row)
            self._rows += 1
            self._trim()
            return
        index = max(bisect_right(self._firsts, time) - 1, 0)
        block = self._blocks[index]
        place = block.start + int(np.searchsorted(block.t[block.start : block.stop], time))
        if place < block.stop and block.t[place] == time:
            self.replaced += block.fill(place, row)
            return
        block.insert(place, time, row)
        self._firsts[index] = float(block.t[block.start])
        self._rows += 1
        if block.stop - block.start > 2 * BLOCK_ROWS:
            second = block.split()
            self._blocks.insert(index + 1, second)
            self._firsts.insert(index + 1, float(second.t[second.start]))
        self._trim()

    def _extend(self, t: npt.NDArray[np.float64], data: Mapping[str, Any]) -> None:
        done = 0
        while done < len(t):
            block = self._room()
            if block.start == block.stop:
                self._firsts[-1] = float(t[done])
            n = min(block.capacity - block.stop, len(t) - done)
            block.extend(t[done : done + n], {name: values[done : done + n] for name, values in data.items()})
            self._rows += n
            done += n
        self._trim()

    def _room(self) -> Block:
        """Return a block with room for a row at its end."""
        if not self._blocks or self._blocks[-1].stop == self._blocks[-1].capacity:
            self._blocks.append(Block(BLOCK_ROWS, self._columns))
            self._firsts.append(math.inf)
        return self._blocks[-1]

    def _trim(self) -> None:
        """Let go of what is too old, too many or too large."""
        oldest = self._newest() - self.keep
        excess = self._rows - self.max_samples
        per_row = sum(column.bytes_per_row for column in self._columns.values())
        if per_row:
            excess = max(excess, self._rows - max(self.max_bytes // per_row, 1))
        while self._rows > 1:
            block = self._blocks[0]
            rows = block.stop - block.start
            drop = max(int(np.searchsorted(block.t[block.start : block.stop], oldest)), min(excess, rows))
            drop = min(drop, self._rows - 1)
            if drop <= 0:
                return
            self._forgotten_until = float(block.t[block.start + drop - 1])
            block.forget(drop)
            self._rows -= drop
            self.forgotten += drop
            excess -= drop
            if drop < rows:
                self._firsts[0] = float(block.t[block.start])
                return
            del self._blocks[0], self._firsts[0]

    def _pieces(self, start: float, end: float) -> list[Piece]:
        """Return the runs of rows in ``[start, end)``."""
        pieces = []
        for index in range(max(bisect_right(self._firsts, start) - 1, 0), len(self._blocks)):
            block = self._blocks[index]
            if self._firsts[index] >= end:
                break
            a, b = np.searchsorted(block.t[block.start : block.stop], (start, end)) + block.start
            if b > a:
                pieces.append((block, int(a), int(b)))
        return pieces

    def _note(self, t: npt.NDArray[np.float64], data: Mapping[str, Any]) -> None:
        """Remember rows for the feed; the oldest leave when nobody drains."""
        fed = {name: values for name, values in data.items() if self._series[name].field.feed}
        if not fed:
            return
        self._pending.append((t, fed))
        self._pending_rows += len(t)
        while self._pending_rows > DRAIN_LIMIT and len(self._pending) > 1:
            lost = len(self._pending.pop(0)[0])
            self._pending_rows -= lost
            self.feed_skipped += lost


class SeriesStore:
    """All timelines of one node, and the answers to the two questions every node is asked."""

    def __init__(self) -> None:
        self.timelines: dict[str, Timeline] = {}
        self._owner: dict[str, Timeline] = {}

    def forget(self, timeline: str) -> None:
        """Remove a timeline with its fields and samples, so that they may be declared anew, of another shape."""
        for name in list((self.timelines.pop(timeline)).series):
            del self._owner[name]

    def series(
        self,
        name: str,
        *,
        units: str | None = None,
        description: str | None = None,
        timeline: str | None = None,
        type: FieldType = "number",
        shape: tuple[int, ...] | None = None,
        dtype: str | None = None,
        axes: Sequence[Axis | Mapping[str, Any]] = (),
        keep: float = 3600.0,
        max_samples: int = 2_000_000,
        feed: bool = True,
    ) -> Series:
        """Declare a field; its timeline (by default of the same name) is made with the first field that names it.

        Parameters
        ----------
        name : str
            The field.
        units, description : str, optional
            For people.
        timeline : str, optional
            Fields that are sampled together share one.
        type : {"number", "string", "bool", "array"}
            Numbers are float64 unless ``dtype`` says otherwise.
        shape, dtype : optional
            Of one sample of an array.
        axes : sequence of Axis
            One for each dimension of an array, or none.
        keep : float
            Age that is kept [s]; of a shared timeline the longest of its fields.
        max_samples : int
            Most samples that are kept.
        feed : bool
            Whether new samples are published.

        Raises
        ------
        ValueError
            When the name is taken, or type, shape and dtype do not fit together.
        """
        if name in self._owner:
            raise ValueError(f"there is a series {name} already")
        line_name = timeline or name
        entry = Field(
            timeline=line_name, type=type, units=units, description=description, shape=shape, dtype=dtype,
            axes=tuple(Axis.model_validate(axis) for axis in axes), feed=feed,
        )  # fmt: skip
        line = self.timelines.get(line_name)
        if line is None:
            line = Timeline(line_name, keep=keep, max_samples=max_samples)
        made = line.add(name, entry)
        line.keep = max(line.keep, keep)
        self.timelines[line_name] = line
        self._owner[name] = line
        return made

    def field(self, name: str) -> Field | None:
        """Return the entry of a field, or None."""
        return self._owner[name].series[name].field if name in self._owner else None

    def fields(self, start: float | None = None, end: float | None = None) -> FieldList:
        """Return the listing; with an interval (absolute UNIX times), without timelines that have data outside it only.

        Fields without any sample yet are always listed: who wants to watch them must know them.
        """
        listing = FieldList()
        for name, line in list(self.timelines.items()):  # a copy: another thread may declare a series meanwhile
            span = line.span
            if start is not None and end is not None and span is not None and (span[1] < start or span[0] >= end):
                continue
            listing.timelines[name] = line.entry()
            listing.fields.update({member: series.field for member, series in line.series.items()})
        return listing

    def get(
        self,
        fields: Iterable[str],
        start: float,
        end: float,
        *,
        max_points: int | None = None,
        min_stride: float | None = None,
    ) -> Reply:
        """Return the samples of ``[start, end)``, absolute UNIX times; unknown fields are named in the reply."""
        asked = list(dict.fromkeys(fields))
        reply = Reply(unknown=[name for name in asked if name not in self._owner])
        found: dict[str, Samples] = {}
        for line in dict.fromkeys(self._owner[name] for name in asked if name in self._owner):
            found |= line.query(asked, start, end, max_points=max_points, min_stride=min_stride)
        reply.samples = {name: found[name] for name in asked if name in found}
        return reply


def _given(name: str, pieces: Sequence[Piece]) -> npt.NDArray[np.bool_]:
    """Say which rows have a value."""
    return np.concatenate([block.marks(name, a, b) for block, a, b in pieces]) if pieces else np.empty(0, np.bool_)
