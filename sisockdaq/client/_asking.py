"""Asking many nodes for data: who has a field, live or archived, and one answer from all of them.

A field's full name is ``node::field``. An archive serves fields that are called so themselves (``integrator::total``);
any node that lists such a name is an archive of it. `Catalog` remembers listings for a short while; `Asker` plans a
question, asks the nodes in parallel, each under a deadline, and joins what came. What did not come is named.
"""

from __future__ import annotations

import difflib
import math
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np

from sisockdaq.client._dataset import Dataset, FieldData
from sisockdaq.client._network import Network
from sisockdaq.downsample import thin
from sisockdaq.errors import (
    ConfigurationError,
    ConnectionFailed,
    DeadlineExceeded,
    FieldUnknown,
    NodeNotFound,
    NotAuthorized,
    ReplyInvalid,
    SisockdaqError,
)
from sisockdaq.merge import merge
from sisockdaq.schema import SEPARATOR, Field, FieldList, Reply, Samples, resolve_interval, split_name

__all__ = ["Asker", "Catalog", "Source", "did_you_mean"]

LISTING_AGE = 20.0
"""A listing is asked for again after this time [s], and at once when a name is not in it or a node comes or goes."""

LACKING_AGE = 1.0
"""A listing without a field is asked for again after this time [s] when the field's live node lacks a part of the span:
an archive may have got it since."""

ARCHIVE_DEADLINE = 3.0
"""Time that nodes which were not asked by name get to say whether they are archives [s]."""

_PLAIN_VALUES = 50_000
"""Values, times among them, of a plain reply that is surely below 1 MiB, which older nodes cannot exceed."""

_RECENT, _RECENT_PLAIN = 10.0, 60.0
"""Where the newest sample is looked for first [s]; older nodes, which cannot thin well, are asked nothing else."""

_FEW = 4
"""The fewest points of a thinned reply that have the last sample among them."""

_HALVINGS = 12
"""How often a span is halved when an older node says that it holds more data than it will send."""


@dataclass(frozen=True, slots=True)
class Source:
    """A node that has a field, under its name there."""

    node: str
    field: str
    entry: Field
    plain: bool
    """Whether the node is an older one, without typed arrays."""


@dataclass(slots=True)
class _Listing:
    fields: FieldList
    plain: bool
    asked: float
    error: SisockdaqError | None = None


class Catalog:
    """What fields the nodes of the network have, remembered for `LISTING_AGE`.

    Parameters
    ----------
    network : Network
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self._known: dict[str, _Listing] = {}
        self._nodes: tuple[float, list[dict[str, Any]]] | None = None
        self._lock = threading.Lock()

    def forget(self, *event: Any) -> None:
        """Forget a node that came or went (an event of the hub), or everything."""
        with self._lock:
            self._nodes = None
            name = event[0].get("name") if event and isinstance(event[0], dict) else None
            if name is None:
                self._known.clear()
            else:
                self._known.pop(str(name), None)

    def nodes(self) -> list[dict[str, Any]]:
        """Return the hub's listing, ``[{"name", "description"}]``."""
        with self._lock:
            if self._nodes and time.monotonic() - self._nodes[0] < LISTING_AGE:
                return self._nodes[1]
        try:
            listing = self._network.call("consumer.get_data_node")
        except NodeNotFound:
            raise ConnectionFailed(
                "the hub of this network does not answer", remedy="is it running? `sisockdaq up` starts it"
            ) from None
        nodes = [entry for entry in listing if isinstance(entry, dict) and "name" in entry]
        with self._lock:
            self._nodes = (time.monotonic(), nodes)
        return nodes

    def listings(self, names: Iterable[str], *, deadline: float | None = None, fresh: bool = False) -> None:
        """Make sure that these nodes' listings are known, asking all that are not in parallel."""
        now = time.monotonic()
        with self._lock:
            missing = [
                name
                for name in dict.fromkeys(names)
                if fresh or name not in self._known or now - self._known[name].asked > LISTING_AGE
            ]
        asked = {name: self._network.start_listing(name, deadline=deadline) for name in missing}
        for name, future in asked.items():
            try:
                fields, plain = self._network.result(future, deadline or self._network.deadline)
                found = _Listing(fields, plain, now)
            except SisockdaqError as error:
                found = _Listing(FieldList(), False, now, error)
            with self._lock:
                self._known[name] = found

    def listing(self, node: str, *, fresh: bool = False) -> FieldList:
        """Return a node's listing.

        Raises
        ------
        NodeNotFound
            With the names that there are.
        SisockdaqError
            Why the node did not answer.
        """
        self.listings([node], fresh=fresh)
        with self._lock:
            known = self._known.get(node)
            if known is not None and known.error is None:
                return known.fields
            self._known.pop(node, None)
        error = known.error if known and known.error else NodeNotFound(node)  # it went in this moment
        if isinstance(error, NodeNotFound):
            names = [str(entry["name"]) for entry in self.nodes()]
            raise NodeNotFound(
                f'no node "{node}" on this network{did_you_mean(node, names)}',
                remedy=f"the nodes are {', '.join(names)}" if names else "no node is on the network yet",
            )
        raise error

    def sources(self, name: str) -> list[Source]:
        """Return who has a field, archives first, the live node last.

        Raises
        ------
        FieldUnknown, NodeNotFound
            When nobody has it.
        """
        node, field_name = split_name(name)
        if not field_name:
            raise FieldUnknown(f'"{name}" is no field\'s full name', remedy=f'write it as "node{SEPARATOR}field"')
        listed = {str(entry["name"]) for entry in self.nodes()}
        self.listings([node])
        self.listings(listed - {node}, deadline=ARCHIVE_DEADLINE)
        found = self._holders(name, listed, node)
        if not found:
            # The listing may be older than the field.
            self.listings([node], fresh=True)
            found = self._holders(name, listed, node)
        if found:
            return found
        names = self.listing(node).fields
        raise FieldUnknown(
            f'{node} has no field "{field_name}"{did_you_mean(field_name, names)}',
            remedy=f"`sisockdaq fields {node}` lists the {len(names)} that it has",
        )

    def look_again(self, names: Sequence[str]) -> None:
        """Ask the nodes that had none of these fields a while ago whether they have now."""
        listed = {str(entry["name"]) for entry in self.nodes()} - {split_name(name)[0] for name in names}
        now = time.monotonic()
        with self._lock:
            lacking = [
                node
                for node, known in self._known.items()
                if node in listed and now - known.asked > LACKING_AGE and not known.fields.fields.keys() >= set(names)
            ]
        self.listings(lacking, deadline=ARCHIVE_DEADLINE, fresh=True)

    def _holders(self, name: str, listed: set[str], node: str) -> list[Source]:
        found = []
        with self._lock:
            for other in sorted(listed - {node}):
                known = self._known.get(other)
                if known and name in known.fields.fields:
                    found.append(Source(other, name, known.fields.fields[name], known.plain))
            live, field_name = self._known.get(node), split_name(name)[1]
            if live and field_name in live.fields.fields:
                found.append(Source(node, field_name, live.fields.fields[field_name], live.plain))
        return found


class Asker:
    """Turns questions for full names into calls to nodes, and their answers into one.

    Parameters
    ----------
    network : Network
    catalog : Catalog
    """

    def __init__(self, network: Network, catalog: Catalog) -> None:
        self._network = network
        self._catalog = catalog

    def get(
        self,
        names: Sequence[str],
        start: float,
        end: float,
        max_points: int | None,
        min_stride: float | None,
        *,
        bear: bool = False,
    ) -> Dataset:
        """Return the samples of full names in ``[start, end)``; see `Client.get`.

        With ``bear``, a field that cannot be had is in the answer's ``errors``, and the others are had all the same.
        """
        begin, stop = resolve_interval(start, end, time.time())
        if not names:
            raise FieldUnknown("no field was named", remedy=f'name at least one, as "node{SEPARATOR}field"')
        if max_points is not None and max_points < 1:
            raise ConfigurationError(f"max_points is {max_points}; it must be at least 1")
        failed: dict[str, SisockdaqError] = {}
        plan = self._plan(names, failed)
        if failed and not bear:
            raise next(iter(failed.values()))
        replies, errors = self._ask(plan, start, end, max_points, min_stride)
        if short := [name for name, sources in plan.items() if not _reaches_back(sources[-1], replies, begin)]:
            self._catalog.look_again(short)
            known, plan = plan, self._plan(plan, failed)
            if plan != known:
                replies, errors = self._ask(plan, start, end, max_points, min_stride)
        self._close_seams(plan, replies, errors, begin, stop)
        problems = [problem for reply in replies.values() for problem in reply.problems]
        problems += [f"{node}: {error.message}" for node, error in errors.items()]
        data: dict[str, FieldData] = {}
        for name, sources in plan.items():
            try:
                data[name] = self._joined(name, sources, replies, errors, max_points, min_stride, problems)
            except SisockdaqError as error:
                failed[name] = error
        if failed and not bear:
            raise next(iter(failed.values()))
        return Dataset(data, problems, failed)

    def _plan(self, names: Iterable[str], failed: dict[str, SisockdaqError]) -> dict[str, list[Source]]:
        """Find out who has each field; what nobody has goes to ``failed``."""
        plan = {}
        for name in dict.fromkeys(names):
            try:
                plan[name] = self._catalog.sources(name)
            except SisockdaqError as error:
                failed[name] = error
        return plan

    def samples(self, source: Source, start: float, end: float) -> Samples:
        """Return one source's own samples, without others that may have the field."""
        if source.plain:
            reply = self._plain(source.node, [source.field], start, end, None)
        else:
            reply = self._network.result(self._arrays(source.node, [source.field], start, end, None, None))
        return reply.samples.get(source.field) or Samples.empty(source.entry.timeline, source.entry.type)

    def joined(self, name: str, start: float, end: float) -> Samples:
        """Return a field's samples from all who have it, archives too."""
        plan = {name: self._catalog.sources(name)}
        replies, errors = self._ask(plan, start, end, None, None)
        parts = [replies[s.node].samples[s.field] for s in plan[name] if s.node in replies]
        if not parts:
            raise next(iter(errors.values()))
        return merge(parts)[0]

    def latest(self, source: Source) -> Samples:
        """Return a source's newest sample (or none).

        Thinning keeps what is prominent, and the newest sample for certain of images only. So other types are asked
        for the last seconds as they are; where these have none, the newest is the last that thinning leaves: of
        numbers the last finite one, of strings the last change.
        """
        if source.entry.type == "array":
            return self._few(source, 1)
        samples = self.samples(source, -_RECENT_PLAIN if source.plain else -_RECENT, 0.0)
        if not len(samples) and not source.plain:
            samples = self._few(source, _FEW)
        return samples.take(np.arange(len(samples))[-1:])

    def _few(self, source: Source, count: int) -> Samples:
        """Return at most ``count`` samples of all times, the last among them."""
        reply = self._network.result(self._arrays(source.node, [source.field], 1.0, 0.0, count, None))
        return reply.samples.get(source.field) or Samples.empty(source.entry.timeline, source.entry.type)

    def _ask(
        self,
        plan: dict[str, list[Source]],
        start: float,
        end: float,
        max_points: int | None,
        min_stride: float | None,
    ) -> tuple[dict[str, Reply], dict[str, SisockdaqError]]:
        """Ask each node once for all its fields, in parallel."""
        fields: dict[str, list[str]] = {}
        plain: set[str] = set()
        for sources in plan.values():
            for source in sources:
                fields.setdefault(source.node, []).append(source.field)
                if source.plain:
                    plain.add(source.node)
        asked = {
            node: self._arrays(node, wanted, start, end, max_points, min_stride)
            for node, wanted in fields.items()
            if node not in plain
        }
        replies: dict[str, Reply] = {}
        errors: dict[str, SisockdaqError] = {}
        for node, wanted in fields.items():
            try:
                if node in plain:
                    replies[node] = self._plain(node, wanted, start, end, min_stride, max_points)
                else:
                    replies[node] = self._network.result(asked[node])
            except NotAuthorized:
                raise
            except SisockdaqError as error:
                errors[node] = error
        return replies, errors

    def _close_seams(
        self,
        plan: dict[str, list[Source]],
        replies: dict[str, Reply],
        errors: dict[str, SisockdaqError],
        begin: float,
        stop: float,
    ) -> None:
        """Ask archives once more for what fell between two answers.

        All are asked at once, but on a busy machine a live node may answer seconds after the archive: what the archive
        did not have yet, the node may have let go by then.
        """
        asked = []
        for *archives, live in plan.values():
            part = _part(live, replies)
            if part is None or part.covers_from is None:
                continue
            until = min(part.covers_from, stop)
            for source in archives:
                reached = _reached(source, replies, begin)
                if not source.plain and reached is not None and reached < until:
                    asked.append((source, self._arrays(source.node, [source.field], reached, until, None, None)))
        for source, answer in asked:
            try:
                more = self._network.result(answer).samples.get(source.field)
            except SisockdaqError as error:
                errors[source.node] = error
                continue
            if more is not None and len(more):
                samples = replies[source.node].samples
                samples[source.field], _ = merge([samples[source.field], more])

    def _joined(
        self,
        name: str,
        sources: list[Source],
        replies: dict[str, Reply],
        errors: dict[str, SisockdaqError],
        max_points: int | None,
        min_stride: float | None,
        problems: list[str],
    ) -> FieldData:
        answered = [source for source in sources if source.node in replies]
        if not answered:
            raise errors[sources[-1].node]
        parts, used = [], []
        for source in answered:
            part = replies[source.node].samples.get(source.field)
            if part is not None:
                parts.append(part)
                used += [source.node] if len(part) else []
        entry = sources[-1].entry
        if not parts:
            parts = [Samples.empty(entry.timeline, entry.type)]
        samples, odd = merge(parts)
        problems += [f"{name}: {problem}" for problem in odd]
        samples = thin(samples, max_points, min_stride)
        return FieldData(name, samples.t, samples.values, entry, samples.finalized_until, tuple(used))

    def _arrays(
        self,
        node: str,
        fields: Sequence[str],
        start: float,
        end: float,
        max_points: int | None,
        min_stride: float | None,
    ) -> Future[Reply]:
        return self._network.start_arrays(
            f"consumer.{node}.get_arrays", list(fields), start, end, max_points=max_points, min_stride=min_stride
        )

    def _plain(
        self,
        node: str,
        fields: Sequence[str],
        start: float,
        end: float,
        min_stride: float | None,
        max_points: int | None = None,
    ) -> Reply:
        """Ask an older node with the plain call; a span with too much data for it is asked in halves."""
        listing = self._catalog.listing(node)
        begin, stop = resolve_interval(start, end, time.time())
        if min_stride is None and max_points is not None:
            min_stride = _stride_of_one_message(listing, fields, stop - begin)
        spans, done = [(begin, stop, 0)], Reply()
        pieces: dict[str, list[Samples]] = {name: [] for name in fields}
        while spans:
            a, b, depth = spans.pop()
            more = () if min_stride is None else (min_stride,)
            try:
                answer = self._network.call(f"consumer.{node}.get_data", list(fields), a, b, *more)
            except DeadlineExceeded as error:
                raise DeadlineExceeded(
                    error.message, remedy="an older node cannot send more than 1 MiB: ask a shorter span"
                ) from None
            if answer is False and depth < _HALVINGS:
                middle = (a + b) / 2
                spans += [(middle, b, depth + 1), (a, middle, depth + 1)]
                continue
            part = Reply.parse(answer, fields, listing, source=node)
            done.problems += [problem for problem in part.problems if problem not in done.problems]
            for name, samples in part.samples.items():
                pieces[name].append(samples)
        for name, parts in pieces.items():
            if not parts:
                raise ReplyInvalid(f"{node} has more data of {name} than it will send")
            done.samples[name] = merge(parts)[0]
        return done


def _stride_of_one_message(listing: FieldList, fields: Sequence[str], span: float) -> float | None:
    """Return a stride with which a plain reply fits into one message; None where it fits whole.

    An older node thins without regard to extremes, so it is asked to no more than its reply needs.
    """
    lines = {listing.fields[name].timeline for name in fields if name in listing.fields}
    intervals = [listing.timelines[line].interval for line in lines if line in listing.timelines]
    values = [span / interval if interval else math.inf for interval in intervals]
    if sum(values) * (1 + len(fields)) <= _PLAIN_VALUES:
        return None
    return span * (1 + len(fields)) / _PLAIN_VALUES


def _reaches_back(source: Source, replies: dict[str, Reply], begin: float) -> bool:
    """Whether a source has everything since a time."""
    samples = _part(source, replies)
    return samples is not None and samples.covers_from is not None and samples.covers_from <= begin


def _reached(source: Source, replies: dict[str, Reply], begin: float) -> float | None:
    """Return the time up to which an archive had everything; None when it did not answer, or has all there will be."""
    samples = _part(source, replies)
    if samples is None or (len(samples) and samples.finalized_until is None):
        return None
    return begin if samples.finalized_until is None else max(begin, samples.finalized_until)


def _part(source: Source, replies: dict[str, Reply]) -> Samples | None:
    reply = replies.get(source.node)
    return reply.samples.get(source.field) if reply is not None else None


def did_you_mean(wrong: str, names: Iterable[str]) -> str:
    """Return ``; did you mean "…"?`` when a name is near, else nothing."""
    near = difflib.get_close_matches(wrong, list(names), n=1)
    return f'; did you mean "{near[0]}"?' if near else ""
