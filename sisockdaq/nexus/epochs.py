"""What the epochs of results mean, in a master file: which calibration, mask and settings a number stands for. Pure.

A source of results tells the epochs it works by in its description, ``meta["epochs"]``: a list of ``{"number", "since",
"poni", "mask", "masked", "held", "settings", "geometry"}`` (`sisockdaq.integrate.epochs.Epoch.about`), the newest last.
The number of each frame is among its results. In the master::

    /entry/epochs/json                       everything, as it was told
    /entry/epochs/<source>/epoch_000001      number, since [s], poni (text), mask (digest), settings (JSON)

Promise: of an acquisition all epochs are told that began in it, and the one in which it began. A master that holds the
images itself has its structure from its first image on: it has ``json`` only, of the size that it was given.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from sisockdaq.frames.messages import Description
from sisockdaq.nexus.results import ResultsPlan
from sisockdaq.nexus.tree import Dataset, Group

__all__ = ["EPOCHS_PATH", "EPOCH_FIELD", "Epochs", "epochs_group", "epochs_of", "has_epochs", "joined"]

EPOCHS_PATH = "/entry/epochs"

EPOCH_FIELD = "epoch"
"""The result that has a frame's number."""

_ROOM = 64 * 1024
"""Bytes that a master of a fixed structure keeps for them."""

_TEXTS = ("poni", "mask", "held")

Epochs = Mapping[str, Sequence[Mapping[str, Any]]]
"""By source, in their order."""


def epochs_of(descriptions: Iterable[Description]) -> dict[str, list[Mapping[str, Any]]]:
    """Return what sources of results tell of their epochs."""
    found = {each.source: _readable(each.meta.get("epochs")) for each in descriptions}
    return {source: epochs for source, epochs in found.items() if epochs}


def has_epochs(plans: Iterable[ResultsPlan]) -> bool:
    """Tell whether any of the results says of each frame which epoch it is of."""
    return any(field.name == EPOCH_FIELD for plan in plans for field in plan.fields)


def joined(known: Epochs, told: Epochs, started: float) -> dict[str, list[Mapping[str, Any]]]:
    """Return the epochs of an acquisition that began at a UNIX time: those known, and those told that belong to it."""
    found = {source: {int(each["number"]): each for each in epochs} for source, epochs in known.items()}
    for source, epochs in told.items():
        before = [each for each in epochs if float(each["since"]) <= started][-1:]
        of_it = [*before, *(each for each in epochs if float(each["since"]) > started)]
        found.setdefault(source, {}).update({int(each["number"]): each for each in of_it})
    return {source: [numbers[number] for number in sorted(numbers)] for source, numbers in found.items()}


def epochs_group(epochs: Epochs, *, fixed: bool) -> Group:
    """Return the group of a master; `fixed` for one whose structure cannot grow."""
    text = json.dumps({source: list(each) for source, each in epochs.items()})
    if not fixed:
        return Group("NXcollection", {"json": Dataset(text), **{name: _source(each) for name, each in epochs.items()}})
    if len(text.encode()) > _ROOM:
        text = json.dumps({"too_large_for_this_file": len(text)})
    return Group("NXcollection", {"json": Dataset(text, room=_ROOM)})


def _source(epochs: Sequence[Mapping[str, Any]]) -> Group:
    return Group("NXcollection", {f"epoch_{int(each['number']):06d}": _epoch(each) for each in epochs})


def _epoch(about: Mapping[str, Any]) -> Group:
    texts = {name: Dataset(str(about[name])) for name in _TEXTS if about.get(name)}
    items = {
        "number": Dataset(np.int64(about["number"])),
        "since": Dataset(float(about["since"]), {"units": "s", "start": "1970-01-01T00:00:00Z"}),
        **texts,
        "settings": Dataset(json.dumps(about.get("settings", {}))),
    }
    if about.get("masked") is not None:
        items["masked"] = Dataset(np.int64(about["masked"]), {"description": "Pixels that are left out."})
    return Group("NXcollection", {**items})


def _readable(told: Any) -> list[Mapping[str, Any]]:
    """Return what is told, without what has no number or time: another program's word is not ours."""
    found = []
    for each in told if isinstance(told, list) else ():
        try:
            if math.isfinite(float(each["since"])) and int(each["number"]) > 0:
                found.append(dict(each))
        except (KeyError, TypeError, ValueError):
            continue
    return sorted(found, key=lambda each: int(each["number"]))
