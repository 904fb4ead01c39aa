"""Listen to the nodes that are to be recorded, and ask them for what was missed.

The recorder lives in a node: it uses the node's session, in the reactor's thread. It looks at the network at each
login, whenever the hub says that a node came, and every `LOOK` seconds; each timeline with wanted fields is followed by
its feed, or, where a node has no feed (an older one), asked for at its interval. What a node still has from before
the recorder came, or from while one of the two was away, is asked from its cache first.

Not recorded: arrays without a feed (images go another way), and what archives serve (names that hold ``::``).
"""

from __future__ import annotations

import fnmatch
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from autobahn.wamp.exception import ApplicationError, TransportLost
from pydantic import BaseModel, ConfigDict, Field
from twisted.internet.defer import CancelledError, Deferred, inlineCallbacks
from twisted.internet.task import deferLater
from twisted.logger import Logger

from sisockdaq._wamp.arrays import call_arrays
from sisockdaq._wamp.link import call_within, the_reactor
from sisockdaq.errors import NodeNotFound, ReplyInvalid, SisockdaqError
from sisockdaq.nexus.series_plan import prepare
from sisockdaq.recording.disk import DiskWriter, Intake, Recording, last_recorded
from sisockdaq.recording.following import Following, Rows
from sisockdaq.recording.structure import Block
from sisockdaq.schema import SEPARATOR, FieldList, Reply, Samples, split_name
from sisockdaq.schema import Field as Entry
from sisockdaq.wire import FeedEvent

__all__ = ["LOOK", "Recorder", "RecordingOptions", "wanted"]

LOOK = 3.0
"""Time between two looks at the network [s]: an older hub tells of nothing."""

DEADLINE = 10.0
"""Time that a node gets for an answer [s]."""

RETRY = 2.0
"""Time after which a node that did not answer is asked again, and a full queue looked at again [s]."""

FASTEST_POLL, SLOWEST_POLL = 1.0, 60.0
"""Bounds of the time between two questions for a timeline without a feed [s]."""

FIELDS_A_CALL = 50
"""Fields of one question, so that an answer with a day of samples fits into memory."""

_PROBLEMS = 100
"""Different problems that are logged."""

_log = Logger("sisockdaq.recording")


class RecordingOptions(BaseModel):
    """How series are recorded."""

    model_config = ConfigDict(extra="forbid")

    file_length: float = Field(
        3600.0, ge=1, description="Time that one file covers [s]; files end at whole multiples of it, in UTC."
    )
    file_size: int = Field(1 << 30, ge=1 << 16, description="Size at which a file ends before its time [B].")
    memory: int = Field(
        256 << 20, ge=1 << 16, description="Most memory for samples that wait for the disk [B]; others are asked later."
    )


def wanted(patterns: Sequence[str], node: str, field: str) -> bool:
    """Say whether a field is to be recorded: a pattern is a node, or ``node::field``, with ``*``, ``?`` and ``[]``."""
    for pattern in patterns:
        of_node, of_field = split_name(pattern)
        if fnmatch.fnmatchcase(node, of_node) and fnmatch.fnmatchcase(field, of_field or "*"):
            return True
    return False


class Recorder:
    """Records series of a network's nodes.

    Parameters
    ----------
    node : DataNodeServer
        Whose session is used.
    patterns : sequence of str
        See `wanted`.
    root : Path
        Folder of the files.
    options : RecordingOptions
    flush_interval : float
        Time between flushes [s].

    Attributes
    ----------
    gaps : int
        Stretches in which samples may be missing because a node no longer had them.
    gap : str
        The latest of them, in words.
    """

    def __init__(
        self,
        node: Any,
        patterns: Sequence[str],
        root: Path,
        options: RecordingOptions | None = None,
        *,
        flush_interval: float = 1.0,
    ) -> None:
        options = options or RecordingOptions.model_validate({})
        self.patterns, self.root, self.gap, self.gaps = list(patterns), root, "", 0
        self.recording = Recording(root, str(node.name), options.file_length, options.file_size)
        self.intake = Intake(options.memory)
        self.disk = DiskWriter(self.recording, self.intake, flush_interval, time.time)
        self._node = node
        self._lines: dict[tuple[str, str], _Line] = {}
        self._newest: dict[tuple[str, str], float] = {}
        self._unwritable = 0
        self._generation = 0
        self._looking = False
        self._again = False
        self._problems: dict[str, str] = {}
        self._told: set[str] = set()

    # Blocking, in a thread.

    def open(self) -> None:
        """Find out what was recorded so far, and start the disk's thread."""
        self.root.mkdir(parents=True, exist_ok=True)
        self._newest = last_recorded(self.root, self.recording.writer)
        self.disk.start()

    def close(self) -> None:
        """Write all that came and finish the file."""
        self._generation += 1
        self.disk.close()

    # In the reactor's thread.

    @property
    def lost(self) -> int:
        """Samples that are known to be lost."""
        return self._unwritable + sum(line.following.lost for line in self._lines.values())

    @property
    def fields(self) -> int:
        """Fields that are recorded now."""
        return sum(len(line.following.fields) for line in self._lines.values())

    def status(self) -> dict[str, Any]:
        """Return what there is to say about the recording."""
        file = self.recording.file
        return {
            "samples_recorded": self.recording.samples,
            "samples_lost": self.lost,
            "recording_gaps": self.gaps,
            "recording_fields": self.fields,
            "recording_queue": self.intake.bytes,
            "recording_bytes": self.recording.bytes_written,
            "recording_file": str(file.path) if file is not None else "",
            "recording_gap": self.gap,
            "recording_problem": self.problem,
        }

    @property
    def problem(self) -> str:
        """What is wrong now, in words; empty when all is well."""
        return self.disk.problem or "; ".join(list(self._problems.values())[:3])

    @inlineCallbacks
    def joined(self) -> Any:
        """Begin to follow, after each login."""
        self._generation += 1
        for line in self._lines.values():
            line.subscribed = False
            line.following.begin()
        for event in ("data_node_added", "data_node_subtracted"):
            try:
                yield self._node.subscribe(self.look, self._node.uri(f"consumer.{event}"))
            except ApplicationError as error:
                _log.info("no events {event}: {error}", event=event, error=error.error)
        self.look()

    def look(self, *_: Any) -> None:
        """See what nodes and fields there are."""
        if self._looking:
            self._again = True
            return
        self._looking, self._again = True, False
        self._look().addErrback(self._failed, "the network").addBoth(self._looked)

    def _looked(self, _: Any) -> None:
        self._looking = False
        if self._again:
            self.look()

    @inlineCallbacks
    def _look(self) -> Any:
        if not self._node.is_attached():
            return
        listing = yield call_within(self._node, DEADLINE, self._node.uri("consumer.get_data_node"))
        self._problems.pop("the network", None)
        names = [str(entry["name"]) for entry in listing if isinstance(entry, dict) and "name" in entry]
        for name in names:
            if any(fnmatch.fnmatchcase(name, split_name(pattern)[0]) for pattern in self.patterns):
                try:
                    fields, plain = yield self._listing(name)
                    yield self._follow(name, fields, plain)
                except SisockdaqError as error:
                    self._tell(name, error.message)

    @inlineCallbacks
    def _listing(self, name: str) -> Any:
        """Ask for the full listing, else for the plain one of an older node."""
        session, prefix = self._node, self._node.uri(f"consumer.{name}.")
        try:
            answer = yield call_within(session, DEADLINE, prefix + "get_schema", 1.0, 0.0)
            return FieldList.parse(answer, source=name), False
        except NodeNotFound:
            answer = yield call_within(session, DEADLINE, prefix + "get_fields", 1.0, 0.0)
            return FieldList.parse(answer, source=name), True

    @inlineCallbacks
    def _follow(self, node: str, listing: FieldList, plain: bool) -> Any:
        chosen: dict[str, dict[str, Entry]] = {}
        for name, entry in listing.fields.items():
            recordable = SEPARATOR not in name and (entry.feed or entry.type != "array")
            if recordable and wanted(self.patterns, node, name):
                chosen.setdefault(entry.timeline, {})[name] = entry
        for timeline, of_timeline in chosen.items():
            fed = {name: entry for name, entry in of_timeline.items() if entry.feed}
            entries = fed or of_timeline
            line = self._lines.get((node, timeline))
            if line is None:
                line = self._lines[node, timeline] = _Line(Following(node, timeline))
            new = entries.keys() - line.following.fields
            line.entries.update(entries)
            line.plain = plain
            about = listing.timelines.get(timeline)
            line.poll = None if fed else min(max((about and about.interval) or 5.0, FASTEST_POLL), SLOWEST_POLL)
            for name in new:
                line.following.fields.add(name)
                if (node, name) in self._newest:
                    line.following.newest.setdefault(name, self._newest[node, name])
            if fed and not line.subscribed:
                line.subscribed = True
                topic = self._node.uri(f"consumer.{node}.feed.{timeline}")
                yield self._node.subscribe(lambda message=None, *_, line=line: self._event(line, message), topic)
            if new:
                line.following.asking = True
            self._catch_up(line)

    def _event(self, line: _Line, message: Any) -> None:
        """Take an event of a feed."""
        following = line.following
        try:
            event = FeedEvent.parse(message)
        except ReplyInvalid as error:
            self._tell(following.node, error.message)
            return
        unknown = [
            name for name in event.data if name not in line.entries and wanted(self.patterns, following.node, name)
        ]
        if unknown and not self._looking:
            self.look()
        for rows in following.event(event):
            self._hand_over(line, rows)
        if following.asking:
            self._catch_up(line)

    def _hand_over(self, line: _Line, rows: Rows, *, answer: bool = False) -> bool:
        """Give samples to the disk; False when there is no room, and they have to be asked for later.

        There is always room for an answer: it was waited for before the question.
        """
        t, data = rows
        following, good = line.following, {}
        for name, values in data.items():
            try:
                good[name] = prepare(line.entries[name], values)
            except (ValueError, TypeError) as error:
                self._unwritable += len(t)
                self._tell(f"{following.node}::{name}", str(error))
        block = Block(following.node, following.timeline, t, good, dict(line.entries))
        if not good or self.intake.put(block, always=answer):
            following.handed(t, data)
            return True
        following.refused(len(t), data)
        return False

    def _catch_up(self, line: _Line) -> None:
        """Ask the node for what is missing, unless that is under way."""
        if line.busy or not (line.following.asking or line.is_due):
            return
        line.busy = True
        self._ask(line, self._generation).addErrback(self._failed, line.following.node).addBoth(
            lambda _: setattr(line, "busy", False)
        ).addCallback(lambda _: self._later(line))

    def _later(self, line: _Line) -> None:
        """Ask again soon when it did not work, or when the timeline has no feed."""
        wait = RETRY if line.following.asking else line.poll
        if wait is not None and not line.timer:
            line.timer = True
            generation = self._generation

            def again() -> None:
                line.timer = False
                if generation == self._generation:
                    self._catch_up(line)

            the_reactor().callLater(wait, again)

    @inlineCallbacks
    def _ask(self, line: _Line, generation: int) -> Any:
        following = line.following
        while following.asking or line.is_due:
            names = sorted(following.fields, key=lambda name: (following.ask_from(name), name))
            polled = not following.asking
            line.asked = time.monotonic()
            for first in range(0, len(names), FIELDS_A_CALL):
                yield from self._wait_for_room(generation)
                some = names[first : first + FIELDS_A_CALL]
                reply = yield self._samples(line, some)
                if generation != self._generation:
                    return
                self._take_answer(line, reply, some)
            if not polled:
                self._hand_over_all(line, following.caught_up())
            self._problems.pop(following.node, None)
            self._note_gaps(following)

    def _hand_over_all(self, line: _Line, waiting: Sequence[Rows]) -> None:
        taken = True
        for t, data in waiting:
            # After a refusal nothing newer may be taken: the node is asked from the newest sample on.
            taken = taken and self._hand_over(line, (t, data))
            if not taken:
                line.following.refused(len(t), data)

    def _note_gaps(self, following: Following) -> None:
        for gap in following.gaps:
            self.gap = gap
            _log.warn("{gap}", gap=gap)
        self.gaps += len(following.gaps)
        following.gaps.clear()

    def _wait_for_room(self, generation: int) -> Iterable[Deferred[None]]:
        while not self.intake.has_room and generation == self._generation:
            yield deferLater(the_reactor(), 0.1, lambda: None)

    @inlineCallbacks
    def _samples(self, line: _Line, names: Sequence[str]) -> Any:
        """Ask for everything after what was handed over, with one question."""
        node, start = line.following.node, min(line.following.ask_from(name) for name in names)
        prefix = self._node.uri(f"consumer.{node}.")
        if line.plain:
            answer = yield call_within(
                self._node, DEADLINE, prefix + "get_data", list(names), max(start, time.time() - 3600.0), 0.0
            )
            listing = FieldList({name: line.entries[name] for name in names})
            return Reply.parse(answer, names, listing, source=node)
        # A sample may carry a time a little ahead of this machine's clock.
        end = time.time() + 60.0
        reply = yield call_arrays(self._node, DEADLINE, prefix + "get_arrays", list(names), start, max(end, start + 1))
        return reply

    def _take_answer(self, line: _Line, reply: Reply, names: Sequence[str]) -> None:
        following = line.following
        found: dict[str, Samples] = {}
        for name in names:
            samples = reply.samples.get(name)
            if samples is not None:
                after = samples.t >= following.ask_from(name)
                found[name] = samples if after.all() else samples.take(after.nonzero()[0])
        if line.poll is None:
            following.answered(found)
        for group in _together(found):
            first = found[group[0]]
            if len(first):
                self._hand_over(line, (first.t, {name: found[name].values for name in group}), answer=True)

    def _failed(self, failure: Any, what: str) -> None:
        if failure.check(CancelledError, TransportLost):
            return
        if isinstance(failure.value, SisockdaqError | ApplicationError):
            self._tell(what, str(getattr(failure.value, "message", failure.value)))
        else:
            _log.failure("recording {what}", failure=failure, what=what)

    def _tell(self, what: str, problem: str) -> None:
        """Show a problem until the node answers again; log each once."""
        text = self._problems[what] = f"{what}: {problem}"
        if text not in self._told and len(self._told) < _PROBLEMS:
            self._told.add(text)
            _log.warn("{text}", text=text)


class _Line:
    """A timeline that is followed, and what the recorder knows of it."""

    def __init__(self, following: Following) -> None:
        self.following = following
        self.entries: dict[str, Entry] = {}
        self.plain = False
        self.subscribed = False
        self.busy = False
        self.timer = False
        self.poll: float | None = None
        self.asked = 0.0

    @property
    def is_due(self) -> bool:
        """Whether a timeline without a feed is to be asked for again."""
        return self.poll is not None and time.monotonic() - self.asked >= self.poll


def _together(found: Mapping[str, Samples]) -> list[list[str]]:
    """Return the fields in groups whose samples have the same times."""
    groups: dict[bytes, list[str]] = {}
    for name, samples in found.items():
        groups.setdefault(samples.t.tobytes(), []).append(name)
    return list(groups.values())
