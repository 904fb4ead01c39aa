"""The shared-memory ring keeps the contract."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sisockdaq.frames import Consumer, Description, Producer, make_consumer, make_producer
from tests.frames.bus_contract import BackChannelContract, Plane


class RingPlane:
    has_back_channel = True

    def __init__(self, folder: Path) -> None:
        self.address = f"ring://{folder / 'frames.sock'}"
        self.made: list[Producer | Consumer] = []

    def producer(self, description: Description, slots: int, **options: Any) -> Producer:
        producer = make_producer(self.address, description, slots=slots, **options)
        self.made.append(producer)
        return producer

    def consumer(self, name: str, policy: str, **options: Any) -> Consumer:
        consumer = make_consumer(self.address, name=name, policy=policy, **options)
        self.made.append(consumer)
        return consumer


@pytest.fixture
def ring_plane() -> Iterator[RingPlane]:
    with tempfile.TemporaryDirectory(prefix="ring-") as folder:
        plane = RingPlane(Path(folder))
        yield plane
        for end in plane.made:
            end.close()


class TestRing(BackChannelContract):
    @pytest.fixture
    def plane(self, ring_plane: RingPlane) -> Plane:
        return ring_plane
