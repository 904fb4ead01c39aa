"""Precipitable water vapour from the UCSC radiometer: ``<directory>/PWV/PWV_UCSC_<year>-<day>.txt``, one file a day.

In a part of 2018 the files were named the other way round, ``PWV_UCSC_<day>-<year>.txt``. Both are taken whatever the
year: the year has four digits, the day of the year one to three. After one header line come rows
``day_of_year_with_fraction pwv``, where 1.5 is noon of January 1, UTC whatever this machine's time zone. Rows without
a measurement (``NaN``) are left out.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import partial

import numpy as np

from sisockdaq.schema import Field
from sisockdaq.textfiles import Form, Named, TextFilesNode
from sisockdaq.textfiles.rows import Floats

__all__ = ["INTERVAL", "UcscRadiometer", "day_to_unix", "file_name"]

INTERVAL = 60.48
"""Time between measurements [s]: 0.0007 days."""

_DAY = 86400.0
_MARGIN = 2 * INTERVAL
"""The first and the last row of a day may be as far as this outside of it [s]."""

_NAME = re.compile(
    r"PWV_UCSC_(?:(?P<year>\d{4})-(?P<day>\d{1,3})|(?P<day_first>\d{1,3})-(?P<year_last>\d{4}))\.txt", re.ASCII
)


def day_to_unix(day: Floats, year: int) -> Floats:
    """Return UNIX times of days of a year; rounded to a microsecond, which is what a day's fraction can hold.

    Parameters
    ----------
    day : ndarray of float64, (n,)
        1.0 is the beginning of January 1.
    year : int
    """
    begin = datetime(year, 1, 1, tzinfo=UTC).timestamp()
    times: Floats = np.round(begin + (day - 1.0) * _DAY, 6)
    return times


def file_name(name: str) -> Named | None:
    """Return the span of a file, None for any other name or a day that the year does not have."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    year, day = int(match["year"] or match["year_last"]), int(match["day"] or match["day_first"])
    days = 366 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 365
    if year == 0 or not 1 <= day <= days:
        return None
    start = float(day_to_unix(np.array([float(day)]), year)[0])
    form = Form(header_lines=1, skip_nan=True, to_unix=partial(day_to_unix, year=year))
    return Named("pwv", form, (start - _MARGIN, start + _DAY + _MARGIN))


class UcscRadiometer(TextFilesNode):
    """PWV readings from the UCSC radiometer."""

    subfolder = "PWV"

    def named(self, name: str) -> Named | None:
        """See `file_name`."""
        return file_name(name)

    def describe(self, field: str) -> tuple[Field, float | None]:
        """Return the one field's entry."""
        return Field(timeline="pwv", units="mm", description="PWV from UCSC Radiometer", feed=True), INTERVAL

    def always(self) -> list[str]:
        """The one field, with or without files."""
        return ["pwv"]
