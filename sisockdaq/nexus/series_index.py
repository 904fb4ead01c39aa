"""What is in which series file, in the same database as the index of acquisitions.

Thousands of files say the same of hundreds of fields, so what they say is kept once (`TableKind`), and a file has one
row for each of its tables: how many rows, from when to when. A file that grows costs an update of those numbers.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sqlalchemy import ForeignKey, delete, func, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from sisockdaq.nexus.index import Base, Index, Stamp
from sisockdaq.nexus.series_plan import TablePlan, read_tables, tables_text
from sisockdaq.nexus.series_reader import Growth, SeriesFileSummary
from sisockdaq.schema import SEPARATOR

__all__ = ["KindSpan", "SeriesIndex", "TablePiece"]


class SeriesFileRow(Base):
    """A series file; ``state`` is finished, growing, left or broken."""

    __tablename__ = "series_files"

    path: Mapped[str] = mapped_column(primary_key=True)
    size: Mapped[int]
    changed_ns: Mapped[int]
    state: Mapped[str]
    reason: Mapped[str] = mapped_column(default="")


class TableKind(Base):
    """What tables of many files say: node, timeline and fields (`series_plan.tables_text` of one table)."""

    __tablename__ = "series_kinds"

    id: Mapped[int] = mapped_column(primary_key=True)
    digest: Mapped[str] = mapped_column(unique=True)
    content: Mapped[str]


class MemberRow(Base):
    """A field of a kind of table."""

    __tablename__ = "series_members"

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[int] = mapped_column(ForeignKey("series_kinds.id"))
    name: Mapped[str] = mapped_column(index=True)
    """Full name: ``node::field``."""


class TableRow(Base):
    """A table of a file; times are None while it has no row."""

    __tablename__ = "series_tables"

    id: Mapped[int] = mapped_column(primary_key=True)
    path: Mapped[str] = mapped_column(ForeignKey("series_files.path", ondelete="CASCADE"), index=True)
    number: Mapped[int]
    kind: Mapped[int] = mapped_column(ForeignKey("series_kinds.id"), index=True)
    rows: Mapped[int]
    first_time: Mapped[float | None]
    last_time: Mapped[float | None] = mapped_column(index=True)


@dataclass(frozen=True, slots=True)
class TablePiece:
    """A table of a file that has samples in a span; `version` changes with the file."""

    path: Path
    number: int
    plan: TablePlan
    state: str
    version: tuple[int, int]
    first_time: float


@dataclass(frozen=True, slots=True)
class KindSpan:
    """A kind of table, and what all files have of it in a span: the sum of their intervals, and the newest time."""

    plan: TablePlan
    seconds: float
    intervals: int
    last_time: float


class SeriesIndex:
    """The series files of one archive; may be used from several threads.

    Parameters
    ----------
    index : Index
        Whose database is used.
    """

    def __init__(self, index: Index) -> None:
        self._index = index
        index.make_tables()
        self._plans: dict[int, TablePlan] = {}

    def stamps(self) -> dict[str, tuple[Stamp, str]]:
        """Return stamp and state of every known file, by path."""
        with self._index.session() as session:
            found = session.execute(
                select(SeriesFileRow.path, SeriesFileRow.size, SeriesFileRow.changed_ns, SeriesFileRow.state)
            )
            return {path: (Stamp(size, changed), state) for path, size, changed, state in found}

    def rows(self, path: Path) -> dict[int, int]:
        """Return how many rows of each table of a file are known."""
        with self._index.session() as session:
            found = session.execute(select(TableRow.number, TableRow.rows).where(TableRow.path == os.fspath(path)))
            return {row.number: row.rows for row in found}

    def put(self, summary: SeriesFileSummary, state: str, seen: Stamp) -> None:
        """Store what a file holds now."""
        path = os.fspath(summary.path)
        with self._index.session() as session, session.begin():
            session.execute(delete(TableRow).where(TableRow.path == path))
            session.merge(SeriesFileRow(path=path, size=seen.size, changed_ns=seen.changed_ns, state=state, reason=""))
            session.flush()
            for number, (table, growth) in enumerate(zip(summary.tables, summary.growths, strict=True)):
                kind = self._kind(session, table)
                session.add(
                    TableRow(
                        path=path, number=number, kind=kind, rows=growth.rows,
                        first_time=growth.first, last_time=growth.last,
                    )
                )  # fmt: skip

    def grow(self, path: Path, growths: Mapping[int, Growth], state: str, seen: Stamp) -> None:
        """Add to what is known of a file the rows that it has got since."""
        name = os.fspath(path)
        values = {"size": seen.size, "changed_ns": seen.changed_ns, "state": state, "reason": ""}
        with self._index.session() as session, session.begin():
            session.execute(update(SeriesFileRow).where(SeriesFileRow.path == name).values(**values))
            for number, growth in growths.items():
                if growth.first is None or growth.last is None:
                    continue
                row = session.scalars(select(TableRow).where(TableRow.path == name, TableRow.number == number)).one()
                row.rows = growth.rows
                row.first_time = growth.first if row.first_time is None else min(row.first_time, growth.first)
                row.last_time = growth.last if row.last_time is None else max(row.last_time, growth.last)

    def put_broken(self, path: Path, reason: str, seen: Stamp) -> None:
        """Store that a file cannot be read. What was known of it before is forgotten."""
        name = os.fspath(path)
        with self._index.session() as session, session.begin():
            session.execute(delete(TableRow).where(TableRow.path == name))
            session.merge(
                SeriesFileRow(path=name, size=seen.size, changed_ns=seen.changed_ns, state="broken", reason=reason)
            )

    def forget(self, paths: Iterable[str]) -> None:
        """Remove files that are gone."""
        with self._index.session() as session, session.begin():
            for path in paths:
                session.execute(delete(TableRow).where(TableRow.path == path))
                session.execute(delete(SeriesFileRow).where(SeriesFileRow.path == path))

    def pieces(self, name: str, start: float, end: float) -> list[TablePiece]:
        """Return the tables with samples of a field in ``[start, end)``, in the order of time."""
        query = (
            select(TableRow, SeriesFileRow)
            .join(SeriesFileRow, SeriesFileRow.path == TableRow.path)
            .join(MemberRow, MemberRow.kind == TableRow.kind)
            .where(MemberRow.name == name, TableRow.last_time >= start, TableRow.first_time < end)
            .order_by(TableRow.first_time)
        )
        with self._index.session() as session:
            return [
                TablePiece(
                    Path(table.path), table.number, self._plan(session, table.kind), file.state,
                    (file.size, file.changed_ns), table.first_time or 0.0,
                )
                for table, file in session.execute(query)
            ]  # fmt: skip

    def latest(self, name: str) -> float | None:
        """Return the newest time of a field, or None where no file has a sample of it."""
        query = (
            select(func.max(TableRow.last_time))
            .join(MemberRow, MemberRow.kind == TableRow.kind)
            .where(MemberRow.name == name)
        )
        with self._index.session() as session:
            return session.scalar(query)

    def knows(self, name: str) -> bool:
        """Say whether any file has a field."""
        query = select(MemberRow.id).join(TableRow, TableRow.kind == MemberRow.kind).where(MemberRow.name == name)
        with self._index.session() as session:
            return session.scalar(query.limit(1)) is not None

    def kinds(self, start: float | None = None, end: float | None = None) -> Sequence[KindSpan]:
        """Return what tables there are with samples in ``[start, end)``, in the order of their newest samples."""
        seconds = func.sum(TableRow.last_time - TableRow.first_time)
        last = func.max(TableRow.last_time)
        query = select(TableRow.kind, seconds, func.sum(TableRow.rows - 1), last).where(TableRow.rows > 0)
        if start is not None:
            query = query.where(TableRow.last_time >= start)
        if end is not None:
            query = query.where(TableRow.first_time < end)
        with self._index.session() as session:
            found = session.execute(query.group_by(TableRow.kind).order_by(last)).all()
            return [
                KindSpan(self._plan(session, kind), float(span or 0.0), int(count), float(newest or 0.0))
                for kind, span, count, newest in found
            ]

    def counts(self) -> dict[str, int]:
        """Return how many files are in each state."""
        with self._index.session() as session:
            found = session.execute(select(SeriesFileRow.state, func.count()).group_by(SeriesFileRow.state)).all()
        return {state: int(count) for state, count in found}

    def problems(self) -> dict[str, str]:
        """Return path and reason of every file that cannot be read."""
        with self._index.session() as session:
            found = session.execute(
                select(SeriesFileRow.path, SeriesFileRow.reason).where(SeriesFileRow.state == "broken")
            )
            return {row.path: row.reason for row in found}

    @staticmethod
    def _kind(session: Session, table: TablePlan) -> int:
        content = tables_text((replace(table, interval=1.0),))
        digest = hashlib.sha256(content.encode()).hexdigest()
        known = session.scalar(select(TableKind.id).where(TableKind.digest == digest))
        if known is not None:
            return known
        made = TableKind(digest=digest, content=content)
        session.add(made)
        session.flush()
        session.add_all(MemberRow(kind=made.id, name=f"{table.node}{SEPARATOR}{plan.name}") for plan in table.fields)
        return made.id

    def _plan(self, session: Session, kind: int) -> TablePlan:
        if kind not in self._plans:
            row = session.get_one(TableKind, kind)
            self._plans[kind] = read_tables(row.content)[0]
        return self._plans[kind]
