"""Images: the newest of a live node, or one of an acquisition from an archive.

An archive's ``get_image(acquisition, index, folder)`` answers with the messages of `sisockdaq.wire`; the reply's field
``image`` holds one sample, ``mask`` (where it is there) one of the same shape, 1 where a lost packet's pixels are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sisockdaq.client._dataset import Image
from sisockdaq.client._runs import list_acquisitions
from sisockdaq.errors import FieldUnknown, FileUnreadable, NodeNotFound, ReplyInvalid, SisockdaqError

if TYPE_CHECKING:
    from sisockdaq.client._asking import Asker, Catalog, Source
    from sisockdaq.client._network import Network

__all__ = ["archived_image", "live_image"]


def live_image(asker: Asker, source: Source, name: str) -> Image:
    """Return the newest sample of an array field.

    Raises
    ------
    FieldUnknown
        When it is no array, or has no sample yet.
    """
    if source.entry.type != "array":
        raise FieldUnknown(f"{name} is of type {source.entry.type}, not an image")
    samples = asker.latest(source)
    if not len(samples):
        raise FieldUnknown(f"{name} has no image yet")
    return Image(name, samples.values[-1], float(samples.t[-1]))


def archived_image(
    network: Network, catalog: Catalog, name: str, acquisition: str | None, index: int, folder: str | None = None
) -> Image:
    """Return one image of an acquisition (None: the newest).

    Raises
    ------
    FileUnreadable
        When no archive has it, or it is in more than one folder and none is given.
    """
    held = list_acquisitions(network, catalog)
    named = [entry for entry in held if acquisition in (None, entry.get("acquisition"))]
    named = [entry for entry in named if folder in (None, entry.get("folder"))]
    folders = sorted({str(entry["folder"]) for entry in named if entry.get("folder")})
    if acquisition is not None and len(folders) > 1:
        raise FileUnreadable(f"{acquisition} is in {len(folders)} folders: {', '.join(folders)}", remedy="name one")
    if not named:
        known = ", ".join(str(entry.get("acquisition")) for entry in held[-5:])
        raise FileUnreadable(
            f'no archive has an acquisition "{acquisition}"' if acquisition else "no archive has an acquisition",
            remedy=f"the latest are {known}" if known else "",
        )
    error: SisockdaqError = NodeNotFound("no archive answered")
    for entry in reversed(named):
        try:
            place = entry.get("folder")
            return _ask(network, str(entry["archive"]), name, str(entry["acquisition"]), index, place)
        except SisockdaqError as failed:
            error = failed
    raise error


def _ask(network: Network, archive: str, name: str, acquisition: str, index: int, folder: str | None) -> Image:
    place = () if folder is None else (folder,)
    reply = network.result(network.start_arrays(f"consumer.{archive}.get_image", acquisition, index, *place))
    image, mask = reply.samples.get("image"), reply.samples.get("mask")
    if image is None or len(image) != 1:
        raise ReplyInvalid(f"{archive} answered get_image without an image")
    number = reply.samples.get("frame_number")
    return Image(
        name,
        image.values[0],
        float(image.t[0]),
        None if mask is None or not len(mask) else mask.values[0].astype(np.bool_),
        acquisition,
        index,
        int(number.values[0]) if number is not None and len(number) else None,
    )
