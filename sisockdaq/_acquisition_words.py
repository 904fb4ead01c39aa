"""The words of an acquisition's life: its states, what is asked for, what happens, what is to be done. Pure data.

`sisockdaq.acquisition` has the machine that they belong to, and shows them all; import them from there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

__all__ = [
    "Abandon",
    "AcquisitionState",
    "ArmSource",
    "Drain",
    "Drained",
    "Event",
    "FirstFrame",
    "FramesCome",
    "Instruction",
    "OpenFiles",
    "Record",
    "Request",
    "Seal",
    "SendReport",
    "Settled",
    "SourceEnded",
    "SourceLost",
    "SourceStarted",
    "StopRequested",
    "StopSource",
    "Tick",
    "WriteFailed",
    "WriterEnds",
    "WriterState",
]


class WriterState(StrEnum):
    """What the writer as a whole can do now."""

    READY = "READY"
    WRITING = "WRITING"


class AcquisitionState(StrEnum):
    """How far the current or last acquisition is."""

    WAITING_IMAGES = "WAITING_IMAGES"
    ACQUIRING_IMAGES = "ACQUIRING_IMAGES"
    WRITING = "WRITING"
    FLUSHING_IMAGES = "FLUSHING_IMAGES"
    FINISHED = "FINISHED"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for: a name, a number of frames (None: until stopped), a folder, facts for the file.

    ``output_file`` is the very path of the master file, instead of a name's; ``run_id`` is the asker's own mark;
    ``user_id`` is whose the files are to be (None: the writer's own user); ``raw`` asks for the detector's packets
    "beside" or "instead" of images.
    """

    acquisition: str
    frames: int | None = None
    directory: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    run_id: int | str | None = None
    output_file: str | None = None
    user_id: int | None = None
    raw: Literal["beside", "instead"] | None = None

    @property
    def writes_images(self) -> bool:
        """Whether image files are made."""
        return self.raw != "instead"


@dataclass(slots=True)
class Record:
    """An acquisition, running or over. Times are UNIX seconds, None while not known.

    ``state`` is None until the source has begun: who sends images as soon as it is WAITING_IMAGES loses none.
    ``frames_taken`` came to be written, ``frames_written`` are in the files (where there are raw packets instead of
    images: in the recording); ``master`` and ``files`` are their paths, ``raw`` is the folder of raw packets.
    """

    request: Request
    state: AcquisitionState | None = None
    message: str = ""
    started: float | None = None
    ended: float | None = None
    frames_taken: int = 0
    frames_written: int = 0
    files_closed: int = 0
    master: str | None = None
    files: list[str] = field(default_factory=list)
    ledger: dict[str, Any] | None = None
    raw: str | None = None


# Events: what happened.


@dataclass(frozen=True, slots=True)
class SourceStarted:
    """The source has begun the acquisition of that name."""

    acquisition: str


@dataclass(frozen=True, slots=True)
class FramesCome:
    """Frames of the acquisition come; none is in a file yet."""


@dataclass(frozen=True, slots=True)
class FirstFrame:
    """The first frame of the acquisition is in its file."""


@dataclass(frozen=True, slots=True)
class SourceEnded:
    """The source has ended it; all its frames have been handed over before this event."""

    acquisition: str
    reason: str
    frames_expected: int | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class SourceLost:
    """The source has gone, or cannot be asked."""

    reason: str


@dataclass(frozen=True, slots=True)
class StopRequested:
    """A person or program wants it to end."""


@dataclass(frozen=True, slots=True)
class WriteFailed:
    """A file cannot be written."""

    reason: str


@dataclass(frozen=True, slots=True)
class Drained:
    """All data files are closed."""

    frames_written: int
    files_closed: int


@dataclass(frozen=True, slots=True)
class Settled:
    """The final ledger of that acquisition has come."""

    acquisition: str
    ledger: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class WriterEnds:
    """The writer itself is about to end, and can wait for nobody."""

    reason: str


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


Event = (
    SourceStarted
    | FramesCome
    | FirstFrame
    | SourceEnded
    | SourceLost
    | StopRequested
    | WriteFailed
    | Drained
    | Settled
    | WriterEnds
    | Tick
)


# Instructions: what the owner is to do, in the order given.


@dataclass(frozen=True, slots=True)
class OpenFiles:
    """Make the files of the acquisition, or go on with those that are there."""

    request: Request
    resume: bool = False


@dataclass(frozen=True, slots=True)
class ArmSource:
    """Ask the source to begin."""

    request: Request


@dataclass(frozen=True, slots=True)
class StopSource:
    """Ask the source to end; ``failed`` says why."""

    acquisition: str
    failed: bool


@dataclass(frozen=True, slots=True)
class Drain:
    """Wait for late results, close the data files in order, answer with `Drained`."""

    frames_expected: int | None


@dataclass(frozen=True, slots=True)
class Abandon:
    """Save what can be saved of the data files, take no more frames, answer with `Drained`."""


@dataclass(frozen=True, slots=True)
class SendReport:
    """Tell the source what was written."""

    acquisition: str
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Seal:
    """Write the final master file."""

    reason: str
    ledger: Mapping[str, Any] | None


Instruction = OpenFiles | ArmSource | StopSource | Drain | Abandon | SendReport | Seal
