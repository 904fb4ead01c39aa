"""What an OCS feed's samples become: fields with names, types and timelines, within limits.

A field's type is that of its first values. Later values of another type go to a field beside it, ``<field>.number``,
``<field>.bool`` or ``<field>.string`` (only a bool fits a number field, as 0 or 1), so that an agent that was changed
loses nothing; they are counted. A field keeps the timeline of the block it was first seen in.

Nothing grows without end: fields and feeds beyond the limits are refused, counted, and the first of them named. What a
message lacks costs no more than that part of it; see `sisockdaq.nodes.ocs_feed.messages`.

Pure: series are made by a function that is given, and the clock is an argument.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from sisockdaq.nodes.ocs_feed.addresses import Source
from sisockdaq.nodes.ocs_feed.messages import FAULTS, Column, FeedBlock, ValueType, read_message

from sisockdaq.series import Series, Timeline

__all__ = ["COUNTS", "Declare", "FeedCache", "Limits", "Prefix"]

Prefix = Literal["none", "target", "target.feed"]
"""What stands before a field's own name."""

COUNTS = {
    "messages": "Messages that came.",
    "samples": "Values that were kept.",
    "type_changes": "Values whose type is not that of their field; they are in a field beside it.",
    "fields_refused": "Columns beyond the largest number of fields.",
    "names_taken": "Columns whose name belongs to another feed.",
    "feeds_refused": "Messages of feeds beyond the largest number of feeds.",
    **{f"faulty_{kind}": text for kind, text in FAULTS.items()},
}
"""Everything that is counted: name → what it says."""

_DROPS = ("faulty_", "fields_refused", "names_taken", "feeds_refused")

NAMED = 20
"""Most things of one kind that are named in the log; all are counted."""

_NOT_IN_TOPIC = re.compile(r"[^A-Za-z0-9_-]")
_LONGEST_BLOCK_NAME = 255


class Declare(Protocol):
    """Makes a series, as `DataNodeServer.series` does."""

    def __call__(
        self, name: str, *, type: ValueType, timeline: str, description: str, keep: float, max_samples: int
    ) -> Series:
        """Declare a field."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is kept: age [s], rows of a timeline, fields, feeds."""

    keep: float = 3600.0
    max_samples: int = 1_000_000
    max_fields: int = 2000
    max_feeds: int = 200


@dataclass(slots=True)
class _Fields:
    """A field and those beside it, by type; the first one's type is the field's own."""

    source: Source
    timeline: str
    series: dict[ValueType, Series] = field(default_factory=dict)

    @property
    def type(self) -> ValueType:
        return next(iter(self.series))


@dataclass(slots=True)
class _Feed:
    """What came of one feed."""

    messages: int = 0
    samples: int = 0
    faults: int = 0
    last: float | None = None
    last_fault: str = ""


class FeedCache:
    """All that came of some feeds.

    Parameters
    ----------
    declare : callable
        Makes a series: ``declare(name, type=, timeline=, description=, keep=, max_samples=)``.
    root : str
        What all addresses begin with.
    prefix : {"none", "target", "target.feed"}
        What stands before a field's own name.
    taken_timelines : sequence of str
        Names of timelines that are not to be used for blocks.
    limits : Limits
    say : callable
        Gets a line for the log, once for each kind of trouble and feed.
    """

    def __init__(
        self,
        declare: Declare,
        *,
        root: str = "observatory",
        prefix: Prefix = "none",
        taken_timelines: Sequence[str] = (),
        limits: Limits | None = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.counts: Counter[str] = Counter(dict.fromkeys(COUNTS, 0))
        self._declare = declare
        self._root = root
        self._prefix = prefix
        self._limits = limits or Limits()
        self._say = say
        self._feeds: dict[Source, _Feed] = {}
        self._fields: dict[str, _Fields] = {}
        self._timelines: dict[str, Source | None] = dict.fromkeys(taken_timelines)
        self._made = 0
        self._said: set[tuple[Any, ...]] = set()
        self._said_of: Counter[str] = Counter()

    @property
    def fields(self) -> int:
        """How many fields there are."""
        return self._made

    @property
    def dropped(self) -> int:
        """How many messages, blocks and columns were not kept; those of free form hold nothing that could be."""
        return sum(n for name, n in self.counts.items() if name.startswith(_DROPS) and name != "faulty_free_form")

    @property
    def feeds(self) -> int:
        """How many feeds something came of."""
        return len(self._feeds)

    def take(self, source: Source, arguments: Sequence[Any], now: float) -> None:
        """Keep what can be kept of one event; never raises for what is in it.

        Parameters
        ----------
        source : Source
            The feed, from the event's topic.
        arguments : sequence
            The event's positional arguments.
        now : float
            The present UNIX time [s].
        """
        self.counts["messages"] += 1
        feed = self._feeds.get(source)
        if feed is None:
            if len(self._feeds) >= self._limits.max_feeds:
                limit = f"there are {self._limits.max_feeds} feeds already (max_feeds)"
                self._count("feeds_refused", source, limit, source)
                return
            feed = self._feeds[source] = _Feed()
        feed.messages += 1
        feed.last = now
        message = read_message(arguments, now)
        for fault in message.faults:
            feed.faults += 1
            feed.last_fault = fault.detail
            self._count(f"faulty_{fault.kind}", source, fault.detail)
        before = self.counts["samples"]
        for block in message.blocks:
            self._keep(source, block)
        feed.samples += self.counts["samples"] - before

    def describe(self) -> dict[str, dict[str, Any]]:
        """Return, for each feed by its address, what came and what was wrong with it."""
        return {
            source.topic(self._root): {
                "messages": feed.messages,
                "samples": feed.samples,
                "faults": feed.faults,
                "last": feed.last,
                "last_fault": feed.last_fault,
            }
            for source, feed in self._feeds.items()
        }

    def _keep(self, source: Source, block: FeedBlock) -> None:
        """Append a block's columns: those with a value in each row at once, the others by themselves."""
        whole: dict[Timeline, dict[str, Any]] = {}
        parts: list[tuple[Series, Column, Any]] = []
        for name, columns in block.columns.items():
            for column in columns:
                found = self._series(source, block.name, name, column)
                if found is None:
                    continue
                series, values = found
                self.counts["samples"] += len(column)
                if column.rows is None:
                    whole.setdefault(series.timeline, {})[series.name] = values
                else:
                    parts.append((series, column, values))
        for timeline, data in whole.items():
            timeline.append_block(block.t, data)
        for series, column, values in parts:
            series.append_block(block.t[column.rows], values)

    def _series(self, source: Source, block: str, name: str, column: Column) -> tuple[Series, Any] | None:
        """Return the series for a column, and the values as it takes them; None where they are not kept."""
        full = self._full_name(source, name)
        known = self._fields.get(full)
        if known is None:
            if column.type is None:
                return None  # Nothing but missing values: the type is not known yet.
            if not self._room_for(source, full):
                return None  # Before its timeline has a name: names take memory as well.
            known = _Fields(source, self._timeline(source, block))
        elif known.source != source:
            other = known.source.topic(self._root)
            self._count("names_taken", source, f"{full} is a field of {other} already; set prefix: target.feed", full)
            return None
        kind = column.type or known.type
        if kind == "bool" and kind not in known.series and known.series and known.type == "number":
            kind = "number"
        if column.type is None and kind == "bool":
            return None
        if kind not in known.series and not (self._room_for(source, full) and self._make(source, full, kind, known)):
            return None
        if kind != known.type:
            self._count("type_changes", source, f"{full} was a {known.type}, now it is a {kind}", full, len(column))
        values = np.asarray(column.values, np.float64) if kind == "number" else column.values
        return known.series[kind], values

    def _room_for(self, source: Source, full: str) -> bool:
        if self._made < self._limits.max_fields:
            return True
        limit = f"{full} is not kept: there are {self._limits.max_fields} fields already (max_fields)"
        self._count("fields_refused", source, limit, full)
        return False

    def _make(self, source: Source, full: str, kind: ValueType, known: _Fields) -> bool:
        name = f"{full}.{kind}" if known.series else full
        try:
            series = self._declare(
                name,
                type=kind,
                timeline=known.timeline,
                description=source.topic(self._root),
                keep=self._limits.keep,
                max_samples=self._limits.max_samples,
            )
        except ValueError:  # The node has a field of that name which is none of ours.
            self._count("names_taken", source, f"the node has a field {name} already", full)
            return False
        known.series[kind] = series
        self._fields[full] = known
        self._made += 1
        return True

    def _full_name(self, source: Source, name: str) -> str:
        before = {"none": (), "target": (source.target,), "target.feed": source}[self._prefix]
        return ".".join((*before, name))

    def _timeline(self, source: Source, block: str) -> str:
        """Return the timeline of a block: its name, as far as a topic can hold it."""
        legal = _NOT_IN_TOPIC.sub("_", block[:_LONGEST_BLOCK_NAME]) or "block"
        name = self._full_name(source, legal)
        if self._timelines.setdefault(name, source) != source:
            name = ".".join((*source, legal))
            self._timelines.setdefault(name, source)
        return name

    def _count(self, what: str, source: Source, detail: str, named: Any = None, by: int = 1) -> None:
        """Count something; name it in the log when it is new, as long as the log is not flooded."""
        self.counts[what] += by
        key = (what, source, named)
        if self._said_of[what] < NAMED and key not in self._said:
            self._said.add(key)
            self._said_of[what] += 1
            self._say(f"{source.topic(self._root)}: {detail}")
