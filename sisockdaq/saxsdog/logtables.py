"""What is known beside the pixels: tables of readings, the detector's log of images, the headers of images.

Times are wall-clock seconds: those of a clock on the wall, counted as if it showed UTC. Detectors write image times
that way, without a zone, and what is joined with them must be counted alike. Pure but for `read_image_facts`, which
opens a file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["Logged", "Table", "mac_epoch", "read_image_facts", "read_image_log", "read_table", "wall_seconds"]

Epoch = Literal["Mac", "Unix"]

_MAC_TO_UNIX = 2_082_844_800
"""From 1904-01-01 to 1970-01-01 [s]."""

_DESCRIPTION, _DATE = 270, 306
"""TIFF tags."""

_STAMP = re.compile(r"(\d{4})[:-](\d\d)[:-](\d\d)[T ]+(\d\d):(\d\d):(\d\d(?:\.\d+)?)")
_ASSIGNED = re.compile(r"#?\s*(\w+)\s*[:=]\s*(.+)")
_MEASURED = re.compile(r"#?\s*(\w[\w ]*?)\s+\(?([-+]?\d[\d.]*(?:[eE][-+]?\d+)?)\)?\s+([A-Za-z]+)\b")
_QUANTITY = re.compile(r"([-+]?\d[\d.]*(?:[eE][-+]?\d+)?)\s+([A-Za-z]+)")


@dataclass(frozen=True)
class Table:
    """Readings over time.

    Attributes
    ----------
    times : ndarray, (n,)
        Ascending wall-clock seconds.
    columns : dict of ndarray, (n,)
        Numbers (NaN where there is none) or text.
    """

    times: npt.NDArray[np.float64]
    columns: dict[str, npt.NDArray[Any]] = field(default_factory=dict)

    def shifted(self, seconds: float) -> Table:
        """Return the same readings, later."""
        return Table(self.times + seconds, self.columns)

    def renamed(self, suffix: str) -> Table:
        """Return the same readings under names with a suffix."""
        return Table(self.times, {f"{name} ({suffix})": values for name, values in self.columns.items()})


@dataclass(frozen=True, slots=True)
class Logged:
    """A line of the detector's log of images."""

    measured: float
    """Exposure [s]; NaN where the log does not say."""
    end: float
    """When it ended [wall-clock s]."""


def mac_epoch() -> float:
    """Return what is taken from times since 1904 [s].

    The original counts with the offset of this machine's zone in 1970; sites have tuned their ``TimeOffset`` to that.
    """
    local = datetime.fromtimestamp(0).replace(tzinfo=UTC).timestamp()
    return _MAC_TO_UNIX + local


def wall_seconds(text: str) -> float:
    """Return the wall-clock seconds of ``2014:07:08 12:13:14`` or ``2014-07-08T12:13:14.5``.

    Raises
    ------
    ValueError
        It is no such time.
    """
    found = _STAMP.search(text)
    if found is None:
        raise ValueError(f'"{text.strip()}" is not a date and time')
    year, month, day, hour, minute = map(int, found.groups()[:5])
    return datetime(year, month, day, hour, minute, tzinfo=UTC).timestamp() + float(found[6])


def read_table(text: str, name: str, epoch: Epoch = "Unix") -> Table:
    """Return the readings of a log file: columns divided by tabulators, with a headline, the first column the time.

    Parameters
    ----------
    text, name : str
        The file, and what it is called in errors.
    epoch : {"Mac", "Unix"}
        Whether its times count from 1904 or from 1970.

    Raises
    ------
    ValueError
        Names file, line and reason.
    """
    lines = [(number, line.split("\t")) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise ValueError(f"{name} is empty")
    heads = [head.strip("\r\n\ufeff") for head in lines[0][1]]
    if len(heads) < 2:
        raise ValueError(f"{name}, line {lines[0][0]}: no columns divided by tabulators")
    times = np.array([_time(cells[0], f"{name}, line {number}") for number, cells in lines[1:]], np.float64)
    columns = {}
    for place, head in enumerate(heads[1:], 1):
        columns[head] = _column([cells[place].strip() if place < len(cells) else "" for _, cells in lines[1:]])
    offset = mac_epoch() if epoch == "Mac" else 0.0
    return _in_order(Table(times - offset, columns))


def together(tables: Iterable[Table]) -> Table:
    """Return the readings of several files of one kind as one table."""
    found = list(tables)
    names = dict.fromkeys(name for table in found for name in table.columns)
    columns = {}
    for name in names:
        parts = [table.columns.get(name, np.full(len(table.times), np.nan)) for table in found]
        if any(part.dtype == object for part in parts):
            parts = [part.astype(object) for part in parts]
        columns[name] = np.concatenate(parts)
    return _in_order(Table(np.concatenate([table.times for table in found]), columns))


def read_image_log(text: str) -> dict[str, Logged]:
    """Return what the detector's log says of each image file; lines that say nothing are passed over.

    A line has the exposure that was asked for, the one measured, the end, and the file; or only the last two.
    """
    found = {}
    for line in text.splitlines()[1:]:
        cells = line.split()
        if line.startswith("----") or len(cells) < 2:
            continue
        try:
            measured = float(cells[-3]) if len(cells) > 2 else float("nan")
            found[cells[-1]] = Logged(measured, wall_seconds(cells[-2]))
        except ValueError:
            continue
    return found


def read_image_facts(path: Path) -> dict[str, Any]:
    """Return what the header of a TIFF says: ``Exposure_time [s]``, ``Image_path``, ``date`` (ISO) and so on.

    Raises
    ------
    OSError
        It is no TIFF.
    """
    with Image.open(path) as image:
        tags: Mapping[int, Any] = getattr(image, "tag_v2", {})
        description, date = str(tags.get(_DESCRIPTION, "")), str(tags.get(_DATE, ""))
    facts: dict[str, Any] = {}
    for line in description.splitlines():
        facts.update(_fact(line.strip("\0 \r\n")))
    if date and _STAMP.search(date):
        facts["date"] = _iso(date)
    return facts


def _fact(line: str) -> dict[str, Any]:
    if (stamp := _STAMP.search(line)) and stamp.start() <= 2:
        return {"date": _iso(line)}
    if found := _ASSIGNED.match(line):
        name, value = found.groups()
        if quantity := _QUANTITY.match(value):
            return {f"{name} [{quantity[2]}]": float(quantity[1])}
        return {name: int(value) if re.fullmatch(r"[-+]?\d+", value.strip()) else value.strip()}
    if found := _MEASURED.match(line):
        try:
            return {f"{found[1]} [{found[3]}]": float(found[2])}
        except ValueError:
            return {}
    return {}


def _iso(text: str) -> str:
    found = _STAMP.search(text)
    assert found is not None
    return "{}-{}-{}T{}:{}:{}".format(*found.groups())


def _time(cell: str, where: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        raise ValueError(f'{where}: "{cell.strip()}" is no time in seconds') from None
    if not np.isfinite(value):
        raise ValueError(f"{where}: the time is {cell.strip()}")
    return value


def _column(cells: list[str]) -> npt.NDArray[Any]:
    try:
        return np.array([float(cell) if cell else np.nan for cell in cells], np.float64)
    except ValueError:
        return np.array(cells, object)


def _in_order(table: Table) -> Table:
    if np.all(np.diff(table.times) >= 0):
        return table
    order = np.argsort(table.times, kind="stable")
    return Table(table.times[order], {name: values[order] for name, values in table.columns.items()})
