"""Waiting with a deadline, for what has no event of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["wait_until"]

_T = TypeVar("_T")

POLL = 0.02
"""Time between two looks [s]."""


def wait_until(condition: Callable[[], _T], deadline: float = 10.0, what: str = "") -> _T:
    """Return the condition's first true value.

    Raises
    ------
    AssertionError
        After `deadline` seconds, with `what` was waited for and the last value.
    """
    end = time.monotonic() + deadline
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"{what or 'the condition'} did not come true within {deadline:g} s; last: {value!r}")
        time.sleep(POLL)
