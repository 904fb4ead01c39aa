"""Image times joined with the logs of shutter and intensity: ``mergedata``.

Each image gets, from each column of each table, the value at the middle of its exposure, linear between two readings;
the last reading holds after it, and before the first there is none. Images exposed for `LONG` and more get the mean of
the readings within. Text stays as it was last. `Merging` does it in a thread, and tells how far it is.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from sisockdaq.errors import ConfigurationError, SisockdaqError
from sisockdaq.saxsdog.listing import Allowed
from sisockdaq.saxsdog.logtables import (
    Epoch,
    Logged,
    Table,
    read_image_facts,
    read_image_log,
    read_table,
    together,
    wall_seconds,
)
from sisockdaq.saxsdog.mergefiles import Outputs, curve_lists
from sisockdaq.saxsdog.wire import Attachment, failure

__all__ = ["MergeConfiguration", "Merging", "join", "merge_configuration", "time_shift"]

LONG = 5.0
"""Exposures of at least this length are averaged over [s]."""

MOST_NEWS = 2**20
"""Longest text of progress that waits to be asked for [characters]; what is older goes."""

Report = Callable[[str], None]


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", populate_by_name=True)


class LogFile(_Part):
    """A log file: on the server's machine, or sent along."""

    RemotePath: list[str] = Field(default_factory=list, description="Names, from the server's folder.")
    LocalPath: str = Field("", description="Name of the attachment; empty for a file of the server.")


class LogDataTable(_Part):
    """Log files of the same columns."""

    Name: str = Field("log", description="Added to the names of the columns.")
    TimeEpoch: Epoch = Field("Unix", validation_alias=AliasChoices("TimeEpoch", "TimeEpoc"))
    TimeOffset: float = Field(0.0, description="Taken from its times [s].", allow_inf_nan=False)
    FirstImageCorrelation: bool = False
    ZeroImageCorrelation: bool = False
    Files: list[LogFile] = Field(default_factory=list)


class Formats(_Part):
    """Which files are written; ``exel`` is spelt so."""

    csv: bool = False
    hdf: bool = False
    exel: bool = False
    json_: bool = Field(False, alias="json")


class HdfContent(_Part):
    """What goes into the HDF5 file beside the table."""

    IncludeCHI: bool = False
    IncludeTIF: bool = False


class MergeConfiguration(_Part):
    """The argument of ``mergedata``."""

    TimeOffset: float = Field(0.0, description="Taken from the times of all tables [s].", allow_inf_nan=False)
    LogDataTables: list[LogDataTable] = Field(default_factory=list)
    OutputFormats: Formats = Field(default_factory=lambda: Formats.model_validate({}))
    OutputFileBaseName: str = "./results/logs/"
    HDFOptions: HdfContent = Field(default_factory=HdfContent)


def merge_configuration(said: Any) -> MergeConfiguration:
    """Return a checked configuration.

    Raises
    ------
    ConfigurationError
        Names each key and the reason.
    """
    try:
        conf = MergeConfiguration.model_validate(said)
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, one['loc'])) or 'mergeconf'}: {one['msg']}" for one in error.errors()]
        raise ConfigurationError("; ".join(problems), problems=problems) from None
    names = [table.Name for table in conf.LogDataTables]
    if any("/" in name or not name.strip(".") or "\0" in name for name in names) or len(set(names)) < len(names):
        raise ConfigurationError("LogDataTables: each table has a name of its own, without a slash")
    return conf


class Merging:
    """Merges, one at a time, each in a thread."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._news = ""
        self._result: dict[str, Any] = {}
        self._finished = self._told = 0

    @property
    def runs(self) -> bool:
        """Whether a merge is under way."""
        return self._thread is not None and self._thread.is_alive()

    def start(
        self,
        said: Any,
        attachments: Sequence[Attachment],
        directory: Path,
        allowed: Allowed,
        further: Sequence[Path] = (),
    ) -> None:
        """Read the logs, then begin to merge the images below a folder.

        Parameters
        ----------
        said : mapping
            The configuration.
        attachments : sequence of Attachment
            Log files that came along.
        directory : Path
        allowed : Allowed
            Where files may be read and written.
        further : sequence of Path
            Folders, beside the images', that have curves.

        Raises
        ------
        SisockdaqError, OSError, ValueError
            A mistake in the configuration or in a log file; nothing was begun.
        """
        conf = merge_configuration(said)
        folder = allowed.check(Path(os.path.normpath(directory / Path(conf.OutputFileBaseName).parent)))
        base = Path(conf.OutputFileBaseName).name if not conf.OutputFileBaseName.endswith("/") else ""
        if base == "" and conf.OutputFileBaseName.endswith("/"):
            folder = allowed.check(Path(os.path.normpath(directory / conf.OutputFileBaseName)))
        tables = [_logs(one, attachments, allowed).shifted(-conf.TimeOffset) for one in conf.LogDataTables]
        folder.mkdir(parents=True, exist_ok=True)
        outputs = Outputs(folder, directory.name + base, self._say)
        self._stop.clear()
        with self._lock:
            self._news = ""
        self._say(f"Base-directory of merge is: {directory}")
        work = _Merge(conf, tables, directory, [directory, *further], outputs, self._say, self._stop)
        self._thread = threading.Thread(target=self._run, args=(work,), name="saxsdog-merge", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the merge that is under way."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(10)

    def result(self) -> dict[str, Any]:
        """Return the reply with the last merge's result, {} while there is none."""
        return self._result

    def news(self) -> str:
        """Return what was said since this was last asked."""
        with self._lock:
            news, self._news = self._news, ""
        return news

    def newly_finished(self) -> int:
        """Return the number of finished merges, once after each; 0 else."""
        with self._lock:
            if self._told == self._finished:
                return 0
            self._told = self._finished
            return self._finished

    def _say(self, text: str) -> None:
        with self._lock:
            self._news = (self._news + "\n" + text)[-MOST_NEWS:]

    def _run(self, work: _Merge) -> None:
        try:
            result = {"result": "mergedata", "data": work.run()}
        except (SisockdaqError, OSError, ValueError) as error:
            self._say(f"------------ERROR------------\n{error}\n-----------------------------")
            self._say("The datamerger was stopped!")
            result = failure("Error", error)
        with self._lock:
            self._result = result
            self._finished += 1


class _Merge:
    """One merge, step by step."""

    def __init__(
        self,
        conf: MergeConfiguration,
        tables: list[Table],
        directory: Path,
        folders: list[Path],
        outputs: Outputs,
        say: Report,
        stop: threading.Event,
    ) -> None:
        self._conf, self._tables, self._directory, self._folders = conf, tables, directory, folders
        self._outputs, self._say, self._stop = outputs, say, stop

    def run(self) -> dict[str, Any]:
        conf, outputs = self._conf, self._outputs
        for settings, table in zip(conf.LogDataTables, self._tables, strict=True):
            outputs.table(settings.Name, table)
        images = self._images()
        if not len(images.times):
            raise ValueError(f"no images with a time below {self._directory}")
        outputs.table("Imagedata", images)
        exposures = np.nan_to_num(images.columns["Time Measured (ImgLog)"])
        starts = images.times - exposures
        delta = time_shift(conf, self._tables, starts, images.columns["File Name (Img)"], self._say)
        tables = [table.shifted(delta) for table in self._tables]
        self._say("Now merging imagedata with logfiles..")
        merged = join(starts, exposures, images.columns, tables)
        formats = conf.OutputFormats
        self._say("Writing output tables...")
        outputs.write(merged, csv=formats.csv, json=formats.json_, excel=formats.exel, hdf=formats.hdf)
        lists = curve_lists(self._folders)
        if formats.hdf and conf.HDFOptions.IncludeTIF:
            outputs.images_to_hdf([Path(path) for path in images.columns["filepath (Img)"]], self._stop.is_set)
        if formats.hdf and conf.HDFOptions.IncludeCHI:
            outputs.curves_to_hdf(lists, self._stop.is_set)
        outputs.lists(lists)
        plot = _shutter_and_images(conf, tables, images)
        self._say("The merge is complete.")
        outputs.protocol()
        return {"syncplot": {**plot, "CalculatedTimeshift": str(timedelta(seconds=delta))}, "fileslist": lists}

    def _images(self) -> Table:
        """Return what is known of each image: its header, and the detector's log."""
        rows, logged = [], {}
        for place, folders, names in os.walk(self._directory):
            folders.sort()
            self._say(f"Searching path: {place}")
            for name in sorted(names):
                self._check()
                path = Path(place, name)
                if name.endswith((".tif", ".tiff")):
                    rows.append(self._row(path))
                elif name.endswith(".log") and "results" not in path.parts:
                    logged.update(read_image_log(path.read_text(errors="replace")))
        found = [row for row in (_timed(row, logged) for row in rows if row) if row]
        self._say(f"A total of {len(found)} images were found, {len(rows) - len(found)} without a time.")
        return _image_table(found)

    def _row(self, path: Path) -> dict[str, Any]:
        try:
            facts = read_image_facts(path)
        except (OSError, ValueError, SyntaxError) as error:
            self._say(f"ERROR in {path}: {error}")
            return {}
        return {**facts, "filename": path.name, "filepath": str(path)}

    def _check(self) -> None:
        if self._stop.is_set():
            raise ValueError("stopped, as the server ends")


def time_shift(
    conf: MergeConfiguration,
    tables: Sequence[Table],
    starts: npt.NDArray[np.float64],
    names: npt.NDArray[Any],
    say: Report = lambda text: None,
) -> float:
    """Return what is added to the times of all tables, so that the shutter's agree with the images' [s].

    Parameters
    ----------
    conf : MergeConfiguration
    tables : sequence of Table
        Those of the configuration.
    starts : ndarray, (n,)
        When each image began [wall-clock s].
    names : ndarray of str, (n,)

    Raises
    ------
    ValueError
        Two ways were asked for, or there is nothing to compare.
    """
    wanted = [
        (one, table)
        for one, table in zip(conf.LogDataTables, tables, strict=True)
        if one.FirstImageCorrelation or one.ZeroImageCorrelation
    ]
    if not wanted:
        return 0.0
    settings, table = wanted[0]
    if len(wanted) > 1 or (settings.FirstImageCorrelation and settings.ZeroImageCorrelation):
        raise ValueError("only one table can give the time shift, by its first entry or by the zero image")
    if not len(table.times):
        raise ValueError(f"{settings.Name} has no entry to compare with an image")
    first = float(table.times[0])
    if settings.FirstImageCorrelation:
        delta = float(starts.min()) - first
        say(f"Time shift (FirstImage): {delta:+.3f} s")
        return delta
    delta = float(starts[_zero_image(names)]) - first
    say(f"Time shift (ZeroImage): {delta:+.3f} s")
    return delta


def join(
    starts: npt.NDArray[np.float64],
    exposures: npt.NDArray[np.float64],
    facts: dict[str, npt.NDArray[Any]],
    tables: Sequence[Table],
) -> Table:
    """Return a row an image: what is known of it, and what each table says of its time.

    Parameters
    ----------
    starts : ndarray, (n,)
        When each exposure began [wall-clock s].
    exposures : ndarray, (n,)
        How long it took [s].
    facts : dict of ndarray, (n,)
        Further columns.
    tables : sequence of Table
    """
    middles = starts + exposures / 2
    columns = dict(facts)
    for table in tables:
        for name, values in table.columns.items():
            columns[name] = _at(table.times, values, starts, exposures, middles)
    return Table(middles, columns)


def _at(
    times: npt.NDArray[np.float64],
    values: npt.NDArray[Any],
    starts: npt.NDArray[np.float64],
    exposures: npt.NDArray[np.float64],
    middles: npt.NDArray[np.float64],
) -> npt.NDArray[Any]:
    if values.dtype == object:
        last = np.searchsorted(times, middles, "right") - 1
        return np.array([values[i] if i >= 0 else "" for i in last], object)
    good = np.isfinite(values)
    if not good.any():
        return np.full(len(middles), np.nan)
    times, values = times[good], values[good]
    found = np.interp(middles, times, values, left=np.nan)
    begin, end = np.searchsorted(times, starts, "left"), np.searchsorted(times, starts + exposures, "right")
    sums = np.concatenate([[0.0], np.cumsum(values)])
    averaged = (exposures >= LONG) & (end > begin)
    found[averaged] = ((sums[end] - sums[begin])[averaged]) / (end - begin)[averaged]
    return np.asarray(found, np.float64)


def _logs(settings: LogDataTable, attachments: Sequence[Attachment], allowed: Allowed) -> Table:
    """Return the readings of a table's files, on the clock that its settings say."""
    if not settings.Files:
        raise ValueError(f"{settings.Name} has no files")
    sent = {one.filename: one.data for one in attachments}
    tables = []
    for file in settings.Files:
        if file.LocalPath:
            if file.LocalPath not in sent:
                raise ValueError(f"{settings.Name}: {file.LocalPath} did not come with the request")
            text, name = sent[file.LocalPath], file.LocalPath
        else:
            path = allowed.find(file.RemotePath, "RemotePath")
            text, name = path.read_text(errors="replace"), path.name
        tables.append(read_table(text, name, settings.TimeEpoch))
    return together(tables).shifted(-settings.TimeOffset).renamed(settings.Name)


def _timed(row: dict[str, Any], logged: dict[str, Logged]) -> dict[str, Any] | None:
    """Return a row with the end and the length of its exposure: as logged, else as the header says."""
    name = f"{row.get('Image_path', '')}{row['filename']}"
    log = logged.get(name) or logged.get(row["filename"])
    exposure = row.get("Exposure_time [s]", float("nan"))
    if log is not None:
        end, exposure = log.end, log.measured if np.isfinite(log.measured) else exposure
    elif "date" in row:
        end = wall_seconds(str(row["date"]))
    else:
        return None
    shown = {f"{key} (Img)": value for key, value in row.items()}
    return {**shown, "File Name (Img)": name, "Time Measured (ImgLog)": exposure, "_end": end}


def _image_table(rows: list[dict[str, Any]]) -> Table:
    rows = sorted(rows, key=lambda row: float(row["_end"]))
    names = dict.fromkeys(key for row in rows for key in row if key != "_end")
    columns: dict[str, npt.NDArray[Any]] = {}
    for name in names:
        values = [row.get(name, np.nan) for row in rows]
        numbers = all(isinstance(value, int | float) for value in values)
        columns[name] = np.array(values, np.float64 if numbers else object)
    return Table(np.array([row["_end"] for row in rows], np.float64), columns)


def _zero_image(names: npt.NDArray[Any]) -> int:
    """Return the place of the image that was taken to set the clocks: ``zero_1M_00000.tif`` or another ``zero_…``."""
    for wanted in ("zero_1M_00000.tif", "zero_"):
        for place, name in enumerate(names):
            if wanted in Path(str(name)).name:
                return place
    raise ValueError("there is no zero image: none is called zero_…")


def _shutter_and_images(conf: MergeConfiguration, tables: list[Table], images: Table) -> dict[str, Any]:
    """Return exposures as the images have them and as the shutter's log has them, by time [UNIX ms]."""
    chosen = None
    for settings, table in zip(conf.LogDataTables, tables, strict=True):
        if settings.FirstImageCorrelation or settings.Name == "Peak" or chosen is None:
            chosen = table
    exposure = "Exposure_time [s] (Img)"
    shown = images.columns.get(exposure, images.columns["Time Measured (ImgLog)"])
    shutter = "Duration (Peak)"
    durations = chosen.columns.get(shutter) if chosen is not None else None
    return {
        "Images": _by_time(images.times, exposure, shown),
        "Shutter": {} if chosen is None or durations is None else _by_time(chosen.times, shutter, durations),
    }


def _by_time(times: npt.NDArray[np.float64], name: str, values: npt.NDArray[Any]) -> dict[str, Any]:
    return {
        str(round(1e3 * t)): {name: float(value) if isinstance(value, float) and np.isfinite(value) else None}
        for t, value in zip(times.tolist(), values.tolist(), strict=True)
    }
