"""Small acquisitions to write in tests: every pixel and number follows from the frame's index."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sisockdaq.frames.bitshuffle import compress_lz4
from sisockdaq.frames.messages import Description, FrameHeader
from sisockdaq.nexus.layout import DataFilePlan, ImagePlan, ResultsPlan

SHAPE = (8, 16)
PACKETS = 16
FILL = 65535
BINS = 5

IMAGES = Description("receiver", "image", SHAPE, "<u2", packets_per_frame=PACKETS, fill_value=FILL)
RESULTS = Description(
    "integrator",
    "results",
    (2 * BINS + 2,),
    "<f8",
    meta={
        "layout": {
            "curve": [0, BINS],
            "sigma": [BINS, 2 * BINS],
            "total": [2 * BINS, 2 * BINS + 1],
            "maximum": [2 * BINS + 1, 2 * BINS + 2],
        },
        "axes": {
            name: {"axis": "q", "unit": "nm^-1", "values": [0.5 * bin for bin in range(BINS)]}
            for name in ("curve", "sigma")
        },
        "fields": {"curve": {"units": "counts", "description": "I(q)"}, "total": {"units": "counts"}},
    },
)


def plan(images_per_file: int = 10, *, compression: str = "bslz4", results: bool = True) -> DataFilePlan:
    """The plan of a small acquisition."""
    image = ImagePlan.from_description(IMAGES, compression)
    return DataFilePlan(images_per_file, image, (ResultsPlan.from_description(RESULTS),) if results else ())


def image(index: int) -> npt.NDArray[np.uint16]:
    """The pixels of a frame."""
    return (np.arange(SHAPE[0] * SHAPE[1], dtype=np.uint16).reshape(SHAPE) * 7 + index).astype(np.uint16)


def payload(index: int) -> bytes:
    """The chunk of a frame."""
    return bytes(compress_lz4(image(index)))


def frame_time(index: int) -> float:
    """The time of a frame: no round number in binary, so that a lost bit shows."""
    return 1_700_000_000.1 + index / 7


def header(index: int, *, lost: int = 0) -> FrameHeader:
    """The header of a frame."""
    pixels = image(index)
    return FrameHeader(
        number=1000 + index,
        time=frame_time(index),
        last=frame_time(index) + 0.01,
        index=index,
        packets_expected=PACKETS,
        packets_received=PACKETS - lost,
        total=float(pixels.sum()),
        maximum=float(pixels.max()),
        timestamp=index * 1000,
    )


def results(index: int) -> npt.NDArray[np.float64]:
    """The results of a frame."""
    return index + np.arange(2 * BINS + 2) / 10
