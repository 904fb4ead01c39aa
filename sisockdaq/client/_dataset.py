"""What a client returns: samples with their names, units and axes, tables, and images.

Plain holders of numpy arrays; nothing here talks to the network. Each prints itself as a short table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from sisockdaq.errors import ConfigurationError, SisockdaqError
from sisockdaq.schema import Axis, Field, FieldType

__all__ = ["Dataset", "FieldData", "FieldRow", "Image", "NodeRow", "Table"]


@dataclass(slots=True)
class FieldData:
    """The samples of one field.

    Attributes
    ----------
    name : str
        Full name, ``node::field``.
    t : ndarray of float64, (n,)
        UNIX times, rising [s].
    values : ndarray, (n, *shape)
    field : Field
        The entry of the listing: units, description, type, axes.
    finalized_until : float or None
        Before this time nothing will change any more; None: nothing in the span will.
    sources : tuple of str
        The nodes that the samples came from.
    """

    name: str
    t: npt.NDArray[np.float64]
    values: npt.NDArray[Any]
    field: Field
    finalized_until: float | None = None
    sources: tuple[str, ...] = ()

    @property
    def units(self) -> str | None:
        """Physical units."""
        return self.field.units

    @property
    def axis(self) -> npt.NDArray[np.float64] | None:
        """Positions along the last dimension of an array field (q of a curve, for example), or None."""
        return axis_values(self.field.axes)

    def __len__(self) -> int:
        return len(self.t)

    def __repr__(self) -> str:
        span = f"{self.t[0]:.3f} … {self.t[-1]:.3f}" if len(self) else "no samples"
        shape = f", each {self.values.shape[1:]}" if self.values.ndim > 1 else ""
        return f"<{self.name}: {len(self)} samples{shape} [{self.units or '-'}], {span}>"


class Dataset(Mapping[str, FieldData]):
    """Samples by full name. ``problems`` names what could not be had, and why; empty when all came.

    ``errors`` holds the reason by name for fields of which nothing could be had, where the question bears that.
    """

    def __init__(
        self,
        fields: Mapping[str, FieldData],
        problems: list[str] | None = None,
        errors: Mapping[str, SisockdaqError] | None = None,
    ) -> None:
        self._fields = dict(fields)
        self.problems = list(problems or [])
        self.errors = dict(errors or {})

    def __getitem__(self, name: str) -> FieldData:
        return self._fields[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __repr__(self) -> str:
        return "\n".join([*(repr(one) for one in self._fields.values()), *(f"! {text}" for text in self.problems)])

    def to_xarray(self) -> Any:
        """Return an `xarray.Dataset`; each field has its own time coordinate, ``time_<n>`` where they differ.

        Units, description and ``finalized_until`` are in the variables' attributes, times are UNIX seconds.

        Raises
        ------
        ConfigurationError
            When xarray is not installed.
        """
        try:
            xarray = import_module("xarray")
        except ImportError:
            raise ConfigurationError("xarray is not installed", remedy="pip install xarray") from None
        times: list[npt.NDArray[np.float64]] = []
        variables, coordinates = {}, {}
        for name, one in self._fields.items():
            number = next((i for i, t in enumerate(times) if np.array_equal(t, one.t)), len(times))
            if number == len(times):
                times.append(one.t)
            time = "time" if number == 0 else f"time_{number}"
            coordinates[time] = (time, one.t, {"units": "seconds since 1970-01-01 00:00:00", "standard_name": "time"})
            dimensions = [time, *(f"{name}/{a.axis}" for a in _axes(one))]
            variables[name] = (dimensions, one.values, _attributes(one))
            for axis, dimension in zip(_axes(one), dimensions[1:], strict=True):
                if axis.values is not None:
                    coordinates[dimension] = (dimension, np.asarray(axis.values), {"units": axis.unit or ""})
        return xarray.Dataset(variables, coordinates)


@dataclass(slots=True)
class Image:
    """One frame's pixels. ``mask`` is True where a lost packet's pixels are; None when it is not known."""

    name: str
    values: npt.NDArray[Any]
    t: float | None = None
    mask: npt.NDArray[np.bool_] | None = None
    acquisition: str | None = None
    index: int | None = None
    number: int | None = None

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        array = self.values if dtype is None else self.values.astype(dtype, copy=False)
        return array.copy() if copy else array

    def __repr__(self) -> str:
        place = f", frame {self.index} of {self.acquisition}" if self.acquisition is not None else ""
        lost = f", {int(self.mask.sum())} pixels lost" if self.mask is not None and self.mask.any() else ""
        return f"<{self.name}: {self.values.shape} {self.values.dtype}{place}{lost}>"


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A node as the hub lists it. Times are UNIX seconds, None where an older hub or node does not say."""

    name: str
    description: str = ""
    type: str | None = None
    version: str | None = None
    uptime: float | None = None
    last_answer: float | None = None
    health: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FieldRow:
    """A field as a node lists it."""

    name: str
    type: FieldType
    units: str | None
    timeline: str
    interval: float | None
    description: str | None
    shape: tuple[int, ...] | None = None


class Table(tuple[Any, ...]):
    """Rows of one kind (`NodeRow`, `FieldRow`) that print as a table; ``problems`` as in `Dataset`."""

    problems: list[str]

    def __new__(cls, rows: Any, problems: list[str] | None = None) -> Table:
        """Hold the rows."""
        table = super().__new__(cls, rows)
        table.problems = list(problems or [])
        return table

    @property
    def names(self) -> list[str]:
        """The rows' names, in order."""
        return [row.name for row in self]

    def __repr__(self) -> str:
        lines = [[_cell(getattr(row, column)) for column in self.columns] for row in self]
        table = [list(self.columns), *lines]
        widths = [max(len(line[i]) for line in table) for i in range(len(self.columns))]
        text = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in table]
        return "\n".join([*text, *(f"! {problem}" for problem in self.problems)])

    @property
    def columns(self) -> tuple[str, ...]:
        """What is shown of a row: the columns in which any row has something."""
        if not self:
            return ("name",)
        shown = [name for name in self[0].__dataclass_fields__ if name != "health"]
        return tuple(n for n in shown if n == "name" or any(getattr(row, n) not in (None, "", ()) for row in self))


def axis_values(axes: tuple[Axis, ...]) -> npt.NDArray[np.float64] | None:
    """Return the positions along the last dimension, or None."""
    return np.asarray(axes[-1].values, np.float64) if axes and axes[-1].values is not None else None


def _axes(one: FieldData) -> list[Axis]:
    """Return one axis for each dimension of a sample, with names where the node gives none."""
    given = list(one.field.axes)
    missing = one.values.ndim - 1 - len(given)
    return [Axis(axis=f"dim_{i}") for i in range(missing)] + given if missing >= 0 else given[-(one.values.ndim - 1) :]


def _attributes(one: FieldData) -> dict[str, Any]:
    final = {} if one.finalized_until is None else {"finalized_until": one.finalized_until}
    sources = ", ".join(one.sources)
    return {"units": one.units or "", "description": one.field.description or "", "sources": sources, **final}


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}" if value < 1e6 else f"{value:.0f}"
    if isinstance(value, tuple):
        return " × ".join(str(n) for n in value)
    return str(value)
