"""The message about a finalised data file, as the Jungfraujoch writer publishes it (JSON). Pure.

Keys and their meaning are those of its documentation, with the contract's corrections: ``nimages`` is the number of
images in this file, ``file_number`` counts from 0 while names count from ``_data_000001``, ``image_time_s`` is there as
well. What the sender did not say is absent, never null.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sisockdaq.jungfraujoch.dialect import Header

__all__ = ["finalised_file"]

_FACTS = {
    "sample_name": "sample_name",
    "run_name": "run_name",
    "run_number": "run_number",
    "experiment_group": "experiment_group",
    "beam_x_pxl": "beam_center_x",
    "beam_y_pxl": "beam_center_y",
    "image_time_s": "frame_time",
    "incident_energy_eV": "incident_energy",
    "pixel_size_m": "pixel_size_x",
    "saturation": "saturation_value",
    "space_group_number": "space_group_number",
    "unit_cell": "unit_cell",
}
"""Key of the message → name in the start message."""


def finalised_file(
    header: Header, *, filename: str, nimages: int, file_number: int, shape: tuple[int, int], underload: float
) -> bytes:
    """Return the message.

    Parameters
    ----------
    header : Header
        Of the series.
    filename : str
        Relative to the writer's root.
    nimages : int
        Images in this file.
    file_number : int
        From 0.
    shape : tuple of (ny, nx)
    underload : float
        Value of pixels that are to be left out.
    """
    facts = header.facts
    message: dict[str, Any] = {"filename": filename, "nimages": nimages, "file_number": file_number}
    message |= {key: facts[name] for key, name in _FACTS.items() if facts.get(name) is not None}
    distance = _distance(facts)
    if distance is not None:
        message["detector_distance_m"] = distance
    message["detector_height_pxl"], message["detector_width_pxl"] = shape
    if underload == underload:  # not NaN, which JSON does not have
        message["underload"] = underload
    if header.user_data is not None:
        message["user_data"] = header.user_data
    return json.dumps(message).encode()


def _distance(facts: Mapping[str, Any]) -> float | None:
    """Return the distance [m]; DECTRIS sends it as the last component of a translation."""
    if isinstance(facts.get("detector_distance"), int | float):
        return float(facts["detector_distance"])
    translation = facts.get("detector_translation")
    if isinstance(translation, list) and len(translation) == 3 and isinstance(translation[2], int | float):
        return float(translation[2])
    return None
