"""What an OCS agent publishes on a feed, read into typed columns.

A message is ``[blocks, feed]`` with ``blocks = {key: {"block_name", "timestamps", "data": {field: values}}}``. Whoever
may publish may publish anything, so nothing here raises: what cannot be used becomes a `Fault` of one of `FAULTS`, and
everything else of the message is kept. A fault of a block costs that block, a fault of a field that field.

Pure: bytes have been decoded already, and the present time is an argument.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

__all__ = ["FAULTS", "LONGEST_STRING", "Column", "Fault", "FeedBlock", "Message", "ValueType", "read_message"]

ValueType = Literal["number", "bool", "string"]

FAULTS = {
    "message": "Messages that are not a pair of blocks and feed.",
    "free_form": "Messages of feeds that are not recorded; their form is free, so they hold no samples.",
    "block": "Blocks that lack a name, times or data.",
    "times": "Blocks whose times are not finite numbers.",
    "ahead": "Blocks whose times are ahead of this machine's clock.",
    "lengths": "Columns that are longer or shorter than their block's times.",
    "values": "Columns with values that are neither number, string nor bool, or too large.",
    "name": "Columns whose name is not a legal OCS field name.",
}
"""What can be wrong with a message: kind → what is counted under it."""

LONGEST_STRING = 65536
"""Longest string that is kept [characters]."""

AHEAD = 300.0
"""How far an agent's clock may be ahead of ours [s].

Age is measured from the newest sample: one sample from next year would push everything else out of the cache.
"""

_FIELD_NAME = re.compile(r"_*[A-Za-z][A-Za-z0-9_]*")
_LONGEST_NAME = 255
_VALUE_TYPES: frozenset[type] = frozenset((bool, int, float, str, type(None)))


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing in a message that cannot be used: its kind (of `FAULTS`), and which part it is."""

    kind: str
    detail: str


@dataclass(frozen=True, slots=True)
class Column:
    """Values of one type, of one field of a block.

    Attributes
    ----------
    type : {"number", "bool", "string"} or None
        None: the values are all missing.
    values : ndarray of float64, list of bool or list of (str or None), (n,)
        A missing number is NaN.
    rows : ndarray of int, (n,), or None
        Rows of the block that the values belong to; None: all.
    """

    type: ValueType | None
    values: Any
    rows: npt.NDArray[np.intp] | None = None

    def __len__(self) -> int:
        return len(self.values)


@dataclass(slots=True)
class FeedBlock:
    """Samples taken together: ``t`` (n,) UNIX times [s], and for each field one column a type of value."""

    name: str
    t: npt.NDArray[np.float64]
    columns: dict[str, list[Column]] = field(default_factory=dict)


@dataclass(slots=True)
class Message:
    """The blocks of a message that can be used, and what could not."""

    blocks: list[FeedBlock] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)


def read_message(arguments: Sequence[Any], now: float) -> Message:
    """Read the arguments of one event of a feed.

    Parameters
    ----------
    arguments : sequence
        Positional arguments of the event; an agent gives one, ``[blocks, feed]``.
    now : float
        The present UNIX time [s].
    """
    message = Message()
    pair = arguments[0] if len(arguments) == 1 else None
    if not isinstance(pair, (list, tuple)) or len(pair) != 2:
        message.faults.append(Fault("message", "it is not a pair of blocks and feed"))
        return message
    blocks, feed = pair
    if isinstance(feed, dict) and feed.get("record") is False:
        message.faults.append(Fault("free_form", "its feed is not recorded"))
    elif not isinstance(blocks, dict):
        message.faults.append(Fault("message", f"its blocks are {_kind(blocks)}, not a dictionary"))
    else:
        for key, content in blocks.items():
            block = _read_block(str(key)[:_LONGEST_NAME], content, now, message.faults)
            if block is not None:
                message.blocks.append(block)
    return message


def _read_block(key: str, content: Any, now: float, faults: list[Fault]) -> FeedBlock | None:
    if not isinstance(content, dict):
        faults.append(Fault("block", f"block {key!r} is {_kind(content)}, not a dictionary"))
        return None
    name, times, data = content.get("block_name", key), content.get("timestamps"), content.get("data")
    if not isinstance(name, str) or not isinstance(times, list) or not isinstance(data, dict):
        faults.append(Fault("block", f"block {key!r} lacks one of block_name, timestamps and data, or it is no such"))
        return None
    t = _read_times(times)
    if t is None:
        faults.append(Fault("times", f"block {key!r}: not all of its times are finite numbers"))
        return None
    if len(t) and t.max() > now + AHEAD:
        faults.append(Fault("ahead", f"block {key!r}: its times are {t.max() - now:.0f} s ahead of this clock"))
        return None
    block = FeedBlock(name, t)
    for field_name, values in data.items():
        fault = _fault_of(field_name, values, len(t))
        if fault is None:
            try:
                block.columns[field_name] = list(_columns(values))
            except OverflowError:
                fault = Fault("values", f"{field_name} holds a number that is too large")
        if fault is not None:
            faults.append(fault)
    return block if len(t) and block.columns else None


def _read_times(times: list[Any]) -> npt.NDArray[np.float64] | None:
    if not set(map(type, times)) <= {int, float}:
        return None
    try:
        t = np.array(times, np.float64)
    except OverflowError:
        return None
    return t if np.isfinite(t).all() else None


def _fault_of(name: Any, values: Any, rows: int) -> Fault | None:
    if not isinstance(name, str) or len(name) > _LONGEST_NAME or not _FIELD_NAME.fullmatch(name):
        return Fault("name", f"{str(name)[:_LONGEST_NAME]!r} is not a legal field name")
    if not isinstance(values, list):
        return Fault("values", f"{name} is {_kind(values)}, not a list")
    if len(values) != rows:
        return Fault("lengths", f"{name} has {len(values)} values for {rows} times")
    types = set(map(type, values))
    if not types <= _VALUE_TYPES:
        wrong = next(value for value in values if type(value) not in _VALUE_TYPES)
        return Fault("values", f"{name} holds {_kind(wrong)}")
    if str in types and any(len(value) > LONGEST_STRING for value in values if type(value) is str):
        return Fault("values", f"{name} holds a string of more than {LONGEST_STRING} characters")
    return None


def _columns(values: list[Any]) -> Iterator[Column]:
    """Yield the values by type; bools among numbers are numbers, and what is missing goes with the others."""
    types = set(map(type, values)) - {type(None)}
    numeric = bool(types & {int, float})
    if str in types and len(types) > 1:
        texts = np.array([type(value) is str for value in values])
        others = np.array([type(value) not in (str, type(None)) for value in values])
        for rows in (np.flatnonzero(texts), np.flatnonzero(others)):
            (column,) = _columns([values[row] for row in rows])
            yield Column(column.type, column.values, rows if column.rows is None else rows[column.rows])
    elif numeric:
        yield Column("number", np.array(values, np.float64))
    elif bool in types:
        given = np.flatnonzero([value is not None for value in values])
        whole = len(given) == len(values)
        yield Column("bool", values if whole else [values[row] for row in given], None if whole else given)
    elif str in types:
        yield Column("string", _speakable(values))
    else:
        yield Column(None, values)


def _speakable(values: list[str | None]) -> list[str | None]:
    """Replace halves of surrogate pairs, which JSON can carry and no serializer sends on."""
    try:
        "".join(value for value in values if value is not None).encode()
    except UnicodeEncodeError:
        return [
            None if value is None else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            for value in values
        ]
    return values


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"of type {type(value).__name__}"
