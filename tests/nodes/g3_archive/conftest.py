"""What the tests of the g3 archive share: files that so3g itself writes, both databases, the process that reads."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sisockdaq.nodes.g3_archive._cache import Cache
from sisockdaq.nodes.g3_archive._index import Index
from sisockdaq.nodes.g3_archive._read import Reader
from sisockdaq.nodes.g3_archive._scan import Scanner
from sisockdaq.nodes.g3_archive._worker import Worker
from sqlalchemy import URL, create_engine, make_url, text

from sisockdaq.testing import wait_until

T0 = 1_600_000_000.0
"""A round second, long ago."""

LONG_AGO = (T0, T0)
"""Access and change time of a file that nobody writes any more."""

Block = Mapping[str, Any]


def so3g() -> tuple[Any, Any, Any]:
    """``so3g``, ``spt3g.core`` and ``so3g.hk``; skip where there are none."""
    module = pytest.importorskip("so3g", reason="so3g is not installed: it has wheels for Python 3.11")
    from so3g import hk
    from spt3g import core

    return module, core, hk


class Recorder:
    """Writes one file as OCS's aggregator does: session and status, then frames of data."""

    def __init__(self, path: Path, providers: Sequence[str] = ("observatory.LSA22YE",), version: int = 2) -> None:
        self.so3g, self.core, hk = so3g()
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.session = hk.HKSessionHelper(session_id=7, start_time=T0, hkagg_version=version, description="test")
        self.ids = {text: self.session.add_provider(text) for text in providers}
        self.write(self.session.session_frame(), self.session.status_frame(T0))

    def add(self, t: Any, block: Block, name: str = "temperatures", provider: str = "observatory.LSA22YE") -> Recorder:
        """Append a frame with one block."""
        frame = self.session.data_frame(self.ids[provider], float(np.min(t)))
        if self.session.hkagg_version == 0:
            old = self.so3g.IrregBlockDouble()
            old.t = np.asarray(t, dtype=float)
            for field, values in block.items():
                old.data[field] = values
            frame["blocks"].append(old)
            return self.write(frame)
        made = self.core.G3TimesampleMap()
        made.times = self.core.G3VectorTime([self.core.G3Time(float(x) * self.core.G3Units.s) for x in t])
        for field, values in block.items():
            made[field] = self._vector(values)
        frame["blocks"].append(made)
        frame["block_names"].append(name)
        return self.write(frame)

    def write(self, *frames: Any) -> Recorder:
        """Append any frames: a file is nothing but frames one after the other."""
        with tempfile.TemporaryDirectory() as folder:
            part = Path(folder, "part.g3")
            writer = self.core.G3Writer(str(part))
            for frame in frames:
                writer.Process(frame)
            writer.Process(self.core.G3Frame(self.core.G3FrameType.EndProcessing))
            del writer
            with self.path.open("ab") as file:
                file.write(part.read_bytes())
        return self

    def close(self) -> Path:
        """Make it look as if it had been written long ago."""
        os.utime(self.path, LONG_AGO)
        return self.path

    def _vector(self, values: Any) -> Any:
        first = values[0]
        if isinstance(first, str):
            return self.core.G3VectorString(list(values))
        if isinstance(first, bool | np.bool_):
            return self.core.G3VectorBool([bool(value) for value in values])
        if isinstance(first, int | np.integer):
            return self.core.G3VectorInt([int(value) for value in values])
        return self.core.G3VectorDouble(np.asarray(values, dtype=float))


class Archive:
    """Scanner and reader over one folder and index, as the node puts them together."""

    def __init__(self, url: URL, directory: Path, worker: Worker, settle_time: float = 900.0) -> None:
        self.index = Index(url)
        self.scanner = Scanner(self.index, worker, directory, settle_time, lambda status: None)
        self.cache = Cache(64 << 20)
        self.reader = Reader(
            self.index, worker, self.cache, None, 25.0,
            lambda: self.scanner.status.files_unknown if self.scanner.listed else 1,
        )  # fmt: skip
        self.index.prepare()

    def get(self, name: str, start: float = 1.0, end: float = 4e9, **limits: Any) -> Any:
        """Return the samples of one field."""
        reply = self.reader.samples([name], start, end, limits.get("max_points"), limits.get("min_stride"))
        assert not reply.unknown
        assert not reply.problems
        return reply.samples[name]

    def rows(self, question: str) -> list[tuple[Any, ...]]:
        """Ask the database itself."""
        engine = create_engine(self.index.url)
        with engine.connect() as connection:
            found = [tuple(row) for row in connection.execute(text(question))]
        engine.dispose()
        return found


@pytest.fixture(scope="session")
def worker() -> Iterator[Worker]:
    """The process that opens files; one for all tests that do not kill it."""
    so3g()
    made = Worker()
    yield made
    made.close()


@pytest.fixture(scope="session")
def mariadb() -> Iterator[URL]:
    """A MariaDB server of this run's own, on a unix socket only; its user ``sisock`` has a password."""
    install, server = shutil.which("mariadb-install-db"), shutil.which("mariadbd", path=os.defpath + ":/usr/sbin:/sbin")
    if install is None or server is None:
        pytest.skip("MariaDB is not installed here")
    pytest.importorskip("pymysql", reason="PyMySQL is not installed")
    with tempfile.TemporaryDirectory(prefix="mariadb") as folder:  # Short: it is the path of a socket.
        data, socket = Path(folder, "data"), Path(folder, "s")
        as_root = ["--user=root"] if os.getuid() == 0 else []
        subprocess.run(
            [install, "--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal",
             "--skip-test-db", *as_root],
            check=True, capture_output=True, timeout=60,
        )  # fmt: skip
        process = subprocess.Popen(
            [server, "--no-defaults", f"--datadir={data}", f"--socket={socket}", "--skip-networking",
             "--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=16M", f"--log-error={folder}/log",
             f"--pid-file={folder}/pid", *as_root],
        )  # fmt: skip
        try:
            root = make_url(f"mysql+pymysql://root@localhost/mysql?unix_socket={socket}&charset=utf8mb4")
            wait_until(lambda: _answers(root), 30, "MariaDB to answer")
            _execute(root, "CREATE USER sisock@localhost IDENTIFIED BY 'hush'")
            _execute(root, "GRANT ALL ON *.* TO sisock@localhost")
            yield root.set(username="sisock", password="hush")
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()


@pytest.fixture
def mariadb_url(mariadb: URL) -> Iterator[URL]:
    """An empty database of MariaDB."""
    _execute(mariadb, "CREATE DATABASE files")
    yield mariadb.set(database="files")
    _execute(mariadb, "DROP DATABASE files")


@pytest.fixture(params=["sqlite", "mariadb"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> URL:
    """An empty database of either kind."""
    if request.param == "sqlite":
        return URL.create("sqlite", database=str(tmp_path / "index.sqlite"))
    found: URL = request.getfixturevalue("mariadb_url")
    return found


@pytest.fixture
def archive(url: URL, tmp_path: Path, worker: Worker) -> Iterator[Archive]:
    """Scanner and reader over an empty folder."""
    (tmp_path / "g3").mkdir()
    made = Archive(url, tmp_path / "g3", worker)
    yield made
    made.index.close()


@pytest.fixture
def sqlite_archive(tmp_path: Path, worker: Worker) -> Iterator[Callable[..., Archive]]:
    """Make archives over SQLite, each with the worker of the run or its own."""
    made: list[Archive] = []
    (tmp_path / "g3").mkdir()

    def make(own_worker: Worker | None = None, **options: Any) -> Archive:
        url = URL.create("sqlite", database=str(tmp_path / f"index{len(made)}.sqlite"))
        made.append(Archive(url, tmp_path / "g3", own_worker or worker, **options))
        return made[-1]

    yield make
    for one in made:
        one.index.close()


def _answers(url: URL) -> bool:
    try:
        _execute(url, "SELECT 1")
    except Exception:  # Not yet, for whatever reason; the wait has a deadline.
        return False
    return True


def _execute(url: URL, statement: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()
