"""One gateway before fake nodes for the tests here that only call it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sisockdaq.testing import Network
from tests.gateways.std_daq.rig import Rig, rig


@pytest.fixture
def std_daq(network: Network) -> Iterator[Rig]:
    with rig(network) as made:
        yield made
