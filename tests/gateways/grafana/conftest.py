"""One gateway for all tests here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sisockdaq.testing import Network
from tests.gateways.grafana.rig import Reader, gateway


@pytest.fixture(scope="session")
def shared_grafana(session_network: Network) -> Iterator[Reader]:
    with gateway(session_network, deadline=2.0, metrics_port=0) as reader:
        yield reader


@pytest.fixture
def grafana(shared_grafana: Reader, network: Network) -> Reader:
    """A gateway whose nodes get 2 s each; nodes that the test starts end with it."""
    return shared_grafana
