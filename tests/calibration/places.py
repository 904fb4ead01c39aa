"""Random places of detectors, and images of a calibrant's rings there."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from sisockdaq.calibration import Geometry, load_calibrant
from sisockdaq.calibration.rings import ring_angles

SHAPE = (61, 97)
PIXEL = (172e-6, 172e-6)


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    angle = st.floats(-0.8, 0.8)
    return Geometry(
        draw(st.floats(0.01, 10)),
        draw(st.floats(-0.3, 0.3)),
        draw(st.floats(-0.3, 0.3)),
        draw(angle),
        draw(angle),
        draw(angle),
        wavelength=draw(st.none() | st.floats(1e-11, 3e-10)),
        pixel_size=draw(st.sampled_from([PIXEL, (75e-6, 75e-6), (50e-6, 100e-6)])),
        shape=SHAPE,
    )


def angles_of(geometry: Geometry) -> npt.NDArray[np.float64]:
    """Return 2θ of every pixel by pyFAI [rad]."""
    return np.asarray(geometry.to_pyfai(SHAPE).center_array(SHAPE, "2th_rad"), np.float64)


def image_of(geometry: Geometry, calibrant: str, *, height: float = 300, background: float = 20) -> npt.NDArray[Any]:
    """Return counts with a calibrant's rings, 1.5 pixels wide, on a background that falls outwards."""
    assert geometry.wavelength is not None
    assert geometry.shape is not None
    scale = geometry.beam_distance / math.sqrt(math.prod(geometry.pixel_size))
    two_theta = geometry.to_pyfai().center_array(geometry.shape, "2th_rad")
    radius = scale * np.tan(two_theta)
    expected = background * (1 + 200 / (radius + 20))
    for angle in ring_angles(load_calibrant(calibrant), geometry.wavelength)[1][:40]:
        expected = expected + height * np.exp(-(((radius - scale * np.tan(angle)) / 1.5) ** 2) / 2)
    return np.random.default_rng(0).poisson(expected).astype(np.uint32)
