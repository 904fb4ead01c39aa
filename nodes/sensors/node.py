"""Sensors of the machine as a node: temperatures, fans, load, memory, disks, network, battery.

All fields are on the timeline ``sensors``, read together. A sensor that appears later becomes a field; one that fails,
or is gone, leaves its field without new samples. Failures are counted in ``sensor_failures``, names beyond the largest
number of fields in ``sensors_refused``. A disk that does not answer keeps nothing else waiting: it is asked in a thread
of its own, and counts as a failure while its last answer is older than `PATIENCE`.
"""

from __future__ import annotations

import math
import time
from functools import partial

from pydantic import Field
from sisockdaq.nodes.sensors.readings import Group, Reading, Readings, groups
from twisted.logger import Logger

from sisockdaq.base import DataNodeServer

__all__ = ["MAX_FIELDS", "PATIENCE", "Sensors"]

MAX_FIELDS = 1000
"""Most fields: names of interfaces and mounted disks may change for as long as the machine runs."""

PATIENCE = 10.0
"""Age of an answer, in addition to two intervals, from which on a disk is said not to answer [s]."""

_TIMELINE = "sensors"


class Sensors(DataNodeServer):
    """Temperatures, fans, load, memory, disks and network of the machine that the node runs on."""

    class Options(DataNodeServer.Options):
        """How often, and how much is kept."""

        interval: float = Field(2.5, ge=0.1, le=86400, description="Time between two readings [s].")
        keep_samples: int = Field(1800, ge=1, le=1_000_000, description="Samples of each field that are kept.")

    options: Options

    def setup(self) -> None:
        """Begin to read."""
        self._log = Logger(f"sisockdaq.{self.name}")
        self._groups = groups()
        self._answers: dict[str, tuple[float, Readings | Exception]] = {}
        self._known: dict[str, str] = {}
        self._refused: set[str] = set()
        self._failing: dict[str, str] = {}
        self._failures = 0
        self._declare("sensor_failures", Reading(0, None, "Groups of sensors that could not be read, so far."))
        self._declare("sensors_refused", Reading(0, None, f"Sensors left out, as there are {MAX_FIELDS} already."))
        for group in self._groups:
            if group.may_hang:
                self._answers[group.name] = (time.monotonic(), {})
                self.every(self.options.interval, partial(self._ask, group), in_thread=True)
        self.every(self.options.interval, self.read, in_thread=True)

    def read(self) -> None:
        """Read all sensors, and append one sample of each; in a thread."""
        now = time.time()
        found: dict[str, Reading] = {}
        for group in self._groups:
            answer = self._answered(group) if group.may_hang else _read(group)
            if isinstance(answer, Exception):
                self._failed(group.name, f"{type(answer).__name__}: {answer}")
            else:
                self._failing.pop(group.name, None)
                found.update(answer)
        row = {name: reading.value for name, reading in found.items() if self._declare(name, reading)}
        row |= {"sensor_failures": self._failures, "sensors_refused": len(self._refused)}
        self.store.timelines[_TIMELINE].append(now, row)

    def _ask(self, group: Group) -> None:
        answer = _read(group)
        self._answers[group.name] = (time.monotonic(), answer)

    def _answered(self, group: Group) -> Readings | Exception:
        """Return the last answer of a group that is asked in a thread of its own."""
        when, answer = self._answers[group.name]
        late = time.monotonic() - when > PATIENCE + 2 * self.options.interval
        return TimeoutError("no answer yet") if late else answer

    def _failed(self, group: str, reason: str) -> None:
        """Count a failure; log it when it is another one than the last time."""
        self._failures += 1
        if self._failing.get(group) != reason:
            self._log.warn("{group} cannot be read: {reason}", group=group, reason=reason)
        self._failing[group] = reason

    def _declare(self, name: str, reading: Reading) -> bool:
        """Make a field at its first value; say whether it takes this one."""
        if name in self._known:
            return self._known[name] == reading.type
        if len(self._known) >= MAX_FIELDS:
            if name not in self._refused and len(self._refused) < MAX_FIELDS:
                self._refused.add(name)
                self._log.warn("{name} is left out: there are {most} sensors already", name=name, most=MAX_FIELDS)
            return False
        self.series(
            name,
            units=reading.units,
            description=reading.description,
            timeline=_TIMELINE,
            type=reading.type,
            keep=math.inf,
            max_samples=self.options.keep_samples,
        )
        self._known[name] = reading.type
        return True


def _read(group: Group) -> Readings | Exception:
    try:
        return group.read()
    except Exception as error:  # The edge to the system: a driver may fail in any way, the other sensors stay.
        return error
