"""What a node says about its data: fields, timelines and replies, with the rules for time and intervals.

This module is pure: it knows no socket and no clock (``now`` is always an argument). It promises that

- times follow the contract: ``t > 0`` is UNIX time, ``t <= 0`` is ``now + t``; an interval is ``[start, end)``;
- a reply of any node, ours or an older one (also with ``fields`` for ``field`` and timelines called ``group0``),
  becomes the same `FieldList` or `Reply`; what cannot be used is left out *and named* in ``problems``;
- what an old caller is shown holds nothing that it does not know: fields of type ``array`` are left out of plain
  listings (`FieldList.to_plain`), and plain replies hold lists of plain values only (`Reply.to_plain`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError

from sisockdaq.errors import IntervalError, ReplyInvalid

__all__ = [
    "ALL_TIME",
    "SEPARATOR",
    "Axis",
    "Field",
    "FieldList",
    "FieldType",
    "Reply",
    "Samples",
    "Timeline",
    "column",
    "plain_values",
    "resolve_interval",
    "split_name",
    "unix_time",
]

FieldType = Literal["number", "string", "bool", "array"]

SEPARATOR = "::"
"""Between node and field in a full name; an archive's own field names hold one too (``integrator::total``)."""

ALL_TIME = (1.0, 0.0)
"""The interval that means everything a node has."""


def split_name(name: str) -> tuple[str, str]:
    """Cut ``node::field`` at the first separator; the field is "" where there is none."""
    node, _, rest = name.partition(SEPARATOR)
    return node, rest


def unix_time(t: float, now: float) -> float:
    """Return UNIX time [s]: ``t`` itself when positive, else ``now + t``."""
    return float(t) if t > 0 else now + float(t)


def resolve_interval(start: float, end: float, now: float, *, allow_empty: bool = False) -> tuple[float, float]:
    """Turn a caller's interval into absolute UNIX times.

    Parameters
    ----------
    start, end : float
        As a caller gives them: positive is UNIX time, zero or negative is relative to ``now`` [s].
    now : float
        The present UNIX time [s].
    allow_empty : bool
        Whether ``start == end`` is an answerable question (with no samples in it).

    Raises
    ------
    IntervalError
        When an end is not a finite number, or the interval is reversed or (unless allowed) empty.
    """
    for name, t in (("start", start), ("end", end)):
        if isinstance(t, bool) or not isinstance(t, (int, float, np.integer, np.floating)) or not math.isfinite(t):
            raise IntervalError(f"{name} is {t!r}, which is not a time", remedy="give seconds as a finite number")
    first, last = unix_time(start, now), unix_time(end, now)
    if first > last or (first == last and not allow_empty):
        what = "is reversed" if first > last else "is empty"
        raise IntervalError(
            f"the time span from {first:.3f} to {last:.3f} {what}",
            remedy="positive is UNIX time, zero or negative is seconds before now: -3600 to 0 is the last hour",
        )
    return first, last


class Axis(BaseModel):
    """One dimension of an array field: what runs along it, in which unit, and the positions of its samples."""

    model_config = ConfigDict(frozen=True)

    axis: str
    unit: str | None = None
    values: tuple[float, ...] | None = None


class Field(BaseModel):
    """One quantity that a node serves.

    ``shape`` and ``dtype`` are those of one sample and belong to type ``array``; ``axes`` has one entry a dimension, or
    none. ``feed`` says whether new samples are published on the timeline's feed.
    """

    model_config = ConfigDict(frozen=True)

    timeline: str
    type: FieldType = "number"
    units: str | None = None
    description: str | None = None
    shape: tuple[int, ...] | None = None
    dtype: str | None = None
    axes: tuple[Axis, ...] = ()
    feed: bool = False

    def to_plain(self) -> dict[str, Any]:
        """Return the four keys that every caller knows."""
        return {"description": self.description, "timeline": self.timeline, "type": self.type, "units": self.units}

    def to_schema(self) -> dict[str, Any]:
        """Return everything, as plain values that any serializer carries."""
        return self.model_dump(mode="json", exclude_defaults=True) | self.to_plain()


class Timeline(BaseModel):
    """A set of times that one or more fields share; ``interval`` is their mean spacing [s], None when aperiodic."""

    model_config = ConfigDict(frozen=True)

    interval: float | None = None
    fields: tuple[str, ...] = ()


@dataclass(slots=True)
class FieldList:
    """A node's listing. ``problems`` names every entry of a remote reply that could not be used, and why."""

    fields: dict[str, Field] = field(default_factory=dict)
    timelines: dict[str, Timeline] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def to_plain(self) -> list[dict[str, Any]]:
        """Return the plain ``[field, timeline]`` reply, without array fields, which an old caller cannot take."""
        shown = {name: entry.to_plain() for name, entry in self.fields.items() if entry.type != "array"}
        timelines = {}
        for name, timeline in self.timelines.items():
            members = [member for member in timeline.fields if member in shown]
            if members:
                timelines[name] = {"interval": timeline.interval, "field": members}
        return [shown, timelines]

    def to_schema(self) -> list[dict[str, Any]]:
        """Return the full ``[field, timeline]`` reply, with arrays, for callers that know them."""
        timelines = {n: {"interval": t.interval, "field": list(t.fields)} for n, t in self.timelines.items()}
        return [{name: entry.to_schema() for name, entry in self.fields.items()}, timelines]

    @classmethod
    def parse(cls, reply: Any, *, source: str = "the node") -> FieldList:
        """Read a listing, plain or full, of any node.

        Raises
        ------
        ReplyInvalid
            When the reply as a whole is not ``[field, timeline]``.
        """
        if not isinstance(reply, (list, tuple)) or len(reply) != 2 or not all(isinstance(x, dict) for x in reply):
            raise ReplyInvalid(f"{source} answered get_fields with {_shorten(reply)}, not with two dictionaries")
        listing = cls()
        for name, entry in reply[0].items():
            try:
                listing.fields[str(name)] = Field.model_validate(entry)
            except ValidationError as error:
                listing.problems.append(f"{source}: field {name}: {_first_problem(error)}")
        for name, entry in reply[1].items():
            members = entry.get("field", entry.get("fields", ())) if isinstance(entry, dict) else ()
            try:
                timeline = Timeline.model_validate({"interval": entry["interval"], "fields": members})
            except (ValidationError, KeyError, TypeError, IndexError):
                timeline = _loose_timeline(entry, members)
            listing.timelines[str(name)] = timeline
        return listing


@dataclass(slots=True)
class Samples:
    """One field's samples in an interval.

    Attributes
    ----------
    t : ndarray of float64, (n,)
        UNIX times, rising [s].
    values : ndarray, (n, *shape)
        float64 or an integer type for numbers (a missing one is NaN), bool, or object (str, bool or None).
    timeline : str
        The timeline that ``t`` was taken from.
    finalized_until : float or None
        Before this time nothing will change any more; None: nothing in the interval will change.
    covers_from : float or None
        From this time on the source holds every sample it ever had; None: it does not say.
    """

    t: npt.NDArray[np.float64]
    values: npt.NDArray[Any]
    timeline: str = ""
    finalized_until: float | None = None
    covers_from: float | None = None

    def __len__(self) -> int:
        return len(self.t)

    @classmethod
    def empty(cls, timeline: str = "", type: FieldType = "number") -> Samples:
        """Return no samples."""
        dtype: Any = {"number": np.float64, "bool": np.bool_}.get(type, object)
        return cls(np.empty(0), np.empty(0, dtype), timeline)

    def take(self, rows: npt.NDArray[np.intp]) -> Samples:
        """Return the samples at those rows."""
        return Samples(self.t[rows], self.values[rows], self.timeline, self.finalized_until, self.covers_from)


@dataclass(slots=True)
class Reply:
    """Samples by field. ``unknown`` names the asked fields that the node does not have."""

    samples: dict[str, Samples] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def to_plain(self) -> dict[str, Any]:
        """Return the plain ``get_data`` reply: lists of plain values, None for NaN, one ``t`` for each timeline.

        Fields of one timeline whose times differ are joined on the union of their times, with None where a field has
        no sample.
        """
        data: dict[str, list[Any]] = {name: [] for name in self.unknown}
        timelines: dict[str, dict[str, Any]] = {}
        for name, group in self._by_timeline().items():
            filled = {member: samples for member, samples in group.items() if len(samples)}
            data.update({member: [] for member in group if member not in filled})
            if not filled:
                continue
            t = _union([samples.t for samples in filled.values()])
            data.update({member: _on_times(samples, t) for member, samples in filled.items()})
            known = [s.finalized_until for s in filled.values() if s.finalized_until is not None]
            timelines[name] = {"t": t.tolist(), "finalized_until": min(known) if known else None}
        return {"data": data, "timeline": timelines}

    @classmethod
    def parse(
        cls, reply: Any, fields: Sequence[str], listing: FieldList | None = None, *, source: str = "the node"
    ) -> Reply:
        """Read a plain ``get_data`` reply.

        A field's timeline is found from the reply itself (so3g style names its fields there), else from ``listing``,
        else by the only timeline of the same length.

        Raises
        ------
        ReplyInvalid
            When the reply is not of the contract's form. ``False`` (more data than the node's allowance) is one such.
        """
        if reply is False:
            raise ReplyInvalid(
                f"{source} has more data in this span than it will send", remedy="ask a shorter span or fewer fields"
            )
        if not isinstance(reply, dict) or not all(isinstance(reply.get(k), dict) for k in ("data", "timeline")):
            raise ReplyInvalid(f'{source} answered get_data with {_shorten(reply)}, not with "data" and "timeline"')
        result = cls()
        lines = {str(name): line for name, line in reply["timeline"].items() if isinstance(line, dict) and "t" in line}
        times = {name: _times(line["t"], f"{source}: timeline {name}") for name, line in lines.items()}
        owner = _owners(lines, listing)
        for name in fields:
            values = reply["data"].get(name, ())
            entry = listing.fields.get(name) if listing else None
            kind: FieldType = entry.type if entry else "number"
            if len(values) == 0:
                result.samples[name] = Samples.empty(entry.timeline if entry else "", kind)
                if listing is not None and entry is None:
                    result.unknown.append(name)
                continue
            line_name = owner.get(name) or _by_length(times, len(values))
            if line_name not in times or len(times[line_name]) != len(values):
                have = ", ".join(f"{key} has {len(t)} times" for key, t in times.items()) or "no timeline came"
                result.problems.append(f"{source}: {name} has {len(values)} values, but {have}")
                result.samples[name] = Samples.empty(entry.timeline if entry else "", kind)
                continue
            final = lines[line_name].get("finalized_until")
            result.samples[name] = _sorted(
                Samples(times[line_name], column(values, kind), line_name, None if final is None else float(final))
            )
        return result

    def _by_timeline(self) -> dict[str, dict[str, Samples]]:
        groups: dict[str, dict[str, Samples]] = {}
        for name, samples in self.samples.items():
            groups.setdefault(samples.timeline, {})[name] = samples
        return groups


def column(values: Iterable[Any] | npt.NDArray[Any], type: FieldType | None = None) -> npt.NDArray[Any]:
    """Make one column of values: float64, integer or bool where all samples are such, object otherwise.

    None among numbers, and anywhere in a column of type "number", becomes NaN; elsewhere it stays None.
    """
    if isinstance(values, np.ndarray):
        return values if values.dtype.kind in "biufO" else values.astype(object)
    items = list(values)
    kinds = {item.__class__ for item in items}
    if kinds == {None.__class__} and type != "number":
        kinds = set()
    if not items:
        return Samples.empty(type=type or "number").values
    if kinds and kinds <= {bool, np.bool_}:
        return np.array(items, dtype=np.bool_)
    if kinds and all(issubclass(kind, _NUMBERS) and kind is not bool for kind in kinds):
        whole = all(issubclass(kind, (int, np.integer)) for kind in kinds)
        return np.array(items) if whole and _fits_int64(items) else np.array(items, dtype=np.float64)
    if kinds and all(issubclass(kind, (*_NUMBERS, None.__class__)) and kind is not bool for kind in kinds):
        return np.array([math.nan if item is None else item for item in items], dtype=np.float64)
    if kinds and all(issubclass(kind, (list, tuple, np.ndarray)) for kind in kinds):
        return np.array(items)
    result = np.empty(len(items), dtype=object)
    result[:] = items
    return result


def plain_values(values: Any) -> Any:
    """Make values plain for any serializer: lists and Python scalars, None for NaN and infinities.

    Works through dictionaries, lists and tuples; ndarrays and numpy scalars become lists and Python values.
    """
    if isinstance(values, np.ndarray):
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            boxed = values.astype(object)
            boxed[~np.isfinite(values)] = None
            return boxed.tolist()
        return plain_values(values.tolist()) if values.dtype.kind == "O" else values.tolist()
    if isinstance(values, np.generic):
        return plain_values(values.item())
    if isinstance(values, float):
        return values if math.isfinite(values) else None
    if isinstance(values, Mapping):
        return {(key.item() if isinstance(key, np.generic) else key): plain_values(x) for key, x in values.items()}
    if isinstance(values, (list, tuple)):
        return [plain_values(item) for item in values]
    return values


_NUMBERS = (int, float, np.integer, np.floating)


def _fits_int64(items: Sequence[Any]) -> bool:
    limits = np.iinfo(np.int64)
    return not items or (min(items) >= limits.min and max(items) <= limits.max)


def _times(values: Any, where: str) -> npt.NDArray[np.float64]:
    try:
        t = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise ReplyInvalid(f"{where}: the times are not all numbers") from None
    if t.ndim != 1 or not np.isfinite(t).all():
        raise ReplyInvalid(f"{where}: the times are not a list of finite numbers")
    return t


def _owners(lines: Mapping[str, Mapping[str, Any]], listing: FieldList | None) -> dict[str, str]:
    """Say which timeline each field follows; what the reply itself says goes before the listing."""
    owner = {name: entry.timeline for name, entry in listing.fields.items()} if listing else {}
    for name, line in lines.items():
        members = line.get("field", line.get("fields"))
        if isinstance(members, (list, tuple)):
            owner.update({str(member): name for member in members})
    return owner


def _by_length(times: Mapping[str, npt.NDArray[np.float64]], n: int) -> str:
    fitting = [name for name, t in times.items() if len(t) == n]
    return fitting[0] if len(fitting) == 1 else ""


def _sorted(samples: Samples) -> Samples:
    if np.all(samples.t[1:] >= samples.t[:-1]):
        return samples
    return samples.take(np.argsort(samples.t, kind="stable"))


def _union(times: Sequence[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    first = times[0]
    if all(t is first or np.array_equal(t, first) for t in times[1:]):
        return first
    return np.unique(np.concatenate(times))


def _on_times(samples: Samples, t: npt.NDArray[np.float64]) -> list[Any]:
    values = plain_values(samples.values)
    if len(samples) == len(t):
        return list(values)
    row: list[Any] = [None] * len(t)
    for place, value in zip(np.searchsorted(t, samples.t).tolist(), values, strict=True):
        row[place] = value
    return row


def _loose_timeline(entry: Any, members: Any) -> Timeline:
    """Read what can be read of a timeline whose interval is missing or no number (older nodes send such)."""
    names = tuple(str(m) for m in members) if isinstance(members, (list, tuple)) else ()
    interval = entry.get("interval") if isinstance(entry, dict) else None
    good = isinstance(interval, (int, float)) and not isinstance(interval, bool) and math.isfinite(interval)
    return Timeline(interval=float(interval) if good and interval is not None else None, fields=names)


def _first_problem(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}" if place else str(first["msg"])


def _shorten(value: Any, limit: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
