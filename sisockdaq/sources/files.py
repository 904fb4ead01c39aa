"""A feed of image files as they appear in a folder: TIFF, CBF, EDF and what else fabio reads.

Files are numbered by the last digits of their name; what stands before them names the series. They are handed on in
the order of their numbers:

- The next number is taken as soon as its file is whole; a higher one waits a set time for those before it, and then
  goes first: theirs are lost, and come too late if they come.
- A file is tried once it was closed, or has not changed for a moment, and again until it can be read whole. One that
  has not changed for a set time and still cannot be read is given up.
- A series ends when files of another one come and none of its own is left. Of several that are found together, the
  older goes first.

Passed over and counted by kind: ``unreadable`` and ``late`` files, those with ``no_number`` or that hold
``not_an_image``, ``further_images`` of a file with several.
"""

from __future__ import annotations

import contextlib
import fnmatch
import logging
import os
import queue
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import fabio
import numpy as np
import numpy.typing as npt
from watchdog.events import FileClosedEvent, FileCreatedEvent, FileMovedEvent, FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

from sisockdaq.errors import ConfigurationError
from sisockdaq.sources.events import Event, Image, SeriesEnd, SeriesStart

__all__ = ["Candidate", "FileFeed", "FileRules", "Waiting", "read_image"]

_log = logging.getLogger(__name__)

_NAME = re.compile(r"^(?P<series>.*?)(?P<number>\d{1,18})(?P<suffix>(\.\D[^.]*)+)$")

_SETTLED = 0.2
"""A file that has not changed for so long may be tried without its writer having closed it [s]."""

_RETRY = 0.1
"""Time between two tries of a file [s]."""

_CBF_PIXELS = b"\x0c\x1a\x04\xd5"
"""What stands between the header and the pixels of a CBF."""

_QUEUE = 10_000
"""Names that wait between two looks; when there are more, the folder is listed instead."""


@dataclass(frozen=True)
class FileRules:
    """Which files are taken, and how long is waited.

    Attributes
    ----------
    patterns : sequence of str
        Shell patterns of file names.
    order_wait : float
        How long a file waits for those before it [s].
    patience : float
        How long a file that cannot be read and does not change is tried [s].
    scan_interval : float
        Time between two listings of the folder, for what was not announced [s].
    recursive : bool
        Whether folders within are looked into.
    existing : bool
        Whether files that are there at the start are taken.
    """

    patterns: Sequence[str] = ("*.tif", "*.tiff", "*.cbf", "*.edf")
    order_wait: float = 2.0
    patience: float = 10.0
    scan_interval: float = 1.0
    recursive: bool = False
    existing: bool = False


@dataclass
class Candidate:
    """A file that was seen and not handed on yet; times are of the monotonic clock."""

    path: Path
    series: str
    number: int
    noticed: float
    closed: bool = False
    state: tuple[int, int] | None = None
    """Size and time of the last change, as seen last."""
    changed: float = 0.0
    """When that was seen to change."""
    next_try: float = 0.0


@dataclass
class Waiting:
    """Which file is next. Pure: no files, no clock."""

    order_wait: float
    series: str | None = None
    last: int = -1
    """Number of the file of the series that was handed on, or given up, last."""
    groups: dict[str, dict[int, Candidate]] = field(default_factory=dict)
    """Files that wait, by series (in the order in which they were first seen) and number."""

    def add(self, candidate: Candidate) -> bool:
        """Keep a file; False where its turn is over."""
        if candidate.series == self.series and candidate.number <= self.last:
            return False
        self.groups.setdefault(candidate.series, {}).setdefault(candidate.number, candidate)
        return True

    def find(self, series: str, number: int) -> Candidate | None:
        """Return a file that waits."""
        return self.groups.get(series, {}).get(number)

    def next(self, now: float) -> Candidate | None:
        """Return the file whose turn it is, if any."""
        series = self.series if self.groups.get(self.series or "") else next(iter(self.groups), None)
        if series is None:
            return None
        group = self.groups[series]
        lowest = group[min(group)]
        is_next = series == self.series and lowest.number == self.last + 1
        return lowest if is_next or now - lowest.noticed >= self.order_wait else None

    def done(self, candidate: Candidate) -> None:
        """Note that a file was handed on, or given up."""
        group = self.groups[candidate.series]
        del group[candidate.number]
        if not group:
            del self.groups[candidate.series]
        self.series, self.last = candidate.series, candidate.number


class _Complaints(logging.Handler):
    """What fabio only says in its log: that a file is shorter than it should be, or its sum is wrong."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.heard: list[str] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        """Note what this thread's reading caused."""
        if record.thread == self._thread:
            self.heard.append(record.getMessage())

    @property
    def serious(self) -> str | None:
        """The complaint that means that pixels are wrong."""
        return next((text for text in self.heard if "incomplete" in text or "mismatch" in text), None)


@contextlib.contextmanager
def _complaints() -> Iterator[_Complaints]:
    """Hear what fabio says of the files read here; it says it to nobody else."""
    logger, handler = logging.getLogger("fabio"), _Complaints()
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


def read_image(path: Path) -> tuple[npt.NDArray[Any], int]:
    """Return a file's image and how many images it has.

    Raises
    ------
    OSError
        When it cannot be read, or not whole.
    """
    with _complaints() as complaints:
        try:
            _refuse_cbf_without_pixels(path)
            with fabio.open(os.fspath(path)) as image:
                if image.data is None:
                    raise OSError("no image in it, or not the whole of one")
                data, count = np.array(image.data), int(image.nframes)
        except OSError:
            raise
        except Exception as error:  # fabio's readers raise whatever a broken file provokes
            if not str(error):  # an assertion of fabio's: what was unpacked is not what the header says
                raise OSError("its pixels are not those that its header tells of: is it whole?") from error
            raise OSError(f"{type(error).__name__}: {error}") from error
        if complaints.serious:
            raise OSError(complaints.serious)
    return data, count


def _refuse_cbf_without_pixels(path: Path) -> None:
    # Fabio looks for the mark that begins the pixels, without end where a half-written file does not have it yet.
    with path.open("rb") as file:
        if (file.read(3) == b"###" or path.suffix.lower() == ".cbf") and _CBF_PIXELS not in path.read_bytes():
            raise OSError("its header is not whole")


class _Watch(FileSystemEventHandler):
    """Passes on what the kernel says of new files, from a thread of its own."""

    _EVENTS: tuple[type[FileSystemEvent], ...] = (FileCreatedEvent, FileMovedEvent, FileClosedEvent)

    def __init__(self, root: Path, recursive: bool, told: Callable[[Path, bool], None]) -> None:
        super().__init__()
        self._told = told
        self._observer = Observer()
        self._observer.schedule(self, os.fspath(root), recursive=recursive, event_filter=list(self._EVENTS))
        self._observer.start()

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Pass the path on, and whether the file is said to be whole."""
        if event.is_directory:
            return
        moved = isinstance(event, FileMovedEvent)
        path = event.dest_path if moved else event.src_path
        self._told(Path(os.fsdecode(path)), moved or isinstance(event, FileClosedEvent))

    def close(self) -> None:
        """Stop watching."""
        self._observer.stop()
        self._observer.join(5.0)


class FileFeed:
    """Images from the files that appear in a folder.

    Parameters
    ----------
    folder : Path
    rules : FileRules
    """

    def __init__(self, folder: Path, rules: FileRules | None = None) -> None:
        self.folder, self.rules = folder, rules or FileRules()
        self._counts: Counter[str] = Counter()
        self._waiting = Waiting(self.rules.order_wait)
        self._told: queue.Queue[tuple[Path, bool]] = queue.Queue(_QUEUE)
        self._known: set[Path] = set()
        """Files that were handed on, given up, or are of no interest."""
        self._next_scan = 0.0
        self._began: str | None = None

    def open(self) -> None:
        """Begin to watch.

        Raises
        ------
        ConfigurationError
            When there is no such folder.
        """
        if not self.folder.is_dir():
            raise ConfigurationError(f"{self.folder} is no folder to watch", remedy="make it, or set directory")
        self._watch = _Watch(self.folder, self.rules.recursive, self._tell)
        if not self.rules.existing:
            self._known.update(self._listing())

    def next(self, timeout: float) -> list[Event]:
        """Return the next image, with the marks before it; wait for news otherwise."""
        now = time.monotonic()
        if now >= self._next_scan:
            self._scan(now)
        with contextlib.suppress(queue.Empty):
            while True:
                self._notice(*self._told.get_nowait(), now)
        events = self._take(now)
        if not events:
            with contextlib.suppress(queue.Empty):
                self._notice(*self._told.get(timeout=min(timeout, _RETRY / 2)), time.monotonic())
        return events

    def counters(self) -> dict[str, int]:
        """Return what was passed over, by kind."""
        return dict(self._counts)

    def close(self) -> None:
        """Stop watching."""
        self._watch.close()

    def _tell(self, path: Path, whole: bool) -> None:
        try:
            self._told.put_nowait((path, whole))
        except queue.Full:
            self._next_scan = 0.0

    def _listing(self) -> list[Path]:
        found = self.folder.rglob("*") if self.rules.recursive else self.folder.iterdir()
        return [path for path in found if self._is_wanted(path.name)]

    def _is_wanted(self, name: str) -> bool:
        return not name.startswith(".") and any(fnmatch.fnmatch(name, pattern) for pattern in self.rules.patterns)

    def _scan(self, now: float) -> None:
        """List the folder: not every file system announces files."""
        self._next_scan = now + self.rules.scan_interval
        try:
            listing = self._listing()
        except OSError as error:
            _log.warning("cannot list %s: %s", self.folder, error)
            return
        self._known.intersection_update(listing)  # names that are gone may come again
        for path in sorted((path for path in listing if path not in self._known), key=_age):
            self._notice(path, False, now)

    def _notice(self, path: Path, whole: bool, now: float) -> None:
        if path in self._known or not self._is_wanted(path.name):
            return
        parts = _NAME.match(path.name)
        if parts is None:
            self._pass_over(path, "no_number")
            return
        series, number = os.fspath(path.parent / parts["series"]), int(parts["number"])
        candidate = self._waiting.find(series, number)
        if candidate is None:
            candidate = Candidate(path, series, number, now, changed=now)
            if not self._waiting.add(candidate):
                self._pass_over(path, "late")
                return
        candidate.closed |= whole

    def _pass_over(self, path: Path, kind: str, why: object = "") -> None:
        self._known.add(path)
        self._counts[kind] += 1
        _log.warning("%s is passed over: %s %s", path, kind.replace("_", " "), why)

    def _take(self, now: float) -> list[Event]:
        """Read the file whose turn it is."""
        candidate = self._waiting.next(now)
        if candidate is None or now < candidate.next_try or not self._is_settled(candidate, now):
            return []
        candidate.next_try = now + _RETRY
        try:
            data, count = read_image(candidate.path)
            stamp = candidate.path.stat().st_mtime
        except OSError as error:
            if now - candidate.changed >= self.rules.patience:
                self._give_up(candidate, "unreadable", error)
            return []
        if data.ndim != 2 or data.dtype.kind not in "uif" or not data.size:
            self._give_up(candidate, "not_an_image", f"({data.dtype} {data.shape})")
            return []
        self._counts.update({"further_images": count - 1} if count > 1 else {})
        self._waiting.done(candidate)
        self._known.add(candidate.path)
        kind = data.dtype.newbyteorder("=")
        image = Image(candidate.number, stamp, stamp, data.shape, kind, partial(_copy, data))
        return [*self._marks(candidate), image]

    def _is_settled(self, candidate: Candidate, now: float) -> bool:
        """Whether a file may be tried: it was closed, or has not changed for a moment."""
        try:
            found = candidate.path.stat()
        except OSError:  # it has gone; patience decides
            return now - candidate.changed >= _SETTLED
        state = found.st_size, found.st_mtime_ns
        if state != candidate.state:
            candidate.state, candidate.changed = state, now
        return candidate.closed or now - candidate.changed >= _SETTLED

    def _give_up(self, candidate: Candidate, kind: str, why: object) -> None:
        self._waiting.done(candidate)
        self._pass_over(candidate.path, kind, why)

    def _marks(self, candidate: Candidate) -> list[Event]:
        if candidate.series == self._began:
            return []
        name = os.path.relpath(candidate.series, self.folder).strip("_-. ") or f"files_from_{candidate.number}"
        ended: list[Event] = [SeriesEnd()] if self._began is not None else []
        self._began = candidate.series
        return [*ended, SeriesStart(name.replace(os.sep, "_"), first=candidate.number)]


def _age(path: Path) -> tuple[float, str]:
    """Order of files that are found together: older ones first."""
    try:
        return path.stat().st_mtime, path.name
    except OSError:
        return float("inf"), path.name


def _copy(data: npt.NDArray[Any], out: npt.NDArray[Any]) -> None:
    out[...] = data
