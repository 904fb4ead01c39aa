"""The node: a scan that goes on in a thread, and answers from the index and the files it names."""

from __future__ import annotations

import importlib.util
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field, SecretStr
from sisockdaq.nodes.g3_archive._cache import Cache
from sisockdaq.nodes.g3_archive._database import database_url
from sisockdaq.nodes.g3_archive._index import Index
from sisockdaq.nodes.g3_archive._read import Reader
from sisockdaq.nodes.g3_archive._scan import Scanner, Status
from sisockdaq.nodes.g3_archive._worker import Worker
from twisted.logger import Logger

from sisockdaq.base import DataNodeServer
from sisockdaq.errors import ConfigurationError, ConnectionFailed, SisockdaqError
from sisockdaq.schema import FieldList, Reply

__all__ = ["G3Archive"]

_log = Logger("sisockdaq.g3_archive")

_TICK = 0.25
"""Time between looks at the clock of the scan [s]."""

_FIRST_WAIT, _LONGEST_WAIT = 1.0, 60.0
"""Time until a database or a folder that failed is tried again [s]; doubled each time."""

_TELL_PERIOD = 1.0
"""Shortest time between two samples of the progress [s]."""

_MARGIN = 3.0
"""An answer is given up so long before the node's deadline, so that the caller learns why [s]."""


class G3Archive(DataNodeServer):
    """Housekeeping data from so3g files."""

    class Options(DataNodeServer.Options):
        """Which folder, which database, and how much memory."""

        directory: Path = Field(
            Path("/data"),
            description="Folder of the .g3 files; all folders below it are looked through.",
            json_schema_extra={"environment": "DATA_DIRECTORY"},
        )
        scan_interval: float = Field(
            60.0, gt=0, description="Time between scans [s].", json_schema_extra={"environment": "SCAN_INTERVAL"}
        )
        settle_time: float = Field(
            900.0, ge=0, description="A file that did not change for so long is no longer being written [s]."
        )
        max_points: int | None = Field(
            None,
            ge=0,
            description="Most points of one field in an answer, extremes kept; 0 or nothing: no limit.",
            json_schema_extra={"environment": "MAX_POINTS"},
        )
        cache: int = Field(256, ge=1, description="Memory for decoded data [MiB].")
        database: SecretStr | None = Field(
            None,
            description="URL of the index: mysql+pymysql://USER@HOST/DATABASE or sqlite:////PATH. "
            "By default a SQLite file in the state directory.",
        )
        sql_host: str | None = Field(
            None, description="Host, or host:port, of MariaDB.", json_schema_extra={"environment": "SQL_HOST"}
        )
        sql_user: str | None = Field(
            None, description="User of the database.", json_schema_extra={"environment": "SQL_USER"}
        )
        sql_passwd: SecretStr | None = Field(
            None, description="The user's password.", json_schema_extra={"environment": "SQL_PASSWD"}
        )
        sql_db: str | None = Field(
            None, description="Name of the database.", json_schema_extra={"environment": "SQL_DB"}
        )

    def setup(self) -> None:
        """Declare the status, and begin to scan."""
        if importlib.util.find_spec("so3g") is None:
            raise ConfigurationError(
                "so3g, which reads .g3 files, is not installed",
                remedy="pip install 'sisockdaq[g3]' (it has wheels for Python 3.11)",
            )
        for name, units, about in (
            ("files_scanned", None, "Files that are in the index."),
            ("files_waiting", None, "Files that the present scan has still to open."),
            ("files_growing", None, "Files that are being written."),
            ("files_broken", None, "Files that cannot be read, or not to their end."),
            ("scan_time_left", "s", "Time that the present scan will still take."),
            ("cache_size", "MiB", "Memory that decoded data take."),
            ("reader_deaths", None, "How often the process that opens files died or was killed at work."),
        ):
            self.series(name, units=units, description=about, timeline="status", keep=86400)
        self.series("database_up", type="bool", description="Whether the index answers.", timeline="status", keep=86400)
        self.series("problem", type="string", description="What is wrong now.", timeline="status", keep=86400)
        self._set_up_parts()
        self.every(_TICK, self._tick, in_thread=True)

    def teardown(self) -> None:
        """End the scan and the processes that open files."""
        if "scanner" not in self.__dict__:
            return  # `setup` failed before there was anything to end.
        self.scanner.stop()
        for worker in (self.scanner.worker, self.reader.worker):
            worker.close()
        self.index.close()

    def _get_schema_blocking(self, start: float, end: float) -> FieldList:
        own: FieldList = self.store.fields(start, end)
        try:
            recorded = self.reader.listing(start, end)
        except ConnectionFailed as error:
            own.problems.append(error.message)
            return own
        return FieldList({**recorded.fields, **own.fields}, {**recorded.timelines, **own.timelines})

    def _get_samples_blocking(
        self,
        fields: Sequence[str],
        start: float,
        end: float,
        max_points: int | None = None,
        min_stride: float | None = None,
    ) -> Reply:
        # The names of recorded fields have a dot between provider and field, the node's own have none.
        recorded = [name for name in fields if "." in name]
        own = [name for name in fields if "." not in name]
        reply: Reply = self.store.get(own, start, end, max_points=max_points, min_stride=min_stride)
        if recorded:
            found = self.reader.samples(recorded, start, end, max_points, min_stride)
            reply.samples.update(found.samples)
            reply.unknown.extend(found.unknown)
            reply.problems.extend(found.problems)
        return reply

    def _set_up_parts(self) -> None:
        options = self.options
        secret = options.sql_passwd.get_secret_value() if options.sql_passwd is not None else None
        database = options.database.get_secret_value() if options.database is not None else None
        url = database_url(
            database, options.sql_host, options.sql_user, secret, options.sql_db, self._default_database()
        )
        if url.get_backend_name() == "mysql" and importlib.util.find_spec("pymysql") is None:
            raise ConfigurationError("PyMySQL is not installed", remedy="pip install 'sisockdaq[mysql]'")
        self.index = Index(url)
        self.scanner = Scanner(self.index, Worker(), self._directory(), options.settle_time, self._progress)
        self.reader = Reader(
            self.index, Worker(), Cache(options.cache << 20), options.max_points, self.deadline - _MARGIN, self._unknown
        )
        self._prepared = False
        self._database_up = False
        self._problem = ""
        self._next_look = 0.0
        self._wait = _FIRST_WAIT
        self._next_tell = 0.0
        self._told: dict[str, str] = {}

    def _directory(self) -> Path:
        directory: Path = self.options.directory
        if self.site is not None:
            return Path(self.site.resolve_input(directory))
        return Path(os.path.normpath(directory.expanduser().absolute()))

    def _default_database(self) -> Path:
        name = f"g3-{self.name}.sqlite"
        if self.state is not None:
            return self.state.path / name
        # Without a place of its own the index lasts as long as the node: a scan makes it again.
        self._folder = tempfile.TemporaryDirectory(prefix="sisockdaq-g3-")
        return Path(self._folder.name) / name

    def _unknown(self) -> int:
        return self.scanner.status.files_unknown if self.scanner.listed else 1

    def _tick(self) -> None:
        """Scan when it is time; after a failure ever more rarely."""
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + self.options.scan_interval
        try:
            if not self._prepared:
                self.index.prepare()
                self._prepared = True
            self._database_up = True
            self.scanner.look()
        except SisockdaqError as error:
            self._database_up = not isinstance(error, ConnectionFailed)
            self._prepared = self._prepared and self._database_up
            self._say(str(error))
            self._next_look = time.monotonic() + self._wait
            self._wait = min(2 * self._wait, _LONGEST_WAIT)
        else:
            self._say("")
            self._wait = _FIRST_WAIT
            self._next_look = time.monotonic() + self.options.scan_interval
        self._append(self.scanner.status)

    def _say(self, problem: str) -> None:
        """Log a change of what is wrong, once."""
        if problem != self._problem:
            _log.warn("{problem}", problem=problem) if problem else _log.info("in order again")
        self._problem = problem

    def _progress(self, status: Status) -> None:
        for path, reason in status.problems.items():
            if self._told.get(path) != reason:
                _log.warn("{reason}", reason=reason)
        self._told = dict(status.problems)
        if time.monotonic() >= self._next_tell:
            self._next_tell = time.monotonic() + _TELL_PERIOD
            self._append(status)

    def _append(self, status: Status) -> None:
        self.store.timelines["status"].append(
            time.time(),
            {
                "files_scanned": status.files_scanned,
                "files_waiting": status.files_waiting,
                "files_growing": status.files_growing,
                "files_broken": status.files_broken,
                "scan_time_left": status.seconds_left,
                "cache_size": self.reader.cache.size / 2**20,
                "reader_deaths": self.scanner.worker.deaths + self.reader.worker.deaths,
                "database_up": self._database_up,
                "problem": self._problem,
            },
        )
