"""What belongs to single images beside their pixels: curves, sums, spots, regions, and where files have them. Pure.

The results of a source are a vector of numbers for each image (decision 0003). A plan says which part of the vector
is which dataset of ``/entry/series/<source>``, and at which second place (a hard link) programs of the field look for
it: spots under ``/entry/MX``, azimuthal results under ``/entry/azint``, regions under ``/entry/roi/<name>``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sisockdaq.frames.messages import Description

__all__ = [
    "AXIS_PREFIX",
    "AZINT_PATH",
    "ROI_NUMBERS",
    "ROI_PATH",
    "SPOTS_PATH",
    "Axis",
    "ResultField",
    "ResultsPlan",
    "SecondName",
    "place_attributes",
    "rois_plan",
    "spots_plan",
]

SPOTS_PATH = "/entry/MX"
AZINT_PATH = "/entry/azint"
ROI_PATH = "/entry/roi"

ROI_NUMBERS = ("sum", "sum_sq", "max", "npixel", "x", "y")
"""What is known of a region in an image: sum, sum of squares and largest of its pixels, how many they are, and the
centre of mass [pixels]."""

_ROI = "roi_"
"""Begins the name of an integrator's result for a region."""

AXIS_PREFIX = "axis_"
"""Begins the name of a dataset that holds an axis of other datasets in its group."""


@dataclass(frozen=True, slots=True)
class SecondName:
    """Where programs of the field look for a dataset of a source's group: a hard link at `path`."""

    path: str
    dataset: str


@dataclass(frozen=True, slots=True)
class ResultField:
    """One field of a results vector: where it stands, and what it means.

    ``width`` 1 with ``scalar`` True is a number a frame, otherwise an array of that length a frame. A row that got no
    result reads as NaN, or 0 where the dtype is an integer.
    """

    name: str
    start: int
    width: int
    scalar: bool
    units: str | None = None
    description: str | None = None
    axis: str | None = None
    axis_dataset: str | None = None
    dtype: str = "<f8"

    @property
    def empty(self) -> float:
        """What a row reads as that got no result."""
        return float("nan") if np.dtype(self.dtype).kind == "f" else 0


@dataclass(frozen=True, slots=True)
class Axis:
    """The values along the second dimension of some fields, stored once in the group."""

    dataset: str
    units: str | None
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ResultsPlan:
    """The results of one source, such as the curves and sums of an integrator."""

    source: str
    length: int
    fields: tuple[ResultField, ...] = ()
    axes: tuple[Axis, ...] = ()
    places: tuple[SecondName, ...] = ()

    @classmethod
    def from_description(cls, description: Description) -> ResultsPlan:
        """Read ``meta["layout"]``, ``meta["axes"]`` and ``meta["fields"]`` (decision: results on the frame plane)."""
        meta = description.meta
        axes: dict[str, Axis] = {}
        fields = []
        for name, (start, stop) in meta.get("layout", {}).items():
            axis = _axis(meta.get("axes", {}).get(name), name, axes)
            about = meta.get("fields", {}).get(name, {})
            fields.append(
                ResultField(
                    name,
                    int(start),
                    int(stop) - int(start),
                    scalar=int(stop) - int(start) == 1 and axis is None,
                    units=about.get("units"),
                    description=about.get("description"),
                    axis=axis[0] if axis else None,
                    axis_dataset=axis[1] if axis else None,
                )
            )
        places = (*_azint_places(fields), *_roi_places(fields))
        return cls(description.source, int(description.shape[0]), tuple(fields), tuple(axes.values()), places)


def _azint_places(fields: Iterable[ResultField]) -> Iterable[SecondName]:
    """Return the second names of the first curve, of its axis, and of what else is along this axis."""
    curves = [each for each in fields if each.axis_dataset is not None]
    for curve in curves[:1]:
        yield SecondName(f"{AZINT_PATH}/bin_to_{curve.axis}", str(curve.axis_dataset))
        yield SecondName(f"{AZINT_PATH}/image", curve.name)
        along = [each for each in curves[1:] if each.axis_dataset == curve.axis_dataset]
        yield from (SecondName(f"{AZINT_PATH}/{each.name}", each.name) for each in along)


def _roi_places(fields: Iterable[ResultField]) -> Iterable[SecondName]:
    for each in fields:
        if each.scalar and each.name.startswith(_ROI):
            yield SecondName(f"{ROI_PATH}/{each.name.removeprefix(_ROI)}/sum", each.name)


def place_attributes(path: str, places: Iterable[SecondName], *, in_master: bool) -> dict[str, Any]:
    """Return the attributes of the group `path` that holds second names.

    Azimuthal results can be drawn at once (NXdata), but not in a master: there readers take the images from an NXdata
    that they find, DIALS from the first one and XDS' durin from the last.
    """
    if path != AZINT_PATH or in_master:
        return {"NX_class": "NXcollection"}
    axes = [place.path.rpartition("/")[2].encode() for place in places if "/bin_to_" in place.path]
    return {"NX_class": "NXdata", "signal": "image", "axes": np.array([b".", *axes[:1]])}


def spots_plan(most: int, source: str = "spots") -> ResultsPlan:
    """Return the plan of found spots, at most `most` an image, in the form of CXI.

    CrystFEL takes them by ``peak_list = /entry/MX``. The vector of an image is its number of spots, then `most` x,
    `most` y [pixels, the first one's centre at 0] and `most` intensities; only as many as there are spots count.
    """
    names = ("peakXPosRaw", "peakYPosRaw", "peakTotalIntensity")
    about = "Spots of the image.", "Column of each spot.", "Row of each spot.", "Sum of each spot over background."
    number = ResultField("nPeaks", 0, 1, scalar=True, description=about[0], dtype="<u4")
    lists = [
        ResultField(
            name, 1 + i * most, most, scalar=False, units="counts" if i == 2 else "pixel", description=text, dtype="<f4"
        )
        for i, (name, text) in enumerate(zip(names, about[1:], strict=True))
    ]
    places = tuple(SecondName(f"{SPOTS_PATH}/{name}", name) for name in ("nPeaks", *names))
    return ResultsPlan(source, 1 + 3 * most, (number, *lists), places=places)


def rois_plan(names: Sequence[str], source: str = "roi") -> ResultsPlan:
    """Return the plan of regions' numbers: the vector of an image is `ROI_NUMBERS` of each region in turn."""
    fields: list[ResultField] = []
    places: list[SecondName] = []
    for name in names:
        if not name or "/" in name or name == ".":
            raise ValueError(f'"{name}" is no name of a region: it is part of a path in the file')
        for number in ROI_NUMBERS:
            field = ResultField(f"{name}_{number}", len(fields), 1, scalar=True)
            fields.append(field)
            places.append(SecondName(f"{ROI_PATH}/{name}/{number}", field.name))
    return ResultsPlan(source, len(fields), tuple(fields), places=tuple(places))


def _axis(about: dict[str, Any] | None, field_name: str, axes: dict[str, Axis]) -> tuple[str, str] | None:
    """Add the axis of a field to `axes` unless the same is there; return its name and its dataset's name."""
    if not about:
        return None
    name = str(about.get("axis", "axis"))
    values = tuple(float(value) for value in about.get("values", ()))
    dataset = f"{AXIS_PREFIX}{name}"
    if dataset in axes and axes[dataset].values != values:
        dataset = f"{AXIS_PREFIX}{name}_{field_name}"
    axes[dataset] = Axis(dataset, about.get("unit"), values)
    return name, dataset
