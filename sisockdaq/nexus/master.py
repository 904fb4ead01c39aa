"""Put the tree of a master file on disk, whole or not at all.

The file is written under a hidden name and moved to its place when it is complete (`_ordered_file`); whoever opens the
master sees the old one or the new one. It is small (numbers, links and the pixel mask), so it is simply written again
when a data file is added. An integrated master grows with its images instead: `fill` lays it out at its beginning, and
`renew` puts new values into the places of old ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from sisockdaq.errors import StorageError
from sisockdaq.nexus._ordered_file import LIBRARY_VERSIONS, OrderedFile, storage_error
from sisockdaq.nexus._strings import fixed, set_attributes
from sisockdaq.nexus.tree import Dataset, ExternalLink, Group, HardLink, VirtualDataset

__all__ = ["fill", "renew", "write_master"]


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
        fill(file.hdf5, root)


def fill(hdf5: h5py.File, root: Group) -> None:
    """Put a tree into a file; groups and attributes that are there already stay as they are."""
    hard_links: list[tuple[h5py.Group, str, str]] = []
    _write_group(hdf5, root, hard_links)
    for parent, name, target in hard_links:
        parent[name] = hdf5[target]


def renew(path: Path, root: Group) -> None:
    """Put the values of a tree into a finished file, where it has a dataset of the same kind and size for them.

    A text that is too long for its place is left out; nothing in the file moves, so it is readable at every moment.

    Raises
    ------
    StorageError
        When the file cannot be opened or the disk refuses.
    """
    try:
        with h5py.File(path, "r+", libver=LIBRARY_VERSIONS, locking=False) as hdf5:
            for name, item in _datasets(root, ""):
                found = hdf5.get(name)
                if isinstance(found, h5py.Dataset):
                    _renew_value(found, item)
    except OSError as error:
        raise storage_error(error, path) from error
    except (RuntimeError, ValueError, TypeError) as error:
        raise StorageError(f"{path.name} cannot be brought up to date: {error}") from error


def _datasets(group: Group, path: str) -> Iterator[tuple[str, Dataset]]:
    for name, item in group.items.items():
        if isinstance(item, Group):
            yield from _datasets(item, f"{path}/{name}")
        elif isinstance(item, Dataset) and not isinstance(item.value, np.ndarray):
            yield f"{path}/{name}", item


def _renew_value(found: h5py.Dataset, item: Dataset) -> None:
    """Write a value in place unless it stands there already."""
    if found.shape != ():
        return
    new = np.asarray(_stored(item))
    if (new.dtype.kind == "S") != (found.dtype.kind == "S"):
        return
    if new.dtype.kind == "S" and len(bytes(new[()])) > found.dtype.itemsize:
        return
    if new.dtype.kind != "S":
        new = new.astype(found.dtype)
    if found[()] != new[()]:
        found[()] = new[()]


def _write_group(target: h5py.Group, group: Group, hard_links: list[tuple[h5py.Group, str, str]]) -> None:
    wanted = {"NX_class": group.nx_class, **group.attributes}
    present = set(target.attrs)
    set_attributes(target, {name: value for name, value in wanted.items() if name not in present})
    for name, item in group.items.items():
        match item:
            case Group():
                _write_group(target[name] if name in target else target.create_group(name), item, hard_links)
            case Dataset():
                set_attributes(target.create_dataset(name, data=_stored(item)), item.attributes)
            case ExternalLink():
                target[name] = h5py.ExternalLink(item.file, item.path)
            case VirtualDataset():
                set_attributes(_virtual(target, name, item), item.attributes)
            case HardLink():
                hard_links.append((target, name, item.path))


def _virtual(target: h5py.Group, name: str, item: VirtualDataset) -> h5py.Dataset:
    total = sum(piece.rows for piece in item.pieces)
    layout = h5py.VirtualLayout(shape=(total, *item.shape), dtype=item.dtype)
    begin = 0
    for piece in item.pieces:
        if piece.rows:
            source = h5py.VirtualSource(piece.file, piece.path, shape=(piece.rows, *item.shape), dtype=item.dtype)
            layout[begin : begin + piece.rows] = source
        begin += piece.rows
    return target.create_virtual_dataset(name, layout, fillvalue=np.dtype(item.dtype).type(item.fill))


def _stored(item: Dataset) -> Any:
    value = item.value
    if isinstance(value, str):
        return fixed(value, item.room)
    if isinstance(value, np.ndarray) and value.dtype.kind == "U":
        return np.char.encode(value, "utf-8")
    return value
