"""The producer's bookkeeping: who was offered which frames of which acquisition, and when a ledger is final.

Every back end of the frame plane feeds the same `Books`. They are pure: times are passed in, nothing is sent. Their
one policy: a ledger is closed when every consumer that is attached, and has said that it reports, has reported; or at
the deadline that came with the end of the acquisition. Frames that are unaccounted for then are written down as held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from sisockdaq.frames.ledger import ConsumerPart, Ledger
from sisockdaq.frames.messages import End, Report, Settled, Start

__all__ = ["EXPECTED_CONSUMERS", "Acquisition", "Books"]

EXPECTED_CONSUMERS = "consumers"
"""Key of `Start.meta`: names of consumers that should take part; one that never attaches is ``absent``."""

Outcome = Literal["taken", "dropped", "skipped"]


@dataclass(slots=True)
class _Account:
    """A consumer's part and whether it is attached: then since how many published frames."""

    part: ConsumerPart
    offered: int = 0
    since: int | None = None
    reports: bool = True
    reported: bool = False


@dataclass(slots=True)
class Acquisition:
    """An acquisition whose ledger is open."""

    start: Start
    published: int = 0
    end: End | None = None
    deadline: float = 0.0
    accounts: dict[str, _Account] = field(default_factory=dict)


@dataclass(slots=True)
class _Guest:
    policy: str
    reports: bool


class Books:
    """Accounts of all consumers in all open acquisitions."""

    def __init__(self) -> None:
        self.current: Acquisition | None = None
        self._open: dict[str, Acquisition] = {}
        self._guests: dict[str, _Guest] = {}

    def start(self, start: Start) -> Acquisition:
        """Open an acquisition; raise `ValueError` when one is under way or its ledger is still open."""
        if self.current is not None:
            raise ValueError(f'acquisition "{self.current.start.acquisition}" is still under way')
        if start.acquisition in self._open:
            raise ValueError(f'the ledger of an earlier acquisition "{start.acquisition}" is still open')
        self.current = acquisition = Acquisition(start)
        self._open[start.acquisition] = acquisition
        for name, guest in self._guests.items():
            acquisition.accounts[name] = _Account(ConsumerPart(guest.policy), since=0, reports=guest.reports)
        return acquisition

    def end(self, end: End, deadline: float) -> Acquisition:
        """Close the current acquisition to frames; its ledger stays open until `due`."""
        acquisition = self.current
        if acquisition is None or acquisition.start.acquisition != end.acquisition:
            raise ValueError(f'acquisition "{end.acquisition}" is not under way')
        acquisition.end, acquisition.deadline = end, deadline
        self.current = None
        for account in acquisition.accounts.values():
            _leave(account, acquisition.published)
        return acquisition

    def attach(self, name: str, policy: str, *, reports: bool = True) -> None:
        """Note that a consumer is attached from the next frame on."""
        self._guests[name] = _Guest(policy, reports)
        if self.current is not None:
            account = self.current.accounts.setdefault(name, _Account(ConsumerPart(policy)))
            account.part.policy, account.part.state = policy, "attached"
            account.since, account.reports, account.reported = self.current.published, reports, False

    def detach(self, name: str, state: Literal["gone", "evicted"]) -> None:
        """Note that a consumer has left; a ledger that waits for its report waits no longer."""
        self._guests.pop(name, None)
        for acquisition in self._open.values():
            account = acquisition.accounts.get(name)
            if account is not None:
                _leave(account, acquisition.published)
                if not account.reported:
                    account.part.state = state

    def credit(self, acquisition: Acquisition | None, name: str, outcome: Outcome, frames: int = 1) -> None:
        """Count frames of an acquisition for a consumer; nothing once its ledger is closed."""
        account = acquisition.accounts.get(name) if acquisition is not None else None
        if account is not None:
            setattr(account.part, outcome, getattr(account.part, outcome) + frames)

    def report(self, name: str, report: Report) -> bool:
        """Take a consumer's report; False when no ledger is open for it."""
        acquisition = self._open.get(report.acquisition)
        account = acquisition.accounts.get(name) if acquisition is not None else None
        if account is None:
            return False
        account.part.counts.update(report.counts)
        account.reported = acquisition is not None and acquisition.end is not None
        return True

    @property
    def waiting(self) -> bool:
        """Whether a ledger waits to be closed."""
        return any(acquisition.end is not None for acquisition in self._open.values())

    def due(self, now: float) -> Iterator[Acquisition]:
        """Go through the acquisitions whose ledger is to be closed now."""
        for acquisition in list(self._open.values()):
            if acquisition.end is not None and (now >= acquisition.deadline or not self._missing(acquisition)):
                yield acquisition

    def next_deadline(self) -> float | None:
        """Return the earliest time at which a ledger is closed whoever is missing."""
        return min((item.deadline for item in self._open.values() if item.end is not None), default=None)

    def close(self, acquisition: Acquisition, held: Callable[[str], int]) -> Settled:
        """Close a ledger; ``held(name)`` tells how many of its frames a consumer has not let go."""
        end = acquisition.end
        if end is None:
            raise ValueError(f'acquisition "{acquisition.start.acquisition}" has not ended')
        del self._open[acquisition.start.acquisition]
        ledger = Ledger.from_dict(end.counts)
        ledger.acquisition, ledger.reason = end.acquisition, end.reason
        ledger.frames_published = acquisition.published
        for name in acquisition.start.meta.get(EXPECTED_CONSUMERS) or ():
            acquisition.accounts.setdefault(str(name), _Account(ConsumerPart("lossless", "absent")))
        for name, account in acquisition.accounts.items():
            account.part.held = held(name)
            account.part.missed = acquisition.published - account.offered
            ledger.consumers[name] = account.part
        acquisition.accounts = {}
        return Settled(end.acquisition, ledger.to_dict())

    def _missing(self, acquisition: Acquisition) -> bool:
        return any(
            account.reports and not account.reported and account.part.state == "attached"
            for account in acquisition.accounts.values()
        )


def _leave(account: _Account, published: int) -> None:
    if account.since is not None:
        account.offered += published - account.since
        account.since = None
