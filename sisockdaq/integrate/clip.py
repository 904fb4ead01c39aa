"""Statistics of whole rings: sigma clipping, and the variance within a ring, as pyFAI defines them.

A pixel's value is its signal over its weight. Its ring has a mean, Σ share · signal / Σ share · weight, and a standard
deviation, √(Σ variance / Σ (share · weight)²). The variances come from an error model:

``poisson``
    Σ share² · max(1, v) of the pixels as they were measured.
``azimuthal``
    The spread of the values around their mean: for each pixel in image order (share · weight)² · (value − mean before)
    · (value − mean after). Where weights differ within a ring this depends on the order; it is pyFAI's.
``hybrid``
    While clipping the azimuthal one, for the result the Poisson one.

Clipping leaves out what is further than ``threshold`` deviations from the mean, takes mean and deviation anew, and
goes on until nothing is left out or ``iterations`` are done. A ring of n pixels is never clipped closer than Chauvenet
would: at √(2 ln(n/√2π)) deviations.

Sources of the rules: pyFAI's ``sigma_clip_ng`` and ``integrate1d`` with ``method=(split, "csc"|"csr", "cython")``.
pyFAI takes pixels, dark, weights and shares as float32 and sums in float64; so does this module, and for the same
weights it rejects the same pixels. Three differences are on purpose:

- rings without a pixel are NaN, and their sums 0;
- the count of a ring is what was counted (pyFAI's clipping never reports less than 3);
- a split pixel that one ring rejects is out of all rings after it, the rings taken from the innermost. pyFAI does the
  same with one thread; with several it depends on which is faster.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from sisockdaq.errors import ConfigurationError
from sisockdaq.integrate import _rings
from sisockdaq.integrate.kernels import Frame
from sisockdaq.integrate.rings import Block, Rings, Room

__all__ = ["RingErrors", "RingSums", "azimuthal", "sigma_clip"]

RingErrors = Literal["poisson", "azimuthal", "hybrid"]

_MODELS = {"poisson": _rings.POISSON, "azimuthal": _rings.AZIMUTHAL, "hybrid": _rings.HYBRID}


@dataclass(frozen=True, slots=True)
class RingSums:
    """Sums of the pixels that count, by ring; all float64, (bins,).

    Attributes
    ----------
    signal, variance, weight, weight2, count : ndarray
        Σ share · signal, Σ share² · variance, Σ share · weight, Σ (share · weight)², Σ share.
    rejected : ndarray
        How many usable pixels were left out.
    rejected_mask : ndarray of bool, shape of the image, or None
        Which; where that was asked for.
    """

    signal: npt.NDArray[np.float64]
    variance: npt.NDArray[np.float64]
    weight: npt.NDArray[np.float64]
    weight2: npt.NDArray[np.float64]
    count: npt.NDArray[np.float64]
    rejected: npt.NDArray[np.float64]
    rejected_mask: npt.NDArray[np.bool_] | None = None

    @property
    def mean(self) -> npt.NDArray[np.float64]:
        """Σ signal / Σ weight; NaN for a ring without pixels."""
        return self._over(self.signal, self.weight)

    @property
    def deviation(self) -> npt.NDArray[np.float64]:
        """Standard deviation of a pixel of the ring (pyFAI's ``std``)."""
        with np.errstate(invalid="ignore"):
            return np.sqrt(self._over(self.variance, self.weight2))

    @property
    def error(self) -> npt.NDArray[np.float64]:
        """Standard error of the mean (pyFAI's ``sem``)."""
        with np.errstate(invalid="ignore"):
            return self._over(np.sqrt(self.variance), self.weight)

    def _over(self, above: npt.NDArray[np.float64], below: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.weight2 > 0, above / below, np.nan)


def sigma_clip(
    rings: Rings,
    frame: Frame,
    *,
    threshold: float = 5.0,
    iterations: int = 5,
    error_model: RingErrors = "azimuthal",
    want_mask: bool = False,
    threads: int = 1,
) -> RingSums:
    """Leave out what does not belong to its ring, and sum up the rest.

    Parameters
    ----------
    frame : Frame
        From `kernels.prepare`.
    threshold : float
        Standard deviations from the mean that a pixel may have; 0 for Chauvenet's criterion alone.
    iterations : int
        How often at most.
    want_mask : bool
        Whether to tell which pixels were rejected.
    threads : int
        How many work on the frame, which the result does not depend on. Rings that share split pixels depend on each
        other: they are always done by one.

    Raises
    ------
    ConfigurationError
        For a negative threshold or number of iterations, or an unknown error model.
    """
    if error_model not in _MODELS:
        known = ", ".join(get_args(RingErrors))
        raise ConfigurationError(f'"{error_model}" is not an error model of sigma clipping', remedy=f"one of {known}")
    if not threshold >= 0:
        raise ConfigurationError(f"threshold is {threshold:g}", remedy="give standard deviations, 0 or more")
    if iterations < 0:
        raise ConfigurationError(f"iterations is {iterations}", remedy="give 0 or more")
    gone = np.zeros(frame.pixels.size if want_mask else 0, np.uint8)
    out = _clip(rings, frame, _MODELS[error_model], threshold, iterations, gone, 1 if rings.split else threads)
    mask = gone.view(np.bool_).reshape(rings.shape) if want_mask else None
    return replace(RingSums(*out.T), rejected_mask=mask)


def azimuthal(rings: Rings, frame: Frame, *, threads: int = 1) -> RingSums:
    """Sum rings up, with the variance within each."""
    return RingSums(*_clip(rings, frame, _rings.AZIMUTHAL, 0.0, 0, np.zeros(0, np.uint8), threads).T)


def _clip(
    rings: Rings,
    frame: Frame,
    model: int,
    threshold: float,
    iterations: int,
    gone: npt.NDArray[np.uint8],
    threads: int,
) -> npt.NDArray[np.float64]:
    out = np.zeros((rings.bins, 6))
    carried = np.empty(rings.longest if rings.split else 0, np.int32)
    number = 0

    def work(block: Block, room: Room) -> None:
        nonlocal number
        part = slice(block.begin, block.end)
        number = _rings.clip_rings(
            room.values[: block.end - block.begin],
            rings.start[block.first : block.stop + 1] - block.begin,
            rings.weight[part],
            _part(rings.share, part),
            _part(rings.dark, part),
            rings.pixel[part],
            model,
            float(threshold),
            iterations,
            gone,
            carried,
            number,
            room.ring,
            out[block.first : block.stop],
        )

    rings.each_block(frame, work, threads)
    return out


def _part(array: npt.NDArray[Any], part: slice) -> npt.NDArray[Any]:
    return array[part] if array.size else array
