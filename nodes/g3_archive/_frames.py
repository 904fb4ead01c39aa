"""What is in a ``.g3`` housekeeping file: run in a process of its own, where so3g may fail or crash.

A file is a row of frames. Those with ``hkagg_type`` 0 begin a session, 1 name the providers, 2 hold data: blocks, each
with times and a column a field. Older layouts are brought to the present one by so3g itself. The promises:

- `scan` reads whole frames only and says up to which byte; so a growing file is continued there;
- `read` opens only the frames that it is told of;
- what so3g cannot read becomes a message, with the byte where it is.
"""

from __future__ import annotations

import contextlib
import importlib
import resource
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Column", "FieldFound", "Found", "Frame", "Provider", "field_name", "read", "scan", "serve"]

_TICKS_PER_SECOND = 1e8
"""Of the times in a file (`G3Units.s`)."""

_DATA, _STATUS, _SESSION = 2, 1, 0

_MEMORY = 4 << 30
"""Most that this process may hold [bytes]: a broken length in a file would make so3g ask for any amount."""

Frame = tuple[int, float, float, int]
"""Where a data frame begins [byte], its first and last time [s], and the samples of its longest block."""

Provider = tuple[int, str]
"""Number and description of a provider."""

Column = tuple[npt.NDArray[np.float64], npt.NDArray[Any]]
"""Times and values of one field."""


@dataclass(slots=True)
class FieldFound:
    """A field in a stretch of a file."""

    block: str
    type: str
    first: float
    last: float


@dataclass(slots=True)
class Found:
    """What a stretch of a file holds.

    Attributes
    ----------
    start, offset : int
        The stretch [bytes]: whole frames only.
    done : bool
        Whether nothing that can be read is left.
    error : str
        Why the rest cannot be read; "" where there is no rest.
    skipped : int
        Frames of data that are not as so3g writes them, or whose provider was not named before.
    providers : dict
        Description by number, as they are at `offset`.
    frames, fields : dict
        By ``(number, description)`` of the provider; fields by their names in the file.
    """

    start: int
    offset: int
    done: bool = False
    error: str = ""
    skipped: int = 0
    providers: dict[int, str] = field(default_factory=dict)
    frames: dict[Provider, list[Frame]] = field(default_factory=dict)
    fields: dict[Provider, dict[str, FieldFound]] = field(default_factory=dict)


def field_name(name: str) -> str:
    """Return a field's name as the network has it: lower case, spaces become underscores."""
    return name.lower().replace(" ", "_")


def scan(path: str, offset: int, providers: dict[int, str], seconds: float) -> Found:
    """Say what a file holds from a byte on; stop after some seconds.

    Parameters
    ----------
    path : str
        The file.
    offset : int
        Begin of a frame.
    providers : dict
        Description by number, as they were named before `offset`.
    seconds : float
        Longest time; `Found.done` says whether it was enough.
    """
    found = Found(offset, offset, providers=dict(providers))
    until = time.monotonic() + seconds
    try:
        for begin, after, frame in _frames(path, offset):
            _note(found, begin, frame)
            found.offset = after
            if time.monotonic() > until:
                return found
    except _BrokenError as error:
        found.error = str(error)
    found.done = True
    return found


def read(path: str, prov_id: int, offsets: Sequence[int] | None, names: Sequence[str]) -> dict[str, Column]:
    """Return columns of one provider.

    Parameters
    ----------
    path : str
        The file.
    prov_id : int
        Number of the provider.
    offsets : sequence of int, optional
        Where its frames begin, rising; None: look through the whole file, as far as it can be read.
    names : sequence of str
        Fields, as `field_name` writes them; those that are not there are left out.
    """
    parts: dict[str, list[Column]] = {}
    with contextlib.suppress(_BrokenError) if offsets is None else contextlib.nullcontext():
        for frame in _frames_at(path, offsets):
            if _kind(frame) == _DATA and int(frame["prov_id"]) == prov_id:
                _collect(parts, frame, set(names))
    return {name: _joined(columns) for name, columns in parts.items()}


def serve(descriptor: int) -> None:
    """Answer requests ``(function, arguments)`` over a pipe until its other end is closed."""
    # Ctrl-C goes to the whole group of processes; this one ends when the pipe does.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    core, _ = _library()
    core.G3Logger.global_logger = core.G3NullLogger()
    functions: dict[str, Callable[..., Any]] = {"scan": scan, "read": read}
    pipe = Connection(descriptor)
    while True:
        try:
            name, arguments = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            answer: tuple[bool, Any] = (True, functions[name](*arguments))
        except Exception as error:  # The edge of this process: whatever it was is told to the other end.
            answer = (False, str(error) or type(error).__name__)
        pipe.send(answer)


class _BrokenError(RuntimeError):
    """A frame cannot be read."""


def _library() -> tuple[Any, Any]:
    """Return ``spt3g.core`` and ``so3g.hk``; importing so3g first is what makes spt3g importable."""
    hk = importlib.import_module("so3g.hk")
    return importlib.import_module("spt3g.core"), hk


def _frames(path: str, offset: int) -> Iterator[tuple[int, int, Any]]:
    """Yield ``(its first byte, the byte after it, frame)`` of every frame from a byte on."""
    begin = offset
    if offset >= Path(path).stat().st_size:
        return
    core, hk = _library()
    translate = hk.HKTranslator()
    try:
        reader = core.G3Reader(path)
        if offset:
            reader.seek(offset)
        while frames := reader.Process(None):
            after = reader.tell()
            yield begin, after, _translated(translate, frames[0])
            begin = after
    except (RuntimeError, MemoryError) as error:
        raise _BrokenError(f"cannot be read from byte {begin} on: {_reason(error)}") from None


def _frames_at(path: str, offsets: Sequence[int] | None) -> Iterator[Any]:
    """Yield the frames that begin at those bytes, or all."""
    if offsets is None:
        yield from (frame for _, _, frame in _frames(path, 0))
        return
    core, hk = _library()
    translate = hk.HKTranslator()
    begin = 0
    try:
        reader = core.G3Reader(path)
        for begin in offsets:
            reader.seek(begin)
            yield from (_translated(translate, frame) for frame in reader.Process(None)[:1])
    except (RuntimeError, MemoryError) as error:
        raise _BrokenError(f"cannot be read at byte {begin}: {_reason(error)}") from None


def _reason(error: BaseException) -> str:
    """Return so3g's message without the place in its source."""
    return str(error).partition(" (in ")[0] or type(error).__name__


def _translated(translate: Any, frame: Any) -> Any:
    """Bring a frame of an older layout to the present one; one that is not as it should be stays as it is."""
    try:
        return translate.Process(frame)[0]
    except (KeyError, IndexError, AttributeError, TypeError, AssertionError):
        return frame


def _kind(frame: Any) -> int:
    """Return ``hkagg_type``, or -1 of a frame that is no housekeeping."""
    return int(frame["hkagg_type"]) if "hkagg_type" in frame else -1


def _note(found: Found, begin: int, frame: Any) -> None:
    """Add one frame to what was found."""
    try:
        kind = _kind(frame)
        if kind == _SESSION:
            found.providers = {}
        elif kind == _STATUS:
            for provider in frame["providers"]:
                found.providers[int(provider["prov_id"].value)] = str(provider["description"].value).strip('"')
        elif kind == _DATA:
            number = int(frame["prov_id"])
            _note_data(found, (number, found.providers[number]), begin, frame)
    except (KeyError, IndexError, AttributeError, TypeError, ValueError):
        found.skipped += 1


def _note_data(found: Found, provider: Provider, begin: int, frame: Any) -> None:
    spans = []
    for block_name, block in _blocks(frame):
        t = _times(block)
        if not len(t):
            continue
        first, last = float(t.min()), float(t.max())
        spans.append((first, last, len(t)))
        fields = found.fields.setdefault(provider, {})
        for name in block.keys():  # noqa: SIM118 - so3g's map yields pairs when it is iterated
            known = fields.setdefault(str(name), FieldFound(block_name, _type(block[name]), first, last))
            known.first, known.last = min(known.first, first), max(known.last, last)
    if spans:
        firsts, lasts, counts = zip(*spans, strict=True)
        found.frames.setdefault(provider, []).append((begin, min(firsts), max(lasts), max(counts)))


def _blocks(frame: Any) -> Iterator[tuple[str, Any]]:
    names = [str(name) for name in frame["block_names"]] if "block_names" in frame else []
    for i, block in enumerate(frame["blocks"]):
        yield (names[i] if i < len(names) else f"block{i}"), block


def _times(block: Any) -> npt.NDArray[np.float64]:
    """Return UNIX times [s]."""
    return np.asarray(block.times, dtype=np.int64) / _TICKS_PER_SECOND


def _type(values: Any) -> str:
    kind = type(values).__name__
    return "string" if "String" in kind else "bool" if "Bool" in kind else "number"


def _collect(parts: dict[str, list[Column]], frame: Any, names: set[str]) -> None:
    """Add the asked columns of one frame."""
    for _, block in _blocks(frame):
        # Of two names that become one on the network the first in the alphabet is served.
        asked = {field_name(str(key)): key for key in sorted(block.keys(), reverse=True)}
        keys = {name: key for name, key in asked.items() if name in names}
        t = _times(block) if keys else np.empty(0)
        for name, key in keys.items():
            values = np.asarray(block[key])
            if len(values) == len(t):
                parts.setdefault(name, []).append((t, values.astype(object) if values.dtype.kind in "US" else values))


def _joined(columns: list[Column]) -> Column:
    if len(columns) == 1:
        return columns[0]
    times, values = zip(*columns, strict=True)
    kinds = {part.dtype.kind for part in values}
    if "O" in kinds and len(kinds) > 1:
        values = tuple(part.astype(object) for part in values)
    return np.concatenate(times), np.concatenate(values)
