"""HDF5 strings of fixed length, the only kind that all known readers take."""

from __future__ import annotations

from functools import cache
from typing import Any

import h5py
import numpy as np

__all__ = ["as_text", "fixed", "set_attributes"]


def fixed(text: str, room: int = 1) -> Any:
    """Return `text` as a scalar of a fixed-length UTF-8 string type, at least `room` bytes long."""
    encoded = text.encode()
    return np.array(encoded, dtype=h5py.string_dtype("utf-8", max(len(encoded), room, 1)))


def set_attributes(target: h5py.HLObject, attributes: dict[str, Any]) -> None:
    """Set new attributes, strings at fixed length; None means absent.

    Through HDF5 directly: h5py's own way writes each under another name first, which costs ten times as much, and
    every new data file waits for it.
    """
    for name, value in attributes.items():
        if value is None:
            continue
        if isinstance(value, str):
            encoded = value.encode()
            kind = _string_type(max(len(encoded), 1))
            array = np.array(encoded, dtype=f"S{max(len(encoded), 1)}")
            h5py.h5a.create(target.id, name.encode(), kind, _scalar()).write(array, kind)
            continue
        array = np.asarray(value)
        kind = h5py.h5t.py_create(array.dtype, logical=True)
        space = _scalar() if array.shape == () else h5py.h5s.create_simple(array.shape)
        h5py.h5a.create(target.id, name.encode(), kind, space).write(array)


@cache
def _string_type(size: int) -> h5py.h5t.TypeID:
    return h5py.h5t.py_create(h5py.string_dtype("utf-8", size), logical=True)


@cache
def _scalar() -> h5py.h5s.SpaceID:
    return h5py.h5s.create(h5py.h5s.SCALAR)


def as_text(value: Any) -> str:
    """Return a string as read from a file, whichever kind of HDF5 string it is."""
    plain = value[()] if isinstance(value, h5py.Dataset | np.ndarray) else value
    return plain.decode("utf-8", "replace") if isinstance(plain, bytes) else str(plain)
