"""Where the pixels of each packet belong in the image.

A packet's payload falls into *segments*: runs of pixels that lie side by side in the image. Mirrored modules, the
gap between EIGER chips and modules side by side only change the segments; nothing after this module knows of them.

Packets are numbered through the frame: ``stream × packets_per_stream + (packet number − first packet number)``. The
bits of a frame's packet mask have the same order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sisockdaq.detector import gigafrost
from sisockdaq.detector.description import EIGER_CHIP, EIGER_COLUMNS, EIGER_GAP, DetectorOptions

__all__ = ["Layout", "gap_mask", "pixel_index"]


def pixel_index(options: DetectorOptions, stream: int) -> npt.NDArray[np.int64]:
    """Return where a stream's pixels belong.

    Returns
    -------
    ndarray of int64, (packets_per_stream, pixels of a packet)
        Index into the flat image, in the order in which the pixels are sent. GigaFRoST, whose last packet may be
        shorter: (rows of the stream, pixels of a row).
    """
    if options.model == "gigafrost":
        return gigafrost.row_index(options.shape[1], options.shape[0], stream)
    jungfrau = options.model == "jungfrau"
    interfaces = options.interfaces if jungfrau else 1
    x0, y0, x1, y1 = options.positions[stream // interfaces]
    module_rows = options.tile[0]
    rows_here = module_rows // interfaces
    rows = np.arange(stream % interfaces * rows_here, (stream % interfaces + 1) * rows_here)
    columns = np.arange(options.tile[1]) if jungfrau else _eiger_columns()
    y = y0 + rows if y1 >= y0 else y0 - rows
    x = x0 + columns if x1 >= x0 else x0 - columns
    flat = y[:, None] * options.shape[1] + x[None, :]
    return flat.astype(np.int64).reshape(options.packets_per_stream, -1)


def gap_mask(options: DetectorOptions) -> npt.NDArray[np.bool_] | None:
    """Return the image's shape, True where no sensor is: between chips and modules; None where there is no gap."""
    gaps = np.ones(options.shape, np.bool_)
    for stream in range(options.streams):
        gaps.reshape(-1)[pixel_index(options, stream)] = False
    return gaps if gaps.any() else None


def _eiger_columns() -> npt.NDArray[np.int64]:
    columns = np.arange(EIGER_COLUMNS)
    return np.where(columns < EIGER_CHIP, columns, columns + EIGER_GAP)


@dataclass(frozen=True)
class Layout:
    """The segments of every packet of a frame.

    Attributes
    ----------
    first : ndarray of int64, (packets_per_frame + 1,)
        Packet ``p`` has the segments ``first[p]`` to ``first[p + 1] − 1``.
    offset, count : ndarray of int64, (segments,)
        Index in the flat image of a segment's first pixel, and its number of pixels.
    step : ndarray of int64, (streams,)
        1, or −1 where columns run to the left.
    direct : ndarray of int64, (streams,)
        1 where the payload's bytes are the image's bytes, so that they can be received in place.
    """

    options: DetectorOptions
    first: npt.NDArray[np.int64]
    offset: npt.NDArray[np.int64]
    count: npt.NDArray[np.int64]
    step: npt.NDArray[np.int64]
    direct: npt.NDArray[np.int64]

    @classmethod
    def of(cls, options: DetectorOptions) -> Layout:
        """Work out the segments of a detector."""
        counts, offsets, lengths, steps = [], [], [], []
        for stream in range(options.streams):
            x0, _, x1, _ = options.positions[stream // (options.streams // len(options.positions))]
            step = 1 if x1 >= x0 else -1
            begins, sizes, per_packet = _runs(pixel_index(options, stream), step)
            if options.model == "gigafrost":  # what was found are rows: packets take some of them each
                per_packet = np.add.reduceat(per_packet, np.arange(0, len(per_packet), options.rows_per_packet))
            counts.append(per_packet)
            offsets.append(begins)
            lengths.append(sizes)
            steps.append(step)
        first = np.concatenate(([0], np.cumsum(np.concatenate(counts)))).astype(np.int64)
        step_of = np.array(steps, np.int64)
        direct = ((step_of == 1) & (options.packet_bits in (8, 16, 32))).astype(np.int64)
        return cls(options, first, np.concatenate(offsets), np.concatenate(lengths), step_of, direct)

    def pixels(self, packet: int) -> npt.NDArray[np.int64]:
        """Return the flat image index of each pixel of a packet, in the order sent."""
        step = self.step[packet // self.options.packets_per_stream]
        runs = [
            self.offset[s] + step * np.arange(self.count[s]) for s in range(self.first[packet], self.first[packet + 1])
        ]
        return np.concatenate(runs)

    def covered(self, packets: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Return an image that is True where one of the `packets` (numbers) has its pixels."""
        image = np.zeros(self.options.shape, bool)
        for packet in packets:
            image.reshape(-1)[self.pixels(int(packet))] = True
        return image


def _runs(
    index: npt.NDArray[np.int64], step: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Split each row of `index` where it does not go on by `step`: first pixels, lengths, and runs per row."""
    breaks = np.ones(index.shape, bool)
    breaks[:, 1:] = np.diff(index, axis=1) != step
    flat = np.flatnonzero(breaks)
    lengths = np.diff(np.append(flat, index.size))
    return index.reshape(-1)[flat], lengths.astype(np.int64), breaks.sum(axis=1).astype(np.int64)
