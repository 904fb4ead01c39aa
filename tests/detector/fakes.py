"""A producer in one process that keeps what is published, and sockets on free ports."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sisockdaq.detector.description import DetectorOptions
from sisockdaq.frames.bus import Request
from sisockdaq.frames.messages import Description, End, FrameHeader, Start


@dataclass
class Published:
    """A frame as it was at the moment of publishing."""

    header: FrameHeader
    pixels: npt.NDArray[Any]
    packet_mask: npt.NDArray[np.uint8]


class FakeProducer:
    """Satisfies `bus.Producer`; slots come back as soon as they are published, unless `hold` is set."""

    def __init__(self, options: DetectorOptions, slots: int = 8) -> None:
        self.pixels = np.full((slots, *options.shape), 17, options.dtype)
        self.packet_masks = np.full((slots, -(-options.packets_per_frame // 8)), 0xAA, np.uint8)
        self.frames: list[Published] = []
        self.log: list[Any] = []
        self.hold = False
        self._free = list(range(slots))
        self._held: list[int] = []
        self._changed = threading.Condition()
        self.handler: Callable[[str, Request], None] | None = None

    def acquire(self) -> int | None:
        return self._free.pop(0) if self._free else None

    def publish(self, slot: int, header: FrameHeader) -> None:
        frame = Published(header, self.pixels[slot].copy(), self.packet_masks[slot].copy())
        with self._changed:
            self.frames.append(frame)
            self.log.append(header)
            (self._held if self.hold else self._free).append(slot)
            self._changed.notify_all()

    def discard(self, slot: int) -> None:
        self._free.append(slot)

    def let_go(self) -> None:
        """End the hold: all slots are free again."""
        self.hold = False
        while self._held:
            self._free.append(self._held.pop())

    def start(self, start: Start) -> None:
        self._mark(start)

    def end(self, end: End, deadline: float = 10.0) -> None:
        self._mark(end)

    def describe(self, description: Description) -> None:
        raise NotImplementedError

    def on_request(self, handler: Callable[[str, Request], None]) -> None:
        self.handler = handler

    def status(self) -> dict[str, Any]:
        return {"slots": len(self.pixels), "slots_free": len(self._free)}

    def close(self) -> None:
        pass

    def _mark(self, mark: Start | End) -> None:
        with self._changed:
            self.log.append(mark)
            self._changed.notify_all()

    def wait_for(self, condition: Callable[[], bool], deadline: float = 20.0) -> None:
        with self._changed:
            if not self._changed.wait_for(condition, deadline):
                raise AssertionError(f"not reached in {deadline} s; frames {[f.header.number for f in self.frames]}")

    def wait_frames(self, count: int, deadline: float = 20.0) -> list[Published]:
        self.wait_for(lambda: len(self.frames) >= count, deadline)
        return self.frames

    @property
    def ends(self) -> list[End]:
        return [entry for entry in self.log if isinstance(entry, End)]
