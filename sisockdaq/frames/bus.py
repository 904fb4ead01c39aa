"""The two ends of the frame plane as every back end offers them; ``tests/frames/bus_contract.py`` holds them to it.

A producer owns a pool of *slots*, each one frame's pixels (and its packet mask). It takes a free slot, fills it in
place, and publishes it with a `FrameHeader`. A consumer attaches with a name and a `Policy`, and iterates over marks
and frames. Whatever a consumer does not get is counted at the producer, under the consumer's name.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from sisockdaq.frames.messages import Arm, Description, End, FrameHeader, Mark, Report, Start, Stop

__all__ = ["BorrowedFrame", "Consumer", "Producer", "Request", "unreceived"]

Request = Arm | Stop | Report


class Producer(Protocol):
    """The writing end. All methods are for one thread (`status` for any); nothing here blocks on a consumer.

    Attributes
    ----------
    pixels : ndarray, (slots, *shape)
        The slots' memory; a kernel writes into ``pixels[slot]``.
    packet_masks : ndarray of uint8, (slots, ⌈packets_per_frame / 8⌉)
        Bit ``i % 8`` of byte ``i // 8`` is 1 where packet ``i`` was **received**. Filled before `publish`.
    """

    pixels: npt.NDArray[Any]
    packet_masks: npt.NDArray[np.uint8]

    def acquire(self) -> int | None:
        """Take a free slot; None when the ring is full (the caller counts the frame it must drop)."""

    def publish(self, slot: int, header: FrameHeader) -> None:
        """Hand the filled slot to every consumer by its policy, and forget it."""

    def discard(self, slot: int) -> None:
        """Give an acquired slot back unpublished."""

    def start(self, start: Start) -> None:
        """Mark the beginning of an acquisition."""

    def end(self, end: End, deadline: float = 10.0) -> None:
        """Mark its end; after all consumers have reported, or `deadline` seconds, `Settled` follows by itself."""

    def describe(self, description: Description) -> None:
        """Change ``meta`` of the description (shape and dtype stay): a new epoch for every consumer."""

    def on_request(self, handler: Callable[[str, Request], None]) -> None:
        """Call ``handler(consumer_name, request)`` for `Arm` and `Stop`, from a thread of the back end's."""

    def status(self) -> dict[str, Any]:
        """``{"slots", "slots_free", "published", "consumers": {name: {"policy", "taken", "dropped", …}}}``."""

    def close(self) -> None:
        """Detach all consumers and free the memory."""


class BorrowedFrame(Protocol):
    """A frame in a consumer's hands; a context manager that releases it."""

    @property
    def header(self) -> FrameHeader:
        """Everything about the frame but its pixels."""

    @property
    def pixels(self) -> npt.NDArray[Any]:
        """Read-only view of the slot; not to be used after `release`."""

    @property
    def packet_mask(self) -> npt.NDArray[np.uint8]:
        """As `Producer.packet_masks`, of this frame."""

    def valid(self) -> bool:
        """Whether the slot still holds this frame; False once the source took it back (check after use)."""

    def release(self, *, used: bool = True) -> None:
        """Let the slot go; `used` False counts the frame as dropped by this consumer. Any thread, once."""

    def __enter__(self) -> BorrowedFrame: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Consumer(Protocol):
    """The reading end, for one thread (frames may be released in others)."""

    def next(self, timeout: float) -> Mark | BorrowedFrame | None:
        """Return the next mark or frame in order; None after `timeout` seconds without one.

        Attaches by itself, and again whenever the source comes back; each time with an `Attached` mark.
        """

    def request(self, request: Request) -> None:
        """Send `Arm`, `Stop` or `Report` to the source; raise `FrameSourceError` when not attached or not possible."""

    def close(self) -> None:
        """Detach; frames still borrowed stay readable until released."""


def unreceived(packet_mask: npt.NDArray[np.uint8], packets: int) -> npt.NDArray[np.intp]:
    """Return the numbers of the packets that `packet_mask` lacks, ascending."""
    bits = np.unpackbits(packet_mask, bitorder="little")[:packets]
    return np.flatnonzero(bits == 0)
