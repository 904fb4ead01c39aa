"""Data acquisition for beamlines and observatories: one network of data nodes, from packets to archive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sisockdaq._kernel_cache import find_room

if TYPE_CHECKING:
    from sisockdaq.client import Client as Client

__all__ = ["Client"]

find_room()


def __getattr__(name: str) -> Any:
    """Import `Client` when it is first asked for: a node or a tool that needs none must not pay for it."""
    if name == "Client":
        from sisockdaq.client import Client

        return Client
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
