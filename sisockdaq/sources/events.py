"""What a feed tells the pump, and what the pump asks of a feed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["Event", "Feed", "Image", "SampleBlock", "SeriesEnd", "SeriesStart"]


@dataclass(frozen=True, slots=True)
class SeriesStart:
    """A series of images begins; its numbers count from `first`.

    Attributes
    ----------
    name : str
    frames : int or None
        Images announced.
    meta : dict
        What is known of detector and beam, JSON-able, by Stream V2's names and units.
    shape, dtype
        Of the images, where announced.
    tables : mapping of name → ndarray
        What is known of every pixel (`frames.tables`).
    """

    name: str
    frames: int | None = None
    first: int = 0
    meta: dict[str, Any] = field(default_factory=dict)
    shape: tuple[int, ...] | None = None
    dtype: np.dtype[Any] | None = None
    tables: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Image:
    """One image, still as it came.

    Attributes
    ----------
    number : int
    time, last : float
        UNIX time of the image's begin and end [s].
    read : callable
        ``read(out)`` puts the pixels into ``out``; raises `FrameSourceError` where they are damaged.
    timestamp : int
        Of the sender's own clock.
    """

    number: int
    time: float
    last: float
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[npt.NDArray[Any]], object]
    timestamp: int = 0


@dataclass(frozen=True, slots=True)
class SampleBlock:
    """Values of other channels at one time, by field name: numbers, text or arrays."""

    time: float
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class SeriesEnd:
    """The series has ended; `why` says what went wrong when its end did not come."""

    why: str = ""


Event = SeriesStart | Image | SampleBlock | SeriesEnd


class Feed(Protocol):
    """Where images come from. All methods but `counters` are for the pump's thread."""

    def open(self) -> None:
        """Begin; raise `SisockdaqError` where that is not possible."""

    def next(self, timeout: float) -> list[Event]:
        """Return what has come, in order; an empty list after at most `timeout` seconds without anything."""

    def counters(self) -> dict[str, int]:
        """Return what was refused, lost or passed over so far, by kind; any thread may ask."""

    def close(self) -> None:
        """End."""
