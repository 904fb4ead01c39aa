"""The state directory: private, and safe to use by all parts of a site at once."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sisockdaq.errors import ConfigurationError
from sisockdaq.state import StateDirectory, default_state_root, find_state


def test_secrets_are_made_once_however_many_ask_at_the_same_time(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path / "state")
    users = [f"user_{i % 5}" for i in range(40)]
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda user: (user, StateDirectory(state.path).secret(user)), users))
    assert len(set(made)) == 5
    assert {user: state.existing_secret(user) for user in users} == dict(made)
    assert state.existing_secret("stranger") is None


def test_what_is_private_is_private(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path / "state").make()
    state.secret("camera")
    state.write_endpoint({"url": "wss://127.0.0.1:1/ws"})
    for name in ("secrets.json", "endpoint.json"):
        assert stat.S_IMODE((state.path / name).stat().st_mode) == 0o600
    assert stat.S_IMODE(state.path.stat().st_mode) == 0o700
    (state.path / "secrets.json").chmod(0o644)
    with pytest.raises(ConfigurationError, match=r"can be read by others \(mode 644\).*chmod 600"):
        state.secret("camera")


def test_a_site_that_never_ran_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no site has run"):
        StateDirectory(tmp_path).read_endpoint()


def test_socket_paths_fit_however_deep_the_state_is(tmp_path: Path) -> None:
    deep = StateDirectory(tmp_path / ("x" * 80) / ("y" * 80))
    for state in (deep, StateDirectory(tmp_path / "s")):
        assert len(os.fsencode(state.router_socket)) < 108
        assert len(os.fsencode(state.frames_socket("n" * 25))) < 108
    assert deep.sockets != StateDirectory(tmp_path / ("x" * 80) / ("z" * 80)).sockets


def test_where_the_state_of_a_site_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SISOCKDAQ_STATE", str(tmp_path))
    assert find_state("demo").path == tmp_path / "demo"
    monkeypatch.delenv("SISOCKDAQ_STATE")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_state_root() == tmp_path / "sisockdaq"
    monkeypatch.delenv("XDG_STATE_HOME")
    assert default_state_root() == Path.home() / ".local" / "state" / "sisockdaq"
