"""How the writer's engine takes a start: at once, or as soon as its source of images is back.

A receiver that was given a new configuration, or was restarted, offers its frames anew, and the writer attaches to them
by itself; a script does not see that moment. So a start waits for a source that went a moment ago (`BACK_WITHIN`), or
that a writer which has only just begun has not met yet; without any in sight it is refused at once. A part of
`engine.WriterEngine`, in whose thread all of it runs.
"""

from __future__ import annotations

import time
from concurrent.futures import Future
from typing import Any

from sisockdaq import acquisition as life
from sisockdaq.errors import AcquisitionRefused, SisockdaqError
from sisockdaq.nexus._filing import Filing
from sisockdaq.nexus.starting import completed, refuse_obstacles

__all__ = ["BACK_WITHIN", "Beginning"]

BACK_WITHIN = 5.0
"""Time that a source gets to be back after it went [s]: one with a new configuration needs a fraction of a second."""


class Beginning(Filing):
    """The engine's share that begins acquisitions."""

    user_id: int | None
    _under_way: str | None
    _warnings: list[str]
    _begun: Future[dict[str, Any]]  # of the newest start
    _waiting: list[tuple[life.Request, Future[dict[str, Any]]]]
    _source_expected_until: float

    def _announce(self) -> None:
        raise NotImplementedError  # the engine's

    def _start(self, request: life.Request) -> Future[dict[str, Any]]:
        """Begin an acquisition, or let it wait for its source; the result is there once the source has begun too."""
        self.machine.check_ready()
        begun: Future[dict[str, Any]] = Future()
        if None not in self._descriptions and time.monotonic() < self._source_expected_until:
            self._waiting.append((request, begun))
        else:
            self._begin(request, begun)
        return begun

    def _source_went(self) -> None:
        self._source_expected_until = time.monotonic() + BACK_WITHIN

    def _begin_waiting(self) -> None:
        """Begin what waits for a source that is there now, or will not come any more."""
        if None not in self._descriptions and time.monotonic() < self._source_expected_until:
            return
        waiting, self._waiting = self._waiting, []
        for request, begun in waiting:
            try:
                self._begin(request, begun)
            except Exception as error:  # belongs to the caller
                begun.set_exception(error)

    def _refuse_waiting(self, reason: str) -> None:
        waiting, self._waiting = self._waiting, []
        for request, begun in waiting:
            begun.set_exception(AcquisitionRefused(f"{request.acquisition} was not begun: {reason}"))

    def _begin(self, request: life.Request, begun: Future[dict[str, Any]]) -> None:
        self.machine.check_ready()
        request = completed(request, self.user_id)
        source = self._descriptions.get(None)
        self._warnings = refuse_obstacles(request, self.options, source, self._under_way, self._progress.ratio)
        instructions = self.machine.start(request, time.time())
        try:
            self._carry_out(instructions)
        except SisockdaqError as error:
            self.machine.refused()
            self._journal.forget()
            self._files = None
            self._announce()
            raise AcquisitionRefused(
                f"cannot start {request.acquisition}: {error.message}", remedy=error.remedy, reasons=[str(error)]
            ) from error
        self._begun = begun
