"""What a sender says of every pixel, on its way from the receiver to whoever makes files of its frames.

A start message of Stream V2 may bring a pixel mask and a flat field of megabytes; the description of frames
(`messages.Description`) travels to every consumer and may hold some kilobytes. So the receiver keeps the arrays in the
site's state directory, and the description names the file: `keep_tables`, `find_tables`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from sisockdaq.errors import MaskError, StorageError
from sisockdaq.frames.messages import Description

__all__ = ["FLATFIELD", "KEY", "LOOKUP", "MASK", "find_tables", "keep_tables"]

KEY = "pixel_tables"
"""Under this name a description's ``meta`` names the file."""

MASK, FLATFIELD, LOOKUP = "pixel_mask", "flatfield", "countrate_correction_lookup_table"
"""Names of tables, as in Stream V2. Mask and flat field have the shape of the images."""

_KEPT = 2
"""Files of a source: a writer may still be reading the one before."""


def keep_tables(folder: Path, source: str, tables: Mapping[str, npt.NDArray[Any]]) -> str:
    """Write the tables of a source's pixels, unless they are there; return the file's name, for the description.

    Raises
    ------
    StorageError
    """
    digest = hashlib.blake2b(digest_size=8)
    for name in sorted(tables):
        array = np.ascontiguousarray(tables[name])
        digest.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        digest.update(array.data)
    path = folder / f"pixels-{source}-{digest.hexdigest()}.npz"
    try:
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            part, arrays = path.with_suffix(".part"), cast(dict[str, Any], dict(tables))
            with part.open("wb") as file:
                np.savez(file, **arrays)
            part.replace(path)
        path.touch()
        _forget_older(folder, source)
    except OSError as error:
        raise StorageError(f"the tables of {source}'s pixels cannot be kept in {path}: {error.strerror}") from None
    return path.name


def find_tables(folder: Path, source: Description) -> dict[str, npt.NDArray[Any]]:
    """Return what a source's sender says of its pixels, by name; nothing where it says nothing.

    Raises
    ------
    MaskError
        When the file is missing or damaged, or mask or flat field are of another shape than the images.
    """
    name = source.meta.get(KEY)
    if name is None:
        return {}
    if not isinstance(name, str) or Path(name).name != name or not name.startswith(f"pixels-{source.source}-"):
        raise MaskError(f"{source.source} names {name!r} for its pixels, which is no file of a receiver")
    try:
        with np.load(folder / name, allow_pickle=False) as file:
            found = {key: file[key] for key in file.files}
    except (OSError, ValueError, EOFError, KeyError, BadZipFile) as error:
        raise MaskError(
            f"the tables of {source.source}'s pixels cannot be read: {error}", remedy="restart it"
        ) from None
    for key in (MASK, FLATFIELD):
        if key in found and found[key].shape != tuple(source.shape):
            raise MaskError(f"the {key} that {source.source} got is {found[key].shape}, its images are {source.shape}")
    return found


def _forget_older(folder: Path, source: str) -> None:
    """Remove all but the newest files of a source, whose names end in a digest."""
    known = [path for path in folder.glob(f"pixels-{source}-*.npz") if len(path.stem) == len(f"pixels-{source}-") + 16]
    for path in sorted(known, key=lambda path: path.stat().st_mtime_ns)[:-_KEPT]:
        path.unlink(missing_ok=True)
