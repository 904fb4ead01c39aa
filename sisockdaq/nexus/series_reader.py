"""Read series files, also while they grow: what is in them, what was added since, and samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
import numpy.typing as npt

from sisockdaq.errors import FieldUnknown, FileUnreadable
from sisockdaq.nexus._opening import open_hdf5, reading
from sisockdaq.nexus._strings import as_text
from sisockdaq.nexus.series_file import FORMAT, SERIES, TABLES, TIMES
from sisockdaq.nexus.series_plan import TablePlan, decode_texts, link_name, read_tables

__all__ = ["Growth", "SeriesFileReader", "SeriesFileSummary"]


@dataclass(frozen=True, slots=True)
class Growth:
    """The rows of a table: how many there are, and the earliest and latest time among those asked for (None: none)."""

    rows: int
    first: float | None = None
    last: float | None = None


@dataclass(frozen=True, slots=True)
class SeriesFileSummary:
    """What a series file holds, as of the moment it was opened; one `Growth` for each table."""

    path: Path
    writer: str
    finished: bool
    tables: tuple[TablePlan, ...]
    growths: tuple[Growth, ...]


class SeriesFileReader:
    """One series file, opened for reading. A context manager; not for several threads at once.

    Raises
    ------
    FileUnreadable
        When it is missing, broken, or not one of ours; also from every method that reads.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tables: tuple[TablePlan, ...] | None = None
        self._numbers: dict[tuple[str, str], int] = {}
        with reading(path):
            self._hdf5 = open_hdf5(path)
        try:
            with reading(path):
                self._entry: h5py.Group = self._hdf5["/entry"]
                version = int(self._entry.attrs["format"])
            if version != FORMAT:
                raise FileUnreadable(f"{path} is of format {version}, this program reads {FORMAT}")
        except FileUnreadable:
            self._hdf5.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._hdf5.close()

    @property
    def tables(self) -> tuple[TablePlan, ...]:
        """The tables, which never change within a file."""
        if self._tables is None:
            with reading(self.path):
                self._tables = read_tables(as_text(self._hdf5[TABLES]))
            self._numbers = {
                (table.node, plan.name): number for number, table in enumerate(self._tables) for plan in table.fields
            }
        return self._tables

    def summary(self) -> SeriesFileSummary:
        """Read what the file holds."""
        tables = self.tables
        with reading(self.path):
            writer = as_text(self._entry.attrs["writer"])
        finished, growths = self.growth(dict.fromkeys(range(len(tables)), 0))
        return SeriesFileSummary(self.path, writer, finished, tables, tuple(growths[n] for n in range(len(tables))))

    def growth(self, known: Mapping[int, int]) -> tuple[bool, dict[int, Growth]]:
        """Return whether the file is finished, and what each table has beyond the rows that are known."""
        grown = {}
        with reading(self.path):
            finished = bool(self._entry.attrs["finished"])
            for number, rows in known.items():
                times = self._hdf5[f"{TIMES}/{number}"]
                new = times[rows:] if times.shape[0] > rows else np.empty(0)
                if new.size:
                    grown[number] = Growth(rows + new.size, float(new.min()), float(new.max()))
                else:
                    grown[number] = Growth(rows)
        return finished, grown

    def times(self, number: int) -> npt.NDArray[np.float64]:
        """Return the times of a table, shape (rows,) [s], in the order in which the rows were written."""
        with reading(self.path):
            times: npt.NDArray[np.float64] = self._hdf5[f"{TIMES}/{number}"][()]
        return times

    def rows(self, node: str, field: str) -> int:
        """Return how many rows of a field are whole: a writer that died may have left a time without its value."""
        number = self._number(node, field)
        with reading(self.path):
            return min(int(self._hdf5[f"{TIMES}/{number}"].shape[0]), int(self._values(node, field).shape[0]))

    def values(self, node: str, field: str, start: int = 0, stop: int | None = None, step: int = 1) -> npt.NDArray[Any]:
        """Return a field's values of rows `start` … `stop`, shape (rows, …).

        Raises
        ------
        FieldUnknown
            When the file has no such field.
        """
        plan = next(p for p in self.tables[self._number(node, field)].fields if p.name == field)
        with reading(self.path):
            dataset = self._values(node, field)
            if plan.type == "string":
                return decode_texts(dataset.astype(plan.dtype)[start:stop:step])
            values: npt.NDArray[Any] = dataset[start:stop:step]
            return values

    def newest(self, node: str, field: str) -> float | None:
        """Return the latest time at which a field has a whole sample, or None."""
        number, rows = self._number(node, field), self.rows(node, field)
        return float(self.times(number)[:rows].max()) if rows else None

    def _number(self, node: str, field: str) -> int:
        tables = self.tables
        number = self._numbers.get((node, field))
        if number is None or number >= len(tables):
            raise FieldUnknown(f'{self.path.name} has no field "{field}" of "{node}"')
        return number

    def _values(self, node: str, field: str) -> h5py.Dataset:
        return self._hdf5[f"{SERIES}/{link_name(node)}/{link_name(field)}/value"]
