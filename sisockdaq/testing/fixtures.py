"""pytest fixtures: ``pytest_plugins = ["sisockdaq.testing.fixtures"]`` in a suite's ``conftest.py``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sisockdaq.router import OcsAccess, free_port
from sisockdaq.testing.network import Network

__all__ = ["network", "private_network", "session_network"]

OWN_NAMES = ("camera", "gauge")
"""Nodes of the shared network that have a user and a role of their own."""


@pytest.fixture(scope="session")
def session_network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """Router (with the plain port for OCS) and hub, started once for the whole run. Tests take `network`."""
    ocs = OcsAccess(port=free_port())
    with Network(tmp_path_factory.mktemp("network") / "state", OWN_NAMES, ocs=ocs) as made:
        yield made


@pytest.fixture
def network(session_network: Network) -> Iterator[Network]:
    """The network of this run; nodes that the test starts end with it."""
    yield session_network
    session_network.stop_nodes()


@pytest.fixture
def private_network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Network]]:
    """Make networks with a router of their own, which a test may kill: ``private_network(nodes=("camera",))``."""
    made: list[Network] = []

    def make(nodes: tuple[str, ...] = OWN_NAMES, **plan: Any) -> Network:
        made.append(Network(tmp_path_factory.mktemp("network") / "state", nodes, **plan))
        return made[-1]

    yield make
    for one in made:
        one.close()
