"""Serve what is in a folder of our files under the names it had live. No network: the archive node is a face on it.

Names: a field is ``<node>::<field>`` (``integrator::total``, ``receiver::image``), its timeline ``<node>::<timeline>``.
Frame files and series files are served side by side (`series_archive`); of a field that is in both, each time once.

``finalized_until`` of an answer is the time before which the files will not change any more: that of the last row, but
where a file still grows, that of its last row before the first hole. Samples after it may still come.

A file that cannot be read is reported with the reason, and read again when it has changed; one that grows is read
again at every `refresh`.
"""

from __future__ import annotations

import json
import os
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sisockdaq.downsample import thin
from sisockdaq.errors import FieldUnknown, FileUnreadable, ReplyInvalid
from sisockdaq.merge import merge
from sisockdaq.nexus._opening import ReaderPool
from sisockdaq.nexus.index import DataFileRow, Index, SourceRow, Stamp, stamp
from sisockdaq.nexus.layout import acquisition_of
from sisockdaq.nexus.placing import is_named_master
from sisockdaq.nexus.reader import DataFileReader, FieldSummary, file_state, read_master
from sisockdaq.nexus.series_archive import SeriesArchive
from sisockdaq.nexus.series_file import is_series_file
from sisockdaq.schema import SEPARATOR, Axis, Field, FieldList, Reply, Samples, Timeline, split_name

__all__ = ["Archive"]

IMAGE = "image"
"""Name of the field that holds a receiver's images."""

_MOST_BYTES = 512 * 2**20
"""Largest answer [bytes]; more is refused with advice instead of filling the memory."""


class Archive:
    """The acquisitions below a folder.

    Parameters
    ----------
    root : Path
    index : Index
    """

    def __init__(self, root: Path, index: Index) -> None:
        self.root, self.index = root, index
        self.pool = ReaderPool()
        self.series = SeriesArchive(index, self.pool)
        self._lock = threading.Lock()
        self._times = lru_cache(maxsize=256)(self._read_times)
        self._axes = lru_cache(maxsize=1024)(self._read_axes)

    def close(self) -> None:
        """Close all files and the index."""
        self.pool.close()
        self.index.close()

    # Finding files.

    def scan(self) -> int:
        """Look through the whole folder; return how many files were read (new, changed or growing)."""
        with self._lock:
            known = {**self.index.stamps(), **self.series.index.stamps()}
            found = {os.fspath(path): path for path in _candidates(self.root)}
            self._forget(known.keys() - found.keys())
            return sum(self._read_if_changed(path, known.get(name)) for name, path in found.items())

    def refresh(self, paths: Sequence[Path] = ()) -> int:
        """Read those files, if they are ours, and all that grow or may grow again; return how many were read."""
        with self._lock:
            known = {**self.index.stamps(), **self.series.index.stamps()}
            wanted = {os.fspath(path): path for path in paths if is_ours(path)}
            wanted |= {name: Path(name) for name, (_, state) in known.items() if state in ("growing", "left")}
            gone = [name for name, path in wanted.items() if not path.exists()]
            self._forget(gone)
            return sum(
                self._read_if_changed(path, known.get(name)) for name, path in wanted.items() if name not in gone
            )

    def _forget(self, names: Iterable[str]) -> None:
        gone = list(names)
        self.index.forget(gone)
        self.series.index.forget(gone)
        for name in gone:
            self.pool.forget(Path(name))

    def _read_if_changed(self, path: Path, known: tuple[Stamp, str] | None) -> bool:
        try:
            seen = stamp(path)
        except OSError:
            return False  # gone since it was listed; the next look forgets it
        if known is not None and known[0] == seen and known[1] != "growing":
            return False
        if is_series_file(path.name):
            self.series.look(path, seen, known)
            return True
        named = acquisition_of(path.name)
        is_master = named[1] == 0 if named is not None else True  # of a name of its own
        try:
            if is_master:
                about = read_master(path)
                self.index.put_master(about, seen)
            if not is_master or path.name in about.files:
                self._read_data_file(path, seen)
        except FileUnreadable as error:
            self.index.put_broken(path, error.message, seen, is_master=is_master)
        return True

    def _read_data_file(self, path: Path, seen: Stamp) -> None:
        # Asked first: only what is read once nobody has the file open any more is all that it will ever hold.
        state = file_state(path, finished=False)
        summary = self.pool.read(DataFileReader, path, DataFileReader.summary)
        self.index.put_data_file(summary, "finished" if summary.finished else state, seen)

    # What there is.

    def fields(self, start: float | None = None, end: float | None = None) -> FieldList:
        """Return the listing of what has data in ``[start, end)`` (absolute times)."""
        listing = FieldList()
        spans: dict[str, list[float]] = {}
        newest: dict[tuple[str, str, str], tuple[SourceRow, str]] = {}
        for row in self.index.sources(start, end):
            timeline = f"{row.source}{SEPARATOR}{row.timeline}"
            spans.setdefault(timeline, [0.0, 0.0])
            if row.rows > 1 and row.first_time is not None and row.last_time is not None:
                spans[timeline][0] += row.last_time - row.first_time
                spans[timeline][1] += row.rows - 1
            # Thousands of files say the same: only the newest that says it is looked into, in the order of time.
            saying = timeline, row.fields, row.file.image
            newest.pop(saying, None)
            newest[saying] = row, timeline
        for row, timeline in newest.values():
            listing.fields.update(self._entries(row, timeline))
        for timeline, (seconds, intervals) in spans.items():
            members = tuple(name for name, entry in listing.fields.items() if entry.timeline == timeline)
            listing.timelines[timeline] = Timeline(
                interval=seconds / intervals if intervals and seconds > 0 else None, fields=members
            )
        self.series.add_fields(listing, start, end)
        return listing

    def _entries(self, row: SourceRow, timeline: str) -> list[tuple[str, Field]]:
        summaries = row.field_summaries
        if row.file.image_source == row.source:
            about = json.loads(row.file.image)
            summaries.append(FieldSummary(**{**about, "shape": tuple(about["shape"])}))
        return [(f"{row.source}{SEPARATOR}{each.name}", self._field(row, each, timeline)) for each in summaries]

    def _field(self, row: SourceRow, about: FieldSummary, timeline: str) -> Field:
        if not about.shape:
            return Field(timeline=timeline, type="number", units=about.units, description=about.description)
        axes = self._axes(row.path, row.source, about.name) if about.axis else ()
        return Field(
            timeline=timeline,
            type="array",
            units=about.units,
            description=about.description,
            shape=about.shape,
            dtype=about.dtype,
            axes=axes,
        )

    def acquisitions(self) -> list[dict[str, Any]]:
        """Return every acquisition, oldest first.

        ``{"acquisition", "source", "frames", "frames_requested", "frames_written", "files", "span", "state",
        "end_reason", "ledger", "epochs"}``; ``frames`` counts rows, ``state`` is finished, growing or left, ``epochs``
        says what the numbers in ``<source>::epoch`` mean, by source.
        """
        masters = {(os.fspath(Path(row.path).parent), row.acquisition): json.loads(row.content)
                   for row in self.index.masters()}  # fmt: skip
        groups: dict[tuple[str, str], list[DataFileRow]] = {}
        for row in self.index.data_files():
            groups.setdefault((row.folder, row.acquisition), []).append(row)
        found = [_acquisition(key, rows, masters.get(key, {})) for key, rows in groups.items()]
        found += [_acquisition(key, [], about) for key, about in masters.items() if key not in groups]
        return sorted(found, key=lambda entry: (entry["span"] or [entry["started"] or 0.0])[0])

    def status(self) -> dict[str, Any]:
        """Return the numbers of files by state, and what is wrong with the broken ones."""
        counts, problems = Counter(self.index.counts()), self.index.problems() | self.series.index.problems()
        counts.update(self.series.index.counts())
        return {
            "files_whole": counts.get("finished", 0) + counts.get("left", 0),
            "files_growing": counts.get("growing", 0),
            "files_broken": len(problems),
            "problems": problems,
        }

    # Data.

    def get(
        self,
        fields: Sequence[str],
        start: float,
        end: float,
        *,
        max_points: int | None = None,
        min_stride: float | None = None,
    ) -> Reply:
        """Return the samples of fields in ``[start, end)`` (absolute times), thinned to the limits.

        Raises
        ------
        ReplyInvalid
            When the answer would be too large.
        """
        reply = Reply(problems=[])
        recorded = self.series.get(fields, start, end, reply.problems, max_points=max_points)
        for name in fields:
            found = self._frames(name, start, end, max_points), recorded.get(name)
            parts = [part for part in found if part is not None]
            if not parts:
                reply.unknown.append(name)
            joined, problems = merge(parts) if parts else (Samples.empty(), [])
            reply.problems += [f"{name}: {problem}" for problem in problems]
            reply.samples[name] = thin(joined, max_points, min_stride)
        return reply

    def _frames(self, name: str, start: float, end: float, max_points: int | None) -> Samples | None:
        """Return a field's samples from the files of acquisitions; None where none has such a field."""
        source, field = split_name(name)
        rows = self.index.sources(start, end, source)
        about = next((found for row in reversed(rows) if (found := self._about(row, field))), None)
        if about is None:
            known = any(self._about(row, field) for row in self.index.sources(source=source)[-1:])
            return Samples.empty() if known else None
        samples = self._read(rows, field, about, start, end, max_points)
        samples.timeline = f"{source}{SEPARATOR}{rows[-1].timeline}"
        samples.finalized_until = self.index.settled_until(source)
        return samples

    @staticmethod
    def _about(row: SourceRow, field: str) -> FieldSummary | None:
        if field == IMAGE and row.file.image_source == row.source:
            about = json.loads(row.file.image)
            return FieldSummary(**{**about, "shape": tuple(about["shape"])})
        return next((each for each in row.field_summaries if each.name == field), None)

    def _read(
        self, rows: Sequence[SourceRow], field: str, about: FieldSummary, start: float, end: float, most: int | None
    ) -> Samples:
        """Read all pieces, join them in the order of time."""
        pieces = []
        for row in rows:
            here = self._about(row, field)
            if here is None or here.shape != about.shape:
                continue
            times = self._times(row.path, row.version, row.source, row.file.state)
            chosen = np.flatnonzero((times >= start) & (times < end))
            if chosen.size:
                pieces.append((row, times, chosen))
        total = sum(chosen.size for _, _, chosen in pieces)
        keep = most if about.shape and most is not None else total
        step = max(1, -(-total // max(keep, 1)))
        size = int(np.prod(about.shape)) * np.dtype(about.dtype).itemsize
        if total // step * size > _MOST_BYTES:
            raise ReplyInvalid(
                f"{total} samples of {field} are {total * size / 1e9:.1f} GB, more than one answer may have",
                remedy="ask a shorter span, or give max_points",
            )
        t, values, offset = [], [], 0
        for row, times, chosen in pieces:
            mine = chosen[(-offset) % step :: step]
            offset += chosen.size
            if mine.size:
                t.append(times[mine])
                values.append(self._values(row, field, mine))
        if not t:
            return Samples.empty()
        all_times, all_values = np.concatenate(t), np.concatenate(values)
        if np.all(all_times[1:] >= all_times[:-1]):
            return Samples(all_times, all_values)
        order = np.argsort(all_times, kind="stable")
        return Samples(all_times[order], all_values[order])

    def _read_times(self, path: str, version: tuple[Any, ...], source: str, state: str) -> npt.NDArray[np.float64]:
        """Return the times of a source in a file; kept as long as the file has not changed (`version`)."""
        return self.pool.read(
            DataFileReader, Path(path), lambda r: r.times(source), version=version[:2], keep=state != "growing"
        )

    def _read_axes(self, path: str, source: str, field: str) -> tuple[Axis, ...]:
        """Return the axes of an array field; they never change within a file."""
        axis = self.pool.read(DataFileReader, Path(path), lambda reader: reader.axis(source, field))
        return () if axis is None else (Axis(axis=axis.name, unit=axis.units, values=tuple(axis.values.tolist())),)

    def _values(self, row: SourceRow, field: str, chosen: npt.NDArray[np.intp]) -> npt.NDArray[Any]:
        """Read the chosen rows of a field: as one piece where they are many, one by one where they are large."""

        def read(reader: DataFileReader) -> npt.NDArray[Any]:
            if field == IMAGE and row.file.image_source == row.source:
                return np.stack([reader.image(int(place)) for place in chosen])
            first, last = int(chosen[0]), int(chosen[-1]) + 1
            return reader.series(row.source, field, first, last)[chosen - first]

        keep = row.file.state != "growing"
        return self.pool.read(DataFileReader, Path(row.path), read, version=row.version[:2], keep=keep)

    def image(self, acquisition: str, index: int, folder: str | None = None) -> Reply:
        """Return one image of an acquisition as fields ``image``, ``frame_number`` and, of a partial frame, ``mask``.

        ``mask`` is 1 where the pixels' packet was lost. `folder` tells acquisitions of one name apart.

        Raises
        ------
        FileUnreadable
            When no acquisition of that name is here, or more than one and no folder is given.
        FieldUnknown
            When it has no such frame.
        """
        files = [row for row in self.index.data_files(acquisition) if folder in (None, row.folder)]
        if not files:
            raise FileUnreadable(f'no acquisition "{acquisition}" is in {folder or self.root}')
        if len(folders := sorted({row.folder for row in files})) > 1:
            raise FileUnreadable(f"{acquisition} is in {len(folders)} folders: {', '.join(folders)}", remedy="name one")
        total = max(row.first_index + row.rows for row in files)
        row = next((each for each in files if each.first_index <= index < each.first_index + each.rows), None)
        if row is None:
            raise FieldUnknown(
                f"{acquisition} has frames 0 to {total - 1}; there is no frame {index}" if total else
                f"{acquisition} has no frame yet"
            )  # fmt: skip
        place, source = index - row.first_index, row.image_source

        def read(reader: DataFileReader) -> tuple[Any, ...]:
            time, number = (reader.series(source, name, place, place + 1) for name in ("time", "frame_number"))
            return reader.image(place), time, number, reader.packet_mask(place), reader.fill_value

        pixels, time, number, packets, fill = self.pool.read(
            DataFileReader, Path(row.path), read, version=(row.size, row.changed_ns), keep=row.state != "growing"
        )
        if np.isnan(time[0]):
            raise FieldUnknown(f"frame {index} of {acquisition} was never received")
        timeline = f"{row.image_source}{SEPARATOR}frame"
        samples = {IMAGE: Samples(time, pixels[np.newaxis], timeline), "frame_number": Samples(time, number, timeline)}
        if packets is not None:
            lost = (np.isnan(pixels) if np.isnan(fill) else pixels == fill).astype(np.uint8)
            samples["mask"] = Samples(time, lost[np.newaxis], timeline)
        return Reply(samples)


def _candidates(root: Path) -> list[Path]:
    """Return our files below a folder; links are followed to files, not to folders."""
    found = []
    for folder, _, names in os.walk(root):
        found += [path for name in names if not name.startswith(".") and is_ours(path := Path(folder) / name)]
    return found


def is_ours(path: Path) -> bool:
    """Say whether a file may be one of ours, by its name and those beside it."""
    return acquisition_of(path.name) is not None or is_series_file(path.name) or is_named_master(path)


def _acquisition(key: tuple[str, str], rows: Sequence[DataFileRow], master: dict[str, Any]) -> dict[str, Any]:
    times = [
        (source.first_time, source.last_time)
        for row in rows
        for source in row.sources
        if source.first_time is not None and source.last_time is not None
    ]
    states = {row.state for row in rows}
    state = next((each for each in ("growing", "left") if each in states), "finished")
    return {
        "acquisition": key[1],
        "folder": key[0],
        "source": master.get("source") or (rows[0].image_source if rows else ""),
        "frames": max((row.first_index + row.rows for row in rows), default=0),
        "frames_requested": master.get("frames_requested"),
        "frames_written": master.get("images_written", 0),
        "files": [row.path for row in rows],
        "span": [min(first for first, _ in times), max(last for _, last in times)] if times else None,
        "started": master.get("started"),
        "state": state,
        "end_reason": master.get("end_reason", ""),
        "ledger": master.get("ledger"),
        "epochs": master.get("epochs", {}),
    }
