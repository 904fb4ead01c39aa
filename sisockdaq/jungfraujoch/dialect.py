"""What a start message asks of a writer: names, numbers and facts, in DECTRIS's words and in Jungfraujoch's. Pure.

Keys stand at the top level or inside ``user_data`` (a map, or JSON in a string; Jungfraujoch puts what the user gave
under ``user`` or ``header_appendix`` there). The top level goes first. Unknown keys mean nothing.

What cannot be written is refused with `AcquisitionRefused` that names every reason: numbers out of range, an image
without pixels, arrays of the wrong shape. Nothing here allocates by a number that a message announces.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from sisockdaq.errors import AcquisitionRefused, FrameSourceError
from sisockdaq.frames.stream2 import EncodedArray, OtherMessage, StartMessage
from sisockdaq.frames.tables import LOOKUP
from sisockdaq.jungfraujoch.results import Announced, announced_results, scalar

__all__ = ["MOST_IMAGES", "Header", "calibration_arrays", "default_error_value", "image_time", "parse_start", "plain"]

MOST_IMAGES = 2**32 - 1
"""Largest number of images that may be announced: master files count them in 32 bits."""

_MOST_PIXELS = 2**27
"""Pixels of the largest image that is written: eight times the largest detector in use."""

_MOST_PER_FILE = 10_000_000

_LARGEST_TABLE = 2**28
"""Bytes of a table that is not one of pixels."""

_NO_FACTS = ("user_data", "pixel_mask", "flatfield", LOOKUP)
"""Keys of a start message that have a place of their own."""

_DTYPES = {f"{kind}{bits}" for kind in ("uint", "int") for bits in (8, 16, 32, 64)} | {"float32", "float64"}

_CELL = ("a", "b", "c", "alpha", "beta", "gamma")


@dataclass(slots=True)
class Header:
    """What is known of a series from its start message.

    Attributes
    ----------
    key : tuple of (int, str)
        ``series_id`` and ``series_unique_id``; ``(0, "")`` where the sender gives none.
    file_prefix : str
        As sent; where it may lead to is checked elsewhere.
    images_per_file : int or None
        None when the sender does not say.
    number_of_images : int or None
    shape : tuple of (int, int) or None
        (ny, nx)
    dtype : str or None
    error_value : float or None
    channels : list of str
    makes_master : bool or None
        Whether this receiver is to make the master file; None when the sender does not say.
    facts : dict
        Everything that fits into JSON, under the names of Stream V2 (`sisockdaq.nexus.nxmx`).
    mask : ndarray of uint32, optional
        (ny, nx)
    flatfield : ndarray, optional
        (ny, nx)
    tables : dict of str to ndarray
        What else the start message says of the pixels: the table of the count rate's correction.
    user_data : Any
        What the user gave for this run; None when nothing.
    announced : Announced
        Results that images will bring.
    """

    key: tuple[int, str]
    file_prefix: str
    images_per_file: int | None = None
    number_of_images: int | None = None
    shape: tuple[int, int] | None = None
    dtype: str | None = None
    error_value: float | None = None
    channels: list[str] = field(default_factory=list)
    makes_master: bool | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    mask: npt.NDArray[np.uint32] | None = None
    flatfield: npt.NDArray[Any] | None = None
    tables: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    user_data: Any = None
    announced: Announced = field(default_factory=Announced)


def parse_start(message: StartMessage, fallback_prefix: str | None = None) -> Header:
    """Return what a start message asks for.

    Parameters
    ----------
    message : StartMessage
    fallback_prefix : str, optional
        File prefix for a sender that names none; ``{series_id}`` and ``{series_unique_id}`` in it are filled in.

    Raises
    ------
    AcquisitionRefused
        With every reason.
    """
    user = _user_data(message.fields.get("user_data"))
    fields = {**_inner(user), **message.fields}
    reasons: list[str] = []
    header = Header((message.series_id, message.series_unique_id), _prefix(message, fields, fallback_prefix, reasons))
    header.images_per_file = _count(fields, "images_per_file", reasons, least=0, most=_MOST_PER_FILE)
    header.number_of_images = _count(fields, "number_of_images", reasons, least=0, most=MOST_IMAGES)
    header.shape = _shape(fields, reasons)
    header.dtype = _dtype(fields, reasons)
    header.error_value = _error_value(fields, reasons)
    header.channels = [str(name) for name in fields.get("channels") or () if isinstance(name, str)]
    if isinstance(fields.get("write_master_file"), bool):
        header.makes_master = fields["write_master_file"]
    header.mask = _mask(fields.get("pixel_mask"), header, reasons)
    flat = _first(fields.get("flatfield"))
    if flat is not None:
        header.flatfield = _checked("flatfield", flat, header.shape, reasons)
    lookup = _first(fields.get(LOOKUP))
    if lookup is not None and lookup.nbytes <= _LARGEST_TABLE:
        with suppress(FrameSourceError):  # a damaged one costs no series: nothing is computed with it
            header.tables[LOOKUP] = _native(lookup.array())
    header.announced = announced_results(fields)
    header.user_data = _appendix(fields, user)
    header.facts = _facts(fields, user)
    if reasons:
        named = header.file_prefix or "the series"
        raise AcquisitionRefused(f"{named} cannot be written: {reasons[0]}", reasons=reasons)
    return header


def calibration_arrays(message: OtherMessage, shape: tuple[int, int] | None) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of a calibration message by name: pedestals, masks.

    Raises
    ------
    FrameSourceError
        When one is damaged or of another shape than the images.
    """
    found: dict[str, npt.NDArray[Any]] = {}
    channels = message.fields.get("data")
    if not isinstance(channels, Mapping):
        raise FrameSourceError("calibration message without a map under “data”")
    for name, item in channels.items():
        if not isinstance(item, EncodedArray):
            raise FrameSourceError(f"calibration “{name}” is not an array")
        if shape is not None and item.shape[-2:] != shape:
            raise FrameSourceError(f"calibration “{name}” is {item.shape}, the images are {shape}")
        found[str(name).replace("/", "_") or "_"] = _native(item.array())
    return found


def default_error_value(dtype: npt.DTypeLike) -> float:
    """Return what a pixel without a value reads as where the sender does not say.

    The largest number of an unsigned type, as DECTRIS has it, the smallest of a signed one, as Jungfraujoch has it,
    NaN otherwise.
    """
    kind = np.dtype(dtype)
    if kind.kind == "u":
        return int(np.iinfo(kind).max)
    return int(np.iinfo(kind).min) if kind.kind == "i" else math.nan


def image_time(fields: Mapping[str, Any], key: str) -> float | None:
    """Return one of an image's times [s]: a fraction ``[numerator, denominator]``, or a plain number."""
    return scalar(fields.get(key))


def _user_data(value: Any) -> Any:
    """Return ``user_data`` with JSON in a string opened."""
    if isinstance(value, str):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _inner(user: Any) -> dict[str, Any]:
    return {str(key): value for key, value in user.items()} if isinstance(user, Mapping) else {}


def _appendix(fields: Mapping[str, Any], user: Any) -> Any:
    """Return what the user gave: ``header_appendix``, Jungfraujoch's ``user``, else ``user_data`` as it is."""
    for source in (fields, _inner(user)):
        for key in ("header_appendix", "user"):
            if source.get(key) is not None:
                return plain(_user_data(source[key]))
    return plain(user)


def _prefix(message: StartMessage, fields: Mapping[str, Any], fallback: str | None, reasons: list[str]) -> str:
    value = fields.get("file_prefix")
    if isinstance(value, str):
        return value
    if value is None and fallback is not None:
        unique = message.series_unique_id.replace("/", "_")
        return fallback.replace("{series_id}", str(message.series_id)).replace("{series_unique_id}", unique)
    reasons.append("file_prefix is missing" if value is None else "file_prefix is no text")
    return ""


def _count(fields: Mapping[str, Any], key: str, reasons: list[str], *, least: int, most: int) -> int | None:
    value = fields.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        reasons.append(f"{key} is {str(value)[:40]}; {least} to {most} is possible")
        return None
    return value


def _shape(fields: Mapping[str, Any], reasons: list[str]) -> tuple[int, int] | None:
    ny = _count(fields, "image_size_y", reasons, least=1, most=_MOST_PIXELS)
    nx = _count(fields, "image_size_x", reasons, least=1, most=_MOST_PIXELS)
    if ny is None or nx is None:
        return None
    if ny * nx > _MOST_PIXELS:
        reasons.append(f"images of {ny} × {nx} pixels; {_MOST_PIXELS} pixels are possible")
        return None
    return ny, nx


def _dtype(fields: Mapping[str, Any], reasons: list[str]) -> str | None:
    value = fields.get("image_dtype")
    if value is None:
        return None
    if value not in _DTYPES:
        reasons.append(f"image_dtype “{str(value)[:40]}” is not known")
        return None
    return str(value)


def _error_value(fields: Mapping[str, Any], reasons: list[str]) -> float | None:
    value = fields.get("error_value")
    if value is None:
        return None
    if not _is_number(value):
        reasons.append(f"error_value “{str(value)[:40]}” is no number")
        return None
    return value  # type: ignore[no-any-return]


def _mask(value: Any, header: Header, reasons: list[str]) -> npt.NDArray[np.uint32] | None:
    array = _first(value)
    if array is None:
        return None
    return _checked("pixel_mask", array, header.shape, reasons).astype("<u4", copy=False)


def _first(value: Any) -> EncodedArray | None:
    """Return the array itself, or that of the first channel."""
    if isinstance(value, Mapping):
        value = next(iter(value.values()), None)
    return value if isinstance(value, EncodedArray) else None


def _checked(name: str, array: EncodedArray, shape: tuple[int, int] | None, reasons: list[str]) -> npt.NDArray[Any]:
    if len(array.shape) != 2 or (shape is not None and array.shape != shape):
        reasons.append(f"{name} is {array.shape}, the images are {shape}")
        return np.zeros((0, 0), np.uint32)
    try:
        return _native(array.array())
    except FrameSourceError as error:
        reasons.append(f"{name}: {error.message}")
        return np.zeros((0, 0), np.uint32)


def _native(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.ascontiguousarray(array, array.dtype.newbyteorder("="))


def _facts(fields: Mapping[str, Any], user: Any) -> dict[str, Any]:
    """Return what goes into the master file: everything but arrays and what the writer itself is told."""
    facts = {key: plain(value) for key, value in fields.items() if key not in _NO_FACTS}
    facts = {key: value for key, value in facts.items() if value is not None}
    cell = facts.get("unit_cell")
    if not (isinstance(cell, Mapping) and all(_is_number(cell.get(name)) for name in _CELL)):
        facts.pop("unit_cell", None)
    if user is not None:
        facts["user_data"] = plain(user)
    return facts


def plain(value: Any) -> Any:
    """Return a value as JSON has it; what JSON cannot hold becomes None or text."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else None
        case datetime():
            return value.isoformat()
        case Mapping():
            return {str(key): plain(item) for key, item in value.items() if not isinstance(item, EncodedArray)}
        case list() | tuple():
            return [plain(item) for item in value]
        case EncodedArray():
            return None
        case _:
            return str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
