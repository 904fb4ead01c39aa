"""What travels on the frame plane: descriptors and marks, independent of the back end that carries them.

A **source** (a receiver, an integrator) publishes arrays of one shape and dtype. Every array is a *frame*: an image
from a receiver, a vector of results from an integrator. Marks (`Start`, `End`, `Settled`) travel in order between
the frames, so that each consumer sees the same acquisition begin and end at the same frame.

Times are UNIX seconds (float64). ``Frame.time`` is the one time of a frame everywhere: live series, curves made
from it and files carry this very float, so that archived and live samples can be joined without doubles.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = [
    "NO_ACQUISITION",
    "Arm",
    "Attached",
    "Description",
    "Detached",
    "End",
    "FrameHeader",
    "Mark",
    "Policy",
    "Report",
    "Settled",
    "Start",
    "Stop",
    "parse_policy",
]

NO_ACQUISITION = -1
"""``FrameHeader.index`` of a frame that belongs to no acquisition."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How a consumer takes frames.

    ``lossless``: every frame, and its slot is kept until released; ``latest``: the newest only, never holding the
    source back; ``every``: each ``n``-th frame by sequence number, never holding the source back.
    """

    kind: Literal["lossless", "latest", "every"]
    n: int = 1

    def __str__(self) -> str:
        return f"every: {self.n}" if self.kind == "every" else self.kind


def parse_policy(text: str) -> Policy:
    """Read ``lossless``, ``latest`` or ``every: n``; raise `ValueError` that names the three otherwise."""
    words = text.replace(":", " ").split()
    if words == ["lossless"]:
        return Policy("lossless")
    if words == ["latest"]:
        return Policy("latest")
    if len(words) == 2 and words[0] == "every" and words[1].isdigit() and int(words[1]) > 0:
        return Policy("every", int(words[1]))
    raise ValueError(f'"{text}" is not a policy; one of lossless, latest, every: n (n ≥ 1)')


@dataclass(frozen=True, slots=True)
class Description:
    """What a source publishes; sent to a consumer when it attaches, and again with a new epoch when it changes.

    ``kind`` is "image" (shape ``(ny, nx)``) or "results" (shape ``(n,)``). ``meta`` is JSON-able and free: for an
    image the detector's description, for results the ``layout`` (name → [start, stop] in the vector) and ``axes``.
    """

    source: str
    kind: str
    shape: tuple[int, ...]
    dtype: str
    packets_per_frame: int = 0
    fill_value: float = 0
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class FrameHeader:
    """Everything about one frame but its pixels.

    Attributes
    ----------
    number : int
        The detector's frame number (image id).
    time : float
        UNIX time of the frame's first packet [s].
    last : float
        UNIX time of its last packet [s].
    index : int
        0, 1, … in the acquisition; `NO_ACQUISITION` outside one.
    packets_expected, packets_received : int
        Equal for a complete frame; 0 and 0 where the source has no packets.
    total, maximum : float
        Sum and maximum over the pixels that were received and are not the fill value.
    timestamp : int
        The detector's own clock, as in its packets.
    sequence : int
        0, 1, … since the source started, set by the producer when it publishes; a jump is a loss.
    """

    number: int
    time: float
    last: float
    index: int = NO_ACQUISITION
    packets_expected: int = 0
    packets_received: int = 0
    total: float = 0.0
    maximum: float = 0.0
    timestamp: int = 0
    sequence: int = -1

    @property
    def complete(self) -> bool:
        """Whether no packet is missing."""
        return self.packets_received == self.packets_expected


@dataclass(frozen=True, slots=True)
class Start:
    """An acquisition begins with the next frame. ``frames`` is None when open-ended; ``meta`` is JSON-able."""

    acquisition: str
    frames: int | None
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class End:
    """The acquisition has ended at its source. ``counts`` is the source's part of the ledger (`frames.ledger`)."""

    acquisition: str
    reason: Literal["complete", "stopped", "failed"]
    counts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Settled:
    """All consumers have reported, or their deadline has passed: ``ledger`` is final (`Ledger.to_dict`)."""

    acquisition: str
    ledger: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Attached:
    """This consumer is now attached; ``epoch`` differs for each life of the source and each new description."""

    description: Description
    epoch: int
    acquisition: Start | None = None
    """The acquisition that was under way at that moment, if any."""


@dataclass(frozen=True, slots=True)
class Detached:
    """The source has gone, or has thrown this consumer out; attaching again is tried until the subscription ends."""

    reason: str


Mark = Start | End | Settled | Attached | Detached


@dataclass(frozen=True, slots=True)
class Arm:
    """A consumer's request to its source: begin an acquisition with the next new frame."""

    acquisition: str
    frames: int | None = None
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stop:
    """A consumer's request to its source: end the acquisition that is under way."""

    acquisition: str
    reason: Literal["stopped", "failed"] = "stopped"


@dataclass(frozen=True, slots=True)
class Report:
    """A consumer's own counts for an acquisition, sent once it has handled everything up to `End`.

    Counters by name, for example ``{"frames_written": 1000, "files_closed": 2}``.
    """

    acquisition: str
    counts: dict[str, int]
