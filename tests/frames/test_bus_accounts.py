"""Whatever consumers do, and in whatever order, every published frame is accounted for once for each of them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from sisockdaq.frames import Attached, BorrowedFrame, Consumer, Detached, End, Ledger, Producer, Report, Settled, Start
from sisockdaq.frames.memory import MemoryBus
from sisockdaq.frames.messages import parse_policy
from sisockdaq.frames.ring import RingConsumer, RingProducer
from tests.frames.bus_contract import DESCRIPTION, SOON, header, start

SLOTS = 4
POLICIES = {"writer": "lossless", "integrator": "lossless", "viewer": "latest", "third": "every: 3"}

steps = st.one_of(
    st.just(("publish", "")),
    st.tuples(st.sampled_from(["come", "go", "take", "use", "drop"]), st.sampled_from(list(POLICIES))),
)
stories = st.lists(steps, max_size=60)


class Story:
    """Plays the steps of a story on the two ends of a bus."""

    def __init__(self, producer: Producer, make: Callable[[str], Consumer]) -> None:
        self.producer, self.make = producer, make
        self.consumers: dict[str, Consumer] = {}
        self.hands: dict[str, list[BorrowedFrame]] = {name: [] for name in POLICIES}
        self.expected = self.published = 0

    def publish(self, _: str) -> None:
        slot = self.producer.acquire()
        if slot is not None:
            self.producer.pixels[slot] = self.expected
            self.producer.publish(slot, header(self.expected))
            self.published += 1
        self.expected += 1

    def come(self, name: str) -> None:
        if name not in self.consumers:
            consumer = self.consumers[name] = self.make(name)
            while not isinstance(consumer.next(SOON), Attached):
                pass  # refused until its predecessor's departure is noticed

    def go(self, name: str) -> None:
        if name in self.consumers:
            self.consumers.pop(name).close()

    def take(self, name: str) -> None:
        if name in self.consumers:
            item = self.consumers[name].next(0.0)
            if item is not None and not isinstance(item, Start | End | Settled | Attached | Detached):
                self.hands[name].append(item)

    def use(self, name: str) -> None:
        self._release(name, used=True)

    def drop(self, name: str) -> None:
        self._release(name, used=False)

    def _release(self, name: str, *, used: bool) -> None:
        if self.hands[name]:
            borrowed = self.hands[name].pop(0)
            if POLICIES[name] == "lossless":
                assert borrowed.valid()
                assert int(borrowed.pixels[0, 0]) == borrowed.header.index
            borrowed.release(used=used)

    def settle(self) -> Ledger:
        """End the acquisition; everybody takes the rest and reports."""
        counts = {"frames_expected": self.expected, "frames_complete": self.published}
        dropped = {"frames_dropped": {"ring_full": self.expected - self.published}}
        self.come("writer")
        self.producer.end(End("run", "complete", counts | dropped), SOON)
        for name, consumer in self.consumers.items():
            while not isinstance(item := consumer.next(SOON), End):
                assert item is not None
                if not isinstance(item, Start | Settled | Attached | Detached):
                    item.release()
            while self.hands[name]:
                self.use(name)
            consumer.request(Report("run", {}))
        mark = self.consumers["writer"].next(SOON)
        assert isinstance(mark, Settled)
        return Ledger.from_dict(mark.ledger)


def play(story: list[tuple[str, str]], producer: Producer, make: Callable[[str], Consumer]) -> None:
    scene = Story(producer, make)
    start(producer)
    for step, name in story:
        getattr(scene, step)(name)
    ledger = scene.settle()
    assert ledger.balance() == []
    assert ledger.frames_published == scene.published
    for name in scene.consumers:
        scene.hands[name].clear()
    for consumer in scene.consumers.values():
        consumer.close()
    for hand in scene.hands.values():
        for borrowed in hand:
            borrowed.release()
    producer.close()


@settings(max_examples=60, deadline=None)
@given(stories)
def test_on_a_bus_in_memory(story: list[tuple[str, str]]) -> None:
    bus = MemoryBus(DESCRIPTION, SLOTS)
    play(story, bus.producer, lambda name: bus.consumer(name, parse_policy(POLICIES[name])))


@settings(max_examples=25, deadline=None)
@given(stories)
def test_on_a_ring(story: list[tuple[str, str]]) -> None:
    with tempfile.TemporaryDirectory(prefix="ring-") as folder:
        path = Path(folder) / "f.sock"
        play(
            story,
            RingProducer(path, DESCRIPTION, SLOTS),
            lambda name: RingConsumer(path, name, parse_policy(POLICIES[name])),
        )
