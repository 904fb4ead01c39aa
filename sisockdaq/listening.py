"""A node hears other nodes' numbers as they are published, such as the monitor of its frames.

In the reactor's thread, over the node's own session. A field is looked for when it is wanted, at each login, whenever
the hub says that a node came, and every `LOOK` seconds while it is not found. Its feed is then listened to; what its
node has from before, and what a gap in the feed's numbers shows to be missed, is asked from its cache. Who wants the
samples gets each of them once or more often, and says how many it keeps.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from autobahn.wamp.exception import ApplicationError, TransportLost
from twisted.internet.defer import CancelledError, inlineCallbacks
from twisted.logger import Logger

from sisockdaq._wamp.arrays import call_arrays
from sisockdaq._wamp.link import call_within, the_reactor
from sisockdaq.errors import NodeNotFound, ReplyInvalid, SisockdaqError
from sisockdaq.schema import Field, FieldList, split_name
from sisockdaq.wire import FeedEvent

__all__ = ["LOOK", "Listener", "Listening"]

LOOK = 2.0
"""Time between two looks for a field that is not there [s]."""

_DEADLINE = 10.0
"""Time that a node gets for an answer [s]."""

_MOST_ASKED = 100_000
"""Samples that are asked from a cache at once; of more, the node leaves out what changes the curve least."""

_log = Logger("sisockdaq.listening")


class Listener(Protocol):
    """Who wants the samples of a field; used in the reactor's thread."""

    @property
    def newest(self) -> float:
        """Time of the newest sample [s]; -inf where there is none."""

    def add(self, t: Iterable[float], values: Iterable[float]) -> None:
        """Take samples; some may be known already."""


@dataclass(slots=True)
class _Feed:
    """One timeline of one node."""

    node: str
    timeline: str
    epoch: str | None = None
    sequence: int = -1


class Listening:
    """Give listeners what nodes publish.

    Parameters
    ----------
    node : DataNodeServer
        Whose session is used.
    """

    def __init__(self, node: Any) -> None:
        self._node = node
        self._listeners: dict[str, Listener] = {}
        self._feeds: dict[tuple[str, str], _Feed] = {}
        self._found: dict[str, str] = {}
        self._missing: dict[str, str] = {}
        self._looking = False

    @property
    def problem(self) -> str:
        """Which fields are not found, and why; "" when all are."""
        return "; ".join(dict.fromkeys(self._missing.values()))

    def follow(self, listeners: Mapping[str, Listener]) -> None:
        """Listen for these, by the names of their fields, and no others from now on; from any thread."""
        the_reactor().callFromThread(self._follow, dict(listeners))

    def _follow(self, listeners: dict[str, Listener]) -> None:
        self._listeners = listeners
        self._missing = {name: why for name, why in self._missing.items() if name in listeners}
        self._found = {name: timeline for name, timeline in self._found.items() if name in listeners}
        self.look()

    @inlineCallbacks
    def joined(self) -> Any:
        """Begin anew, after each login: subscriptions are those of a connection."""
        self._feeds.clear()
        self._found.clear()
        try:
            yield self._node.subscribe(self._came, self._node.uri("consumer.data_node_added"))
        except ApplicationError as error:
            _log.info("no events of nodes that come: {error}", error=error.error)
        self.look()

    def _came(self, node: Any = None, *_: Any) -> None:
        """Look again at a node that came; its fields may be other ones now."""
        name = node.get("name") if isinstance(node, Mapping) else node
        for field in [each for each in self._found if split_name(each)[0] == name]:
            del self._found[field]
        self.look()

    def look(self) -> None:
        """Look for the fields that are not found yet."""
        if self._looking or not self._node.is_attached() or self._listeners.keys() <= self._found.keys():
            return
        self._looking = True
        self._look().addErrback(self._failed).addBoth(lambda _: setattr(self, "_looking", False))

    @inlineCallbacks
    def _look(self) -> Any:
        for name in [name for name in self._listeners if name not in self._found]:
            try:
                entry = yield self._entry(name)
                yield self._listen(name, entry)
            except NodeNotFound:
                self._tell(name, f"there is no node {split_name(name)[0]}")
            except SisockdaqError as error:
                self._tell(name, error.message)
            except ApplicationError as error:
                self._tell(name, f"{name} cannot be listened to: {error.error}")

    @inlineCallbacks
    def _entry(self, name: str) -> Any:
        node, field = split_name(name)
        answer = yield call_within(self._node, _DEADLINE, self._node.uri(f"consumer.{node}.get_schema"), 1.0, 0.0)
        return FieldList.parse(answer, source=node).fields.get(field)

    @inlineCallbacks
    def _listen(self, name: str, entry: Field | None) -> Any:
        node, field = split_name(name)
        if entry is None:
            self._tell(name, f"{node} has no field {field}")
            return
        if entry.type not in ("number", "bool") or not entry.feed:
            kind = f"is of type {entry.type}" if entry.type not in ("number", "bool") else "has no live feed"
            self._tell(name, f"{name} {kind}, and cannot be a factor of frames")
            return
        if (node, entry.timeline) not in self._feeds:
            feed = _Feed(node, entry.timeline)
            topic = self._node.uri(f"consumer.{node}.feed.{entry.timeline}")
            yield self._node.subscribe(lambda message=None, *_, feed=feed: self._event(feed, message), topic)
            self._feeds[node, entry.timeline] = feed  # not before: what is refused is asked for again
        self._found[name] = entry.timeline
        self._missing.pop(name, None)
        yield self._ask(name)

    def _event(self, feed: _Feed, message: Any) -> None:
        try:
            event = FeedEvent.parse(message)
        except ReplyInvalid as error:
            _log.warn("{node}: {error}", node=feed.node, error=error.message)
            return
        gap = feed.epoch is not None and (event.epoch, event.sequence) != (feed.epoch, feed.sequence + 1)
        feed.epoch, feed.sequence = event.epoch, event.sequence
        for name, timeline in self._found.items():
            node, field = split_name(name)
            if (node, timeline) == (feed.node, feed.timeline) and field in event.data and name in self._listeners:
                self._listeners[name].add(event.t, event.data[field])
                if gap:
                    self._ask(name).addErrback(self._failed)

    @inlineCallbacks
    def _ask(self, name: str) -> Any:
        """Ask for what the node has after the newest sample."""
        node, field = split_name(name)
        start, end = max(self._listeners[name].newest, 1.0), time.time() + 60.0
        procedure = self._node.uri(f"consumer.{node}.get_arrays")
        reply = yield call_arrays(self._node, _DEADLINE, procedure, [field], start, max(end, start + 1), _MOST_ASKED)
        samples = reply.samples.get(field)
        if samples is not None and name in self._listeners:
            self._listeners[name].add(samples.t, samples.values)

    def _tell(self, name: str, problem: str) -> None:
        """Show a problem until the field is found; log it when it is new."""
        if self._missing.get(name) != problem:
            self._missing[name] = problem
            _log.warn("{problem}", problem=problem)

    def _failed(self, failure: Any) -> None:
        if failure.check(CancelledError, TransportLost):
            return
        if isinstance(failure.value, SisockdaqError | ApplicationError):
            _log.warn("{problem}", problem=str(getattr(failure.value, "message", failure.value)))
        else:
            _log.failure("listening to monitors", failure=failure)
