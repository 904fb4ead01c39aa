"""One text file of rows: where in it which times are, and the samples of an interval.

A `TextFile` promises

- its text is read once to make the index (a block of about `BLOCK_BYTES`: byte range, span, rows), then only the
  blocks that an interval meets, through the cache;
- what is appended is read from where the last full block ended. A file that was truncated, replaced or written anew is
  noticed (inode, size, time of change, and the bytes at both ends of what was read) and indexed anew;
- a last line without its line end may still be in the making. It counts when the file is seen for the first time, or
  has been at rest for `REST` seconds, and only if its time is not before those above it; it is looked at again when
  the file grows, and is never called final;
- all methods may be called from any thread.
"""

from __future__ import annotations

import itertools
import math
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sisockdaq.errors import FileUnreadable
from sisockdaq.textfiles.cache import BlockCache
from sisockdaq.textfiles.rows import Floats, Rows, parse

__all__ = ["BLOCK_BYTES", "REST", "Form", "TextFile"]

BLOCK_BYTES = 128 << 10
"""Text of one block: a few milliseconds to decode, and the index stays a thousandth of the text."""

REST = 60.0
"""A file that did not change for this long is not in the middle of a line [s]."""

_SEAL = 64
"""Bytes at each end of what was read that must still be the same when a file has grown."""

_HEAD = 1024
"""Bytes that are kept of a file's beginning, for its header."""

_TRIES = 3
"""How often a file that changes while it is read is begun anew."""


@dataclass(frozen=True)
class Form:
    """How the rows of a file are meant.

    Attributes
    ----------
    header_lines : int
        Lines at the beginning that are no rows.
    skip_nan : bool
        Whether rows with the value nan are left out; else they are samples without a value.
    to_unix : callable, optional
        ``to_unix(t)`` turns the first column (n,) into UNIX times [s].
    """

    header_lines: int = 0
    skip_nan: bool = False
    to_unix: Callable[[Floats], Floats] | None = None

    def decode(self, data: bytes, *, at_start: bool) -> Rows:
        """Decode a stretch of whole lines, the first of the file or a later one."""
        if at_start and self.header_lines:
            data = data.split(b"\n", self.header_lines)[-1] if data.count(b"\n") >= self.header_lines else b""
        rows = parse(data)
        if self.skip_nan and np.isnan(rows.values).any():
            given = ~np.isnan(rows.values)
            rows = rows._replace(t=rows.t[given], values=rows.values[given])
        return rows._replace(t=self.to_unix(rows.t)) if self.to_unix is not None else rows


class Block(NamedTuple):
    """A stretch of whole lines, and what is in it. Times are UNIX times [s]."""

    offset: int
    end: int
    rows: int
    first: float
    last: float
    step: float
    """Middle distance of its times; nan where it has none."""
    late: float
    """How far its rows went back behind one that stood before them."""
    broken: int
    repeated: int
    provisional: bool


class _Stamp(NamedTuple):
    device: int
    inode: int
    size: int
    changed_ns: int


@dataclass
class _Content:
    """What is known of one state of the file; replaced as a whole when it is indexed anew."""

    serial: int = field(default_factory=itertools.count().__next__)
    blocks: list[Block] = field(default_factory=list)
    newest: float = -math.inf
    first_broken: str = ""
    head: bytes = b""
    tail: bytes = b""
    span: tuple[float, float] | None = None
    final_until: float | None = None
    interval: float | None = None
    counts: tuple[int, int] = (0, 0)

    @property
    def end(self) -> int:
        return self.blocks[-1].end if self.blocks else 0

    def sum_up(self) -> None:
        """Say of all blocks together what is asked often."""
        filled = [block for block in self.blocks if block.rows]
        sure = [block for block in filled if not block.provisional]
        steps = [block.step for block in filled if not math.isnan(block.step)]
        self.span = (min(b.first for b in filled), max(b.last for b in filled)) if filled else None
        self.final_until = max(b.last for b in sure) - max(b.late for b in sure) if sure else None
        self.interval = statistics.median(steps) if steps else None
        self.counts = sum(block.broken for block in self.blocks), sum(block.repeated for block in self.blocks)


class TextFile:
    """The index of a file.

    Parameters
    ----------
    path : Path
    form : Form
    cache : BlockCache
        Shared with other files.
    """

    def __init__(self, path: Path, form: Form, cache: BlockCache) -> None:
        self.path, self.form = path, form
        self.changed_at: float | None = None
        """When a change was last noticed (monotonic clock) after the first look."""
        self._cache = cache
        self._content = _Content()
        self._stamp: _Stamp | None = None
        self._unfinished = False
        self._lock = threading.RLock()

    # What is known.

    @property
    def known(self) -> bool:
        """Whether the file was read."""
        return self._stamp is not None

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Its blocks in the order of the file."""
        with self._lock:
            return tuple(self._content.blocks)

    @property
    def span(self) -> tuple[float, float] | None:
        """Times of the earliest and the latest row, or None."""
        return self._content.span

    @property
    def final_until(self) -> float | None:
        """The time that further rows are not expected to be before: the latest, less how late rows ever were."""
        return self._content.final_until

    @property
    def interval(self) -> float | None:
        """Middle distance of its times [s], or None."""
        return self._content.interval

    @property
    def header(self) -> list[str]:
        """Texts of the comment lines before the first row."""
        lines = []
        for line in self._content.head.decode("utf-8", "replace").splitlines():
            if line.strip() and not line.lstrip().startswith("#"):
                break
            if line.strip():
                lines.append(line.strip().lstrip("#").strip())
        return lines

    @property
    def counts(self) -> tuple[int, int]:
        """Broken lines, and rows whose time the file has more than once."""
        return self._content.counts

    @property
    def first_broken(self) -> str:
        """The first broken line, as far as it can be shown."""
        return self._content.first_broken

    # Looking and reading.

    def update(self) -> bool:
        """Read what is new; return whether anything was.

        Raises
        ------
        FileUnreadable
            With the reason; what was known of the file is forgotten.
        """
        with self._lock:
            try:
                seen = _stamp(self.path.stat())
                settled = self._unfinished and time.time() - seen.changed_ns / 1e9 >= REST
                if seen == self._stamp and not settled:
                    return False
                with self.path.open("rb", buffering=0) as file:
                    self._read_on(file.fileno(), settled)
            except OSError as error:
                self._content, self._stamp = _Content(), None
                raise FileUnreadable(f"{self.path} cannot be read: {error.strerror or error}") from None
            return True

    def read(self, start: float, end: float, *, provisional: bool = True) -> Iterator[tuple[Floats, Floats]]:
        """Yield times and values of ``[start, end)``, block by block in the order of the file (not of time).

        Raises
        ------
        FileUnreadable
            Also when the file changes faster than it can be read.
        """
        with self._lock:
            content = self._content
            blocks = [
                block
                for block in content.blocks
                if block.rows and block.last >= start and block.first < end and (provisional or not block.provisional)
            ]
        for block in blocks:
            rows = self._decoded(content, block)
            inside = (rows.t >= start) & (rows.t < end)
            yield (rows.t, rows.values) if inside.all() else (rows.t[inside], rows.values[inside])

    def _decoded(self, content: _Content, block: Block) -> Rows:
        key = (content.serial, self.path, block.offset, block.end)
        rows = self._cache.get(key)
        if rows is None:
            try:
                with self.path.open("rb", buffering=0) as file:
                    data = os.pread(file.fileno(), block.end - block.offset, block.offset)
            except OSError as error:
                raise FileUnreadable(f"{self.path} cannot be read: {error.strerror or error}") from None
            rows = self.form.decode(data, at_start=block.offset == 0)
            if len(rows.t) != block.rows:
                raise FileUnreadable(f"{self.path} was changed while it was read", remedy="ask again")
            self._cache.put(key, rows)
        return rows

    def _read_on(self, file: int, settled: bool) -> None:
        """Index what was appended, or everything where the file is another than before."""
        for _ in range(_TRIES):
            before = _stamp(os.fstat(file))
            if not self._continues(file, before):
                self._content = _Content()
            first_sight = self._stamp is None or before.inode != self._stamp.inode
            if self._stamp is not None and before != self._stamp:
                self.changed_at = time.monotonic()
            self._index(file, before.size, first_sight=first_sight, settled=settled)
            self._stamp = before
            if os.fstat(file).st_size >= before.size:
                return
        raise FileUnreadable(f"{self.path} is truncated again and again", remedy="let its writer end, then ask again")

    def _continues(self, file: int, seen: _Stamp) -> bool:
        """Whether the file is the one that was read, with something appended at most."""
        old, content = self._stamp, self._content
        if old is None or (seen.device, seen.inode) != (old.device, old.inode) or seen.size < old.size:
            return False
        if seen.size == old.size:
            return seen.changed_ns == old.changed_ns
        head = os.pread(file, len(content.head[:_SEAL]), 0)
        tail = os.pread(file, len(content.tail), content.end - len(content.tail))
        return head == content.head[:_SEAL] and tail == content.tail

    def _index(self, file: int, size: int, *, first_sight: bool, settled: bool) -> None:
        content = self._content
        while content.blocks and (content.blocks[-1].provisional or not _full(content.blocks[-1])):
            content.blocks.pop()
        content.newest = max((block.last for block in content.blocks if block.rows), default=-math.inf)
        offset, rest = content.end, b""
        while offset < size:
            data = os.pread(file, min(BLOCK_BYTES, size - offset), offset)
            if not data:
                break
            if offset == 0:
                content.head = data[:_HEAD]
            whole = data.rfind(b"\n") + 1
            if not whole and len(data) == BLOCK_BYTES:
                whole = len(data)  # no lines at all: not a text, or a line beyond reason; it counts as broken
            if not whole:
                rest = data
                break
            self._add(offset, data[:whole])
            offset += whole
        self._unfinished = bool(rest)
        end = content.end
        content.tail = os.pread(file, min(_SEAL, end), end - min(_SEAL, end))
        if rest and (first_sight or settled):
            self._add(offset, rest, provisional=True)
            self._unfinished = not settled
        content.sum_up()

    def _add(self, offset: int, data: bytes, *, provisional: bool = False) -> None:
        """Decode a block, keep it in the cache and in the index."""
        content = self._content
        rows = self.form.decode(data, at_start=offset == 0)
        if provisional and (rows.broken or not len(rows.t) or rows.t[0] < content.newest):
            return
        if rows.broken and not content.first_broken:
            content.first_broken = rows.first_broken
        block = _summary(rows, offset, offset + len(data), content.newest, provisional)
        content.newest = max(content.newest, block.last) if block.rows else content.newest
        content.blocks.append(block)
        self._cache.put((content.serial, self.path, block.offset, block.end), rows)


def _full(block: Block) -> bool:
    return block.end - block.offset >= BLOCK_BYTES // 2


def _stamp(found: os.stat_result) -> _Stamp:
    return _Stamp(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def _summary(rows: Rows, offset: int, end: int, newest: float, provisional: bool) -> Block:
    """Say what a block holds; `newest` is the latest time before it."""
    t = rows.t
    if not len(t):
        return Block(offset, end, 0, math.nan, math.nan, math.nan, 0.0, rows.broken, 0, provisional)
    rising = bool(np.all(t[1:] > t[:-1])) and t[0] > newest
    distinct = t if rising else np.unique(t)
    late = 0.0 if rising else float((np.maximum(np.maximum.accumulate(t), newest) - t).max())
    steps = np.diff(distinct)
    return Block(
        offset,
        end,
        len(t),
        first=float(distinct[0]),
        last=float(distinct[-1]),
        step=float(np.median(steps)) if len(steps) else math.nan,
        late=late,
        broken=rows.broken,
        repeated=len(t) - len(distinct) + int(distinct[0] == newest),
        provisional=provisional,
    )
