"""Images of recorded files, through the site's archive.

An acquisition goes by its ``run_id``, or by its name, and its folder where there are several of that name. Files are
those that the archive lists or the writer's log names; a caller's folder only chooses among them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sisockdaq.errors import FileUnreadable

if TYPE_CHECKING:
    from sisockdaq.client import ServingClient
    from sisockdaq.client._dataset import Image

__all__ = ["find", "image_reply", "metadata"]


def find(
    client: ServingClient, wanted: str, index: int, logs: Sequence[Mapping[str, Any]], folder: str | None = None
) -> Image:
    """Return one image of an acquisition.

    Parameters
    ----------
    client : ServingClient
    wanted : str
        Its run_id or name.
    index : int
        From 0.
    logs : sequence of std-daq's acquisitions
    folder : str, optional
        Of its files.

    Raises
    ------
    FileUnreadable
        No archive has it, or several folders do.
    """
    entry = _entry(client, wanted, _logged(wanted, logs), folder)
    images = int(entry.get("frames") or 0)
    if index >= images:
        last = f"its images are 0 to {images - 1}" if images else "it has no image yet"
        raise FileUnreadable(f"{wanted} has no image {index}", remedy=last)
    return _image(client, entry, index)


def metadata(
    client: ServingClient, wanted: str, logs: Sequence[Mapping[str, Any]], folder: str | None = None
) -> dict[str, Any]:
    """Return std-daq's description of a recorded file; raises as `find`."""
    logged = _logged(wanted, logs)
    entry = _entry(client, wanted, logged, folder)
    images = int(entry.get("frames") or 0)
    shape: tuple[int, ...] = ()
    kind = None
    if images:
        first = _image(client, entry, 0).values
        shape, kind = first.shape, first.dtype.name
    files = [str(path) for path in entry.get("files") or ()]
    info = {"n_images": entry.get("frames_requested"), "output_file": None, "run_id": None}
    return {
        "log_info": dict(logged["info"]) if logged is not None else info,
        "file_info": {
            "n_files": len(files),
            "n_images": images,
            "image_pixel_width": shape[1] if shape else None,
            "image_pixel_height": shape[0] if shape else None,
            "dtype": kind,
            "files": files,
        },
    }


def image_reply(image: Image) -> dict[str, Any]:
    """Return an image as JSON-able numbers."""
    lost = None if image.mask is None or not image.mask.any() else np.ascontiguousarray(image.mask, np.uint8)
    return {
        "acquisition": image.acquisition,
        "index": image.index,
        "frame": image.number,
        "time": image.t,
        "shape": list(image.values.shape),
        "type": image.values.dtype.name,
        "data": np.ascontiguousarray(image.values),
        "lost": lost,
    }


def _image(client: ServingClient, entry: Mapping[str, Any], index: int) -> Image:
    source = entry.get("source") or "image"
    return client.image(f"{source}::image", str(entry["acquisition"]), index, folder=entry.get("folder"))


def _logged(wanted: str, logs: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    return next((one for one in logs if str(one["info"]["run_id"]) == wanted), None)


def _entry(
    client: ServingClient, wanted: str, logged: Mapping[str, Any] | None, folder: str | None
) -> Mapping[str, Any]:
    """Return the archive's entry of an acquisition: of the very file, where the log names one."""
    held = client.acquisitions()
    entry: Mapping[str, Any]
    if logged is not None and logged["info"]["output_file"]:
        stem = Path(logged["info"]["output_file"])
        for entry in reversed(held):
            if any(Path(path).parent == stem.parent for path in entry.get("files") or ()) and (
                entry.get("acquisition") in (stem.stem, stem.stem.removesuffix("_master"))
            ):
                return entry
    named = [each for each in held if each.get("acquisition") == wanted and folder in (None, each.get("folder"))]
    if len({each.get("folder") for each in named}) > 1:
        places = ", ".join(str(each.get("folder")) for each in named)
        raise FileUnreadable(f"{wanted} is in several folders: {places}", remedy="ask by run_id, or add ?folder=")
    if named:
        return named[-1]
    known = ", ".join(str(entry.get("acquisition")) for entry in held[-5:])
    there = f" in {folder}" if folder is not None else ""
    raise FileUnreadable(
        f'no archive has an acquisition "{wanted}"{there}',
        remedy=f"the latest are {known}" if known else "none has any yet",
    )
