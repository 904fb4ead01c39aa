"""Azimuthal integration of images into curves: pyFAI's results, by our own kernels; usable without any network.

::

    from sisockdaq.integrate import Integrator

    integrator = Integrator("detector.poni", mask="mask.npy", bins=1000, error_model="poisson")
    result = integrator.integrate(image)
    result.axis, result.intensity, result.sigma

Promises
--------
- Same as pyFAI's ``integrate1d`` with ``method=(split, "csc", "cython")``: the sums of unsplit integers to the last
  bit, intensities to 1e-6. Two differences are on purpose: integers are summed as integers (pyFAI rounds pixels to
  float32 first), and a bin without pixels is NaN, not 0.
- One object may be used by several threads at once.
- Whatever is wrong with geometry, mask or options is said when the object is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sisockdaq.errors import ConfigurationError
from sisockdaq.integrate import kernels
from sisockdaq.integrate.geometry import load_geometry, locate_pixels, radial_unit
from sisockdaq.integrate.kernels import ErrorModel
from sisockdaq.integrate.maps import BinMap, Split, build_map
from sisockdaq.integrate.masks import load_mask, to_mask

if TYPE_CHECKING:
    from pyFAI.integrator.azimuthal import AzimuthalIntegrator

__all__ = ["Box", "Integrator", "Result"]

Box = tuple[int, int, int, int]
"""A region of an image: (x0, y0, x1, y1), the pixels with x0 ≤ x < x1 and y0 ≤ y < y1."""

_EMPTY_SHARE = 1e-9
"""A split bin is empty when lost pixels leave less than this of its weight: the rest is rounding."""


@dataclass(frozen=True, slots=True)
class Result:
    """One frame's curve and numbers.

    Attributes
    ----------
    axis : ndarray of float64, (bins,)
        Bin centres, in the unit that was asked for. Shared by all results; read-only.
    intensity : ndarray of float64, (bins,)
        Σ signal / Σ normalization; NaN where no pixel counts.
    sigma : ndarray of float64, (bins,) or None
        Its standard error, by the error model.
    sum_signal : ndarray, (bins,)
        Σ share · pixel; integers (uint64, int64) for integers without splitting.
    sum_variance : ndarray of float64, (bins,) or None
        Σ share² · max(1, pixel).
    sum_normalization, count : ndarray of float64, (bins,)
        Σ share · (solid angle × polarization), and Σ share, of the pixels that were used.
    total : int or float
        Sum of all pixels that are neither masked nor unusable, inside the radial range or not.
    maximum : int, float or None
        The largest of them; None where it was not asked for, NaN where there are none.
    rois : dict
        Sum of those inside each region.
    unusable : int
        Pixels that were left out because they are NaN or have the dummy value.
    """

    axis: npt.NDArray[np.float64]
    intensity: npt.NDArray[np.float64]
    sigma: npt.NDArray[np.float64] | None
    sum_signal: npt.NDArray[Any]
    sum_variance: npt.NDArray[np.float64] | None
    sum_normalization: npt.NDArray[np.float64]
    count: npt.NDArray[np.float64]
    total: float
    maximum: float | None
    rois: dict[str, float] = field(default_factory=dict)
    unusable: int = 0


class Integrator:
    """Integrate images of one detector in one geometry.

    Parameters
    ----------
    geometry : path, mapping or pyFAI AzimuthalIntegrator
        PONI file, or parameters as for `load_geometry`.
    shape : (rows, columns), optional
        Of the images; needed where the geometry does not name it.
    pixel_size : float or (float, float), optional
        Edge of a pixel [m]; needed with a mapping.
    mask : path or array, optional
        Pixels other than 0 are not used. By default the mask that pyFAI knows for the PONI's detector; as in pyFAI, a
        given mask replaces that one.
    bins : int
        Points of the curve.
    unit : str
        ``q_nm^-1``, ``q_A^-1``, ``2th_deg``, ``2th_rad`` or ``r_mm``.
    split : str
        ``no``, or ``bbox`` for bounding boxes.
    radial_range : (float, float), optional
        Ends of the axis, in `unit`; by default those of the pixels that are used.
    polarization : float, optional
        Polarization factor from -1 (vertical) to 1 (horizontal); None for no correction.
    solid_angle : bool
        Whether to correct for the solid angle.
    error_model : str, optional
        ``poisson`` for `Result.sigma`.
    dummy : float, optional
        Pixels of this value are left out, as the fill value of lost packets is. (NaN always is.)
    rois : mapping of str to (x0, y0, x1, y1), optional
        Regions to sum; upper ends not included.
    maximum : bool
        Whether to find the maximum of each frame.

    Attributes
    ----------
    axis : ndarray of float64, (bins,)
        Bin centres, in the unit that was asked for.
    unit : RadialUnit
        That unit.
    dummy : float or None
        As the parameter; may be changed between frames.

    Raises
    ------
    GeometryError, MaskError, ConfigurationError
    """

    def __init__(
        self,
        geometry: Path | str | Mapping[str, Any] | AzimuthalIntegrator,
        *,
        shape: tuple[int, int] | None = None,
        pixel_size: float | tuple[float, float] | None = None,
        mask: Path | str | npt.NDArray[Any] | None = None,
        bins: int = 1000,
        unit: str = "q_nm^-1",
        split: Split = "no",
        radial_range: tuple[float, float] | None = None,
        polarization: float | None = None,
        solid_angle: bool = True,
        error_model: ErrorModel | None = None,
        dummy: float | None = None,
        rois: Mapping[str, Box] | None = None,
        maximum: bool = False,
    ) -> None:
        if split not in ("no", "bbox"):
            raise ConfigurationError(f'"{split}" is not a splitting', remedy="one of no, bbox")
        if error_model not in (None, "poisson"):
            raise ConfigurationError(f'"{error_model}" is not an error model', remedy="poisson, or none")
        self.unit = radial_unit(unit)
        pyfai = load_geometry(geometry, shape=shape, pixel_size=pixel_size)
        hidden = self._mask(mask, pyfai)
        pixels = locate_pixels(pyfai, unit, split=split == "bbox", solid_angle=solid_angle, polarization=polarization)
        ends = None if radial_range is None else (radial_range[0] / self.unit.scale, radial_range[1] / self.unit.scale)
        self._errors = error_model == "poisson"
        self.dummy = dummy
        self._maximum = maximum
        self._use(build_map(pixels, hidden, bins=bins, radial_range=ends))
        self._rois = {name: self._box(name, box) for name, box in (rois or {}).items()}

    def _use(self, bin_map: BinMap) -> None:
        """Take a map, and compute what does not depend on the frame."""
        self._map = bin_map
        self.axis = bin_map.axis * self.unit.scale
        self.axis.flags.writeable = False
        self._normalization = self._sum(bin_map.normalization)
        self._count = self._sum(np.ones(bin_map.normalization.size, np.float32))
        populations = np.bincount(bin_map.index, minlength=bin_map.entries + 2)[: bin_map.entries + 1]
        self._most = int(populations.max())
        self._used = int(populations.sum())

    def _sum(self, weights: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        return kernels.sum_frame(self._map, kernels.prepare(weights.reshape(self.shape), None)).signal

    @property
    def has_errors(self) -> bool:
        """Whether results have a sigma."""
        return self._errors

    @property
    def rois(self) -> dict[str, Box]:
        """The regions that are summed, by name."""
        return dict(self._rois)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the images."""
        return self._map.shape

    @property
    def bins(self) -> int:
        """Points of the curve."""
        return self._map.bins

    @property
    def bin_map(self) -> BinMap:
        """Which pixel counts to which bin."""
        return self._map

    @property
    def pixels_used(self) -> int:
        """Number of pixels that are not masked."""
        return self._used

    def warm_up(self, dtype: npt.DTypeLike) -> None:
        """Compile the kernels for images of that type, and touch the map's memory."""
        self.integrate(np.zeros(self.shape, dtype))

    def integrate(self, image: npt.NDArray[Any]) -> Result:
        """Integrate one image.

        Parameters
        ----------
        image : ndarray, `shape`
            Integers or floats, of any byte order; not changed.

        Raises
        ------
        ValueError, TypeError
            For an image of another shape, or of a type that is no number.
        """
        if image.shape != self.shape:
            raise ValueError(f"the image has shape {image.shape}, this integrator is for {self.shape}")
        frame = kernels.prepare(image, self.dummy)
        sums = kernels.sum_frame(self._map, frame, errors=self._errors, maximum=self._maximum, most=self._most)
        normalization, count = self._denominators(sums)
        sigma = None
        with np.errstate(divide="ignore", invalid="ignore"):
            intensity = sums.signal / normalization
            if sums.variance is not None:
                sigma = np.sqrt(sums.variance) / normalization
        return Result(
            axis=self.axis,
            intensity=intensity,
            sigma=sigma,
            sum_signal=sums.signal,
            sum_variance=sums.variance,
            sum_normalization=normalization,
            count=count,
            total=sums.total,
            maximum=sums.maximum if sums.unusable < self._used else self._no_maximum,
            rois={name: kernels.region_sum(self._map, frame, box) for name, box in self._rois.items()},
            unusable=sums.unusable,
        )

    @property
    def _no_maximum(self) -> float | None:
        return np.nan if self._maximum else None

    def _denominators(self, sums: kernels.Sums) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return what the used pixels weigh in each bin, and how many they are."""
        if sums.lost_weight is None or sums.lost_count is None:
            return self._normalization, self._count
        count = self._count - sums.lost_count
        empty = count <= _EMPTY_SHARE * self._count
        normalization = self._normalization - sums.lost_weight
        normalization[empty] = 0.0
        count[empty] = 0.0
        return normalization, count

    @staticmethod
    def _mask(mask: Path | str | npt.NDArray[Any] | None, pyfai: AzimuthalIntegrator) -> npt.NDArray[np.bool_] | None:
        rows, columns = pyfai.get_shape()
        if isinstance(mask, str | Path):
            return load_mask(mask, (rows, columns))
        if mask is not None:
            return to_mask(mask, (rows, columns))
        known = pyfai.detector.mask
        return None if known is None else to_mask(known, (rows, columns), origin="the PONI detector's mask")

    def _box(self, name: str, box: Box) -> Box:
        rows, columns = self.shape
        x0, y0, x1, y1 = (int(edge) for edge in box)
        if not (0 <= x0 < x1 <= columns and 0 <= y0 < y1 <= rows):
            raise ConfigurationError(
                f"region {name} is {[x0, y0, x1, y1]}, the image has {columns} columns and {rows} rows",
                remedy="give [x0, y0, x1, y1] with 0 ≤ x0 < x1 ≤ columns and 0 ≤ y0 < y1 ≤ rows",
            )
        return x0, y0, x1, y1
