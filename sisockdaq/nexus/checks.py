"""What stands in the way of an acquisition, all of it at once, each with its remedy."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from sisockdaq.frames.messages import Description
from sisockdaq.frames.raw import RawMode
from sisockdaq.nexus.fileset import existing_files
from sisockdaq.nexus.identity import may_write
from sisockdaq.nexus.layout import ImagePlan
from sisockdaq.nexus.placing import Place

__all__ = [
    "ASSUMED_RATIO",
    "CHECKS",
    "CheckName",
    "Severity",
    "divided",
    "existing_folder",
    "folder_obstacles",
    "request_obstacles",
    "shown_size",
    "space_needed",
    "space_obstacle",
]

ASSUMED_RATIO = 4.0
"""Compression that is assumed until one was seen: low for the sparse images of photon-counting detectors."""

CheckName = Literal["space", "buffers", "mask", "geometry"]
Severity = Literal["refuse", "warn", "off"]

CHECKS: dict[CheckName, Severity] = {"space": "refuse", "buffers": "warn", "mask": "refuse", "geometry": "warn"}
"""What becomes of a finding where the site says nothing. Files of an acquisition that begins with too little space are
cut off, and a mask of another shape is a mistake in all its files; small buffers cost packets only in bursts, and a
geometry can be given to the files later. What makes an acquisition impossible always refuses it."""

_SPARE = 64 * 2**20
"""Bytes that are to stay free on the disk."""


def divided(
    findings: Sequence[tuple[CheckName, str]], checks: Mapping[CheckName, Severity]
) -> tuple[list[str], list[str]]:
    """Return the findings that refuse a start, and those that only warn."""
    chosen = {**CHECKS, **checks}
    refusals = [text for name, text in findings if chosen[name] == "refuse"]
    return refusals, [text for name, text in findings if chosen[name] == "warn"]


def existing_folder(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    return next(place for place in (folder, *folder.parents) if place.exists())


def folder_obstacles(place: Place, *, overwrite: bool, user_id: int | None = None) -> list[str]:
    """Return why files cannot be made at that place, by that user (None: the writer's own)."""
    found, folder = [], place.folder
    nearest = existing_folder(folder)
    if not nearest.is_dir():
        found.append(f"{nearest} is not a folder   → use another directory")
    elif not may_write(nearest, user_id):
        who = "" if user_id is None else f" for user {user_id}"
        found.append(f"{nearest} is not writable{who}   → change its owner or mode, or use another directory")
    if not overwrite and (files := existing_files(folder, place.prefix, place.master)):
        shown = place.master if place.path in files else files[0].name
        found.append(f"{shown} exists in {folder}   → choose another name, or set overwrite in the writer's options")
    return found


def request_obstacles(frames: int | None, source: Description | None, under_way: str | None) -> list[str]:
    """Return why `frames` frames cannot be had from that source.

    Parameters
    ----------
    frames : int or None
        None for an open end.
    source : Description or None
        Of the source that is attached, if any.
    under_way : str or None
        The acquisition that the source is in.
    """
    found = []
    if frames is not None and frames < 1:
        found.append(f"{frames} frames are asked for   → 1 or more, or none for an open end")
    if source is None:
        found.append("no source of frames is attached   → start the receiver")
    elif source.kind != "image" or len(source.shape) != 2:
        found.append(f"{source.source} does not publish images   → name a receiver in the writer's options")
    if under_way is not None:
        found.append(f"the source is in acquisition {under_way}   → wait for its end, or stop it")
    return found


def space_needed(image: ImagePlan, frames: int, ratio: float) -> int:
    """Return the bytes that the images of an acquisition will take at that compression ratio."""
    return int(image.frame_bytes * frames / ratio)


def space_obstacle(
    folder: Path, image: ImagePlan, frames: int | None, seen_ratio: float | None, raw: RawMode | None = None
) -> str | None:
    """Return why the disk is too small for the acquisition, or None; raw packets take what unpacked pixels take."""
    free = shutil.disk_usage(existing_folder(folder)).free - _SPARE
    packed = image.compression != "none"
    ratio = (seen_ratio or ASSUMED_RATIO) if packed else 1.0
    count = 1 if frames is None else frames
    needed = 0 if raw == "instead" else space_needed(image, count, ratio)
    needed += 0 if raw is None else space_needed(image, count, 1.0)
    if needed <= free:
        return None
    how = f" ÷ {ratio:.1f}, {'the compression seen so far' if seen_ratio else 'assumed compression'}" if packed else ""
    how = {None: how, "beside": f"{how}, and once more for the packets", "instead": " of packets"}[raw]
    size = f"{frames or 1} frames × {shown_size(image.frame_bytes)}{how}"
    there = f"{shown_size(max(free, 0))} free in {folder}"
    return f"{shown_size(needed)} needed, {there} ({size})   → free some, or --directory"


def shown_size(number: float) -> str:
    """Return bytes for people."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if number < 1000 or unit == "TB":
            return f"{number:.3g} {unit}"
        number /= 1000
    raise AssertionError("unreachable")
