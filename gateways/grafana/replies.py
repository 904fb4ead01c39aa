"""Samples as the JSON and CSV that dashboards read. Pure.

Strict JSON: NaN and infinities become null. A reply is a list of pieces of bytes, each made in a few milliseconds:
while one is made no other thread can run, and the gateway must go on answering. Times are epoch milliseconds; parts of
a millisecond are kept.

A time series holds numbers, so bools are 0 and 1 there; strings are answered as a table, whose columns have types. A
field that could not be had is a series without points, with ``error`` and Grafana's own ``meta.notices`` beside it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import orjson
from sisockdaq.gateways.grafana.questions import Wanted

from sisockdaq.client import FieldData
from sisockdaq.schema import plain_values

__all__ = ["Shape", "as_csv", "as_rows", "cells_as_csv", "encode", "panel_reply"]

Shape = Literal["wide", "long"]

_ROWS = 20_000
"""Rows of one piece: some 5 ms."""

_EXACT = 2.0**53
"""Whole numbers up to here are exact in JSON's readers."""

_COLUMN_TYPES = {"number": "number", "bool": "boolean", "string": "string"}

_Array = npt.NDArray[Any]


def encode(value: Any) -> bytes:
    """Return strict JSON; numpy values are taken too."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS, default=str)


def panel_reply(
    wanted: Sequence[Wanted], data: Mapping[str, FieldData], errors: Mapping[str, str], notices: Mapping[str, list[str]]
) -> list[bytes]:
    """Return the body of ``/query``: one series or table for each wanted field, in their order.

    Parameters
    ----------
    wanted : sequence of Wanted
    data : mapping
        Samples by full name.
    errors : mapping
        Reasons by full name, where there are no samples.
    notices : mapping
        Warnings by full name; under "" those of the whole reply.
    """
    pieces: list[bytes] = [b"["]
    for place, one in enumerate(wanted):
        if place:
            pieces.append(b",")
        found = data.get(one.name)
        problem = one.error or errors.get(one.name, "")
        said = [*(notices.get("", []) if place == 0 else []), *notices.get(one.name, [])]
        if found is None:
            pieces.append(encode(_failed(one, problem or "nothing came", said)))
        elif one.form == "table" or found.values.dtype.kind == "O":
            pieces += _table(one, found, said)
        else:
            pieces += _series(one, found, said)
    if not wanted and notices.get(""):
        pieces.append(encode({"target": "", "datapoints": [], **_meta(notices[""], "warning")}))
    return [*pieces, b"]"]


def as_rows(data: Mapping[str, FieldData], names: Sequence[str], shape: Shape) -> Iterator[bytes]:
    """Return a JSON array of flat objects in pieces.

    ``wide`` has ``time`` and ``value`` for one field, ``time`` and each full name for several; ``long`` has ``time``,
    ``field`` and ``value``, in the order of time.
    """
    yield b"["
    first = True
    for keys, rows in _row_slices(data, names, shape):
        if not rows:
            continue
        text = orjson.dumps([dict(zip(keys, row, strict=True)) for row in rows])
        yield text[1:-1] if first else b"," + text[1:-1]
        first = False
    yield b"]"


def as_csv(data: Mapping[str, FieldData], names: Sequence[str], shape: Shape) -> Iterator[bytes]:
    """Return the same as `as_rows` as CSV in pieces, with a header; null is an empty cell."""
    headed = False
    for keys, rows in _row_slices(data, names, shape):
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\r\n")
        if not headed:
            writer.writerow(keys)
            headed = True
        writer.writerows(rows)
        yield text.getvalue().encode()


def cells_as_csv(keys: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """Return a small table as CSV with a header."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(keys)
    writer.writerows(rows)
    return text.getvalue().encode()


def _series(one: Wanted, found: FieldData, said: list[str]) -> list[bytes]:
    head = {"target": one.name, **_ref(one), **_unit(found), **_meta(said, "warning")}
    pairs = _pairs(_milliseconds(found.t), found.values)
    return [encode(head)[:-1], b',"datapoints":[', *_array_pieces(pairs), b"]}"]


def _pairs(times: _Array, values: _Array) -> _Array:
    """Return ``[[value, time], …]`` as whole numbers where all are, else as floats."""
    whole = values.dtype.kind in "bui" and times.dtype.kind == "i"
    if whole and values.dtype.kind != "b" and len(values):
        whole = bool(np.abs(values.astype(np.float64)).max() <= _EXACT)
    pairs = np.empty((len(times), 2), np.int64 if whole else np.float64)
    pairs[:, 0], pairs[:, 1] = values, times
    return pairs


def _array_pieces(array: _Array) -> Iterator[bytes]:
    for start in range(0, len(array), _ROWS):
        text = orjson.dumps(array[start : start + _ROWS], option=orjson.OPT_SERIALIZE_NUMPY)
        yield text[1:-1] if start == 0 else b"," + text[1:-1]


def _table(one: Wanted, found: FieldData, said: list[str]) -> list[bytes]:
    column: dict[str, Any] = {"text": one.name, "type": _COLUMN_TYPES.get(found.field.type, "string"), **_unit(found)}
    columns = [{"text": "Time", "type": "time"}, column]
    head = {"type": "table", "target": one.name, **_ref(one), "columns": columns, **_meta(said, "warning")}
    pieces = [encode(head)[:-1], b',"rows":[']
    times, values = _milliseconds(found.t), found.values
    for start in range(0, len(times), _ROWS):
        rows = list(zip(times[start : start + _ROWS].tolist(), _plain(values[start : start + _ROWS]), strict=True))
        text = encode(rows)
        pieces.append(text[1:-1] if start == 0 else b"," + text[1:-1])
    return [*pieces, b"]}"]


def _failed(one: Wanted, reason: str, said: list[str]) -> dict[str, Any]:
    notices = [_notice(reason, "error"), *(_notice(text, "warning") for text in said)]
    head: dict[str, Any] = {"target": one.name, **_ref(one), "error": reason, "meta": {"notices": notices}}
    if one.form == "table":
        return {"type": "table", **head, "columns": [{"text": "Time", "type": "time"}, {"text": one.name}], "rows": []}
    return {**head, "datapoints": []}


def _row_slices(
    data: Mapping[str, FieldData], names: Sequence[str], shape: Shape
) -> Iterator[tuple[list[str], list[tuple[Any, ...]]]]:
    """Return the keys and some rows, slice by slice; at least once, so that the keys are known."""
    if shape == "long":
        yield from _long(data, names)
        return
    found = [data.get(name) for name in names]
    keys = ["time", "value"] if len(names) == 1 else ["time", *names]
    t = _union([one.t for one in found if one is not None])
    columns = [None if one is None else (one.values, _places(t, one.t)) for one in found]
    times = _milliseconds(t)
    for start in _starts(len(t)):
        stop = min(start + _ROWS, len(t))
        cells = [_cells(column, start, stop) for column in columns]
        yield keys, list(zip(times[start:stop].tolist(), *cells, strict=True))


def _long(data: Mapping[str, FieldData], names: Sequence[str]) -> Iterator[tuple[list[str], list[tuple[Any, ...]]]]:
    """As `_row_slices`: the rows of all fields in the order of time, or Infinity does not make them columns."""
    keys = ["time", "field", "value"]
    found = [(name, data[name]) for name in names if name in data]
    yield keys, []
    if not found:
        return
    t = np.concatenate([one.t for _, one in found])
    owners = np.repeat(np.arange(len(found)), [len(one.t) for _, one in found])
    places = np.concatenate([np.arange(len(one.t)) for _, one in found])
    order = np.argsort(t, kind="stable")
    for start in _starts(len(t)):
        part = order[start : start + _ROWS]
        cells: list[Any] = [None] * len(part)
        for owner, (_, one) in enumerate(found):
            here = np.flatnonzero(owners[part] == owner)
            for place, value in zip(here.tolist(), _plain(one.values[places[part[here]]]), strict=True):
                cells[place] = value
        titles = [found[owner][0] for owner in owners[part].tolist()]
        yield keys, list(zip(_milliseconds(t[part]).tolist(), titles, cells, strict=True))


def _cells(column: tuple[_Array, _Array] | None, start: int, stop: int) -> Iterable[Any]:
    """Return a column's values for rows of the common times; None where it has no sample."""
    if column is None:
        return [None] * (stop - start)
    values, places = column
    first, last = np.searchsorted(places, (start, stop))
    plain = _plain(values[first:last])
    if last - first == stop - start:
        return plain
    cells: list[Any] = [None] * (stop - start)
    for place, value in zip((places[first:last] - start).tolist(), plain, strict=True):
        cells[place] = value
    return cells


def _plain(values: _Array) -> list[Any]:
    plain: list[Any] = plain_values(values)
    return plain


def _union(times: Sequence[_Array]) -> _Array:
    if not times:
        return np.empty(0)
    if all(t is times[0] or np.array_equal(t, times[0]) for t in times[1:]):
        return times[0]
    return np.unique(np.concatenate(times))


def _places(t: _Array, own: _Array) -> _Array:
    return np.searchsorted(t, own)


def _milliseconds(t: _Array) -> _Array:
    """Return epoch milliseconds: whole numbers where all are, else rounded to what a float64 time holds."""
    milliseconds = np.round(t * 1e3, 3)
    whole = np.round(milliseconds)
    if len(t) and np.all(milliseconds == whole):
        return whole.astype(np.int64)
    return milliseconds


def _starts(n: int) -> range | tuple[int]:
    return range(0, n, _ROWS) if n else (0,)


def _ref(one: Wanted) -> dict[str, str]:
    return {} if one.ref is None else {"refId": one.ref}


def _unit(found: FieldData) -> dict[str, str]:
    """Return the field's unit as Grafana shows one that it does not know: "m" alone would be minutes."""
    return {"unit": f"suffix:{found.units}"} if found.units else {}


def _meta(said: Sequence[str], severity: str) -> dict[str, Any]:
    return {"meta": {"notices": [_notice(text, severity) for text in said]}} if said else {}


def _notice(text: str, severity: str) -> dict[str, str]:
    return {"severity": severity, "text": text}
