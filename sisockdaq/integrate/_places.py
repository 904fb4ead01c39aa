"""From options to bin maps: where pixels lie is computed once a unit, for the whole image and all its sectors."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sisockdaq.errors import ConfigurationError, GeometryError, MaskError
from sisockdaq.integrate._binned import Binned
from sisockdaq.integrate._cake_files import pack_cake, unpack_cake
from sisockdaq.integrate._cake_map import build_cake_map
from sisockdaq.integrate.background import Background, load_background
from sisockdaq.integrate.cache import MapCache, map_key, prepare_map
from sisockdaq.integrate.cake import CakeIntegrator
from sisockdaq.integrate.corrections import Corrections
from sisockdaq.integrate.geometry import Pixels, Polarization, RadialUnit, locate_pixels, radial_unit
from sisockdaq.integrate.maps import BinMap, Split, build_map
from sisockdaq.integrate.masks import join_masks, load_mask, to_mask
from sisockdaq.integrate.sectors import Sector

if TYPE_CHECKING:
    from pyFAI.integrator.azimuthal import AzimuthalIntegrator

__all__ = ["Places", "detector_mask"]

Range = tuple[float, float]

_FULL_CIRCLE = 360.0


class Places:
    """The pixels of one detector in one geometry, ready to be put into bins.

    Parameters
    ----------
    pyfai : AzimuthalIntegrator
    split, solid_angle, polarization
        As for `Integrator`.
    corrections : Corrections
    mask : ndarray of bool, optional
        True where no curve uses the pixel.
    background : Background, optional
        Of curves that have none of their own.
    background_scale : float
    cache : MapCache, optional
        Where maps are kept; else they are made every time.
    """

    def __init__(
        self,
        pyfai: AzimuthalIntegrator,
        *,
        split: Split,
        solid_angle: bool,
        polarization: Polarization | None,
        corrections: Corrections,
        mask: npt.NDArray[np.bool_] | None,
        background: Background | None,
        background_scale: float,
        cache: MapCache | None = None,
    ) -> None:
        self._pyfai = pyfai
        self._split = split
        self._solid_angle = solid_angle
        self._polarization = polarization
        self._corrections = corrections
        self._mask = mask
        self._background = background
        self._scale = background_scale
        self._cache = cache
        self._pixels: dict[tuple[str, bool | None], Pixels] = {}

    def binned(self, part: Sector) -> Binned:
        """Make the map of the whole image, or of a part that names its bins and unit."""
        unit = radial_unit(part.unit or "")
        pyfai, azimuth = _azimuth(self._pyfai, part.azimuth_range)
        mask = join_masks(self._mask, _own_mask(part.mask, pyfai.get_shape()))
        ends, bins = _internal(part.radial_range, unit), part.bins or 0

        def make() -> BinMap:
            pixels = self._locate(pyfai, unit.name, azimuth is not None)
            return build_map(pixels, mask, bins=bins, radial_range=ends, azimuth_range=azimuth)

        if self._cache is None:
            prepared = prepare_map(make())
        else:
            key = self._key(pyfai, unit=unit.name, bins=bins, mask=mask, radial_range=ends, azimuth_range=azimuth)
            prepared = self._cache.get(key, make)
        background = self._background if part.background is None else load_background(part.background)
        return Binned(prepared, unit, self._corrections, background, self._scale)

    def cake(self, part: Sector, azimuth_bins: int) -> CakeIntegrator:
        """Make the cake's map of the whole image, or of a part that names its bins and unit."""
        unit = radial_unit(part.unit or "")
        pyfai, azimuth = _azimuth(self._pyfai, part.azimuth_range)
        ends, bins = _internal(part.radial_range, unit), part.bins or 0
        cake_map = key = None
        if self._cache is not None:
            options = {"radial_range": ends, "azimuth_range": azimuth, "azimuth_bins": azimuth_bins}
            key = self._key(pyfai, unit=unit.name, bins=bins, mask=self._mask, **options)
            cake_map = self._cache.read(key, unpack_cake)
        if cake_map is None:
            cake_map = build_cake_map(
                self._locate(pyfai, unit.name, True),
                self._mask,
                bins=(bins, azimuth_bins),
                radial_range=ends,
                azimuth_range=azimuth,
                at_pi=bool(pyfai.chiDiscAtPi),
            )
            if self._cache is not None and key is not None:
                self._cache.write(key, pack_cake(cake_map))
        return CakeIntegrator(cake_map, unit, self._corrections, self._background, self._scale)

    def forget(self) -> None:
        """Let go of where the pixels lie, some hundred bytes each; it is computed anew when it is asked for."""
        self._pixels.clear()

    def _key(self, pyfai: AzimuthalIntegrator, **options: Any) -> str:
        return map_key(
            pyfai,
            split=self._split,
            solid_angle=self._solid_angle,
            polarization=self._polarization,
            weight=self._corrections.weight,
            **options,
        )

    def sectors(self, parts: Mapping[str, Sector], whole: Sector) -> dict[str, Binned]:
        """Make the maps of all sectors; an error names the one that is wrong."""
        made: dict[str, Binned] = {}
        for name, part in parts.items():
            if not isinstance(part, Sector):
                raise ConfigurationError(f"sector {name} is a {type(part).__name__}", remedy="give a Sector")
            try:
                made[name] = self.binned(_filled(part, whole))
            except (ConfigurationError, GeometryError, MaskError) as error:
                raise type(error)(f"sector {name}: {error.message}", remedy=error.remedy) from error
        return made

    def _locate(self, pyfai: AzimuthalIntegrator, unit: str, azimuth: bool) -> Pixels:
        key = (unit, bool(pyfai.chiDiscAtPi) if azimuth else None)
        if key not in self._pixels:
            pixels = locate_pixels(
                pyfai,
                unit,
                split=self._split,
                solid_angle=self._solid_angle,
                polarization=self._polarization,
                azimuth=azimuth,
            )
            if self._corrections.weight is not None:
                pixels = replace(pixels, normalization=pixels.normalization * self._corrections.weight)
            self._pixels[key] = pixels
        return self._pixels[key]


def detector_mask(
    mask: Path | str | npt.NDArray[Any] | None, pyfai: AzimuthalIntegrator
) -> npt.NDArray[np.bool_] | None:
    """Return the mask that was given, else the one that pyFAI knows for the detector, if any."""
    shape = pyfai.get_shape()
    if mask is not None:
        return _own_mask(mask, shape)
    known = pyfai.detector.mask
    return None if known is None else to_mask(known, shape, origin="the PONI detector's mask")


def _own_mask(mask: Path | str | npt.NDArray[Any] | None, shape: tuple[int, int]) -> npt.NDArray[np.bool_] | None:
    if mask is None:
        return None
    return load_mask(mask, shape) if isinstance(mask, str | Path) else to_mask(mask, shape)


def _filled(part: Sector, whole: Sector) -> Sector:
    """Take from the whole image what a sector does not say; its radial range only in its unit."""
    unit = part.unit or whole.unit
    radial = part.radial_range if part.radial_range is not None or unit != whole.unit else whole.radial_range
    return replace(
        part,
        unit=unit,
        radial_range=radial,
        bins=whole.bins if part.bins is None else part.bins,
        azimuth_range=whole.azimuth_range if part.azimuth_range is None else part.azimuth_range,
    )


def _internal(ends: Range | None, unit: RadialUnit) -> Range | None:
    """Bring a radial range into pyFAI's internal unit."""
    return None if ends is None else (ends[0] / unit.scale, ends[1] / unit.scale)


def _azimuth(pyfai: AzimuthalIntegrator, ends: Range | None) -> tuple[AzimuthalIntegrator, Range | None]:
    """Bring a range of azimuth [deg] into radians, and the geometry's discontinuity to where it does not cut the range.

    pyFAI itself leaves it to its user to move the discontinuity, and integrates a part of the range otherwise.
    """
    if ends is None:
        return pyfai, None
    from pyFAI.utils.mathutil import deg2rad

    begin, end = (float(edge) for edge in ends)
    if not (math.isfinite(begin) and math.isfinite(end)) or begin == end:
        raise GeometryError(
            f"the azimuth range from {begin:g} to {end:g} is empty", remedy="give two different ends in degrees"
        )
    if end - begin >= _FULL_CIRCLE:
        return pyfai, None
    for at_pi in (bool(pyfai.chiDiscAtPi), not pyfai.chiDiscAtPi):
        low, high = deg2rad(begin, at_pi), deg2rad(end, at_pi)
        if high <= low:
            high += 2 * math.pi
        if high <= (math.pi if at_pi else 2 * math.pi) * (1 + 1e-12):
            return _with_discontinuity(pyfai, at_pi), (low, high)
    raise GeometryError(
        f"the azimuth range from {begin:g} to {end:g} goes across both 0 and 180 degrees",
        remedy="give two sectors, or mask what is not wanted",
    )


def _with_discontinuity(pyfai: AzimuthalIntegrator, at_pi: bool) -> AzimuthalIntegrator:
    if bool(pyfai.chiDiscAtPi) == at_pi:
        return pyfai
    turned = copy.copy(pyfai)
    turned.setChiDiscAtPi() if at_pi else turned.setChiDiscAtZero()
    return turned
