"""Products, reductions and curves for tests of their files."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sisockdaq.nexus.reduced import Axis, Product, Reduction, axis_of, bin_edges

BINS, AZIMUTHS = 40, 12
START = 1_700_000_000.0
Q = np.linspace(0.1, 4.0, BINS)
ETA = np.linspace(-165.0, 165.0, AZIMUTHS)


def curve(name: str = "curve", *, errors: bool = True) -> Product:
    norm = np.full(BINS, 7.0)
    norm[3] = 0.0
    return Product(name, axis_of("q_nm^-1", Q, bin_edges(Q)), errors=errors, norm=norm)


def cake(name: str = "cake") -> Product:
    azimuth = Axis("azimuth", "deg", ETA, bin_edges(ETA))
    radial = axis_of("2th_deg", Q, bin_edges(Q))
    return Product(name, radial, azimuth, errors=True, norm=np.ones((AZIMUTHS, BINS)))


def reduction(**changes: object) -> Reduction:
    about: dict[str, object] = {
        "acquisition": "run_0001",
        "instrument": "cSAXS",
        "laboratory": "SLS",
        "sample": "silica",
        "wavelength": 1e-10,
        "poni": {"Distance": 0.2, "Poni1": 0.04, "Poni2": 0.05, "Wavelength": 1e-10},
        "mask": np.eye(5, 6, dtype=bool),
        "polarization": 0.95,
        "monitor": True,
        "parameters": {"error_model": "poisson", "dummy": 65535, "dark": None, "sectors": {"a": [1, 2]}},
    }
    return Reduction(**{**about, **changes})  # type: ignore[arg-type]


def intensity(product: Product, first: int, frames: int) -> npt.NDArray[np.float64]:
    """Return curves or cakes that no two frames share; bin 3 is empty."""
    numbers = np.arange(first, first + frames).reshape(frames, *(1 for _ in product.shape))
    values = np.exp(-Q) * (1 + numbers) + np.zeros((frames, *product.shape))
    values[..., 3] = np.nan
    return values


def times(first: int, frames: int) -> npt.NDArray[np.float64]:
    return START + np.arange(first, first + frames) * 0.01
