"""One gateway before fake nodes for the tests here that only call it, and one that is busy all the while."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from sisockdaq.testing import Network, wait_until
from tests.gateways.std_daq.rig import Rig, rig


@pytest.fixture
def std_daq(network: Network) -> Iterator[Rig]:
    with rig(network) as made:
        yield made


@dataclass(frozen=True)
class LongWrite:
    """A synchronous write that nobody ends; ``began`` is monotonic."""

    rig: Rig
    answer: Future[dict[str, Any]]
    began: float


@pytest.fixture(scope="package", autouse=True)
def long_write(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LongWrite | None]:
    """One that begins with the first test of this room and lasts through all, so that its own test need not wait."""
    if not any(item.path.name == "test_waiting.py" for item in request.session.items):
        yield None
        return
    wanted = {"output_file": "/data/long.h5", "n_images": 3}
    with Network(tmp_path_factory.mktemp("long") / "state") as network, rig(network) as made:
        with ThreadPoolExecutor() as pool:
            answer = pool.submit(made.client.start_writer_sync, wanted)
            wait_until(lambda: made.writer.busy, 15, "the start")
            yield LongWrite(made, answer, time.monotonic())
            made.writer.end()
            answer.result(10)
        network.stop_nodes()
