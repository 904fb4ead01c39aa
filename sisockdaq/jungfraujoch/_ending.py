"""How a series ends: its files closed, its master sealed, told of.

A part of `service.StreamWriter`, in whose thread it runs.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from sisockdaq import acquisition as life
from sisockdaq.errors import SisockdaqError
from sisockdaq.jungfraujoch.books import Books, note
from sisockdaq.jungfraujoch.notices import finalised_file
from sisockdaq.jungfraujoch.options import WriterOptions
from sisockdaq.jungfraujoch.outlets import Outlets
from sisockdaq.jungfraujoch.series import Series
from sisockdaq.jungfraujoch.status import Tally, series_status
from sisockdaq.nexus.fileset import ClosedFile

__all__ = ["WRITE_ERRORS", "Ending"]

WRITE_ERRORS = (SisockdaqError, OSError, ValueError, TypeError, RuntimeError, OverflowError, MemoryError)
"""What writing may raise: our own errors, and what HDF5 and numpy make of a broken disk or a senseless number."""

_log = logging.getLogger(__name__)


class Ending:
    """The writer's share that ends a series; the writer sets the attributes."""

    options: WriterOptions
    machine: life.AcquisitionMachine
    tally: Tally
    books: Books
    _series: Series | None
    _outlets: Outlets | None
    _cancelled: tuple[int, str] | None
    _last_status: dict[str, Any]
    _on_file: Callable[[ClosedFile], None]

    def _look(self) -> None:
        raise NotImplementedError  # the writer's

    def _end_series(self, event: life.Event) -> None:
        """Close the files of the series and put it on record."""
        series = self._series
        if series is None:
            return
        try:
            self._close_series(series, event)
        finally:
            self._series = None
            series.close()
            self._look()

    def _close_series(self, series: Series, event: life.Event) -> None:
        now, name = time.time(), series.header.file_prefix
        self.machine.handle(event, now)
        if not self.machine.failure or isinstance(event, life.SourceLost):
            try:
                series.finish(self.tally.collected)
            except WRITE_ERRORS as error:
                self.machine.handle(life.WriteFailed(str(error)), now)
        if self.machine.failure:
            series.abandon()
        files = series.files
        written, closed = (files.images, len(files.closed)) if files is not None else (0, 0)
        ledger = series.ledger("failed" if self.machine.failure else "complete")
        # The series is its own source: its ledger is there at once, also when its sender is lost.
        instructions = self.machine.handle(life.Settled(name, ledger), now)
        instructions += self.machine.handle(life.Drained(written, closed), time.time())
        instructions += self.machine.handle(life.SourceLost("the series was ended"), time.time())
        for instruction in instructions:
            if isinstance(instruction, life.Seal) and files is not None:
                self._seal(series, instruction.reason, ledger)
        record = self.machine.current
        assert record is not None
        note(record, series)
        self.books.end(record)
        _log.info("%s: %s %s", name, record.state, record.message)
        self._last_status = series_status(series, self.tally, record)

    def _seal(self, series: Series, reason: str, ledger: dict[str, Any]) -> None:
        assert series.files is not None
        try:
            series.files.seal(ended=time.time(), reason=reason, ledger=ledger)
        except WRITE_ERRORS as error:
            _log.error("master of %s: %s", series.header.file_prefix, error)
            record = self.machine.current
            if record is not None and record.state is not life.AcquisitionState.FAILED:
                record.state, record.message = life.AcquisitionState.FAILED, f"ERROR: {error}"

    def _fail(self, error: Exception) -> None:
        """End the series by a failure to write; its further images are passed over."""
        series = self._series
        if series is None:
            _log.error("%s", error)
            return
        self._cancelled = series.header.key
        self._end_series(life.WriteFailed(str(error)))

    def _cancel(self) -> None:
        series = self._series
        if series is None:
            return
        self._cancelled = series.header.key
        self.machine.handle(life.StopRequested(), time.time())
        self._end_series(life.SourceEnded(series.header.file_prefix, "stopped", None))

    def _file_closed(self, closed: ClosedFile) -> None:
        self.tally.files_closed += 1
        series = self._series
        if self._outlets is not None and self._outlets.tells and series is not None and series.plan is not None:
            image = series.plan.image
            notice = finalised_file(
                series.header,
                filename=str(closed.path.relative_to(self.options.root)),
                nimages=closed.images,
                file_number=closed.number - 1,
                shape=image.shape,
                underload=image.fill_value,
            )
            self._outlets.tell(notice)
        self._on_file(closed)
