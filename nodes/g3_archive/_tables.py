"""The tables of the index.

``feeds``, ``fields`` and ``description`` are those of existing sisock sites, which other programs read and write: their
columns, keys and index names are the contract. What this project needs beyond is in tables of its own, whose names
begin with ``sisockdaq_``; they can be emptied at any time and are filled again by a scan.

Times in the contract's tables are UTC without a zone; in ours they are UNIX times [s].
"""

from __future__ import annotations

import math
from datetime import datetime, timedelta

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Double,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    false,
)
from sqlalchemy.dialects import mysql

__all__ = [
    "CONTRACT_COLUMNS",
    "LONGEST",
    "description",
    "feeds",
    "fields",
    "files",
    "from_unix",
    "metadata",
    "names",
    "spans",
    "to_unix",
]

LONGEST = 255
"""Letters that a name may have in the contract's tables."""

_LATEST = 253_402_300_799.0
"""End of the year 9999 [s], the last that the databases take."""

metadata = MetaData()

_moment = DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql")
_number = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up only what is called INTEGER.
_exact = String(510).with_variant(mysql.VARCHAR(510, charset="utf8mb4", collation="utf8mb4_bin"), "mysql")
_long = Text().with_variant(mysql.MEDIUMTEXT(charset="utf8mb4", collation="utf8mb4_bin"), "mysql")

feeds = Table(
    "feeds",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("filename", String(LONGEST)),
    Column("path", String(LONGEST)),
    Column("prov_id", Integer),
    Column("description", String(LONGEST)),
    Column("scanned", Boolean, nullable=False, server_default=false()),
    Index("feed_index", "filename", "prov_id", unique=True),
)
"""One row a file and provider; ``path`` is the file's folder."""

fields = Table(
    "fields",
    metadata,
    Column("feed_id", Integer, nullable=False),
    Column("field", String(LONGEST)),
    Column("start", _moment),
    Column("end", _moment),
    Index("index_field", "feed_id", "field", unique=True),
)
"""First and last time of each field of a row of ``feeds``; names as they are in the file."""

description = Table("description", metadata, Column("description", String(LONGEST), primary_key=True))
"""Every name that there ever was, as the network has it."""

CONTRACT_COLUMNS = {table.name: {column.name for column in table.columns} for table in (feeds, fields, description)}

files = Table(
    "sisockdaq_files",
    metadata,
    Column("id", _number, primary_key=True, autoincrement=True),
    Column("path", _exact, nullable=False, unique=True),
    Column("size", BigInteger, nullable=False),
    Column("changed_ns", BigInteger, nullable=False),
    Column("scanned_to", BigInteger, nullable=False),
    Column("fingerprint", String(16), nullable=False),
    Column("state", String(16), nullable=False, index=True),
    Column("reason", _long, nullable=False),
    Column("providers", _long, nullable=False),
    mysql_engine="InnoDB",
)
"""One row a file. ``scanned_to``: indexed up to that byte, before which it has that fingerprint;
``providers``: those named before it, as JSON."""

spans = Table(
    "sisockdaq_spans",
    metadata,
    Column("id", _number, primary_key=True, autoincrement=True),
    Column("file_id", BigInteger, nullable=False, index=True),
    Column("feed_id", Integer, index=True),
    Column("prov_id", Integer, nullable=False),
    Column("provider", _exact, nullable=False),
    Column("first", Double, nullable=False),
    Column("last", Double, nullable=False),
    Column("frames", _long, nullable=False),
    Index("sisockdaq_spans_time", "provider", "first", "last"),
    mysql_engine="InnoDB",
)
"""One row a file and provider. ``frames`` as JSON: ``[[first byte, first time, last time, samples], …]``; "" where the
file was indexed by another program and not yet by this one. ``feed_id`` is null where ``feeds`` has no room for it."""

names = Table(
    "sisockdaq_fields",
    metadata,
    Column("name", _exact, primary_key=True),
    Column("provider", _exact, nullable=False),
    Column("timeline", _exact, nullable=False),
    Column("type", String(8), nullable=False),
    Column("first", Double, nullable=False),
    Column("last", Double, nullable=False),
    mysql_engine="InnoDB",
)
"""One row a field of the network, over all files."""


def from_unix(t: float, *, up: bool = False) -> datetime:
    """Return a time of the contract's tables, rounded to microseconds down or up; never the machine's zone."""
    microseconds = min(max(t, 0.0), _LATEST) * 1e6
    return datetime(1970, 1, 1) + timedelta(microseconds=math.ceil(microseconds) if up else math.floor(microseconds))


def to_unix(moment: datetime) -> float:
    """Return the UNIX time [s] of a time of the contract's tables."""
    return (moment - datetime(1970, 1, 1)) / timedelta(seconds=1)
