"""Integrate recorded frames: reading, unpacking and integrating side by side, results in order.

Policy
------
- At most twice as many frames as threads, and two, are in memory; when all are under way, reading waits.
- A frame that cannot be read or does not fit is left out and told (`Outcome.failed`); those after it go on.
- Whoever asks to stop gets the frames that were taken up before.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sisockdaq.errors import FileUnreadable
from sisockdaq.reprocessing.recorded import Recorded, RecordedFrame

if TYPE_CHECKING:
    from sisockdaq.integrate.reduction import Reduced, Reducer

__all__ = ["Outcome", "reprocess"]

_MOST_REASONS = 1000
"""Frames of which the reason is kept why they failed."""

_FAILURES = (FileUnreadable, OSError, ValueError, TypeError)
"""What a damaged chunk or file, or an image of another shape, raises."""


@dataclass
class Outcome:
    """How it went.

    Attributes
    ----------
    frames : int
        That became curves.
    failures : int
        Frames that did not.
    not_normalized : int
        Frames among them without intensities: their monitor or transmission is missing, or not above 0.
    failed : dict of int → str
        Index and reason of those, of the first ones at least.
    seconds : float
        From the first frame read to the last one handed on.
    interrupted : bool
    """

    frames: int = 0
    failures: int = 0
    not_normalized: int = 0
    failed: dict[int, str] = field(default_factory=dict)
    seconds: float = 0.0
    interrupted: bool = False

    @property
    def rate(self) -> float:
        """Frames a second."""
        return self.frames / self.seconds if self.seconds > 0 else 0.0

    def fail(self, index: int, error: Exception) -> None:
        """Note a frame that did not become a curve."""
        self.failures += 1
        if len(self.failed) < _MOST_REASONS:
            self.failed[index] = str(error) or type(error).__name__


def reprocess(
    recorded: Recorded,
    reducer: Reducer,
    indices: Sequence[int] | npt.NDArray[np.int64],
    on_frame: Callable[[RecordedFrame, Reduced], None],
    *,
    factors: Mapping[str, npt.NDArray[np.float64]] | None = None,
    threads: int = 1,
    stop: Callable[[], bool] = lambda: False,
    progress: Callable[[int], None] = lambda done: None,
) -> Outcome:
    """Integrate frames of an acquisition.

    Parameters
    ----------
    recorded : Recorded
    reducer : Reducer
        Its integrator should be of one thread: frames are shared by threads here, not parts of them.
    indices : sequence of int
        Of frames that are present.
    on_frame : callable
        Gets each frame with what it became, in their order; in the caller's thread, as the two below.
    factors : mapping of str to ndarray, (total,), optional
        Monitor and transmission of each frame of the acquisition, where the settings name fields for them.
    threads : int
        Frames that are unpacked and integrated at once. The numbers do not depend on it.
    stop : callable
        Asked before each frame.
    progress : callable
        Told how many frames are done, failed ones included.
    """
    outcome = Outcome()
    begun = time.monotonic()
    known = factors or {}

    def work(frame: RecordedFrame) -> Reduced:
        return reducer.reduce(frame.load(), {name: float(values[frame.index]) for name, values in known.items()})

    for done, (frame, future) in enumerate(_side_by_side(recorded, work, indices, threads, stop, outcome), 1):
        try:
            reduced = future.result()
        except _FAILURES as error:
            outcome.fail(frame.index, error)
        else:
            on_frame(frame, reduced)
            outcome.frames += 1
            outcome.not_normalized += not reduced.has_intensities
        outcome.seconds = time.monotonic() - begun
        progress(done)
    return outcome


def _side_by_side(
    recorded: Recorded,
    work: Callable[[RecordedFrame], Reduced],
    indices: Sequence[int] | npt.NDArray[np.int64],
    threads: int,
    stop: Callable[[], bool],
    outcome: Outcome,
) -> Iterator[tuple[RecordedFrame, Future[Reduced]]]:
    """Read frames and have them integrated; give them out in order, the oldest when all threads have enough to do."""
    running: deque[tuple[RecordedFrame, Future[Reduced]]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="integrate")
    try:
        for index in indices:
            if stop():
                outcome.interrupted = True
                break
            frame = _read(recorded, int(index))
            running.append((frame, pool.submit(work, frame)))
            if len(running) > 2 * threads + 1:
                yield running.popleft()
        while running:
            yield running.popleft()
    finally:
        pool.shutdown(cancel_futures=True)  # where what comes out is not wanted any more


def _read(recorded: Recorded, index: int) -> RecordedFrame:
    """Read a frame; one that cannot be read says so when it is loaded."""
    try:
        return recorded.frame(index)
    except FileUnreadable as error:
        return RecordedFrame(index, float("nan"), -1, _raising(error))


def _raising(error: FileUnreadable) -> Callable[[], npt.NDArray[Any]]:
    def load() -> npt.NDArray[Any]:
        raise error

    return load
