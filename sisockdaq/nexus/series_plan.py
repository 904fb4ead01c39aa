"""What a series file is made for: which fields stand in which table, and how their values are kept. Pure.

A *table* is a set of fields of one node whose samples always come together, so that they share their times. A field's
values are kept as they came: numbers and bools in their own type, strings as UTF-8 of a fixed width, arrays with all
their dimensions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt

from sisockdaq.schema import Axis, Field, FieldType, column

__all__ = [
    "MISSING",
    "SeriesPlan",
    "TablePlan",
    "decode_texts",
    "encode_texts",
    "link_name",
    "name_of_link",
    "plan_for",
    "prepare",
    "read_tables",
    "tables_text",
    "widened",
]

MISSING = "\x1a"
"""Stands for None among strings: Unicode's "substitute" character, which no text has."""

_LEAST_WIDTH = 64
"""Bytes of a string, at least; wider ones in powers of two."""

_UNSAFE = re.compile(r"[%/\x00-\x1f\x7f]")

_LARGEST_WIDTH = 1 << 16
"""A longer string is cut here [bytes]."""


@dataclass(frozen=True, slots=True)
class SeriesPlan:
    """One field in a series file.

    ``dtype`` is numpy's name of a value's type, ``S64`` for strings of up to 64 bytes; ``shape`` is that of one sample.
    """

    name: str
    type: FieldType
    dtype: str
    shape: tuple[int, ...] = ()
    units: str | None = None
    description: str | None = None
    axes: tuple[Axis, ...] = ()

    @property
    def row_bytes(self) -> int:
        """Size of one sample."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize

    def fits(self, values: npt.NDArray[Any]) -> bool:
        """Say whether prepared values can be kept without loss."""
        if values.shape[1:] != self.shape or (values.dtype.kind == "O") != (self.type == "string"):
            return False
        if self.type == "string":
            return _width(values) <= np.dtype(self.dtype).itemsize
        return np.can_cast(values.dtype, np.dtype(self.dtype), "safe")

    def says(self, entry: Field) -> bool:
        """Say whether the field is still described like this."""
        return (self.type, self.units, self.description, self.axes) == _about(entry)

    def entry(self, timeline: str) -> Field:
        """Return the field's entry in a listing."""
        is_array = self.type == "array"
        return Field(
            timeline=timeline,
            type=self.type,
            units=self.units,
            description=self.description,
            shape=self.shape if is_array else None,
            dtype=self.dtype if is_array else None,
            axes=self.axes,
        )


@dataclass(frozen=True, slots=True)
class TablePlan:
    """Fields of one node that share their times; `interval` is the expected spacing of the samples [s]."""

    node: str
    timeline: str
    fields: tuple[SeriesPlan, ...] = field(default_factory=tuple)
    interval: float = 1.0


def prepare(entry: Field, values: npt.ArrayLike) -> npt.NDArray[Any]:
    """Return values in the one form that belongs to the field's type.

    Numbers and bools as arrays of their type, strings as objects (str or None), arrays as (n, *shape).

    Raises
    ------
    ValueError
        When they are not of that type.
    """
    array = values if isinstance(values, np.ndarray) else column(values)  # type: ignore[arg-type]
    if entry.type == "string":
        texts = np.empty(len(array), dtype=object)
        texts[:] = [item if item is None or isinstance(item, str) else str(item) for item in array.tolist()]
        return texts
    if array.dtype.kind == "O":
        array = column(array.tolist(), entry.type)
    if array.dtype.kind == "b" and entry.type == "number":
        array = array.astype(np.float64)
    if entry.type == "bool" and array.dtype.kind in "iuf" and np.isin(array, (0, 1)).all():
        array = array.astype(np.bool_)
    wanted = {"number": "iuf", "bool": "b", "array": "biuf"}[entry.type]
    if array.dtype.kind not in wanted or (array.ndim == 1) == (entry.type == "array"):
        raise ValueError(f"values of type {array.dtype} and shape {array.shape[1:]} are no {entry.type}")
    return array.astype(array.dtype.newbyteorder("<"), copy=False)


def plan_for(name: str, entry: Field, values: npt.NDArray[Any]) -> SeriesPlan:
    """Return the plan of a field whose first prepared values these are."""
    kind, units, description, axes = _about(entry)
    dtype = f"S{_rounded(_width(values))}" if kind == "string" else values.dtype.str
    return SeriesPlan(name, kind, dtype, values.shape[1:], units, description, axes)


def widened(plan: SeriesPlan, entry: Field, values: npt.NDArray[Any]) -> SeriesPlan:
    """Return a plan that these values fit too; of another shape or type, one for these values alone."""
    new = plan_for(plan.name, entry, values)
    if new.shape != plan.shape or new.type != plan.type:
        return new
    if plan.type == "string":
        return replace(new, dtype=max((plan.dtype, new.dtype), key=lambda dtype: np.dtype(dtype).itemsize))
    return replace(new, dtype=np.result_type(np.dtype(plan.dtype), np.dtype(new.dtype)).str)


def _about(entry: Field) -> tuple[FieldType, str | None, str | None, tuple[Axis, ...]]:
    return entry.type, entry.units, entry.description, entry.axes


def _width(texts: npt.NDArray[Any]) -> int:
    widest = max((len(text.encode("utf-8", "replace")) for text in texts.tolist() if text), default=1)
    return min(widest, _LARGEST_WIDTH)


def _rounded(width: int) -> int:
    return max(_LEAST_WIDTH, 1 << (width - 1).bit_length())


def encode_texts(texts: npt.NDArray[Any], dtype: str) -> npt.NDArray[np.bytes_]:
    """Return strings as they stand in a file; longer ones are cut between characters."""
    width = np.dtype(dtype).itemsize
    encoded = [(MISSING if text is None else text).encode("utf-8", "replace") for text in texts.tolist()]
    short = [each if len(each) <= width else each[:width].decode("utf-8", "ignore").encode() for each in encoded]
    return np.array(short, dtype=dtype)


def decode_texts(stored: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return strings as they were; None where one was missing."""
    texts = np.empty(len(stored), dtype=object)
    plain = (bytes(item).decode("utf-8", "replace") for item in stored.tolist())
    texts[:] = [None if text == MISSING else text for text in plain]
    return texts


def link_name(name: str) -> str:
    """Return a node's or field's name as the name of a HDF5 link, which may hold no ``/`` and not be ``.``."""
    safe = _UNSAFE.sub(lambda match: f"%{ord(match[0]):02X}", name)
    return (safe if safe.strip(".") else safe.replace(".", "%2E")) or "%"


def name_of_link(link: str) -> str:
    """Return the name that `link_name` was given."""
    return "" if link == "%" else unquote(link)


def tables_text(tables: tuple[TablePlan, ...]) -> str:
    """Return the tables of a file as JSON text."""
    return json.dumps([_plain_table(table) for table in tables], ensure_ascii=True)


def _plain_table(table: TablePlan) -> dict[str, Any]:
    fields = [_plain(each) for each in table.fields]
    return {"node": table.node, "timeline": table.timeline, "interval": table.interval, "fields": fields}


def _plain(plan: SeriesPlan) -> dict[str, Any]:
    about = {key: value for key, value in asdict(plan).items() if key != "axes"}
    return {**about, "axes": [axis.model_dump(mode="json") for axis in plan.axes]}


def read_tables(text: str) -> tuple[TablePlan, ...]:
    """Return the tables of `tables_text`."""
    return tuple(
        TablePlan(each["node"], each["timeline"], tuple(map(_read_plan, each["fields"])), float(each["interval"]))
        for each in json.loads(text)
    )


def _read_plan(about: Mapping[str, Any]) -> SeriesPlan:
    axes = tuple(Axis.model_validate(axis) for axis in about["axes"])
    return SeriesPlan(**{**about, "shape": tuple(about["shape"]), "axes": axes})
