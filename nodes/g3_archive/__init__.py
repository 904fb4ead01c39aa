"""so3g's housekeeping files as a node: indexed in the tables of existing sisock sites, and read by need."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sisockdaq.nodes.g3_archive.node import G3Archive

__all__ = ["G3Archive"]


def __getattr__(name: str) -> object:
    """Import the node when it is asked for: the process that opens files is of this package and needs little of it."""
    if name == "G3Archive":
        from sisockdaq.nodes.g3_archive.node import G3Archive

        return G3Archive
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
