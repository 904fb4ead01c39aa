"""The scan: what it puts into the tables that other programs read, and what it does not open again."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from sisockdaq.nodes.g3_archive import _tables as tables
from sisockdaq.nodes.g3_archive._worker import Worker
from sqlalchemy import URL, create_engine, insert

from sisockdaq.errors import ConfigurationError, FileUnreadable, StorageError
from tests.nodes.g3_archive.conftest import LONG_AGO, T0, Archive, Recorder

SECONDS = np.arange(10.0)


def record(path: Path, begin: float = T0, value: float = 0.0) -> Recorder:
    block = {"Channel 01 R": value + SECONDS, "Channel 01 T": value - SECONDS}
    return Recorder(path).add(begin + SECONDS, block)


def test_the_tables_are_those_of_existing_sites(archive: Archive) -> None:
    folder = archive.scanner.directory / "16000"
    recorder = Recorder(folder / "1600000000.g3", ["observatory.LSA22YE", "observatory.host"])
    recorder.add(T0 + 0.5 + SECONDS, {"Channel 01 R": SECONDS})
    recorder.add(T0 + 20.25 + SECONDS, {"load": SECONDS}, "host", "observatory.host").close()
    archive.scanner.look()
    assert archive.rows("SELECT filename, path, prov_id, description, scanned FROM feeds ORDER BY prov_id") == [
        ("1600000000.g3", str(folder), 0, "observatory.LSA22YE", 1),
        ("1600000000.g3", str(folder), 1, "observatory.host", 1),
    ]
    rows = archive.rows("SELECT D.description, F.field, F.start, F.end FROM fields F JOIN feeds D ON F.feed_id = D.id")
    moments = {(name, field): (_moment(start), _moment(end)) for name, field, start, end in rows}
    assert moments == {
        ("observatory.LSA22YE", "Channel 01 R"): (
            datetime(2020, 9, 13, 12, 26, 40, 500000), datetime(2020, 9, 13, 12, 26, 49, 500000)
        ),
        ("observatory.host", "load"): (
            datetime(2020, 9, 13, 12, 27, 0, 250000), datetime(2020, 9, 13, 12, 27, 9, 250000)
        ),
    }  # fmt: skip
    names = {row[0] for row in archive.rows("SELECT description FROM description")}
    assert names == {"observatory.LSA22YE.channel_01_r", "observatory.host.load"}


def test_the_old_reader_finds_the_files(mariadb_url: URL, worker: Worker, tmp_path: Path) -> None:
    """Its own way to ask: with dashes between hours, minutes and seconds."""
    for i in range(3):
        record(tmp_path / f"{i}.g3", T0 + 100 * i).close()
    archive = Archive(mariadb_url, tmp_path, worker)
    archive.scanner.look()
    start, end = (datetime.fromtimestamp(T0 + t, UTC).strftime("%Y-%m-%d %H-%M-%S.%f") for t in (105.5, 150))
    found = archive.rows(
        "SELECT path, filename FROM feeds WHERE id IN "
        f"(SELECT DISTINCT feed_id FROM fields WHERE end > '{start}' AND start < '{end}')"
    )
    assert found == [(str(tmp_path), "1.g3")]
    archive.index.close()


def test_names_that_differ_in_case_only_are_served(archive: Archive) -> None:
    """MariaDB takes them for one in the tables of existing sites."""
    directory = archive.scanner.directory
    recorder = Recorder(directory / "a.g3", ["observatory.X", "observatory.x"])
    recorder.add(T0 + SECONDS, {"Temp": SECONDS, "temp": 10 + SECONDS}, "b", "observatory.X")
    recorder.add(T0 + SECONDS, {"temp": 20 + SECONDS}, "b", "observatory.x").close()
    recorder = Recorder(directory / "A.g3", ["observatory.X"])
    recorder.add(T0 + 50 + SECONDS, {"temp": SECONDS}, "b", "observatory.X").close()
    archive.scanner.look()
    assert archive.get("observatory.X.temp").values.tolist() == [*SECONDS, *SECONDS]
    assert archive.get("observatory.x.temp").values.tolist() == (20 + SECONDS).tolist()


def test_what_the_database_refuses_harms_no_other_file(mariadb_url: URL, worker: Worker, tmp_path: Path) -> None:
    engine = create_engine(mariadb_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER DATABASE files CHARACTER SET latin1")
    engine.dispose()
    Recorder(tmp_path / "a.g3").add(T0 + SECONDS, {"温度": SECONDS}).close()
    record(tmp_path / "b.g3").close()
    archive = Archive(mariadb_url, tmp_path, worker)
    archive.scanner.look()
    assert archive.scanner.status.files_broken == 1
    assert "hush" not in str(archive.scanner.status.problems)
    assert len(archive.get("observatory.LSA22YE.channel_01_r")) == 10
    archive.index.close()


def test_mariadb_has_microseconds_and_the_old_indexes(mariadb_url: URL, worker: Worker, tmp_path: Path) -> None:
    archive = Archive(mariadb_url, tmp_path, worker)
    columns = {row[0]: row[1].lower() for row in archive.rows("DESCRIBE fields")}
    assert columns["start"] == columns["end"] == "datetime(6)"
    unique = {(row[2], row[4]) for row in archive.rows("SHOW INDEX FROM feeds") if not row[1]}
    assert unique == {("PRIMARY", "id"), ("feed_index", "filename"), ("feed_index", "prov_id")}
    unique = {(row[2], row[4]) for row in archive.rows("SHOW INDEX FROM fields") if not row[1]}
    assert unique == {("index_field", "feed_id"), ("index_field", "field")}
    archive.index.close()


def test_files_that_did_not_change_are_not_opened_again(archive: Archive) -> None:
    directory = archive.scanner.directory
    for i in range(3):
        record(directory / f"{i}.g3", T0 + 100 * i).close()
    archive.scanner.look()
    assert archive.scanner.opened == 3
    assert archive.scanner.status.files_scanned == 3
    archive.scanner.look()
    assert archive.scanner.opened == 3
    record(directory / "new" / "3.g3", T0 + 300).close()
    archive.scanner.look()
    assert archive.scanner.opened == 4
    assert len(archive.get("observatory.LSA22YE.channel_01_r")) == 40


def test_a_growing_file_is_continued(archive: Archive) -> None:
    path = archive.scanner.directory / "a.g3"
    recorder = record(path)
    archive.scanner.look()
    assert archive.scanner.status.files_growing == 1
    assert archive.rows("SELECT scanned FROM feeds") == [(0,)]
    assert archive.get("observatory.LSA22YE.channel_01_r").finalized_until == T0 + 9
    known = archive.index.known()[str(path)]
    assert known.offset == path.stat().st_size
    recorder.add(T0 + 100 + SECONDS, {"Channel 01 R": 100 + SECONDS, "Channel 02 R": SECONDS})
    archive.scanner.look()
    samples = archive.get("observatory.LSA22YE.channel_01_r")
    np.testing.assert_array_equal(samples.t, np.r_[T0 + SECONDS, T0 + 100 + SECONDS])
    np.testing.assert_array_equal(samples.values, np.r_[SECONDS, 100 + SECONDS])
    assert samples.finalized_until == T0 + 109
    assert len(archive.get("observatory.LSA22YE.channel_02_r")) == 10
    assert len(archive.index.spans(["observatory.LSA22YE"], 1, 4e9)) == 1
    recorder.close()
    archive.scanner.look()
    assert archive.scanner.status.files_growing == 0
    assert archive.rows("SELECT scanned FROM feeds") == [(1,)]


def test_a_frame_half_written_is_waited_for(sqlite_archive: Callable[..., Archive]) -> None:
    archive = sqlite_archive()
    path = archive.scanner.directory / "a.g3"
    recorder = record(path)
    whole = path.stat().st_size
    recorder.add(T0 + 100 + SECONDS, {"Channel 01 R": SECONDS})
    everything = path.read_bytes()
    path.write_bytes(everything[: whole + 50])
    archive.scanner.look()
    assert archive.scanner.status.files_growing == 1
    assert archive.scanner.status.files_broken == 0
    assert len(archive.get("observatory.LSA22YE.channel_01_r")) == 10
    path.write_bytes(everything)
    archive.scanner.look()
    assert len(archive.get("observatory.LSA22YE.channel_01_r")) == 20


def test_a_file_that_stays_cut_off_is_broken_and_its_whole_frames_are_served(archive: Archive) -> None:
    path = archive.scanner.directory / "a.g3"
    recorder = record(path)
    whole = path.stat().st_size
    recorder.add(T0 + 100 + SECONDS, {"Channel 01 R": SECONDS})
    os.truncate(path, path.stat().st_size - 10)
    os.utime(path, LONG_AGO)
    archive.scanner.look()
    assert archive.scanner.status.files_broken == 1
    assert f"byte {whole}" in archive.scanner.status.problems[str(path)]
    assert len(archive.get("observatory.LSA22YE.channel_01_r")) == 10
    opened = archive.scanner.opened
    archive.scanner.look()
    assert archive.scanner.opened == opened  # not at every look


@pytest.mark.parametrize("damage", ["garbage", "empty frame", "one bit", "length"])
def test_a_corrupt_file_harms_no_other(sqlite_archive: Callable[..., Archive], damage: str) -> None:
    archive = sqlite_archive()
    bad = archive.scanner.directory / "bad.g3"
    recorder = record(bad)
    first = bad.stat().st_size
    recorder.add(T0 + 100 + SECONDS, {"Channel 01 R": SECONDS})
    content = bytearray(bad.read_bytes())
    if damage == "garbage":
        content = bytearray(np.random.default_rng(1).bytes(5000))
    elif damage == "empty frame":
        content[first:] = bytes(len(content) - first)
    elif damage == "one bit":
        content[first + 300] ^= 1
    else:
        content[first + 8] = 0x7F  # so3g asks for more memory than there is
    bad.write_bytes(content)
    os.utime(bad, LONG_AGO)
    record(archive.scanner.directory / "good.g3", T0 + 1000).close()
    archive.scanner.look()
    assert archive.scanner.status.files_broken == 1
    samples = archive.get("observatory.LSA22YE.channel_01_r", T0 + 1000)
    np.testing.assert_array_equal(samples.values, SECONDS)


def test_a_broken_file_that_is_mended_is_read(sqlite_archive: Callable[..., Archive]) -> None:
    archive = sqlite_archive()
    path = archive.scanner.directory / "a.g3"
    path.write_bytes(b"no frame at all, and never was")
    os.utime(path, LONG_AGO)
    archive.scanner.look()
    assert archive.scanner.status.files_broken == 1
    path.unlink()
    record(path).close()
    archive.scanner.look()
    assert archive.scanner.status.files_broken == 0
    assert len(archive.get("observatory.LSA22YE.channel_01_r")) == 10


def test_a_file_written_anew_replaces_what_was_known(archive: Archive) -> None:
    path = archive.scanner.directory / "a.g3"
    record(path).close()
    archive.scanner.look()
    path.unlink()
    record(path, T0 + 5000, 7.0).add(T0 + 6000 + SECONDS, {"Channel 01 R": SECONDS})
    archive.scanner.look()
    samples = archive.get("observatory.LSA22YE.channel_01_r")
    assert samples.t[0] == T0 + 5000
    assert samples.values[0] == 7.0
    assert len(samples) == 20
    starts = {_moment(row[0]) for row in archive.rows("SELECT start FROM fields")}
    assert min(starts) == tables.from_unix(T0 + 5000)


def test_a_file_that_is_gone_is_served_no_more_and_again_when_it_is_back(
    sqlite_archive: Callable[..., Archive], tmp_path: Path
) -> None:
    archive = sqlite_archive()
    directory = archive.scanner.directory
    record(directory / "a.g3").close()
    record(directory / "b.g3", T0 + 100).close()
    archive.scanner.look()
    (directory / "a.g3").rename(tmp_path / "a.g3")
    archive.scanner.look()
    assert len(archive.get("observatory.LSA22YE.channel_01_r")) == 10
    (tmp_path / "a.g3").rename(directory / "a.g3")
    opened = archive.scanner.opened
    archive.scanner.look()
    assert archive.scanner.opened == opened
    assert len(archive.get("observatory.LSA22YE.channel_01_r")) == 20


def test_a_folder_that_is_not_mounted_forgets_nothing(sqlite_archive: Callable[..., Archive], tmp_path: Path) -> None:
    archive = sqlite_archive()
    directory = archive.scanner.directory
    record(directory / "a.g3").close()
    archive.scanner.look()
    directory.rename(tmp_path / "away")
    with pytest.raises(StorageError, match="not there"):
        archive.scanner.look()
    directory.mkdir()
    with pytest.raises(StorageError, match="mounted"):
        archive.scanner.look()
    directory.rmdir()
    (tmp_path / "away").rename(directory)
    archive.scanner.look()
    assert len(archive.get("observatory.LSA22YE.channel_01_r")) == 10


def test_two_files_of_one_name_are_both_served(archive: Archive) -> None:
    directory = archive.scanner.directory
    record(directory / "one" / "a.g3").close()
    record(directory / "two" / "a.g3", T0 + 100).close()
    archive.scanner.look()
    assert len(archive.get("observatory.LSA22YE.channel_01_r")) == 20
    assert archive.rows("SELECT COUNT(*) FROM feeds") == [(1,)]
    assert "other folder" in " ".join(archive.scanner.status.problems.values()) or "another folder" in " ".join(
        archive.scanner.status.problems.values()
    )


def test_an_existing_index_is_served_at_once_and_continued(archive: Archive) -> None:
    """What the old scanner left: the folder with a slash at its end, no table of ours."""
    directory = archive.scanner.directory
    for i in range(3):
        record(directory / f"{i}.g3", T0 + 100 * i, 100.0 * i).close()
    engine = create_engine(archive.index.url)
    with engine.begin() as connection:
        for i in range(2):
            feed = {"filename": f"{i}.g3", "path": f"{directory}/", "prov_id": 0, "description": "observatory.LSA22YE"}
            connection.execute(insert(tables.feeds).values(id=40 + i, scanned=True, **feed))
            for field in ("Channel 01 R", "Channel 01 T"):
                times = {"start": tables.from_unix(T0 + 100 * i), "end": tables.from_unix(T0 + 100 * i + 9)}
                connection.execute(insert(tables.fields).values(feed_id=40 + i, field=field, **times))
    engine.dispose()
    archive.index.prepare()
    name = "observatory.LSA22YE.channel_01_r"
    assert name in archive.reader.listing(T0, T0 + 1).fields
    np.testing.assert_array_equal(archive.get(name, T0, T0 + 150).values, np.r_[SECONDS, 100 + SECONDS])
    assert archive.scanner.opened == 0
    archive.scanner.look()
    assert archive.rows("SELECT id, path FROM feeds WHERE id IN (40, 41) ORDER BY id") == [
        (40, f"{directory}/"), (41, f"{directory}/")
    ]  # fmt: skip
    assert archive.rows("SELECT COUNT(*) FROM feeds") == [(3,)]
    assert archive.rows("SELECT COUNT(*) FROM fields") == [(6,)]
    np.testing.assert_array_equal(archive.get(name).values, np.r_[SECONDS, 100 + SECONDS, 200 + SECONDS])
    assert archive.reader.listing(1, 4e9).fields[name].timeline == "observatory.LSA22YE.temperatures"
    opened = archive.scanner.opened
    archive.scanner.look()
    assert archive.scanner.opened == opened == 3


def test_tables_of_another_layout_are_refused(sqlite_archive: Callable[..., Archive]) -> None:
    archive = sqlite_archive()
    engine = create_engine(archive.index.url)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE feeds")
        connection.exec_driver_sql("CREATE TABLE feeds (id INTEGER, file_id INTEGER, prov_id INTEGER)")
    engine.dispose()
    with pytest.raises(ConfigurationError, match="another layout"):
        archive.index.prepare()


def test_times_are_utc_wherever_the_machine_is(tmp_path: Path) -> None:
    record(tmp_path / "a.g3").close()
    code = (
        "import sys; from pathlib import Path; from sqlalchemy import URL\n"
        "from sisockdaq.nodes.g3_archive._worker import Worker\n"
        "from tests.nodes.g3_archive.conftest import Archive\n"
        "archive = Archive(URL.create('sqlite', database=sys.argv[2]), Path(sys.argv[1]), Worker())\n"
        "archive.scanner.look()\n"
        "print(archive.rows('SELECT start FROM fields')[0][0])\n"
        "print(archive.get('observatory.LSA22YE.channel_01_r', 1600000000.0, 1600000002.0).t.tolist())\n"
        "archive.scanner.worker.close()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), str(tmp_path / "index.sqlite")],
        env={**os.environ, "TZ": "America/Santiago"}, capture_output=True, text=True, timeout=60, check=False,
        cwd=Path(__file__).parents[3],
    )  # fmt: skip
    assert done.stdout.splitlines() == ["2020-09-13 12:26:40.000000", "[1600000000.0, 1600000001.0]"], done.stderr


def test_a_worker_that_is_killed_comes_back(sqlite_archive: Callable[..., Archive]) -> None:
    worker = Worker()
    archive = sqlite_archive(worker)
    record(archive.scanner.directory / "a.g3").close()
    archive.scanner.look()
    pid = worker.pid
    assert pid is not None
    os.kill(pid, 9)
    assert len(archive.get("observatory.LSA22YE.channel_01_r")) == 10
    assert worker.pid != pid
    worker.close()
    with pytest.raises(FileUnreadable):
        worker.call("scan", "a.g3", 0, {}, 1.0, deadline=5)


def _moment(value: object) -> datetime:
    """SQLite gives times as text where the question is text."""
    return value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
