"""Writing: our data files against a plain ``write()`` of the same bytes, our packing against HDF5's own filter.

Frames are 1 Mpix of uint16: *raw* as a JUNGFRAU sends them (pedestal, noise, some photons), and *sparse* photon
counts. Rows:

- ``chunks``: finished payloads through `DataFile`, with the numbers of each frame, a curve and its errors beside each
  image, and a commit each 300 frames, against ``os.write`` of the same bytes to a plain file. Wall time until all is on
  the disk (``fdatasync``).
- ``chunks, memory``: the same without the disk, CPU time of the one thread, kernel included: the hardest case, as the
  rival is nothing but a copy into the page cache.
- ``pack``: bitshuffle-LZ4 in the thread pool and straight to chunks, against h5py with the filter. Wall time.

Ours and the rival take turns; the median of the ratios counts.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections import deque
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
IMAGES_PER_FILE = 1000
"""As the writer does where the site does not say otherwise; making a file is part of the time."""

COMMIT_EVERY = 300
"""Frames between commits: one second at the rate the writer is to sustain."""

_AHEAD = 8
"""Frames that are being packed while one is written."""

Row = dict[str, Any]


def run(quick: bool = False) -> list[Row]:
    """Return the rows of the table."""
    frames, rounds = (200, 3) if quick else (IMAGES_PER_FILE, 7)
    kinds = {"raw": [_raw(seed) for seed in range(8)], "sparse": [_sparse(seed) for seed in range(8)]}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for kind, images in kinds.items():
            payloads = [bytes(compress_lz4(image)) for image in images]
            rows.append(_chunks(Path(folder), kind, payloads, frames, rounds, to_disk=True))
            rows.append(_chunks(Path(folder), kind, payloads, frames, rounds, to_disk=False))
            rows.append(_pack(Path(folder), kind, images, frames // 2, rounds))
    return rows


def _raw(seed: int) -> npt.NDArray[Any]:
    """Return a frame as it comes from the detector: a pedestal of its own for each pixel, noise, photons."""
    generator = np.random.default_rng(seed)
    pedestal = np.random.default_rng(0).normal(3000, 100, SHAPE)
    frame = pedestal + generator.normal(0, 10, SHAPE) + 40 * generator.poisson(0.5, SHAPE)
    return frame.round().astype("<u2")


def _sparse(seed: int) -> npt.NDArray[Any]:
    return np.random.default_rng(seed).poisson(1.0, SHAPE).astype("<u2")


def _chunks(folder: Path, kind: str, payloads: list[bytes], frames: int, rounds: int, *, to_disk: bool) -> Row:
    results = np.arange(2 * BINS + 2, dtype=np.float64)
    headers = [FrameHeader(i, i * 1e-3, i * 1e-3, i, 256, 256, 1.0, 2.0, i) for i in range(frames)]
    image = ImagePlan("receiver", SHAPE, "<u2", packets_per_frame=256)
    plan = DataFilePlan(frames, image, (_results_plan(),))

    def ours() -> None:
        path = folder / "run_data_000001.h5"
        file = DataFile(path, plan, "run", 1)
        for index in range(frames):
            file.write_image(index, payloads[index % len(payloads)], headers[index])
            file.write_results("integrator", index, index * 1e-3, results)
            if index % COMMIT_EVERY == COMMIT_EVERY - 1:
                file.commit()
        file.close()
        if to_disk:
            fd = os.open(path, os.O_RDONLY)
            os.fdatasync(fd)
            os.close(fd)

    def plain() -> None:
        path = folder / "plain.bin"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT)
        curve = results.tobytes()
        for index in range(frames):
            os.write(fd, payloads[index % len(payloads)])
            os.write(fd, curve)
        if to_disk:
            os.fdatasync(fd)
        os.close(fd)

    clock = time.perf_counter if to_disk else time.process_time
    mine, _, ratio = _in_turns(ours, plain, rounds, clock, folder)
    size = sum(map(len, payloads)) / len(payloads) / 1e3
    case = f"chunks{'' if to_disk else ', memory'}, 1 Mpix u2 {kind}, {size:.0f} kB"
    return _row(case, frames / mine, "frames/s", "plain write()", ratio, min(ratio, 1.0))


def _results_plan() -> ResultsPlan:
    layout = {"curve": [0, BINS], "sigma": [BINS, 2 * BINS], "total": [2 * BINS, 2 * BINS + 1]}
    layout["maximum"] = [2 * BINS + 1, 2 * BINS + 2]
    return ResultsPlan.from_description(
        Description("integrator", "results", (2 * BINS + 2,), "<f8", meta={"layout": layout})
    )


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


def _pack(folder: Path, kind: str, images: list[npt.NDArray[Any]], frames: int, rounds: int) -> Row:
    plan = DataFilePlan(frames, ImagePlan("receiver", SHAPE, "<u2"))
    packer = Packer(SHAPE, "<u2", threads=os.cpu_count() or 1)

    def ours() -> None:
        file = DataFile(folder / "run_data_000001.h5", plan, "run", 1)
        waiting: deque[Any] = deque()
        written = 0
        for index in range(frames + _AHEAD):
            if index < frames:
                waiting.append(packer.pack(_Frame(images[index % len(images)]), 10.0))  # type: ignore[arg-type]
            if index >= _AHEAD:
                packed = waiting.popleft()
                file.write_image(written, packed.payload.result(), packed.header)
                packed.recycle()
                written += 1
        file.close()

    def filtered() -> None:
        with h5py.File(folder / "filter.h5", "w") as file:
            dataset = file.create_dataset(
                "data", (frames, *SHAPE), "<u2", chunks=(1, *SHAPE), **hdf5plugin.Bitshuffle(cname="lz4")
            )
            for index in range(frames):
                dataset[index] = images[index % len(images)]

    mine, _, ratio = _in_turns(ours, filtered, rounds, time.perf_counter, folder)
    packer.close()
    return _row(f"pack and write, 1 Mpix u2 {kind}", frames / mine, "frames/s", "h5py filter", ratio, None)


def _in_turns(
    ours: Callable[[], None], other: Callable[[], None], rounds: int, clock: Callable[[], float], folder: Path
) -> tuple[float, float, float]:
    """Return the median times of both [s], and the median of other ÷ ours; files are removed between, untimed."""
    taken: dict[Callable[[], None], list[float]] = {ours: [], other: []}
    for number in range(rounds + 1):
        for function in (ours, other) if number % 2 == 0 else (other, ours):
            begin = clock()
            function()
            taken[function].append(clock() - begin)
            for path in folder.iterdir():
                path.unlink()
    mine, others = taken[ours][1:], taken[other][1:]
    ratio = statistics.median(b / a for a, b in zip(mine, others, strict=True))
    return statistics.median(mine), statistics.median(others), ratio


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
