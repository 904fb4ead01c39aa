"""A network with the names, users and rights of existing sisock sites, for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sisockdaq.router import OcsAccess, free_port
from sisockdaq.testing import Network


@pytest.fixture(scope="session")
def old_session_network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """Router and hub, started once. Tests take `old_network`."""
    with Network(
        tmp_path_factory.mktemp("old") / "state",
        ("camera",),
        realm="test_realm",
        base_uri="org.simonsobservatory",
        static_users={"simonsobs": "consumer"},
        ocs=OcsAccess(port=free_port(), full_rights=True),
    ) as made:
        yield made


@pytest.fixture
def old_network(old_session_network: Network) -> Iterator[Network]:
    """Realm, base URI and users of existing sites, and OCS with full rights; nodes that a test starts end with it."""
    yield old_session_network
    old_session_network.stop_nodes()
