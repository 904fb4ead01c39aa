"""Faults of the existing implementation, each with the test that shows that it is not here.

Those of replies (size, numpy, NaN, the live cache) stand in `test_fault_replies.py`, those of the HTTP bridge (one bad
target fails all, status codes, time units) in ``tests/gateways``.

| Measured there | Shown here by |
|---|---|
| after a restart of the router nodes stay as zombies and never rejoin | `tests/test_router_restart.py`, also for a \
sisock subclass whose import was changed; a node that nothing was changed in is off the list, \
`test_no_zombie_is_left_by_a_restart_of_the_router` |
| after a restart of the hub the registry stays empty though all nodes answer | `tests/hub/test_session.py` for ours, \
`tests/test_old_nodes.py` and `test_old_network.py` for theirs |
| a duplicate name is refused and never retried after the holder leaves | \
`test_a_name_that_an_old_node_holds_is_taken_over_when_it_leaves`; between two of ours `tests/hub/test_session.py` |
| a frozen node hangs every search | `test_a_frozen_old_node_is_off_the_list_and_holds_up_nobody`; ours \
`tests/hub/test_session.py` |
| anyone may add a ghost with a session id of its choice; every later listing then fails | \
`test_nobody_lists_a_ghost`, `test_a_ghost_under_one_s_own_session_is_not_listed`; a node's own user \
`tests/hub/test_session.py` |
| a consumer may register another's `get_data` and pose as a node | `test_old_network.py`, `tests/test_router.py` |
| a node's session poses as the hub while it is away | `tests/test_router.py`, `test_old_network.py` |
| the start relies on `sleep(5)` | `test_an_old_node_may_start_before_the_hub`, `tests/hub/test_session.py` |
| secrets are hard-coded | `tests/test_state.py`, `tests/test_site_router.py` |
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sisockdaq.base import DataNodeServer
from sisockdaq.errors import NotAuthorized
from sisockdaq.testing import Caller, Network, wait_until
from tests.compat.old_programs import ONE_NODE, RunningScript, run


class Weather(DataNodeServer):
    """Ours."""

    def setup(self) -> None:
        self.series("temperature").append(10.0, 1.5)


@pytest.fixture
def node(old_network: Network, tmp_path: Path) -> Iterator[RunningScript]:
    """An old node called ``weather``."""
    with run(old_network, tmp_path / "node", ONE_NODE) as script:
        old_network.wait_listed("weather")
        yield script
    old_network.wait_gone("weather")


@pytest.fixture
def server(old_network: Network) -> Iterator[Caller]:
    """A session of the user that all old nodes share."""
    caller = Caller(old_network.endpoint, old_network.credentials("server"))
    yield caller
    caller.close()


def test_a_frozen_old_node_is_off_the_list_and_holds_up_nobody(old_network: Network, node: RunningScript) -> None:
    added = old_network.caller("simonsobs").subscribe(old_network.uri("consumer.data_node_subtracted"))
    os.kill(node.process.pid, signal.SIGSTOP)
    began = time.monotonic()
    old_network.wait_gone("weather", 12.0)  # it has no ping; the router's own pings end its connection
    assert time.monotonic() - began < 10.0
    wait_until(lambda: {"name": "weather", "description": "Archived."} in added, what="the announcement")
    # Its name is free at once: nothing of it is left at the router.
    ours = old_network.start(Weather)
    assert old_network.call("consumer.weather.get_data", ["temperature"], 1, 0)["data"] == {"temperature": [1.5]}
    old_network.stop(ours)


def test_a_name_that_an_old_node_holds_is_taken_over_when_it_leaves(old_network: Network, node: RunningScript) -> None:
    waiting = old_network.start(Weather, wait=False)
    wait_until(lambda: waiting.node.is_attached(), what="the login of the second holder")
    assert old_network.call("consumer.weather.get_data", ["temperature"], 1, 0)["data"] == {"temperature": [7.0]}
    node.process.kill()
    waiting.wait_listed()
    assert old_network.call("consumer.weather.get_data", ["temperature"], 1, 0)["data"] == {"temperature": [1.5]}
    old_network.stop(waiting)


def test_an_old_node_is_refused_a_name_that_one_of_ours_holds(old_network: Network, tmp_path: Path) -> None:
    old_network.start(Weather)
    with run(old_network, tmp_path / "second", ONE_NODE) as second:
        # As its base class does: it says that it could not register, goes on, and asks the hub all the same.
        wait_until(lambda: second.said("accepted"), what="the hub's answer")
        assert second.said("accepted")[0]["accepted"] is False
        assert old_network.call("consumer.weather.get_data", ["temperature"], 1, 0)["data"] == {"temperature": [1.5]}
    assert old_network.listing() == ["weather"]


def test_nobody_lists_a_ghost(old_network: Network, server: Caller) -> None:
    for session in (1, 8196398512536721, None, "x"):
        with pytest.raises(NotAuthorized, match="may not speak for session"):
            server.call(old_network.uri("data_node.add"), "ghost", "boo", session)
    for reader in ("simonsobs", "consumer"):
        with pytest.raises(NotAuthorized):
            old_network.caller(reader).call(old_network.uri("data_node.add"), "ghost", "boo", 1)
    assert old_network.listing() == []


def test_a_ghost_under_one_s_own_session_is_not_listed(old_network: Network, server: Caller) -> None:
    own = server.session._session_id
    with pytest.raises(NotAuthorized, match=r"does not serve .*\.consumer\.ghost\.get_fields"):
        server.call(old_network.uri("data_node.add"), "ghost", "boo", own)
    server.register(old_network.uri("consumer.ghost.get_fields"), lambda start, end: [{}, {}])
    with pytest.raises(NotAuthorized, match=r"does not serve .*get_data"):
        server.call(old_network.uri("data_node.add"), "ghost", "boo", own)
    server.register(old_network.uri("consumer.ghost.get_data"), lambda *_: {"data": {}, "timeline": {}})
    other = Caller(old_network.endpoint, old_network.credentials("server"))
    try:
        # Whoever serves under the name may be listed under it; to anybody else it is taken.
        assert other.call(old_network.uri("data_node.add"), "ghost", "boo", other.session._session_id) is False
        assert server.call(old_network.uri("data_node.add"), "ghost", "no ghost", own) is True
    finally:
        other.close()
    assert old_network.listing() == ["ghost"]


def test_an_old_node_may_start_before_the_hub(old_network: Network, tmp_path: Path) -> None:
    old_network.stop_hub()
    try:
        with run(old_network, tmp_path / "early", ONE_NODE) as early:
            wait_until(lambda: early.said("failed"), what="its call of a hub that is not there")
            old_network.start_hub()
            old_network.wait_listed("weather")  # though it asked only once
    finally:
        if old_network.listing_or_none() is None:
            old_network.start_hub()
    old_network.wait_gone("weather")


def test_no_zombie_is_left_by_a_restart_of_the_router(old_network: Network, node: RunningScript) -> None:
    """Last in this file, because everybody's sessions end with the router's."""
    ours = old_network.start(Weather, name="camera")
    old_network.router.stop()
    old_network.restart_router()
    old_network.wait_listed("camera")
    assert old_network.listing() == ["camera"]  # the old base does not come back by itself, and is not shown
    old_network.stop(ours)
    for user in ("simonsobs", "consumer"):
        wait_until(old_network.caller(user).session.is_attached, what=f"the return of {user}")
