"""Reduced files of a running integrator: written in a thread of their own, so that no frame ever waits for a disk.

Policy: results wait in a queue of `MOST_WAITING`, cakes in no more than `MOST_CAKE_BYTES` of memory. What comes while
either is full is not saved: it is counted, and the log names the frames. When a file cannot be written, the rest of its
acquisition is not saved either; the next acquisition begins anew. The live series and the writer's ring are not touched
by any of that.
"""

from __future__ import annotations

import logging
import re
import threading
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sisockdaq.errors import SisockdaqError

if TYPE_CHECKING:
    from sisockdaq.frames import FrameHeader
    from sisockdaq.integrate.reduction import Reduced, Reducer
    from sisockdaq.integrate.saving import ReducedFiles

__all__ = ["MOST_WAITING", "Keeper"]

_log = logging.getLogger(__name__)

MOST_WAITING = 500
"""Results that wait for the disk at most: some seconds of them, and 50 MB of curves with 1000 points."""

MOST_CAKE_BYTES = 512 << 20
"""Memory of cakes that wait at most, or a single one: 155 of 360 × 200 bins, with their errors and sums."""

_NO_NAME = re.compile(r"[^\w.+-]+")


@dataclass(frozen=True, slots=True)
class _Item:
    """A result to be saved."""

    acquisition: str
    reducer: Reducer
    header: FrameHeader
    reduced: Reduced


class _End:
    """The end of an acquisition."""


class Keeper:
    """Write the results of each acquisition to files.

    Parameters
    ----------
    folder : Path
        Made where it is missing.
    formats : collection of str
        Some of `sisockdaq.integrate.saving.FORMATS`.
    overwrite : bool
        Whether files of the same names give way.

    Attributes
    ----------
    saved, not_saved : int
        Frames since the start whose results are in files, or should be and are not.
    problem : str
        Why the latest are not; "" while all is well.
    """

    def __init__(self, folder: Path, formats: Collection[str], *, overwrite: bool = False) -> None:
        self.saved = self.not_saved = 0
        self.problem = ""
        self._folder, self._formats, self._overwrite = folder, formats, overwrite
        self._items: deque[_Item | _End] = deque()
        self._cake_bytes = 0
        self._changed = threading.Condition()
        self._closing = False
        self._files: ReducedFiles | None = None
        self._acquisition: str | None = None
        self._epoch: int | None = None
        self._failed = False
        self._missed: list[int] = []
        self._thread = threading.Thread(target=self._run, name="reduced-files", daemon=True)
        self._thread.start()

    # In the thread of the frames; never waits for a disk.

    def add(self, acquisition: str, reducer: Reducer, header: FrameHeader, reduced: Reduced) -> None:
        """Save a result soon, or count it as not saved."""
        with self._changed:
            if self._has_room(reduced):
                self._items.append(_Item(acquisition, reducer, header, reduced))
                self._cake_bytes += _cake_bytes(reduced)
                self._changed.notify()
            else:
                self._miss(header.index, "the disk is too slow")

    def _has_room(self, reduced: Reduced) -> bool:
        size = _cake_bytes(reduced)
        roomy = not size or not self._cake_bytes or self._cake_bytes + size <= MOST_CAKE_BYTES
        return roomy and len(self._items) < MOST_WAITING

    def end(self) -> None:
        """Close the files of the acquisition when all that waits is in them."""
        with self._changed:
            self._items.append(_End())
            self._changed.notify()

    def close(self, deadline: float) -> None:
        """Write what waits, close the files whole, and end; give up after `deadline` seconds."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(deadline)

    # In the thread of the files.

    def _run(self) -> None:
        import sisockdaq.integrate.saving  # noqa: F401 - now: it takes long, and the first frames are not to wait for it

        while (item := self._next()) is not None:
            if isinstance(item, _End):
                self._end()
                continue
            try:
                self._save(item)
            except Exception as error:  # the edge of the thread: the next acquisition must not suffer from this one
                if not isinstance(error, SisockdaqError):
                    _log.exception("reduced files of %s", item.acquisition)
                self._fail(item, str(error) or type(error).__name__)
        self._end()

    def _next(self) -> _Item | _End | None:
        with self._changed:
            self._changed.wait_for(lambda: bool(self._items) or self._closing)
            item = self._items.popleft() if self._items else None
            if isinstance(item, _Item):
                self._cake_bytes -= _cake_bytes(item.reduced)
            return item

    def _save(self, item: _Item) -> None:
        from sisockdaq.integrate.saving import ReducedFiles, describe_reduction

        if item.acquisition != self._acquisition:
            self._end()
            self._acquisition = item.acquisition
        if self._failed:
            with self._changed:
                self._miss(item.header.index, self.problem)
            return
        if self._files is None:
            stem = _NO_NAME.sub("_", item.acquisition)
            self._files = ReducedFiles(self._folder, stem, self._formats, overwrite=self._overwrite)
        if item.reduced.epoch != self._epoch:
            if self._epoch is None:
                self._files.check(item.reduced.epoch)
            self._files.begin(item.reducer, describe_reduction(item.reducer, acquisition=item.acquisition))
            self._epoch = item.reduced.epoch
            self.problem = ""
        self._files.add(item.header.index, item.header.time, item.reduced, number=item.header.number)
        self.saved += 1

    def _fail(self, item: _Item, reason: str) -> None:
        """Give the rest of this acquisition up."""
        self._failed = True
        if self._files is not None:
            self._files.abandon()
        with self._changed:
            self._miss(item.header.index, reason)

    def _miss(self, index: int, reason: str) -> None:
        self.not_saved += 1
        self._missed.append(index)
        self.problem = reason

    def _end(self) -> None:
        """Close the files, and begin anew."""
        if self._files is not None and not self._failed:
            try:
                self._files.close()
            except SisockdaqError as error:
                self.problem = str(error)
                _log.error("reduced files of %s: %s", self._acquisition, error)
        with self._changed:
            missed, self._missed = self._missed, []
        if missed:
            _log.error("%s: %s: not in the files: frames %s", self._acquisition, self.problem, _spans(missed))
        self._files = self._acquisition = self._epoch = None
        self._failed = False


def _cake_bytes(reduced: Reduced) -> int:
    return 0 if reduced.cake is None else reduced.cake.nbytes


def _spans(numbers: list[int]) -> str:
    """Write numbers as spans: ``3-7, 9``."""
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and number <= spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in spans)
