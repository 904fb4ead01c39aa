"""Looking for ``.g3`` files and keeping the index up with them.

`Scanner.look` makes one pass: files as they were are not opened; one that grew is continued where the last pass ended;
new ones come first, the newest before the others, and those that another program has indexed come last. A file that
cannot be read to its end is indexed as far as it can be; while it is young it counts as being written, later as broken,
and is tried again when it changes and, ever more rarely, when it does not.
"""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from sisockdaq.nodes.g3_archive._frames import Found
from sisockdaq.nodes.g3_archive._index import Index
from sisockdaq.nodes.g3_archive._records import KnownFile, Stamp
from sisockdaq.nodes.g3_archive._worker import Worker

from sisockdaq.errors import DeadlineExceeded, FileUnreadable, SisockdaqError, StorageError

__all__ = ["Scanner", "Status"]

_SUFFIX = ".g3"

_STRETCH = 10.0
"""Time after which what was found is put into the index, before a long file is continued [s]."""

_DEADLINE = 120.0
"""Longest time for such a stretch; beyond it the process that reads is killed [s]."""

_FINGERPRINT = 4096
"""Bytes before the place where a file is continued that must still be the same."""

_FIRST_RETRY, _LAST_RETRY = 60.0, 3600.0
"""Time until a broken file that did not change is tried again; doubled each time [s]."""


@dataclass(slots=True)
class Status:
    """How far the scan is. ``problems``: reasons by path; ``seconds_left``: of the present pass."""

    files_scanned: int = 0
    files_waiting: int = 0
    files_growing: int = 0
    files_broken: int = 0
    files_unknown: int = 0
    seconds_left: float = 0.0
    problems: dict[str, str] = field(default_factory=dict)


class Scanner:
    """The scanner of one folder and all below it.

    Parameters
    ----------
    index : Index
    worker : Worker
        The process that opens files.
    directory : Path
        Where the files are.
    settle_time : float
        A file that did not change for so long is no longer being written [s].
    progress : callable
        Called with the status after each file.

    Attributes
    ----------
    status : Status
    opened : int
        How often a file was opened.
    listed : bool
        Whether the folder was ever listed, so that `status` knows of every file.
    """

    def __init__(
        self, index: Index, worker: Worker, directory: Path, settle_time: float, progress: Callable[[Status], None]
    ) -> None:
        self.index = index
        self.worker = worker
        self.directory = directory
        self.settle_time = settle_time
        self.status = Status()
        self.opened = 0
        self.listed = False
        self._progress = progress
        self._known: dict[str, KnownFile] = {}
        self._retries: dict[str, tuple[float, float]] = {}
        self._stopping = False

    def stop(self) -> None:
        """End a pass after the file at hand."""
        self._stopping = True

    def look(self) -> None:
        """Make one pass.

        Raises
        ------
        StorageError
            The folder is not there.
        ConnectionFailed
            The database failed.
        """
        self._known = self.index.known()
        there = dict(_walk(self.directory))
        self._note_missing(there)
        now = time.time()
        waiting = [path for path, stamp in there.items() if self._is_due(path, stamp, now)]
        waiting.sort(key=lambda path: (self._is_adopted(path), -there[path].changed_ns))
        unknown = {path for path in waiting if path not in self._known}
        began = time.monotonic()
        self._tell(len(waiting), len(unknown), 0, 0.0)
        self.listed = True
        for done, path in enumerate(waiting, 1):
            if self._stopping:
                return
            self._take(path, now)
            unknown.discard(path)
            self._tell(len(waiting) - done, len(unknown), done, time.monotonic() - began)

    def _tell(self, waiting: int, unknown: int, done: int, seconds: float) -> None:
        states = [each.state for each in self._known.values()]
        problems = {path: each.reason for path, each in self._known.items() if each.reason and each.state != "missing"}
        self.status = Status(
            files_scanned=sum(each in ("whole", "growing", "broken", "partial") for each in states),
            files_waiting=waiting,
            files_growing=states.count("growing"),
            files_broken=states.count("broken"),
            files_unknown=unknown,
            seconds_left=waiting * seconds / done if done else 0.0,
            problems=problems,
        )
        self._progress(self.status)

    def _is_adopted(self, path: str) -> bool:
        return path in self._known and self._known[path].state == "adopted"

    def _is_due(self, path: str, stamp: Stamp, now: float) -> bool:
        """Whether a file has to be looked at."""
        known = self._known.get(path)
        if known is None or known.stamp != stamp or known.state in ("adopted", "partial", "missing"):
            return True
        if known.state == "growing":
            return now - stamp.changed_ns / 1e9 > self.settle_time
        if known.state == "broken":
            due, _ = self._retries.get(path, (0.0, 0.0))
            return known.offset < stamp.size and time.monotonic() >= due
        return False

    def _note_missing(self, there: dict[str, Stamp]) -> None:
        """Serve no more what is gone. A folder that is not mounted looks empty: then nothing is changed."""
        gone = [path for path, state in self._known.items() if path not in there and state.state != "missing"]
        if gone and not there:
            raise StorageError(
                f"{self.directory} has no {_SUFFIX} file, and had {len(gone)}", remedy="check that it is mounted"
            )
        for path in gone:
            self._set(path, self._known[path], "missing", "the file is gone")

    def _take(self, path: str, now: float) -> None:
        """Bring the index up to one file."""
        try:
            stamp = Stamp.of(Path(path).stat())
        except OSError:
            return  # Gone since; the next pass notes it.
        known = self._known.get(path)
        settled = now - stamp.changed_ns / 1e9 > self.settle_time
        if known is not None and known.stamp == stamp and known.offset == stamp.size:
            self._set(path, known, "whole" if settled else "growing", "")
            return
        try:
            self._read(path, stamp, settled, known)
        except (FileUnreadable, DeadlineExceeded, StorageError, OSError) as error:
            if self._stopping:
                return  # The process was ended with the node; that says nothing about the file.
            reason = error.message if isinstance(error, SisockdaqError) else f"{path}: {error}"
            blank = KnownFile(stamp, 0, "", "", {})
            self._set(path, replace(self._known.get(path, blank), stamp=stamp), "broken", reason)
            self._put_off(path)

    def _read(self, path: str, stamp: Stamp, settled: bool, known: KnownFile | None) -> None:
        offset, providers = _continue_at(path, known, stamp)
        while True:
            self.opened += 1
            found: Found = self.worker.call("scan", path, offset, providers, _STRETCH, deadline=_DEADLINE)
            state, reason = _state_of(found, settled, path)
            mark = _fingerprint(path, found.offset)
            if not self.index.store(path, stamp, found, state, reason, mark) and not reason:
                reason = f"{path}: a file of this name is in another folder too; old readers see only that one"
                self.index.mark(path, stamp, state, reason)
            self._known[path] = KnownFile(stamp, found.offset, state, reason, found.providers, mark)
            if state == "broken":
                self._put_off(path)
            if found.done or self._stopping:
                return
            offset, providers = found.offset, found.providers

    def _set(self, path: str, known: KnownFile, state: str, reason: str) -> None:
        if (state, reason) != (known.state, known.reason) or path not in self._known:
            self.index.mark(path, known.stamp, state, reason)
        self._known[path] = replace(known, state=state, reason=reason)

    def _put_off(self, path: str) -> None:
        _, period = self._retries.get(path, (0.0, _FIRST_RETRY / 2))
        period = min(2 * period, _LAST_RETRY)
        self._retries[path] = time.monotonic() + period, period


def _walk(directory: Path) -> Iterator[tuple[str, Stamp]]:
    """Yield every file and its stamp; folders that are links are not entered."""
    if not directory.is_dir():
        raise StorageError(f"the folder {directory} is not there", remedy="mount it, or change the option directory")
    for folder, _, names in os.walk(directory):
        for name in names:
            if name.endswith(_SUFFIX):
                path = Path(folder, name)
                try:
                    str(path).encode()  # Of a name that is no text there is no place in the index.
                    yield str(path), Stamp.of(path.stat())
                except (OSError, UnicodeEncodeError):
                    continue  # Gone since it was listed, or a link to nothing.


def _continue_at(path: str, known: KnownFile | None, stamp: Stamp) -> tuple[int, dict[int, str]]:
    """Return where to go on: at the end of what is known of a file that only grew, else at its begin."""
    if known is None or not known.offset or known.offset > stamp.size:
        return 0, {}
    touched = known.stamp.size == stamp.size and known.stamp != stamp
    if touched or _fingerprint(path, known.offset) != known.fingerprint:
        return 0, {}
    return known.offset, known.providers


def _state_of(found: Found, settled: bool, path: str) -> tuple[str, str]:
    """Return state and reason of a file."""
    if not found.done:
        return "partial", ""
    if found.error:
        return ("broken", f"{path}: {found.error}") if settled else ("growing", "")
    if found.skipped:
        return "broken", f"{path}: {found.skipped} frames are not as so3g writes them, or of a provider without name"
    return ("whole" if settled else "growing"), ""


def _fingerprint(path: str, offset: int) -> str:
    """Return a checksum of the bytes before `offset`: the end of a frame, with the checksum that so3g wrote."""
    with Path(path).open("rb") as file:
        file.seek(max(0, offset - _FINGERPRINT))
        return f"{zlib.crc32(file.read(min(offset, _FINGERPRINT))):08x}"
