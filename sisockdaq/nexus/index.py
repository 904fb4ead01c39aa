"""What is in which file, kept in SQLite so that an archive of many files answers without opening them.

The index is only a memory of the files: it can be deleted at any time and is made again by a scan. One row a data file,
one a source in it, one a master file.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, ForeignKey, create_engine, delete, event, func, select
from sqlalchemy.exc import DatabaseError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, selectinload

from sisockdaq.nexus.reader import DataFileSummary, FieldSummary, MasterSummary, SourceSummary

__all__ = ["Base", "DataFileRow", "Index", "MasterRow", "SourceRow", "Stamp", "stamp"]

_VERSION = 1
"""Of the tables; an index of another version is made again."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """By which a changed file is known."""

    size: int
    changed_ns: int


def stamp(path: Path) -> Stamp:
    """Return the stamp of a file; raise `OSError` when there is none."""
    found = path.stat()
    return Stamp(found.st_size, found.st_mtime_ns)


class Base(DeclarativeBase):
    """All tables of the database; `series_index` has more."""


class DataFileRow(Base):
    """A data file. ``state`` is finished, growing, left or broken; of a broken one only path and reason are known."""

    __tablename__ = "data_files"

    path: Mapped[str] = mapped_column(primary_key=True)
    size: Mapped[int]
    changed_ns: Mapped[int]
    state: Mapped[str]
    reason: Mapped[str] = mapped_column(default="")
    folder: Mapped[str] = mapped_column(default="")
    acquisition: Mapped[str] = mapped_column(default="", index=True)
    number: Mapped[int] = mapped_column(default=0)
    first_index: Mapped[int] = mapped_column(default=0)
    images_per_file: Mapped[int] = mapped_column(default=0)
    rows: Mapped[int] = mapped_column(default=0)
    image_source: Mapped[str] = mapped_column(default="")
    image: Mapped[str] = mapped_column(default="{}")
    sources: Mapped[list[SourceRow]] = relationship(back_populates="file", cascade="all, delete-orphan")


class SourceRow(Base):
    """One source's rows in a data file; times are None where it has no frame."""

    __tablename__ = "sources"

    id: Mapped[int] = mapped_column(primary_key=True)
    path: Mapped[str] = mapped_column(ForeignKey("data_files.path", ondelete="CASCADE"), index=True)
    source: Mapped[str] = mapped_column(index=True)
    timeline: Mapped[str]
    rows: Mapped[int]
    first_time: Mapped[float | None] = mapped_column(index=True)
    last_time: Mapped[float | None]
    settled_time: Mapped[float | None]
    fields: Mapped[str]
    file: Mapped[DataFileRow] = relationship(back_populates="sources", lazy="joined")

    @property
    def version(self) -> tuple[Any, ...]:
        """What tells this state of the source's rows from any other."""
        return self.file.size, self.file.changed_ns, self.rows, self.settled_time

    @property
    def field_summaries(self) -> list[FieldSummary]:
        """The fields of the source in this file."""
        return [FieldSummary(**{**each, "shape": tuple(each["shape"])}) for each in json.loads(self.fields)]


class MasterRow(Base):
    """A master file."""

    __tablename__ = "masters"

    path: Mapped[str] = mapped_column(primary_key=True)
    size: Mapped[int]
    changed_ns: Mapped[int]
    reason: Mapped[str] = mapped_column(default="")
    acquisition: Mapped[str] = mapped_column(default="", index=True)
    content: Mapped[str] = mapped_column(default="{}")


class Index:
    """The index of one archive; may be used from several threads.

    Parameters
    ----------
    path : Path or None
        The SQLite file, made when missing, and made again when it is damaged or of another version; None keeps the
        index in memory.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        try:
            self._engine = _open(path)
        except (DatabaseError, _OtherVersion):
            assert path is not None
            for leftover in path.parent.glob(f"{path.name}*"):
                leftover.unlink()
            self._engine = _open(path)

    def make_tables(self) -> None:
        """Make the tables that are missing."""
        Base.metadata.create_all(self._engine)

    def session(self) -> Session:
        """Begin to read; rows stay usable after the session has ended."""
        return Session(self._engine, expire_on_commit=False)

    def close(self) -> None:
        """Close the database."""
        self._engine.dispose()

    def stamps(self) -> dict[str, tuple[Stamp, str]]:
        """Return stamp and state of every known file, by path; a master's state is finished or broken."""
        with self.session() as session:
            data = session.execute(
                select(DataFileRow.path, DataFileRow.size, DataFileRow.changed_ns, DataFileRow.state)
            )
            known = {path: (Stamp(size, changed), state) for path, size, changed, state in data}
            masters = session.execute(select(MasterRow.path, MasterRow.size, MasterRow.changed_ns, MasterRow.reason))
            for path, size, changed, reason in masters:
                if path in known and not reason:
                    continue  # it holds images as well, and what these are about decides
                known[path] = (Stamp(size, changed), "broken" if reason else "finished")
        return known

    def put_data_file(self, summary: DataFileSummary, state: str, seen: Stamp) -> None:
        """Store what a data file holds now."""
        row = DataFileRow(
            path=os.fspath(summary.path),
            size=seen.size,
            changed_ns=seen.changed_ns,
            state=state,
            folder=os.fspath(summary.path.parent),
            acquisition=summary.acquisition,
            number=summary.number,
            first_index=summary.first_index,
            images_per_file=summary.images_per_file,
            rows=summary.rows,
            image_source=summary.image_source,
            image=json.dumps(asdict(summary.image)),
            sources=[_source_row(source) for source in summary.sources],
        )
        with self.session() as session, session.begin():
            session.execute(delete(SourceRow).where(SourceRow.path == row.path))
            session.execute(delete(DataFileRow).where(DataFileRow.path == row.path))
            session.add(row)

    def put_broken(self, path: Path, reason: str, seen: Stamp, *, is_master: bool) -> None:
        """Store that a file cannot be read. What was known of it before is forgotten."""
        name, common = os.fspath(path), {"size": seen.size, "changed_ns": seen.changed_ns, "reason": reason}
        with self.session() as session, session.begin():
            if is_master:
                session.merge(MasterRow(path=name, **common))
                return
            session.execute(delete(SourceRow).where(SourceRow.path == name))
            session.execute(delete(DataFileRow).where(DataFileRow.path == name))
            session.add(DataFileRow(path=name, state="broken", folder=os.fspath(path.parent), **common))

    def put_master(self, summary: MasterSummary, seen: Stamp) -> None:
        """Store what a master file says."""
        content = {key: value for key, value in asdict(summary).items() if key != "path"}
        with self.session() as session, session.begin():
            session.merge(
                MasterRow(
                    path=os.fspath(summary.path),
                    size=seen.size,
                    changed_ns=seen.changed_ns,
                    reason="",
                    acquisition=summary.acquisition,
                    content=json.dumps(content),
                )
            )

    def forget(self, paths: Iterable[str]) -> None:
        """Remove files that are gone."""
        with self.session() as session, session.begin():
            for path in paths:
                session.execute(delete(SourceRow).where(SourceRow.path == path))
                session.execute(delete(DataFileRow).where(DataFileRow.path == path))
                session.execute(delete(MasterRow).where(MasterRow.path == path))

    def sources(
        self, start: float | None = None, end: float | None = None, source: str | None = None
    ) -> Sequence[SourceRow]:
        """Return the sources' rows with frames in ``[start, end)``, in the order of time."""
        query = select(SourceRow).where(SourceRow.first_time.is_not(None)).order_by(SourceRow.first_time)
        if source is not None:
            query = query.where(SourceRow.source == source)
        if start is not None:
            query = query.where(SourceRow.last_time >= start)
        if end is not None:
            query = query.where(SourceRow.first_time < end)
        with self.session() as session:
            return session.scalars(query).all()

    def settled_until(self, source: str) -> float | None:
        """Return the time before which no row of a source will be added or changed, as far as the files tell."""
        growing = select(func.min(SourceRow.settled_time)).join(DataFileRow).where(DataFileRow.state == "growing")
        whole = select(func.max(SourceRow.last_time))
        with self.session() as session:
            bound = session.scalar(growing.where(SourceRow.source == source))
            return bound if bound is not None else session.scalar(whole.where(SourceRow.source == source))

    def data_files(self, acquisition: str | None = None) -> Sequence[DataFileRow]:
        """Return the readable data files in order of folder and number."""
        query = select(DataFileRow).where(DataFileRow.state != "broken")
        if acquisition is not None:
            query = query.where(DataFileRow.acquisition == acquisition)
        with self.session() as session:
            ordered = query.order_by(DataFileRow.folder, DataFileRow.number)
            return session.scalars(ordered.options(selectinload(DataFileRow.sources))).all()

    def masters(self, acquisition: str | None = None) -> Sequence[MasterRow]:
        """Return the readable master files."""
        query = select(MasterRow).where(MasterRow.reason == "")
        if acquisition is not None:
            query = query.where(MasterRow.acquisition == acquisition)
        with self.session() as session:
            return session.scalars(query.order_by(MasterRow.path)).all()

    def counts(self) -> dict[str, int]:
        """Return how many data files are in each state."""
        with self.session() as session:
            found = session.execute(select(DataFileRow.state, func.count()).group_by(DataFileRow.state)).all()
        return {state: int(count) for state, count in found}

    def problems(self) -> dict[str, str]:
        """Return path and reason of every file that cannot be read."""
        with self.session() as session:
            data = session.execute(select(DataFileRow.path, DataFileRow.reason).where(DataFileRow.state == "broken"))
            masters = session.execute(select(MasterRow.path, MasterRow.reason).where(MasterRow.reason != ""))
            return {path: reason for found in (data, masters) for path, reason in found}


class _OtherVersion(Exception):
    """The database was made by another version of this module."""


def _open(path: Path | None) -> Engine:
    """Open or make the database; several threads, one writer at a time."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
    if path is None:
        from sqlalchemy.pool import StaticPool

        engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    else:
        engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": 30})

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _: Any) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=NORMAL")
        cursor.close()

    with engine.begin() as connection:
        found = connection.exec_driver_sql("PRAGMA user_version").scalar()
        if found not in (0, _VERSION):
            raise _OtherVersion
        Base.metadata.create_all(connection)
        connection.exec_driver_sql(f"PRAGMA user_version={_VERSION}")
    return engine


def _source_row(source: SourceSummary) -> SourceRow:
    def known(time: float) -> float | None:
        return None if math.isnan(time) else time

    return SourceRow(
        source=source.source,
        timeline=source.timeline,
        rows=source.rows,
        first_time=known(source.first_time),
        last_time=known(source.last_time),
        settled_time=known(source.settled_time),
        fields=json.dumps([asdict(each) for each in source.fields]),
    )
