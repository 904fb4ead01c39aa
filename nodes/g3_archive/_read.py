"""Questions about recorded housekeeping data: the index says which frames hold the answer, and only these are opened.

- A stretch of a file is decoded once and kept (`Cache`); a file that grows costs only what is new.
- Long spans are thinned file by file, extremes kept, so that memory is bounded by what is asked, not by what there is.
- `Samples.finalized_until` is the field's last recorded time: what is recorded later comes after it. While files wait
  that were never looked into nothing is final, and it is the begin of the interval.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from sisockdaq.nodes.g3_archive._cache import Cache
from sisockdaq.nodes.g3_archive._frames import Column, Frame
from sisockdaq.nodes.g3_archive._index import Index
from sisockdaq.nodes.g3_archive._records import Name, Span
from sisockdaq.nodes.g3_archive._worker import Worker

from sisockdaq.downsample import thin
from sisockdaq.errors import DeadlineExceeded, FileUnreadable
from sisockdaq.schema import Field, FieldList, FieldType, Reply, Samples, Timeline

__all__ = ["Reader", "stretches"]

_STRETCH = 200_000
"""Samples of a block that are decoded, and kept, as one."""

_FINER = 4
"""A stretch is thinned to so many times its share of the points asked for, before the whole is."""

_FEWEST = 64
"""Points that each stretch keeps in any case."""


@dataclass(frozen=True, slots=True)
class _Limits:
    start: float
    end: float
    max_points: int | None
    min_stride: float | None

    def share(self, first: float, last: float) -> int | None:
        """Return the points to keep of a stretch, for now."""
        if self.max_points is None:
            return None
        part = (min(last, self.end) - max(first, self.start)) / max(self.end - self.start, 1e-9)
        return _FEWEST + math.ceil(_FINER * self.max_points * min(max(part, 0.0), 1.0))


class Reader:
    """Answers of one archive; may be used from several threads.

    Parameters
    ----------
    index : Index
    worker : Worker
        The process that opens files.
    cache : Cache
    max_points : int, optional
        Most points of one field in any answer.
    deadline : float
        Longest time for one answer [s].
    waiting : callable
        Returns how many files were never looked into.
    """

    def __init__(
        self, index: Index, worker: Worker, cache: Cache, max_points: int | None, deadline: float,
        waiting: Callable[[], int],
    ) -> None:  # fmt: skip
        self.index = index
        self.worker = worker
        self.cache = cache
        self.max_points = max_points
        self.deadline = deadline
        self._waiting = waiting

    def listing(self, start: float, end: float) -> FieldList:
        """Return the fields that have data in ``[start, end)``."""
        listing = FieldList()
        members: dict[str, list[str]] = {}
        for entry in sorted(self.index.names_within(start, end), key=lambda entry: entry.name):
            listing.fields[entry.name] = Field(timeline=entry.timeline, type=_type(entry))
            members.setdefault(entry.timeline, []).append(entry.name)
        listing.timelines = {name: Timeline(fields=tuple(fields)) for name, fields in members.items()}
        return listing

    def samples(
        self, names: Sequence[str], start: float, end: float, max_points: int | None, min_stride: float | None
    ) -> Reply:
        """Return the samples of the named fields in ``[start, end)``.

        Raises
        ------
        DeadlineExceeded
            There is more to read than the deadline allows; what was read is kept for the next question.
        """
        until = time.monotonic() + self.deadline
        points = [limit for limit in (max_points, self.max_points) if limit]
        limits = _Limits(start, end, min(points) if points else None, min_stride)
        entries = self.index.names(names)
        reply = Reply(unknown=[name for name in names if name not in entries])
        parts: dict[str, list[Column]] = {name: [] for name in entries}
        if entries and start < end:
            providers: dict[str, list[Name]] = {}
            for entry in entries.values():
                providers.setdefault(entry.provider, []).append(entry)
            spans = self.index.spans(providers, start, end)
            for i, span in enumerate(spans):
                self._add(parts, span, providers[span.provider], limits, until, f"{i} of {len(spans)} files", reply)
        final = start if self._waiting() else None
        for name, entry in entries.items():
            samples = _samples(parts[name], entry, limits)
            samples.finalized_until = entry.last if final is None else min(final, entry.last)
            reply.samples[name] = samples
        return reply

    def _add(
        self, parts: dict[str, list[Column]], span: Span, entries: list[Name], limits: _Limits, until: float,
        progress: str, reply: Reply,
    ) -> None:  # fmt: skip
        """Add the samples that one file has; a file that cannot be read is named among the problems."""
        fields = {entry.name[len(span.provider) + 1 :]: entry for entry in entries}
        for number, frames, first, last in _meeting(span, limits):
            left = until - time.monotonic()
            if left <= 0:
                raise DeadlineExceeded(
                    f"{progress} were read within {self.deadline:g} s",
                    remedy="ask a shorter span; or ask again: what was read is kept",
                )
            try:
                columns = self._columns(span, number, frames, list(fields), left)
            except FileUnreadable as error:
                reply.problems.append(error.message)
                return
            for name, column in columns.items():
                part = _reduced(column, limits, first, last)
                if len(part[0]):
                    parts[fields[name].name].append(part)

    def _columns(
        self, span: Span, number: int, frames: list[Frame] | None, names: list[str], deadline: float
    ) -> dict[str, Column]:
        """Return columns of one stretch, from the cache or from the file."""
        stretch = (span.id, number, len(frames) if frames is not None else -1)
        columns = {name: self.cache.get((*stretch, name)) for name in names}
        missing = [name for name, column in columns.items() if column is None]
        if missing:
            offsets = None if frames is None else [frame[0] for frame in frames]
            read = self.worker.call("read", span.path, span.prov_id, offsets, missing, deadline=deadline)
            for name in missing:
                column = read.get(name, (np.empty(0), np.empty(0)))
                columns[name] = column
                self.cache.put((*stretch, name), column)
        return {name: column for name, column in columns.items() if column is not None}


def stretches(frames: Sequence[Frame]) -> Iterator[list[Frame]]:
    """Cut a file's frames into stretches of bounded size; those before the last stay as they are when frames come."""
    part: list[Frame] = []
    samples = 0
    for frame in frames:
        if part and samples + frame[3] > _STRETCH:
            yield part
            part, samples = [], 0
        part.append(frame)
        samples += frame[3]
    if part:
        yield part


def _meeting(span: Span, limits: _Limits) -> Iterator[tuple[int, list[Frame] | None, float, float]]:
    """Yield number, frames and reach of the stretches that meet the interval."""
    if span.frames is None:
        yield 0, None, span.first, span.last
        return
    for number, part in enumerate(stretches(span.frames)):
        first, last = min(frame[1] for frame in part), max(frame[2] for frame in part)
        if first < limits.end and last >= limits.start:
            yield number, part, first, last


def _reduced(column: Column, limits: _Limits, first: float, last: float) -> Column:
    """Return what is inside the interval, thinned to a multiple of its share."""
    t, values = column
    inside = (t >= limits.start) & (t < limits.end)
    if not inside.all():
        t, values = t[inside], values[inside]
    share = limits.share(first, last)
    if share is None or len(t) <= share:
        return t, values
    thinned = thin(_sorted(t, values), share)
    return thinned.t, thinned.values


def _samples(parts: list[Column], entry: Name, limits: _Limits) -> Samples:
    if not parts:
        return Samples.empty(entry.timeline, _type(entry))
    t = np.concatenate([part[0] for part in parts])
    values = np.concatenate([_typed(part[1], entry.type) for part in parts])
    samples = _sorted(t, values)
    # The same file in two folders, or a frame written twice, makes no second sample of one moment.
    new = np.r_[True, samples.t[1:] != samples.t[:-1]]
    if not new.all():
        samples = samples.take(np.flatnonzero(new))
    samples.timeline = entry.timeline
    return thin(samples, limits.max_points, limits.min_stride)


def _sorted(t: np.ndarray, values: np.ndarray) -> Samples:
    samples = Samples(t, values)
    if np.all(t[1:] >= t[:-1]):
        return samples
    return samples.take(np.argsort(t, kind="stable"))


def _typed(values: np.ndarray, kind: str) -> np.ndarray:
    """Return values as the field's type says; files may differ from it."""
    if kind == "string":
        return values if values.dtype.kind == "O" else np.array([str(value) for value in values.tolist()], dtype=object)
    if kind == "bool":
        return values.astype(bool)
    if values.dtype.kind == "O":
        return np.full(len(values), np.nan)
    return values.astype(np.float64) if values.dtype.kind == "b" else values


def _type(entry: Name) -> FieldType:
    return "string" if entry.type == "string" else "bool" if entry.type == "bool" else "number"
