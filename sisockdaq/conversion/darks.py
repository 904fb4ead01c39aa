"""Pedestals and bad pixels from dark frames."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sisockdaq.conversion.kernels import add_dark
from sisockdaq.conversion.pedestal import STAGE_CODES, STAGES, Pedestal, fault_bit, stage_index
from sisockdaq.errors import ConfigurationError

__all__ = ["DarkLimits", "DarkStatistics", "stage_of"]

_SAMPLE = 7
"""Every so many pixels are looked at for the stage that a frame is in."""

_LEAST_NOISE = 0.5
"""A stage whose usual noise is below this is judged as if it had this [ADU]: rounding alone makes 0.3."""


@dataclass(frozen=True)
class DarkLimits:
    """What a good pixel looks like in the dark.

    Attributes
    ----------
    least_frames : int
        Fewest samples of a stage that make a pedestal.
    noise_factor : float
        A pixel is noisy when its noise is more than this many times the median of its stage.
    stage_share : float
        Least share of a run's frames in which a pixel is in the stage that the run was for.
    """

    least_frames: int = 50
    noise_factor: float = 5.0
    stage_share: float = 0.9


def stage_of(raw: npt.NDArray[np.uint16]) -> str | None:
    """Return the stage that most pixels of a frame are in; None where that is no stage, or less than half of them."""
    codes = np.bincount(raw.reshape(-1)[::_SAMPLE] >> 14, minlength=4)
    code = int(codes.argmax())
    if code not in STAGE_CODES or 2 * codes[code] <= codes.sum():
        return None
    return STAGES[STAGE_CODES.index(code)]


@dataclass
class _Run:
    """Sums over the darks of one stage; differences to its first frame."""

    first: npt.NDArray[np.uint16]
    count: npt.NDArray[np.uint32]
    total: npt.NDArray[np.int64]
    square: npt.NDArray[np.int64]
    begun: float
    ended: float = 0.0
    frames: int = 0
    inside: int = 0
    invalid: int = 0


class DarkStatistics:
    """Adds up dark frames, one run after the other; gives the pedestal at any time.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns of the frames.
    limits : DarkLimits, optional
    """

    def __init__(self, shape: tuple[int, int], limits: DarkLimits | None = None) -> None:
        self.shape = shape
        self.limits = limits or DarkLimits()
        self.undecided = 0
        """Frames that were in no stage as a whole, and not added."""
        self._runs: dict[str, _Run] = {}

    @property
    def frames(self) -> dict[str, int]:
        """Frames added so far, by the stage that their run was for."""
        return {stage: run.frames for stage, run in self._runs.items()}

    @property
    def shares(self) -> dict[str, float]:
        """Share of all pixels that were in the stage of their run."""
        pixels = int(np.prod(self.shape))
        return {stage: run.inside / max(run.frames * pixels, 1) for stage, run in self._runs.items()}

    def forget(self, stage: str) -> None:
        """Leave out all frames of a stage's run: it is taken anew."""
        self._runs.pop(stage, None)

    def add(self, raw: npt.NDArray[np.uint16], stage: str | None = None) -> str | None:
        """Add a dark frame.

        Parameters
        ----------
        raw : ndarray of uint16, (ny, nx)
        stage : str, optional
            "G0", "G1", "G2": what the detector was told to be in. Default: what most pixels are in, for runs that go
            through the stages by themselves.

        Returns
        -------
        str or None
            The stage it was added to.

        Raises
        ------
        ConfigurationError
            When the stage is unknown, or the frame of another shape or type.
        """
        if raw.shape != self.shape or raw.dtype != np.uint16:
            raise ConfigurationError(f"a dark frame of {raw.shape} {raw.dtype}; {self.shape} uint16 is needed")
        found = stage_of(raw) if stage is None else stage
        if found is None:
            self.undecided += 1
            return None
        row = stage_index(found)
        flat = np.ascontiguousarray(raw).reshape(-1)
        run = self._runs.get(found)
        if run is None:
            n = flat.size
            run = self._runs[found] = _Run(
                flat.copy(), np.zeros(n, np.uint32), np.zeros(n, np.int64), np.zeros(n, np.int64), time.time()
            )
        inside, invalid = add_dark(flat, run.first, STAGE_CODES[row], run.count, run.total, run.square)
        run.inside += int(inside)
        run.invalid += int(invalid)
        run.frames += 1
        run.ended = time.time()
        return found

    def pedestal(self, origin: Mapping[str, Any] | None = None) -> Pedestal:
        """Return the pedestal of all frames so far.

        Raises
        ------
        ConfigurationError
            When no frame was added.
        """
        if not self._runs:
            raise ConfigurationError("no dark frame was added", remedy="take a dark run of each gain stage first")
        n = int(np.prod(self.shape))
        mean, noise = np.full((2, len(STAGES), n), np.nan)
        frames = np.zeros((len(STAGES), n), np.uint32)
        faults = np.zeros(n, np.uint32)
        for stage, run in self._runs.items():
            row = stage_index(stage)
            mean[row], noise[row] = _moments(run)
            frames[row] = run.count
            few = run.count < self.limits.least_frames
            mean[row][few] = noise[row][few] = np.nan
            self._find_faults(stage, run, noise[row], faults)
        maps = (len(STAGES), *self.shape)
        return Pedestal(
            mean=mean.reshape(maps).astype(np.float32),
            noise=noise.reshape(maps).astype(np.float32),
            frames=frames.reshape(maps),
            faults=faults.reshape(self.shape),
            origin={**(origin or {}), "runs": {stage: _about(run) for stage, run in self._runs.items()}},
        )

    def _find_faults(
        self, stage: str, run: _Run, noise: npt.NDArray[np.float64], faults: npt.NDArray[np.uint32]
    ) -> None:
        limits = self.limits
        seldom = run.count < max(limits.least_frames, limits.stage_share * run.frames)
        faults[seldom] |= fault_bit(stage, "in another stage")
        known = noise[np.isfinite(noise)]
        if not known.size:
            return
        usual = float(np.median(known))
        with np.errstate(invalid="ignore"):
            faults[noise > limits.noise_factor * max(usual, _LEAST_NOISE)] |= fault_bit(stage, "noisy")
            if usual > 0:
                faults[noise == 0] |= fault_bit(stage, "dead")


def _moments(run: _Run) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return mean and standard deviation of each pixel [ADU]."""
    n = np.maximum(run.count, 1).astype(np.float64)
    shift = run.total / n
    mean = (run.first & np.uint16(0x3FFF)) + shift
    return mean, np.sqrt(np.maximum(run.square / n - shift * shift, 0.0))


def _about(run: _Run) -> dict[str, Any]:
    return {"frames": run.frames, "begun": run.begun, "ended": run.ended, "pixels_in_no_stage": run.invalid}
