"""The writing end of a shared-memory ring.

Two threads work here. The caller's thread takes slots, fills and publishes them; it makes no system call but the one
that wakes a sleeping consumer, and never waits for one. The service thread lets consumers in, reads their requests,
notices those that die or hang, and closes ledgers. One lock, held for microseconds, guards what they share.

What happens to whom:

- A lossless consumer holds each slot until it releases it. When the ring is full, and a consumer that holds slots has
  made no progress for ``hang_after`` seconds, it is thrown out, and named ``evicted`` in the ledger.
- A consumer that dies (end of its socket) gives all its slots back; its unreleased frames count as dropped.
- Consumers with ``latest`` or ``every: n`` hold nothing: their slots are used again when their turn comes, and what
  they had not taken by then counts as dropped.
- A consumer that does not read its marks until its socket is full is thrown out as well.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sisockdaq.frames._ring_accounts import Accounts, Guest
from sisockdaq.frames._ring_door import Door
from sisockdaq.frames._ring_memory import WAITING, SlotMemory, pack_entry
from sisockdaq.frames._ring_wire import PROTOCOL, Kind, Message, mark_message, parse_request, receive, send
from sisockdaq.frames.bus import Request
from sisockdaq.frames.messages import (
    Attached,
    Description,
    Detached,
    End,
    FrameHeader,
    Mark,
    Policy,
    Report,
    Start,
    parse_policy,
)

__all__ = ["RingProducer"]

_log = logging.getLogger(__name__)

_TICK = 0.1
"""Pace of the service thread while a ledger or a full ring waits for somebody [s]."""

_HELLO_WITHIN = 5.0
"""Time a connection has to say who it is [s]."""


class RingProducer:
    """Publish frames to the consumers on this machine; satisfies `sisockdaq.frames.bus.Producer`.

    Parameters
    ----------
    socket_path : Path
        Unix socket at which consumers attach; a file left by a producer that died is replaced.
    description : Description
    slots : int
        Frames in the ring, at least 2.
    hang_after : float
        How long a consumer may hold slots without any progress before a full ring throws it out [s].

    Raises
    ------
    FrameSourceError
        When another process publishes at this socket, or there is not enough memory.
    """

    def __init__(self, socket_path: Path, description: Description, slots: int, *, hang_after: float = 10.0) -> None:
        if slots < 2:
            raise ValueError(f"a ring needs at least 2 slots, not {slots}")
        self._door = Door(Path(socket_path), description.source)
        try:
            self._memory = SlotMemory(description, slots)
        except BaseException:
            self._door.close()
            raise
        self.pixels: npt.NDArray[Any] = self._memory.pixels
        self.packet_masks: npt.NDArray[np.uint8] = self._memory.packet_masks
        self._generations = self._memory.generations
        self._description, self._epoch = description, time.time_ns() // 1000
        self._slots, self._hang_after = slots, hang_after
        self._sequence = 0
        self._free: deque[int] = deque(range(slots))
        self._busy = np.zeros(slots, np.bool_)
        self._accounts = Accounts(slots)
        self._handler: Callable[[str, Request], None] | None = None
        self._starved = False
        self._lock = threading.Lock()
        self._closing = False
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._door.listener, selectors.EVENT_READ, None)
        self._selector.register(self._bell, selectors.EVENT_READ, None)
        self._strangers: dict[socket.socket, float] = {}
        self._thread = threading.Thread(target=self._serve, name=f"frames-{description.source}", daemon=True)
        self._thread.start()

    # ---- the caller's thread -------------------------------------------------------------------------------------

    def acquire(self) -> int | None:
        """Take a free slot; None when the ring is full."""
        with self._lock:
            if not self._free:
                self._collect()
                if not self._free:
                    if not self._starved:
                        self._starved = True
                        self._wake_service()
                    return None
            self._starved = False
            slot = self._free.popleft()
            self._accounts.take_back(slot)
            self._generations[slot] += 1
            return slot

    def publish(self, slot: int, header: FrameHeader) -> None:
        """Hand the filled slot to every consumer by its policy, and forget it."""
        sequence = header.sequence = self._sequence
        entry = pack_entry(slot, self._generations[slot], header)
        with self._lock:
            self._sequence = sequence + 1
            if self._accounts.publish(slot, sequence, header.index, entry):
                self._busy[slot] = True
            else:
                self._free.append(slot)
        # Taking the lock again is a memory barrier: a consumer that went to sleep before it could see the new head is
        # seen as waiting here. (It looks again every 50 ms, should a machine order memory more weakly.)
        with self._lock:
            for guest in self._accounts.guests:
                if guest.words[WAITING]:
                    guest.wake()

    def discard(self, slot: int) -> None:
        """Give an acquired slot back unpublished."""
        with self._lock:
            self._free.append(slot)

    def start(self, start: Start) -> None:
        """Mark the beginning of an acquisition; raise `ValueError` while another is under way."""
        with self._lock:
            self._accounts.books.start(start)
            self._tell_all(start)

    def end(self, end: End, deadline: float = 10.0) -> None:
        """Mark its end; `Settled` follows by itself, after all reports or `deadline` seconds."""
        with self._lock:
            self._accounts.books.end(end, time.monotonic() + deadline)
            self._tell_all(end)
        self._wake_service()

    def describe(self, description: Description) -> None:
        """Change the description's ``meta``; every consumer gets `Attached` with a new epoch."""
        old = self._description
        if (description.shape, np.dtype(description.dtype), description.packets_per_frame) != (
            old.shape,
            np.dtype(old.dtype),
            old.packets_per_frame,
        ):
            raise ValueError("shape, dtype and packets per frame stay as they are while a ring lives")
        with self._lock:
            self._description = description
            self._epoch += 1
            self._tell_all(self._attached())

    def on_request(self, handler: Callable[[str, Request], None]) -> None:
        """Call ``handler(consumer_name, request)`` for `Arm` and `Stop`, from the service thread."""
        self._handler = handler

    def status(self) -> dict[str, Any]:
        """Return slots, free slots, frames published, and each consumer's counts; any thread may ask."""
        with self._lock:
            self._collect()
            return {
                "slots": self._slots,
                "slots_free": len(self._free),
                "published": self._sequence,
                "consumers": self._accounts.status(),
            }

    def close(self) -> None:
        """Settle what has ended, detach all consumers and free the memory."""
        if self._closing:
            return
        self._closing = True
        self._wake_service()
        self._thread.join(timeout=10.0)
        with self._lock:
            for settled in self._accounts.settle(float("inf")):
                self._tell_all(settled)
            self._tell_all(Detached("the source has stopped"))
            for guest in list(self._accounts.guests):
                self._accounts.remove(guest, "gone")
        for stranger in self._strangers:
            stranger.close()
        self._selector.close()
        self._door.close()
        os.close(self._bell)
        self._memory.close()

    # ---- the lock is held ----------------------------------------------------------------------------------------

    def _collect(self) -> None:
        """Find the slots that every lossless consumer has let go, oldest first."""
        released = np.flatnonzero(self._busy & ~self._accounts.waiting())
        if released.size:
            self._busy[released] = False
            self._free.extend(released[np.argsort(self._accounts.sequences[released])].tolist())

    def _tell_all(self, mark: Mark) -> None:
        message = mark_message(mark)
        for guest in self._accounts.guests:
            if not guest.leaving:
                guest.tell(message)
            if guest.doomed:
                self._wake_service()

    def _attached(self) -> Attached:
        current = self._accounts.books.current
        return Attached(self._description, self._epoch, current.start if current else None)

    # ---- the service thread --------------------------------------------------------------------------------------

    def _wake_service(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_write(self._bell, 1)

    def _serve(self) -> None:
        while not self._closing:
            try:
                urgent = self._accounts.books.waiting or self._starved or bool(self._strangers)
                for key, _ in self._selector.select(_TICK if urgent else 1.0):
                    self._attend(key)
                self._watch()
            except Exception:  # the edge of a thread: one consumer's trouble must not end the service of the others
                _log.exception("frames of %s: the service thread goes on after an error", self._description.source)
                time.sleep(_TICK)

    def _attend(self, key: selectors.SelectorKey) -> None:
        if key.fileobj is self._door.listener:
            stranger = self._door.accept()
            if stranger is not None:
                self._strangers[stranger] = time.monotonic() + _HELLO_WITHIN
                self._selector.register(stranger, selectors.EVENT_READ, None)
        elif key.fileobj == self._bell:
            os.eventfd_read(self._bell)
        elif isinstance(key.data, Guest):
            self._listen(key.data)
        elif isinstance(key.fileobj, socket.socket):
            self._greet(key.fileobj)

    def _watch(self) -> None:
        """Look after time: ledgers that are due, consumers that hang, connections that stay silent."""
        now = time.monotonic()
        with self._lock:
            for settled in self._accounts.settle(now):
                self._tell_all(settled)
            for guest in list(self._accounts.guests):
                self._accounts.sweep(guest)
                if not guest.doomed and guest.hangs(now, self._starved, self._hang_after):
                    guest.doomed = f"no progress for {self._hang_after:g} s while the ring was full"
                if guest.doomed:
                    self._evict(guest)
        for stranger in [item for item, until in self._strangers.items() if now > until]:
            self._dismiss(stranger)

    def _evict(self, guest: Guest) -> None:
        _log.warning("frames of %s: consumer %s is thrown out: %s", self._description.source, guest.name, guest.doomed)
        with contextlib.suppress(OSError):
            send(guest.connection, mark_message(Detached(f"thrown out: {guest.doomed}")))
        self._selector.unregister(guest.connection)
        self._accounts.remove(guest, "evicted")

    def _listen(self, guest: Guest) -> None:
        """Read what a consumer says; the end of its socket is its end."""
        while True:
            try:
                message = receive(guest.connection)
            except BlockingIOError:
                return
            except (OSError, ValueError) as error:
                _log.warning("frames of %s: consumer %s: %s", self._description.source, guest.name, error)
                message = None
            if message is None:
                self._selector.unregister(guest.connection)
                with self._lock:
                    self._accounts.remove(guest, "gone")
                return
            self._handle(guest, message)

    def _handle(self, guest: Guest, message: Message) -> None:
        if message.kind is Kind.BYE:
            with self._lock:
                self._accounts.say_goodbye(guest, int(message.body.get("through", -1)))
            return
        try:
            request = parse_request(message)
        except (ValueError, TypeError) as error:
            _log.warning("frames of %s: consumer %s sent nonsense: %s", self._description.source, guest.name, error)
            return
        if isinstance(request, Report):
            with self._lock:
                self._accounts.sweep(guest)
                if not self._accounts.books.report(guest.name, request):
                    _log.warning("report of %s for %s came too late", guest.name, request.acquisition)
        elif self._handler is None:
            _log.warning(
                "frames of %s: %s asks for %s, which this source cannot do",
                self._description.source,
                guest.name,
                message.kind.name,
            )
        else:
            try:
                self._handler(guest.name, request)
            except Exception:  # the node's own code: its error is logged and must not end the service
                _log.exception("frames of %s: %s of %s failed", self._description.source, message.kind.name, guest.name)

    def _greet(self, stranger: socket.socket) -> None:
        """Read a connection's first message; it becomes a consumer or is sent away with the reason."""
        try:
            message = receive(stranger)
        except BlockingIOError:
            return
        except (OSError, ValueError):
            message = None
        if message is None or message.kind is not Kind.HELLO:
            self._dismiss(stranger)
            return
        try:
            if message.body.get("protocol") != PROTOCOL:
                raise ValueError(f"it speaks version {message.body.get('protocol')}, the source version {PROTOCOL}")
            name, policy = str(message.body["name"]), parse_policy(str(message.body["policy"]))
            self._admit(stranger, name, policy, bool(message.body.get("reports", True)))
        except (KeyError, ValueError, OSError) as error:
            with contextlib.suppress(OSError):
                send(stranger, Message(Kind.REFUSED, {"reason": str(error)}))
            self._dismiss(stranger)

    def _admit(self, stranger: socket.socket, name: str, policy: Policy, reports: bool) -> None:
        for other in [guest for guest in self._accounts.guests if guest.name == name]:
            self._listen(other)  # it may have gone a moment ago
        if any(guest.name == name and not guest.leaving for guest in self._accounts.guests):
            raise ValueError(f'another consumer named "{name}" is attached')
        guest = Guest(name, policy, reports, stranger, self._slots)
        try:
            with self._lock:
                hello = mark_message(self._attached())
                hello.body["ring"] = {"slots": self._slots}
                hello.descriptors = [self._memory.descriptor, guest.control.descriptor, guest.bell]
                send(stranger, hello)
                self._accounts.books.attach(name, str(policy), reports=reports)
                self._accounts.guests.append(guest)
                self._accounts.left.pop(name, None)
        except OSError:
            guest.control.close()
            os.close(guest.bell)
            raise
        guest.control.close()
        del self._strangers[stranger]
        self._selector.modify(stranger, selectors.EVENT_READ, guest)

    def _dismiss(self, stranger: socket.socket) -> None:
        del self._strangers[stranger]
        self._selector.unregister(stranger)
        stranger.close()
