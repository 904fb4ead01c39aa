"""The rule about epochs: whatever calibration a curve in a file was made with, the file says it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

import h5py
import numpy as np

from sisockdaq.nexus._strings import as_text
from sisockdaq.nexus.check._rules import Problem, Rule
from sisockdaq.nexus.check._view import View, child
from sisockdaq.nexus.epochs import EPOCH_FIELD, EPOCHS_PATH
from sisockdaq.nexus.layout import SERIES_PATH

__all__ = ["EPOCH_RULES", "used_epochs"]


def used_epochs(view: View) -> dict[str, list[int]]:
    """Return the epochs that the frames of each source of results are of."""
    found: dict[str, set[int]] = {}
    for source, dataset in _numbers(view):
        values = dataset[()]
        found.setdefault(source, set()).update(int(value) for value in np.unique(values[np.isfinite(values)]))
    return {source: sorted(numbers) for source, numbers in found.items()}


def _numbers(view: View) -> Iterator[tuple[str, h5py.Dataset]]:
    """Give out the numbers of epochs, file by file."""
    series = child(view.hdf5, SERIES_PATH)
    for name in series if isinstance(series, h5py.Group) else ():
        group = child(series, name)
        if not isinstance(group, h5py.Group):
            continue
        direct = child(group, EPOCH_FIELD)
        in_files = [(each, child(group, f"{each}/{EPOCH_FIELD}")) for each in group]
        for source, dataset in in_files if direct is None else [(name, direct)]:
            if isinstance(dataset, h5py.Dataset) and dataset.ndim == 1 and dataset.dtype.kind in "iuf":
                yield source, dataset


def _told(view: View) -> dict[str, set[int]] | None:
    """Return the epochs that the file explains, by source; None where what it says is no list of them."""
    found = child(view.hdf5, f"{EPOCHS_PATH}/json")
    text = as_text(found) if isinstance(found, h5py.Dataset) else ""
    try:
        told = json.loads(text) if text else {}
        return {source: {int(each["number"]) for each in epochs if each.get("poni")} for source, epochs in told.items()}
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _explained(view: View) -> Iterable[Problem]:
    told = _told(view)
    if told is None:
        yield f"{EPOCHS_PATH}/json", "is no list of epochs"
        return
    for source, used in used_epochs(view).items():
        missing = [number for number in used if number not in told.get(source, set())]
        if missing:
            numbers = ", ".join(map(str, missing))
            yield f"{EPOCHS_PATH}/{source}", f"does not say by which geometry frames of epoch {numbers} were integrated"


EPOCH_RULES = (Rule("epochs", {"NXmx": "recommended"}, _explained),)
