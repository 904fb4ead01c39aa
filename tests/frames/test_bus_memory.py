"""The in-process back end keeps the contract."""

from __future__ import annotations

from typing import Any

import pytest

from sisockdaq.frames import Attached, Consumer, Description, Detached, Producer, parse_policy
from sisockdaq.frames.memory import MemoryBus
from tests.frames.bus_contract import DESCRIPTION, BackChannelContract, Plane


class MemoryPlane:
    """Consumers made before the source was are given to it when it comes, as those of a ring find their socket."""

    has_back_channel = True

    def __init__(self) -> None:
        self.place: dict[str, MemoryBus] = {}

    def producer(self, description: Description, slots: int, **options: Any) -> Producer:
        self.place["bus"] = MemoryBus(description, slots, **options)
        return self.place["bus"].producer

    def consumer(self, name: str, policy: str, **options: Any) -> Consumer:
        bus = self.place.get("bus") or MemoryBus(DESCRIPTION, 4)
        return bus.consumer(name, parse_policy(policy), **options)


class TestMemoryBus(BackChannelContract):
    @pytest.fixture
    def plane(self) -> Plane:
        return MemoryPlane()

    def test_next_returns_none_after_its_timeout(self, plane: Plane) -> None:
        producer = plane.producer(DESCRIPTION, 2)
        consumer = plane.consumer("writer", "lossless")
        consumer.next(1.0)
        assert consumer.next(0.02) is None
        producer.close()

    def test_the_end_of_the_source_is_told_and_its_return(self, plane: Plane) -> None:
        """A bus in one process lives and ends with its source."""
        producer = plane.producer(DESCRIPTION, 2)
        consumer = plane.consumer("writer", "lossless")
        assert isinstance(consumer.next(1.0), Attached)
        producer.close()
        assert isinstance(consumer.next(1.0), Detached)
        assert consumer.next(0.02) is None
