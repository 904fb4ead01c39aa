from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from sisockdaq.errors import ConfigurationError
from sisockdaq.saxsdog.network import NetworkEntry, choose, default_path, new_secret, read_network, write_network

ENTRY = {"Server": "tcp://localhost:9723", "Feeder": "tcp://localhost:9823", "Secret": "x" * 30, "Name": "Pilatus1M"}


def written(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    path.chmod(0o600)
    return path


def test_a_file_of_the_original_is_read(tmp_path: Path) -> None:
    second = {**ENTRY, "Name": "Two", "Server": "tcp://saxs.example:77"}
    entries = read_network(written(tmp_path / "n", [ENTRY, second]))
    assert [entry.model_dump() for entry in entries] == [ENTRY, second]
    assert (entries[0].server_port, entries[0].feeder_port, entries[1].server_port) == (9723, 9823, 77)
    assert choose(entries, "1") == choose(entries, "Two") == entries[1]
    with pytest.raises(ConfigurationError, match=r"no server 2.*0 Pilatus1M, 1 Two"):
        choose(entries, 2)


def test_what_is_written_is_for_the_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "n"
    entry = NetworkEntry(Secret=new_secret())
    write_network(path, [entry])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_text()) == [
        {"Server": "tcp://localhost:9723", "Feeder": "tcp://localhost:9823", "Secret": entry.Secret, "Name": "Queue1"}
    ]
    assert read_network(path) == [entry]
    assert [p.name for p in tmp_path.iterdir()] == ["n"]
    assert entry.Secret not in repr(entry)
    assert new_secret() != new_secret()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("{", "is not JSON"),
        ("{}", "is not a list of servers"),
        ("[]", "is not a list of servers"),
        ([{**ENTRY, "Server": "localhost"}], 'server 0: Server: .*"localhost" is no address of the form'),
        ([{**ENTRY, "Server": "tcp://a:99999"}], "is no address"),
        ([ENTRY, {**ENTRY, "Port": 1}], "server 1: Port"),
        ([3], "server 0"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, content: object, text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        read_network(written(tmp_path / "n", content))


def test_a_short_secret_is_refused_and_not_shown(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="Secret") as caught:
        read_network(written(tmp_path / "n", [{**ENTRY, "Secret": "hunter2"}]))
    assert "hunter2" not in str(caught.value)


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "n", [ENTRY])
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match=r"others can read it.*chmod 600"):
        read_network(path)
    with pytest.raises(ConfigurationError, match="saxsnetconf"):
        read_network(tmp_path / "none")
    assert default_path().name == ".saxsdognetwork"
