"""Writing: our data files against a plain ``write()`` of the same bytes, our packing against HDF5's own filter.

Frames are 1 Mpix of uint16 with Poisson counts, compressed as they would be on disk. Rows:

- ``chunks``: finished payloads through `DataFile` with its numbers, curves and commits, against ``os.write`` of the same
  payloads to a plain file. Wall time; the two take turns, the median of the ratios counts.
- ``pack``: bitshuffle-LZ4 in the thread pool, straight to chunks, against h5py with the filter (one thread).
- ``engine``: a ring, the engine and the disk together; CPU seconds a frame and frames a second.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import numpy.typing as npt

from sisockdaq.frames.bitshuffle import compress_lz4
from sisockdaq.frames.messages import Description, FrameHeader
from sisockdaq.nexus.datafile import DataFile
from sisockdaq.nexus.layout import DataFilePlan, ImagePlan, ResultsPlan
from sisockdaq.nexus.packing import Packer

SHAPE = (1024, 1024)
BINS = 1000
COMMIT_EVERY = 300
"""Frames between commits: one second at the rate the writer is to sustain."""

Row = dict[str, Any]


def run(quick: bool = False) -> list[Row]:
    """Return the rows of the table."""
    frames, rounds = (200, 3) if quick else (1000, 7)
    images = [np.random.default_rng(seed).poisson(1.0, SHAPE).astype("<u2") for seed in range(8)]
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder:
        return [*_chunks(Path(folder), images, frames, rounds), *_pack(Path(folder), images, frames // 2, rounds)]


def _chunks(folder: Path, images: list[npt.NDArray[Any]], frames: int, rounds: int) -> list[Row]:
    payloads = [bytes(compress_lz4(image)) for image in images]
    results = np.arange(2 * BINS + 2, dtype=np.float64)
    plan = DataFilePlan(frames, ImagePlan("receiver", SHAPE, "<u2", packets_per_frame=256), (_results_plan(),))

    def ours() -> int:
        path = folder / "run_data_000001.h5"
        file = DataFile(path, plan, "run", 1)
        for index in range(frames):
            header = FrameHeader(index, index * 1e-3, index * 1e-3, index, 256, 256, 1.0, 2.0, index)
            file.write_image(index, payloads[index % len(payloads)], header)
            file.write_results("integrator", index, index * 1e-3, results)
            if index % COMMIT_EVERY == COMMIT_EVERY - 1:
                file.commit()
        file.close()
        size = file.bytes_written
        path.unlink()
        return size

    def plain() -> int:
        path = folder / "plain.bin"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        curve = results.tobytes()
        size = 0
        for index in range(frames):
            size += os.write(fd, payloads[index % len(payloads)]) + os.write(fd, curve)
        os.close(fd)
        path.unlink()
        return size

    mine, others, ratios, sizes = _in_turns(ours, plain, rounds)
    rate = frames / mine
    data_rate = sizes[0] / mine / 1e6
    return [
        _row("chunks with numbers and curves, 1 Mpix u2", rate, "frames/s", "plain write()", ratios, 1 / max(ratios, 1)),
        _row("the same, bytes", data_rate, "MB/s", f"plain write() {frames / others:.0f} frames/s", ratios, None),
    ]


def _results_plan() -> ResultsPlan:
    layout = {"curve": [0, BINS], "sigma": [BINS, 2 * BINS], "total": [2 * BINS, 2 * BINS + 1]}
    layout["maximum"] = [2 * BINS + 1, 2 * BINS + 2]
    return ResultsPlan.from_description(Description("integrator", "results", (2 * BINS + 2,), "<f8", meta={"layout": layout}))


class _Frame:
    """A frame that is already there."""

    header = FrameHeader(0, 0.0, 0.0, 0, 256, 256)
    packet_mask = np.empty(0, np.uint8)

    def __init__(self, pixels: npt.NDArray[Any]) -> None:
        self.pixels = pixels

    def valid(self) -> bool:
        return True

    def release(self, *, used: bool = True) -> None:
        """Nothing to give back."""


def _pack(folder: Path, images: list[npt.NDArray[Any]], frames: int, rounds: int) -> list[Row]:
    plan = DataFilePlan(frames, ImagePlan("receiver", SHAPE, "<u2"))
    packer = Packer(SHAPE, "<u2", threads=os.cpu_count() or 1)

    def ours() -> int:
        path = folder / "run_data_000001.h5"
        file = DataFile(path, plan, "run", 1)
        waiting: list[Any] = []
        for index in range(frames + 8):
            if index < frames:
                waiting.append(packer.pack(_Frame(images[index % len(images)]), 10.0))  # type: ignore[arg-type]
            if len(waiting) >= 8 or index >= frames:
                packed = waiting.pop(0)
                place = index - 8 if index >= 8 else 0
                file.write_image(min(place, frames - 1), packed.payload.result(), packed.header)
                packed.recycle()
            if not waiting:
                break
        file.close()
        path.unlink()
        return 0

    def filtered() -> int:
        path = folder / "filter.h5"
        with h5py.File(path, "w") as file:
            dataset = file.create_dataset(
                "data", (frames, *SHAPE), "<u2", chunks=(1, *SHAPE), **hdf5plugin.Bitshuffle(cname="lz4")
            )
            for index in range(frames):
                dataset[index] = images[index % len(images)]
        path.unlink()
        return 0

    mine, _, ratios, _ = _in_turns(ours, filtered, rounds)
    packer.close()
    return [_row("pack in a pool and write, 1 Mpix u2", frames / mine, "frames/s", "h5py filter, one thread", ratios, None)]


def _in_turns(
    ours: Callable[[], int], other: Callable[[], int], rounds: int
) -> tuple[float, float, float, tuple[int, int]]:
    """Return median times of both, the median of the ratios (other ÷ ours), and what both returned."""
    mine, others, sizes = [], [], (0, 0)
    ours()
    other()
    for number in range(rounds):
        order = (ours, other) if number % 2 == 0 else (other, ours)
        taken = {}
        for function in order:
            begin = time.perf_counter()
            size = function()
            taken[function] = time.perf_counter() - begin
            sizes = (size, sizes[1]) if function is ours else (sizes[0], size)
        mine.append(taken[ours])
        others.append(taken[other])
    ratio = statistics.median(b / a for a, b in zip(mine, others, strict=True))
    return statistics.median(mine), statistics.median(others), ratio, sizes


def _row(case: str, value: float, unit: str, against: str, ratio: float, floor_share: float | None) -> Row:
    return {
        "benchmark": "write",
        "case": case,
        "value": value,
        "unit": unit,
        "against": against,
        "ratio": ratio,
        "floor_share": floor_share,
    }


if __name__ == "__main__":
    for row in run():
        print({key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()})
