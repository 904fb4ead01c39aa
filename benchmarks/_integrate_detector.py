"""What all figures of integration are measured with: a detector, its geometry and an image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numba import njit

__all__ = ["BINS", "PIXEL", "SIDES", "SPLITS", "Method", "SquareDetector", "map_words", "read_all"]

BINS = 1000
PIXEL = 75e-6
SIDES = {"1 Mpix": 1024, "4 Mpix": 2048, "9 Mpix": 3072}
Split = Literal["no", "bbox", "full"]
SPLITS: dict[Split, str] = {"no": "no split", "bbox": "bounding box", "full": "full split"}
Method = tuple[str, str, str]


@njit(nogil=True, cache=True)
def read_all(pixels: Any, index: Any, share: Any) -> int:
    """Read a frame and its map, and do nothing with them."""
    found = 0
    for i in range(pixels.size):
        found += pixels[i]
    for i in range(index.size):
        found += index[i]
    for i in range(share.size):
        found += share[i] > 2
    return found


def map_words(bin_map: Any) -> Any:
    """Return what is read of a map beside the shares: the numbers of couples, else the pixels' entries."""
    words = bin_map.couples.words
    return words if words.size else bin_map.index.view(np.uint64)


class SquareDetector:
    """A square detector with the beam near its middle, a tilt, 1 % of masked pixels, and an image of Poisson noise.

    Its maps are kept in a folder, so that each is made once.
    """

    def __init__(self, side: int, maps: Path | str) -> None:
        self.maps = maps
        rng = np.random.default_rng(side)
        self.shape = (side, side)
        self.mask = rng.random(self.shape) < 0.01
        self.counts = rng.poisson(20, self.shape)
        reach = side * PIXEL
        self.geometry = {
            "distance": 1.3 * reach,
            "poni1": 0.52 * reach,
            "poni2": 0.53 * reach,
            "rot1": 0.02,
            "rot2": -0.01,
            "wavelength": 1e-10,
        }

    def ours(self, split: Split, errors: bool = False, **more: Any) -> Any:
        """Make our integrator."""
        from sisockdaq.integrate import Integrator

        options: dict[str, Any] = {"error_model": "poisson" if errors else None, **more}
        return Integrator(
            self.geometry,
            shape=self.shape,
            pixel_size=PIXEL,
            mask=self.mask,
            bins=BINS,
            split=split,
            polarization=0.95,
            cache=self.maps,
            **options,
        )

    def pyfai(self) -> Any:
        """Make pyFAI's integrator."""
        from sisockdaq.integrate import load_geometry

        return load_geometry(self.geometry, shape=self.shape, pixel_size=PIXEL)

    def rival(self, pyfai: Any, image: Any, method: Method, errors: bool) -> Callable[[], Any]:
        """Return pyFAI's call, with all that it can be spared: no checks, mask and geometry cached."""
        mask = self.mask.astype(np.int8)
        model = "poisson" if errors else None

        def call() -> Any:
            return pyfai.integrate1d(
                image,
                BINS,
                unit="q_nm^-1",
                method=method,
                mask=mask,
                polarization_factor=0.95,
                error_model=model,
                safe=False,
            )

        return call
