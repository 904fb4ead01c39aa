"""What is in which ``.g3`` file, kept in MariaDB or SQLite so that a question opens only the files it needs.

`Index` knows SQL and neither files' contents nor sockets of the network. It promises:

- the tables of existing sites stay as other programs expect them (`_tables`); a file is one transaction;
- no error holds a password; what the database has against us is a `ConnectionFailed`, or against one file's content
  a `StorageError`;
- it may be used from several threads.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sisockdaq.nodes.g3_archive import _tables as tables
from sisockdaq.nodes.g3_archive._frames import FieldFound, Found, Frame, Provider, field_name
from sisockdaq.nodes.g3_archive._records import KnownFile, Name, Span, Stamp, frames_of, merged
from sqlalchemy import URL, Connection, create_engine, delete, event, exists, func, insert, inspect, select, update
from sqlalchemy.dialects.mysql import insert as mysql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError

from sisockdaq.errors import ConfigurationError, ConnectionFailed, StorageError

__all__ = ["Index"]

_CONNECT_DEADLINE = 5
_ANSWER_DEADLINE = 60
"""Longest waits for MariaDB [s]."""

_BATCH = 500
"""Rows of a question with a list of numbers."""

_NAMES_TOLD_APART = 200
"""Names in one question."""


class Index:
    """The index of one archive.

    Parameters
    ----------
    url : URL
        MariaDB (``mysql+pymysql``) or SQLite; tables are made when they are missing.
    """

    def __init__(self, url: URL) -> None:
        self.url = url
        self.is_sqlite = url.get_backend_name() == "sqlite"
        options: dict[str, Any] = {"pool_pre_ping": True}
        if not self.is_sqlite:
            options |= {
                "pool_recycle": 1800,
                "connect_args": {
                    "connect_timeout": _CONNECT_DEADLINE,
                    "read_timeout": _ANSWER_DEADLINE,
                    "write_timeout": _ANSWER_DEADLINE,
                },
            }
        self._engine = create_engine(url, **options)
        if self.is_sqlite:
            event.listen(self._engine, "connect", _set_up_sqlite)
        self._names: dict[str, Name] = {}

    def close(self) -> None:
        """Let go of the connections."""
        self._engine.dispose()

    def prepare(self) -> None:
        """Make what tables are missing, and take over what another program has indexed.

        Raises
        ------
        ConnectionFailed
            The database does not answer or refuses.
        ConfigurationError
            It has tables of these names that are of another kind.
        """
        with self._transaction() as connection:
            there = set(inspect(connection).get_table_names())
            for table, columns in tables.CONTRACT_COLUMNS.items():
                if table in there:
                    missing = columns - {column["name"] for column in inspect(connection).get_columns(table)}
                    if missing:
                        raise ConfigurationError(
                            f"the table {table} in {self.place} has no column {', '.join(sorted(missing))}: "
                            "it is of another layout",
                            remedy="name an empty database; everything is indexed again there",
                        )
            tables.metadata.create_all(connection)
            self._names = {row.name: Name(*row) for row in connection.execute(select(tables.names))}
        self._adopt()

    @property
    def place(self) -> str:
        """Where the database is, without a password."""
        return self.url.render_as_string(hide_password=True)

    # What the scanner asks and says.

    def known(self) -> dict[str, KnownFile]:
        """Return every file by its path."""
        with self._transaction() as connection:
            rows = connection.execute(select(tables.files)).all()
        return {
            row.path: KnownFile(
                Stamp(row.size, row.changed_ns), row.scanned_to, row.state, row.reason,
                {int(number): text for number, text in json.loads(row.providers).items()}, row.fingerprint,
            )
            for row in rows
        }  # fmt: skip

    def mark(self, path: str, stamp: Stamp, state: str, reason: str) -> None:
        """Change a file's state, or note a file of which nothing is known but that."""
        with self._transaction() as connection:
            file_id = self._put_file(connection, path, stamp, state=state, reason=reason)
            if state == "whole":
                ids = select(tables.spans.c.feed_id).where(tables.spans.c.file_id == file_id)
                self._set_scanned(connection, [row[0] for row in connection.execute(ids) if row[0] is not None], True)

    def store(self, path: str, stamp: Stamp, found: Found, state: str, reason: str, fingerprint: str) -> bool:
        """Put a stretch of a file into the index; one that begins at 0 replaces what was known of the file.

        Returns
        -------
        bool
            Whether ``feeds`` had room for all of it: not where it lists another file of this name.
        """
        with self._transaction() as connection:
            file_id = self._put_file(
                connection, path, stamp, state=state, reason=reason, scanned_to=found.offset,
                providers=json.dumps(found.providers), fingerprint=fingerprint,
            )  # fmt: skip
            if found.start == 0:
                connection.execute(delete(tables.spans).where(tables.spans.c.file_id == file_id))
            feed_ids = {
                provider: self._put_feed(connection, path, provider, state == "whole", found.start == 0)
                for provider in found.frames
            }
            for provider, frames in found.frames.items():
                self._put_span(connection, file_id, feed_ids[provider], provider, frames)
            self._put_fields(connection, found, feed_ids)
            names = self._put_names(connection, found)
        self._names.update(names)
        return None not in feed_ids.values()

    # What the reader asks.

    def names(self, wanted: Iterable[str]) -> dict[str, Name]:
        """Return what is known of the named fields."""
        asked = sorted(set(wanted))
        found: dict[str, Name] = {}
        with self._transaction() as connection:
            for i in range(0, len(asked), _NAMES_TOLD_APART):
                part = asked[i : i + _NAMES_TOLD_APART]
                rows = connection.execute(select(tables.names).where(tables.names.c.name.in_(part)))
                found.update({row.name: Name(*row) for row in rows})
        return found

    def names_within(self, start: float, end: float) -> list[Name]:
        """Return the fields that have data in ``[start, end)``, as exactly as the files' spans tell."""
        if start >= end:
            return []
        meets = (tables.names.c.first < end) & (tables.names.c.last >= start)
        with self._transaction() as connection:
            candidates = [Name(*row) for row in connection.execute(select(tables.names).where(meets))]
            # A field whose first or last sample is inside needs no closer look.
            inside = {entry.name for entry in candidates if entry.first >= start or entry.last < end}
            between = {entry.provider for entry in candidates if entry.name not in inside}
            if between:
                inside |= self._recorded(connection, between, start, end)
        return [entry for entry in candidates if entry.name in inside]

    def spans(self, providers: Iterable[str], start: float, end: float) -> list[Span]:
        """Return where the data of those providers in ``[start, end)`` are, by time."""
        columns = [column for column in tables.spans.c if column.name not in ("file_id", "feed_id")]
        question = (
            select(*columns, tables.files.c.path)
            .join(tables.files, tables.files.c.id == tables.spans.c.file_id)
            .where(tables.spans.c.provider.in_(sorted(set(providers))))
            .where(tables.spans.c.first < end, tables.spans.c.last >= start, tables.files.c.state != "missing")
            .order_by(tables.spans.c.first)
        )
        with self._transaction() as connection:
            rows = connection.execute(question).all()
        return [
            Span(row.id, row.path, row.prov_id, row.provider, row.first, row.last, frames_of(row.frames))
            for row in rows
        ]

    # Within a transaction.

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            # Of the driver's error, not SQLAlchemy's: that one quotes whole statements.
            cause = getattr(error, "orig", None) or error
            reason = " ".join(str(part) for part in cause.args) or type(cause).__name__
            if isinstance(error, DataError | IntegrityError):
                raise StorageError(f"the database {self.place} refuses: {reason}") from None
            raise ConnectionFailed(
                f"the database {self.place} failed: {reason}",
                remedy="check that it runs, and its user's rights; it is tried again",
            ) from None

    def _insert(self, table: Any) -> Any:
        return sqlite_insert(table) if self.is_sqlite else mysql_insert(table)

    def _widen(self, connection: Connection, table: Any, keys: Sequence[str], span: tuple[str, str], rows: Any) -> None:
        """Insert rows; where one is there already, widen its span and take the other columns from the new one."""
        if not rows:
            return
        statement = self._insert(table)
        new = statement.excluded if self.is_sqlite else statement.inserted
        least, greatest = (func.min, func.max) if self.is_sqlite else (func.least, func.greatest)
        first, last = span
        changes = {name: new[name] for name in rows[0] if name not in (*keys, *span)}
        changes |= {first: least(table.c[first], new[first]), last: greatest(table.c[last], new[last])}
        if self.is_sqlite:
            statement = statement.on_conflict_do_update(index_elements=list(keys), set_=changes)
        else:
            statement = statement.on_duplicate_key_update(changes)
        connection.execute(statement, rows)

    def _put_file(self, connection: Connection, path: str, stamp: Stamp, **columns: Any) -> int:
        values = {"size": stamp.size, "changed_ns": stamp.changed_ns, **columns}
        files = tables.files
        file_id = connection.execute(select(files.c.id).where(files.c.path == path)).scalar()
        if file_id is None:
            values = {"scanned_to": 0, "fingerprint": "", "providers": "{}", "reason": "", **values}
            key = connection.execute(insert(files).values(path=path, **values)).inserted_primary_key
            return int(key[0]) if key is not None else 0
        connection.execute(update(files).where(files.c.id == file_id).values(**values))
        return int(file_id)

    def _put_feed(self, connection: Connection, path: str, provider: Provider, scanned: bool, anew: bool) -> int | None:
        """Return the number of a file's and provider's row in ``feeds``; None where another file has that row."""
        folder, filename = os.path.split(path)
        number, text = provider
        feeds = tables.feeds
        if len(filename) > tables.LONGEST or len(folder) > tables.LONGEST:
            return None
        row = connection.execute(select(feeds).where(feeds.c.filename == filename, feeds.c.prov_id == number)).first()
        columns = {"path": folder, "description": text[: tables.LONGEST], "scanned": scanned}
        if row is None:
            made = connection.execute(insert(feeds).values(filename=filename, prov_id=number, **columns))
            return int(made.inserted_primary_key[0]) if made.inserted_primary_key is not None else None
        if row.filename != filename:
            return None  # MariaDB finds names that differ in case only.
        same = os.path.normpath(row.path) == os.path.normpath(folder)
        if not same and Path(row.path, filename).exists():
            return None
        if same:
            del columns["path"]  # As the other program wrote it, perhaps with a slash at its end.
        if anew:
            connection.execute(delete(tables.fields).where(tables.fields.c.feed_id == row.id))
        elif row.description != columns["description"]:
            return None
        connection.execute(update(feeds).where(feeds.c.id == row.id).values(**columns))
        return int(row.id)

    def _put_span(
        self, connection: Connection, file_id: int, feed_id: int | None, provider: Provider, frames: list[Frame]
    ) -> None:
        number, text = provider
        spans = tables.spans
        mine = (spans.c.file_id == file_id) & (spans.c.prov_id == number) & (spans.c.provider == text)
        row = connection.execute(select(spans).where(mine)).first()
        if row is not None:
            frames = [*(frames_of(row.frames) or ()), *frames]
        values = {
            "first": min(frame[1] for frame in frames),
            "last": max(frame[2] for frame in frames),
            "frames": json.dumps(frames),
        }
        if row is not None:
            connection.execute(update(spans).where(mine).values(**values))
            return
        new = {"file_id": file_id, "feed_id": feed_id, "prov_id": number, "provider": text, **values}
        connection.execute(insert(spans).values(**new))

    def _put_fields(self, connection: Connection, found: Found, feed_ids: dict[Provider, int | None]) -> None:
        rows = [
            {
                "feed_id": feed_ids[provider],
                "field": name,
                "start": tables.from_unix(entry.first),
                "end": tables.from_unix(entry.last, up=True),
            }
            for provider, entries in found.fields.items()
            if feed_ids.get(provider) is not None
            for name, entry in entries.items()
            if len(name) <= tables.LONGEST
        ]
        self._widen(connection, tables.fields, ("feed_id", "field"), ("start", "end"), rows)

    def _put_names(self, connection: Connection, found: Found) -> dict[str, Name]:
        """Put the network's names; return those that are new or changed."""
        put: dict[str, Name] = {}
        for (_, text), entries in found.fields.items():
            for raw, entry in entries.items():
                name = f"{text}.{field_name(raw)}"
                put[name] = merged(put.get(name) or self._names.get(name), name, text, entry)
        self._put_name_rows(connection, put.values())
        return put

    def _put_name_rows(self, connection: Connection, put: Iterable[Name]) -> None:
        rows = [{column.name: getattr(entry, column.name) for column in tables.names.c} for entry in put]
        self._widen(connection, tables.names, ("name",), ("first", "last"), rows)
        listed = [{"description": row["name"]} for row in rows if row["name"] not in self._names]
        listed = [row for row in listed if len(row["description"]) <= tables.LONGEST]
        if listed:
            ignoring = insert(tables.description).prefix_with("OR IGNORE" if self.is_sqlite else "IGNORE")
            connection.execute(ignoring, listed)

    def _recorded(self, connection: Connection, providers: set[str], start: float, end: float) -> set[str]:
        """Return the names that files whose spans meet ``[start, end)`` hold there."""
        spans, fields = tables.spans, tables.fields
        meets = (spans.c.first < end) & (spans.c.last >= start) & spans.c.provider.in_(sorted(providers))
        in_feed = (
            select(spans.c.provider, fields.c.field)
            .join(fields, fields.c.feed_id == spans.c.feed_id)
            .where(meets, fields.c.start < tables.from_unix(end, up=True), fields.c.end >= tables.from_unix(start))
            .distinct()
        )
        there = {f"{provider}.{field_name(name)}" for provider, name in connection.execute(in_feed)}
        hidden = select(spans.c.provider).where(meets, spans.c.feed_id.is_(None)).distinct()
        loose = {row[0] for row in connection.execute(hidden)}
        return there | {entry.name for entry in self._names.values() if entry.provider in loose}

    def _set_scanned(self, connection: Connection, feed_ids: list[int], scanned: bool) -> None:
        if feed_ids:
            connection.execute(update(tables.feeds).where(tables.feeds.c.id.in_(feed_ids)).values(scanned=scanned))

    # Taking over another program's index.

    def _adopt(self) -> None:
        """Serve what another program has indexed at once; the files are looked into later, one by one."""
        last = 0
        while True:
            feeds, spans = tables.feeds, tables.spans
            question = (
                select(feeds)
                .where(feeds.c.id > last, feeds.c.scanned, ~exists().where(spans.c.feed_id == feeds.c.id))
                .order_by(feeds.c.id)
                .limit(_BATCH)
            )
            with self._transaction() as connection:
                rows = connection.execute(question).all()
                if not rows:
                    return
                self._adopt_rows(connection, rows)
            last = rows[-1].id

    def _adopt_rows(self, connection: Connection, rows: Sequence[Any]) -> None:
        by_id = {row.id: row for row in rows}
        fields, feeds = tables.fields, tables.feeds
        # The database adds up: an existing index has millions of these rows.
        reaches = func.min(fields.c.start), func.max(fields.c.end)
        within = fields.c.feed_id.in_(list(by_id))
        by_feed = select(fields.c.feed_id, *reaches).where(within).group_by(fields.c.feed_id)
        reach = {row[0]: (tables.to_unix(row[1]), tables.to_unix(row[2])) for row in connection.execute(by_feed)}
        by_name = select(feeds.c.description, fields.c.field, *reaches).join(feeds, feeds.c.id == fields.c.feed_id)
        put: dict[str, Name] = {}
        for text, field, start, end in connection.execute(
            by_name.where(within).group_by(feeds.c.description, fields.c.field)
        ):
            name = f"{text}.{field_name(field)}"
            found = FieldFound("", "number", tables.to_unix(start), tables.to_unix(end))
            put[name] = merged(put.get(name) or self._names.get(name), name, text, found)
        paths = {
            number: os.path.join(os.path.normpath(by_id[number].path), by_id[number].filename)  # noqa: PTH118 - as text
            for number in reach
        }
        file_ids = self._adopted_files(connection, set(paths.values()))
        spans = [
            {
                "file_id": file_ids[paths[number]],
                "feed_id": number,
                "prov_id": by_id[number].prov_id,
                "provider": by_id[number].description,
                "first": first,
                "last": last,
                "frames": "",
            }
            for number, (first, last) in reach.items()
        ]
        if spans:
            connection.execute(insert(tables.spans), spans)
        self._put_name_rows(connection, put.values())
        self._names.update(put)

    def _adopted_files(self, connection: Connection, paths: set[str]) -> dict[str, int]:
        """Return the files' numbers; those that are not there are put in."""
        files = tables.files
        question = select(files.c.path, files.c.id).where(files.c.path.in_(sorted(paths)))
        missing = paths - {row.path for row in connection.execute(question)}
        blank = {"size": -1, "changed_ns": 0, "scanned_to": 0, "fingerprint": "", "reason": "", "providers": "{}"}
        if missing:
            connection.execute(insert(files), [{"path": path, "state": "adopted", **blank} for path in sorted(missing)])
        return {row.path: row.id for row in connection.execute(question)}


def _set_up_sqlite(connection: Any, _: Any) -> None:
    """Let readers read while the scanner writes."""
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "busy_timeout=20000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
