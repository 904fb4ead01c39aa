"""Which signed requests were seen before: a memory of bounded size that forgets nothing it would let in again.

Pure: the time is given. When the memory is full, the oldest request in it goes, and whatever is not newer than that one
counts as too old from then on: room is made at the cost of slow clocks, never of safety.
"""

from __future__ import annotations

import heapq

__all__ = ["ReplayMemory"]


class ReplayMemory:
    """Signatures that were used, until their time stamps are too old to be used again.

    Parameters
    ----------
    window : float
        How far a request's time may be from ours [s].
    most : int
        Most signatures that are kept.
    since : float
        Requests from before this time are too old: what was used before this memory began is not known [UNIX s].
    """

    def __init__(self, window: float, most: int = 100_000, since: float = float("-inf")) -> None:
        self.window = window
        self.most = most
        self._floor = since
        self._kept: list[tuple[float, str]] = []
        self._used: set[str] = set()

    def __len__(self) -> int:
        """Return how many signatures are kept."""
        return len(self._used)

    def too_old(self, stamp: float) -> bool:
        """Whether a request of that time can no longer be told from a replay."""
        return not stamp > self._floor

    def admit(self, signature: str, stamp: float, now: float) -> bool:
        """Keep a signature; return whether it is new."""
        self._forget(now)
        if signature in self._used:
            return False
        if len(self._used) >= self.most:
            oldest, gone = heapq.heappushpop(self._kept, (stamp, signature))
            self._used.add(signature)
            self._used.discard(gone)
            self._floor = max(self._floor, oldest)
            return True
        heapq.heappush(self._kept, (stamp, signature))
        self._used.add(signature)
        return True

    def _forget(self, now: float) -> None:
        while self._kept and self._kept[0][0] < now - self.window:
            self._used.discard(heapq.heappop(self._kept)[1])
