"""The node on a real network, over both databases."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sisockdaq.nodes.g3_archive import G3Archive
from sisockdaq.nodes.g3_archive._database import database_url
from sqlalchemy import URL

from sisockdaq.errors import ConfigurationError, ConnectionFailed
from sisockdaq.testing import Network, wait_until
from tests.nodes.g3_archive.conftest import LONG_AGO, T0, Recorder

NAME = "observatory.LSA22YE.channel_01_r"


def status(network: Network, name: str, node: str = "g3_reader") -> Any:
    """The newest sample of one of the node's own fields."""
    reply = network.call(f"consumer.{node}.get_data", [name], -3600, 0)
    return reply["data"][name][-1] if reply["data"][name] else None


def scanned(network: Network, files: int) -> None:
    wait_until(lambda: status(network, "files_scanned") == files, 30, "the scan")
    wait_until(lambda: status(network, "files_waiting") == 0, 30, "its end")


def test_a_site_reads_its_files(network: Network, mariadb_url: URL, tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "16000" / "1600000000.g3")
    values = np.random.default_rng(2).normal(size=3000)
    recorder.add(T0 + np.arange(3000.0), {"Channel 01 R": values, "state": ["on"] * 3000}).close()
    network.start(G3Archive, name="g3_reader", directory=str(tmp_path), scan_interval=0.2, database=_text(mariadb_url))
    scanned(network, 1)
    fields, timelines = network.call("consumer.g3_reader.get_fields", T0, T0 + 10)
    assert fields[NAME] == {
        "description": None, "timeline": "observatory.LSA22YE.temperatures", "type": "number", "units": None,
    }  # fmt: skip
    assert NAME in timelines["observatory.LSA22YE.temperatures"]["field"]
    reply = network.call("consumer.g3_reader.get_data", [NAME, "observatory.LSA22YE.state"], T0, T0 + 3)
    assert reply["data"] == {NAME: values[:3].tolist(), "observatory.LSA22YE.state": ["on"] * 3}
    line = reply["timeline"]["observatory.LSA22YE.temperatures"]
    assert line == {"t": [T0, T0 + 1, T0 + 2], "finalized_until": T0 + 2999}
    samples = network.client.get(f"g3_reader::{NAME}", start=T0, end=T0 + 4000, max_points=200)[f"g3_reader::{NAME}"]
    assert len(samples.values) <= 200
    assert samples.values.max() == values.max()
    # What is appended is served as soon as it is seen.
    recorder.add(T0 + 5000 + np.arange(5.0), {"Channel 01 R": np.arange(5.0)})
    question = ("consumer.g3_reader.get_data", [NAME], T0 + 4000, T0 + 6000)
    wait_until(lambda: network.call(*question)["data"][NAME] == [0.0, 1.0, 2.0, 3.0, 4.0], 30, "what was appended")


def test_a_broken_file_is_shown_and_harms_nothing(network: Network, tmp_path: Path) -> None:
    Recorder(tmp_path / "good.g3").add(T0 + np.arange(5.0), {"Channel 01 R": np.arange(5.0)}).close()
    (tmp_path / "bad.g3").write_bytes(os.urandom(4000))
    os.utime(tmp_path / "bad.g3", LONG_AGO)
    running = network.start(G3Archive, name="g3_reader", directory=str(tmp_path), scan_interval=0.2, max_points=3)
    scanned(network, 2)
    assert status(network, "files_broken") == 1
    assert status(network, "database_up") is True
    assert len(network.call("consumer.g3_reader.get_data", [NAME], 1, 0)["data"][NAME]) == 3
    # The process that reads may die at any time.
    reader = running.node.reader.worker
    os.kill(reader.pid, 9)
    running.node.reader.cache._kept.clear()
    assert network.call("consumer.g3_reader.get_data", [NAME], T0, T0 + 2)["data"][NAME] == [0.0, 1.0]


def test_without_the_database_the_node_stays_and_recovers(network: Network, mariadb: URL, tmp_path: Path) -> None:
    Recorder(tmp_path / "a.g3").add(T0 + np.arange(5.0), {"Channel 01 R": np.arange(5.0)}).close()
    socket = Path(str(mariadb.query["unix_socket"]))
    link = tmp_path / "s"
    away = mariadb.set(database="recovering").update_query_dict({"unix_socket": str(link)})
    network.start(G3Archive, name="g3_reader", directory=str(tmp_path), scan_interval=0.2, database=_text(away))
    wait_until(lambda: status(network, "database_up") is False, 30, "the node to say so")
    problem = status(network, "problem")
    assert "recovering" in problem
    assert "hush" not in problem
    fields, _ = network.call("consumer.g3_reader.get_fields", 1, 0)
    assert "files_scanned" in fields
    with pytest.raises(ConnectionFailed, match="failed") as failed:
        network.call("consumer.g3_reader.get_data", [NAME], 1, 0)
    assert "hush" not in str(failed.value)
    link.symlink_to(socket)
    from tests.nodes.g3_archive.conftest import _execute

    _execute(mariadb, "CREATE DATABASE recovering")
    try:
        wait_until(lambda: status(network, "database_up") is True, 60, "the node to recover")
        wait_until(lambda: status(network, "files_scanned") == 1, 30, "the scan")
        assert network.call("consumer.g3_reader.get_data", [NAME], 1, 0)["data"][NAME] == [0.0, 1.0, 2.0, 3.0, 4.0]
    finally:
        network.stop_nodes()
        _execute(mariadb, "DROP DATABASE recovering")


def test_a_wrong_password_is_named_without_it(mariadb: URL) -> None:
    from sisockdaq.nodes.g3_archive._index import Index

    index = Index(mariadb.set(database="files", password="wrong-secret"))
    with pytest.raises(ConnectionFailed, match="Access denied") as failed:
        index.prepare()
    assert "wrong-secret" not in str(failed.value)
    index.close()


def test_without_so3g_the_remedy_is_named(network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "so3g" else found(name))
    with pytest.raises(ConfigurationError, match=r"pip install 'sisockdaq\[g3\]'"):
        network.start(G3Archive, name="g3_reader", directory=str(tmp_path))


def test_the_variables_of_existing_sites_are_known() -> None:
    properties = G3Archive.Options.model_json_schema()["properties"]
    variables = {name: entry["environment"] for name, entry in properties.items() if "environment" in entry}
    assert variables == {
        "directory": "DATA_DIRECTORY", "scan_interval": "SCAN_INTERVAL", "max_points": "MAX_POINTS",
        "sql_host": "SQL_HOST", "sql_user": "SQL_USER", "sql_passwd": "SQL_PASSWD", "sql_db": "SQL_DB",
    }  # fmt: skip
    options = G3Archive.Options(sql_passwd="hush", database="mysql://me:hush@there/files")  # type: ignore[arg-type]
    assert "hush" not in repr(options)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((None, None, None, None, None), "sqlite:////state/g3.sqlite"),
        ((None, "database", "me", "p", "files"), "mysql+pymysql://me:p@database/files?charset=utf8mb4"),
        ((None, "database:3307", "me", None, "files"), "mysql+pymysql://me@database:3307/files?charset=utf8mb4"),
        (("mariadb://me@there/files", None, None, "p", None), "mysql+pymysql://me:p@there/files?charset=utf8mb4"),
        (("sqlite:////tmp/x.sqlite", None, None, None, None), "sqlite:////tmp/x.sqlite"),
    ],
)
def test_the_database_is_named_in_two_ways(given: tuple[Any, ...], expected: str) -> None:
    assert _text(database_url(*given, default=Path("/state/g3.sqlite"))) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("hush", None, None, None, None), "not a URL"),
        (("oracle://me:hush@there/files", None, None, None, None), "oracle is not known"),
        (("mysql://me:hush@there", None, None, None, None), "names no database"),
        ((None, "database", None, "hush", None), "sql_user and sql_db"),
        ((None, "database:x", "me", "hush", "files"), "not a port"),
    ],
)
def test_a_wrong_database_is_named_without_its_password(given: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as failed:
        database_url(*given, default=Path("x"))
    assert "hush" not in str(failed.value)


def test_the_node_leaves_no_process_behind(network: Network, tmp_path: Path) -> None:
    psutil = pytest.importorskip("psutil")
    Recorder(tmp_path / "a.g3").add(T0 + np.arange(5.0), {"Channel 01 R": np.arange(5.0)}).close()
    process = network.start_process(G3Archive, name="g3_reader", directory=str(tmp_path), scan_interval=0.2)
    scanned(network, 1)
    assert network.call("consumer.g3_reader.get_data", [NAME], 1, 0)["data"][NAME]
    children = psutil.Process(process.pid).children()
    assert len(children) == 2
    process.kill()
    wait_until(lambda: not any(_lives(child) for child in children), 30, "the processes that open files to end")


def _lives(process: Any) -> bool:
    return bool(process.is_running() and process.status() != "zombie")


def _text(url: URL) -> str:
    return url.render_as_string(hide_password=False)
