"""The frame plane within one process, for tests of nodes and for consumers that live beside their source.

It keeps every promise of the ring (policies, holding, marks in order, ledger, throwing out who hangs) with plain
memory and one lock; so a node that works with this works with a ring.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from sisockdaq.errors import FrameSourceError
from sisockdaq.frames._books import Acquisition, Books
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
)

__all__ = ["MemoryBus", "MemoryConsumer", "MemoryFrame", "MemoryProducer"]


class MemoryFrame:
    """A frame borrowed from a `MemoryBus`; satisfies `sisockdaq.frames.bus.BorrowedFrame`."""

    def __init__(self, bus: MemoryBus, slot: int, header: FrameHeader, acquisition: Acquisition | None) -> None:
        self._bus, self._slot, self._generation = bus, slot, bus.generations[slot]
        self._acquisition = acquisition
        self._owner: MemoryConsumer | None = None
        self.header = header
        self.pixels: npt.NDArray[Any] = bus.pixels[slot].view()
        self.pixels.flags.writeable = False
        self.packet_mask: npt.NDArray[np.uint8] = bus.packet_masks[slot].view()
        self.packet_mask.flags.writeable = False

    def valid(self) -> bool:
        """Whether the slot still holds this frame."""
        return self._owner is not None and self._bus.generations[self._slot] == self._generation

    def release(self, *, used: bool = True) -> None:
        """Let the slot go; a second call does nothing."""
        owner, self._owner = self._owner, None
        if owner is not None:
            self._bus.let_go(owner, self, used)

    def of(self, owner: MemoryConsumer) -> MemoryFrame:
        """Return this frame in the hands of one consumer."""
        copy = MemoryFrame(self._bus, self._slot, self.header, self._acquisition)
        copy._owner = owner
        return copy

    @property
    def slot(self) -> int:
        """The slot it is in."""
        return self._slot

    @property
    def acquisition(self) -> Acquisition | None:
        """The acquisition it was published in."""
        return self._acquisition

    def __enter__(self) -> MemoryFrame:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release(used=kind is None)


class MemoryBus:
    """The slots, the accounts and the lock that `producer` and the consumers share.

    Parameters
    ----------
    description : Description
    slots : int
    hang_after : float
        As in `RingProducer` [s].

    Attributes
    ----------
    producer : MemoryProducer
    """

    def __init__(self, description: Description, slots: int = 16, *, hang_after: float = 10.0) -> None:
        self.description, self.epoch, self.hang_after = description, time.time_ns() // 1000, hang_after
        self.pixels: npt.NDArray[Any] = np.zeros((slots, *description.shape), description.dtype)
        self.packet_masks = np.zeros((slots, -(-description.packets_per_frame // 8)), np.uint8)
        self.generations = [0] * slots
        self.free = deque(range(slots))
        self.holders: list[set[MemoryConsumer]] = [set() for _ in range(slots)]
        self.consumers: list[MemoryConsumer] = []
        self.leaving: list[MemoryConsumer] = []
        self.left: dict[str, dict[str, Any]] = {}
        self.books = Books()
        self.changed = threading.Condition()
        self.handler: Callable[[str, Request], None] | None = None
        self.open = True
        self.producer = MemoryProducer(self)

    def consumer(self, name: str, policy: Policy, *, reports: bool = True) -> MemoryConsumer:
        """Return a consumer; it attaches with its first `next`."""
        return MemoryConsumer(self, name, policy, reports=reports)

    def attached(self) -> Attached:
        """Return the mark that greets a consumer now."""
        current = self.books.current
        return Attached(self.description, self.epoch, current.start if current else None)

    def tell_all(self, mark: Mark) -> None:
        """Queue a mark for every consumer; the lock is held."""
        for consumer in self.consumers:
            consumer.queue.append(mark)
        self.changed.notify_all()

    def settle(self) -> None:
        """Close the ledgers that are due; the lock is held."""
        for acquisition in self.books.due(time.monotonic()):
            held: Counter[str] = Counter()
            for consumer in [*self.consumers, *self.leaving]:
                own = [frame for frame in consumer.offered.values() if frame.acquisition is acquisition]
                if consumer.lossless:
                    held[consumer.name] += len(own)
                else:
                    consumer.write_off(own)
            self.tell_all(self.books.close(acquisition, held.__getitem__))

    def let_go(self, consumer: MemoryConsumer, frame: MemoryFrame, used: bool) -> None:
        """Take a frame back from a consumer."""
        with self.changed:
            consumer.progress = time.monotonic()
            if consumer.offered.pop(frame.header.sequence, None) is not None:
                consumer.credit(frame, "taken" if used else "dropped")
            self.unhold(consumer, frame.slot, self.generations[frame.slot] == frame._generation)
            if consumer in self.leaving and not consumer.offered:
                self.leaving.remove(consumer)

    def unhold(self, consumer: MemoryConsumer, slot: int, current: bool = True) -> None:
        """Free a slot when its last holder lets go; the lock is held."""
        if current and consumer in self.holders[slot]:
            self.holders[slot].discard(consumer)
            if not self.holders[slot]:
                self.free.append(slot)

    def remove(self, consumer: MemoryConsumer, state: str, reason: str, through: int | None = None) -> None:
        """Detach a consumer; frames after sequence `through` (all: None) are written off. The lock is held."""
        if consumer not in self.consumers:
            return
        lost = [frame for sequence, frame in consumer.offered.items() if through is None or sequence > through]
        consumer.write_off(lost)
        self.consumers.remove(consumer)
        if consumer.offered:
            self.leaving.append(consumer)
        self.books.detach(consumer.name, "evicted" if state == "evicted" else "gone")
        self.left[consumer.name] = {**consumer.status(), "state": state}
        consumer.queue.clear()
        consumer.detached = reason
        self.changed.notify_all()


class MemoryProducer:
    """The writing end of a `MemoryBus`; satisfies `sisockdaq.frames.bus.Producer`."""

    def __init__(self, bus: MemoryBus) -> None:
        self._bus = bus
        self._sequence = 0
        self.pixels = bus.pixels
        self.packet_masks = bus.packet_masks

    def acquire(self) -> int | None:
        """Take a free slot; None when all are held."""
        bus = self._bus
        with bus.changed:
            bus.settle()
            if not bus.free:
                self._evict()
            if not bus.free:
                return None
            slot = bus.free.popleft()
            bus.generations[slot] += 1
            for consumer in bus.consumers:
                consumer.write_off([frame for frame in consumer.offered.values() if frame.slot == slot])
            return slot

    def publish(self, slot: int, header: FrameHeader) -> None:
        """Hand the filled slot to every consumer by its policy, and forget it."""
        bus = self._bus
        with bus.changed:
            sequence = header.sequence = self._sequence
            self._sequence += 1
            current = bus.books.current if header.index >= 0 else None
            if current is not None:
                current.published += 1
            frame = MemoryFrame(bus, slot, header, current)
            for consumer in bus.consumers:
                if consumer.policy.kind == "every" and sequence % consumer.policy.n:
                    consumer.credit(frame, "skipped")
                    continue
                if not consumer.offered:
                    consumer.progress = time.monotonic()
                consumer.offered[sequence] = frame
                consumer.queue.append(frame)
                if consumer.lossless:
                    bus.holders[slot].add(consumer)
            if not bus.holders[slot]:
                bus.free.append(slot)
            bus.changed.notify_all()

    def discard(self, slot: int) -> None:
        """Give an acquired slot back unpublished."""
        with self._bus.changed:
            self._bus.free.append(slot)

    def start(self, start: Start) -> None:
        """Mark the beginning of an acquisition."""
        with self._bus.changed:
            self._bus.books.start(start)
            self._bus.tell_all(start)

    def end(self, end: End, deadline: float = 10.0) -> None:
        """Mark its end; `Settled` follows after all reports, or when a consumer looks after the deadline."""
        with self._bus.changed:
            self._bus.books.end(end, time.monotonic() + deadline)
            self._bus.tell_all(end)
            self._bus.settle()

    def describe(self, description: Description) -> None:
        """Change the description's ``meta``."""
        bus = self._bus
        if (description.shape, np.dtype(description.dtype)) != (bus.description.shape, bus.pixels.dtype):
            raise ValueError("shape and dtype stay as they are while a bus lives")
        with bus.changed:
            bus.description = description
            bus.epoch += 1
            bus.tell_all(bus.attached())

    def on_request(self, handler: Callable[[str, Request], None]) -> None:
        """Call ``handler(consumer_name, request)`` for `Arm` and `Stop`, in the thread of who asks."""
        self._bus.handler = handler

    def status(self) -> dict[str, Any]:
        """Return slots, free slots, frames published, and each consumer's counts."""
        bus = self._bus
        with bus.changed:
            return {
                "slots": len(bus.generations),
                "slots_free": len(bus.free),
                "published": self._sequence,
                "consumers": {**bus.left, **{consumer.name: consumer.status() for consumer in bus.consumers}},
            }

    def close(self) -> None:
        """Settle what has ended and detach all consumers."""
        bus = self._bus
        with bus.changed:
            bus.open = False
            for consumer in list(bus.consumers):
                kept = list(consumer.queue)
                bus.remove(consumer, "gone", "the source has stopped")
                consumer.queue.extend(item for item in kept if not isinstance(item, MemoryFrame))

    def _evict(self) -> None:
        now = time.monotonic()
        for consumer in list(self._bus.consumers):
            if consumer.lossless and consumer.offered and now - consumer.progress >= self._bus.hang_after:
                reason = f"thrown out: no progress for {self._bus.hang_after:g} s while the ring was full"
                self._bus.remove(consumer, "evicted", reason)


class MemoryConsumer:
    """The reading end of a `MemoryBus`; satisfies `sisockdaq.frames.bus.Consumer`."""

    def __init__(self, bus: MemoryBus, name: str, policy: Policy, *, reports: bool = True) -> None:
        self._bus, self.name, self.policy, self._reports = bus, name, policy, reports
        self.lossless = policy.kind == "lossless"
        self.queue: deque[Mark | MemoryFrame] = deque()
        self.offered: dict[int, MemoryFrame] = {}
        self.counts = {"taken": 0, "dropped": 0, "skipped": 0}
        self.progress = time.monotonic()
        self.detached = ""
        self._through = -1
        self._closed = False

    def next(self, timeout: float) -> Mark | MemoryFrame | None:
        """Return the next mark or frame in order; None after `timeout` seconds without one."""
        bus, deadline = self._bus, time.monotonic() + timeout
        with bus.changed:
            while not self._closed:
                bus.settle()
                item = self._take()
                if item is not None:
                    return item
                due = bus.books.next_deadline()
                pause = min(deadline, due if due is not None else deadline) - time.monotonic()
                if deadline - time.monotonic() <= 0:
                    return None
                bus.changed.wait(max(0.0, pause))
        return None

    def request(self, request: Request) -> None:
        """Send `Arm`, `Stop` or `Report` to the source."""
        bus = self._bus
        with bus.changed:
            if self not in bus.consumers:
                raise FrameSourceError(f"{self.name} is not attached to {bus.description.source}")
            if isinstance(request, Report):
                bus.books.report(self.name, request)
                bus.settle()
                return
        if bus.handler is not None:
            bus.handler(self.name, request)

    def close(self) -> None:
        """Detach; frames still borrowed stay readable, and their slots held, until released."""
        with self._bus.changed:
            self._closed = True
            self._bus.remove(self, "gone", "closed", through=self._through)

    def credit(self, frame: MemoryFrame, outcome: Any) -> None:
        """Count a frame; the lock is held."""
        self.counts[outcome] += 1
        self._bus.books.credit(frame.acquisition, self.name, outcome)

    def write_off(self, frames: list[MemoryFrame]) -> None:
        """Count frames as dropped that were offered and not taken; the lock is held."""
        for frame in frames:
            del self.offered[frame.header.sequence]
            self.credit(frame, "dropped")
            self._bus.unhold(self, frame.slot)

    def status(self) -> dict[str, Any]:
        """Return this consumer's counts; the lock is held."""
        return {
            "policy": str(self.policy),
            "state": "attached",
            **self.counts,
            "held": len(self.offered) if self.lossless else 0,
            "queued": len(self.queue),
        }

    def _take(self) -> Mark | MemoryFrame | None:
        bus = self._bus
        if self.detached and not self.queue:
            reason, self.detached = self.detached, ""
            return Detached(reason)
        if self not in bus.consumers and not self.queue:
            return self._attach() if bus.open else None
        while self.queue:
            item = self.queue.popleft()
            if not isinstance(item, MemoryFrame):
                return item
            newer = self.policy.kind == "latest" and self.queue and isinstance(self.queue[0], MemoryFrame)
            if not newer and item.header.sequence in self.offered:
                self._through = item.header.sequence
                self.progress = time.monotonic()
                return item.of(self)
        return None

    def _attach(self) -> Mark | None:
        bus = self._bus
        if any(other.name == self.name for other in bus.consumers):
            return None
        self.counts = {"taken": 0, "dropped": 0, "skipped": 0}
        bus.left.pop(self.name, None)
        bus.books.attach(self.name, str(self.policy), reports=self._reports)
        bus.consumers.append(self)
        self.progress = time.monotonic()
        return bus.attached()
