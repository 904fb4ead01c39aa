"""What is settled before an acquisition's files are made: may it start, where, and what goes into them."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sisockdaq import acquisition as life
from sisockdaq.errors import AcquisitionRefused, MaskError, SisockdaqError
from sisockdaq.frames.messages import Description
from sisockdaq.frames.raw import CAN_RECORD
from sisockdaq.frames.tables import FLATFIELD, MASK
from sisockdaq.nexus.checks import CheckName, divided, folder_obstacles, request_obstacles, space_obstacle
from sisockdaq.nexus.identity import user_obstacle
from sisockdaq.nexus.journal import Unfinished
from sisockdaq.nexus.layout import DataFilePlan, ImagePlan, ResultsPlan
from sisockdaq.nexus.options import EngineOptions
from sisockdaq.nexus.placing import Place, find_place

__all__ = [
    "all_facts",
    "completed",
    "file_plan",
    "fitting_mask",
    "pixel_tables",
    "place_of",
    "raw_folder",
    "refuse_obstacles",
]

_log = logging.getLogger(__name__)


def completed(request: life.Request, user_id: int | None) -> life.Request:
    """Fill in what was left to the writer: the mark of the run, and whose the files are."""
    return replace(
        request,
        run_id=time.time_ns() if request.run_id is None else request.run_id,
        user_id=user_id if request.user_id is None else request.user_id,
    )


def place_of(request: life.Request, options: EngineOptions) -> Place:
    """Return where the files of a request go; raise `AcquisitionRefused` when it is not to be there."""
    return find_place(options.root, options.allowed or [options.root], request)


def raw_folder(place: Place) -> Path:
    """Return the folder of an acquisition's raw packets."""
    return place.folder / f"{place.prefix}_raw"


def refuse_obstacles(
    request: life.Request,
    options: EngineOptions,
    source: Description | None,
    under_way: str | None,
    ratio: float | None,
) -> list[str]:
    """Look for everything that speaks against a start; return what the site only warns about.

    Parameters
    ----------
    request : Request
    options : EngineOptions
    source : Description or None
        What the attached source sends.
    under_way : str or None
        The acquisition that the source is busy with.
    ratio : float or None
        Compression seen so far.

    Raises
    ------
    AcquisitionRefused
        With all reasons at once.
    """
    reasons = request_obstacles(request.frames, source, under_way)
    findings = [] if source is None or len(source.shape) != 2 else _source_findings(source, options)
    user = user_obstacle(request.user_id)
    reasons += [user] if user else []
    try:
        place = place_of(request, options)
    except AcquisitionRefused as error:
        reasons.append(str(error))
    else:
        writing_user = None if user else request.user_id
        reasons += folder_obstacles(place, overwrite=options.overwrite, user_id=writing_user)
        reasons += _raw_obstacles(request, source, raw_folder(place))
        if source is not None and len(source.shape) == 2:
            image = ImagePlan.from_description(source, options.compression)
            obstacle = space_obstacle(place.folder, image, request.frames, ratio, request.raw)
            findings += [("space", obstacle)] if obstacle else []
    refusals, warnings = divided(findings, options.checks)
    if reasons or refusals:
        raise AcquisitionRefused(f"cannot start {request.acquisition}", reasons=reasons + refusals)
    return warnings


def all_facts(options: EngineOptions, source: Description, request: life.Request) -> dict[str, Any]:
    """Return the facts for the master file: the site's, then the source's, then those of the request."""
    return {**options.meta, **source.meta, **request.meta}


def fitting_mask(options: EngineOptions, source: Description) -> npt.NDArray[np.uint32] | None:
    """Return the mask if it fits: where the site only warns, files have none rather than a wrong one."""
    try:
        return _pixel_mask(source, options)
    except SisockdaqError as error:
        _log.warning("files without a pixel mask: %s", error)
        return None


def pixel_tables(
    options: EngineOptions, source: Description
) -> tuple[npt.NDArray[Any] | None, dict[str, npt.NDArray[Any]]]:
    """Return the flat field that came with the images, and what else did; without what cannot be read."""
    try:
        found = dict(options.tables_of(source)) if options.tables_of is not None else {}
    except SisockdaqError as error:
        _log.warning("files without flat field: %s", error)
        return None, {}
    found.pop(MASK, None)
    return found.pop(FLATFIELD, None), found


def file_plan(setting: Unfinished, options: EngineOptions) -> DataFilePlan:
    """Return how the data files are laid out."""
    return DataFilePlan(
        setting.images_per_file,
        ImagePlan.from_description(setting.image, setting.compression),
        tuple(ResultsPlan.from_description(each) for each in setting.results),
        master=options.master,
        swmr=options.swmr,
    )


def _raw_obstacles(request: life.Request, source: Description | None, folder: Path) -> list[str]:
    """Return why raw packets cannot be recorded; they are never written over."""
    found = []
    if request.raw is not None and source is not None and not source.meta.get(CAN_RECORD):
        found.append(f"{source.source} has no packets to record   → raw packets come from a detector_receiver")
    if request.raw is not None and folder.is_dir() and any(folder.glob("*.dat")):
        found.append(f"{folder} holds a recording already   → choose another name")
    return found


def _source_findings(source: Description, options: EngineOptions) -> list[tuple[CheckName, str]]:
    """Try buffers, mask and geometry on what the source sends now."""
    findings: list[tuple[CheckName, str]] = []
    if buffers := source.meta.get("warnings", {}).get("buffers"):
        findings.append(("buffers", str(buffers)))
    try:
        _pixel_mask(source, options)
    except SisockdaqError as error:
        findings.append(("mask", str(error)))
    try:
        if options.geometry_of is not None:
            options.geometry_of(source)
    except SisockdaqError as error:
        findings.append(("geometry", str(error)))
    return findings


def _pixel_mask(source: Description, options: EngineOptions) -> npt.NDArray[np.uint32] | None:
    """Return the pixel mask for the files; raise `MaskError` when it does not fit the images."""
    mask = options.mask if options.mask_of is None else options.mask_of(source)
    if mask is not None and mask.shape != source.shape:
        raise MaskError(f"the pixel mask is {mask.shape}, images are {source.shape}", remedy="use another mask")
    return mask
