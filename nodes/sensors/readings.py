"""What psutil knows of this machine, as named readings.

A `Group` is read as one; what it cannot read raises, and the caller goes on with the other groups. Names are made of
letters, digits and ``_`` only, and stay the same as long as the machine keeps its parts. What a machine does not have
(temperatures in most containers, a battery in a rack) is simply not there.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

__all__ = ["Group", "Reading", "Readings", "groups"]

_NOT_IN_NAME = re.compile(r"[^A-Za-z0-9]+")

_VIRTUAL_INTERFACES = ("lo", "veth", "ifb", "dummy")
"""Beginnings of interfaces' names that are left out: they come and go with containers, or lead nowhere."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One value, and what it is."""

    value: float | bool
    units: str | None
    description: str
    type: Literal["number", "bool"] = "number"


Readings = dict[str, Reading]


@dataclass(frozen=True, slots=True)
class Group:
    """Readings that come from one question to the system; ``may_hang``: the answer may take for ever."""

    name: str
    read: Callable[[], Readings]
    may_hang: bool = False


def groups() -> list[Group]:
    """Return all groups; rates are those since the group was read last, so a first reading has none."""
    return [
        Group("temperatures", _temperatures),
        Group("fans", _fans),
        Group("cpu", _cpu),
        Group("load_average", _load_average),
        Group("memory", _memory),
        Group("swap", _swap),
        Group("disk_usage", _disk_usage, may_hang=True),
        Group("disk_io", _Rates(_disk_counters).read),
        Group("network_io", _Rates(_network_counters).read),
        Group("battery", _battery),
    ]


def _temperatures() -> Readings:
    return dict(
        _labelled("temperature", _offered("sensors_temperatures"), "degC", "Temperature of {chip}, sensor {label}.")
    )


def _fans() -> Readings:
    return dict(_labelled("fan", _offered("sensors_fans"), "rpm", "Speed of {chip}, fan {label}."))


def _offered(function: str) -> Any:
    """Call a function of psutil that not every system has; an empty dictionary where it has not."""
    return getattr(psutil, function, dict)() or {}


def _labelled(kind: str, chips: Mapping[str, Any], units: str, description: str) -> Iterator[tuple[str, Reading]]:
    """Name each sensor by its chip and its label, or its number where it has none or shares it with another."""
    names: set[str] = set()
    for chip, sensors in chips.items():
        for number, sensor in enumerate(sensors, 1):
            label = sensor.label or str(number)
            name = _name(kind, chip, label)
            if name in names:
                name = _name(kind, chip, label, str(number))
            names.add(name)
            if sensor.current is not None:
                yield name, Reading(float(sensor.current), units, description.format(chip=chip, label=label))


def _cpu() -> Readings:
    cores = psutil.cpu_percent(percpu=True)
    found = {
        f"cpu_{core}_load": Reading(load, "%", f"Share of time that core {core} was busy.")
        for core, load in enumerate(cores)
    }
    total = sum(cores) / len(cores)
    return {"cpu_load": Reading(total, "%", "Share of time that the cores were busy, on average."), **found}


def _load_average() -> Readings:
    averages = zip((1, 5, 15), psutil.getloadavg(), strict=True)
    return {
        f"load_average_{minutes}": Reading(value, None, f"Processes that run or wait to run, mean over {minutes} min.")
        for minutes, value in averages
    }


def _memory() -> Readings:
    memory = psutil.virtual_memory()
    return {
        "memory_total": Reading(memory.total, "B", "Memory of the machine."),
        "memory_available": Reading(memory.available, "B", "Memory that programs can still have."),
        "memory_use": Reading(memory.percent, "%", "Share of the memory that is not available."),
    }


def _swap() -> Readings:
    swap = psutil.swap_memory()
    return {
        "swap_used": Reading(swap.used, "B", "Swap space in use."),
        "swap_use": Reading(swap.percent, "%", "Share of the swap space in use."),
    }


def _disk_usage() -> Readings:
    """Read the disks of this machine; a broken one may never answer, as may file systems of the network (left out)."""
    found: Readings = {}
    places = {part.device: part.mountpoint for part in reversed(psutil.disk_partitions(all=False))}
    for place in sorted({"/", *(place for place in places.values() if Path(place).is_dir())}):
        name = _name("disk", "root" if place == "/" else place)
        usage = psutil.disk_usage(place)
        found[f"{name}_use"] = Reading(usage.percent, "%", f"Share of the disk at {place} in use.")
        found[f"{name}_free"] = Reading(usage.free, "B", f"Free room on the disk at {place}.")
    return found


def _disk_counters() -> dict[str, tuple[int, str]]:
    counters = psutil.disk_io_counters()
    if counters is None:
        return {}
    return {
        "disk_read_rate": (counters.read_bytes, "Bytes read from all disks per second."),
        "disk_write_rate": (counters.write_bytes, "Bytes written to all disks per second."),
    }


def _network_counters() -> dict[str, tuple[int, str]]:
    found: dict[str, tuple[int, str]] = {}
    for interface, counters in sorted(psutil.net_io_counters(pernic=True).items()):
        if not interface.startswith(_VIRTUAL_INTERFACES):
            name = _name("network", interface)
            found[f"{name}_receive_rate"] = (counters.bytes_recv, f"Bytes received by {interface} per second.")
            found[f"{name}_send_rate"] = (counters.bytes_sent, f"Bytes sent by {interface} per second.")
    return found


def _battery() -> Readings:
    battery = _offered("sensors_battery")
    if not battery:
        return {}
    found = {"battery_charge": Reading(battery.percent, "%", "Charge of the battery.")}
    if battery.power_plugged is not None:
        plugged = bool(battery.power_plugged)
        found["battery_power_plugged"] = Reading(plugged, None, "Whether the mains are connected.", "bool")
    if battery.secsleft >= 0:  # below are psutil's marks for "unknown" and "charging"
        found["battery_time_left"] = Reading(battery.secsleft, "s", "Time until the battery is empty.")
    return found


class _Rates:
    """Counters that grow, as rates between one reading and the next."""

    def __init__(self, counters: Callable[[], dict[str, tuple[int, str]]]) -> None:
        self._counters = counters
        self._before: dict[str, tuple[int, str]] = {}
        self._read_at = 0.0

    def read(self) -> Readings:
        """Return the rates since the last call [B/s]; a counter that is new or began anew has none."""
        now, counters = time.monotonic(), self._counters()
        elapsed = now - self._read_at
        found = {
            name: Reading((count - self._before[name][0]) / elapsed, "B/s", description)
            for name, (count, description) in counters.items()
            if elapsed > 0 and name in self._before and count >= self._before[name][0]
        }
        self._before, self._read_at = counters, now
        return found


def _name(*parts: str) -> str:
    return "_".join(_NOT_IN_NAME.sub("_", part).strip("_").lower() or "x" for part in parts)
