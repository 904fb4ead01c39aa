"""What a row of the index is to the scanner and the reader. Pure."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field

from sisockdaq.nodes.g3_archive._frames import FieldFound, Frame

__all__ = ["KnownFile", "Name", "Span", "Stamp", "frames_of", "merged"]


@dataclass(frozen=True, slots=True)
class Stamp:
    """By which a changed file is known; not by its inode, which some mounts invent anew."""

    size: int
    changed_ns: int

    @classmethod
    def of(cls, found: os.stat_result) -> Stamp:
        """Return the stamp of a file."""
        return cls(found.st_size, found.st_mtime_ns)


@dataclass(frozen=True, slots=True)
class KnownFile:
    """A file in the index. ``state`` is whole, growing, broken, partial (stopped on the way), adopted or missing.

    ``fingerprint`` is that of the bytes before ``offset``: it tells growth from replacement.
    """

    stamp: Stamp
    offset: int
    state: str
    reason: str
    providers: dict[int, str]
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class Name:
    """A field of the network, over all files; times in UNIX seconds."""

    name: str
    provider: str
    timeline: str
    type: str
    first: float
    last: float


@dataclass(frozen=True, slots=True)
class Span:
    """The data of one provider in one file; ``frames`` is None where only a look through the file tells them."""

    id: int
    path: str
    prov_id: int
    provider: str
    first: float
    last: float
    frames: list[Frame] | None = field(repr=False)


def frames_of(text: str) -> list[Frame] | None:
    """Return the frames of a span from their JSON; None of one that another program indexed."""
    return [(int(at), float(first), float(last), int(n)) for at, first, last, n in json.loads(text)] if text else None


def merged(known: Name | None, name: str, provider: str, found: FieldFound) -> Name:
    """Add a finding to what is known of a field: the timeline stays the one of the first block it was seen in."""
    timeline = f"{provider}.{found.block}" if found.block else name
    if known is None:
        return Name(name, provider, timeline, found.type, found.first, found.last)
    if known.timeline != known.name:
        timeline = known.timeline
    kinds = {known.type, found.type} if known.timeline != known.name else {found.type}
    kind = kinds.pop() if len(kinds) == 1 else "string" if "string" in kinds else "number"
    return Name(name, provider, timeline, kind, min(known.first, found.first), max(known.last, found.last))
