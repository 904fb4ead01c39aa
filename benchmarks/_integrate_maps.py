"""A map made from the geometry, against pyFAI's matrix; and read from disk, against made.

Somebody waits for a map: these are wall times, and both sides may use all processors, pyFAI by OpenMP.
"""

from __future__ import annotations

import tempfile
import time
from typing import Any

import numpy as np

from benchmarks._integrate_detector import BINS, SPLITS, Split, SquareDetector

__all__ = ["map_rows"]


_ROUNDS = 3


def map_rows(detector: SquareDetector, size: str, split: Split) -> list[dict[str, Any]]:
    """Measure one splitting. The rival is pyFAI's first curve in this geometry; what is read is in the page cache."""
    from sisockdaq.integrate.cache import MapCache, map_key, prepare_map
    from sisockdaq.integrate.geometry import locate_pixels
    from sisockdaq.integrate.maps import build_map

    pyfai = detector.pyfai()

    def make() -> Any:
        pixels = locate_pixels(pyfai, "q_nm^-1", split=split, polarization=0.95)
        return prepare_map(build_map(pixels, detector.mask, bins=BINS))

    image, method = detector.counts.astype(np.uint32), (split, "csr", "cython")
    prepared = make()
    ours: list[float] = []
    others: list[float] = []
    for _ in range(_ROUNDS):
        for taken, call in (
            (ours, make),
            (others, detector.rival(detector.pyfai(), image, method, errors=False)),
        ):
            begin = time.perf_counter()
            call()
            taken.append(time.perf_counter() - begin)
    made, theirs = float(np.median(ours)), float(np.median(others))
    options: dict[str, Any] = {
        "unit": "q_nm^-1",
        "split": split,
        "bins": BINS,
        "solid_angle": True,
        "polarization": 0.95,
        "mask": detector.mask,
    }
    with tempfile.TemporaryDirectory() as folder:
        cache = MapCache(folder)
        cache.store(map_key(pyfai, **options), prepared)
        loads = []
        for _ in range(5):
            begin = time.perf_counter()
            if cache.load(map_key(pyfai, **options)) is None:
                raise RuntimeError("the stored map was not found")
            loads.append(time.perf_counter() - begin)
    name = f"{size}, {SPLITS[split]}"
    read = float(np.median(loads))
    return [
        _row(f"{name}, map made", made, f"pyFAI's first curve {theirs:.2f} s", theirs / made),
        _row(f"{name}, map from disk", read, f"made {made:.2f} s", made / read),
    ]


def _row(case: str, value: float, against: str, ratio: float) -> dict[str, Any]:
    return {
        "benchmark": "integrate",
        "case": case,
        "value": value,
        "unit": "s",
        "against": against,
        "ratio": ratio,
    }
