"""Conversion between a receiver and its ring, in a thread of its own: the receiver goes on reading packets meanwhile.

To the receiver this is a `Producer` of raw frames. It assembles them in memory of its own; each such slot has one of
the ring behind it, into which the frame is converted. Frames and marks stay in their order.

Policies: a receiver that is faster than the conversion finds no free slot, which it counts as it counts a full ring.
Nothing else can be lost here.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from sisockdaq.conversion.converter import Converter, FrameStatistics
from sisockdaq.frames.bus import Producer, Request
from sisockdaq.frames.messages import Description, End, FrameHeader, Start

__all__ = ["RAW_FILL", "ConvertingProducer", "Shown"]

log = logging.getLogger(__name__)

RAW_FILL = 0xFFFF
"""What lost packets and gaps are in a raw frame: no pixel of a JUNGFRAU has it, and it converts to `Converter.fill`."""

_END_WITHIN = 10.0
"""Longest wait for what is still to be converted, at the end [s]."""

Shown = Callable[[FrameHeader, "npt.NDArray[Any] | None", "FrameStatistics | None"], None]
"""``show(header, image, statistics)`` of each frame just before it is published, in the conversion's thread; image and
statistics are None where there was no slot. The header's sum and maximum are those of the converted frame."""


class ConvertingProducer:
    """Takes raw frames, publishes converted ones; satisfies `sisockdaq.frames.bus.Producer`.

    Parameters
    ----------
    ring : Producer
        Of frames of the converter's shape and dtype. Closed with this.
    converter : Converter
        May be replaced at any time: `converter` is looked at once a frame.
    slots : int
        Raw frames in hand, at most: being assembled, or waiting to be converted.
    show : callable, optional
        See `Shown`.

    Raises
    ------
    ValueError
        When ring and converter do not fit together.
    """

    def __init__(self, ring: Producer, converter: Converter, slots: int, *, show: Shown | None = None) -> None:
        if ring.pixels.shape[1:] != converter.shape or ring.pixels.dtype != converter.dtype:
            raise ValueError(f"the ring has other images than {converter.shape} of {converter.dtype}")
        self.converter = converter
        self.pixels: npt.NDArray[Any] = np.full((slots, *converter.shape), RAW_FILL, np.uint16)
        self.packet_masks: npt.NDArray[np.uint8] = np.zeros((slots, ring.packet_masks.shape[1]), np.uint8)
        ring.pixels[...] = 0  # touched now: page faults would cost as much as the conversion
        self._ring, self._show = ring, show
        self._free = list(range(slots))
        self._behind: dict[int, int] = {}
        self._seen: FrameHeader | None = None
        self._lock = threading.Lock()
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()  # bounded by the slots
        self._thread = threading.Thread(target=self._run, name="conversion", daemon=True)
        self._thread.start()

    # The receiver's thread.

    def saw(self, header: FrameHeader, raw: npt.NDArray[Any] | None) -> None:
        """Note a finished frame before its slot is published or discarded: for the receiver's ``on_frame``."""
        if raw is None:
            self._work.put(lambda: self._tell(header, None, None))
        else:
            self._seen = header

    def acquire(self) -> int | None:
        """Take a free slot for a raw frame; None when all wait to be converted, or the ring is full."""
        with self._lock:
            if not self._free:
                return None
            behind = self._ring.acquire()
            if behind is None:
                return None
            slot = self._free.pop()
            self._behind[slot] = behind
            return slot

    def publish(self, slot: int, header: FrameHeader) -> None:
        """Convert and publish a raw frame, later, in its turn."""
        self._seen = None
        own = replace(header)
        self._work.put(lambda: self._convert(slot, own, publish=True))

    def discard(self, slot: int) -> None:
        """Give a slot back; a frame that `saw` was told of is still shown."""
        seen, self._seen = self._seen, None
        if seen is None:
            self._give_back(slot)
        else:
            own = replace(seen)
            self._work.put(lambda: self._convert(slot, own, publish=False))

    def start(self, start: Start) -> None:
        """Mark the beginning of an acquisition, after the frames before it."""
        self._work.put(lambda: self._ring.start(start))

    def end(self, end: End, deadline: float = 10.0) -> None:
        """Mark its end, after its frames."""
        self._work.put(lambda: self._ring.end(end, deadline))

    def describe(self, description: Description) -> None:
        """Change the description for the frames after this."""
        self._work.put(lambda: self._ring.describe(description))

    def on_request(self, handler: Callable[[str, Request], None]) -> None:
        """As the ring's."""
        self._ring.on_request(handler)

    # Any thread.

    def status(self) -> dict[str, Any]:
        """Return the ring's status; ``unconverted`` is the number of raw frames in hand."""
        return {**self._ring.status(), "unconverted": len(self._behind)}

    def flush(self) -> None:
        """Wait until all that was published so far has reached the ring."""
        done = threading.Event()
        self._work.put(done.set)
        if not done.wait(_END_WITHIN):
            log.error("frames were not converted within %g s", _END_WITHIN)

    def close(self) -> None:
        """Convert what is in hand, then close the ring."""
        self._work.put(None)
        self._thread.join(_END_WITHIN)
        if self._thread.is_alive():
            log.error("the conversion did not end within %g s", _END_WITHIN)
        self._ring.close()
        self.converter.close()

    # The conversion's thread.

    def _run(self) -> None:
        while (task := self._work.get()) is not None:
            try:
                task()
            except Exception:  # edge of the thread: one frame's trouble must not end all that follow
                log.exception("a frame or a mark was not passed on")

    def _convert(self, slot: int, header: FrameHeader, *, publish: bool) -> None:
        with self._lock:
            behind = self._behind[slot]
        image = self._ring.pixels[behind]
        try:
            found = self.converter.convert_into(self.pixels[slot], image)
            header.total = found.total
            header.maximum = found.maximum if np.isfinite(found.maximum) else 0.0
            self._tell(header, image, found)
        except Exception:
            self._give_back(slot)
            raise
        if not publish:
            self._give_back(slot)
            return
        self._ring.packet_masks[behind] = self.packet_masks[slot]
        with self._lock:
            self._ring.publish(behind, header)
            self._free.append(slot)
            del self._behind[slot]

    def _tell(self, header: FrameHeader, image: npt.NDArray[Any] | None, statistics: FrameStatistics | None) -> None:
        if self._show is None:
            return
        try:
            self._show(header, image, statistics)
        except Exception:  # whatever a view of the frames does wrong must not cost a frame
            self._show = None
            log.exception("frames are no longer shown")

    def _give_back(self, slot: int) -> None:
        with self._lock:
            self._ring.discard(self._behind.pop(slot))
            self._free.append(slot)
