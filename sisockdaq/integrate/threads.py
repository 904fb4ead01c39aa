"""Several threads for one frame: whoever is free does the next part, and any number of them gives the same result.

The work is cut into parts before anyone asks how many threads there are; each part has a result of its own, and the
caller puts them together in their order. The caller works too, so nothing waits for a thread that is busy elsewhere:
several callers may share the threads, and a part's work may not use them again.

(Numba's own parallel loops are not used: two threads that start one at the same time are not allowed by all of its
threading layers.)
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Lock
from typing import TypeVar

from sisockdaq.errors import ConfigurationError

__all__ = ["MOST_THREADS", "cores", "cut", "run_parts"]

T = TypeVar("T")

MOST_THREADS = 64
"""More than any frame has parts."""

_making = Lock()


def cores() -> int:
    """How many processors this process may use; for work that is done once and asked for by nobody, as making maps."""
    return min(MOST_THREADS, len(os.sched_getaffinity(0)))


def cut(size: int, parts: int) -> list[tuple[int, int]]:
    """Cut so many items into parts of nearly the same size: where each begins and ends."""
    return [(part * size // parts, (part + 1) * size // parts) for part in range(parts)]


def run_parts(work: Callable[[int], T], parts: int, threads: int = 1) -> list[T]:
    """Return ``[work(0), …, work(parts - 1)]``, done by up to `threads` threads, the caller's among them.

    Raises
    ------
    ConfigurationError
        For less than one thread, or more than `MOST_THREADS`.
    Exception
        The first that `work` raises; parts that have not begun by then are left out.
    """
    if not 1 <= threads <= MOST_THREADS:
        raise ConfigurationError(f"threads is {threads}", remedy=f"from 1 to {MOST_THREADS}")
    helpers = min(threads, parts) - 1
    if helpers < 1:
        return [work(part) for part in range(parts)]
    done: dict[int, T] = {}
    turn = itertools.count()

    def take() -> None:
        try:
            while (part := next(turn)) < parts:
                done[part] = work(part)
        except BaseException:
            for _ in itertools.takewhile(lambda part: part < parts, turn):
                pass
            raise

    futures = [_helpers(threads - 1).submit(take) for _ in range(helpers)]
    try:
        take()
    finally:
        # A helper that never got to its turn has nothing to do any more; the others are in their last part.
        waiting = [future for future in futures if not future.cancel()]
        errors = [error for future in waiting if (error := future.exception()) is not None]
    if errors:
        raise errors[0]
    return [done[part] for part in range(parts)]


def _helpers(number: int) -> ThreadPoolExecutor:
    with _making:
        return _make_helpers(number)


@cache
def _make_helpers(number: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(number, thread_name_prefix="integrate")
