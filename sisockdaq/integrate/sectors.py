"""Parts of an image that are integrated on their own: sectors of azimuth, rings, masks of several samples at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from sisockdaq.integrate._given import two_numbers
from sisockdaq.integrate.background import CurveSource

__all__ = ["Sector"]


@dataclass(frozen=True, slots=True)
class Sector:
    """A part of the image with a curve of its own; what is None is as in the integrator that it belongs to.

    Attributes
    ----------
    azimuth_range : (float, float), optional
        Azimuth angles [deg] in pyFAI's convention: 0 along a row towards larger columns, 90 towards larger rows (for
        the usual orientation), from -180 to 180. A range whose end is less than its begin goes across the
        discontinuity; so does one that goes beyond 180.
    radial_range : (float, float), optional
        Ends of the axis, in the sector's unit. With a unit of its own and no range, that of all its pixels.
    mask : path or array, optional
        Pixels other than 0 are not used, nor are those of the integrator's mask.
    bins : int, optional
        Points of the curve.
    unit : str, optional
        Unit of the axis.
    background : Result, (axis, intensity[, sigma]) or path, optional
        Background curve of this sector alone.
    """

    azimuth_range: tuple[float, float] | None = None
    radial_range: tuple[float, float] | None = None
    mask: Path | str | npt.NDArray[Any] | None = None
    bins: int | None = None
    unit: str | None = None
    background: CurveSource | None = None

    def __post_init__(self) -> None:
        for name in ("azimuth_range", "radial_range"):
            if getattr(self, name) is not None:
                two_numbers(name, getattr(self, name))
