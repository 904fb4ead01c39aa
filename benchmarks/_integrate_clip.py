"""Sigma clipping and medians of rings, one thread, against pyFAI's ``sigma_clip_ng`` and ``medfilt1d_ng``.

The rival is pyFAI's CSR engine in Cython, its fastest CPU method for both (the one in Python takes five times as long);
called with all that it can be spared: mask and geometry cached, no checks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import numpy as np

from benchmarks._turns import in_turns

__all__ = ["clip_rows"]

_BINS = 1000
_POLARIZATION = 0.95
_SPLITS: dict[Literal["no", "bbox", "full"], str] = {"no": "no split", "bbox": "bounding box", "full": "full split"}
_MODELS: tuple[Literal["poisson", "azimuthal"], ...] = ("poisson", "azimuthal")


def clip_rows(
    detector: Any,
    geometry: dict[str, float],
    pixel_size: float,
    size: str,
    rounds: int,
    splits: tuple[Literal["no", "bbox", "full"], ...] = ("no", "bbox"),
) -> list[dict[str, Any]]:
    """Measure one detector; it has ``shape``, ``mask`` and ``counts``. The image gets Bragg peaks, 1 pixel in 1000."""
    from sisockdaq.integrate import Integrator, load_geometry

    rng = np.random.default_rng(7)
    image = detector.counts.astype(np.uint32)
    image[rng.random(image.shape) < 1e-3] += 500
    rows = []
    for split in splits:
        ours = Integrator(
            geometry,
            shape=detector.shape,
            pixel_size=pixel_size,
            mask=detector.mask,
            bins=_BINS,
            split=split,
            polarization=_POLARIZATION,
        )
        pyfai = load_geometry(geometry, shape=detector.shape, pixel_size=pixel_size)
        options = {
            "unit": "q_nm^-1",
            "method": (split, "csr", "cython"),
            "mask": detector.mask.astype(np.int8),
            "polarization_factor": _POLARIZATION,
            "safe": False,
        }
        calls: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {}
        for model in _MODELS:
            calls[f"sigma clip, {model} errors"] = (
                partial(ours.sigma_clip, image, error_model=model),
                partial(pyfai.sigma_clip, image, _BINS, error_model=model, **options),
            )
        calls["median"] = partial(ours.median, image), partial(pyfai.medfilt1d_ng, image, _BINS, **options)
        for name, (one, other) in calls.items():
            taken = in_turns({"ours": one, "pyFAI": other}, rounds)
            rows.append(
                {
                    "benchmark": "integrate",
                    "case": f"{size} uint32, {_SPLITS[split]}, {name}",
                    "value": 1e3 * taken["ours"],
                    "unit": "ms",
                    "against": f"pyFAI csr cython {1e3 * taken['pyFAI']:.1f} ms",
                    "ratio": taken["pyFAI"] / taken["ours"],
                }
            )
    return rows
