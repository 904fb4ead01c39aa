"""Who has which frame of a ring: the producer's view of its consumers, and the accounts that come from it.

What a consumer writes into its control block is taken as a claim. What it is *owed* an entry for stands in the
producer's own memory: each frame offered to a consumer is credited exactly once, as taken or dropped, however late or
often the consumer writes. Everything here is called with the producer's lock held.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections import Counter
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sisockdaq.frames._books import Acquisition, Books
from sisockdaq.frames._ring_memory import HEAD, HOLDS, MARKS, TAIL, WAITING, ControlBlock, Hold
from sisockdaq.frames._ring_wire import Message, send
from sisockdaq.frames.messages import Policy, Settled

__all__ = ["Accounts", "Guest"]


class Guest:
    """An attached consumer as the producer sees it.

    Attributes
    ----------
    owed : ndarray of uint8, (slots,)
        1 where the slot's frame was offered and is not in the accounts yet.
    leaving : bool
        It has closed, and only keeps what it has borrowed.
    doomed : str
        Why it is to be thrown out; empty while it is not.
    """

    def __init__(self, name: str, policy: Policy, reports: bool, connection: socket.socket, slots: int) -> None:
        self.name, self.policy, self.reports, self.connection = name, policy, reports, connection
        self.lossless = policy.kind == "lossless"
        self.every = policy.n if policy.kind == "every" else 1
        self.control = ControlBlock(slots)
        self.words = self.control.words
        self.bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._owed = bytearray(slots)
        self.owed: npt.NDArray[np.uint8] = np.frombuffer(self._owed, np.uint8)
        self.head = self.marks = 0
        self.counts = {"taken": 0, "dropped": 0, "skipped": 0}
        self.leaving = False
        self.doomed = ""
        self.progress: tuple[int, int] = (-1, -1)
        self.progress_at = 0.0

    def offer(self, slot: int, sequence: int, entry: bytes) -> None:
        """Put a frame into the consumer's queue."""
        self._owed[slot] = 1
        self.words[HOLDS + slot] = sequence << 2 | Hold.HELD
        self.control.write_entry(self.head, entry)
        self.head = self.words[HEAD] = self.head + 1

    def tell(self, message: Message) -> None:
        """Send a mark in its place among the frames; a consumer with no room for it is doomed."""
        message.position = self.head
        try:
            send(self.connection, message)
        except BlockingIOError:
            self.doomed = self.doomed or "it does not read its marks"
            return
        except OSError:
            return  # it has gone; the service thread sees the end of its socket
        self.marks += 1
        self.words[MARKS] = self.marks
        self.wake()

    def wake(self) -> None:
        """Wake the consumer if it sleeps."""
        if self.words[WAITING]:
            self.words[WAITING] = 0
            with contextlib.suppress(BlockingIOError):
                os.eventfd_write(self.bell, 1)

    def hangs(self, now: float, starved: bool, patience: float) -> bool:
        """Whether the ring is full, and it has held slots without any progress for so long.

        The time counts from its last progress, not from the moment at which the ring was full: a ring that holds the
        frames of that time loses none for the others.
        """
        progress = (self.words[TAIL], self.counts["taken"] + self.counts["dropped"])
        if not self.lossless or not self.owed.any() or progress != self.progress:
            self.progress, self.progress_at = progress, now
            return False
        return starved and now - self.progress_at >= patience

    def status(self, state: str = "attached") -> dict[str, Any]:
        """Return its policy, its state, whether it reports after acquisitions, and its counts."""
        attached = state == "attached"
        return {
            "policy": str(self.policy),
            "state": state,
            "reports": self.reports,
            **self.counts,
            "held": int(np.count_nonzero(self.owed)) if attached and self.lossless else 0,
            "queued": self.head - min(self.words[TAIL], self.head) if attached else 0,
        }

    def close(self) -> None:
        """Close its socket and give the memory back."""
        self.connection.close()
        self.control.close()
        os.close(self.bell)


class Accounts:
    """The frame in each slot, who is owed an entry for it, and the books."""

    def __init__(self, slots: int) -> None:
        self.books = Books()
        self.guests: list[Guest] = []
        self.left: dict[str, dict[str, Any]] = {}
        self.sequences = np.full(slots, -1, np.int64)
        self._acquisitions: list[Acquisition | None] = [None] * slots

    def publish(self, slot: int, sequence: int, index: int, entry: bytes) -> bool:
        """Offer a slot's new frame to every consumer by its policy; True when one of them holds it."""
        acquisition = self.books.current if index >= 0 else None
        if acquisition is not None:
            acquisition.published += 1
        self.sequences[slot] = sequence
        self._acquisitions[slot] = acquisition
        held = False
        for guest in self.guests:
            if guest.leaving:
                continue
            if guest.every > 1 and sequence % guest.every:
                self._credit(guest, acquisition, "skipped")
                continue
            guest.offer(slot, sequence, entry)
            held = held or guest.lossless
        return held

    def waiting(self) -> npt.NDArray[np.bool_]:
        """Enter all releases in the accounts; return which slots a lossless consumer still holds."""
        held = np.zeros(len(self.sequences), np.bool_)
        for guest in self.guests:
            self.sweep(guest)
            if guest.lossless:
                held |= guest.owed != 0
        return held

    def sweep(self, guest: Guest) -> None:
        """Enter in the accounts what a consumer has released since the last look."""
        claims = guest.control.holds & np.uint64(Hold.TAKEN)  # set in both states of a released slot
        for slot in np.flatnonzero((claims != 0) & (guest.owed != 0)).tolist():
            word = guest.words[HOLDS + slot]
            if word >> 2 == self.sequences[slot]:  # else a late word about an earlier frame
                self._settle_slot(guest, slot, "taken" if word & 3 == Hold.TAKEN else "dropped")

    def take_back(self, slot: int) -> None:
        """Write off what was offered of this slot's frame to consumers that do not hold it."""
        for guest in self.guests:
            if guest.owed[slot]:
                word = guest.words[HOLDS + slot]
                taken = word == int(self.sequences[slot]) << 2 | Hold.TAKEN
                self._settle_slot(guest, slot, "taken" if taken else "dropped")

    def say_goodbye(self, guest: Guest, through: int) -> None:
        """Let a consumer go that still has frames in its hands; what it had not taken is dropped."""
        self.sweep(guest)
        for slot in self._owed_slots(guest):
            if self.sequences[slot] > through:
                self._settle_slot(guest, slot, "dropped")
        self.books.detach(guest.name, "gone")
        guest.leaving = True

    def remove(self, guest: Guest, state: Literal["gone", "evicted"]) -> None:
        """Forget a consumer: what it held is free again, what it had not released is dropped."""
        self.sweep(guest)
        for slot in self._owed_slots(guest):
            self._settle_slot(guest, slot, "dropped")
        self.guests.remove(guest)
        if not guest.leaving:
            self.books.detach(guest.name, state)
        self.left[guest.name] = guest.status(state)
        guest.close()

    def settle(self, now: float) -> Iterator[Settled]:
        """Close the ledgers that are due; what a lossless consumer has not let go of is written down as held."""
        for acquisition in self.books.due(now):
            held: Counter[str] = Counter()
            for guest in self.guests:
                self.sweep(guest)
                for slot in self._owed_slots(guest):
                    if self._acquisitions[slot] is not acquisition:
                        continue
                    if guest.lossless:
                        held[guest.name] += 1
                    else:
                        self._settle_slot(guest, slot, "dropped")
            yield self.books.close(acquisition, held.__getitem__)

    def status(self) -> dict[str, Any]:
        """Return each consumer's status, those that have left included."""
        return {**self.left, **{guest.name: guest.status() for guest in self.guests}}

    def _owed_slots(self, guest: Guest) -> list[int]:
        slots: list[int] = np.flatnonzero(guest.owed).tolist()
        return slots

    def _settle_slot(self, guest: Guest, slot: int, outcome: Literal["taken", "dropped"]) -> None:
        guest.owed[slot] = 0
        self._credit(guest, self._acquisitions[slot], outcome)

    def _credit(
        self, guest: Guest, acquisition: Acquisition | None, outcome: Literal["taken", "dropped", "skipped"]
    ) -> None:
        guest.counts[outcome] += 1
        self.books.credit(acquisition, guest.name, outcome)
