"""Pictures from files: TIFF, CBF, EDF through fabio, and uncompressed Pilatus TIFFs without the way round.

A picture that its writer has not finished is told from one that is broken by its age only: `PictureUnfinished` says
that it could not be read, whatever the reason; the queue tries again as long as that may help.
"""

from __future__ import annotations

import logging
import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sisockdaq.sources.files import read_image

__all__ = ["SUFFIXES", "Picture", "PictureReader", "PictureUnfinished", "is_picture", "pictures_below", "pilatus_tiff"]

_log = logging.getLogger(__name__)

SUFFIXES = (".tif", ".tiff", ".cbf", ".edf")

_HEAD = 8192
"""Enough for the header and the description of a Pilatus TIFF [bytes]."""

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _DESCRIPTION = 256, 257, 258, 259, 270
_OFFSET, _SAMPLES, _ROWS, _BYTES, _DATE, _FORMAT = 273, 277, 278, 279, 306, 339

_TIME = re.compile(rb"\d{4}[-:/]\w{2,3}[-:/]\d{2}[T ]\d{2}:\d{2}:\d{2}(?:\.\d+)?")


class PictureUnfinished(OSError):
    """A file cannot be read, or not whole: perhaps it is still written."""


@dataclass(frozen=True)
class Picture:
    """An image and when it says it was taken (as text; empty where it does not say)."""

    image: npt.NDArray[Any]
    time: str


def is_picture(name: str | os.PathLike[str]) -> bool:
    """Return whether a name is that of a picture; hidden and temporary files are none."""
    base = os.path.basename(os.fspath(name)).lower()  # noqa: PTH119  (runs for every picture)
    return base.endswith(SUFFIXES) and not base.startswith(".")


def pictures_below(folder: str) -> Iterator[str]:
    """Yield the pictures in a folder and below it, by name; a folder that cannot be listed is passed over."""
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        _log.warning("%s: cannot be listed: %s", folder, error.strerror)
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from pictures_below(entry.path)
        elif is_picture(entry.name):
            yield entry.path


class PictureReader:
    """Reads one picture after the other; the image of the last one is overwritten by the next.

    The first file of each layout is also read by fabio. Only where both agree, others of that layout are read fast.
    """

    def __init__(self) -> None:
        self._trusted: dict[_Layout, bool] = {}
        self._buffer = np.empty(0, np.uint8)

    def read(self, path: Path | str) -> Picture:
        """Read a file.

        Raises
        ------
        FileNotFoundError, PermissionError
            It cannot be opened.
        PictureUnfinished
            It is not whole, or cannot be read at all.
        """
        if os.fspath(path).lower().endswith((".tif", ".tiff")):
            fast = self._fast(os.fspath(path))
            if fast is not None:
                return fast
        return _by_fabio(Path(path))

    def _fast(self, path: str) -> Picture | None:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            head = os.pread(handle, _HEAD, 0)
            layout, time = _layout(head)
            if layout is None or self._trusted.get(layout) is False:
                return None
            image = self._pixels(handle, layout)
        finally:
            os.close(handle)
        if layout not in self._trusted:
            known = _by_fabio(Path(path))
            self._trusted[layout] = known.image.dtype == image.dtype and np.array_equal(known.image, image)
            if not self._trusted[layout]:
                return known
        return Picture(image, time)

    def _pixels(self, handle: int, layout: _Layout) -> npt.NDArray[Any]:
        size = layout.rows * layout.columns * layout.dtype.itemsize
        if self._buffer.size != size:
            self._buffer = np.empty(size, np.uint8)
        left, at = self._buffer.data, layout.offset
        while left:
            count = os.preadv(handle, [left], at)
            if count == 0:
                raise PictureUnfinished(f"{len(left)} of {size} bytes of its pixels are missing")
            left, at = left[count:], at + count
        return self._buffer.view(layout.dtype).reshape(layout.rows, layout.columns)


@dataclass(frozen=True)
class _Layout:
    rows: int
    columns: int
    dtype: np.dtype[Any]
    offset: int


def _layout(head: bytes) -> tuple[_Layout | None, str]:
    """Return how a TIFF's pixels lie, None where they are not in one uncompressed piece; and its time."""
    if len(head) < 8 or head[:4] != b"II*\0":
        return None, ""
    (place,) = struct.unpack_from("<I", head, 4)
    if place + 2 > len(head):
        return None, ""
    (count,) = struct.unpack_from("<H", head, place)
    if count > 100 or place + 2 + 12 * count > len(head):
        return None, ""
    tags = {}
    for number in range(count):
        tag, kind, length, value = struct.unpack_from("<HHII", head, place + 2 + 12 * number)
        if kind == 3 and length == 1:
            value &= 0xFFFF
        tags[tag] = (length, value)
    one = {tag: value for tag, (length, value) in tags.items() if length == 1}
    if not {_WIDTH, _HEIGHT, _OFFSET} <= one.keys() or one.get(_COMPRESSION, 1) != 1 or one.get(_SAMPLES, 1) != 1:
        return None, ""
    bits, form = one.get(_BITS, 1), one.get(_FORMAT, 1)
    if bits not in (8, 16, 32) or form not in (1, 2) or one.get(_ROWS, one[_HEIGHT]) < one[_HEIGHT]:
        return None, ""
    if one.get(_BYTES, 0) not in (0, one[_WIDTH] * one[_HEIGHT] * bits // 8):
        return None, ""
    dtype = np.dtype(f"{'u' if form == 1 else 'i'}{bits // 8}")
    return _Layout(one[_HEIGHT], one[_WIDTH], dtype, one[_OFFSET]), _time(head, tags)


def _time(head: bytes, tags: dict[int, tuple[int, int]]) -> str:
    for tag in (_DESCRIPTION, _DATE):  # a Pilatus writes fractions of a second into the description only
        if tag in tags:
            length, place = tags[tag]
            found = _TIME.search(head, place, min(place + length, len(head)))
            if found:
                return found.group().decode("ascii", "replace")
    return ""


def _by_fabio(path: Path) -> Picture:
    try:
        image, _ = read_image(path)
    except (FileNotFoundError, PermissionError):
        raise
    except OSError as error:
        raise PictureUnfinished(_why(path, error)) from error
    return Picture(image, "")


def _why(path: Path, error: OSError) -> str:
    text = error.strerror or str(error) or type(error).__name__
    if "could not identify" in text:
        return "is empty" if path.stat().st_size == 0 else "is no image that fabio knows"
    return text


def pilatus_tiff(image: npt.NDArray[np.int32], time: str = "2026-11-21T12:00:00.000") -> bytes:
    """Return a file as a Pilatus writes it: pixels in one piece from byte 4096; for simulations and tests.

    Parameters
    ----------
    image : ndarray of int32, shape (rows, columns)
        Counts.
    time : str
        When it was taken, for the description.
    """
    said = f"# Pixel_size 172e-6 m x 172e-6 m\r\n# {time}\r\n# Exposure_time 0.990000 s\r\n".encode("ascii") + b"\0"
    rows, columns = image.shape
    entries = [
        (_WIDTH, 4, 1, columns),
        (_HEIGHT, 4, 1, rows),
        (_BITS, 3, 1, 32),
        (_COMPRESSION, 3, 1, 1),
        (262, 3, 1, 1),  # black is zero
        (_DESCRIPTION, 2, len(said), 512),
        (_OFFSET, 4, 1, 4096),
        (_SAMPLES, 3, 1, 1),
        (_ROWS, 4, 1, rows),
        (_BYTES, 4, 1, image.nbytes),
        (_FORMAT, 3, 1, 2),
    ]
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    start = (head + bytes(4)).ljust(512, b"\0") + said
    return start.ljust(4096, b"\0") + np.ascontiguousarray(image, "<i4").tobytes()
