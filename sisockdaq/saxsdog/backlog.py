"""Which pictures wait, and in what order they are tried: the queue's rules, without processes, threads or a clock.

A picture is once in here, wherever it waits: for its turn, for a later try, or for a worker of its own because another
one died with it in hand.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable

__all__ = ["Backlog"]

_FIRST_RETRY, _LAST_RETRY = 0.05, 1.0
"""The first time between two tries of a picture, and the longest; it doubles [s]."""


class Backlog:
    """Pictures that wait.

    Parameters
    ----------
    limit : int
        Most pictures that wait; those to be tried again are let in beyond it.
    patience : float
        How long a picture may be unreadable, from the first try or from its last change, whichever is later [s].

    Attributes
    ----------
    patience : float
        As given.
    retries : int
        Tries of pictures that could not be read.
    """

    def __init__(self, limit: int, patience: float) -> None:
        self._limit, self.patience = limit, patience
        self._known: set[str] = set()
        self._waiting: deque[str] = deque()
        self._alone: deque[str] = deque()
        self._later: list[tuple[float, str]] = []
        self._tries: dict[str, tuple[int, float]] = {}
        self._suspects: set[str] = set()
        self.retries = 0

    def __len__(self) -> int:
        return len(self._known)

    @property
    def full(self) -> bool:
        """Whether no new picture is let in."""
        return len(self._known) >= self._limit

    @property
    def waiting(self) -> int:
        """Pictures whose turn it is."""
        return len(self._waiting)

    @property
    def due(self) -> float | None:
        """When the next one is to be tried again."""
        return self._later[0][0] if self._later else None

    def admit(self, path: str) -> bool:
        """Let a picture in; return whether it waits now."""
        if path in self._known:
            return True
        if self.full:
            return False
        self._known.add(path)
        self._waiting.append(path)
        return True

    def take(self, count: int, now: float) -> list[str]:
        """Return the next pictures, at most so many."""
        self.ripen(now)
        taken = [self._waiting.popleft() for _ in range(min(count, len(self._waiting)))]
        self._known.difference_update(taken)
        return taken

    def take_alone(self) -> str | None:
        """Return a picture for a worker that has nothing else in hand."""
        if not self._alone:
            return None
        path = self._alone.popleft()
        self._known.discard(path)
        return path

    def ripen(self, now: float) -> None:
        """Let those wait for their turn whose time for another try has come."""
        while self._later and self._later[0][0] <= now:
            self._waiting.append(heapq.heappop(self._later)[1])

    def postpone(self, path: str, until: float) -> None:
        """Let a picture in that is tried at a later time."""
        if path not in self._known:
            self._known.add(path)
            heapq.heappush(self._later, (until, path))

    def try_again(self, path: str, now: float, tried: float, changed: float) -> bool:
        """Let a picture in again that could not be read; return False when its time is over.

        Parameters
        ----------
        now : float
            By the clock of `take`.
        tried, changed : float
            When it was tried and when its file changed (UNIX times). The latter may be another machine's clock, so it
            lengthens the time, and does not end it.
        """
        tries, first = self._tries.get(path, (0, tried))
        pause = min(_FIRST_RETRY * 2**tries, _LAST_RETRY)
        if tried + pause > max(first, min(changed, tried)) + self.patience:
            self.settled(path)
            return False
        self._tries[path] = tries + 1, first
        self._suspects.discard(path)
        self.retries += 1
        self.postpone(path, now + pause)
        return True

    def settled(self, path: str) -> None:
        """Forget the tries of a picture: it is done, or given up."""
        self._tries.pop(path, None)
        self._suspects.discard(path)

    def is_suspect(self, path: str) -> bool:
        """Whether a worker died with it in hand, so that no other picture is to share its worker."""
        return path in self._suspects

    def lost(self, paths: Iterable[str]) -> str | None:
        """Let in again what a worker had in hand that died; return the one that is at fault, if that is certain."""
        hand = list(paths)
        if len(hand) == 1 and hand[0] in self._suspects:
            self.settled(hand[0])
            return hand[0]
        for path in hand:
            self._suspects.add(path)
            if path not in self._known:
                self._known.add(path)
                self._alone.append(path)
        return None

    def drop(self) -> int:
        """Forget all that wait; return how many."""
        count = len(self._known)
        for waiting in (self._known, self._waiting, self._alone, self._later):
            waiting.clear()
        return count
