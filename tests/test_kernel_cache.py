"""Kernels are compiled where a user who can write neither the package nor a home runs them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sisockdaq import _kernel_cache

NOWHERE = Path("/dev/null/nowhere")
"""Can be made by nobody, not even by root."""


@pytest.fixture(autouse=True)
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(NOWHERE))
    for name in (_kernel_cache.VARIABLE, "XDG_CACHE_HOME", "XDG_STATE_HOME", "SISOCKDAQ_STATE"):
        monkeypatch.setenv(name, "")  # so that it is as before after the test
        monkeypatch.delenv(name)
    monkeypatch.setattr(_kernel_cache, "_beside", lambda: NOWHERE)
    monkeypatch.delitem(_kernel_cache.sys.modules, "numba", raising=False)


def test_who_can_write_a_place_of_numbas_own_keeps_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "not" / "yet"))
    assert _kernel_cache.find_room() is None
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(_kernel_cache, "_beside", lambda: tmp_path)
    assert _kernel_cache.find_room() is None
    assert _kernel_cache.VARIABLE not in os.environ


def test_a_site_keeps_them_with_its_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SISOCKDAQ_STATE", str(tmp_path))
    assert _kernel_cache.find_room() == tmp_path / "kernels"
    assert os.environ[_kernel_cache.VARIABLE] == str(tmp_path / "kernels")
    assert _kernel_cache.find_room() is None  # a child finds what its parent has found


def test_without_any_place_a_process_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SISOCKDAQ_STATE", str(NOWHERE))
    room = _kernel_cache.find_room()
    assert room is not None
    assert room.stat().st_mode & 0o777 == 0o700
    room.rmdir()
