"""Where everything of an acquisition stands: file names, which file and row a frame goes to, chunk sizes. Pure.

::

    <prefix>_master.h5            what the acquisition was; links to the data files; the ledger
    <prefix>_data_000001.h5 …     images, and everything that belongs to single frames

An *integrated* master holds the images itself, and there are no data files.

A frame's place follows from its index alone: frame ``i`` is row ``i % images_per_file`` of file
``i // images_per_file + 1``. A frame that never came leaves its row empty (the image reads as the fill value, its
time as NaN), so that row numbers and the steps of a scan stay together whatever was lost.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np

from sisockdaq.errors import AcquisitionRefused
from sisockdaq.frames.messages import Description, FrameHeader
from sisockdaq.nexus.results import AXIS_PREFIX, ResultField, ResultsPlan, SecondName

__all__ = [
    "AXIS_PREFIX",
    "FRAME_FIELDS",
    "FRAME_PLACES",
    "IMAGE_PATH",
    "OPEN_ENDED",
    "SERIES_PATH",
    "DataFilePlan",
    "FrameField",
    "ImagePlan",
    "MasterLayout",
    "ResultField",
    "ResultsPlan",
    "SecondName",
    "acquisition_of",
    "chunk_rows",
    "data_name",
    "frame_fields",
    "master_name",
    "place",
    "resolve_prefix",
]

IMAGE_PATH = "/entry/data/data"
SERIES_PATH = "/entry/series"

MasterLayout = Literal["legacy", "vds", "integrated"]
"""How a master shows the images: as links to the data files, which every reader takes; as one virtual dataset over
them; or it holds them itself."""

_TREE_CHILDREN = 64
"""Entries of one chunk tree node in a file with default settings: a dataset of at most so many chunks has a tree of
one node, written whole at every commit."""

_ROWS_AT_LEAST = 16
_CHUNK_BYTES_AT_MOST = 8 * 2**20

OPEN_ENDED = 10**9
"""Images of an integrated file whose end is not known."""

_ROWS_FOR_CHUNKS = 10_000
"""A file for a whole acquisition says that it may have a billion rows; most have some thousands."""

_DATA_FILE = re.compile(r"^(?P<prefix>.+)_data_(?P<number>\d{6})\.h5$")
_MASTER_FILE = re.compile(r"^(?P<prefix>.+)_master\.h5$")


def master_name(prefix: str) -> str:
    """Return the name of the master file."""
    return f"{prefix}_master.h5"


def data_name(prefix: str, number: int) -> str:
    """Return the name of data file `number`, counted from 1."""
    return f"{prefix}_data_{number:06d}.h5"


def acquisition_of(file_name: str) -> tuple[str, int] | None:
    """Return the prefix and number of a data file's name, number 0 for a master file; None for another name."""
    if match := _DATA_FILE.match(file_name):
        return match["prefix"], int(match["number"])
    if match := _MASTER_FILE.match(file_name):
        return match["prefix"], 0
    return None


def place(index: int, images_per_file: int) -> tuple[int, int]:
    """Return the file number (from 1) and the row (from 0) of the frame with that index."""
    number, row = divmod(index, images_per_file)
    return number + 1, row


def chunk_rows(row_bytes: int, rows: int) -> int:
    """Return how many rows of a per-frame dataset make one chunk, for at most `rows` rows in all.

    Few enough chunks for a tree of a single node; then as small as is sensible to read and to append to.
    """
    least = -(-rows // _TREE_CHILDREN)
    comfortable = max(_ROWS_AT_LEAST, min(1024, _CHUNK_BYTES_AT_MOST // max(row_bytes, 1) // 64))
    return max(1, min(rows, max(least, comfortable)))


def resolve_prefix(root: Path, acquisition: str, directory: str | None = None) -> tuple[Path, str]:
    """Return the folder and file prefix for an acquisition's files, both surely below `root`.

    Parameters
    ----------
    root : Path
        Folder that must not be left.
    acquisition : str
        Name of the acquisition, a file prefix relative to the folder; may contain ``/``.
    directory : str, optional
        Folder relative to `root` (an absolute one only below `root`).

    Raises
    ------
    AcquisitionRefused
        When a name is empty, absolute, contains ``..`` or a zero byte, or a link leads out of `root`.
    """
    for label, text in (("the acquisition's name", acquisition), ("the directory", directory)):
        if text is not None:
            _check_name(label, text, absolute_below=root if label == "the directory" else None)
    base = root / directory if directory else root
    target = base / acquisition
    if not Path(os.path.realpath(target.parent)).is_relative_to(os.path.realpath(root)):
        raise AcquisitionRefused(f'"{target}" leads out of {root} through a link', remedy="use a folder below it")
    return target.parent, target.name


def _check_name(label: str, text: str, absolute_below: Path | None) -> None:
    path = PurePosixPath(text)
    reason = ""
    if not text.strip() or text.endswith("/"):
        reason = "is empty"
    elif "\0" in text or any(ord(letter) < 32 for letter in text):
        reason = "contains a control character"
    elif path.is_absolute() and not (absolute_below is not None and path.is_relative_to(absolute_below)):
        reason = "is absolute"
    elif ".." in path.parts:
        reason = 'contains ".."'
    elif any(len(os.fsencode(part)) > 200 for part in path.parts):
        reason = "is too long for a file name"
    if reason:
        shown = text.replace("\0", "\\0")
        raise AcquisitionRefused(
            f'{label} "{shown}" {reason}', remedy="a relative name such as run_0001 or user/run_0001"
        )


@dataclass(frozen=True, slots=True)
class FrameField:
    """One number of every frame that its source knows: dataset name, dtype, value of an empty row, and meaning."""

    name: str
    dtype: str
    empty: float
    value: Callable[[FrameHeader], float]
    units: str | None
    description: str


def _packets_lost(header: FrameHeader) -> int:
    return header.packets_expected - header.packets_received


FRAME_FIELDS = (
    FrameField("frame_number", "<i8", -1, attrgetter("number"), None, "The detector's frame number."),
    FrameField(
        "time", "<f8", float("nan"), attrgetter("time"), "s", "UNIX time of the first packet; NaN where no frame came."
    ),
    FrameField("last", "<f8", float("nan"), attrgetter("last"), "s", "UNIX time of the last packet."),
    FrameField("packets_expected", "<u4", 0, attrgetter("packets_expected"), None, "Packets of a whole frame."),
    FrameField("packets_received", "<u4", 0, attrgetter("packets_received"), None, "Packets of this frame that came."),
    FrameField("packets_lost", "<u4", 0, _packets_lost, None, "Packets of this frame that did not come."),
    FrameField("sum", "<f8", float("nan"), attrgetter("total"), "counts", "Sum over the pixels that came."),
    FrameField("maximum", "<f8", float("nan"), attrgetter("maximum"), "counts", "Largest pixel that came."),
    FrameField("timestamp", "<u8", 0, attrgetter("timestamp"), None, "The detector's own clock."),
)
"""What a data file has for each frame in ``/entry/series/<source>/``; names as in the receiver's live fields."""


FRAME_PLACES = tuple(
    SecondName(f"/entry/detector/{name}", dataset)
    for name, dataset in (
        ("number", "frame_number"),
        ("timestamp", "timestamp"),
        ("exptime", "exposure_time"),
        ("packets_expected", "packets_expected"),
        ("packets_received", "packets_received"),
    )
)
"""Per-image numbers where Jungfraujoch's files have them."""


@dataclass(frozen=True, slots=True)
class ImagePlan:
    """The images of an acquisition.

    ``compression`` is one of `filters.COMPRESSIONS`; ``fill_value`` is what an empty row and the pixels of lost packets
    read as.
    """

    source: str
    shape: tuple[int, int]
    dtype: str
    compression: str = "bslz4"
    fill_value: float = 0
    packets_per_frame: int = 0

    @classmethod
    def from_description(cls, description: Description, compression: str = "bslz4") -> ImagePlan:
        """Take over what a source of images says of itself."""
        ny, nx = description.shape
        return cls(
            description.source,
            (ny, nx),
            description.dtype,
            compression,
            description.fill_value,
            description.packets_per_frame,
        )

    @property
    def mask_bytes(self) -> int:
        """Length of a frame's packet mask."""
        return -(-self.packets_per_frame // 8)

    @property
    def frame_bytes(self) -> int:
        """Size of one image, not compressed."""
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True, slots=True)
class DataFilePlan:
    """All that a data file is made for: fixed before its first frame.

    ``exposure_time`` [s] is that of every image, where it is known; ``swmr`` makes files that HDF5's own readers can
    follow (single writer, multiple readers), at the price of the new superblock.
    """

    images_per_file: int
    image: ImagePlan
    results: tuple[ResultsPlan, ...] = field(default_factory=tuple)
    timeline: str = "frame"
    master: MasterLayout = "legacy"
    exposure_time: float | None = None
    swmr: bool = False

    @property
    def most_rows(self) -> int | None:
        """Rows that a dataset of the file may get; None: any number."""
        return None if self.images_per_file >= OPEN_ENDED else self.images_per_file

    @property
    def rows_for_chunks(self) -> int:
        """Rows that the chunks of small datasets are made for; a file may get more."""
        return min(self.images_per_file, _ROWS_FOR_CHUNKS)


def frame_fields(plan: DataFilePlan) -> tuple[FrameField, ...]:
    """Return what is known of each frame: the header's numbers, and the exposure time where it is known."""
    exposure = plan.exposure_time
    if exposure is None:
        return FRAME_FIELDS
    about = "Exposure time of the image; NaN where no frame came."
    return (*FRAME_FIELDS, FrameField("exposure_time", "<f8", float("nan"), lambda header: exposure, "s", about))
