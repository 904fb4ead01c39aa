"""Waiting for what has no event: looks that are near at first and further apart later, until a deadline."""

from __future__ import annotations

import time
from collections.abc import Iterator

__all__ = ["patience"]

_FIRST, _LONGEST, _GROWTH = 0.02, 0.5, 1.3


def patience(deadline: float) -> Iterator[float]:
    """Yield the time that has passed [s], pausing in between; ends after ``deadline`` seconds, with one look at least.

    The pauses grow from 0.02 to 0.5 s.
    """
    begun = time.monotonic()
    pause = _FIRST
    while True:
        passed = time.monotonic() - begun
        yield passed
        if passed >= deadline:
            return
        time.sleep(min(pause, max(deadline - passed, 0.0)))
        pause = min(pause * _GROWTH, _LONGEST)
