"""How a writer finds its way back into an acquisition that it had begun before it died.

What it needs to know travels with the acquisition itself: the source keeps the request's ``meta`` and shows it to
whoever attaches.
"""

from __future__ import annotations

from sisockdaq.acquisition import Request
from sisockdaq.frames.messages import Arm, Start

__all__ = ["WRITER_KEY", "arm", "left_behind"]

WRITER_KEY = "file_writer"
"""Key of ``Start.meta`` that says who writes the acquisition, and where to."""


def arm(request: Request, writer: str) -> Arm:
    """Return the request to the source, with the writer's note to itself."""
    note = {"name": writer, "directory": request.directory}
    return Arm(request.acquisition, request.frames, {**request.meta, WRITER_KEY: note})


def left_behind(under_way: Start | None, writer: str) -> Request | None:
    """Return the acquisition under way as it was asked for, when it is this writer's; else None."""
    note = under_way.meta.get(WRITER_KEY) if under_way is not None else None
    if under_way is None or not isinstance(note, dict) or note.get("name") != writer:
        return None
    meta = {key: value for key, value in under_way.meta.items() if key != WRITER_KEY}
    return Request(under_way.acquisition, under_way.frames, note.get("directory"), meta)
