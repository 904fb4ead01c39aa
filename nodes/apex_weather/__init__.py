"""The weather station of the APEX telescope: ``<directory>/targets/<any>_<field>_<start>_<end>….dat``.

``start`` and ``end`` are whole UNIX times between which the file's rows ``unix_time value`` are. Each field has a
timeline of its own.
"""

from __future__ import annotations

import re

from sisockdaq.schema import Field
from sisockdaq.textfiles import Form, Named, TextFilesNode

__all__ = ["FIELDS", "ApexWeather", "file_name"]

FIELDS = {
    "humidity": ("APEX weather station humidity.", "%"),
    "pressure": ("APEX weather station pressure.", "mBar"),
    "radiometer": ("APEX radiometer data.", "mm"),
    "dewpoint": ("APEX weather station dewpoint.", "C"),
    "temperature": ("APEX weather station temperature.", "C"),
    "windspeed": ("APEX weather station windspeed.", "km/h"),
    "winddirection": ("APEX weather station wind direction.", "deg"),
}
"""Description and units by field."""

_NAME = re.compile(r"[^_]*_(?P<field>[^_]+)_(?P<start>\d{1,12})_(?P<end>\d{1,12})(?:_.*)?\.dat", re.ASCII)


def file_name(name: str) -> Named | None:
    """Return the field and the span of a file, None for any other name or field."""
    match = _NAME.fullmatch(name)
    if match is None or match["field"] not in FIELDS:
        return None
    start, end = float(match["start"]), float(match["end"])
    return Named(match["field"], Form(), (start, end)) if start <= end else None


class ApexWeather(TextFilesNode):
    """Weather station information from APEX."""

    subfolder = "targets"

    def named(self, name: str) -> Named | None:
        """See `file_name`."""
        return file_name(name)

    def describe(self, field: str) -> tuple[Field, float | None]:
        """Return the field's entry; its timeline is aperiodic."""
        description, units = FIELDS[field]
        return Field(timeline=field, type="number", units=units, description=description, feed=True), None

    def always(self) -> list[str]:
        """Every field of the station, with or without files."""
        return list(FIELDS)
