"""Decoded columns kept in memory: so many bytes and no more, the longest unused go first.

A cache may be used from any thread.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable

import numpy as np
from sisockdaq.nodes.g3_archive._frames import Column

__all__ = ["Cache"]

_TEXT_BYTES = 64
"""Taken for one string: the object, some letters, and the reference to it."""


class Cache:
    """Columns by key.

    Parameters
    ----------
    limit : int
        Most that is kept [bytes].

    Attributes
    ----------
    size : int
        What is kept [bytes].
    hits, misses : int
        How often `get` had an answer, and had none.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        self.hits = 0
        self.misses = 0
        self._kept: OrderedDict[Hashable, tuple[Column, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Column | None:
        """Return what `put` stored, if it is still here."""
        with self._lock:
            entry = self._kept.get(key)
            if entry is None:
                self.misses += 1
                return None
            self.hits += 1
            self._kept.move_to_end(key)
            return entry[0]

    def put(self, key: Hashable, column: Column) -> None:
        """Keep a column; one that is larger than the whole cache is not kept."""
        size = _size(column)
        with self._lock:
            self._drop(key)
            if size > self.limit:
                return
            self._kept[key] = column, size
            self.size += size
            while self.size > self.limit:
                self._drop(next(iter(self._kept)))

    def _drop(self, key: Hashable) -> None:
        entry = self._kept.pop(key, None)
        if entry is not None:
            self.size -= entry[1]


def _size(column: Column) -> int:
    t, values = column
    return int(np.sum([t.nbytes, values.nbytes, _TEXT_BYTES * len(values) * (values.dtype.kind == "O"), 200]))
