"""The detector, as a master file tells of it (`nxmx`): what it is, where it stands, what was done to its images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sisockdaq.nexus.layout import ImagePlan
from sisockdaq.nexus.tree import Dataset, Group, HardLink, Node

if TYPE_CHECKING:
    from sisockdaq.nexus.nxmx import MasterContent

__all__ = ["DETECTOR", "detector", "detector_distance", "known"]

DETECTOR = "/entry/instrument/detector"
_TRANSLATION = f"{DETECTOR}/transformations/translation"


def known(meta: Mapping[str, Any], names: Mapping[str, tuple[str, str | None]]) -> dict[str, Node]:
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
    "underload_value": ("underload_value", None),
    "detector_type": ("type", None),
    "gain_setting": ("gain_setting", None),
}
_CORRECTIONS = {
    "flatfield_enabled": "flatfield_applied",
    "countrate_correction_enabled": "countrate_correction_applied",
    "pixel_mask_enabled": "pixel_mask_applied",
}


def detector(content: MasterContent, software: str) -> Group:
    """Return the group of the detector."""
    meta, image = content.meta, content.image
    facts = dict(meta)
    if isinstance(facts.get("threshold_energy"), Mapping):
        facts["threshold_energy"] = next(iter(facts["threshold_energy"].values()), None)
    items = known(facts, _DETECTOR_FACTS)
    items.update(known(facts, {"detector_serial_number": ("serial_number", None)}))
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
    items["pixel_mask"] = Dataset(np.ascontiguousarray(mask))
    if content.flatfield is not None:
        items["flatfield"] = Dataset(content.flatfield.astype("<f4", copy=False))
    if content.calibration:
        tables = {name.replace("/", "_"): Dataset(np.asarray(table)) for name, table in content.calibration.items()}
        items["calibration"] = Group("NXcollection", {**tables})
    items["depends_on"] = Dataset(_TRANSLATION)
    items["transformations"] = _transformations(distance)
    items["module"] = _module(meta, image)
    items["detectorSpecific"] = _detector_specific(content, software)
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
    offset_path = f"{DETECTOR}/module/module_offset"

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


def _detector_specific(content: MasterContent, software: str) -> Group:
    ny, nx = content.image.shape
    return Group(
        "NXcollection",
        {
            "nimages": Dataset(np.uint32(content.rows)),
            "ntrigger": Dataset(np.uint32(1)),
            "x_pixels_in_detector": Dataset(np.uint32(nx)),
            "y_pixels_in_detector": Dataset(np.uint32(ny)),
            "nimages_collected": Dataset(np.uint32(content.images_written)),
            "nimages_written": Dataset(np.uint32(content.images_written)),
            "pixel_mask": HardLink(f"{DETECTOR}/pixel_mask"),
            "software_version": Dataset(software),
        },
    )
