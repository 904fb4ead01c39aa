"""Random geometries, and pyFAI's answer to the same question."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st
from pyFAI.integrator.azimuthal import AzimuthalIntegrator

from sisockdaq.integrate import UNITS, load_geometry

PIXEL = 75e-6


@dataclass(frozen=True)
class Case:
    parameters: dict[str, float]
    shape: tuple[int, int]
    bins: int
    unit: str
    polarization: float | None
    solid_angle: bool
    masked: float
    seed: int

    def pyfai(self) -> AzimuthalIntegrator:
        return load_geometry(self.parameters, shape=self.shape, pixel_size=PIXEL)

    def mask(self) -> npt.NDArray[np.bool_]:
        mask = np.random.default_rng(self.seed).random(self.shape) < self.masked
        mask[0, 0] = False
        return mask

    def image(self, dtype: npt.DTypeLike, mean: float = 3.0) -> npt.NDArray[Any]:
        return np.random.default_rng(self.seed + 1).poisson(mean, self.shape).astype(dtype)

    def options(self, **more: Any) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "pixel_size": PIXEL,
            "mask": self.mask(),
            "bins": self.bins,
            "unit": self.unit,
            "polarization": self.polarization,
            "solid_angle": self.solid_angle,
            **more,
        }

    def reference(self, image: npt.NDArray[Any], split: str, **more: Any) -> Any:
        return self.pyfai().integrate1d(
            image,
            self.bins,
            unit=self.unit,
            method=(split, "csc", "cython"),
            mask=self.mask(),
            polarization_factor=self.polarization,
            correctSolidAngle=self.solid_angle,
            **more,
        )


@st.composite
def cases(draw: st.DrawFn) -> Case:
    rows, columns = draw(st.integers(20, 90)), draw(st.integers(20, 90))
    angle = st.floats(-0.6, 0.6)
    parameters = {
        "distance": draw(st.floats(0.003, 0.5)),
        "poni1": draw(st.floats(-0.5, 1.5)) * rows * PIXEL,
        "poni2": draw(st.floats(-0.5, 1.5)) * columns * PIXEL,
        "rot1": draw(angle),
        "rot2": draw(angle),
        "rot3": draw(angle),
        "wavelength": draw(st.floats(0.3e-10, 3e-10)),
    }
    return Case(
        parameters,
        (rows, columns),
        draw(st.integers(2, 400)),
        draw(st.sampled_from(UNITS)),
        draw(st.none() | st.floats(-1, 1)),
        draw(st.booleans()),
        draw(st.sampled_from([0.0, 0.02, 0.6])),
        draw(st.integers(0, 1 << 20)),
    )
