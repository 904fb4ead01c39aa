"""What dark runs say of each pixel: pure data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from sisockdaq.errors import ConfigurationError

__all__ = ["FAULTS", "PIXEL_FAULTS", "STAGES", "STAGE_CODES", "Pedestal", "fault_bit", "stage_index"]

STAGES = ("G0", "G1", "G2")
"""The gain stages in the order of all maps."""

STAGE_CODES = (0, 1, 3)
"""What a raw pixel in each of them has in its two highest bits."""

FAULTS = ("dead", "noisy", "in another stage")
"""A pixel that never changes; one whose noise is far above the others'; one that was not, or hardly ever, in the stage
that the detector was told to be in."""

_BITS_A_STAGE = 4

PIXEL_FAULTS = {
    _BITS_A_STAGE * row + bit: f"{stage} {fault}"
    for row, stage in enumerate(STAGES)
    for bit, fault in enumerate(FAULTS)
}
"""Meaning of the bits of `Pedestal.faults`."""


def stage_index(stage: str) -> int:
    """Return the place of a stage in all maps; raise `ConfigurationError` for an unknown one."""
    if stage not in STAGES:
        raise ConfigurationError(f'"{stage}" is not a gain stage (one of {", ".join(STAGES)})')
    return STAGES.index(stage)


def fault_bit(stage: str, fault: str) -> np.uint32:
    """Return the bit of a fault in `Pedestal.faults`, as a number."""
    return np.uint32(1 << (_BITS_A_STAGE * stage_index(stage) + FAULTS.index(fault)))


@dataclass(frozen=True)
class Pedestal:
    """Dark level of every pixel in every gain stage.

    Attributes
    ----------
    mean : ndarray of float32, (3, ny, nx)
        Mean dark ADC value; NaN where a pixel was never seen in that stage.
    noise : ndarray of float32, (3, ny, nx)
        Standard deviation of the dark ADC value.
    frames : ndarray of uint32, (3, ny, nx)
        Dark samples that went into the mean.
    faults : ndarray of uint32, (ny, nx)
        Why a pixel is bad, as bits (`PIXEL_FAULTS`); 0: good.
    origin : mapping
        Where it comes from: detector, times, runs; for the file.
    """

    mean: npt.NDArray[np.float32]
    noise: npt.NDArray[np.float32]
    frames: npt.NDArray[np.uint32]
    faults: npt.NDArray[np.uint32]
    origin: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = self.faults.shape
        for name, maps in (("mean", self.mean), ("noise", self.noise), ("frames", self.frames)):
            if maps.shape != (len(STAGES), *shape):
                raise ConfigurationError(
                    f"the pedestal's {name} has the shape {maps.shape}; {len(STAGES)} stages of {shape} were expected"
                )

    @classmethod
    def unknown(cls, shape: tuple[int, int]) -> Pedestal:
        """Return the pedestal of a detector that no dark was taken of: nothing can be converted with it."""
        maps = (len(STAGES), *shape)
        none = np.full(maps, np.nan, np.float32)
        return cls(none, none.copy(), np.zeros(maps, np.uint32), np.zeros(shape, np.uint32))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the image."""
        ny, nx = self.faults.shape
        return ny, nx

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages that any pixel was seen in."""
        return tuple(stage for stage, frames in zip(STAGES, self.frames, strict=True) if frames.any())

    def bad(self) -> npt.NDArray[np.bool_]:
        """Return where a pixel is not to be used, (ny, nx)."""
        bad: npt.NDArray[np.bool_] = self.faults != 0
        return bad

    def summary(self) -> dict[str, Any]:
        """Return ``{stage: {"frames", "mean", "noise", faults…}, "bad", "pixels"}``; JSON-able.

        Mean and noise are medians over the pixels [ADU]; faults and bad are numbers of pixels.
        """
        found: dict[str, Any] = {"bad": int(self.bad().sum()), "pixels": self.faults.size}
        for stage in self.stages:
            row = stage_index(stage)
            known = self.frames[row] > 0
            found[stage] = {
                "frames": int(self.frames[row].max()),
                "mean": _median(self.mean[row][known]),
                "noise": _median(self.noise[row][known]),
                **{fault: int(((self.faults & fault_bit(stage, fault)) != 0).sum()) for fault in FAULTS},
            }
        return found

    def joined(self, newer: Pedestal) -> Pedestal:
        """Return this pedestal with the stages, and their faults, that `newer` has taken from there."""
        self._same_shape(newer)
        fresh = np.array([stage in newer.stages for stage in STAGES])[:, None, None]
        replaced = np.uint32(sum(int(fault_bit(stage, fault)) for stage in newer.stages for fault in FAULTS))
        return Pedestal(
            mean=np.where(fresh, newer.mean, self.mean),
            noise=np.where(fresh, newer.noise, self.noise),
            frames=np.where(fresh, newer.frames, self.frames),
            faults=(self.faults & ~replaced) | newer.faults,
            origin=_joined_origin(self.origin, newer.origin),
        )

    def updated(self, newer: Pedestal, *, window: int | None = None) -> Pedestal:
        """Return the pedestal of all darks of both: a rolling update.

        Parameters
        ----------
        newer : Pedestal
            Of darks taken since, in any of the stages.
        window : int, optional
            What is known so far counts as at most so many frames: a drift is then followed, older darks fade.

        Notes
        -----
        Means and variances of two samples are pooled by their numbers: exactly those of all samples together, within
        float32, as long as the window is not reached.
        """
        self._same_shape(newer)
        ours = self.frames.astype(np.float64)
        if window is not None:
            ours = np.minimum(ours, window)
        theirs = newer.frames.astype(np.float64)
        both = np.maximum(ours + theirs, 1)
        a, b = np.where(ours > 0, self.mean, 0.0), np.where(theirs > 0, newer.mean, 0.0)
        mean = (ours * a + theirs * b) / both
        squares = ours * (np.where(ours > 0, self.noise, 0.0) ** 2 + (a - mean) ** 2)
        squares += theirs * (np.where(theirs > 0, newer.noise, 0.0) ** 2 + (b - mean) ** 2)
        noise = np.sqrt(squares / both)
        never = ours + theirs == 0
        mean[never] = noise[never] = np.nan
        return Pedestal(
            mean=mean.astype(np.float32),
            noise=noise.astype(np.float32),
            frames=(ours + theirs).astype(np.uint32),
            faults=self.joined(newer).faults,
            origin=_joined_origin(self.origin, newer.origin),
        )

    def _same_shape(self, other: Pedestal) -> None:
        if other.shape != self.shape:
            raise ConfigurationError(f"a pedestal of {other.shape} pixels cannot be joined with one of {self.shape}")


def _joined_origin(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Return where both come from; the runs of stages that were not taken again stay."""
    return {**old, **new, "runs": {**old.get("runs", {}), **new.get("runs", {})}}


def _median(values: npt.NDArray[np.float32]) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else float("nan")
