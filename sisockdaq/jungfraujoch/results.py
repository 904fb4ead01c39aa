"""What image messages say beside pixels: spots, azimuthal results, regions, exposure, as vectors for files. Pure.

Plans are fixed before the first image is written: by what the start message announces (``max_spot_count``,
``az_int_bin_to_q``, ``rois``) and by what the first image brings. A vector that fits no plan is counted, never lost
silently.

============================  =======================================================================================
in a message                  in a data file
============================  =======================================================================================
``spots``                     ``/entry/MX`` in CXI form; a list of maps (``x``, ``y``, ``I``), or of numbers x, y, I, …
``az_int_profile``            ``/entry/azint/image``; ``az_int_profile_std``, ``_count`` beside it; bins from the start
                              message (``az_int_bin_to_q``, ``_phi``, ``_two_theta``)
``roi_integrals``             ``/entry/roi/<name>``; a map of name → sum, sum_square, max, pixels, x, y (the centre;
                              or x_weighted, y_weighted: sums of coordinate × counts)
numbers (`_FACTS`)            ``/entry/detector/exptime``, ``real_time`` and others
============================  =======================================================================================
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from sisockdaq.errors import FrameSourceError
from sisockdaq.frames.stream2 import EncodedArray
from sisockdaq.nexus.results import (
    AXIS_PREFIX,
    AZINT_PATH,
    ROI_NUMBERS,
    SPOTS_PATH,
    Axis,
    ResultField,
    ResultsPlan,
    SecondName,
    rois_plan,
    spots_plan,
)

__all__ = ["MOST_SPOTS", "Announced", "ImageResults", "announced_results", "scalar"]

MOST_SPOTS = 4096
"""Spots of an image that are kept at most; a file has room for that many in each row."""

_SPOTS_UNANNOUNCED = 250
"""Room for spots where the start message does not say how many there may be: the default of Jungfraujoch."""

_MOST_BINS = 65_536
_MOST_REGIONS = 64
_MOST_ARRAY_BYTES = 2**24

_AXES = {"q": "angstrom^-1", "phi": "deg", "two_theta": "deg"}
"""What a bin may stand for, after ``az_int_bin_to_``, and its units."""

_CURVES = {"az_int_profile": "image", "az_int_profile_std": "std", "az_int_profile_count": "count"}
"""Key of an image → name under ``/entry/azint``."""

_ROI_KEYS = {"sum_sq": ("sum_square", "sum_sq"), "max": ("max", "max_count"), "npixel": ("pixels", "npixel")}
"""Number of a region (`ROI_NUMBERS`) → its keys in messages, where they differ."""


@dataclass(frozen=True, slots=True)
class _Fact:
    """A number of an image: its keys in messages (the first that is there), its dataset and second place."""

    name: str
    keys: tuple[str, ...]
    path: str
    description: str
    units: str | None = None
    dtype: str = "<f8"


_DETECTOR = "/entry/detector"
_FACTS = (
    _Fact("exposure_time", ("exposure_time", "exptime", "real_time"), f"{_DETECTOR}/exptime", "Exposure time.", "s"),
    _Fact("real_time", ("real_time",), f"{_DETECTOR}/real_time", "Time from begin to end of the exposure.", "s"),
    _Fact("storage_cell", ("storage_cell",), f"{_DETECTOR}/storage_cell", "Storage cell.", dtype="<u4"),
    _Fact("detector_info", ("jf_info",), f"{_DETECTOR}/det_info", "The detector's own status bits.", dtype="<u8"),
    _Fact(
        "collection_efficiency",
        ("image_collection_efficiency", "data_collection_efficiency"),
        f"{_DETECTOR}/data_collection_efficiency_image",
        "Share of the packets that came.",
    ),
    _Fact("indexed", ("indexing_result",), f"{SPOTS_PATH}/imageIndexed", "1 for an indexed image.", dtype="<u1"),
    _Fact("background", ("bkg_estimate",), f"{SPOTS_PATH}/bkgEstimate", "Background around the beam.", "counts"),
    _Fact(
        "strong_pixels", ("strong_pixel_count",), f"{SPOTS_PATH}/strongPixels", "Pixels over threshold.", dtype="<u4"
    ),
    _Fact("resolution", ("resolution_estimate",), f"{SPOTS_PATH}/resolutionEstimate", "Resolution.", "angstrom"),
    _Fact(
        "saturated_pixels", ("saturated_pixel_count",), "/entry/image/saturated_pixels", "At saturation.", dtype="<u4"
    ),
    _Fact("error_pixels", ("error_pixel_count",), "/entry/image/error_pixels", "Without a value.", dtype="<u4"),
    _Fact("pulse_id", ("xfel_pulse_id",), "/entry/xfel/pulseID", "Pulse of the machine.", dtype="<u8"),
    _Fact("event_code", ("xfel_event_code",), "/entry/xfel/eventCode", "Event code of the machine.", dtype="<u8"),
)

_LARGEST_WHOLE = 2.0**53
"""A vector holds 64-bit floats: beyond, whole numbers are not exact."""


@dataclass(frozen=True, slots=True)
class Announced:
    """What a start message says of the results to come.

    Attributes
    ----------
    spots : int or None
        Spots in an image at most.
    bins : mapping of name → ndarray of float64
        ``q``, ``phi``, ``two_theta`` of each bin of an azimuthal result.
    regions : tuple of str
        Names of regions.
    """

    spots: int | None = None
    bins: Mapping[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    regions: tuple[str, ...] = ()


def announced_results(fields: Mapping[str, Any]) -> Announced:
    """Read a start message; what has no sense there is as if it were not said: images say it again."""
    most = fields.get("max_spot_count")
    spots = most if isinstance(most, int) and not isinstance(most, bool) and most > 0 else None
    bins = {name: values for name in _AXES if (values := _numbers(fields.get(f"az_int_bin_to_{name}"))) is not None}
    bins = {name: values for name, values in bins.items() if 0 < len(values) <= _MOST_BINS}
    regions = fields.get("rois")
    if isinstance(regions, list):
        names = [each.get("name") if isinstance(each, Mapping) else each for each in regions]
    else:
        names = list(regions) if isinstance(regions, Mapping) else []
    return Announced(spots, bins, tuple(name for name in names if isinstance(name, str)))


def scalar(value: Any) -> float | None:
    """Return a finite number: a plain one, a truth value, or a fraction ``[numerator, denominator]``; else None."""
    try:
        if isinstance(value, list | tuple) and len(value) == 2:
            top, bottom = value
            number = top / bottom if _is_number(top) and _is_number(bottom) and bottom else math.nan
        else:
            number = float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


class ImageResults:
    """The results of a series' images.

    Parameters
    ----------
    source : str
        Name of the source of images; those of its results begin with it.
    announced : Announced
    first : mapping
        Fields of the first image.

    Attributes
    ----------
    plans : tuple of ResultsPlan
    spots_cut : int
        Spots for which there was no room; the weakest.
    left_out : int
        Results for which there was no room: neither announced nor in the first image, or of another length.
    """

    def __init__(self, source: str, announced: Announced, first: Mapping[str, Any]) -> None:
        self._room = _spot_room(announced, first)
        self._spots = spots_plan(self._room, f"{source}_spots") if self._room else None
        self._azint = _azint_plan(f"{source}_azint", announced, first)
        names = announced.regions or tuple(_regions(first))
        self._regions = {name: _group_name(name) for name in names[:_MOST_REGIONS]}
        self._roi = rois_plan(list(dict.fromkeys(self._regions.values())), f"{source}_roi") if self._regions else None
        self._facts = [fact for fact in _FACTS if _fact(fact, first) is not None]
        self._image = _facts_plan(f"{source}_image", self._facts)
        plans = (self._spots, self._azint, self._roi, self._image)
        self.plans = tuple(plan for plan in plans if plan is not None)
        self.spots_cut = self.left_out = 0

    def vectors(self, fields: Mapping[str, Any]) -> Iterator[tuple[str, npt.NDArray[np.float64]]]:
        """Give the source and vector of all results that an image brings."""
        if "spots" in fields:
            yield from self._give(self._spots, self._spot_vector(fields["spots"]))
        if any(key in fields for key in _CURVES):
            yield from self._give(self._azint, self._curves(fields))
        if found := _regions(fields):
            yield from self._give(self._roi, self._region_vector(found))
        values = [_fact(fact, fields) for fact in self._facts]
        if self._image is not None and any(value is not None for value in values):
            dtypes = [fact.dtype for fact in self._facts]
            empty = [math.nan if dtype == "<f8" else 0.0 for dtype in dtypes]
            pairs = zip(values, empty, strict=True)
            yield self._image.source, np.array([none if value is None else value for value, none in pairs])

    @property
    def exposure_known(self) -> bool:
        """Whether images say their exposure time themselves."""
        return any(fact.name == "exposure_time" for fact in self._facts)

    def _give(
        self, plan: ResultsPlan | None, vector: npt.NDArray[np.float64] | None
    ) -> Iterator[tuple[str, npt.NDArray[np.float64]]]:
        if plan is None or vector is None:
            self.left_out += 1
        else:
            yield plan.source, vector

    def _spot_vector(self, value: Any) -> npt.NDArray[np.float64] | None:
        spots = _spots(value)
        if spots is None or not self._room:
            return None
        if len(spots) > self._room:
            self.spots_cut += len(spots) - self._room
            spots = spots[np.sort(np.argsort(-spots[:, 2], kind="stable")[: self._room])]
        vector = np.zeros(1 + 3 * self._room)
        vector[0] = len(spots)
        vector[1:].reshape(3, self._room)[:, : len(spots)] = spots.T
        return vector

    def _curves(self, fields: Mapping[str, Any]) -> npt.NDArray[np.float64] | None:
        plan = self._azint
        if plan is None:
            return None
        vector = np.full(plan.length, math.nan)
        for each in plan.fields:
            key = next(key for key, name in _CURVES.items() if name == each.name)
            values = _numbers(fields.get(key))
            if values is not None and len(values) == each.width:
                vector[each.start : each.start + each.width] = values
        return None if np.isnan(vector).all() else vector

    def _region_vector(self, found: Mapping[str, Mapping[str, Any]]) -> npt.NDArray[np.float64] | None:
        if self._roi is None:
            return None
        vector = np.full(self._roi.length, math.nan)
        places = {each.name: each.start for each in self._roi.fields}
        for name, numbers in found.items():
            group = self._regions.get(name)
            if group is None:
                self.left_out += 1
                continue
            for number in ROI_NUMBERS:
                vector[places[f"{group}_{number}"]] = _region_number(numbers, number)
        return vector


def _spot_room(announced: Announced, first: Mapping[str, Any]) -> int:
    if announced.spots is None and "spots" not in first:
        return 0
    return min(announced.spots or _SPOTS_UNANNOUNCED, MOST_SPOTS)


def _spots(value: Any) -> npt.NDArray[np.float64] | None:
    """Return x, y, intensity of each spot (n, 3); None for what is no list of spots."""
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
        rows = [_spot(each) for each in value]
        return np.array(rows, np.float64) if None not in rows else None
    flat = _numbers(value)
    return flat.reshape(-1, 3) if flat is not None and len(flat) % 3 == 0 else None


def _spot(value: Any) -> tuple[float, float, float] | None:
    if not isinstance(value, Mapping):
        return None
    x, y = scalar(value.get("x")), scalar(value.get("y"))
    intensity = scalar(value.get("I", value.get("intensity")))
    return None if x is None or y is None or intensity is None else (x, y, intensity)


def _azint_plan(source: str, announced: Announced, first: Mapping[str, Any]) -> ResultsPlan | None:
    curves = {name: values for key, name in _CURVES.items() if (values := _numbers(first.get(key))) is not None}
    sizes = [len(values) for values in (*announced.bins.values(), *curves.values())]
    if not sizes or not 0 < sizes[0] <= _MOST_BINS:
        return None
    bins = sizes[0]
    names = dict.fromkeys(["image", *(name for name, values in curves.items() if len(values) == bins)])
    along = {name: values for name, values in announced.bins.items() if len(values) == bins}
    axis = next(iter(along), None)
    fields = [
        ResultField(
            name,
            number * bins,
            bins,
            scalar=False,
            description=f"{key} of each bin.",
            axis=axis,
            axis_dataset=axis and f"{AXIS_PREFIX}{axis}",
            dtype="<f4",
        )
        for number, (name, key) in enumerate((name, key) for key, name in _CURVES.items() if name in names)
    ]
    axes = [Axis(f"{AXIS_PREFIX}{name}", _AXES[name], tuple(map(float, values))) for name, values in along.items()]
    places = [SecondName(f"{AZINT_PATH}/bin_to_{name}", f"{AXIS_PREFIX}{name}") for name in along]
    places += [SecondName(f"{AZINT_PATH}/{each.name}", each.name) for each in fields]
    return ResultsPlan(source, bins * len(fields), tuple(fields), tuple(axes), tuple(places))


def _regions(fields: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    found = fields.get("roi_integrals", fields.get("roi"))
    if not isinstance(found, Mapping):
        return {}
    return {str(name): numbers for name, numbers in found.items() if isinstance(numbers, Mapping)}


def _group_name(name: str) -> str:
    """Return a name that can be part of a path in a file."""
    safe = "".join("_" if letter == "/" or ord(letter) < 32 else letter for letter in name)[:200]
    return safe if safe.strip(".") else "_"


def _region_number(numbers: Mapping[str, Any], number: str) -> float:
    for key in _ROI_KEYS.get(number, (number,)):
        if (value := scalar(numbers.get(key))) is not None:
            return value
    weighted, total = scalar(numbers.get(f"{number}_weighted")), scalar(numbers.get("sum"))
    return weighted / total if weighted is not None and total else math.nan


def _fact(fact: _Fact, fields: Mapping[str, Any]) -> float | None:
    for key in fact.keys:
        value = scalar(fields.get(key))
        if value is not None and (fact.dtype == "<f8" or 0 <= value <= min(_LARGEST_WHOLE, np.iinfo(fact.dtype).max)):
            return value
    return None


def _facts_plan(source: str, facts: list[_Fact]) -> ResultsPlan | None:
    if not facts:
        return None
    fields = [
        ResultField(fact.name, at, 1, scalar=True, units=fact.units, description=fact.description, dtype=fact.dtype)
        for at, fact in enumerate(facts)
    ]
    places = tuple(SecondName(fact.path, fact.name) for fact in facts)
    return ResultsPlan(source, len(fields), tuple(fields), places=places)


def _numbers(value: Any) -> npt.NDArray[np.float64] | None:
    """Return a list of numbers, or a typed array, as one row; None for anything else."""
    try:
        if isinstance(value, EncodedArray):
            if value.nbytes > _MOST_ARRAY_BYTES:
                return None
            return value.array().astype(np.float64).reshape(-1)
        if isinstance(value, list) and all(isinstance(each, int | float) for each in value):
            return np.array(value, np.float64)
    except (FrameSourceError, OverflowError, ValueError):
        return None
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
