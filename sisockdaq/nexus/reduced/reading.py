"""Read files of integrated frames: axes, curves, errors, epochs; ours, and those that others wrote by the definitions.

A file may be read while it grows; what was committed when it was opened is there. Frames are the rows that all columns
have, so a file whose writer was killed within a commit is read like any other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401 - registers the filters with HDF5
import numpy as np
import numpy.typing as npt

from sisockdaq.errors import ConfigurationError, FileUnreadable
from sisockdaq.nexus._opening import open_hdf5, patiently, reading
from sisockdaq.nexus._strings import as_text
from sisockdaq.nexus.reader import FileState, file_state
from sisockdaq.nexus.reduced.content import Axis, Floats

__all__ = ["DEFINITIONS", "ReducedFile", "ReducedProduct", "read_epochs", "read_reduced"]

DEFINITIONS = ("NXazint1d", "NXazint2d", "NXcanSAS")
"""Application definitions of integrated frames."""


_MONITOR = "/monitor"
"""No name of a dataset."""


@dataclass(frozen=True)
class ReducedProduct:
    """Curves or cakes of all frames that were read.

    Attributes
    ----------
    name, definition : str
    radial : Axis
    azimuth : Axis or None
        Of cakes.
    intensity : ndarray, (frames, *bins)
    sigma : ndarray, (frames, *bins), or None
    norm : ndarray, (*bins), or None
    """

    name: str
    definition: str
    radial: Axis
    azimuth: Axis | None
    intensity: npt.NDArray[Any]
    sigma: npt.NDArray[Any] | None = None
    norm: Floats | None = None


@dataclass(frozen=True)
class ReducedFile:
    """What a file holds.

    Attributes
    ----------
    path : Path
    state : str
        ``finished``, ``growing``, or ``left`` by a writer that died; others' files are finished.
    acquisition : str
    epoch : int or None
        Of the file's calibration; None in others' files.
    time : ndarray of float64, (frames,)
        UNIX times [s]; NaN where the file has none.
    index, epochs : ndarray of int64, (frames,)
    monitor : ndarray of float64, (frames,), or None
    numbers : dict of name → ndarray, (frames,)
    products : dict of name → ReducedProduct
    parameters : dict
        All of ``reduction/input`` (of a NXcanSAS file: the terms of its process).
    process : dict of str
        Program, version, date, reference, note.
    names : dict of str
        What the file says of them: title, instrument, laboratory, source_type, probe, sample.
    """

    path: Path
    state: FileState
    acquisition: str
    epoch: int | None
    time: Floats
    index: npt.NDArray[np.int64]
    epochs: npt.NDArray[np.int64]
    monitor: Floats | None
    numbers: dict[str, Floats]
    products: dict[str, ReducedProduct]
    parameters: dict[str, Any] = field(default_factory=dict)
    process: dict[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    @property
    def product(self) -> ReducedProduct:
        """The first one."""
        return next(iter(self.products.values()))

    def __len__(self) -> int:
        return len(self.time)


def read_reduced(path: Path | str, frames: slice = slice(None)) -> ReducedFile:
    """Read a file of integrated frames, which may still be written.

    Parameters
    ----------
    path : Path or str
    frames : slice, optional
        Which of its frames.

    Raises
    ------
    FileUnreadable
        When it is missing, broken, or has no NXazint1d, NXazint2d or NXcanSAS.
    """
    path = Path(path)
    return patiently(path, lambda: _read(path, frames))


def _read(path: Path, frames: slice) -> ReducedFile:
    with reading(path), open_hdf5(path) as hdf5:
        entry = _entry(hdf5)
        methods = [] if entry is None else list(_methods(entry))
        if entry is None or not methods:
            raise FileUnreadable(f"{path} has none of {', '.join(DEFINITIONS)}")
        try:
            separate = methods[0][1] == "NXcanSAS" and methods[0][2]["I"].ndim == 1
            reader = (_SeparateReader if separate else _Reader)(entry, methods, frames)
            content = reader.read()
        except (
            AttributeError,
            IndexError,
            ConfigurationError,
        ) as error:  # a group where a dataset should be, a number for an array
            reason = f"{path} is not laid out as {methods[0][1]} says: {error}"
            raise FileUnreadable(reason, remedy="sisockdaq check names what is wrong") from error
        return ReducedFile(path, file_state(path, finished=bool(entry.attrs.get("finished", 1))), *content)


def read_epochs(paths: Iterable[Path | str]) -> list[ReducedFile]:
    """Read the files of an acquisition, in the order of their epochs (files without one first)."""
    files = [read_reduced(path) for path in paths]
    return sorted(files, key=lambda each: (each.epoch is not None, each.epoch or 0))


def _entry(hdf5: h5py.File) -> h5py.Group | None:
    named = as_text(hdf5.attrs["default"]) if "default" in hdf5.attrs else "entry"
    for name in (named, *hdf5):
        found = hdf5.get(name)
        if isinstance(found, h5py.Group) and _class(found) in ("NXentry", ""):
            return found
    return None


def _class(group: h5py.Group) -> str:
    return as_text(group.attrs["NX_class"]) if "NX_class" in group.attrs else ""


def _children(group: h5py.Group, nx_class: str) -> Iterator[tuple[str, h5py.Group]]:
    for name in group:
        found = group.get(name)
        if isinstance(found, h5py.Group) and _class(found) == nx_class:
            yield name, found


def _only(group: h5py.Group, nx_class: str) -> h5py.Group | None:
    """Return the first child of a class."""
    return next((each for _, each in _children(group, nx_class)), None)


def _methods(entry: h5py.Group) -> Iterator[tuple[str, str, h5py.Group]]:
    """Yield name, definition and NXdata of each product, the one shown by default first."""
    default = entry.get("data")
    groups = [("", entry), *_children(entry, "NXsubentry")]
    found = []
    for name, group in groups:
        definition = as_text(group["definition"]) if "definition" in group else ""
        if definition in DEFINITIONS:
            for place, data in _children(group, "NXdata"):
                if "signal" in data.attrs and as_text(data.attrs["signal"]) == "I" and "I" in data:
                    title = as_text(data["title"]) if "title" in data else ""
                    found.append((name or title or place, definition, data))
    yield from sorted(found, key=lambda each: each[2] != default)


_Methods = list[tuple[str, str, h5py.Group]]


class _Reader:
    """Reads one entry, the frames of which are rows of its datasets."""

    def __init__(self, entry: h5py.Group, methods: _Methods, frames: slice) -> None:
        self._entry, self._methods, self._frames = entry, methods, frames
        self._own = entry.get("frames")
        if not isinstance(self._own, h5py.Group):
            self._own = methods[0][2] if methods[0][1] == "NXcanSAS" else None
        self._rows = self._count()

    def _count(self) -> int:
        """Return how many rows all columns have."""
        lengths = [data[name].shape[0] for _, _, data in self._methods for name in ("I", "I_errors") if name in data]
        frames = self._entry.get("frames")
        columns = list(frames.values()) if isinstance(frames, h5py.Group) else []
        if self._own is not None and not columns:
            columns = [self._own[name] for name in ("time", "epoch", "frame") if name in self._own]
        columns += [monitor["data"] for _, monitor in _children(self._entry, "NXmonitor") if "data" in monitor]
        lengths += [each.shape[0] for each in columns if isinstance(each, h5py.Dataset) and each.ndim]
        return int(min(lengths))

    def _column(self, dataset: h5py.Dataset) -> npt.NDArray[Any]:
        wanted = range(self._rows)[self._frames]
        if wanted.step == 1:  # only what is wanted is read
            values: npt.NDArray[Any] = dataset[wanted.start : max(wanted.stop, wanted.start)]
            return values
        return dataset[: self._rows][self._frames]  # type: ignore[no-any-return]

    def read(self) -> tuple[Any, ...]:
        """Return what `ReducedFile` has, from its third attribute on."""
        epoch = int(self._entry.attrs["epoch"]) if "epoch" in self._entry.attrs else None
        products, own = self._products(), self._numbers()
        count = len(next(iter(products.values())).intensity)
        index = own.pop("index", own.pop("frame", np.arange(self._rows)[self._frames]))
        time = own.pop("time", np.full(count, np.nan))
        epochs = own.pop("epoch", np.full(count, 0 if epoch is None else epoch))
        return (
            as_text(self._entry.attrs["acquisition"]) if "acquisition" in self._entry.attrs else "",
            epoch,
            time,
            index.astype(np.int64),
            epochs.astype(np.int64),
            own.pop(_MONITOR, None),
            own if self._own is not None and self._own == self._entry.get("frames") else {},
            products,
            *self._process(),
            self._names(),
        )

    def _names(self) -> dict[str, str]:
        instrument = _only(self._entry, "NXinstrument")
        source = None if instrument is None else _only(instrument, "NXsource")
        places = {
            "title": (self._entry, "title"),
            "instrument": (instrument, "name"),
            "sample": (_only(self._entry, "NXsample"), "name"),
            "laboratory": (source, "name"),
            "source_type": (source, "type"),
            "probe": (source, "probe"),
        }
        return {key: as_text(group[name]) for key, (group, name) in places.items() if group and name in group}

    def _numbers(self) -> dict[str, npt.NDArray[Any]]:
        """Return what there is of each frame beside its intensities."""
        found: dict[str, npt.NDArray[Any]] = {}
        if self._own is not None:
            items = [(name, self._own[name]) for name in self._own]
            found = {name: self._column(item) for name, item in items if self._is_column(item)}
        for _, monitor in _children(self._entry, "NXmonitor"):
            if "data" in monitor:
                found[_MONITOR] = self._column(monitor["data"])
        return found

    def _is_column(self, item: h5py.HLObject) -> bool:
        return isinstance(item, h5py.Dataset) and item.ndim == 1 and item.shape[0] >= self._rows

    def _products(self) -> dict[str, ReducedProduct]:
        found = {}
        for name, definition, data in self._methods:
            errors = next((data[key] for key in ("I_errors", "Idev") if key in data), None)
            sigma = None if errors is None else self._column(errors)
            found[name] = _product(name, definition, data, self._column(data["I"]), sigma)
        return found

    def _process(self) -> tuple[dict[str, Any], dict[str, str]]:
        home = self._methods[0][2].parent
        for _, group in _children(home, "NXprocess"):
            texts = {name: as_text(item) for name, item in group.items() if isinstance(item, h5py.Dataset)}
            given = next((inner for _, inner in _children(group, "NXparameters")), None)
            if given is None:
                terms = [name for name in texts if name.startswith("term")]
                return dict(texts.pop(name).partition(": ")[::2] for name in terms), texts
            return {name: _value(item) for name, item in given.items() if isinstance(item, h5py.Dataset)}, texts
        return {}, {}


class _SeparateReader(_Reader):
    """Reads an entry with a SASdata for each frame: those of one title and along one Q are one product."""

    def _count(self) -> int:
        return max(len(groups) for groups in self._groups().values())

    def _groups(self) -> dict[str, list[h5py.Group]]:
        found: dict[str, list[h5py.Group]] = {}
        for name, _, data in sorted(self._methods, key=lambda each: str(each[2].name)):
            same = found.setdefault(name, [])
            if same and not np.array_equal(same[0]["Q"][()], data["Q"][()]):
                same = found.setdefault(str(data.name).rpartition("/")[2], [])
            same.append(data)
        return found

    def _numbers(self) -> dict[str, npt.NDArray[Any]]:
        first = next(iter(self._groups().values()))
        return {"time": np.array([_timestamp(data) for data in first])[self._frames]}

    def _products(self) -> dict[str, ReducedProduct]:
        found = {}
        for name, groups in self._groups().items():
            curves = np.stack([data["I"][()] for data in groups])[self._frames]
            errors = [data[key][()] for data in groups for key in ("Idev",) if key in data]
            sigma = np.stack(errors)[self._frames] if len(errors) == len(groups) else None
            found[name] = _product(name, "NXcanSAS", groups[0], curves, sigma)
        return found


def _product(
    name: str, definition: str, data: h5py.Group, intensity: npt.NDArray[Any], sigma: npt.NDArray[Any] | None
) -> ReducedProduct:
    radial = _axis(data, "Q" if definition == "NXcanSAS" else "radial_axis")
    azimuth = _axis(data, "azimuthal_axis") if "azimuthal_axis" in data else None
    norm = data["norm"][()] if "norm" in data else None
    return ReducedProduct(name, definition, radial, azimuth, intensity, sigma, norm)


def _timestamp(data: h5py.Group) -> float:
    """Return when a SASdata was taken; NaN where it does not say."""
    try:
        return datetime.fromisoformat(as_text(data.attrs["timestamp"])).timestamp()
    except (KeyError, ValueError):
        return float("nan")


def _value(dataset: h5py.Dataset) -> Any:
    value = dataset[()]
    if isinstance(value, bytes | str):
        return as_text(value)
    if isinstance(value, np.ndarray) and value.dtype.kind in "SO":
        return [as_text(each) for each in value.ravel()]
    return value.item() if isinstance(value, np.generic) else value


def _axis(data: h5py.Group, name: str) -> Axis:
    dataset = data[name]
    unit = as_text(dataset.attrs["units"]) if "units" in dataset.attrs else ""
    word = as_text(dataset.attrs["long_name"]) if "long_name" in dataset.attrs else ""
    quantity = {"Q": "q", "azimuthal_axis": "azimuth"}.get(name, "2theta" if word == "tth" else word or "q")
    edges = data[f"{name}_edges"][()].astype(np.float64) if f"{name}_edges" in data else None
    return Axis(quantity, unit, dataset[()].astype(np.float64), edges)
