"""CPU time of several calls that take turns, so that whatever else the machine does meets all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

__all__ = ["cpu_time", "in_turns"]

_TURN = 0.02
"""Length of one turn [s]: enough calls for the clock, short enough for many turns."""


def in_turns(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Return the median CPU time of each call [s]; they take turns of equal length."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    repeats = {}
    for name, call in calls.items():
        call()
        repeats[name] = max(1, int(_TURN / cpu_time(call)))
    for _ in range(rounds):
        for name, call in calls.items():
            taken[name].append(cpu_time(call, repeats[name]))
    return {name: statistics.median(times) for name, times in taken.items()}


def cpu_time(call: Callable[[], Any], repeats: int = 1) -> float:
    """Return the CPU time of one call, of all the process's threads [s]."""
    begin = time.process_time()
    for _ in range(repeats):
        call()
    return (time.process_time() - begin) / repeats
