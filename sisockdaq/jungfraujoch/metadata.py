"""What metadata messages carry, gathered for the master file. Pure.

Jungfraujoch's ``metadata`` messages repeat, for many images at once, what is known of each without its pixels, and may
state facts of the run. In the master::

    /entry/metadata/json              facts of the run, as JSON; what comes later stands for what came before
    /entry/metadata/images/<key>      each number of an image, one row for an image that was told of
    /entry/metadata/images/image_id   which one

Left out, and counted: lists of an image (spots, curves, regions: they come with the image, and are beside it in the
data files), texts of an image, and what is beyond the limits below. An integrated master is laid out before any of it
is known: it has a place for the facts, and none for the images.
"""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Mapping
from typing import Any

import numpy as np

from sisockdaq.frames.stream2 import EncodedArray
from sisockdaq.jungfraujoch.dialect import plain
from sisockdaq.jungfraujoch.results import scalar
from sisockdaq.nexus.tree import Dataset, Group, Node

__all__ = ["FACTS_ROOM", "Metadata"]

FACTS_ROOM = 64 * 1024
"""Bytes of the facts as JSON at most."""

_MOST_IMAGES = 1_000_000
_MOST_COLUMNS = 32
_KNOWN = {"series_id", "series_unique_id", "magic_number", "image_id", "images"}
"""Keys that say what a message belongs to."""


class Metadata:
    """The metadata of one series.

    Attributes
    ----------
    images : int
        Images that were told of.
    numbers : int
        Numbers of these images that are kept.
    left_out : int
        Values that are not kept.
    """

    def __init__(self) -> None:
        self.images = self.numbers = self.left_out = 0
        self._facts: dict[str, Any] = {}
        self._size = 0
        self._ids = array("q")
        self._columns: dict[str, array[float]] = {}

    def add(self, fields: Mapping[str, Any]) -> None:
        """Take a message."""
        for key, value in fields.items():
            if key not in _KNOWN:
                self._fact(str(key), value)
        images = fields.get("images")
        for image in images if isinstance(images, list) else ():
            self._image(image)

    def tree(self, *, images: bool = True, room: int = 0) -> Group | None:
        """Return the group ``/entry/metadata``; None when nothing came and no room is kept for it.

        Parameters
        ----------
        images : bool
            Whether there is a place for what is known of single images.
        room : int
            Bytes to keep for the facts.
        """
        if not (self._facts or room or (images and self._ids)):
            return None
        text = json.dumps(self._facts) if self._facts else ""
        group = Group("NXcollection", {"json": Dataset(text, room=room)})
        if images and self._ids:
            columns: dict[str, Node] = {"image_id": Dataset(np.array(self._ids, "<i8"))}
            for key, values in self._columns.items():
                values.extend([math.nan] * (len(self._ids) - len(values)))
                columns[key] = Dataset(np.array(values, "<f8"))
            group.items["images"] = Group("NXcollection", columns)
        return group

    def _fact(self, key: str, value: Any) -> None:
        if isinstance(value, EncodedArray):
            self.left_out += 1
            return
        kept = plain(value)
        size = len(json.dumps({key: kept}))
        if self._size + size > FACTS_ROOM:
            self.left_out += 1
            return
        self._size += size
        self._facts[key] = kept

    def _image(self, image: Any) -> None:
        number = image.get("image_id") if isinstance(image, Mapping) else None
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 2**63:
            self.left_out += 1
            return
        self.images += 1
        if len(self._ids) >= _MOST_IMAGES:
            self.left_out += 1
            return
        row = len(self._ids)
        self._ids.append(number)
        for key, value in image.items():
            if key not in _KNOWN:
                self._number(str(key), value, row)

    def _number(self, key: str, value: Any, row: int) -> None:
        number, name = scalar(value), key.replace("/", "_").strip(".") or "_"
        column = self._columns.get(name)
        if number is None or name == "image_id" or (column is None and len(self._columns) >= _MOST_COLUMNS):
            self.left_out += 1
            return
        if column is None:
            column = self._columns[name] = array("d")
        if len(column) > row:  # two keys with the same name in the file
            self.left_out += 1
            return
        column.extend([math.nan] * (row - len(column)))
        column.append(number)
        self.numbers += 1
