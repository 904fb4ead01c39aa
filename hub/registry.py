"""Who is on the network: a state machine without router, reactor or clock.

Each method takes one event and the present time, changes the registry and returns what must be done about it, in
order: `Announce` a node to the consumers, `Ask` a node whether it lives, `Evict` a session that does not. It promises

- a name has one holder; the first one keeps it until its session is gone, it leaves, or it is evicted;
- every member was announced as added once, and is announced as subtracted once when it goes;
- a member that can be asked and has not answered for `silence` seconds is evicted; it is asked every `period`.

Nodes of older sites cannot be asked (they have no ``ping``); for them the router's own pings of the connection stand
in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["Announce", "Ask", "Evict", "Instruction", "Member", "Registry"]

PERIOD = 1.0
"""Time between two questions to a node [s]."""

SILENCE = 6.0
"""A node that has not answered for so long is frozen [s]: with `PERIOD` and the router's share, it is gone within 10 s.

Not less: a node that compiles a kernel or lists a slow disk in its reactor may be silent for seconds."""


@dataclass(frozen=True, slots=True)
class Announce:
    """Tell the consumers that a node was added or subtracted."""

    kind: Literal["added", "subtracted"]
    name: str
    description: str


@dataclass(frozen=True, slots=True)
class Ask:
    """Call the node's ``ping``; its outcome goes to `Registry.answered` or `Registry.cannot_answer`."""

    name: str
    session: int


@dataclass(frozen=True, slots=True)
class Evict:
    """End a session at the router."""

    name: str
    session: int
    reason: str


Instruction = Announce | Ask | Evict


@dataclass(slots=True)
class Member:
    """A node that is listed. Times are UNIX seconds.

    ``asked`` is when the oldest unanswered question was sent; None when none is open. ``health`` is the node's latest
    answer to ``ping``. ``plain`` nodes have no ``ping``.
    """

    name: str
    description: str
    session: int
    since: float
    next_question: float
    last_answer: float | None = None
    asked: float | None = None
    plain: bool = False
    health: dict[str, Any] = field(default_factory=dict)

    def status(self, now: float) -> dict[str, Any]:
        """Return the member's entry in the hub's status."""
        started = self.health.get("started")
        return {
            "name": self.name,
            "description": self.description,
            "session": self.session,
            "type": self.health.get("type"),
            "version": self.health.get("version"),
            "since": self.since,
            "uptime": None if started is None else now - float(started),
            "last_answer": self.last_answer,
            "health": dict(self.health),
        }


class Registry:
    """The nodes by name."""

    def __init__(self, *, period: float = PERIOD, silence: float = SILENCE) -> None:
        self.period = period
        self.silence = silence
        self._members: dict[str, Member] = {}

    def listing(self) -> list[dict[str, str]]:
        """Return ``[{"name", "description"}]`` of all members, by name."""
        return [{"name": m.name, "description": m.description} for _, m in sorted(self._members.items())]

    def status(self, now: float) -> list[dict[str, Any]]:
        """Return each member's `Member.status`, by name."""
        return [member.status(now) for _, member in sorted(self._members.items())]

    def holder(self, name: str) -> int | None:
        """Return the session that holds the name."""
        member = self._members.get(name)
        return member.session if member else None

    def add(self, name: str, description: str, session: int, now: float) -> tuple[bool, list[Instruction]]:
        """A node asks to be listed; True: it is now, or was already."""
        member = self._members.get(name)
        if member is None:
            self._members[name] = Member(name, description, session, since=now, next_question=now)
            return True, [Announce("added", name, description)]
        if member.session != session:
            return False, []
        member.description = description
        return True, []

    def remove(self, name: str, session: int) -> list[Instruction]:
        """A node asks to be listed no more; ignored from anyone but the holder."""
        member = self._members.get(name)
        return self._drop(member) if member is not None and member.session == session else []

    def left(self, session: int) -> list[Instruction]:
        """A session has ended."""
        gone = [member for member in self._members.values() if member.session == session]
        return [instruction for member in gone for instruction in self._drop(member)]

    def answered(self, name: str, session: int, health: dict[str, Any], now: float) -> None:
        """A node has answered ``ping``."""
        member = self._members.get(name)
        if member is not None and member.session == session:
            member.last_answer, member.asked = now, None
            member.health = health
            member.next_question = now + self.period

    def cannot_answer(self, name: str, session: int) -> None:
        """A node has no ``ping``: it is of an older kind, and is asked no more."""
        member = self._members.get(name)
        if member is not None and member.session == session:
            member.asked, member.plain = None, member.last_answer is None
            member.next_question += self.period

    def tick(self, now: float) -> list[Instruction]:
        """Time has passed: say whom to ask and whom to evict."""
        due: list[Instruction] = []
        for member in list(self._members.values()):
            if member.plain:
                continue
            if member.asked is not None and now - member.asked >= self.silence:
                reason = f"no answer for {now - member.asked:.0f} s"
                due += [Evict(member.name, member.session, reason), *self._drop(member)]
            elif member.asked is None and now >= member.next_question:
                member.asked = now
                due.append(Ask(member.name, member.session))
        return due

    def clear(self) -> None:
        """Forget everybody without a word: the router is new, and all sessions with it are gone."""
        self._members.clear()

    def _drop(self, member: Member) -> list[Instruction]:
        del self._members[member.name]
        return [Announce("subtracted", member.name, member.description)]
