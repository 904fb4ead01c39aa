"""A source of images and a source of results for tests of the writer: threads that publish what `data` describes."""

from __future__ import annotations

import queue
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sisockdaq.frames import Arm, End, FrameHeader, Policy, Request, Start, Stop
from sisockdaq.frames.ring import RingConsumer, RingProducer
from sisockdaq.nexus.engine import WriterEngine
from sisockdaq.nexus.options import EngineOptions
from tests.nexus import data

DEADLINE = 20.0
"""Longest wait for anything that should happen at once [s]."""


def wait_for(condition: Callable[[], Any], what: str, deadline: float = DEADLINE) -> Any:
    """Return the first true value of `condition`; fail after the deadline."""
    end, gate = time.monotonic() + deadline, threading.Event()
    while not (value := condition()):
        assert time.monotonic() < end, f"{what} did not happen within {deadline:g} s"
        gate.wait(0.005)
    return value


class Sources:
    """A receiver and an integrator in one thread, started by `Arm` as the real ones are.

    Attributes
    ----------
    skip : set of int
        Indices of frames that the receiver drops.
    lose : dict of int to int
        Packets that are missing in a frame.
    results_until : int or None
        The first frame whose results the integrator has not made when the acquisition ends, as one that is behind.
    """

    def __init__(self, images: Path, results: Path | None, *, slots: int = 32, frame_time: float = 0.0) -> None:
        self.images = RingProducer(images, data.IMAGES, slots)
        self.results = RingProducer(results, data.RESULTS, slots) if results is not None else None
        self.paths, self.frame_time, self._slots = (images, results), frame_time, slots
        self.skip: set[int] = set()
        self.lose: dict[int, int] = {}
        self.ring_full = 0
        self.results_until: int | None = None
        self.ignore_arm = self.dead = False
        self.pause_at: int | None = None
        self.paused = threading.Event()
        self.resume = threading.Event()
        self._requests: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self.images.on_request(lambda name, request: self._requests.put(request))
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def attach_writer(self, folder: Path, **options: Any) -> WriterEngine:
        """Start an engine that writes to `folder`; return when it is attached."""
        images, curves = self.paths
        chosen = EngineOptions(folder, **{"images_per_file": 10, "flush_interval": 0.05, **options})
        consume = partial(RingConsumer, name="writer", policy=Policy("lossless"))
        results = {"integrator": partial(consume, curves)} if curves is not None else {}
        engine = WriterEngine(chosen, partial(consume, images), results).start_threads()
        wait_for(lambda: len(engine.sources) == 1 + len(results), "attaching to the sources")
        return engine

    def close(self) -> None:
        self._requests.put(None)
        self.resume.set()
        self._thread.join(DEADLINE)
        self.images.close()
        if self.results is not None:
            self.results.close()

    def go(self) -> None:
        """Take the images away, as a receiver does that is configured anew."""
        self.images.close()

    def come_back(self) -> None:
        """Offer images again, at the same place."""
        self.images = RingProducer(self.paths[0], data.IMAGES, self._slots)
        self.images.on_request(lambda name, request: self._requests.put(request))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hear requests only after the block."""
        held: queue.SimpleQueue[Request] = queue.SimpleQueue()
        self.images.on_request(lambda name, request: held.put(request))
        yield
        self._requests.put(held.get(timeout=DEADLINE))
        self.images.on_request(lambda name, request: self._requests.put(request))

    def die(self) -> None:
        """Let the receiver go at its pause, without a word."""
        self.dead = True
        self.resume.set()

    def _run(self) -> None:
        while (request := self._requests.get()) is not None:
            if isinstance(request, Arm) and not self.ignore_arm:
                self._acquire(request)

    def _acquire(self, arm: Arm) -> None:
        start = Start(arm.acquisition, arm.frames, arm.meta)
        self._each(lambda producer: producer.start(start))
        index, reason, partial = 0, "complete", 0
        while arm.frames is None or index < arm.frames:
            if self.pause_at == index:
                self.paused.set()
                while self._requests.empty() and not self.resume.wait(0.005):
                    pass
                if self.dead:
                    self.images.close()
                    return
            if (stop := self._stop_asked()) is not None:
                reason = stop
                break
            if index not in self.skip:
                self._publish(index)
                partial += bool(self.lose.get(index))
            index += 1
            if self.frame_time:
                threading.Event().wait(self.frame_time)
        dropped = {"policy": sum(each < index for each in self.skip), "ring_full": self.ring_full}
        lost = sum(count for each, count in self.lose.items() if each < index)
        counts = {
            "packets_expected": index * data.PACKETS,
            "packets_received": index * data.PACKETS - lost,
            "packets_lost": lost,
            "frames_expected": index,
            "frames_complete": index - partial - sum(dropped.values()),
            "frames_partial": partial,
            "frames_dropped": dropped,
        }
        end = End(arm.acquisition, reason, counts)  # type: ignore[arg-type]
        self.images.end(end)
        if self.results is not None and self.results_until is None:
            self.results.end(end)

    def _each(self, act: Callable[[RingProducer], None]) -> None:
        act(self.images)
        if self.results is not None:
            act(self.results)

    def _stop_asked(self) -> str | None:
        while not self._requests.empty():
            request = self._requests.get()
            if isinstance(request, Stop):
                return request.reason
            if request is None:
                self._requests.put(None)
                return "failed"
        return None

    def _publish(self, index: int) -> None:
        lost = self.lose.get(index, 0)
        header = data.header(index, lost=lost)
        slot = self._slot(self.images)
        if slot is None:
            self.ring_full += 1
            return
        self.images.pixels[slot] = data.image(index)
        bits = np.array([packet >= lost for packet in range(data.PACKETS)])
        self.images.packet_masks[slot] = np.packbits(bits, bitorder="little")
        self.images.publish(slot, header)
        if self.results_until is not None and index >= self.results_until:
            return
        if self.results is not None and (slot := self._slot(self.results)) is not None:
            self.results.pixels[slot] = data.results(index)
            copy = FrameHeader(header.number, header.time, header.last, header.index)
            self.results.publish(slot, copy)

    @staticmethod
    def _slot(producer: RingProducer) -> int | None:
        """A patient source: tests of the writer are to show what it does with every frame."""
        end = time.monotonic() + 2.0
        while (slot := producer.acquire()) is None and time.monotonic() < end:
            threading.Event().wait(0.001)
        return slot


def kill(engine: WriterEngine) -> None:
    """End an engine as the death of its process would: nothing is closed in order, nobody is told."""
    engine._close_files_at_exit = engine._end_in_order = lambda: None  # type: ignore[method-assign]
    engine.close()
    if engine._files is not None:
        for entry in engine._files._open.values():
            entry.file.abandon()


@contextmanager
def running(
    folder: Path, *, results: bool = True, source: dict[str, Any] | None = None, **options: Any
) -> Iterator[tuple[Sources, WriterEngine]]:
    """Sources and a writer that is attached to them; files go to `folder`."""
    with tempfile.TemporaryDirectory(prefix="sq", dir="/tmp") as sockets:
        images, curves = Path(sockets) / "i.sock", Path(sockets) / "r.sock"
        sources = Sources(images, curves if results else None, **(source or {}))
        engine = sources.attach_writer(folder, **options)
        try:
            yield sources, engine
        finally:
            engine.close()
            sources.close()


def finished(engine: WriterEngine, deadline: float = DEADLINE) -> dict[str, Any]:
    """Wait for the end of the acquisition; return the status."""
    wait_for(lambda: engine.status()["state"] == "READY" and engine.status()["ended"], "the end", deadline)
    return engine.status()
