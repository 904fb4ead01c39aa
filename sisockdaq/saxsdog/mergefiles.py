"""The files that a merge writes: tables as csv, json, hdf and Excel, lists of curves, and a protocol.

Tables have the forms that pandas gives them in the original, so that what reads those reads these; the HDF5 file has
``/LogData`` (a dataset a column), ``/Images/<id>`` and ``/Graphs/<kind>/<id>/CHI``.
"""

from __future__ import annotations

import csv
import hashlib
import importlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fabio
import h5py
import numpy as np
import numpy.typing as npt

from sisockdaq.errors import ConfigurationError
from sisockdaq.saxsdog.logtables import Table

__all__ = ["Outputs", "curve_lists"]

_IGOR_EPOCH = 2_082_844_800
"""Igor counts from 1904-01-01 [s before 1970]."""

_CURVE = re.compile(r"(?P<base>.+)_c(?P<kind>[A-Z]\d+)")


class Outputs:
    """The files of one merge.

    Parameters
    ----------
    folder : Path
    base : str
        What the names of the merged table's files begin with.
    say : callable
        Told of each file.
    """

    def __init__(self, folder: Path, base: str, say: Callable[[str], None]) -> None:
        self.folder = folder
        self.base = base
        self._said: list[str] = []
        self._tell = say

    def table(self, name: str, table: Table) -> None:
        """Write a table of its own, as ``name.csv``."""
        self._csv(self.folder / f"{name}.csv", _dates(table.times), table)

    def write(self, merged: Table, *, csv: bool, json: bool, excel: bool, hdf: bool) -> None:
        """Write the merged table: for Igor always, and in the forms that are asked for.

        Raises
        ------
        ConfigurationError
            Excel is asked for, and what writes it is not installed.
        """
        path = self.folder / self.base
        self._csv(_with(path, "_igor.csv"), (merged.times + _IGOR_EPOCH).tolist(), merged)
        if csv:
            self._csv(_with(path, ".csv"), _dates(merged.times), merged)
        if json:
            self._json(_with(path, ".json"), merged)
        if excel:
            self._excel(_with(path, ".xlsx"), merged)
        if hdf:
            self._hdf(self._hdf_path, merged)

    def images_to_hdf(self, paths: Iterable[Path], stopped: Callable[[], bool]) -> None:
        """Put the images into the HDF5 file."""
        with h5py.File(self._hdf_path, "a") as file:
            group = file.require_group("Images")
            for path in paths:
                if stopped():
                    return
                name = _identity(path)
                if name in group:
                    continue
                try:
                    pixels = fabio.open(str(path)).data
                except Exception as error:  # fabio raises what its readers raise
                    self._say(f"ERROR in {path}: {error}")
                    continue
                group.create_dataset(name, data=pixels, chunks=pixels.shape, compression="gzip", shuffle=True)
                group[name].attrs["TITLE"] = str(path.with_suffix(""))

    def curves_to_hdf(self, lists: dict[str, list[str]], stopped: Callable[[], bool]) -> None:
        """Put the curves' files, as text, into the HDF5 file."""
        with h5py.File(self._hdf_path, "a") as file:
            for kind, paths in lists.items():
                group = file.require_group(f"Graphs/{kind}")
                for path in map(Path, paths):
                    if stopped():
                        return
                    one = group.require_group(_identity(path))
                    one.attrs["TITLE"] = str(path.with_suffix(""))
                    name = "JSON" if kind == "JSON" else "CHI"
                    if name not in one:
                        one[name] = path.read_text(errors="replace")

    def lists(self, lists: dict[str, list[str]]) -> None:
        """Write the names of the curves, a file a kind."""
        for kind, paths in lists.items():
            path = _with(self.folder / self.base, f"{kind}.txt")
            path.write_text("".join(f"{one}\n" for one in paths))
            self._say(f"Write: {path}")

    def protocol(self) -> None:
        """Write what was said."""
        _with(self.folder / self.base, "consolidate_log.log").write_text("\n".join(self._said) + "\n")

    @property
    def _hdf_path(self) -> Path:
        return _with(self.folder / self.base, ".hdf")

    def _say(self, text: str) -> None:
        self._said.append(text)
        self._tell(text)

    def _csv(self, path: Path, index: Sequence[Any], table: Table) -> None:
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(["", *table.columns])
            writer.writerows(_rows(index, table))
        self._say(f"Write: {path}")

    def _json(self, path: Path, table: Table) -> None:
        stamps = [str(round(1e3 * t)) for t in table.times.tolist()]
        columns = {
            name: dict(zip(stamps, map(_or_none, values.tolist()), strict=True))
            for name, values in table.columns.items()
        }
        path.write_text(json.dumps(columns), encoding="utf-8")
        self._say(f"Write: {path}")

    def _excel(self, path: Path, table: Table) -> None:
        try:
            openpyxl: Any = importlib.import_module("openpyxl")
        except ImportError:
            raise ConfigurationError(
                'an Excel file was asked for ("exel"), and openpyxl is not installed', remedy="pip install openpyxl"
            ) from None
        book = openpyxl.Workbook(write_only=True)
        sheet = book.create_sheet("Sheet1")
        sheet.append(["", *table.columns])
        for row in _rows(_dates(table.times), table):
            sheet.append(row)
        book.save(path)
        self._say(f"Write: {path}")

    def _hdf(self, path: Path, table: Table) -> None:
        with h5py.File(path, "w") as file:
            group = file.create_group("LogData")
            group.create_dataset("time", data=table.times)
            group["time"].attrs["units"] = "s"
            group["time"].attrs["about"] = "wall-clock time since 1970-01-01"
            for name, values in table.columns.items():
                kept = name.replace("/", "|")
                text = values.dtype == object
                group[kept] = [str(one) for one in values] if text else values
        self._say(f"Write: {path}")


def curve_lists(folders: Iterable[Path]) -> dict[str, list[str]]:
    """Return the files of curves below some folders by their kind: ``R``, ``R1``, ``S1``, ``JSON``."""
    found: dict[str, list[str]] = {}
    for path in sorted(set(_files(folders))):
        if path.suffix == ".chi":
            match = _CURVE.fullmatch(path.stem)
            found.setdefault(match["kind"] if match else "R", []).append(str(path))
        elif path.suffix == ".json" and path.parent.name == "work":
            found.setdefault("JSON", []).append(str(path))
    return found


def _files(folders: Iterable[Path]) -> Iterator[Path]:
    for folder in folders:
        for place, _, names in os.walk(folder):
            yield from (Path(place, name) for name in names)


def _rows(index: Sequence[Any], table: Table) -> Iterator[list[Any]]:
    columns = [list(map(_or_none, values.tolist())) for values in table.columns.values()]
    for place, stamp in enumerate(index):
        yield [stamp, *(column[place] for column in columns)]


def _or_none(value: Any) -> Any:
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _dates(times: npt.NDArray[np.float64]) -> list[str]:
    return [datetime.fromtimestamp(t, UTC).strftime("%Y-%m-%d %H:%M:%S.%f") for t in times.tolist()]


def _with(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def _identity(path: Path) -> str:
    """Return the name under which the original keeps a file: by its path without what follows the first point."""
    return "h" + hashlib.sha224(str(path).split(".", 1)[0].encode(errors="surrogateescape")).hexdigest()
