"""Pictures of a Pilatus 1M to ``.chi`` files through SAXSdog's queue, against the straightforward way in one process.

Both read the same files from memory (a tmpfs) and write the same text. The plain way is SAXSdog's own: fabio, a sparse
matrix of scipy, ``numpy.savetxt``. The queue has two worker processes, the plain way has one process, so that the CPU
time of a picture is given as well. The floor is reading the same files once, in one process, and nothing else.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import fabio
import numpy as np
import psutil
from scipy import sparse

from sisockdaq.saxsdog.calibration import read_calibration
from sisockdaq.saxsdog.integration import Reduction
from sisockdaq.saxsdog.pictures import pilatus_tiff
from sisockdaq.saxsdog.queue import PictureQueue

SHAPE = (1043, 981)
_WORKERS = 2
_DEADLINE = 120.0
_CONTENTS = 40
"""Different pictures: far more than a processor keeps; further names are links to them."""


class _Taken(NamedTuple):
    wall: float
    cpu: float


def calibration(folder: str, polarized: bool = False) -> dict[str, Any]:
    """Return a usual calibration of a Pilatus 1M."""
    made: dict[str, Any] = {
        "Geometry": {
            "Tilt": {"TiltRotDeg": 12.0, "TiltAngleDeg": 0.4},
            "BeamCenter": [702.31, 488.17],
            "DedectorDistanceMM": 1031.4,
            "PixelSizeMicroM": [172.0, 172.0],
            "Imagesize": list(SHAPE),
        },
        "Wavelength": 1.54,
        "Masks": [{"MaskFile": "mask.msk", "Oversampling": 3, "PixelPerRadialElement": 1, "Phi-mode": False,
                   "qStart": 0.1, "qStop": 3.0}],
        "Directory": [folder],
        "Threads": _WORKERS,
        "GISAXSmode": False,
        "OverwriteFiles": True,
        "Live-Filelisting": False,
    }  # fmt: skip
    if polarized:
        made["PolarizationCorrection"] = {"Fraction": 0.95, "Angle": 0.0}
    return made


def mask() -> Any:
    """Return the valid pixels of a Pilatus 1M: the gaps between its modules are not, nor is the beam stop."""
    valid = np.ones(SHAPE, bool)
    for row in range(195, SHAPE[0], 212):
        valid[row : row + 17] = False
    valid[:, 487:494] = False
    valid[330:352, 478:500] = False
    return valid


class _Plain:
    """Fabio, a sparse matrix and savetxt; the matrix has the weights of ours, which the tests compare with formulas."""

    def __init__(self, reduction: Reduction) -> None:
        binning = reduction._parts[0].binning  # type: ignore[union-attr]
        weights = sparse.csr_matrix(
            (binning.weights, binning.bins, binning.start), shape=(binning.start.size - 1, binning.axis.size)
        )
        whole = sparse.vstack([weights, sparse.csr_matrix((1, binning.axis.size))]).tocsr()
        matrix = whole[binning.cells].T.tocsr()
        if binning.factor is not None:
            matrix = matrix.multiply(binning.factor[None]).tocsr()
        with np.errstate(divide="ignore"):
            self._over = np.where(binning.areas > 0, 1 / binning.areas, np.nan)
        self._matrix = sparse.diags(np.nan_to_num(self._over)) @ matrix
        self._areas, self._axis, self._conf = binning.areas, binning.axis, reduction.calibration.raw

    def __call__(self, path: Path, target: Path) -> Any:
        with fabio.open(str(path)) as opened:
            image = opened.data
        intensity = self._matrix @ image.ravel() + 0 * self._over
        error = np.sqrt(intensity * self._areas) * self._over
        table = np.array([self._axis, intensity, error]).T
        inside = slice(*np.searchsorted(self._axis, [0.1, 3.0]))
        step = self._axis[1] - self._axis[0]
        sums = {
            f"I{power}": float(np.nansum(intensity[inside] * self._axis[inside] ** power) * step) for power in range(3)
        }
        header = "\n".join([json.dumps(self._conf), json.dumps(sums), json.dumps(["q", "I", "error"]), str(len(table))])
        np.savetxt(target, table, fmt="%.18e", newline="\n ", header=header, comments="")
        return table


@contextmanager
def _pictures(count: int) -> Iterator[list[Path]]:
    """Make the files, in memory where the system has a place for that."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="sisockdaq-bench-", dir=memory if memory.is_dir() else None) as name:
        folder = Path(name, "frames")
        folder.mkdir()
        generator = np.random.default_rng(1)
        y, x = np.indices(SHAPE) - np.array([340.7, 488.2])[:, None, None]
        mean = 2e5 / (20 + np.hypot(y, x)) ** 1.7
        paths = []
        for number in range(count):
            paths.append(folder / f"run_{number:05d}.tif")
            if number < _CONTENTS:
                paths[-1].write_bytes(pilatus_tiff(generator.poisson(mean).astype(np.int32)))
            else:
                os.link(paths[number % _CONTENTS], paths[-1])
        yield paths


def _queue(queue: PictureQueue, paths: list[Path]) -> _Taken:
    """Reduce all pictures once; the workers run already."""
    workers = [psutil.Process(pid) for pid in queue.pids]

    def cpu() -> float:
        return time.process_time() + sum(sum(worker.cpu_times()[:2]) for worker in workers)

    before, begin, begin_cpu = queue.counts().processed, time.perf_counter(), cpu()
    for path in paths:
        queue.put(path)
    assert queue.wait_idle(_DEADLINE), f"not done within {_DEADLINE:g} s: {queue.counts()}"
    taken = _Taken(time.perf_counter() - begin, cpu() - begin_cpu)
    assert queue.counts().processed - before == len(paths), queue.failures()
    return taken


def _one_by_one(call: Callable[[Path], Any], paths: list[Path]) -> _Taken:
    begin, begin_cpu = time.perf_counter(), time.process_time()
    for path in paths:
        call(path)
    return _Taken(time.perf_counter() - begin, time.process_time() - begin_cpu)


def _read(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.readv(handle, [_BUFFER])
    finally:
        os.close(handle)


_BUFFER = np.empty(SHAPE[0] * SHAPE[1] + 1024, np.int32)


def run(quick: bool = False) -> list[dict[str, Any]]:
    """Measure; return the rows."""
    rounds, count = (3, 200) if quick else (7, 1000)
    rows = []
    with _pictures(count) as paths:
        for polarized in (False, True):
            rows += _case(paths, polarized, rounds)
    return rows


def _case(paths: list[Path], polarized: bool, rounds: int) -> list[dict[str, Any]]:
    reduction = Reduction(read_calibration(calibration("frames", polarized)), [mask()])
    plain = _Plain(reduction)
    target = paths[0].parent / "plain.chi"
    _check(reduction, plain, paths[0], target)
    ours, theirs, floor = [], [], []
    queue = PictureQueue(reduction, paths[0].parent, workers=_WORKERS)
    queue.start()
    try:
        _queue(queue, paths[:_CONTENTS])  # starts the workers
        for _ in range(rounds):
            ours.append(_queue(queue, paths))
            theirs.append(_one_by_one(lambda path: plain(path, target), paths[:_CONTENTS]))
            floor.append(_one_by_one(_read, paths[:_CONTENTS]))
    finally:
        queue.abort()
        target.unlink(missing_ok=True)

    def middle(taken: list[_Taken], pictures: int, which: str) -> float:
        return statistics.median(getattr(one, which) for one in taken) / pictures

    wall, cpu = middle(ours, len(paths), "wall"), middle(ours, len(paths), "cpu")
    plain_wall, plain_cpu = middle(theirs, _CONTENTS, "wall"), middle(theirs, _CONTENTS, "cpu")
    share = min(1.0, middle(floor, _CONTENTS, "cpu") / cpu)
    case = "Pilatus 1M to .chi" + (", polarised" if polarized else "")
    return [
        _row(f"{case}, {_WORKERS} workers", 1 / wall, "pictures/s", f"plain {1 / plain_wall:.0f}", plain_wall / wall),
        _row(f"{case}, CPU", 1e3 * cpu, "ms", f"plain {1e3 * plain_cpu:.1f} ms", plain_cpu / cpu, share),
    ]


def _check(reduction: Reduction, plain: _Plain, path: Path, target: Path) -> None:
    """Two ways that disagree must not be compared."""
    with fabio.open(str(path)) as opened:
        (curve,) = reduction.reduce(opened.data)
    np.testing.assert_allclose(curve.array.T, plain(path, target), rtol=1e-9)


def _row(case: str, value: float, unit: str, against: str, ratio: float, share: float | None = None) -> dict[str, Any]:
    return {
        "benchmark": "saxsdog",
        "case": case,
        "value": value,
        "unit": unit,
        "against": against,
        "ratio": ratio,
        "floor_share": share,
    }


def main() -> None:
    """Print lines for a reader."""
    for row in run("--quick" in sys.argv):
        print(f"{row['case']:45} {row['value']:7.2f} {row['unit']:10}  {row['ratio']:5.1f} × {row['against']}")


if __name__ == "__main__":
    main()
