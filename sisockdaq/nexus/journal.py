"""The writer's memory over its own death: every acquisition that it accepted, the one under way included.

A row is made when an acquisition begins and closed when it has ended, failed ones included; a row that was never
closed belongs to a writer that died. It says all that is needed to seal the files without the source: the request,
and the descriptions of the frames and results.

One SQLite file in the state directory, so that no half-written row is ever read. The oldest rows beyond `KEPT` go. A
journal that cannot be written costs the memory, never an acquisition: that is logged, and `problem` says so.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sisockdaq.acquisition import AcquisitionState, Record, Request
from sisockdaq.frames.messages import Description

__all__ = ["KEPT", "Journal", "Unfinished", "public_record", "record_object"]

KEPT = 10_000
"""Acquisitions that are remembered."""

_VERSION = 1
_WAIT = 5.0
"""Time to wait for another process that has the file [s]."""

_TABLE = """CREATE TABLE IF NOT EXISTS acquisitions (
    id INTEGER PRIMARY KEY AUTOINCREMENT, ended REAL, record TEXT NOT NULL, setting TEXT NOT NULL DEFAULT '{}')"""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Unfinished:
    """An acquisition that no writer has closed, and how its files were laid out."""

    record: Record
    images_per_file: int
    compression: str
    image: Description
    results: list[Description] = field(default_factory=list)


def record_object(record: Record | None) -> dict[str, Any]:
    """Return an acquisition as std-daq has it: ``{"info", "message", "state", "stats"}``, null inside before the first.

    ``n_write_requested`` counts the images that came to be written, ``n_write_completed`` those in the file.
    """
    if record is None:
        stats = dict.fromkeys(("n_write_completed", "n_write_requested", "start_time", "stop_time"))
        return {
            "info": dict.fromkeys(("n_images", "output_file", "run_id")),
            "message": None,
            "state": None,
            "stats": stats,
        }
    return {
        "info": {
            "n_images": record.request.frames,
            "output_file": record.master or record.raw,
            "run_id": record.request.run_id,
        },
        "message": record.message,
        "state": str(record.state) if record.state else None,
        "stats": {
            "n_write_completed": record.frames_written,
            "n_write_requested": record.frames_taken,
            "start_time": record.started,
            "stop_time": record.ended,
        },
    }


def public_record(record: Record) -> dict[str, Any]:
    """Return all that is known of an acquisition: `record_object`, its name, user, files and ledger."""
    return {
        **record_object(record),
        "acquisition": record.request.acquisition,
        "user_id": record.request.user_id,
        "files": list(record.files),
        "raw": record.raw,
        "ledger": record.ledger,
    }


class Journal:
    """The acquisitions of one writer, for any thread.

    Parameters
    ----------
    path : Path or None
        Of the SQLite file, made when missing, and put aside when it is damaged; None keeps the journal in memory.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.problem = ""
        self._lock = threading.Lock()
        self._row: int | None = None
        try:
            self._database = _open(path)
        except (sqlite3.Error, OSError) as error:
            self._database = self._begin_anew(error)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    def _begin_anew(self, error: Exception) -> sqlite3.Connection:
        """Put a damaged journal aside; do without a file where that does not help (no space, no right, locked)."""
        _log.error("the journal %s cannot be used: %s", self.path, error)
        try:
            if self.path is not None and not isinstance(error, sqlite3.OperationalError | OSError):
                _put_aside(self.path)
                return _open(self.path)
        except (sqlite3.Error, OSError) as again:
            error = again
        self.problem = f"acquisitions are remembered only until the writer ends: {error}"
        return _open(None)

    def begin(self, unfinished: Unfinished) -> None:
        """Note that an acquisition has begun."""
        setting = {
            "images_per_file": unfinished.images_per_file,
            "compression": unfinished.compression,
            "image": asdict(unfinished.image),
            "results": [asdict(each) for each in unfinished.results],
        }
        values = (_encoded(unfinished.record), json.dumps(setting, default=str))
        self._row = self._write("INSERT INTO acquisitions (record, setting) VALUES (?, ?)", values)
        self._write("DELETE FROM acquisitions WHERE id <= (SELECT max(id) FROM acquisitions) - ?", (KEPT,))

    def take_up(self, acquisition: str) -> bool:
        """Go on with the row of an acquisition that a dead writer had begun, if there is one."""
        self._row = next((row for row, left in self._unfinished() if _name(left) == acquisition), None)
        return self._row is not None

    def end(self, record: Record) -> None:
        """Note how the acquisition that was begun or taken up last has ended; the layout of its files is forgotten."""
        if self._row is None:
            return
        values = (record.ended, _encoded(record), self._row)
        self._write("UPDATE acquisitions SET ended = ?, record = ?, setting = '{}' WHERE id = ?", values)
        self._row = None

    def forget(self) -> None:
        """Take back the acquisition that was begun last: it was refused after all."""
        self._write("DELETE FROM acquisitions WHERE id = ?", (self._row,))
        self._row = None

    def newest(self, most: int) -> list[Record]:
        """Return the ended acquisitions, newest first."""
        query = "SELECT record FROM acquisitions WHERE ended IS NOT NULL ORDER BY id DESC LIMIT ?"
        return [_decoded(row[0]) for row in self._read(query, (most,))]

    def left_behind(self) -> list[Unfinished]:
        """Return the acquisitions that were never closed, oldest first."""
        return [unfinished for _, unfinished in self._unfinished()]

    def _unfinished(self) -> list[tuple[int, Unfinished]]:
        query = "SELECT id, record, setting FROM acquisitions WHERE ended IS NULL ORDER BY id"
        found = []
        for row, record, text in self._read(query, ()):
            setting = json.loads(text)
            found.append(
                (
                    int(row),
                    Unfinished(
                        _decoded(record),
                        int(setting["images_per_file"]),
                        str(setting["compression"]),
                        _description(setting["image"]),
                        [_description(each) for each in setting["results"]],
                    ),
                )
            )
        return found

    def _write(self, statement: str, values: tuple[Any, ...]) -> int | None:
        try:
            with self._lock, self._database:
                return self._database.execute(statement, values).lastrowid
        except sqlite3.Error as error:
            self.problem = f"the journal of acquisitions cannot be written: {error}"
            _log.error("%s (%s)", self.problem, self.path)
            return None

    def _read(self, query: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        try:
            with self._lock:
                return self._database.execute(query, values).fetchall()
        except sqlite3.Error as error:
            self.problem = f"the journal of acquisitions cannot be read: {error}"
            _log.error("%s (%s)", self.problem, self.path)
            return []


def _open(path: Path | None) -> sqlite3.Connection:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    database = sqlite3.connect(path or ":memory:", timeout=_WAIT, check_same_thread=False)
    try:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=NORMAL")
        if database.execute("PRAGMA user_version").fetchone()[0] not in (0, _VERSION):
            raise sqlite3.DatabaseError("it was made by another version")
        with database:
            database.execute(_TABLE)
            database.execute(f"PRAGMA user_version={_VERSION}")
    except sqlite3.DatabaseError:
        database.close()
        raise
    return database


def _put_aside(path: Path) -> None:
    """Rename a journal that cannot be used, so that a person may still look into it."""
    for leftover in path.parent.glob(f"{path.name}-*"):
        leftover.unlink()
    path.replace(path.with_name(f"{path.name}.damaged"))


def _name(unfinished: Unfinished) -> str:
    return unfinished.record.request.acquisition


def _encoded(record: Record) -> str:
    return json.dumps(asdict(record), default=str)


def _decoded(text: str) -> Record:
    fields = json.loads(text)
    request, state = Request(**fields.pop("request")), fields.pop("state")
    return Record(request, AcquisitionState(state) if state else None, **fields)


def _description(fields: Mapping[str, Any]) -> Description:
    return Description(**{**fields, "shape": tuple(fields["shape"])})
