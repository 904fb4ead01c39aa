"""Azimuthal integration at the API: `Integrator.integrate` against pyFAI's ``integrate1d``, one thread.

The rival is pyFAI's fastest CPU method of the same splitting: every engine it has (histogram, CSR, CSC, LUT, in Cython
and in Python) is tried on 1 Mpix first, and the two fastest run there, the fastest with larger images. Both sides
integrate the same image with the same mask, corrections and bins, in turn; CPU time, medians.
The floor is one pass that reads frame and bin map and does nothing.
Rows with errors end in what they take of the time without.

Rows of two threads, of maps, of clipping and of cakes are explained in ``_integrate_threads``, ``_integrate_maps``,
``_integrate_clip`` and ``_integrate_cake``.

OpenMP takes its number of threads from the environment when it is loaded, so the measurement runs in a child process;
that of maps in another, without a limit.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._integrate_cake import cake_rows
from benchmarks._integrate_clip import clip_rows
from benchmarks._integrate_detector import PIXEL, SIDES, SPLITS, Method, Split, SquareDetector, map_words, read_all
from benchmarks._integrate_maps import map_rows
from benchmarks._integrate_threads import thread_rows
from benchmarks._turns import in_turns

_ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
_ENGINES = [(algorithm, code) for algorithm in ("histogram", "csr", "csc", "lut") for code in ("cython", "python")]
_USUAL = [("csr", "cython"), ("csc", "cython")]
"""The fastest engines as a rule, for a quick look."""

_LARGER = {"4 Mpix": 9, "9 Mpix": 5}
"""Rounds of the sizes at which a call takes longer than a turn."""


def run(quick: bool = False) -> list[dict[str, Any]]:
    """Measure in children; return the rows."""
    more = ["--quick"] if quick else []
    return _child(["--rows", *more], _ONE_THREAD) + _child(["--maps", *more], {})


def _child(options: list[str], environment: dict[str, str]) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "benchmarks.integrate", *options]
    folder = Path(__file__).resolve().parents[1]
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True, check=True
    )
    rows: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return rows


def _maps(quick: bool) -> list[dict[str, Any]]:
    """Measure how long maps take to make and to read."""
    with tempfile.TemporaryDirectory() as folder:
        sizes = ["1 Mpix"] if quick else list(SIDES)
        detectors = [(SquareDetector(SIDES[size], folder), size) for size in sizes]
        return [row for detector, size in detectors for split in SPLITS for row in map_rows(detector, size, split)]


def _rows(quick: bool) -> list[dict[str, Any]]:
    """Measure every mode; a quick look takes 1 megapixel of one type only."""
    with tempfile.TemporaryDirectory() as maps:
        first = SquareDetector(SIDES["1 Mpix"], maps)
        methods = {split: _fastest(first, split, _USUAL if quick else _ENGINES) for split in SPLITS}
        rows = [row for split in SPLITS for row in _size(first, "1 Mpix", split, methods[split], 5 if quick else 15)]
        clipped: tuple[Split, ...] = ("no",) if quick else ("no", "bbox")
        rows += clip_rows(first, first.geometry, PIXEL, "1 Mpix", 3 if quick else 7, clipped)
        rows += cake_rows(first, "1 Mpix", 3 if quick else 7, ("bbox",) if quick else ("no", "bbox", "full"))
        if quick:
            return rows
        for size, rounds in _LARGER.items():
            detector = SquareDetector(SIDES[size], maps)
            for split in SPLITS:
                rows += _size(detector, size, split, methods[split][:1], rounds)
            if size == "4 Mpix":
                rows += cake_rows(detector, size, rounds)
        return rows


def _size(
    detector: SquareDetector, size: str, split: Split, methods: list[Method], rounds: int
) -> list[dict[str, Any]]:
    """Measure one splitting of one size: frames, two threads."""
    pyfai = detector.pyfai()
    types = (np.uint16, np.uint32) if size == "4 Mpix" else (np.uint32,)
    rows = _cases(detector, size, split, types, methods, pyfai, rounds)
    for errors in (False, True):
        rows += thread_rows(detector, size, split, errors, rounds)
    return rows


def _fastest(detector: SquareDetector, split: str, engines: list[tuple[str, str]]) -> list[Method]:
    """Try engines of pyFAI in turn; return the two fastest."""
    image, calls = detector.counts.astype(np.uint32), {}
    for algorithm, code in engines:
        method = (split, algorithm, code)
        call = detector.rival(detector.pyfai(), image, method, errors=False)
        chosen = call().method
        if (chosen.split_lower, chosen.algo_lower, chosen.impl_lower) == method:  # else pyFAI has no such engine
            calls[" ".join(method)] = call
    taken = in_turns(calls, 7)  # so that noise does not choose a slower one
    first, second = (name.split() for name in sorted(taken, key=lambda name: taken[name])[:2])
    return [(first[0], first[1], first[2]), (second[0], second[1], second[2])]


def _cases(
    detector: SquareDetector,
    size: str,
    split: Split,
    types: tuple[Any, ...],
    methods: list[Method],
    pyfai: Any,
    rounds: int,
) -> list[dict[str, Any]]:
    rows = []
    plain, with_errors = detector.ours(split), detector.ours(split, errors=True)
    words, share = map_words(plain.bin_map), plain.bin_map.share.reshape(-1)
    for dtype in types:
        image = detector.counts.astype(dtype)
        calls: dict[str, Callable[[], Any]] = {
            "plain": partial(plain.integrate, image),
            "errors": partial(with_errors.integrate, image),
            "floor": partial(read_all, image.reshape(-1), words, share),
        }
        for errors in (False, True):
            for method in methods:
                name = f"{' '.join(method[1:])} {errors}"
                calls[name] = detector.rival(pyfai, image, method, errors)
        taken = in_turns(calls, rounds)
        for errors in (False, True):
            ours = taken["errors" if errors else "plain"]
            theirs = {name: value for name, value in taken.items() if name.endswith(f" {errors}")}
            rival = min(theirs, key=lambda name: theirs[name])
            against = f"pyFAI {rival.rpartition(' ')[0]} {1e3 * theirs[rival]:.1f} ms"
            if errors:
                against += f"; without errors × {ours / taken['plain']:.2f}"
            rows.append(
                {
                    "benchmark": "integrate",
                    "case": f"{size} {np.dtype(dtype).name}, {SPLITS[split]}" + (", Poisson errors" if errors else ""),
                    "value": 1e3 * ours,
                    "unit": "ms",
                    "against": against,
                    "ratio": theirs[rival] / ours,
                    "floor_share": min(1.0, taken["floor"] / ours),
                }
            )
    return rows


def main() -> None:
    """Print rows as JSON for `run`, or lines for a reader."""
    quick = "--quick" in sys.argv
    for option, measure in (("--rows", _rows), ("--maps", _maps)):
        if option in sys.argv:
            print(json.dumps(measure(quick)))
            return
    for row in run(quick):
        share = row.get("floor_share")
        floor = "" if share is None else f"{100 * share:3.0f} % of floor"
        print(
            f"{row['case']:52} {row['value']:7.2f} {row['unit']:2}  {row['ratio']:5.1f} × {row['against']:52} {floor}"
        )


if __name__ == "__main__":
    main()
