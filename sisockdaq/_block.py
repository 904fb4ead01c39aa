"""Memory of the live cache: blocks of rows, and what each type of field keeps in them.

A `Block` is a stretch of rows ``start … stop`` in arrays (numbers, bools) or lists (strings, arrays), with a mark for
each value that was given. Storage for a field is made with its first value in the block, so a field costs nothing where
it has none, and a new field costs the same however many blocks there are. A `Column` knows one field's type: how a
value is checked, stored and collected again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sisockdaq.schema import Field

__all__ = ["Block", "Column", "Piece", "make_column"]

Piece = tuple["Block", int, int]
"""Rows ``a … b`` of a block."""


class Column:
    """One field's storage; the base keeps Python objects in a list."""

    bytes_per_row = 0

    def empty(self, capacity: int) -> Any:
        """Return storage for so many rows."""
        return [None] * capacity

    def one(self, name: str, value: Any) -> Any:
        """Return a value as it is stored; raise TypeError or ValueError when it is not of the field's type."""
        raise NotImplementedError

    def many(self, name: str, values: Iterable[Any]) -> Any:
        """Return values as they are stored."""
        return [self.one(name, value) for value in values]

    def load(self, stored: Any) -> Any:
        """Return a stored value as a caller sees it."""
        return stored

    def join(self, runs: Sequence[Any]) -> npt.NDArray[Any]:
        """Return runs of stored values as one array."""
        items = [item for run in runs for item in run]
        result = np.empty(len(items), dtype=object)
        result[:] = items
        return result


class Strings(Column):
    """Text, or None."""

    def one(self, name: str, value: Any) -> Any:
        """Take a string or None."""
        if value is not None and not isinstance(value, str):
            raise TypeError(f"{name} holds strings, not {type(value).__name__}")
        return value if value is None else str(value)


class Arrays(Column):
    """Arrays of one shape and dtype; each is copied, because the caller's memory is often used again."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.shape = shape
        self.dtype = dtype
        self.bytes_per_row = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize

    def one(self, name: str, value: Any) -> Any:
        """Take an array of the field's shape."""
        array = np.array(value, dtype=self.dtype)
        if array.shape != self.shape:
            raise ValueError(f"{name} holds arrays of shape {self.shape}, not {array.shape}")
        return array

    def join(self, runs: Sequence[Any]) -> npt.NDArray[Any]:
        """Return the arrays stacked: (n, *shape)."""
        items = [item for run in runs for item in run]
        return np.stack(items) if items else np.empty((0, *self.shape), self.dtype)


class Numbers(Column):
    """Numbers of a float type; None becomes NaN."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype

    def empty(self, capacity: int) -> Any:
        """Return an array for so many rows."""
        return np.zeros(capacity, self.dtype)

    def one(self, name: str, value: Any) -> Any:
        """Take a number or None."""
        if value is None:
            return np.nan
        if isinstance(value, (str, bytes)):
            raise TypeError(f"{name} holds numbers, not {type(value).__name__}")
        return float(value)

    def many(self, name: str, values: Any) -> Any:
        """Take numbers at once."""
        array = np.asarray(values)
        if array.dtype.kind in "biuf" and array.ndim == 1:
            return array.astype(self.dtype)
        return np.array([self.one(name, value) for value in values], self.dtype)

    def load(self, stored: Any) -> Any:
        """Return a Python number."""
        return stored.item()

    def join(self, runs: Sequence[Any]) -> npt.NDArray[Any]:
        """Return the numbers as one array."""
        return np.concatenate([np.asarray(run, self.dtype) for run in runs]) if runs else np.empty(0, self.dtype)


class Integers(Numbers):
    """Whole numbers of a declared type, exact beyond 2⁵³."""

    def one(self, name: str, value: Any) -> Any:
        """Take a whole number that fits the type."""
        if value is None or isinstance(value, (str, bytes)) or int(value) != value:
            raise TypeError(f"{name} holds whole numbers, not {value!r}")
        limits = np.iinfo(self.dtype)
        if not limits.min <= int(value) <= limits.max:
            raise ValueError(f"{name} holds {self.dtype} numbers; {value} does not fit")
        return int(value)

    def many(self, name: str, values: Any) -> Any:
        """Take whole numbers at once; another type is checked value by value."""
        array = np.asarray(values)
        if array.dtype.kind in "iu" and array.ndim == 1 and np.can_cast(array.dtype, self.dtype):
            return array.astype(self.dtype)
        return np.array([self.one(name, value) for value in values], self.dtype)


class Bools(Numbers):
    """Yes or no."""

    def __init__(self) -> None:
        super().__init__(np.dtype(np.bool_))

    def one(self, name: str, value: Any) -> Any:
        """Take a bool, or 0 or 1."""
        if not isinstance(value, (bool, np.bool_, int, np.integer)) or value not in (0, 1):
            raise TypeError(f"{name} holds bools, not {value!r}")
        return bool(value)

    def many(self, name: str, values: Any) -> Any:
        """Take bools at once."""
        array = np.asarray(values)
        if array.dtype.kind == "b" and array.ndim == 1:
            return array.copy()
        return np.array([self.one(name, value) for value in values], np.bool_)


class Block:
    """Rows in order of time; only rows ``start … stop`` are in use.

    Parameters
    ----------
    capacity : int
        Rows that there is room for.
    kinds : mapping
        The type of each field; the timeline's own, so that it knows fields that are added later.
    """

    __slots__ = ("capacity", "columns", "given", "kinds", "start", "stop", "t")

    def __init__(self, capacity: int, kinds: Mapping[str, Column]) -> None:
        self.capacity = capacity
        self.start = 0
        self.stop = 0
        self.t = np.empty(capacity)
        self.kinds = kinds
        self.columns: dict[str, Any] = {}
        self.given: dict[str, npt.NDArray[np.bool_]] = {}
        """Which rows have a value."""

    def values(self, name: str, a: int, b: int) -> Any:
        """Return what rows ``a … b`` hold of a field, as it is stored."""
        return self.columns[name][a:b] if name in self.columns else self.kinds[name].empty(b - a)

    def marks(self, name: str, a: int, b: int) -> npt.NDArray[np.bool_]:
        """Say which of the rows ``a … b`` have a value of a field."""
        return self.given[name][a:b] if name in self.given else np.zeros(b - a, np.bool_)

    def push(self, t: float, row: Mapping[str, Any]) -> None:
        """Append a row; there must be room."""
        self.t[self.stop] = t
        self.fill(self.stop, row)
        self.stop += 1

    def extend(self, t: npt.NDArray[np.float64], data: Mapping[str, Any]) -> None:
        """Append rows; there must be room."""
        place = slice(self.stop, self.stop + len(t))
        self.t[place] = t
        for name, values in data.items():
            self._make_room(name)
            self.columns[name][place] = values
            self.given[name][place] = True
        self.stop += len(t)

    def fill(self, place: int, row: Mapping[str, Any]) -> int:
        """Write values into a row; return how many were there already."""
        replaced = 0
        for name, value in row.items():
            self._make_room(name)
            replaced += bool(self.given[name][place])
            self.columns[name][place] = value
            self.given[name][place] = True
        return replaced

    def insert(self, place: int, t: float, row: Mapping[str, Any]) -> None:
        """Put a late row where it belongs."""
        if self.stop == self.capacity:
            self._grow()
        for storage in (self.t, *self.given.values(), *self.columns.values()):
            storage[place + 1 : self.stop + 1] = storage[place : self.stop].copy()
        self.stop += 1
        self.t[place] = t
        for marks in self.given.values():
            marks[place] = False
        self.fill(place, row)

    def forget(self, n: int) -> None:
        """Let go of the oldest ``n`` rows; objects are freed."""
        for storage in self.columns.values():
            if isinstance(storage, list):
                storage[self.start : self.start + n] = [None] * n
        self.start += n

    def split(self) -> Block:
        """Cut in half; return the later half."""
        middle = (self.start + self.stop) // 2
        later = Block(0, self.kinds)
        later.capacity = later.stop = self.stop - middle
        later.t = self.t[middle : self.stop].copy()
        later.columns = {name: storage[middle : self.stop].copy() for name, storage in self.columns.items()}
        later.given = {name: marks[middle : self.stop].copy() for name, marks in self.given.items()}
        self.columns = {name: storage[:middle].copy() for name, storage in self.columns.items()}
        self.given = {name: marks[:middle].copy() for name, marks in self.given.items()}
        self.t = self.t[:middle].copy()
        self.capacity = self.stop = middle
        return later

    def _make_room(self, name: str) -> None:
        if name not in self.columns:
            self.columns[name] = self.kinds[name].empty(self.capacity)
            self.given[name] = np.zeros(self.capacity, np.bool_)

    def _grow(self) -> None:
        more = max(self.capacity // 8, 64)
        self.t = np.concatenate([self.t, np.empty(more)])
        for name, storage in self.columns.items():
            if isinstance(storage, list):
                storage.extend([None] * more)
            else:
                self.columns[name] = np.concatenate([storage, np.zeros(more, storage.dtype)])
        self.given = {name: np.concatenate([marks, np.zeros(more, np.bool_)]) for name, marks in self.given.items()}
        self.capacity += more


def make_column(entry: Field) -> Column:
    """Return the storage for a field.

    Raises
    ------
    ValueError
        When type, dtype and shape do not fit together.
    """
    if entry.type == "string":
        return Strings()
    if entry.type == "bool":
        return Bools()
    dtype = np.dtype(entry.dtype or np.float64)
    if dtype.kind not in "iuf" and not (dtype.kind == "b" and entry.type == "array"):
        raise ValueError(f"{entry.dtype} is not a type that can be kept")
    if entry.type == "array":
        if entry.shape is None:
            raise ValueError("a field of type array needs the shape of one sample")
        return Arrays(tuple(entry.shape), dtype)
    return Integers(dtype) if dtype.kind in "iu" else Numbers(dtype)
