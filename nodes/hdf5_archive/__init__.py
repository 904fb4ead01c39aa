"""The archive of our own files as a node: what was live is found again under the same names.

Finding and reading are in `sisockdaq.nexus.archive`; this node watches the folder, scans it from time to time (a
watch misses what happens on another machine's side of a network file system), and answers the usual questions.
Beside them it has ``B.consumer.<name>.acquisitions()`` and ``B.consumer.<name>.get_image(acquisition, index, folder)``.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from autobahn.wamp.exception import ApplicationError
from autobahn.wamp.types import RegisterOptions
from pydantic import Field
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.logger import Logger
from twisted.python.failure import Failure

from sisockdaq import flow, schema, wire
from sisockdaq.base import DataNodeServer
from sisockdaq.errors import SisockdaqError
from sisockdaq.nexus.archive import Archive
from sisockdaq.nexus.index import Index
from sisockdaq.nexus.watching import FolderWatch
from sisockdaq.schema import SEPARATOR, FieldList, Reply

__all__ = ["Hdf5Archive"]

_log = Logger("sisockdaq.hdf5_archive")


class Hdf5Archive(DataNodeServer):
    """Recorded acquisitions: curves, numbers and images of every frame."""

    class Options(DataNodeServer.Options):
        """Which folder, and how often to look."""

        directory: Path = Field(
            Path(), description="Folder of the files, relative to the site's data root; made when it is missing."
        )
        scan_interval: float = Field(60.0, gt=0, description="Time between scans of the whole folder [s].")
        growing_interval: float = Field(1.0, gt=0, description="Time between looks at files that grow [s].")
        watch: bool = Field(True, description="Whether to have the kernel tell of new files.")

    def setup(self) -> Any:
        """Open the index and scan, in a thread."""
        for name, about in (
            ("files_whole", "Data files that are complete."),
            ("files_growing", "Data files that are being written."),
            ("files_broken", "Files that cannot be read."),
        ):
            self.series(name, description=about, timeline="status", keep=86400)
        self.root = self._root()
        self._watch: FolderWatch | None = None
        self._changed: queue.SimpleQueue[Path] = queue.SimpleQueue()
        self._next_scan = 0.0
        self._looking = threading.Lock()
        return self.in_thread(self._begin)

    def teardown(self) -> Any:
        """Stop watching."""
        if self._watch is not None:
            self._watch.close()

    @inlineCallbacks
    def after_onJoin(self, details: Any) -> Any:  # noqa: N802 - sisock's name
        """Offer what only an archive has."""
        prefix = self.uri(f"consumer.{self.name}.")
        yield self.register(self.acquisitions, prefix + "acquisitions")
        yield self.register(self.get_image, prefix + "get_image", options=RegisterOptions(details_arg="details"))

    def get_schema(self, start: float, end: float) -> Any:
        """Return the listing of everything recorded in ``[start, end)``, and of this node's own status."""
        first, last = schema.resolve_interval(start, end, time.time(), allow_empty=True)
        own = self.store.fields(first, last)

        def joined(recorded: FieldList) -> FieldList:
            return FieldList({**own.fields, **recorded.fields}, {**own.timelines, **recorded.timelines})

        return self.in_thread(self.archive.fields, first, last).addCallback(joined)

    def get_samples(
        self,
        fields: Sequence[str],
        start: float,
        end: float,
        max_points: int | None = None,
        min_stride: float | None = None,
    ) -> Any:
        """Return samples with typed arrays."""
        first, last = schema.resolve_interval(start, end, time.time(), allow_empty=True)

        def read() -> Reply:
            limits: dict[str, Any] = {"max_points": max_points, "min_stride": min_stride}
            reply: Reply = self.archive.get([name for name in fields if SEPARATOR in name], first, last, **limits)
            own = self.store.get([name for name in fields if SEPARATOR not in name], first, last, **limits)
            reply.samples.update(own.samples)
            reply.unknown.extend(own.unknown)
            return reply

        return self.in_thread(read)

    def acquisitions(self) -> Deferred[Any]:
        """Return every acquisition with its frames, files, span and ledger, oldest first."""
        return self._answer(lambda: schema.plain_values(self.archive.acquisitions()))

    def get_image(self, acquisition: str, index: int, folder: str | None = None, details: Any = None) -> Deferred[Any]:
        """Return one image of an acquisition, with ``mask`` where packets were lost (messages of `wire`)."""
        place = None if folder is None else str(folder)
        answer = self._answer(lambda: self.archive.image(str(acquisition), int(index), place))
        if details is None or details.progress is None:
            return answer.addCallback(wire.single_message)
        return answer.addCallback(lambda reply: flow.send(self, details.progress, wire.messages(reply)))

    def _answer(self, function: Callable[[], Any]) -> Deferred[Any]:
        return self.in_thread(function).addErrback(_to_wamp)

    def _root(self) -> Path:
        directory: Path = self.options.directory
        if self.site is not None:
            return Path(self.site.resolve_output(directory))
        return (self.state.data / directory if self.state is not None else directory).absolute()

    def _begin(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        place = self.state.path / f"archive-{self.name}.sqlite" if self.state is not None else None
        self.archive = Archive(self.root, Index(place))
        if self.options.watch:
            self._watch = FolderWatch(self.root, self._changed.put)
        self._look()
        self.every(self.options.growing_interval, self._look, in_thread=True)

    def _look(self) -> None:
        """Read what is new; everything, when it is time for a scan."""
        with self._looking:
            changed = []
            while not self._changed.empty():
                changed.append(self._changed.get())
            if time.monotonic() >= self._next_scan:
                self._next_scan = time.monotonic() + self.options.scan_interval
                self.archive.scan()
            else:
                self.archive.refresh(changed)
            status = self.archive.status()
        numbers = {name: status[name] for name in ("files_whole", "files_growing", "files_broken")}
        self.store.timelines["status"].append(time.time(), numbers)
        self._tell_problems(status["problems"])

    def _tell_problems(self, problems: dict[str, str]) -> None:
        """Log each broken file once for each reason."""
        told = self.__dict__.setdefault("_told", {})
        for path, reason in problems.items():
            if told.get(path) != reason:
                _log.warn("{reason}", reason=reason)
        self.__dict__["_told"] = problems


def _to_wamp(failure: Failure) -> Any:
    """Let an error of ours reach the caller as what it is."""
    if isinstance(failure.value, SisockdaqError):
        uri, args, kwargs = failure.value.to_wamp()
        raise ApplicationError(uri, *args, **kwargs)
    return failure
