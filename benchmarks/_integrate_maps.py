"""A map made from the geometry, against pyFAI's matrix; and read from disk, against made."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks._integrate_detector import BINS, SPLITS, Split, SquareDetector

__all__ = ["map_rows"]


def map_rows(detector: SquareDetector, size: str, split: Split, rival: Callable[[], Any]) -> list[dict[str, Any]]:
    """Measure one splitting; CPU time made, wall time read (the file is in the page cache).

    `rival` is pyFAI's first call in this geometry.
    """
    from sisockdaq.integrate.cache import MapCache, map_key, prepare_map
    from sisockdaq.integrate.geometry import locate_pixels
    from sisockdaq.integrate.maps import build_map

    pyfai = detector.pyfai()

    def make() -> Any:
        pixels = locate_pixels(pyfai, "q_nm^-1", split=split, polarization=0.95)
        return prepare_map(build_map(pixels, detector.mask, bins=BINS))

    make()
    begin = time.process_time()
    prepared = make()
    made = time.process_time() - begin
    begin = time.process_time()
    rival()
    theirs = time.process_time() - begin
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
        taken = []
        for _ in range(5):
            begin = time.perf_counter()
            if cache.load(map_key(pyfai, **options)) is None:
                raise RuntimeError("the stored map was not found")
            taken.append(time.perf_counter() - begin)
    name = f"{size}, {SPLITS[split]}"
    read = float(np.median(taken))
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
