"""Acquisitions as annotations: when each ran, how many frames, what was lost. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["MOST", "acquisition_notes"]

MOST = 500
"""Annotations of one reply; the newest are kept."""


def acquisition_notes(
    entries: Iterable[Mapping[str, Any]], start: float, end: float, query: str = "", echo: Any = None
) -> list[dict[str, Any]]:
    """Return the acquisitions that overlap ``[start, end)`` (UNIX times [s]) and whose name holds the query.

    Parameters
    ----------
    entries : iterable of mapping
        What the archives hold, as `Client.acquisitions` gives it.
    query : str
        Part of a name; empty: all.
    echo : object, optional
        The request's ``annotation``, which older plugins want back in each.
    """
    found = []
    for entry in entries:
        span = entry.get("span")
        name = str(entry.get("acquisition") or entry.get("name") or "")
        if not span or query.lower() not in name.lower():
            continue
        first, last = float(span[0]), float(span[-1])
        if first < end and last >= start:
            found.append(_annotation(entry, name, first, last, echo))
    return found[-MOST:]


def _annotation(entry: Mapping[str, Any], name: str, first: float, last: float, echo: Any) -> dict[str, Any]:
    frames, lost = entry.get("frames"), _packets_lost(entry.get("ledger"))
    words = [f"{frames} frames" if frames is not None else "", _lost(lost), str(entry.get("state") or "")]
    tags = ["acquisition", *(["lost packets"] if lost else [])]
    begun, ended = round(first * 1e3), round(last * 1e3)
    annotation = {
        "time": begun,
        "timeEnd": ended,
        "isRegion": ended > begun,
        "title": name,
        "text": f"{name}: {', '.join(word for word in words if word)}",
        "tags": tags,
    }
    return annotation if echo is None else {"annotation": echo, **annotation}


def _packets_lost(ledger: Any) -> int | None:
    lost = ledger.get("packets_lost") if isinstance(ledger, Mapping) else None
    return int(lost) if isinstance(lost, int) else None


def _lost(lost: int | None) -> str:
    if lost is None:
        return ""
    return f"{lost} packets lost" if lost else "no packet lost"
