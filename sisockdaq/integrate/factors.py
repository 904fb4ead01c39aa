"""What a frame is divided by beside its pixels' weights: monitor and transmission, of the frame's time. Pure.

A factor is a number for all frames, or the series of another node: then each frame gets the sample of its own time.
`FrameFactors` is filled by who hears of samples, in one thread, and asked by who has frames, in another.

Policy
------
- A frame waits (`FrameFactors.settled`) until every series has come to the frame's time, but no longer than the setting
  ``wait`` says; then it gets what is there.
- What is missing is NaN. Nobody here takes 1 for it.
- Each series keeps `MOST_SAMPLES`; the oldest leave.
"""

from __future__ import annotations

import bisect
import math
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sisockdaq.integrate.settings import FACTORS, FactorSettings, IntegrationSettings

__all__ = ["MOST_SAMPLES", "FrameFactors", "SampleSeries", "is_usable"]

MOST_SAMPLES = 100_000
"""Samples of a series that are kept: a minute and a half of one at 1 kHz, 1.6 MB."""


def is_usable(value: float) -> bool:
    """Tell whether a frame can be divided by a number: it is finite and above 0."""
    return 0 < value < math.inf


@dataclass(slots=True)
class SampleSeries:
    """Samples in the order of their times; any thread may add or ask."""

    most: int = MOST_SAMPLES
    _t: list[float] = field(default_factory=list)
    _values: list[float] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def newest(self) -> float:
        """Time of the newest sample; -inf where there is none."""
        with self._lock:
            return self._t[-1] if self._t else -math.inf

    def add(self, t: Iterable[float], values: Iterable[float]) -> None:
        """Add samples; one of a time that is there already takes its place."""
        with self._lock:
            for time, value in zip(t, values, strict=True):
                self._put(float(time), float(value))
            surplus = len(self._t) - self.most
            if surplus > 0:
                del self._t[:surplus], self._values[:surplus]

    def _put(self, time: float, value: float) -> None:
        if math.isnan(time):
            return
        if not self._t or time > self._t[-1]:
            self._t.append(time)
            self._values.append(value)
            return
        at = bisect.bisect_left(self._t, time)
        if self._t[at] == time:
            self._values[at] = value
        else:
            self._t.insert(at, time)
            self._values.insert(at, value)

    def at(self, time: float, wanted: FactorSettings) -> float:
        """Return the value for a time, as the settings match it; NaN where there is none.

        A value between two samples (``linear``) is only taken where both are near enough, and NaN where one of them is.
        """
        with self._lock:
            after = bisect.bisect_right(self._t, time)
            before = after - 1
            known = [at for at in (before, after) if 0 <= at < len(self._t) and self._near(at, time, wanted)]
            if wanted.match == "last" or (before in known and self._t[before] == time):
                return self._values[before] if before in known else math.nan
            if wanted.match == "linear":
                return self._between(before, time) if len(known) == 2 else math.nan
            if not known:
                return math.nan
            return self._values[min(known, key=lambda at: abs(self._t[at] - time))]

    def _near(self, at: int, time: float, wanted: FactorSettings) -> bool:
        return wanted.max_age is None or abs(self._t[at] - time) <= wanted.max_age

    def _between(self, at: int, time: float) -> float:
        (t0, t1), (v0, v1) = self._t[at : at + 2], self._values[at : at + 2]
        return v0 + (v1 - v0) * (time - t0) / (t1 - t0)


class FrameFactors:
    """The factors that settings ask for, frame by frame.

    Parameters
    ----------
    settings : IntegrationSettings

    Attributes
    ----------
    series : dict of str to SampleSeries
        By the names of the fields that are wanted (``node::field``); to be filled.
    wait : float
        How long a frame waits at most [s]; 0 where all factors are numbers.
    """

    def __init__(self, settings: IntegrationSettings, known: Mapping[str, SampleSeries] | None = None) -> None:
        given = {name: getattr(settings, name) for name in FACTORS}
        self._wanted: dict[str, float | FactorSettings] = {k: v for k, v in given.items() if v is not None}
        live = [value for value in self._wanted.values() if isinstance(value, FactorSettings)]
        self.series = {each.field: (known or {}).get(each.field) or SampleSeries() for each in live}
        self.wait = max((each.wait for each in live), default=0.0)

    def settled(self, time: float, waited: float) -> bool:
        """Tell whether more waiting can bring nothing new for a frame of that time, after so many seconds."""
        return all(
            waited >= each.wait or self.series[each.field].newest >= time
            for each in self._wanted.values()
            if isinstance(each, FactorSettings)
        )

    def of(self, time: float) -> dict[str, float]:
        """Return the factors of a frame of that time; NaN for what is missing."""
        return {
            name: self.series[each.field].at(time, each) if isinstance(each, FactorSettings) else each
            for name, each in self._wanted.items()
        }

    def why(self, factors: Mapping[str, float]) -> str:
        """Say what is wrong with a frame's factors; "" where nothing is."""
        return "; ".join(self._why(name, value) for name, value in factors.items() if not is_usable(value))

    def _why(self, name: str, value: float) -> str:
        wanted = self._wanted[name]
        if not isinstance(wanted, FactorSettings):
            return f"the {name} is {value:g}, not above 0"
        if not math.isnan(value):
            return f"the {name} {wanted.field} is {value:g}, not above 0"
        if self.series[wanted.field].newest == -math.inf:
            return f"nothing has come of the {name} {wanted.field}"
        near = "" if wanted.max_age is None else f" within {wanted.max_age:g} s of the frame"
        return f"the {name} {wanted.field} has no sample{near}"
