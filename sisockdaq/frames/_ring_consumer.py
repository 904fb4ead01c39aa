"""The reading end of a shared-memory ring.

Frames and marks come in the order in which the source made them. Taking and releasing a frame is a few reads and
writes of shared memory; the consumer sleeps in the kernel when there is nothing. It attaches by itself, in whatever
order the two ends were started, and again when the source has been restarted.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from collections import deque
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from sisockdaq.errors import FrameSourceError
from sisockdaq.frames._ring_memory import (
    HEAD,
    HOLDS,
    MARKS,
    TAIL,
    WAITING,
    ControlBlock,
    Hold,
    SlotMemory,
    unpack_entry,
)
from sisockdaq.frames._ring_wire import (
    PROTOCOL,
    Kind,
    Message,
    parse_mark,
    receive,
    request_message,
    send,
    sockets_of,
)
from sisockdaq.frames.bus import Request
from sisockdaq.frames.messages import Attached, Detached, FrameHeader, Mark, Policy

__all__ = ["RingConsumer", "RingFrame"]

_LOOK_AGAIN = 0.05
"""Longest sleep before the shared memory is looked at again, whether woken or not [s]."""

_RETRY = 0.05
"""Pause between two attempts to attach [s]."""

_REFUSED_RETRY = 0.25
"""Pause after the source has refused [s]."""

_ANSWER_WITHIN = 10.0
"""Time the source has to answer; it may be busy making its memory [s]."""

_GONE = "the source has gone"


class _Link:
    """One attachment: socket, slots and control block. It lives as long as a borrowed frame needs it."""

    def __init__(self, connection: socket.socket, hello: Message) -> None:
        mark = parse_mark(hello)
        if not isinstance(mark, Attached) or len(hello.descriptors) != 3:
            raise ValueError("the source's answer is not an attachment")
        self.connection, self.attached = connection, mark
        slots = int(hello.body["ring"]["slots"])
        memory, control, self.bell = hello.descriptors
        self.memory = SlotMemory(mark.description, slots, memory)
        self.control = ControlBlock(slots, control)
        self.words = self.control.words
        self.pixels = list(self.memory.pixels)
        self.packet_masks = list(self.memory.packet_masks)
        self.tail = 0
        self.through = -1
        self.marks: deque[tuple[int, Mark]] = deque()
        self.marks_read = 0
        self.ended = False
        self.reason = _GONE
        self.poll = select.poll()
        self.poll.register(self.bell, select.POLLIN)
        self.poll.register(connection, select.POLLIN)

    def read_marks(self) -> None:
        """Read what waits on the socket."""
        while not self.ended:
            try:
                message = receive(self.connection)
            except BlockingIOError:
                return
            except (OSError, ValueError) as error:
                self.ended, self.reason = True, f"{_GONE}: {error}"
                return
            if message is None:
                self.ended = True
                return
            mark = parse_mark(message)
            self.marks_read += 1
            if isinstance(mark, Detached):
                self.ended, self.reason = True, mark.reason
            else:
                self.marks.append((message.position, mark))

    def __del__(self) -> None:
        self.connection.close()
        os.close(self.bell)


class RingFrame:
    """A frame borrowed from a ring; satisfies `sisockdaq.frames.bus.BorrowedFrame`.

    One that is forgotten without `release` is let go when Python collects it, and counts as dropped.
    """

    __slots__ = ("_generation", "_link", "_slot", "header", "packet_mask", "pixels")

    def __init__(self, link: _Link, slot: int, generation: int, header: FrameHeader) -> None:
        self._link: _Link | None = link
        self._slot, self._generation = slot, generation
        self.header = header
        self.pixels: npt.NDArray[Any] = link.pixels[slot]
        self.packet_mask: npt.NDArray[np.uint8] = link.packet_masks[slot]

    def valid(self) -> bool:
        """Whether the slot still holds this frame; ask before `release`, after which it is False."""
        link = self._link
        return link is not None and link.memory.generations[self._slot] == self._generation

    def release(self, *, used: bool = True) -> None:
        """Let the slot go; a second call does nothing."""
        link, self._link = self._link, None
        if link is None:
            return
        if link.memory.generations[self._slot] == self._generation:
            link.words[HOLDS + self._slot] = self.header.sequence << 2 | (Hold.TAKEN if used else Hold.DROPPED)

    def __enter__(self) -> RingFrame:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release(used=kind is None)

    def __del__(self) -> None:
        self.release(used=False)


class RingConsumer:
    """Take frames from a source on this machine; satisfies `sisockdaq.frames.bus.Consumer`.

    Parameters
    ----------
    socket_path : Path
        The source's socket; it need not exist yet.
    name : str
        Who this is, in the ledger; unique among the consumers of the source.
    policy : Policy
    reports : bool
        Whether it sends a `Report` after each `End`. The ledger waits for those who do; one who only looks on says
        False.
    """

    def __init__(self, socket_path: Path, name: str, policy: Policy, *, reports: bool = True) -> None:
        self._path, self._name, self._policy, self._reports = Path(socket_path), name, policy, reports
        self._link: _Link | None = None
        self._knocking: tuple[socket.socket, float] | None = None
        self._not_before = 0.0
        self._refusal = ""
        self._barrier = threading.Lock()
        self._closed = False

    def next(self, timeout: float) -> Mark | RingFrame | None:
        """Return the next mark or frame in order; None after `timeout` seconds without one."""
        deadline = time.monotonic() + timeout
        while not self._closed:
            link = self._link
            item = self._attach(deadline) if link is None else self._take(link)
            if item is not None:
                return item
            if link is not None and link.ended:
                return self._detach(link)
            if time.monotonic() >= deadline:
                return None
            if link is not None:
                self._sleep(link, deadline)
        return None

    def request(self, request: Request) -> None:
        """Send `Arm`, `Stop` or `Report` to the source, from any thread.

        Raises
        ------
        FrameSourceError
            When not attached, or the source does not read.
        """
        link = self._link
        if link is None or link.ended:
            raise FrameSourceError(
                f"{self._name} is not attached to the frames at {self._path}", remedy="is that source running?"
            )
        try:
            send(link.connection, request_message(request))
        except OSError as error:
            raise FrameSourceError(f"the frame source at {self._path} cannot be asked: {error}") from error

    def close(self) -> None:
        """Detach; frames still borrowed stay readable, and their slots held, until released.

        Any thread may close; a `next` under way in another returns None soon.
        """
        self._closed = True
        knocking, self._knocking = self._knocking, None
        if knocking is not None:
            knocking[0].close()
        link, self._link = self._link, None
        if link is not None:
            with contextlib.suppress(OSError):
                send(link.connection, Message(Kind.BYE, {"through": link.through}))

    # ---- attached ------------------------------------------------------------------------------------------------

    def _take(self, link: _Link) -> Mark | RingFrame | None:
        words, latest = link.words, self._policy.kind == "latest"
        while True:
            # The head first: a mark that stands before an entry was announced before the head passed that entry.
            head = words[HEAD]
            if words[MARKS] != link.marks_read:
                link.read_marks()
            limit = head
            if link.marks:
                position, mark = link.marks[0]
                if position <= link.tail:
                    link.marks.popleft()
                    return mark
                limit = min(limit, position)
            if limit <= link.tail:
                return None
            position = limit - 1 if latest else max(link.tail, head - link.control.capacity + 1)
            if position >= limit:  # every frame before the mark is overwritten: go on at the mark
                link.tail = limit
                continue
            entry = link.control.read_entry(position)
            link.tail = words[TAIL] = position + 1
            if words[HEAD] - position > link.control.capacity - 1:
                continue  # overwritten while it was copied; only a source that does not wait for us gets so far ahead
            slot, generation, header = unpack_entry(entry)
            if link.memory.generations[slot] == generation:
                link.through = header.sequence
                return RingFrame(link, slot, generation, header)

    def _sleep(self, link: _Link, deadline: float) -> None:
        """Wait for the source to ring, or for something on the socket."""
        words = link.words
        words[WAITING] = 1
        with self._barrier:  # an atomic operation: the word above is seen before the head is read below
            idle = words[HEAD] == link.tail and words[MARKS] == link.marks_read
        if idle:
            pause = min(_LOOK_AGAIN, deadline - time.monotonic())
            for descriptor, _ in link.poll.poll(max(0.0, pause * 1000)):
                if descriptor == link.bell:
                    with contextlib.suppress(BlockingIOError):
                        os.eventfd_read(link.bell)
                else:
                    link.read_marks()
        words[WAITING] = 0

    def _detach(self, link: _Link) -> Detached:
        self._link = None
        self._not_before = time.monotonic() + _RETRY
        return Detached(link.reason)

    # ---- attaching -----------------------------------------------------------------------------------------------

    def _attach(self, deadline: float) -> Mark | None:
        """Try to attach, no longer than until the deadline; an attempt under way goes on in the next call."""
        now = time.monotonic()
        if now < self._not_before:
            time.sleep(max(0.0, min(self._not_before, deadline) - now))
            return None
        if self._knocking is None:
            self._knocking = self._knock(now)
        if (knocking := self._knocking) is None:
            return None
        connection, since = knocking
        until = min(deadline, since + _ANSWER_WITHIN)
        if not self._answered(connection, until):
            if time.monotonic() >= since + _ANSWER_WITHIN:
                self._give_up(connection, _RETRY)
            return None
        return self._enter(connection)

    def _answered(self, connection: socket.socket, until: float) -> bool:
        """Wait for the source's answer; False when there is none yet, or another thread has closed this consumer."""
        try:
            ready = select.poll()
            ready.register(connection, select.POLLIN)
            return bool(ready.poll(max(0.0, (until - time.monotonic()) * 1000)))
        except (OSError, ValueError):
            if self._closed:
                return False
            raise

    def _knock(self, now: float) -> tuple[socket.socket, float] | None:
        try:
            connection = sockets_of(self._path)
        except ValueError as error:
            raise FrameSourceError(str(error)) from error
        hello = {"protocol": PROTOCOL, "name": self._name, "policy": str(self._policy), "reports": self._reports}
        try:
            connection.connect(str(self._path))
            send(connection, Message(Kind.HELLO, hello))
        except OSError:  # not there yet, or no longer; that is no error, attaching goes on
            connection.close()
            self._not_before = now + _RETRY
            return None
        return connection, now

    def _enter(self, connection: socket.socket) -> Mark | None:
        """Read the source's answer."""
        try:
            answer = receive(connection)
        except BlockingIOError:
            return None
        except (OSError, ValueError):
            answer = None
        if answer is None:
            self._give_up(connection, _RETRY)
            return None
        if answer.kind is Kind.REFUSED:
            self._give_up(connection, _REFUSED_RETRY)
            reason = str(answer.body.get("reason"))
            told, self._refusal = self._refusal == reason, reason
            return None if told else Detached(f"the source refuses {self._name}: {reason}")
        try:
            self._link = _Link(connection, answer)
        except (ValueError, KeyError, TypeError, OSError) as error:
            self._give_up(connection, _REFUSED_RETRY)
            raise FrameSourceError(f"the frame source at {self._path} cannot be attached: {error}") from error
        self._knocking, self._refusal = None, ""
        return self._link.attached

    def _give_up(self, connection: socket.socket, pause: float) -> None:
        connection.close()
        self._knocking = None
        self._not_before = time.monotonic() + pause
