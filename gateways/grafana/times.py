"""Times and durations as dashboards write them. Pure: ``now`` is an argument.

Instants are ISO 8601 (with parts of a second, which are kept), epoch milliseconds as a number or as digits, or
``now``, ``now-6h``. Durations are ``500ms``, ``20s``, ``4h``, ``1d``, ``1w``, ``1M``, ``1y``, or bare milliseconds.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import Any

from sisockdaq.errors import IntervalError

__all__ = ["duration", "instant", "span"]

_UNITS = {
    "ms": 0.001,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
    "d": 86400.0,
    "w": 7 * 86400.0,
    "M": 30 * 86400.0,
    "Q": 91 * 86400.0,
    "y": 365 * 86400.0,
}
"""Length of each unit [s]; months and years are those of Grafana's own arithmetic, which only thins by them."""

_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|[smhdwMQy])\s*")
_NUMBER = re.compile(r"\s*[+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?\s*")
_RELATIVE = re.compile(r"\s*now\s*(?:([+-])\s*(\S+))?\s*")

_EARLIEST = 0.001
"""Instants at or before 1970 begin here [s]: to a node, zero and less are relative to now."""

_LATEST = 253_402_300_799.0
"""The end of the year 9999 [s]."""


def duration(text: Any) -> float:
    """Return a duration [s].

    Raises
    ------
    IntervalError
        With the forms that there are.
    """
    if isinstance(text, (int, float)) and not isinstance(text, bool) and math.isfinite(text) and text >= 0:
        return float(text) / 1000
    if isinstance(text, str):
        if match := _DURATION.fullmatch(text):
            return float(match[1]) * _UNITS[match[2]]
        if _NUMBER.fullmatch(text) and 0 <= float(text) < math.inf:
            return float(text) / 1000
    raise IntervalError(
        f"{text!r} is no duration", remedy="as 500ms, 20s, 5m, 4h, 1d, 1w, 1M or 1y, or in milliseconds"
    )


def instant(value: Any, now: float) -> float:
    """Return a UNIX time [s].

    Raises
    ------
    IntervalError
        With the forms that there are.
    """
    seconds = _instant(value, now)
    if seconds is None or not math.isfinite(seconds) or seconds > _LATEST:
        raise IntervalError(
            f"{value!r} is no time", remedy="as 2026-01-31T12:00:00.250Z, epoch milliseconds, now or now-6h"
        )
    return max(seconds, _EARLIEST)


def span(first: Any, last: Any, now: float) -> tuple[float, float]:
    """Return the UNIX times [s] of a range's ends.

    Raises
    ------
    IntervalError
        An end is no time, or the range is reversed or empty.
    """
    start, end = instant(first, now), instant(last, now)
    if start >= end:
        raise IntervalError(f"the range from {first} to {last} is empty or reversed", remedy="from must be before to")
    return start, end


def _instant(value: Any, now: float) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        return value / 1000
    if not isinstance(value, str):
        return None
    if _NUMBER.fullmatch(value):
        return float(value) / 1000
    if relative := _RELATIVE.fullmatch(value):
        sign, length = relative.groups()
        return now if sign is None else now + (duration(length) if sign == "+" else -duration(length))
    try:
        moment = datetime.fromisoformat(value.strip())
    except ValueError:
        return None
    # Without a zone it is UTC, as everything that dashboards send.
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
