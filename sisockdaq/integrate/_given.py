"""What callers give, held against what it must be: errors name the thing, what it is, and what it may be."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from sisockdaq.errors import ConfigurationError

__all__ = [
    "Factors",
    "check_dummy",
    "frame_factor",
    "image_array",
    "mapping",
    "number",
    "region",
    "two_numbers",
    "whole_number",
    "with_factors",
]

Factors = float | Iterable[float]
Image = npt.NDArray[Any]


def _is_number(value: Any) -> bool:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return True
    return isinstance(value, np.generic | np.ndarray) and value.ndim == 0 and value.dtype.kind in "iuf"


def number(name: str, value: Any) -> float:
    """Return a number (NaN is one); raise `ConfigurationError` for anything else."""
    if not _is_number(value):
        raise ConfigurationError(f"{name} is {value!r}, not a number")
    return float(value)


def whole_number(name: str, value: Any, least: int, most: int) -> int:
    """Return a whole number within limits; raise `ConfigurationError` for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not least <= value <= most:
        raise ConfigurationError(f"{name} is {value!r}", remedy=f"a whole number from {least} to {most}")
    return int(value)


def two_numbers(name: str, value: Any) -> tuple[float, float]:
    """Return two numbers; raise `ConfigurationError` for anything else."""
    try:
        one, two = value
    except (TypeError, ValueError):
        raise ConfigurationError(f"{name} is {value!r}", remedy="give two numbers: (begin, end)") from None
    return number(f"the begin of {name}", one), number(f"the end of {name}", two)


def mapping(name: str, value: Any) -> dict[Any, Any]:
    """Return a mapping as a dict, empty for None; raise `ConfigurationError` for anything else."""
    if not isinstance(value, Mapping | None):
        raise ConfigurationError(
            f"{name} is of type {type(value).__name__}", remedy="give a mapping from names to them"
        )
    return dict(value or {})


def check_dummy(dummy: Any, delta_dummy: Any) -> None:
    """Refuse what marks no pixels."""
    if dummy is not None:
        number("dummy", dummy)
    if delta_dummy is None:
        return
    if dummy is None:
        raise ConfigurationError(f"delta_dummy is {delta_dummy}, but there is no dummy", remedy="give dummy too")
    if not 0 <= number("delta_dummy", delta_dummy) < math.inf:
        raise ConfigurationError(f"delta_dummy is {delta_dummy}", remedy="a distance from the dummy, 0 or more")


def region(name: str, box: Any, shape: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return a region as (x0, y0, x1, y1); raise `ConfigurationError` where it is not inside the image."""
    rows, columns = shape
    try:
        x0, y0, x1, y1 = (int(edge) for edge in box)
        shown: Any = [x0, y0, x1, y1]
        inside = 0 <= x0 < x1 <= columns and 0 <= y0 < y1 <= rows
    except (TypeError, ValueError):
        shown, inside = repr(box), False
    if not inside:
        raise ConfigurationError(
            f"region {name} is {shown}, the image has {columns} columns and {rows} rows",
            remedy="give [x0, y0, x1, y1] with 0 ≤ x0 < x1 ≤ columns and 0 ≤ y0 < y1 ≤ rows",
        )
    return x0, y0, x1, y1


def image_array(image: Any, shape: tuple[int, int]) -> Image:
    """Return an image as an array that can be integrated: half and long floats become float32 and float64.

    Raises
    ------
    ValueError
        For another shape.
    TypeError
        For what is no array, or hides pixels in a way that would be lost.
    """
    if isinstance(image, np.ma.MaskedArray):
        raise TypeError(
            "the image is a masked array, whose mask would be lost: give image.filled(value), and that value as dummy"
        )
    if image is None or isinstance(image, str | bytes | bool | int | float | complex):
        raise TypeError(f"the image is {image!r}, not an array: read files with fabio or h5py first")
    try:
        array = np.asarray(image)
    except ValueError:
        raise ValueError("the image is a list of rows that are not of one length") from None
    if array.shape != shape:
        raise ValueError(f"the image has shape {array.shape}, this integrator is for {shape}")
    if array.dtype.kind == "f" and array.dtype.itemsize not in (4, 8):
        return array.astype(np.float32 if array.dtype.itemsize < 4 else np.float64)
    return array


def frame_factor(monitor: Any, transmission: Any) -> float:
    """Return what multiplies the normalization; no curve can be made of a frame without beam."""
    for name, value in (("monitor", monitor), ("transmission", transmission)):
        if not _is_number(value):
            raise ValueError(f"the {name} is {value!r}, and must be a number above 0")
        if not 0 < value < math.inf:
            raise ValueError(f"the {name} is {value}, and must be a number above 0")
    return float(monitor) * float(transmission)


def with_factors(images: Any, monitor: Factors, transmission: Factors) -> Iterator[tuple[Image, float, float]]:
    """Give each image its monitor and transmission; raise `ValueError` where their numbers differ, or are 0."""
    if not isinstance(images, Iterable) or isinstance(images, str | bytes):
        raise TypeError(f"the images are {images!r}, not a series of arrays")
    if getattr(images, "ndim", 3) == 2:
        raise ValueError("the images are one image: use integrate, or give a stack (frames, rows, columns)")
    given = [("monitor", monitor), ("transmission", transmission)]
    several = {name: value for name, value in given if isinstance(value, Iterable) and np.ndim(value) > 0}  # type: ignore[arg-type]
    constants: dict[str, Any] = {name: value for name, value in given if name not in several}
    series = [(name, iter(value)) for name, value in several.items()]
    number = -1
    for number, image in enumerate(images):
        factors = dict(constants)
        for name, values in series:
            value = next(values, None)
            if value is None:
                raise ValueError(f"there is no {name} for image {number}: give one an image, or one for all")
            factors[name] = value
        yield image, factors["monitor"], factors["transmission"]
    if number < 0:
        raise ValueError("there are no images")
    for name, values in series:
        if next(values, None) is not None:
            raise ValueError(f"there are more values of {name} than images")
