"""When a ring's consumer counts as hanging: pure, with times passed in."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from sisockdaq.frames import Policy
from sisockdaq.frames._ring_accounts import Guest
from sisockdaq.frames._ring_memory import TAIL


@pytest.fixture(params=["lossless", "latest"])
def guest(request: pytest.FixtureRequest) -> Iterator[Guest]:
    here, there = socket.socketpair()
    with here, there:
        made = Guest("slow", Policy(request.param), True, here, 4)
        made.owed[0] = 1
        yield made
        made.close()


def test_time_without_progress_counts_before_the_ring_is_full(guest: Guest) -> None:
    assert not guest.hangs(0.0, False, 10.0)
    assert not guest.hangs(11.0, False, 10.0)
    assert guest.hangs(11.0, True, 10.0) is guest.lossless
    guest.words[TAIL] = 1
    assert not guest.hangs(12.0, True, 10.0)
    assert not guest.hangs(21.9, True, 10.0)
    assert guest.hangs(22.0, True, 10.0) is guest.lossless


def test_who_holds_nothing_does_not_hang(guest: Guest) -> None:
    guest.owed[0] = 0
    assert not guest.hangs(0.0, True, 10.0)
    assert not guest.hangs(100.0, True, 10.0)
