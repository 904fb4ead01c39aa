"""What a dashboard asks, read from the body of ``/query`` or the parameters of ``/api/query``. Pure.

A body that cannot be understood as a whole raises `BadRequest`; a target that cannot be understood keeps its place,
with the reason, beside the others.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from sisockdaq.gateways.grafana.listings import FILTER_KEYS, Row, passes
from sisockdaq.gateways.grafana.targets import expand, variables
from sisockdaq.gateways.grafana.times import duration, span

from sisockdaq.errors import SisockdaqError

__all__ = ["BadRequest", "Form", "Query", "Wanted", "api_query", "is_of_type", "nodes_of", "panel_query", "types_of"]

PANEL_POINTS = 1000
"""Points of a panel that does not say how many it can show."""

MOST_TARGETS = 200
"""Targets of one request."""

FIELD_TYPES = frozenset({"number", "bool", "string"})
"""Types of fields that a panel can show."""

Form = Literal["series", "table"]


class BadRequest(SisockdaqError):
    """A request that cannot be understood."""

    uri = "sisockdaq.error.bad_request"


@dataclass(frozen=True, slots=True)
class Wanted:
    """One field of a reply, in its place; ``error`` says why it cannot even be asked for."""

    name: str
    ref: str | None = None
    form: Form = "series"
    max_points: int = PANEL_POINTS
    error: str = ""


@dataclass(frozen=True, slots=True)
class Query:
    """A time range (UNIX times [s]), the fields wanted in it, and what was not done as asked."""

    start: float
    end: float
    wanted: tuple[Wanted, ...]
    notices: tuple[str, ...] = field(default=())


def panel_query(body: Any, rows: Mapping[str, Row], *, now: float, cap: int) -> Query:
    """Read a ``/query`` body of SimpleJson or simPod.

    Parameters
    ----------
    body : object
        Decoded JSON.
    rows : mapping
        The known fields by full name.
    now : float
        UNIX time [s].
    cap : int
        Most points of a field.

    Raises
    ------
    BadRequest, IntervalError
    """
    if not isinstance(body, Mapping):
        raise BadRequest("the body is not a JSON object")
    limits, targets = body.get("range"), body.get("targets")
    if not isinstance(limits, Mapping) or "from" not in limits or "to" not in limits:
        raise BadRequest('the body has no "range" with "from" and "to"')
    if not isinstance(targets, list):
        raise BadRequest('the body has no list of "targets"')
    if len(targets) > MOST_TARGETS:
        raise BadRequest(f"{len(targets)} targets were asked for at once; at most {MOST_TARGETS} are answered")
    start, end = span(limits["from"], limits["to"], now)
    points = _panel_points(body, end - start, cap)
    scoped = variables(body.get("scopedVars"))
    filters, notices = _filters(body.get("adhocFilters"))
    wanted: list[Wanted] = []
    for target in targets:
        found = _of_target(target, rows, scoped, points, cap)
        wanted += [one for one in found if one.error or passes(rows.get(one.name), filters)]
    return Query(start, end, tuple(wanted[: 10 * MOST_TARGETS]), tuple(notices))


def api_query(parameters: Mapping[str, Sequence[str]], rows: Mapping[str, Row], *, now: float, cap: int) -> Query:
    """Read the parameters of ``GET /api/query``.

    ``field`` (again and again, or with commas), ``from``, ``to`` (default: the last hour), ``max_points``, or
    ``interval``, which becomes as many points as intervals; without either, all up to the cap. ``type`` (with commas:
    number, bool, string) leaves out the fields of others. A pattern that matches nothing asks for nothing: a page for
    any site must not fail where a site has no such field.

    Raises
    ------
    BadRequest, IntervalError
    """
    texts = [text for given in parameters.get("field", ()) for text in _split(given)]
    if not texts:
        raise BadRequest("no field was named", remedy="/api/query?field=weather::temperature; /api/fields lists all")
    start, end = span(_one(parameters, "from") or "now-1h", _one(parameters, "to") or "now", now)
    points = cap
    if given := _one(parameters, "max_points"):
        points = _points(given, cap)
    elif given := _one(parameters, "interval"):
        points = _points_of(duration(given), end - start, cap)
    kinds = types_of(parameters)
    wanted: dict[str, Wanted] = {}
    for text in texts:
        try:
            names = expand(text, rows, may_be_none=True)
            wanted.update(
                {name: Wanted(name, max_points=points) for name in names if is_of_type(rows.get(name), kinds)}
            )
        except SisockdaqError as error:
            wanted[text] = Wanted(text, error=str(error))
    return Query(start, end, tuple(wanted.values()))


def types_of(parameters: Mapping[str, Sequence[str]]) -> frozenset[str]:
    """Return the types that ``type`` names; none where all are meant.

    Raises
    ------
    BadRequest
    """
    kinds = frozenset(kind for given in parameters.get("type", ()) for kind in _split(given))
    if unknown := kinds - FIELD_TYPES:
        raise BadRequest(f"type={min(unknown)} is none of {', '.join(sorted(FIELD_TYPES))}")
    return kinds


def nodes_of(parameters: Mapping[str, Sequence[str]]) -> frozenset[str]:
    """Return the nodes that ``node`` names (again and again, with commas, or ``{a,b}``); none where all are meant."""
    return frozenset(name for given in parameters.get("node", ()) for name in _split(given.strip("{}")))


def is_of_type(row: Row | None, kinds: Collection[str]) -> bool:
    """Whether a field has one of the types; an unknown field passes, and any where no type is named."""
    return row is None or not kinds or row.type in kinds


def _of_target(
    target: Any, rows: Mapping[str, Row], scoped: Mapping[str, list[str]], points: int, cap: int
) -> list[Wanted]:
    if isinstance(target, str):
        target = {"target": target}
    if not isinstance(target, Mapping):
        return [Wanted("", error=f"a target is {type(target).__name__}, not an object")]
    ref = target.get("refId")
    ref = str(ref) if isinstance(ref, (str, int)) else None
    text = target.get("target")
    if target.get("hide") is True or text in (None, ""):
        return []  # a row of the editor that nothing was chosen in yet
    if not isinstance(text, str):
        return [Wanted(str(text), ref, error="a target's name is not a text")]
    payload = _payload(target)
    kind = str(payload.get("type") or target.get("type") or "")
    form: Form = "table" if kind == "table" else "series"
    if payload.get("points") == "all":
        points = cap
    try:
        return [Wanted(name, ref, form, points) for name in expand(text, rows, scoped)]
    except SisockdaqError as error:
        return [Wanted(text, ref, form, error=str(error))]


def _payload(target: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what the target chose beside its name; older plugins send it as text, or call it ``data``."""
    payload = target.get("payload") or target.get("data")
    if isinstance(payload, str):
        try:
            payload = json.loads(payload)
        except ValueError:
            return {}
    return payload if isinstance(payload, Mapping) else {}


def _panel_points(body: Mapping[str, Any], length: float, cap: int) -> int:
    given = body.get("maxDataPoints")
    if given is not None:
        return _points(given, cap)
    for key in ("intervalMs", "interval"):
        if body.get(key) is not None:
            return _points_of(duration(body[key]), length, cap)
    return min(PANEL_POINTS, cap)


def _points(given: Any, cap: int) -> int:
    try:
        number = float(given)
    except (TypeError, ValueError):
        number = math.nan
    if isinstance(given, bool) or not math.isfinite(number) or number < 1:
        raise BadRequest(f"{given!r} is no number of points", remedy="give a whole number from 1 on")
    return min(int(number), cap)


def _points_of(interval: float, length: float, cap: int) -> int:
    return max(min(math.ceil(length / interval) + 1, cap), 1) if interval > length / cap else cap


def _filters(given: Any) -> tuple[list[tuple[str, str, str]], list[str]]:
    """Return the ad hoc filters that can be applied, and a notice for each that cannot."""
    filters: list[tuple[str, str, str]] = []
    notices: list[str] = []
    for entry in given if isinstance(given, list) else []:
        if not isinstance(entry, Mapping):
            continue
        key, operator, value = (str(entry.get(part, "")) for part in ("key", "operator", "value"))
        if key in FILTER_KEYS and operator in ("=", "!="):
            filters.append((key, operator, value))
        else:
            notices.append(f"the filter {key} {operator} {value} was not applied: = and != of {', '.join(FILTER_KEYS)}")
    return filters, notices


def _split(text: str) -> list[str]:
    """Split at commas outside braces."""
    parts, depth = [""], 0
    for character in text:
        depth += {"{": 1, "}": -1}.get(character, 0)
        if character == "," and depth <= 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def _one(parameters: Mapping[str, Sequence[str]], key: str) -> str:
    given = parameters.get(key)
    return given[-1].strip() if given else ""
