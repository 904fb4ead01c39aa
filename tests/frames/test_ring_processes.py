"""The ring between real processes: they die, hang and come back, and nothing is lost without being named."""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sisockdaq.errors import FrameSourceError
from sisockdaq.frames import (
    Attached,
    Description,
    Detached,
    End,
    FrameHeader,
    Ledger,
    Report,
    Settled,
    Start,
    parse_policy,
)
from sisockdaq.frames.ring import RingConsumer, RingProducer
from tests.frames.bus_contract import until
from tests.frames.ring_child import SHAPE

SOON = 30.0
"""Deadline of what another process must do, its start included [s]."""

ROOT = Path(__file__).parents[2]
DESCRIPTION = Description("rx", "image", SHAPE, "<u2")


class Child:
    """A `ring_child` process and what it tells."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.frames.ring_child", *arguments],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._lines: queue.Queue[dict[str, Any]] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(json.loads(line))

    def told(self, what: str) -> dict[str, Any]:
        """Wait for an event of that kind, passing over others."""
        while True:
            event = self._lines.get(timeout=SOON)
            if what in event:
                return event

    def send(self, what: signal.Signals) -> None:
        self.process.send_signal(what)

    def close(self) -> None:
        self.process.kill()
        self.process.wait(SOON)
        self._reader.join(SOON)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()


class Stage:
    """A folder for the socket; producers and children that are closed in the end."""

    def __init__(self, folder: Path) -> None:
        self.socket = folder / "frames.sock"
        self.made: list[RingProducer | RingConsumer | Child] = []

    def producer(self, slots: int = 8, **options: Any) -> RingProducer:
        producer = RingProducer(self.socket, DESCRIPTION, slots, **options)
        self.made.append(producer)
        return producer

    def consumer(self, name: str, policy: str = "lossless") -> RingConsumer:
        consumer = RingConsumer(self.socket, name, parse_policy(policy))
        self.made.append(consumer)
        return consumer

    def child(self, role: str, *arguments: str) -> Child:
        child = Child(role, str(self.socket), *arguments)
        self.made.append(child)
        return child


@pytest.fixture
def stage() -> Iterator[Stage]:
    with tempfile.TemporaryDirectory(prefix="ring-") as folder:
        stage = Stage(Path(folder))
        yield stage
        for made in stage.made:
            made.close()


def put(producer: RingProducer, number: int, index: int = -1) -> bool:
    slot = producer.acquire()
    if slot is None:
        return False
    producer.pixels[slot] = number
    producer.publish(slot, FrameHeader(number, 0.0, 0.0, index))
    return True


def run(producer: RingProducer, frames: int) -> dict[str, Any]:
    """Publish an acquisition as fast as it goes; what finds no slot is dropped. Return the source's counts."""
    producer.start(Start("run", frames))
    published = sum(put(producer, number, number) for number in range(frames))
    return {
        "frames_expected": frames,
        "frames_complete": published,
        "frames_dropped": {"ring_full": frames - published},
    }


def test_every_frame_is_whole_under_pressure(stage: Stage) -> None:
    children = {
        name: stage.child("consumer", name, policy)
        for name, policy in (("writer", "lossless"), ("viewer", "latest"), ("third", "every: 3"))
    }
    for child in children.values():
        child.told("ready")
    producer = stage.producer(16)
    for child in children.values():
        child.told("attached")
    producer.end(End("run", "complete", run(producer, 5000)))
    for child in children.values():
        assert child.told("end")["torn"] == 0
    ledger = Ledger.from_dict(children["writer"].told("settled")["settled"])
    assert ledger.balance() == []
    part = ledger.consumers["writer"]
    assert part.taken == ledger.frames_complete == part.counts["frames_checked"]


def test_a_killed_consumer_gives_its_slots_back(stage: Stage) -> None:
    producer, good = stage.producer(4), stage.consumer("good")
    assert isinstance(good.next(SOON), Attached)
    victim = stage.child("consumer", "victim", "lossless", "hoard")
    victim.told("attached")
    producer.start(Start("run", None))
    for number in range(4):
        assert put(producer, number, number)
    while victim.told("hoarded")["hoarded"] < 4:
        pass
    assert isinstance(good.next(SOON), Start)
    for _ in range(4):
        release_next(good)
    assert producer.status()["slots_free"] == 0
    victim.send(signal.SIGKILL)
    until(lambda: producer.status()["slots_free"] == 4, "the killed consumer's slots")
    assert put(producer, 4, 4)
    release_next(good)
    producer.end(End("run", "stopped", {"frames_expected": 5, "frames_complete": 5}))
    assert isinstance(good.next(SOON), End)
    good.request(Report("run", {}))
    settled = good.next(SOON)
    assert isinstance(settled, Settled)
    ledger = Ledger.from_dict(settled.ledger)
    assert ledger.balance() == []
    part = ledger.consumers["victim"]
    assert (part.state, part.dropped, part.missed) == ("gone", 4, 1)


def release_next(consumer: RingConsumer) -> None:
    item = consumer.next(SOON)
    assert item is not None
    assert not isinstance(item, Start | End | Settled | Attached | Detached)
    item.release()


def test_a_stopped_consumer_is_thrown_out_and_comes_back(stage: Stage) -> None:
    producer = stage.producer(4, hang_after=0.3)
    frozen = stage.child("consumer", "frozen", "lossless")
    first = frozen.told("attached")["attached"]
    frozen.send(signal.SIGSTOP)
    for number in range(4):
        assert put(producer, number)
    until(lambda: put(producer, 4), "a slot of the stopped consumer")
    assert producer.status()["consumers"]["frozen"]["state"] == "evicted"
    frozen.send(signal.SIGCONT)
    assert "thrown out" in frozen.told("detached")["detached"]
    assert frozen.told("attached")["attached"] == first
    producer.end(End("run", "complete", run(producer, 20)))
    assert frozen.told("end")["torn"] == 0


def test_a_killed_source_is_noticed_and_its_successor_found(stage: Stage) -> None:
    consumer = stage.consumer("writer")
    source = stage.child("producer", "3")
    first = consumer.next(SOON)
    assert isinstance(first, Attached)
    source.told("published")
    source.send(signal.SIGKILL)
    while not isinstance(item := consumer.next(SOON), Detached):
        assert item is not None, "the death of the source was not told"
        assert not isinstance(item, Start | End | Settled | Attached)
        assert (item.pixels == item.header.number).all()
        item.release()
    assert stage.socket.exists(), "a killed source leaves its socket file behind"
    producer = stage.producer()
    second = consumer.next(SOON)
    assert isinstance(second, Attached)
    assert second.epoch != first.epoch
    assert put(producer, 9)
    release_next(consumer)


def test_only_one_source_at_a_socket(stage: Stage) -> None:
    producer, consumer = stage.producer(), stage.consumer("writer")
    assert isinstance(consumer.next(SOON), Attached)
    assert "another process publishes" in stage.child("producer", "3").told("error")["error"]
    with pytest.raises(FrameSourceError, match="another process publishes"):
        stage.producer()
    assert put(producer, 1)
    release_next(consumer)


def test_nothing_stays_behind(stage: Stage) -> None:
    shared = Path("/dev/shm")
    before = {path for path in shared.iterdir() if path.stat().st_uid == stage.socket.parent.stat().st_uid}
    source = stage.child("producer", "3")
    source.told("published")
    assert not {path for path in shared.iterdir() if "sisockdaq" in path.name} - before
    source.send(signal.SIGKILL)
    source.process.wait(SOON)
    assert not {path for path in shared.iterdir() if "sisockdaq" in path.name} - before
    stage.producer().close()
    assert [path.name for path in stage.socket.parent.iterdir()] == ["frames.sock.lock"]


def test_a_second_consumer_of_a_name_waits_for_the_first_to_go(stage: Stage) -> None:
    stage.producer()
    first, second = stage.consumer("writer"), stage.consumer("writer")
    assert isinstance(first.next(SOON), Attached)
    refused = second.next(SOON)
    assert isinstance(refused, Detached)
    assert 'another consumer named "writer" is attached' in refused.reason
    assert second.next(0.3) is None
    first.close()
    assert isinstance(second.next(SOON), Attached)


def test_a_consumer_is_closed_from_another_thread(stage: Stage) -> None:
    producer, consumer = stage.producer(), stage.consumer("writer")
    assert isinstance(consumer.next(SOON), Attached)
    seen: list[object] = ["nothing yet"]
    thread = threading.Thread(target=lambda: seen.append(consumer.next(SOON)))
    thread.start()
    consumer.close()
    thread.join(SOON)
    assert seen[1:] == [None]
    until(lambda: producer.status()["consumers"]["writer"]["state"] == "gone", "the departure noticed")
