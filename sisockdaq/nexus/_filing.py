"""The writer's files over the life of one acquisition: opened, closed in order, sealed.

A part of `engine.WriterEngine`, in whose thread all of it runs. An acquisition of raw packets *instead* of images has
no files here: its frames are let go as they come, and counted; what is on disk is known from its source's end.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from sisockdaq import acquisition as life
from sisockdaq.errors import SisockdaqError
from sisockdaq.frames.messages import Description
from sisockdaq.frames.raw import RawWish
from sisockdaq.nexus._taking_up import TakingUp
from sisockdaq.nexus.epochs import epochs_of
from sisockdaq.nexus.fileset import AcquisitionFiles, ClosedFile
from sisockdaq.nexus.identity import writing_as
from sisockdaq.nexus.layout import ImagePlan
from sisockdaq.nexus.nxmx import MasterContent
from sisockdaq.nexus.packing import Packer
from sisockdaq.nexus.resuming import ledger_of_files
from sisockdaq.nexus.starting import all_facts, file_plan, fitting_mask, pixel_tables, place_of, raw_folder

__all__ = ["DRAIN_WAIT", "Filing"]

DRAIN_WAIT = 5.0
"""Time for the last results after the last image [s]; well within the time a source waits for reports."""

_log = logging.getLogger(__name__)


class Filing(TakingUp):
    """The engine's share that has files; the engine sets the attributes."""

    _as_user: contextlib.AbstractContextManager[None]
    _packer: Packer | None
    _drain_until: float | None
    _drain_expected: int | None
    _next_commit: float
    _results_written: dict[str, int]
    _passed: int
    _passing: life.Record | None
    _on_file: Callable[[str, ClosedFile], None]

    def _snapshot(self) -> dict[str, Any]:
        raise NotImplementedError  # the engine's

    def _open(self, request: life.Request, *, resume: bool) -> None:
        setting = self._setting(request, resume=resume)
        place = place_of(request, self.options)
        setting.record.raw = os.fspath(raw_folder(place)) if request.raw is not None else None
        self._progress.begin(request.frames, time.monotonic())
        self._results_written = dict.fromkeys(self._results, 0)
        self._passed = 0
        self._passing = None if request.writes_images else setting.record
        self._images.passing = self._passing is not None
        if self._passing is not None:
            self._files = None
            return
        setting.record.master = os.fspath(place.path)
        source = setting.image
        image = ImagePlan.from_description(source, setting.compression)
        plan = file_plan(setting, self.options)
        flatfield, calibration = pixel_tables(self.options, source)
        content = MasterContent(
            request.acquisition,
            image,
            all_facts(self.options, source, request),
            frames_requested=request.frames,
            started=time.time(),
            mask=fitting_mask(self.options, source),
            flatfield=flatfield,
            calibration=calibration,
            epochs=epochs_of(setting.results),
        )
        for name in sorted(self._results.keys() - {each.source for each in setting.results}):
            self._progress.note(f"without results of {name}: it is not attached")
        self._as_user = writing_as(request.user_id)
        with self._as_user:
            self._files = AcquisitionFiles(
                place.folder,
                place.prefix,
                plan,
                content,
                master=place.master,
                overwrite=self.options.overwrite,
                resume=resume,
                on_closed=self._file_closed,
            )
        if resume:
            self._go_on_with(self._files)
        self._prepare_packer(image)
        self._next_commit = time.monotonic() + self.options.flush_interval

    def _raw_wish(self, request: life.Request) -> RawWish | None:
        """Return what the source is to record."""
        if request.raw is None:
            return None
        folder = raw_folder(place_of(request, self.options))
        return RawWish(request.raw, os.fspath(folder), request.user_id)

    def _pass(self) -> None:
        """Count a frame whose packets its source records."""
        if self._passing is None or not self.machine.taking_frames:
            self._progress.discarded += 1
            return
        self._passed += 1
        self._progress.taken += 1
        self._handle(life.FramesCome())
        if self._passed == 1:
            self._handle(life.FirstFrame())

    def _learn_facts(self, source: Description) -> None:
        """Take over what a source says of the acquisition under way only after it was armed: a series' own facts."""
        files, record = self._files, self.machine.current
        if files is None or record is None or not self.machine.taking_frames:
            return
        try:
            with self._as_user:
                facts = all_facts(self.options, source, record.request)
                files.describe(facts, fitting_mask(self.options, source), *pixel_tables(self.options, source))
        except (SisockdaqError, ValueError, OSError) as error:
            self._handle(life.WriteFailed(str(error)))

    def _learn_epochs(self, source: Description) -> None:
        """Take over what a source of results tells of an epoch that it begins during the acquisition under way."""
        open_still = self.machine.taking_frames or self._drain_until is not None
        if self._files is None or source.source not in self._files.results or not open_still:
            return
        try:
            with self._as_user:
                self._files.learn_epochs(epochs_of([source]))
        except (SisockdaqError, ValueError, OSError) as error:
            self._handle(life.WriteFailed(str(error)))

    def _prepare_packer(self, image: ImagePlan) -> None:
        packer = self._packer
        if packer is None or (packer.shape, packer.dtype) != (image.shape, image.dtype):
            if packer is not None:
                packer.close()
            self._packer = Packer(image.shape, image.dtype, compression=image.compression, threads=self.options.threads)
        self._images.packer = self._packer

    def _file_closed(self, closed: ClosedFile) -> None:
        if self.machine.current is not None:
            self._on_file(self.machine.current.request.acquisition, closed)

    def _drain(self) -> None:
        """Close the data files once all results are there, or the wait for them is over."""
        if self._drain_until is None:
            return
        if self._files is None:
            self._drain_until = None
            self._drained()
            return
        if not self._files.results_complete and time.monotonic() < self._drain_until:
            return
        self._drain_until = None
        self._note_missing_results(self._files)
        try:
            with self._as_user:
                self._files.finish(self._drain_expected)
        except (SisockdaqError, ValueError, OSError) as error:
            self._handle(life.WriteFailed(str(error)))
            return
        self._drained()

    def _note_missing_results(self, files: AcquisitionFiles) -> None:
        """Tell of sources of results that were not waited for any longer."""
        for source in files.results_awaited:
            missing = files.images - self._results_written[source]
            if missing > 0:
                self._progress.note(
                    f"the results of {source} for {missing} of {files.images} frames are not in the files: it was more "
                    f"than {DRAIN_WAIT:g} s behind at the end (sisockdaq integrate makes them from the images)"
                )

    def _abandon(self) -> None:
        self._drain_until = None
        if self._files is not None:
            with self._as_user:
                self._files.abandon()
        self._drained()

    def _drained(self) -> None:
        self._want(None)
        files = self._files
        if files is not None:
            self._progress.learn(files.plan.image.frame_bytes)
        written, closed = (files.images, len(files.closed)) if files is not None else (self._passed, 0)
        self._handle(life.Drained(written, closed))

    def _seal(self, reason: str, ledger: Mapping[str, Any] | None) -> None:
        record = self.machine.current
        assert record is not None
        if self._files is not None:
            try:
                with self._as_user:
                    if ledger is None:
                        ledger = record.ledger = self._own_ledger(self._files, record.request.acquisition)
                    self._files.seal(ended=record.ended or time.time(), reason=reason, ledger=ledger)
            except (SisockdaqError, OSError) as error:
                _log.error("the master file could not be finished: %s", error)
                if record.state is not life.AcquisitionState.FAILED:
                    record.state = life.AcquisitionState.FAILED
                    record.message = f"ERROR: the master file could not be finished: {error}"
        self._snapshot()
        self._journal.end(record)

    def _own_ledger(self, files: AcquisitionFiles, acquisition: str) -> dict[str, Any]:
        """Return what this writer alone can tell of an acquisition whose source has gone without a ledger."""
        counts = {"frames_written": files.images, "files_closed": len(files.closed)}
        if self._recovering is not None:
            return ledger_of_files(acquisition, self.options.name, files.files, counts)
        return self._progress.own_ledger(acquisition, self.options.name, counts)
