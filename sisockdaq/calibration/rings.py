"""Whether the rings of a calibrant are in an image where a geometry puts them, and what would bring them there.

The image is cut into sectors around the beam's centre, each averaged over rings of a pixel's width. In every sector a
peak is looked for near each ring. From where the peaks are, a straight fit gives how much the distance and the beam's
centre are off. It holds for small corrections: it is a check with advice, not a calibration (that is pyFAI-calib2's).

If hardly a ring is found, the distance is scaled until the pattern fits the averaged image best, to name a likely one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from sisockdaq.calibration._profiles import SECTORS, Profiles, all_peaks, nearest_peak
from sisockdaq.calibration.geometry import Geometry
from sisockdaq.calibration.plausibility import Finding
from sisockdaq.errors import ConfigurationError, GeometryError

if TYPE_CHECKING:
    from pyFAI.calibrant import Calibrant

__all__ = ["Ring", "RingReport", "find_rings", "load_calibrant", "ring_angles"]

_Floats = npt.NDArray[np.float64]

_NEAR = 2.0
"""A ring is where it should be when it is not farther off [pixels]."""

_TIGHT = 6.0
"""Rings that are closer to each other than this cannot be told apart [pixels]."""

_WIDEST = 60.0
"""A peak is looked for so far from its ring, at most [pixels]."""

_LEAST_CELLS = 6
"""Peaks in so many pairs of ring and sector are needed for a fit."""

_LEAST_SECTORS = 3
"""A ring that is seen in fewer sectors is looked for in their mean."""

_ROUNDS = 4
"""So often outliers are left out, and the rest fitted again."""

_WORST_CONDITION = 30.0
"""Where the fit's table is worse conditioned, the rings do not tell the distance from the centre."""

_MOST_RINGS = 60
"""More rings than that are not looked for."""

_WIDEST_SCALE, _SCALE_STEP = 1.1, 0.003
"""Scales from 1/3 to 3, in steps of 0.3 %."""

_GOOD_SCORE = 0.35
"""Share of the rings with a peak, times share of the peaks with a ring."""


@dataclass(frozen=True)
class Ring:
    """One ring.

    Attributes
    ----------
    number : int
        From 1, the innermost of the calibrant.
    spacing : float
        d [Å].
    angle : float
        2θ [rad].
    radius : float
        On a detector that does not lean [pixels].
    state : str
        ``found``, ``shifted`` or ``missing``.
    shift : float
        How much farther out it is than it should be [pixels]; NaN where it is missing.
    """

    number: int
    spacing: float
    angle: float
    radius: float
    state: Literal["found", "shifted", "missing"]
    shift: float


@dataclass(frozen=True)
class RingReport:
    """What was found of a calibrant's rings.

    Attributes
    ----------
    calibrant : str
    rings : tuple of Ring
        Those that lie in the image.
    scale : float
        The distance that fits, divided by the geometry's; NaN where that cannot be told.
    centre_shift : (float, float)
        The beam's centre that fits minus the geometry's, (x, y) [pixels]; NaN likewise.
    spread : float
        What is left of the rings' shifts after that (median) [pixels].
    findings : tuple of Finding
    """

    calibrant: str
    rings: tuple[Ring, ...]
    scale: float = math.nan
    centre_shift: tuple[float, float] = (math.nan, math.nan)
    spread: float = math.nan
    findings: tuple[Finding, ...] = ()

    def count(self, state: str) -> int:
        """Return how many rings are in a state."""
        return sum(ring.state == state for ring in self.rings)


def load_calibrant(name: str) -> Calibrant:
    """Return one of pyFAI's calibrants by its name, or that of a file of d-spacings (``.D``).

    Raises
    ------
    ConfigurationError
        There is none such.
    """
    from pathlib import Path

    from pyFAI.calibrant import Calibrant, get_calibrant, names

    known = {each.lower(): each for each in names()}
    if name.lower() in known:
        return get_calibrant(known[name.lower()])
    if Path(name).is_file():
        made = Calibrant(filename=name)
        if len(made.dspacing):
            return made
    raise ConfigurationError(
        f'"{name}" is no calibrant', remedy=f"a file of d-spacings, or one of {', '.join(sorted(known.values()))}"
    )


def ring_angles(calibrant: Calibrant, wavelength: float) -> tuple[_Floats, _Floats]:
    """Return d [Å] and 2θ [rad] of a calibrant's rings, from the inside out.

    Parameters
    ----------
    wavelength : float
        [m]
    """
    spacings = np.unique(np.asarray(calibrant.dspacing, np.float64))[::-1]
    sines = wavelength * 1e10 / 2 / spacings
    seen = sines < 1
    return spacings[seen], 2 * np.arcsin(sines[seen])


def find_rings(
    geometry: Geometry, image: npt.NDArray[Any], calibrant: str, mask: npt.NDArray[np.bool_] | None = None
) -> RingReport:
    """Look for a calibrant's rings in an image.

    Parameters
    ----------
    image : ndarray, (rows, columns)
        Any integers or floats; negative values, NaN and the largest value of an unsigned type are left out.
    mask : ndarray of bool, (rows, columns), optional
        True where a pixel is not to be used.

    Raises
    ------
    GeometryError
        For a geometry that cannot be used, of another shape, or without a wavelength.
    ConfigurationError
        For a calibrant that nobody knows.
    """
    chosen = load_calibrant(calibrant)
    if geometry.wavelength is None:
        raise GeometryError(
            f"{geometry.origin}: has no wavelength, so nobody knows where rings are",
            remedy="give --wavelength or --energy",
        )
    profiles = Profiles.of(geometry, image, mask)
    spacings, angles = ring_angles(chosen, geometry.wavelength)
    radii = profiles.radius_of(angles)
    windows = _windows(radii)
    looked_for = np.flatnonzero((windows > 0) & profiles.covers(radii))[:_MOST_RINGS]
    if not looked_for.size:
        finding = Finding(
            "rings",
            "warning",
            f"no ring of {calibrant} would lie in the image",
            "is it another calibrant, or are distance or wavelength in another unit?",
        )
        return RingReport(calibrant, (), findings=(finding,))
    cells = _cells(profiles, radii[looked_for], windows[looked_for])
    rings = []
    for place, index in enumerate(looked_for):
        state, shift = _state(cells[place], nearest_peak(*profiles.whole, radii[index], windows[index]))
        rings.append(
            Ring(int(index) + 1, float(spacings[index]), float(angles[index]), float(radii[index]), state, shift)
        )
    report = RingReport(calibrant, tuple(rings), *_fit(cells, radii[looked_for]))
    return replace(report, findings=tuple(_findings(report, geometry, profiles, radii)))


def _windows(radii: _Floats) -> _Floats:
    """Return how far from each ring a peak may still be its own [pixels]; 0 where neighbours are too close."""
    found = np.zeros(len(radii))
    known = radii[np.isfinite(radii)]
    gaps = np.append(np.diff(known, prepend=0.0), np.inf)
    nearest = np.minimum(gaps[:-1], gaps[1:])
    found[: known.size] = np.where(nearest >= _TIGHT, np.minimum(nearest / 2, _WIDEST), 0.0)
    return found


def _cells(profiles: Profiles, radii: _Floats, windows: _Floats) -> _Floats:
    """Return how far each ring's peak is off in each sector, (rings, sectors) [pixels]; NaN where there is none."""
    found = np.full((len(radii), SECTORS), np.nan)
    for sector in range(SECTORS):
        mean, error = profiles.mean[sector], profiles.error[sector]
        for place, (radius, window) in enumerate(zip(radii, windows, strict=True)):
            found[place, sector] = nearest_peak(mean, error, radius, window)
    return found


def _state(cells: _Floats, whole: float) -> tuple[Literal["found", "shifted", "missing"], float]:
    """Return what became of a ring: by its sectors, or by their mean where each alone shows too little."""
    seen = cells[np.isfinite(cells)]
    if seen.size >= _LEAST_SECTORS:
        off, shift = float(np.median(np.abs(seen))), float(np.median(seen))
    else:
        off, shift = abs(whole), whole
    if math.isnan(off):
        return "missing", math.nan
    return ("found" if off <= _NEAR else "shifted"), shift


def _fit(cells: _Floats, radii: _Floats) -> tuple[float, tuple[float, float], float]:
    """Return the scale of the distance, the shift of the centre and what is left, by least squares."""
    ring, sector = np.nonzero(np.isfinite(cells))
    nothing = math.nan, (math.nan, math.nan), math.nan
    if ring.size < _LEAST_CELLS:
        return nothing
    azimuth = (sector + 0.5) / SECTORS * 2 * math.pi - math.pi
    off = cells[ring, sector]
    largest = float(radii.max())
    table = np.stack([radii[ring] / largest, np.cos(azimuth), np.sin(azimuth)], axis=1)
    kept = np.ones(ring.size, np.bool_)
    for _ in range(_ROUNDS):
        if kept.sum() < _LEAST_CELLS or np.linalg.cond(table[kept]) > _WORST_CONDITION:
            return nothing
        found = np.linalg.lstsq(table[kept], off[kept], rcond=None)[0]
        left = np.abs(off - table @ found)
        kept = left <= max(_NEAR, 3 * float(np.median(left)))
    return 1 + float(found[0]) / largest, (float(found[1]), float(found[2])), float(np.median(left))


def _findings(report: RingReport, geometry: Geometry, profiles: Profiles, radii: _Floats) -> Iterator[Finding]:
    name, total = report.calibrant, len(report.rings)
    there, missing = report.count("found"), report.count("missing")
    fits = not math.isnan(report.spread) and report.spread <= _NEAR and total - missing >= min(2, total)
    if fits and missing < total / 3:
        if _correction(report):
            yield from _advice(report, geometry)
        return
    scale = _likely_scale(all_peaks(*profiles.whole), radii[np.isfinite(radii)], profiles)
    if scale is not None:
        yield Finding(
            "distance",
            "error",
            f"the rings of {name} are elsewhere: a distance of {geometry.distance * scale:.4g} m fits, instead of "
            f"{geometry.distance:.4g} m (or the wavelength is wrong by such a factor)",
            "correct what is wrong, and calibrate again (pyFAI-calib2)",
        )
    elif missing == total:
        yield Finding(
            "rings",
            "error",
            f"none of the {total} rings of {name} is in the image",
            "is it an image of this calibrant, and the right beam centre?",
        )
    elif fits and missing <= total / 2 and _correction(report):
        yield from _advice(report, geometry)
    elif there <= total / 2 or not fits:
        yield _too_few(report)


def _too_few(report: RingReport) -> Finding:
    return Finding(
        "rings",
        "warning",
        f"{report.count('found')} of {len(report.rings)} rings of {report.calibrant} are where they should be, "
        f"{report.count('shifted')} are shifted and {report.count('missing')} missing",
        "is it this calibrant? look at `sisockdaq calibration rings`, and calibrate again (pyFAI-calib2)",
    )


def _correction(report: RingReport) -> bool:
    """Whether the fit asks for another distance or centre."""
    outermost = max(ring.radius for ring in report.rings)
    return abs(report.scale - 1) * outermost > _NEAR or math.hypot(*report.centre_shift) > _NEAR / 2


def _advice(report: RingReport, geometry: Geometry) -> Iterator[Finding]:
    remedy = "calibrate again (pyFAI-calib2), beginning with these values"
    outermost = max(ring.radius for ring in report.rings)
    if abs(report.scale - 1) * outermost > _NEAR:
        yield Finding(
            "distance",
            "warning",
            f"the rings lie {100 * abs(report.scale - 1):.2f} % too far {'out' if report.scale > 1 else 'in'}: "
            f"a distance of {geometry.distance * report.scale:.5g} m fits, instead of {geometry.distance:.5g} m",
            remedy,
        )
    centre, (dx, dy) = geometry.beam_centre, report.centre_shift
    if math.hypot(dx, dy) > _NEAR / 2 and centre is not None:
        yield Finding(
            "beam_centre",
            "warning",
            f"the rings are around x = {centre[0] + dx:.1f}, y = {centre[1] + dy:.1f}, "
            f"not around {centre[0]:.1f}, {centre[1]:.1f}",
            remedy,
        )


def _likely_scale(peaks: _Floats, radii: _Floats, profiles: Profiles) -> float | None:
    """Return the scale of the pattern that explains the peaks much better than the geometry does; None if none."""
    if peaks.size < 2:
        return None
    scales = np.exp(np.arange(-_WIDEST_SCALE, _WIDEST_SCALE, _SCALE_STEP))
    scores = np.array([_score(peaks, radii * scale, profiles) for scale in scales])
    # Of scales that explain as much, the smallest change.
    best = int(np.argmax(scores - 1e-6 * np.abs(np.log(scales))))
    own = max(_score(peaks, radii * scale, profiles) for scale in (1 - _SCALE_STEP, 1.0, 1 + _SCALE_STEP))
    return float(scales[best]) if scores[best] > max(_GOOD_SCORE, 1.5 * own) else None


def _score(peaks: _Floats, rings: _Floats, profiles: Profiles) -> float:
    """Return the share of the rings that have a peak, times the share of the peaks that have a ring."""
    rings = rings[profiles.covers(rings)]
    if rings.size < 2:
        return 0.0
    close = np.abs(rings[:, None] - peaks[None, :]) <= np.maximum(1.5, _SCALE_STEP * peaks)
    return float(close.any(axis=1).mean() * close.any(axis=0).mean())
