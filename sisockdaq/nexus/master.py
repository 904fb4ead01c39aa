"""Put the tree of a master file on disk, whole or not at all.

The file is written under a hidden name and moved to its place when it is complete (`_ordered_file`); whoever opens the
master sees the old one or the new one. It is small (numbers, links and the pixel mask), so it is simply written again
when a data file is added.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from sisockdaq.nexus._ordered_file import OrderedFile
from sisockdaq.nexus._strings import fixed, set_attributes
from sisockdaq.nexus.nxmx import Dataset, ExternalLink, Group, HardLink

__all__ = ["write_master"]


def write_master(path: Path, root: Group, *, replace: bool) -> None:
    """Write a master file.

    Parameters
    ----------
    path : Path
    root : Group
        From `nxmx.master_tree`.
    replace : bool
        Whether an existing file gives way.

    Raises
    ------
    StorageError
        When the file exists and is not to be replaced, or the disk refuses it.
    """
    with OrderedFile(path, overwrite=replace) as file, file.guard():
        _fill(file.hdf5, root)


def _fill(hdf5: h5py.File, root: Group) -> None:
    hard_links: list[tuple[h5py.Group, str, str]] = []
    _write_group(hdf5, root, hard_links)
    for parent, name, target in hard_links:
        parent[name] = hdf5[target]


def _write_group(target: h5py.Group, group: Group, hard_links: list[tuple[h5py.Group, str, str]]) -> None:
    set_attributes(target, {"NX_class": group.nx_class, **group.attributes})
    for name, item in group.items.items():
        match item:
            case Group():
                _write_group(target.create_group(name), item, hard_links)
            case Dataset():
                set_attributes(target.create_dataset(name, data=_stored(item.value)), item.attributes)
            case ExternalLink():
                target[name] = h5py.ExternalLink(item.file, item.path)
            case HardLink():
                hard_links.append((target, name, item.path))


def _stored(value: Any) -> Any:
    if isinstance(value, str):
        return fixed(value)
    if isinstance(value, np.ndarray) and value.dtype.kind == "U":
        return np.char.encode(value, "utf-8")
    return value
