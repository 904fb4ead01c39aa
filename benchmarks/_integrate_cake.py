"""Cakes of 1000 × 360 bins, one thread, against pyFAI's ``integrate2d_ng``; and two threads against one.

The rival is the faster of pyFAI's CSR and CSC engines in Cython in every case: its histograms and look-up tables take
longer (up to twenty times, with full splitting) and are not run. It is called with all that it can be spared: mask and
geometry cached, no checks. CPU time for one thread, medians; wall time, the least of many rounds, for two.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks._integrate_detector import BINS, SPLITS, Split, SquareDetector
from benchmarks._integrate_threads import least
from benchmarks._turns import in_turns

__all__ = ["cake_rows"]

_AZIMUTHS = 360
_ENGINES = ("csr", "csc")


def cake_rows(
    detector: SquareDetector, size: str, rounds: int, splits: tuple[Split, ...] = ("no", "bbox", "full")
) -> list[dict[str, Any]]:
    """Measure one detector."""
    image = detector.counts.astype(np.uint32)
    rows = []
    for split in splits:
        calls: dict[str, Callable[[], Any]] = {}
        for errors in (False, True):
            calls[f"ours {errors}"] = partial(_ours(detector, split, errors), image)
            for engine in _ENGINES:
                calls[f"{engine} {errors}"] = _rival(detector, image, split, engine, errors)
        taken = in_turns(calls, rounds)
        case = f"{size} uint32, cake, {SPLITS[split]}"
        for errors in (False, True):
            ours = taken[f"ours {errors}"]
            rival = min(_ENGINES, key=lambda engine: taken[f"{engine} {errors}"])
            theirs = taken[f"{rival} {errors}"]
            against = f"pyFAI {rival} cython {1e3 * theirs:.1f} ms"
            if errors:
                against += f"; without errors × {ours / taken['ours False']:.2f}"
            rows.append(_row(case + (", Poisson errors" if errors else ""), ours, against, theirs / ours))
        del calls
        one, two = (_ours(detector, split, False, threads) for threads in (1, 2))
        walls = least({"one": partial(one, image), "two": partial(two, image)}, 2 * rounds)
        against = f"one thread {1e3 * walls['one']:.2f} ms"
        rows.append(_row(f"{case}, two threads", walls["two"], against, walls["one"] / walls["two"]))
    return rows


def _ours(detector: SquareDetector, split: Split, errors: bool, threads: int = 1) -> Callable[[Any], Any]:
    return partial(detector.ours(split, errors, threads=threads).integrate2d, azimuth_bins=_AZIMUTHS)


def _rival(detector: SquareDetector, image: Any, split: Split, engine: str, errors: bool) -> Callable[[], Any]:
    return partial(
        detector.pyfai().integrate2d_ng,
        image,
        BINS,
        _AZIMUTHS,
        unit="q_nm^-1",
        method=(split, engine, "cython"),
        mask=detector.mask.astype(np.int8),
        polarization_factor=0.95,
        error_model="poisson" if errors else None,
        safe=False,
    )


def _row(case: str, value: float, against: str, ratio: float) -> dict[str, Any]:
    return {
        "benchmark": "integrate",
        "case": case,
        "value": 1e3 * value,
        "unit": "ms",
        "against": against,
        "ratio": ratio,
    }
