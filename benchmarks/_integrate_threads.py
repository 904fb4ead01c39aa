"""Two threads on one frame against one, beside two threads that only read: wall time, the least of many rounds.

CPU time cannot show it, and the median of wall time shows what else the machine does; the least is what two cores can.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from benchmarks._integrate_detector import SPLITS, Split, SquareDetector, map_words, read_all

__all__ = ["least", "thread_rows"]

_TURN = 0.02
"""Length of one turn [s]."""


def thread_rows(detector: SquareDetector, size: str, split: Split, errors: bool, rounds: int) -> list[dict[str, Any]]:
    """Measure one splitting."""
    image = detector.counts.astype(np.uint32)
    one, two = (detector.ours(split, errors, threads=threads) for threads in (1, 2))
    bin_map = one.bin_map
    parts = [np.array_split(array, 2) for array in (image.reshape(-1), map_words(bin_map))]
    shares = np.array_split(bin_map.share.reshape(-1), 2)
    halves = list(zip(*parts, shares, strict=True))
    with ThreadPoolExecutor(1) as pool:

        def read() -> None:
            other = pool.submit(read_all, *halves[1])
            read_all(*halves[0])
            other.result()

        taken = least(
            {"one": partial(one.integrate, image), "two": partial(two.integrate, image), "read": read}, 2 * rounds
        )
    case = f"{size} uint32, {SPLITS[split]}" + (", Poisson errors" if errors else "") + ", two threads"
    return [
        {
            "benchmark": "integrate",
            "case": case,
            "value": 1e3 * taken["two"],
            "unit": "ms",
            "against": f"one thread {1e3 * taken['one']:.2f} ms",
            "ratio": taken["one"] / taken["two"],
            "floor_share": min(1.0, taken["read"] / taken["two"]),
        }
    ]


def least(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Return the least wall time of each call [s]; they take turns."""
    least: dict[str, float] = {}
    for _ in range(rounds):
        for name, call in calls.items():
            call()
            end = time.perf_counter() + _TURN
            while (begin := time.perf_counter()) < end:
                call()
                least[name] = min(least.get(name, np.inf), time.perf_counter() - begin)
    return least
