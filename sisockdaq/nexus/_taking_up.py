"""How the writer's engine takes up, or closes the books of, what an earlier life of the writer left behind.

A source that still goes on with an acquisition is written on; what no source goes on with is sealed from its files
alone. A part of `engine.WriterEngine`, in whose thread all of it runs.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import replace

from sisockdaq import acquisition as life
from sisockdaq.errors import SisockdaqError
from sisockdaq.frames.messages import Description, Stop
from sisockdaq.nexus.fileset import AcquisitionFiles
from sisockdaq.nexus.intake import ImageIntake, ResultsIntake
from sisockdaq.nexus.journal import Journal, Unfinished
from sisockdaq.nexus.options import EngineOptions
from sisockdaq.nexus.progress import Progress
from sisockdaq.nexus.resuming import LEFT_REASON

__all__ = ["TakingUp"]

_log = logging.getLogger(__name__)


class TakingUp:
    """The engine's share that looks back; the engine sets the attributes and calls `_resume` from time to time."""

    options: EngineOptions
    machine: life.AcquisitionMachine
    _journal: Journal
    _images: ImageIntake
    _results: Mapping[str, ResultsIntake]
    _descriptions: dict[str | None, Description]
    _left_behind: life.Request | None
    _unfinished: list[Unfinished]
    _recovering: Unfinished | None
    _recover_by: float
    _resume_by: float
    _progress: Progress
    _files: AcquisitionFiles | None

    def _carry_out(self, instructions: list[life.Instruction]) -> None:
        raise NotImplementedError  # the engine's

    def _handle(self, event: life.Event) -> None:
        raise NotImplementedError  # the engine's

    def _want(self, acquisition: str | None) -> None:
        raise NotImplementedError  # the engine's

    def _resume(self, now: float) -> None:
        """Take up what an earlier life of this writer left behind, once results are attached or were waited for."""
        request = self._left_behind
        if self.machine.state is not life.WriterState.READY and self.machine.left is None:
            return
        if request is None:
            if self._unfinished and (None in self._descriptions or now > self._recover_by):
                self._recover(len(self._unfinished))
            return
        if self._results.keys() - self._descriptions.keys() and now < self._resume_by:
            return
        self._left_behind = None
        newest = self._unfinished[-1].record if self._unfinished else None
        is_that = newest is not None and newest.request.acquisition == request.acquisition
        self._recover(len(self._unfinished) - is_that)
        self._unfinished.clear()
        if not is_that and self._has_ended(request):
            self._images.request(Stop(request.acquisition, "failed"))
            return
        record = newest if newest is not None and is_that else life.Record(request, started=time.time())
        self._try_files(self.machine.resume(record, time.time()), "cannot be taken up again")
        if self.machine.taking_frames:
            self._want(request.acquisition)
            self._progress.note("taken up again after the writer's restart")

    def _has_ended(self, request: life.Request) -> bool:
        """Whether an earlier life of this writer has closed the books of that very run."""
        mark = request.acquisition, request.run_id
        return any((each.request.acquisition, each.request.run_id) == mark for each in self.machine.history)

    def _recover(self, count: int) -> None:
        """Close the books of the oldest acquisitions that no writer has closed, from their files alone."""
        for _ in range(count):
            left = self._unfinished.pop(0)
            _log.warning("%s: %s", left.record.request.acquisition, LEFT_REASON)
            self._recovering = left
            try:
                self._try_files(self.machine.recover(left.record, LEFT_REASON, time.time()), "cannot be closed")
            finally:
                self._recovering = None

    def _try_files(self, instructions: list[life.Instruction], what: str) -> None:
        """Go on with files that are there; what cannot be read ends the acquisition, with the reason."""
        assert self.machine.current is not None
        name = self.machine.current.request.acquisition
        try:
            self._carry_out(instructions)
        except (SisockdaqError, OSError) as error:
            _log.error("%s %s: %s", name, what, error)
            self._files = None
            self._handle(life.WriterEnds(f"its files {what}: {error}"))

    def _setting(self, request: life.Request, *, resume: bool) -> Unfinished:
        """Return how the files are laid out, and note it in the journal: as it was, for what a dead writer left."""
        record = self.machine.current
        assert record is not None
        if self._recovering is not None:
            self._journal.take_up(request.acquisition)
            return replace(self._recovering, record=record)
        attached = [self._descriptions[name] for name in self._results if name in self._descriptions]
        options = self.options
        setting = Unfinished(record, options.images_per_file, options.compression, self._descriptions[None], attached)
        if not (resume and self._journal.take_up(request.acquisition)):
            self._journal.begin(setting)
        return setting

    def _go_on_with(self, files: AcquisitionFiles) -> None:
        """Count from what is in the files of an earlier life on."""
        self._progress.begin(
            self._progress.wanted, time.monotonic(), written=files.images, reached=files.next_index, size=0
        )
        if self._recovering is not None:
            for name in files.results:
                files.results_ended(name)
