"""Background curves: from a result, from arrays or from a text file (`.chi`, `.dat`), brought onto a curve's axis.

Between two points of the background the value is interpolated linearly, and its error is that of the two points'
weighted sum. The first and the last point hold for half a step beyond; farther out the background is not known, and is
NaN. Points that are not numbers (empty bins) are bridged by their neighbours.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sisockdaq.errors import ConfigurationError
from sisockdaq.integrate.corrections import ImageSource, load_image
from sisockdaq.integrate.geometry import RadialUnit, radial_unit
from sisockdaq.integrate.result import Result

__all__ = ["Background", "CurveSource", "is_curve_file", "load_background", "read_curve", "split_background"]

CurveSource = Path | str | Result | tuple[Any, ...] | list[Any]
"""A result, a pair (axis, intensity) or triple (with sigma), or a text file of two or three columns."""

_TEXT = (".chi", ".dat", ".txt", ".xy", ".xye", ".asc", ".csv")

_CHI_HEADER = 4
"""Lines before the numbers of a .chi file: title, two labels, number of points."""

_UNIT_WORDS = (
    (r"\bq\b.*nm|q_nm", "q_nm^-1"),
    (r"\bq\b.*(å|\ba\b|angstr)|q_a", "q_A^-1"),
    (r"(2th|2-?\s?theta|two.?theta).*deg", "2th_deg"),
    (r"(2th|2-?\s?theta|two.?theta).*rad", "2th_rad"),
    (r"\br\b.*mm|r_mm|radi.*\bmm\b", "r_mm"),
)


@dataclass(frozen=True, slots=True)
class Background:
    """A background as it was given: points in order of their axis; `unit` is "" where it does not say its unit."""

    axis: npt.NDArray[np.float64]
    intensity: npt.NDArray[np.float64]
    sigma: npt.NDArray[np.float64] | None
    unit: str = ""

    def onto(
        self, axis: npt.NDArray[np.float64], unit: RadialUnit, scale: float = 1.0
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64] | None]:
        """Interpolate to `axis` (in `unit`), times `scale`; return intensity and standard error.

        Raises
        ------
        ConfigurationError
            For a background in an incompatible unit, or one that does not meet the axis anywhere.
        """
        points = self.axis * self._factor(unit)
        begin, end = _reach(points)
        inside = (axis >= begin) & (axis <= end)
        if not inside.any():
            raise ConfigurationError(
                f"the background goes from {points[0]:g} to {points[-1]:g}, "
                f"the curve from {axis[0]:g} to {axis[-1]:g} {unit.unit}",
                remedy="is it in the same unit?",
            )
        upper = np.clip(np.searchsorted(points, axis), 1, max(points.size - 1, 1))
        lower = upper - 1
        upper = np.minimum(upper, points.size - 1)
        span = points[upper] - points[lower]
        part = np.clip(np.divide(axis - points[lower], span, out=np.zeros_like(axis), where=span > 0), 0.0, 1.0)
        values = (1 - part) * self.intensity[lower] + part * self.intensity[upper]
        values = np.where(inside, scale * values, np.nan)
        if self.sigma is None:
            return values, None
        sigma = abs(scale) * np.hypot((1 - part) * self.sigma[lower], part * self.sigma[upper])
        return values, np.where(inside, sigma, np.nan)

    def _factor(self, unit: RadialUnit) -> float:
        if not self.unit or self.unit == unit.name:
            return 1.0
        mine = radial_unit(self.unit)
        if mine.quantity != unit.quantity:
            raise ConfigurationError(
                f"the background is in {self.unit}, the curve in {unit.name}",
                remedy=f"integrate the background in {unit.name}",
            )
        return unit.scale / mine.scale


def load_background(source: CurveSource) -> Background:
    """Take a background from a result, from arrays or from a file.

    Raises
    ------
    ConfigurationError
        For what is no curve, or cannot be read.
    """
    if isinstance(source, Result):
        return _checked(source.axis, source.intensity, source.sigma, source.unit, "the background")
    if isinstance(source, str | Path):
        return read_curve(source)
    if not isinstance(source, tuple | list):
        raise ConfigurationError(
            f"the background is of type {type(source).__name__}",
            remedy="give a Result, (axis, intensity[, sigma]) or a file",
        )
    if len(source) not in (2, 3):
        raise ConfigurationError(
            f"the background has {len(source)} parts", remedy="give (axis, intensity) or (axis, intensity, sigma)"
        )
    axis, intensity, *rest = source
    return _checked(axis, intensity, rest[0] if rest else None, "", "the background")


def split_background(
    source: CurveSource | ImageSource | None, scale: float, shape: tuple[int, int]
) -> tuple[Background | None, npt.NDArray[np.float32] | None]:
    """Tell a curve from an image: return one of them, the image (of that shape) already times `scale`."""
    if source is None:
        return None, None
    if isinstance(source, np.ndarray) or (isinstance(source, str | Path) and not is_curve_file(source)):
        return None, load_image(source, shape, "background") * np.float32(scale)
    return load_background(source), None


def is_curve_file(path: Path | str) -> bool:
    """Tell by its ending whether a file is one of a curve, not of an image."""
    return Path(str(path)).suffix.lower() in _TEXT


def read_curve(path: Path | str) -> Background:
    """Read a text file of two or three columns; lines that are no numbers are its header, which may name the unit."""
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        raise ConfigurationError(f"{path}: no such background", remedy="give its path, or leave it out") from None
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror}") from None
    chi = path.suffix.lower() == ".chi"
    header, rows = _split_lines(lines, _CHI_HEADER if chi else 0)
    width = min((len(row) for row in rows), default=0)
    if width < 2:
        raise ConfigurationError(
            f"{path}: has no two columns of numbers", remedy="a background file has axis, intensity and perhaps sigma"
        )
    columns = np.array([row[: min(width, 3)] for row in rows]).T
    # In a .chi the second line names the axis; elsewhere the last line before the numbers has the columns' names.
    label = header[1:2] if chi else header[-1:]
    return _checked(columns[0], columns[1], columns[2] if width > 2 else None, _unit_in(label), str(path))


def _split_lines(lines: list[str], skip: int) -> tuple[list[str], list[list[float]]]:
    header, rows = lines[:skip], []
    for line in lines[skip:]:
        try:
            row = [float(word) for word in line.replace(",", " ").replace(";", " ").split()]
        except ValueError:
            row = []
        if len(row) >= 2:
            rows.append(row)
        elif not rows:
            header.append(line)
    return header, rows


def _unit_in(header: list[str]) -> str:
    for line in header:
        for pattern, unit in _UNIT_WORDS:
            if re.search(pattern, line, re.IGNORECASE):
                return unit
    return ""


def _checked(axis: Any, intensity: Any, sigma: Any, unit: str, origin: str) -> Background:
    try:
        x, y = np.asarray(axis, np.float64), np.asarray(intensity, np.float64)
        s = None if sigma is None else np.asarray(sigma, np.float64)
    except (TypeError, ValueError):
        raise ConfigurationError(f"{origin}: is not made of numbers") from None
    if x.ndim != 1 or x.shape != y.shape or (s is not None and s.shape != x.shape):
        shapes = ", ".join(str(array.shape) for array in (x, y, s) if array is not None)
        raise ConfigurationError(f"{origin}: is not a curve but arrays of {shapes}", remedy="give one value a point")
    usable = np.isfinite(x) & np.isfinite(y)
    if s is not None:
        usable &= np.isfinite(s)
    if not usable.any():
        raise ConfigurationError(f"{origin}: has no point that is a number")
    x, y, s = x[usable], y[usable], None if s is None else s[usable]
    order = np.argsort(x, kind="stable")
    if (np.diff(x[order]) == 0).any():
        raise ConfigurationError(f"{origin}: has two points at one place of the axis")
    return Background(x[order], y[order], None if s is None else s[order], unit)


def _reach(points: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return how far the first and last point hold: half a step beyond them."""
    if points.size == 1:
        return float(points[0]), float(points[0])
    return float(1.5 * points[0] - 0.5 * points[1]), float(1.5 * points[-1] - 0.5 * points[-2])
