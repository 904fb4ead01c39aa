"""The stream writer as a node: a Stream V2 or Jungfraujoch sender writes files within a site.

The work is done by `sisockdaq.jungfraujoch`, as by the command ``jfjoch_writer``; this node shows its progress, rates
and losses to every client, and offers ``cancel``, ``status`` and ``log`` to the role control.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from twisted.internet.threads import deferToThread

from sisockdaq.base import DataNodeServer
from sisockdaq.errors import ConfigurationError
from sisockdaq.jungfraujoch import StreamWriter, WriterOptions
from sisockdaq.nexus.fileset import ClosedFile
from sisockdaq.nexus.layout import MasterLayout

__all__ = ["JungfraujochWriter"]

_IMAGES = {
    "images_received": ("received", "Images of the series that came."),
    "images_written": ("written", "Images of the series that are in its files."),
    "images_missing": ("missing", "Images that did not come, known at the end of the series."),
    "images_refused": ("refused", "Images left out: another shape or type, or damaged."),
    "images_duplicate": ("duplicates", "Images left out: they had come before."),
    "images_late": ("late", "Images left out: their file was closed already."),
    "images_out_of_range": ("out_of_range", "Images left out: beyond the announced number."),
    "results_left_out": ("results_left_out", "Results of images that the files have no room for."),
    "spots_cut": ("spots_cut", "Spots beyond the most that an image may have; the weakest."),
    "metadata_left_out": ("metadata_left_out", "Values of metadata messages that the master has no place for."),
}
"""Field → (count of the series, description)."""

_MESSAGES = {
    "messages_unreadable": ("unreadable", "Messages that are no Stream V2, since the writer began."),
    "images_strays": ("strays", "Images without a start message, since the writer began."),
    "ends_lost": ("ends_lost", "End messages that did not come, since the writer began."),
    "republished": ("republished", "Messages passed on, since the writer began."),
    "republish_dropped": ("republish_dropped", "Messages that nobody took, since the writer began."),
}
"""Field → (count of messages, description)."""

_NUMBERS = {
    "progress": ("progress", None, "Share of the series that is in its files, 0 to 1."),
    "frame_rate": ("frame_rate", "Hz", "Images written per second."),
    "data_rate": ("data_rate", "B/s", "Bytes written per second."),
    "bytes_written": ("bytes_written", "B", "Bytes written for the series."),
    "synchronised": ("synchronised", None, "1 while what comes belongs to the series that is written, else 0."),
    "connected": ("connected", None, "Sockets of the sender that are connected."),
}
"""Field → (key of the status, units, description)."""

_TEXTS = {
    "state": ("state", "READY or WRITING."),
    "acquisition_state": ("acquisition_state", "How far the current or last series is."),
    "file_prefix": ("file_prefix", "Of the current or last series, as its sender gave it."),
    "message": ("message", "How the series fares."),
}
"""Field → (key of the status, description)."""


class JungfraujochWriter(DataNodeServer):
    """NXmx files of what a Stream V2 or Jungfraujoch sender sends."""

    class Options(DataNodeServer.Options):
        """Where to connect, and how to write."""

        connect: list[str] = Field(min_length=1, description="ZeroMQ addresses of the sender, as tcp://host:5400.")
        directory: Path = Field(
            Path(), description="Folder of the files, relative to the site's data root; made when it is missing."
        )
        http_port: int | None = Field(None, ge=0, le=65535, description="Port for status and cancel. Default: none.")
        republish_port: int | None = Field(
            None, ge=0, le=65535, description="Port of a PUSH socket that passes all messages on. Default: none."
        )
        file_port: int | None = Field(
            None, ge=0, le=65535, description="Port of a PUB socket that tells of finalised files. Default: none."
        )
        host: str = Field("127.0.0.1", description="Address of these ports; 0.0.0.0 for every network.")
        receive_watermark: int = Field(100, ge=1, description="Messages that may wait to be read.")
        republish_watermark: int = Field(1000, ge=1, description="Messages that may wait to be republished.")
        images_per_file: int = Field(1000, ge=1, description="Images in one data file, where the sender does not say.")
        file_prefix: str | None = Field(
            None,
            description="File prefix where the sender gives none; {series_id} and {series_unique_id} are filled in.",
        )
        overwrite: bool = Field(False, description="Whether files of the same name give way, or refuse a series.")
        compression: Literal["bslz4", "none"] = Field("bslz4", description="Of images that come without.")
        master: MasterLayout = Field(
            "legacy",
            description="How the master shows the images: links to the data files (legacy), one virtual dataset over "
            "them (vds), or all in one file (integrated).",
        )
        threads: int = Field(2, ge=1, le=64, description="Threads that compress.")
        flush_interval: float = Field(
            1.0, gt=0, le=60, description="Time between flushes [s]: what the death of the process may cost."
        )
        end_timeout: float = Field(10.0, gt=0, description="How long an end message that is due is waited for [s].")

    writer: StreamWriter | None = None
    http: Any = None

    def setup(self) -> Any:
        """Declare the fields, open the ports and begin to take messages."""
        for name, (_, units, about) in _NUMBERS.items():
            self.series(name, units=units, description=about, timeline="status", keep=86400)
        for name, (_, about) in (_IMAGES | _MESSAGES).items():
            self.series(name, description=about, timeline="status", keep=86400)
        for name, (_, about) in _TEXTS.items():
            self.series(name, type="string", description=about, timeline="status", keep=86400)
        self.series("last_file", type="string", description="A data file that was closed.", timeline="files")
        self.series("images", description="Images in that file.", timeline="files")
        self.register_control("cancel", self.cancel, in_thread=True)
        self.register_control("status", self.status)
        self.register_control("log", self.recorded_acquisitions, in_thread=True)
        self._begin()

    def teardown(self) -> Any:
        """Close the files in order."""
        if self.http is not None:
            self.http.stopListening()
        return deferToThread(self.writer.close) if self.writer is not None else None

    def status(self) -> dict[str, Any]:
        """Return how far the current or last series is."""
        return self._running().status()

    def cancel(self) -> dict[str, Any]:
        """Close the files of the series under way, readable; return the status."""
        return self._running().cancel()

    def recorded_acquisitions(self, n: int = 100) -> list[dict[str, Any]]:
        """Return the newest series that have ended, newest first, failed ones included, kept over restarts."""
        return self._running().log(n)

    def _running(self) -> StreamWriter:
        if self.writer is None:
            raise ConfigurationError("the writer is not ready yet")
        return self.writer

    def _begin(self) -> None:
        options, root = self.options, self._root()
        root.mkdir(parents=True, exist_ok=True)
        self.writer = StreamWriter(
            WriterOptions(
                root=root,
                connect=options.connect,
                name=str(self.name),
                republish=self._address(options.republish_port),
                notices=self._address(options.file_port),
                receive_watermark=options.receive_watermark,
                republish_watermark=options.republish_watermark,
                images_per_file=options.images_per_file,
                file_prefix=options.file_prefix,
                overwrite=options.overwrite,
                compression=options.compression,
                master=options.master,
                threads=options.threads,
                flush_interval=options.flush_interval,
                end_timeout=options.end_timeout,
                journal=self.state.path / f"acquisitions-{self.name}.sqlite" if self.state is not None else None,
            ),
            on_status=self._publish_status,
            on_file=self._publish_file,
        )
        if options.http_port is not None:
            from twisted.internet import reactor

            from sisockdaq.jungfraujoch.http import listen

            self.http = listen(reactor, self.writer, options.host, options.http_port)
        self.writer.start()
        self.every(1.0, lambda: self._publish_status(self._running().status()))

    def _address(self, port: int | None) -> str | None:
        return None if port is None else f"tcp://{self.options.host}:{port or '*'}"

    def _root(self) -> Path:
        directory: Path = self.options.directory
        if self.site is not None:
            return Path(self.site.resolve_output(directory))
        return (self.state.data / directory if self.state is not None else directory).absolute()

    def _publish_status(self, status: Mapping[str, Any]) -> None:
        values: dict[str, Any] = {}
        for name, (key, _, _) in _NUMBERS.items():
            values[name] = float("nan") if status[key] is None else float(status[key])
        values |= {name: status["images"].get(key, 0) for name, (key, _) in _IMAGES.items()}
        values |= {name: status["messages"][key] for name, (key, _) in _MESSAGES.items()}
        values |= {name: str(status[key] or "") for name, (key, _) in _TEXTS.items()}
        self.store.timelines["status"].append(time.time(), values)

    def _publish_file(self, closed: ClosedFile) -> None:
        self.store.timelines["files"].append(time.time(), {"last_file": str(closed.path), "images": closed.images})
