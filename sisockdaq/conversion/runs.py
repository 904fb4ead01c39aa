"""Dark runs on a live receiver: it is told which stage the detector is in, takes frames, and tells what it found.

`offer` is called with every raw frame, in the receiver's thread, and only copies; a thread of its own adds up. Frames
that come faster than that are left out and counted: a pedestal needs many darks, not all of them.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sisockdaq.conversion.darks import DarkLimits, DarkStatistics
from sisockdaq.conversion.kernels import warm_up
from sisockdaq.conversion.pedestal import Pedestal, stage_index
from sisockdaq.errors import AcquisitionRefused, ConfigurationError

__all__ = ["DarkRuns"]

_BUFFERS = 8
"""Copies of frames that wait to be added."""

_END = "end"


@dataclass
class _Now:
    """The run under way."""

    stage: str
    wanted: int
    taken: int = 0
    skipped: int = 0
    partial: int = 0


class DarkRuns:
    """Takes one dark run after the other, from frames that are offered to it.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns of a raw frame.
    limits : DarkLimits, optional
    """

    def __init__(self, shape: tuple[int, int], limits: DarkLimits | None = None) -> None:
        self.limits = limits or DarkLimits()
        self._statistics = DarkStatistics(shape, self.limits)
        self._shape = shape
        self._now: _Now | None = None
        self._last: _Now | None = None
        self._lock = threading.Lock()
        self._spare: queue.SimpleQueue[npt.NDArray[np.uint16]] = queue.SimpleQueue()
        self._full: queue.SimpleQueue[npt.NDArray[np.uint16] | str | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._idle = threading.Event()
        self._idle.set()

    @property
    def active(self) -> bool:
        """Whether a run is under way."""
        return self._now is not None

    def take(self, stage: str, frames: int) -> None:
        """Begin a dark run; what was taken in that stage before is forgotten.

        Raises
        ------
        ConfigurationError
            When the stage is unknown, or too few frames are asked for.
        AcquisitionRefused
            When a run is under way.
        """
        stage_index(stage)
        if frames < self.limits.least_frames:
            raise ConfigurationError(
                f"{frames} darks make no pedestal", remedy=f"take {self.limits.least_frames} at least; 1000 are usual"
            )
        with self._lock:
            if self._now is not None:
                raise AcquisitionRefused(f"a dark run of {self._now.stage} is under way", remedy="stop it first")
            if not self._idle.wait(5.0):
                raise AcquisitionRefused("the last dark run is still being added up", remedy="try again")
            self._begin()
            self._statistics.forget(stage)
            self._idle.clear()
            self._now = _Now(stage, frames)

    def _begin(self) -> None:
        """Make thread and buffers, once they are needed."""
        if self._thread is None:
            warm_up([])
            for _ in range(_BUFFERS):
                self._spare.put(np.empty(self._shape, np.uint16))
            self._thread = threading.Thread(target=self._run, name="darks", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the run under way, with what it has; nothing happens when there is none."""
        with self._lock:
            if self._now is not None:
                self._last, self._now = self._now, None
                self._full.put(None)

    def offer(self, raw: npt.NDArray[Any] | None, *, complete: bool) -> None:
        """Show a raw frame of the receiver's; it is copied if a run wants it."""
        now = self._now
        if now is None or raw is None:
            return
        if not complete:
            now.partial += 1
            return
        try:
            room = self._spare.get_nowait()
        except queue.Empty:
            now.skipped += 1
            return
        np.copyto(room, raw)
        with self._lock:
            if self._now is not now:
                self._spare.put(room)
                return
            self._full.put(room)
            now.taken += 1
            if now.taken >= now.wanted:
                self._last, self._now = now, None
                self._full.put(None)

    def status(self) -> dict[str, Any]:
        """Return ``{"active", "stage", "frames", "wanted", "skipped", "partial", "shares", "taken"}``; JSON-able.

        ``shares`` says for each stage taken how many of the pixels were in it; ``taken`` its frames.
        """
        run = self._now or self._last
        shown: dict[str, Any] = {"stage": None, "frames": 0, "wanted": 0, "skipped": 0, "partial": 0}
        if run is not None:
            shown = {
                "stage": run.stage,
                "frames": run.taken,
                "wanted": run.wanted,
                "skipped": run.skipped,
                "partial": run.partial,
            }
        idle = self._idle.is_set()
        return {
            "active": self._now is not None or not idle,
            **shown,
            "shares": self._statistics.shares if idle else {},
            "taken": self._statistics.frames if idle else {},
        }

    def pedestal(self, origin: Mapping[str, Any] | None = None) -> Pedestal:
        """Return the pedestal of all runs so far.

        Raises
        ------
        AcquisitionRefused
            While a run is under way.
        ConfigurationError
            When there was none.
        """
        if self.active or not self._idle.wait(5.0):
            raise AcquisitionRefused("a dark run is under way", remedy="wait for its end, or stop it")
        return self._statistics.pedestal(origin)

    def clear(self) -> None:
        """Forget all runs."""
        self.stop()
        if self._idle.wait(5.0):
            self._statistics = DarkStatistics(self._shape, self.limits)
            self._last = None

    def close(self) -> None:
        """End the thread."""
        self.stop()
        thread, self._thread = self._thread, None
        if thread is not None:
            self._full.put(_END)
            thread.join(5.0)

    def _run(self) -> None:
        while True:
            frame = self._full.get()
            if isinstance(frame, str):
                return
            if frame is None:
                self._idle.set()
                continue
            run = self._now or self._last
            assert run is not None
            self._statistics.add(frame, run.stage)
            self._spare.put(frame)
