"""A receiver on free ports with a producer that keeps everything."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from sisockdaq.detector.description import DetectorOptions
from sisockdaq.detector.receiver import Receiver, ReceiverSettings
from sisockdaq.detector.sender import PacketSender
from sisockdaq.detector.simulator import Simulation
from sisockdaq.detector.sockets import open_sockets
from sisockdaq.testing.waiting import wait_until
from tests.detector.fakes import FakeProducer

BUFFER = 8 * 2**20
DEADLINE = 20.0


class Rig:
    """A running receiver, its producer, and a way to send it any packet."""

    def __init__(
        self, options: DetectorOptions, slots: int = 8, settings: ReceiverSettings | None = None, **more: Any
    ) -> None:
        self.options = options
        self.producer = FakeProducer(options, slots)
        sockets = open_sockets([("127.0.0.1", 0)] * options.streams, BUFFER)
        self.targets = [one.getsockname() for one in sockets]
        self.receiver = Receiver(options, sockets, self.producer, settings, **more)
        self.sender = PacketSender(self.targets, options.datagram_bytes)
        self.receiver.start()

    def send(self, stream: int, packets: Iterable[np.ndarray]) -> None:
        """Send packets of one stream, one datagram each."""
        for packet in packets:
            self.sender.send_one(stream, packet)

    def send_frame(self, simulation: Simulation, number: int) -> None:
        """Send a whole frame in trains."""
        self.sender.send_frame(simulation.packets(number))

    def seen(self) -> int:
        """Packets that were seen so far, good or bad."""
        counts = self.receiver.counters()
        return int(counts["packets"] + counts["late"] + counts["duplicate"] + sum(counts["invalid"].values()))

    def settled(self, packets: int) -> dict[str, Any]:
        """Wait until so many packets have been seen; return the counters."""
        wait_until(lambda: self.seen() >= packets, DEADLINE, f"{packets} packets to be seen")
        return self.receiver.counters()

    def close(self) -> None:
        self.sender.close()
        self.receiver.stop()
        assert self.receiver.error is None


@contextmanager
def running(options: DetectorOptions, **more: Any) -> Iterator[Rig]:
    rig = Rig(options, **more)
    try:
        yield rig
    finally:
        rig.close()
