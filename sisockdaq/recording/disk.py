"""Blocks of samples to files: opening, rolling over, and a thread that flushes.

Policy of the queue (`Intake`): it holds at most so many bytes, counted until their samples are on disk. What does not
fit is refused; the caller leaves it to the node's cache and asks for it later. When the disk refuses (it is full, say),
nothing in the queue is lost: the file stays as its last commit left it, and the same samples are tried again in a new
file, until the disk takes them.

A block that does not fit the open file's tables waits, together with all later ones of its timeline, until that file is
old enough: a moment at first, `SETTLE` after some such changes, so that a node that shows its fields one after the
other does not make a file for each.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from sisockdaq.errors import FileUnreadable, SisockdaqError
from sisockdaq.nexus._opening import ReaderPool
from sisockdaq.nexus._ordered_file import storage_error
from sisockdaq.nexus.series_file import SeriesFile, is_series_file, series_name
from sisockdaq.nexus.series_reader import SeriesFileReader
from sisockdaq.recording.structure import Block, Structure

__all__ = ["FOLDER", "DiskWriter", "Intake", "Recording", "last_recorded"]

FOLDER = "series"
"""Below the writer's directory: ``series/<date in UTC>/<file>``."""

SETTLE, FIRST_SETTLE = 10.0, 0.25
"""Time for which a file is written before new fields make a new one [s]: doubled from the first to the last."""

_LOOK_BACK = 200
"""Files, newest first, that are looked into for the time up to which a field was recorded."""


class Intake:
    """The bounded queue between the reactor and the disk's thread."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.bytes = 0
        self._blocks: list[Block] = []
        self._lock = threading.Lock()

    @property
    def has_room(self) -> bool:
        """Whether it is at most half full."""
        return self.bytes <= self.most_bytes // 2

    def put(self, block: Block, *, always: bool = False) -> bool:
        """Take a block; False when there is no room, unless it is to be taken `always` or nothing else waits."""
        size = block.nbytes
        with self._lock:
            if not always and self.bytes and self.bytes + size > self.most_bytes:
                return False
            self._blocks.append(block)
            self.bytes += size
            return True

    def take(self) -> list[Block]:
        """Return all blocks, in order."""
        with self._lock:
            blocks, self._blocks = self._blocks, []
            return blocks

    def release(self, size: int) -> None:
        """Say that so many bytes are on disk."""
        with self._lock:
            self.bytes -= size


@dataclass(slots=True)
class Recording:
    """The files of one writer; for one thread.

    Parameters
    ----------
    root : Path
    writer : str
        Name of the writer, with which the files' names begin.
    file_length : float
        A file ends at whole multiples of this time, in UTC [s].
    file_size : int
        And when it has become so large [bytes].
    settle : float
        See the module.
    """

    root: Path
    writer: str
    file_length: float = 3600.0
    file_size: int = 1 << 30
    settle: float = SETTLE
    samples: int = 0
    """Samples that are on disk."""
    bytes_written: int = 0
    file: SeriesFile | None = None
    on_closed: Callable[[Path, int], None] | None = None
    _structure: Structure = field(default_factory=Structure)
    _waiting: list[Block] = field(default_factory=list)
    _uncommitted: list[Block] = field(default_factory=list)
    _in_file: int = 0
    _changes: int = 0

    def write(self, blocks: Sequence[Block], now: float) -> int:
        """Write blocks, and all that still waits, and commit; return how many bytes were let go.

        Raises
        ------
        StorageError
            When the disk refuses; the blocks are kept and written at the next call.
        """
        self._waiting.extend(blocks)
        if self.file is not None and self._is_due(now):
            self._close()
            self._changes = 0
        if not self._waiting:
            return 0
        if self.file is None or now - self.file.started >= min(self.settle, FIRST_SETTLE * 2**self._changes):
            self._admit()
        if self.file is None:
            self._open(now)
        return self._append()

    def close(self, now: float) -> int:
        """Write what waits and finish the file; return how many bytes were let go."""
        self.settle = 0.0
        done = self.write((), now)
        if self.file is not None:
            self._close()
        return done

    def _is_due(self, now: float) -> bool:
        assert self.file is not None
        over = now // self.file_length != self.file.started // self.file_length
        return over or self.file.bytes_written >= self.file_size

    def _admit(self) -> None:
        """Make the structure fit all that waits; a file whose tables are other ones is closed."""
        misfits = False
        for block in self._waiting:
            if not self._structure.fits(block):
                self._structure.admit(block)
                misfits = True
        if misfits and self.file is not None:
            self._changes = min(self._changes + 1, 10)
            self._close()

    def _open(self, now: float) -> None:
        folder = self.root / FOLDER / f"{datetime.fromtimestamp(now, UTC):%Y-%m-%d}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(error, folder) from error
        path = folder / series_name(self.writer, now)
        while path.exists():
            now += 1e-5
            path = folder / series_name(self.writer, now)
        self.file = SeriesFile(path, self._structure.plans(), self.writer, started=now, length=self.file_length)
        self._in_file = 0

    def _append(self) -> int:
        assert self.file is not None
        held: set[tuple[str, str]] = set()
        staying: list[Block] = []
        for block in self._waiting:
            key = block.node, block.timeline
            if key in held or not self._structure.fits(block):
                held.add(key)
                staying.append(block)
                continue
            for number, names in self._structure.places(block):
                self.file.append(number, block.t, {name: block.data[name] for name in names})
            self._uncommitted.append(block)
        self._waiting = staying
        before = self.file.bytes_written
        try:
            self.file.commit()
        except SisockdaqError:
            self._give_up()
            raise
        self.bytes_written += self.file.bytes_written - before
        return self._committed()

    def _committed(self) -> int:
        done, self._uncommitted = self._uncommitted, []
        samples = sum(block.samples for block in done)
        self.samples += samples
        self._in_file += samples
        return sum(block.nbytes for block in done)

    def _give_up(self) -> None:
        """Leave the file as its last commit left it, and begin again with what is not in it."""
        self._waiting = [*self._uncommitted, *self._waiting]
        self._uncommitted = []
        if self.file is not None:
            self.file.abandon()
            self.file = None

    def _close(self) -> None:
        file, self.file = self.file, None
        assert file is not None
        try:
            file.close()
        except SisockdaqError:
            file.abandon()
            raise
        if self.on_closed is not None:
            self.on_closed(file.path, self._in_file)


class DiskWriter:
    """A thread that takes what is in the intake, every `flush_interval` seconds, and writes it.

    Parameters
    ----------
    recording : Recording
    intake : Intake
    flush_interval : float
        What the death of the process may cost [s].
    clock : callable
        Returns the UNIX time [s].
    """

    def __init__(self, recording: Recording, intake: Intake, flush_interval: float, clock: Callable[[], float]) -> None:
        self.recording, self.intake = recording, intake
        self.problem = ""
        """Why the disk refuses, in words; empty while it does not."""
        self._interval, self._clock = flush_interval, clock
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"{recording.writer}-recording", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self, deadline: float = 10.0) -> None:
        """Write all that came, finish the file and end the thread."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(deadline)

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            self._once(self.recording.write, self.intake.take())
        self._once(self.recording.write, self.intake.take())
        self._once(lambda _, now: self.recording.close(now), [])

    def _once(self, write: Callable[[Sequence[Block], float], int], blocks: list[Block]) -> None:
        try:
            self.intake.release(write(blocks, self._clock()))
            self.problem = ""
        except SisockdaqError as error:
            self.problem = str(error)


def last_recorded(root: Path, writer: str) -> dict[tuple[str, str], float]:
    """Return up to which time each field (node, field) was recorded by a writer, from its newest files."""
    found: dict[tuple[str, str], float] = {}
    folder = root / FOLDER
    names = sorted(
        (path for path in folder.glob(f"*/{_escaped(writer)}_series_*.h5") if is_series_file(path.name)),
        key=lambda path: path.name,
    )
    pool = ReaderPool()
    for path in names[::-1][:_LOOK_BACK]:
        try:
            for key, t in pool.read(SeriesFileReader, path, _newest).items():
                found[key] = max(found.get(key, t), t)
        except FileUnreadable:
            continue  # the archive reports it
    return found


def _newest(reader: SeriesFileReader) -> dict[tuple[str, str], float]:
    found = {}
    for table in reader.tables:
        for plan in table.fields:
            if (t := reader.newest(table.node, plan.name)) is not None:
                found[table.node, plan.name] = t
    return found


def _escaped(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)
