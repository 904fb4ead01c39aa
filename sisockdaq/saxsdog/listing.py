"""Which files of the server's machine a client may see and name, and listing them.

Paths come from outside as lists of names. They are relative to the server's folder or absolute, and must lie, links
followed, below one of the allowed folders.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["Allowed", "is_below"]

MOST_LISTED = 100_000
"""Longest listing; a folder with more is shown in part."""


def is_below(path: Path, folder: Path) -> bool:
    """Whether a path is a folder or in it, links followed."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


class Allowed:
    """The folders that clients may see.

    Parameters
    ----------
    base : Path
        The server's folder: relative paths begin here.
    more : sequence of Path
        Further folders below which paths may lie.
    """

    def __init__(self, base: Path, more: Sequence[Path] = ()) -> None:
        self.base = Path(os.path.abspath(base))  # noqa: PTH100 - links are kept in what clients see
        self.roots = (self.base, *more)

    def find(self, parts: Any, what: str = "directory") -> Path:
        """Return the path that a list of names means.

        Raises
        ------
        ValueError
            It is not a list of names.
        PermissionError
            It lies outside of the allowed folders.
        """
        if not isinstance(parts, list) or not all(isinstance(part, str) and "\0" not in part for part in parts):
            raise ValueError(f"{what} is a list of names")
        path = Path(os.path.normpath(os.path.join(self.base, os.sep.join(parts))))  # noqa: PTH118 - "" is the base
        return self.check(path)

    def check(self, path: Path) -> Path:
        """Return a path that is allowed.

        Raises
        ------
        PermissionError
        """
        if not any(is_below(path, root) for root in self.roots):
            shown = ", ".join(map(str, self.roots))
            raise PermissionError(f"{path} is outside of the folders of this server ({shown})")
        return path

    def list(self, parts: Any) -> dict[str, Any]:
        """Return what is in a folder: ``{"dircontent": [{"isdir", "path"}], "directory": [names]}``.

        Raises
        ------
        ValueError, OSError
        """
        folder = self.find(parts)
        content: list[dict[str, Any]] = []
        with os.scandir(folder) as entries:
            for entry in entries:
                if len(content) >= MOST_LISTED:
                    break
                content.append({"isdir": entry.is_dir(), "path": entry.name})
        content.sort(key=lambda one: str(one["path"]))
        return {"dircontent": content, "directory": str(folder).split(os.sep)}  # noqa: PTH206 - "" first, as the original
