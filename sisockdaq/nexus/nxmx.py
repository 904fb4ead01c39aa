"""What a master file says, as a tree of groups, datasets and links: pure, nothing here touches a file.

The tree follows NXmx (nexusformat/definitions) and the layout of DECTRIS' file writer where readers depend on it
(contract "Files"). Facts about the experiment come in under the names of Stream V2 start messages: ``count_time``,
``frame_time``, ``beam_center_x``, ``detector_distance``, ``incident_wavelength`` and so on, lengths in metres, the
wavelength in Å, energies in eV. What is not known is left out, never invented.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import numpy.typing as npt

from sisockdaq.nexus.layout import IMAGE_PATH, SERIES_PATH, ImagePlan

__all__ = ["Dataset", "ExternalLink", "Group", "HardLink", "MasterContent", "Node", "iso_time", "master_tree"]

_DETECTOR = "/entry/instrument/detector"
_TRANSLATION = f"{_DETECTOR}/transformations/translation"
_EV_ANGSTROM = 12398.419843320026
"""h·c [eV Å], CODATA 2018 (exact)."""


@dataclass(slots=True)
class Dataset:
    """A value with attributes; text is stored at fixed length, arrays contiguous."""

    value: str | float | np.generic | npt.NDArray[Any]
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class ExternalLink:
    """A link to an object of another file in the same folder."""

    file: str
    path: str


@dataclass(slots=True)
class HardLink:
    """A second name of an object of the same file."""

    path: str


@dataclass(slots=True)
class Group:
    """A NeXus group."""

    nx_class: str
    items: dict[str, Node] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)


Node = Group | Dataset | ExternalLink | HardLink


@dataclass(slots=True)
class MasterContent:
    """Everything that a master file is made from.

    Attributes
    ----------
    acquisition : str
    image : ImagePlan
    meta : mapping
        Facts about the experiment under Stream V2 names.
    files : sequence of (name, rows)
        The data files that exist, in order.
    frames_requested : int or None
    images_written : int
    started, ended : float
        UNIX times [s]; `ended` is None while the acquisition runs.
    end_reason : str
        "complete", "stopped" or "failed: …"; empty while it runs.
    mask : ndarray of uint32, optional
        Pixel mask in the bits of NXmx (0: good).
    ledger : mapping, optional
        Final counts (`sisockdaq.frames.ledger`).
    """

    acquisition: str
    image: ImagePlan
    meta: Mapping[str, Any] = field(default_factory=dict)
    files: Sequence[tuple[str, int]] = ()
    frames_requested: int | None = None
    images_written: int = 0
    started: float = 0.0
    ended: float | None = None
    end_reason: str = ""
    mask: npt.NDArray[np.uint32] | None = None
    ledger: Mapping[str, Any] | None = None
    series: Sequence[str] = ()


def iso_time(seconds: float) -> str:
    """Return a UNIX time in ISO 8601, UTC, to the microsecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def master_tree(content: MasterContent) -> Group:
    """Return the root of a master file."""
    entry = Group("NXentry", attributes={"default": "data"})
    entry.items = {
        "definition": Dataset("NXmx"),
        "title": Dataset(content.acquisition),
        "start_time": Dataset(iso_time(content.started)),
        **_end_times(content),
        "source": _source(content),
        "sample": _sample(content),
        "instrument": _instrument(content),
        "data": _links(content, "NXdata", IMAGE_PATH),
        SERIES_PATH.rpartition("/")[2]: _links(content, "NXcollection", SERIES_PATH),
        "acquisition": _acquisition(content),
    }
    if content.files:
        entry.items["data"].attributes["signal"] = "data_000001"  # type: ignore[union-attr]
    if content.ledger is not None:
        entry.items["ledger"] = _ledger(content.ledger)
    return Group("NXroot", {"entry": entry}, {"default": "entry", "creator": _software()})


def _software() -> str:
    try:
        return f"sisockdaq {version('sisockdaq')}"
    except PackageNotFoundError:
        return "sisockdaq"


def _known(meta: Mapping[str, Any], names: Mapping[str, tuple[str, str | None]]) -> dict[str, Node]:
    """Return a dataset for each key of `names` that `meta` has: key → (dataset name, units)."""
    found: dict[str, Node] = {}
    for key, (name, units) in names.items():
        value = meta.get(key)
        if value is not None:
            found[name] = (
                Dataset(float(value), {"units": units}) if units and _is_number(value) else Dataset(_plain(value))
            )
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _plain(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int | float | str | np.ndarray):
        return value
    return np.asarray(value)


def _end_times(content: MasterContent) -> dict[str, Node]:
    if content.ended is not None:
        stamp = iso_time(content.ended)
        return {"end_time": Dataset(stamp), "end_time_estimated": Dataset(stamp)}
    frame_time = content.meta.get("frame_time")
    if content.frames_requested is None or not frame_time:
        return {}
    return {"end_time_estimated": Dataset(iso_time(content.started + content.frames_requested * float(frame_time)))}


def _source(content: MasterContent) -> Group:
    names = {"source_name": ("name", None), "source_type": ("type", None)}
    return Group("NXsource", _known(content.meta, names))


def _sample(content: MasterContent) -> Group:
    sample = Group("NXsample", _known(content.meta, {"sample_name": ("name", None)}))
    sample.items.setdefault("name", Dataset(content.acquisition))
    sample.items["depends_on"] = Dataset(".")
    cell = content.meta.get("unit_cell")
    if isinstance(cell, Mapping):
        values = np.array([float(cell[key]) for key in ("a", "b", "c", "alpha", "beta", "gamma")])
        sample.items["unit_cell"] = Dataset(values)
    return sample


def _instrument(content: MasterContent) -> Group:
    items = _known(content.meta, {"instrument_name": ("name", None)})
    items["beam"] = _beam(content.meta)
    items["detector"] = _detector(content)
    return Group("NXinstrument", items)


def _beam(meta: Mapping[str, Any]) -> Group:
    """Wavelength and energy; each from the other where one is missing."""
    wavelength, energy = meta.get("incident_wavelength"), meta.get("incident_energy")
    if wavelength is None and energy:
        wavelength = _EV_ANGSTROM / float(energy)
    if energy is None and wavelength:
        energy = _EV_ANGSTROM / float(wavelength)
    facts = {**meta, "incident_wavelength": wavelength, "incident_energy": energy}
    names = {
        "incident_wavelength": ("incident_wavelength", "angstrom"),
        "incident_energy": ("incident_energy", "eV"),
        "total_flux": ("total_flux", "Hz"),
    }
    return Group("NXbeam", _known(facts, names))


_DETECTOR_FACTS = {
    "detector_description": ("description", None),
    "detector_serial_number": ("detector_number", None),
    "sensor_material": ("sensor_material", None),
    "sensor_thickness": ("sensor_thickness", "m"),
    "saturation_value": ("saturation_value", None),
    "count_time": ("count_time", "s"),
    "frame_time": ("frame_time", "s"),
    "beam_center_x": ("beam_center_x", "pixel"),
    "beam_center_y": ("beam_center_y", "pixel"),
    "pixel_size_x": ("x_pixel_size", "m"),
    "pixel_size_y": ("y_pixel_size", "m"),
    "bit_depth_readout": ("bit_depth_readout", None),
    "detector_readout_time": ("detector_readout_time", "s"),
    "threshold_energy": ("threshold_energy", "eV"),
}
_CORRECTIONS = {
    "flatfield_enabled": "flatfield_applied",
    "countrate_correction_enabled": "countrate_correction_applied",
    "pixel_mask_enabled": "pixel_mask_applied",
}


def _detector(content: MasterContent) -> Group:
    meta, image = content.meta, content.image
    facts = dict(meta)
    if isinstance(facts.get("threshold_energy"), Mapping):
        facts["threshold_energy"] = next(iter(facts["threshold_energy"].values()), None)
    items = _known(facts, _DETECTOR_FACTS)
    distance = detector_distance(meta)
    if distance is not None:
        items["distance"] = Dataset(distance, {"units": "m"})
        items["detector_distance"] = Dataset(distance, {"units": "m"})
    bits = np.dtype(image.dtype).itemsize * 8
    items["bit_depth_image"] = Dataset(np.uint32(bits))
    items.setdefault("bit_depth_readout", Dataset(np.uint32(bits)))
    items.setdefault("description", Dataset(image.source))
    items["error_value"] = Dataset(np.dtype(image.dtype).type(image.fill_value))
    for key, name in _CORRECTIONS.items():
        items[name] = Dataset(np.uint32(bool(meta.get(key, False))))
    mask = np.zeros(image.shape, "<u4") if content.mask is None else content.mask.astype("<u4", copy=False)
    items["pixel_mask"] = Dataset(mask)
    items["depends_on"] = Dataset(_TRANSLATION)
    items["transformations"] = _transformations(distance)
    items["module"] = _module(meta, image)
    items["detectorSpecific"] = _detector_specific(content)
    return Group("NXdetector", items)


def detector_distance(meta: Mapping[str, Any]) -> float | None:
    """Return the distance sample to detector [m], from whichever key has it."""
    if meta.get("detector_distance") is not None:
        return float(meta["detector_distance"])
    translation = meta.get("detector_translation")
    return float(translation[2]) if translation is not None and len(translation) == 3 else None


def _transformations(distance: float | None) -> Group:
    attributes = {
        "transformation_type": "translation",
        "vector": np.array([0.0, 0.0, 1.0]),
        "depends_on": ".",
        "units": "m",
    }
    return Group("NXtransformations", {"translation": Dataset(distance or 0.0, attributes)})


def _module(meta: Mapping[str, Any], image: ImagePlan) -> Group:
    """One module of the whole image; x runs against NeXus' x, y against its y (seen from the source)."""
    ny, nx = image.shape
    size_x, size_y = (float(meta.get(key) or 0.0) for key in ("pixel_size_x", "pixel_size_y"))
    centre_x, centre_y = (float(meta.get(key) or 0.0) for key in ("beam_center_x", "beam_center_y"))
    offset_path = f"{_DETECTOR}/module/module_offset"

    def direction(value: float, vector: list[float], offset: list[float], depends_on: str) -> Dataset:
        return Dataset(
            value,
            {
                "transformation_type": "translation",
                "vector": np.array(vector),
                "offset": np.array(offset),
                "depends_on": depends_on,
                "units": "m",
            },
        )

    origin = [centre_x * size_x, centre_y * size_y, 0.0]
    return Group(
        "NXdetector_module",
        {
            "data_origin": Dataset(np.array([0, 0], "<i4")),
            "data_size": Dataset(np.array([ny, nx], "<i4")),
            "data_stride": Dataset(np.array([1, 1], "<i4")),
            "fast_pixel_direction": direction(size_x, [-1.0, 0.0, 0.0], [0.0] * 3, offset_path),
            "slow_pixel_direction": direction(size_y, [0.0, -1.0, 0.0], [0.0] * 3, offset_path),
            "module_offset": direction(0.0, [1.0, 0.0, 0.0], origin, _TRANSLATION),
        },
    )


def _detector_specific(content: MasterContent) -> Group:
    ny, nx = content.image.shape
    rows = sum(rows for _, rows in content.files)
    images = rows if content.ended is not None or content.frames_requested is None else content.frames_requested
    return Group(
        "NXcollection",
        {
            "nimages": Dataset(np.uint32(images)),
            "ntrigger": Dataset(np.uint32(1)),
            "x_pixels_in_detector": Dataset(np.uint32(nx)),
            "y_pixels_in_detector": Dataset(np.uint32(ny)),
            "nimages_collected": Dataset(np.uint32(content.images_written)),
            "nimages_written": Dataset(np.uint32(content.images_written)),
            "pixel_mask": HardLink(f"{_DETECTOR}/pixel_mask"),
            "software_version": Dataset(_software()),
        },
    )


def _links(content: MasterContent, nx_class: str, target: str) -> Group:
    links: dict[str, Node] = {
        f"data_{number:06d}": ExternalLink(name, target) for number, (name, _) in enumerate(content.files, 1)
    }
    return Group(nx_class, links)


def _acquisition(content: MasterContent) -> Group:
    """What our own reader and a curious person want to know about the run."""
    requested = -1 if content.frames_requested is None else content.frames_requested
    return Group(
        "NXcollection",
        {
            "name": Dataset(content.acquisition),
            "source": Dataset(content.image.source),
            "series": Dataset(json.dumps(list(content.series))),
            "frames_requested": Dataset(np.int64(requested)),
            "images_written": Dataset(np.int64(content.images_written)),
            "started": Dataset(content.started, {"units": "s"}),
            "ended": Dataset(float("nan") if content.ended is None else content.ended, {"units": "s"}),
            "end_reason": Dataset(content.end_reason),
            "meta": Dataset(json.dumps(dict(content.meta), default=str)),
        },
    )


def _ledger(ledger: Mapping[str, Any]) -> Group:
    """The ledger as JSON, and each of its numbers as a dataset of its own."""
    group = Group("NXcollection", _numbers(ledger))
    group.items["json"] = Dataset(json.dumps(dict(ledger), default=str))
    return group


def _numbers(tree: Mapping[str, Any]) -> dict[str, Node]:
    found: dict[str, Node] = {}
    for key, value in tree.items():
        name = str(key).replace("/", "_") or "_"
        if isinstance(value, Mapping):
            if inner := _numbers(value):
                found[name] = Group("NXcollection", inner)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[name] = Dataset(np.float64(value) if isinstance(value, float) else np.int64(value))
    return found
