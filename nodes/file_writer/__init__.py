"""The file writer as a node: acquisitions are started and stopped over WAMP, and shown while they run.

The work is done by `sisockdaq.nexus.engine`; this node gives it the site's sources and facts, offers ``start``,
``stop``, ``status``, ``log``, ``get_config`` and ``set_config`` to the role control, and publishes progress and
closed files.

With ``record:`` it also records series of other nodes (`sisockdaq.recording`), all the time and apart from any
acquisition. A writer that is only to do this needs no detector.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from sisockdaq.base import DataNodeServer
from sisockdaq.conversion.badpixels import find_bad_pixels
from sisockdaq.errors import ConfigurationError
from sisockdaq.frames import Consumer, Description, make_consumer
from sisockdaq.frames.tables import MASK, find_tables
from sisockdaq.nexus.checks import CheckName, Severity
from sisockdaq.nexus.engine import WriterEngine
from sisockdaq.nexus.facts import (
    detector_facts,
    geometry_facts,
    joined_masks,
    present_detector,
    site_mask,
    try_geometry,
)
from sisockdaq.nexus.fileset import ClosedFile
from sisockdaq.nexus.filters import Compression
from sisockdaq.nexus.layout import MasterLayout
from sisockdaq.nexus.options import EngineOptions
from sisockdaq.nexus.requests import checked_request, checked_user
from sisockdaq.recording import LOOK, Recorder, RecordingOptions

__all__ = ["FileWriter"]

_STATUS_FIELDS: dict[str, tuple[str, str | None, str]] = {
    "frames_written": ("frames_written", None, "Frames of the acquisition that are in its files."),
    "bytes_written": ("bytes_written", "B", "Bytes written for the acquisition."),
    "frame_rate": ("rate", "Hz", "Frames written per second."),
    "data_rate": ("data_rate", "B/s", "Bytes written per second."),
    "queue": ("queue", None, "Packed frames that wait for the disk."),
    "frames_discarded": ("frames_discarded", None, "Frames that came but could not be written."),
}
"""Number fields of the timeline "status": name → (key of the engine's status, units, description)."""

_RECORDING_FIELDS: dict[str, tuple[str | None, str]] = {
    "samples_recorded": (None, "Samples of series that are in files."),
    "samples_lost": (None, "Samples that came but are known to be lost."),
    "recording_gaps": (None, "Stretches of series that a node no longer had when it was asked."),
    "recording_fields": (None, "Fields that are recorded."),
    "recording_queue": ("B", "Memory of samples that wait for the disk."),
    "recording_bytes": ("B", "Bytes written for series."),
}
"""Number fields of the timeline "recording": name → (units, description)."""

_RECORDING_TEXTS = {
    "recording_file": "The series file that grows.",
    "recording_gap": "The latest gap.",
    "recording_problem": "What is wrong with the recording; empty when all is well.",
}


class FileWriter(DataNodeServer):
    """NXmx files of every acquisition."""

    class Options(DataNodeServer.Options):
        """Where and how to write."""

        directory: Path = Field(
            Path(), description="Folder of the files, relative to the site's data root; made when it is missing."
        )
        images_per_file: int = Field(1000, ge=1, description="Images in one data file.")
        frames: str | None = Field(None, description="Node whose images are written. Default: the only one there is.")
        results: list[str] | None = Field(
            None, description="Nodes whose results are written beside the images. Default: all that publish results."
        )
        compression: Compression = Field(
            "bslz4", description="Compression of the images: bslz4 and zstd with bitshuffle, lz4 without."
        )
        master: MasterLayout = Field(
            "legacy",
            description="How the master file shows the images: legacy (links to data files: for every reader), "
            "vds (one virtual dataset over them), integrated (it holds them itself).",
        )
        swmr: bool = Field(
            False,
            description="Make data files for HDF5's SWMR readers. XDS' neggia cannot open them, and a writer that died "
            "cannot go on with them.",
        )
        threads: int = Field(2, ge=1, le=64, description="Threads that compress.")
        flush_interval: float = Field(
            1.0, gt=0, le=60, description="Time between flushes [s]: what the death of the process may cost."
        )
        allowed: list[Path] = Field(
            [],
            description="Folders below which an acquisition's output_file may lie, relative to the data root. Default: "
            "the writer's own directory.",
        )
        writer_user_id: int | None = Field(
            None, ge=0, description="User id whose the files are; takes a writer run by root. Default: its own user."
        )
        checks: dict[CheckName, Severity] = Field(
            {},
            description="What becomes of a finding before a start: refuse, warn or off, for each of space (default "
            "refuse), buffers (warn), mask (refuse) and geometry (warn).",
        )
        overwrite: bool = Field(False, description="Whether files of the same name give way, or refuse a start.")
        record: list[str] = Field(
            [],
            description="Series that are recorded: nodes, or node::field, with * and ?. Such a writer needs no images.",
        )
        recording: RecordingOptions = Field(
            default_factory=lambda: RecordingOptions.model_validate({}), description="How series are recorded."
        )

    def setup(self) -> Any:
        """Declare the fields; read the mask and the geometry and begin to consume, in a thread."""
        self.engine: WriterEngine | None = None
        self.recorder: Recorder | None = None
        if self._writes_images():
            self._declare_acquisitions()
        self.register_control("start", self.start, in_thread=True)
        self.register_control("stop", self.stop, in_thread=True)
        self.register_control("status", self.status)
        self.register_control("log", self.recorded_acquisitions, in_thread=True)
        self.register_control("get_config", self.get_config)
        self.register_control("set_config", self.set_config)
        if self.options.record:
            self._declare_recording()
            options = self.options
            self.recorder = Recorder(
                self, options.record, self._root(), options.recording, flush_interval=options.flush_interval
            )
            self.recorder.recording.on_closed = self._publish_series_file
        return self.in_thread(self._begin)

    def teardown(self) -> Any:
        """Close the files in order."""
        return self.in_thread(self._end)

    def after_onJoin(self, details: Any) -> Any:  # noqa: N802 - sisock's name
        """Follow the feeds that are recorded."""
        return self.recorder.joined() if self.recorder is not None else None

    def _declare_acquisitions(self) -> None:
        for name, (_, units, about) in _STATUS_FIELDS.items():
            self.series(name, units=units, description=about, timeline="status", keep=86400)
        for name, about in (("state", "READY or WRITING."), ("acquisition", "The current or last acquisition.")):
            self.series(name, type="string", description=about, timeline="status", keep=86400)
        self.series("message", type="string", description="How the acquisition fares.", timeline="status", keep=86400)
        self.series("last_file", type="string", description="A data file that was closed.", timeline="files")
        self.series("images", description="Images in that file.", timeline="files")

    def _declare_recording(self) -> None:
        for name, (units, about) in _RECORDING_FIELDS.items():
            self.series(name, units=units, description=about, timeline="recording", keep=86400)
        for name, about in _RECORDING_TEXTS.items():
            self.series(name, type="string", description=about, timeline="recording", keep=86400)
        self.series("last_series_file", type="string", description="A series file that was closed.",
                    timeline="series_files", keep=86400)  # fmt: skip
        self.series("samples", description="Samples in that file.", timeline="series_files", keep=86400)

    def _writes_images(self) -> bool:
        """Whether there are images to write; a writer that only records series needs none."""
        sources = self.site.image_sources() if self.site is not None else []
        return bool(self.options.frames is not None or sources or not self.options.record)

    def start(
        self,
        acquisition: str | None = None,
        frames: int | None = None,
        directory: str | None = None,
        meta: Mapping[str, Any] | None = None,
        run_id: int | str | None = None,
        output_file: str | None = None,
        user_id: int | None = None,
        raw: str | None = None,
    ) -> dict[str, Any]:
        """Begin an acquisition of `frames` frames (None: until it is stopped); return the status.

        Parameters
        ----------
        acquisition : str, optional
            Its name; default that of `output_file`.
        frames : int, optional
        directory : str, optional
            Folder below the writer's own.
        meta : mapping, optional
            Facts for the file, JSON-able.
        run_id : int or str, optional
            The caller's own mark; default the time in nanoseconds.
        output_file : str, optional
            Absolute path that the master file gets, instead of one made of the name.
        user_id : int, optional
            Whose the files are; default ``writer_user_id``.
        raw : str, optional
            "beside": the receiver records the detector's packets as well, into ``<name>_raw`` beside the files;
            "instead": it records them, and no image file is made. Default: images only.

        Raises
        ------
        AcquisitionRefused
            With every obstacle at once.
        """
        request = checked_request(acquisition, frames, directory, meta, run_id, output_file, user_id, raw)
        return self._running().start(request)

    def stop(self) -> dict[str, Any]:
        """End the acquisition under way, if there is one; return the status."""
        return self._running().stop()

    def status(self) -> dict[str, Any]:
        """Return how far the current or last acquisition is."""
        return self._running().status()

    def recorded_acquisitions(self, n: int = 100) -> list[dict[str, Any]]:
        """Return the newest acquisitions that have ended, newest first, failed ones included, kept over restarts."""
        return self._running().log(n)

    def get_config(self) -> dict[str, Any]:
        """Return the writer's part of std-daq's configuration."""
        return {"writer_user_id": self._running().user_id}

    def set_config(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Change the writer's part of std-daq's configuration, for acquisitions from now on; return it.

        Raises
        ------
        ConfigurationError
            With every reason at once; nothing was changed then.
        """
        self._running().user_id = checked_user(changes, self._running().user_id)
        return self.get_config()

    def _running(self) -> WriterEngine:
        if self.engine is None and self.recorder is not None and not self._writes_images():
            raise ConfigurationError(f"{self.name} only records series", remedy="set frames: to write images")
        if self.engine is None:
            raise ConfigurationError("the writer is not ready yet")
        return self.engine

    def _begin(self) -> None:
        if self._writes_images():
            self._begin_acquisitions()
        if self.recorder is not None:
            self.recorder.open()
            self.every(1.0, self._publish_recording)
            self.every(LOOK, self.recorder.look)

    def _end(self) -> None:
        if self.recorder is not None:
            self.recorder.close()
        if self.engine is not None:
            self.engine.close()

    def _mask_of(self, source: Description) -> npt.NDArray[np.uint32] | None:
        """Return the mask of a source's images: gaps and the site's mask, and what the source itself says is bad."""
        site = self.site
        known = None if site is None else site_mask(site, present_detector(site, source))
        if self.state is None:
            return known
        told = self._tables_of(source).get(MASK)
        return joined_masks(joined_masks(known, told), find_bad_pixels(self.state.path, source))

    def _tables_of(self, source: Description) -> Mapping[str, npt.NDArray[Any]]:
        return find_tables(self.state.path, source) if self.state is not None else {}

    def _begin_acquisitions(self) -> None:
        facts: dict[str, Any] = {}
        site = self.site
        if self.site is not None and self.site.detector is not None:
            facts = {
                **detector_facts(self.site.detector),
                **geometry_facts(self.site),
                "instrument_name": self.site.site,
            }
            site_mask(self.site)  # a mask that cannot be used is told now, not at the first start
        options = self.options
        engine = EngineOptions(
            root=self._root(),
            name=str(self.name),
            images_per_file=options.images_per_file,
            compression=options.compression,
            master=options.master,
            swmr=options.swmr,
            threads=options.threads,
            flush_interval=options.flush_interval,
            overwrite=options.overwrite,
            meta=facts,
            checks=options.checks,
            mask_of=self._mask_of,
            tables_of=self._tables_of,
            geometry_of=None if site is None else lambda source: try_geometry(site, source),
            allowed=[self._folder(place) for place in options.allowed],
            user_id=options.writer_user_id,
            journal=self.state.path / f"acquisitions-{self.name}.sqlite" if self.state is not None else None,
        )
        self.engine = WriterEngine(
            engine,
            self._consumer(self._frames_source()),
            {name: self._consumer(name) for name in self._result_sources()},
            on_status=self._publish_status,
            on_file=self._publish_file,
        ).start_threads()
        self.every(1.0, self._heartbeat)

    def _root(self) -> Path:
        return self._folder(self.options.directory)

    def _folder(self, directory: Path) -> Path:
        if self.site is not None:
            return Path(self.site.resolve_output(directory))
        return (self.state.data / directory if self.state is not None else directory).absolute()

    def _frames_source(self) -> str:
        if self.options.frames is not None:
            return str(self.options.frames)
        sources = self.site.image_sources() if self.site is not None else []
        if len(sources) == 1:
            return str(sources[0])
        known = f"the site has {', '.join(sources)}" if sources else "the site has none"
        raise ConfigurationError(f"{self.name}: which node's images are to be written? ({known})", remedy="set frames:")

    def _result_sources(self) -> list[str]:
        if self.options.results is not None:
            return list(self.options.results)
        return list(self.site.result_sources()) if self.site is not None else []

    def _consumer(self, source: str) -> Callable[[], Consumer]:
        if self.state is None:
            raise ConfigurationError(f"{self.name} needs a site's state directory", remedy="start it as part of a site")
        address = f"ring://{self.state.frames_socket(source)}"
        return partial(make_consumer, address, name=str(self.name), policy="lossless")

    def _heartbeat(self) -> None:
        self._publish_status(self._running().status())

    def _publish_status(self, status: Mapping[str, Any]) -> None:
        now = time.time()
        values: dict[str, Any] = {name: status[key] for name, (key, _, _) in _STATUS_FIELDS.items()}
        values |= {key: str(status[key] or "") for key in ("state", "acquisition", "message")}
        self.store.timelines["status"].append(now, values)

    def _publish_file(self, acquisition: str, closed: ClosedFile) -> None:
        self.store.timelines["files"].append(time.time(), {"last_file": str(closed.path), "images": closed.images})

    def _publish_recording(self) -> None:
        assert self.recorder is not None
        self.store.timelines["recording"].append(time.time(), self.recorder.status())

    def _publish_series_file(self, path: Path, samples: int) -> None:
        values = {"last_series_file": str(path), "samples": samples}
        self.store.timelines["series_files"].append(time.time(), values)
