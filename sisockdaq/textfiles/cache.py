"""Decoded blocks of files, the most recently used ones, in a bounded number of bytes. May be used in any thread."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable

from sisockdaq.textfiles.rows import Rows

__all__ = ["BlockCache"]


class BlockCache:
    """Blocks by key; when they are too many bytes, the one not used for longest goes.

    Parameters
    ----------
    most_bytes : int
        Bytes of samples that are kept.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.bytes = 0
        self._blocks: OrderedDict[Hashable, Rows] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Rows | None:
        """Return a block, or None."""
        with self._lock:
            if key in self._blocks:
                self._blocks.move_to_end(key)
            return self._blocks.get(key)

    def put(self, key: Hashable, rows: Rows) -> None:
        """Keep a block."""
        with self._lock:
            old = self._blocks.pop(key, None)
            self.bytes += _size(rows) - (_size(old) if old is not None else 0)
            self._blocks[key] = rows
            while self.bytes > self.most_bytes:
                self.bytes -= _size(self._blocks.popitem(last=False)[1])

    def __len__(self) -> int:
        return len(self._blocks)


def _size(rows: Rows) -> int:
    return rows.t.nbytes + rows.values.nbytes
