"""Azimuthal integration at the API, one thread: `Integrator.integrate` against pyFAI's ``integrate1d``.

The rival is pyFAI's fastest CPU method of the same splitting: every engine it has (histogram, CSR, CSC, LUT, in Cython
and in Python) is tried first, and the two fastest run in every case. Both integrate the same image with the same mask,
corrections and bins, in turn; CPU time, medians. The floor is one pass that reads frame and bin map and does nothing.

OpenMP takes its number of threads from the environment when it is loaded, so the measurement runs in a child process.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numba import njit

_BINS = 1000
_PIXEL = 75e-6
_SIDES = {"1 Mpix": 1024, "4 Mpix": 2048, "9 Mpix": 3072}
_ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
_ENGINES = [(algorithm, code) for algorithm in ("histogram", "csr", "csc", "lut") for code in ("cython", "python")]
_TURN = 0.02
"""CPU time for which a method is called before the next one has its turn [s]: each works from its own warm caches."""

_SPLITS: tuple[Literal["no", "bbox"], ...] = ("no", "bbox")

Method = tuple[str, str, str]


@njit(nogil=True, cache=True)
def _read(pixels: Any, index: Any, share: Any) -> int:
    found = 0
    for i in range(pixels.size):
        found += pixels[i]
    for i in range(index.size):
        found += index[i]
    for i in range(share.size):
        found += share[i] > 2
    return found


def run(quick: bool = False) -> list[dict[str, Any]]:
    """Measure in a child with one thread; return the rows."""
    command = [sys.executable, "-m", "benchmarks.integrate", "--rows", *(["--quick"] if quick else [])]
    folder = Path(__file__).resolve().parents[1]
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **_ONE_THREAD}, stdout=subprocess.PIPE, text=True, check=True
    )
    rows: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return rows


class _Detector:
    """A square detector with the beam near its middle, a tilt, 1 % of masked pixels, and an image of Poisson noise."""

    def __init__(self, side: int) -> None:
        rng = np.random.default_rng(side)
        self.shape = (side, side)
        self.mask = rng.random(self.shape) < 0.01
        self.counts = rng.poisson(20, self.shape)
        reach = side * _PIXEL
        self.geometry = {
            "distance": 1.3 * reach,
            "poni1": 0.52 * reach,
            "poni2": 0.53 * reach,
            "rot1": 0.02,
            "rot2": -0.01,
            "wavelength": 1e-10,
        }

    def ours(self, split: Literal["no", "bbox"], errors: bool) -> Any:
        from sisockdaq.integrate import Integrator

        model: Literal["poisson"] | None = "poisson" if errors else None
        return Integrator(
            self.geometry,
            shape=self.shape,
            pixel_size=_PIXEL,
            mask=self.mask,
            bins=_BINS,
            split=split,
            polarization=0.95,
            error_model=model,
        )

    def pyfai(self) -> Any:
        from sisockdaq.integrate import load_geometry

        return load_geometry(self.geometry, shape=self.shape, pixel_size=_PIXEL)

    def rival(self, pyfai: Any, image: Any, method: Method, errors: bool) -> Callable[[], Any]:
        """Return pyFAI's call, with all that it can be spared: no checks, mask and geometry cached."""
        mask = self.mask.astype(np.int8)
        model = "poisson" if errors else None

        def call() -> Any:
            return pyfai.integrate1d(
                image,
                _BINS,
                unit="q_nm^-1",
                method=method,
                mask=mask,
                polarization_factor=0.95,
                error_model=model,
                safe=False,
            )

        return call


def _rows(quick: bool) -> list[dict[str, Any]]:
    rounds = 5 if quick else 15
    methods = {split: _fastest(split) for split in _SPLITS}
    rows = []
    for size, side in _SIDES.items():
        detector = _Detector(side)
        for split in _SPLITS:
            for errors in (False, True):
                rows += _cases(detector, size, split, errors, methods[split], rounds)
    return rows


def _fastest(split: str) -> list[Method]:
    """Try every engine of pyFAI on 1 Mpix; return the two fastest."""
    detector = _Detector(1024)
    image, taken = detector.counts.astype(np.uint32), {}
    for algorithm, code in _ENGINES:
        method = (split, algorithm, code)
        pyfai = detector.pyfai()
        call = detector.rival(pyfai, image, method, errors=False)
        chosen = call().method
        if (chosen.split_lower, chosen.algo_lower, chosen.impl_lower) == method:  # else pyFAI has no such engine
            taken[method] = min(_cpu(call) for _ in range(3))
    return sorted(taken, key=lambda method: taken[method])[:2]


def _cases(
    detector: _Detector, size: str, split: Literal["no", "bbox"], errors: bool, methods: list[Method], rounds: int
) -> list[dict[str, Any]]:
    integrator, pyfai = detector.ours(split, errors), detector.pyfai()
    words, share = integrator.bin_map.index.view(np.uint64), integrator.bin_map.share.reshape(-1)
    rows = []
    for dtype in (np.uint16, np.uint32):
        image = detector.counts.astype(dtype)
        calls: dict[str, Callable[[], Any]] = {
            "ours": partial(integrator.integrate, image),
            "floor": partial(_read, image.reshape(-1), words, share),
        }
        calls |= {" ".join(method[1:]): detector.rival(pyfai, image, method, errors) for method in methods}
        taken = _interleaved(calls, rounds)
        ours, floor = taken.pop("ours"), taken.pop("floor")
        rival = min(taken, key=lambda name: taken[name])
        name = f"{size} {np.dtype(dtype).name}, {'no split' if split == 'no' else 'bounding box'}"
        rows.append(
            {
                "benchmark": "integrate",
                "case": name + (", Poisson errors" if errors else ""),
                "value": 1e3 * ours,
                "unit": "ms",
                "against": f"pyFAI {rival} {1e3 * taken[rival]:.1f} ms",
                "ratio": taken[rival] / ours,
                "floor_share": min(1.0, floor / ours),
            }
        )
    return rows


def _interleaved(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Return the median CPU time of each call [s]; they take turns of equal length."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    repeats = {}
    for name, call in calls.items():
        call()
        repeats[name] = max(1, int(_TURN / _cpu(call)))
    for _ in range(rounds):
        for name, call in calls.items():
            taken[name].append(_cpu(call, repeats[name]))
    return {name: statistics.median(times) for name, times in taken.items()}


def _cpu(call: Callable[[], Any], repeats: int = 1) -> float:
    begin = time.process_time()
    for _ in range(repeats):
        call()
    return (time.process_time() - begin) / repeats


def main() -> None:
    """Print rows as JSON for `run`, or lines for a reader."""
    quick = "--quick" in sys.argv
    if "--rows" in sys.argv:
        print(json.dumps(_rows(quick)))
        return
    for row in run(quick):
        floor = f"{100 * row['floor_share']:3.0f} % of floor"
        print(f"{row['case']:45} {row['value']:7.2f} ms  {row['ratio']:5.1f} × {row['against']:30} {floor}")


if __name__ == "__main__":
    main()
