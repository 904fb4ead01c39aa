"""What the simulator sends for a made-up JUNGFRAU: darks in each gain stage, and raw frames of known photons."""

from __future__ import annotations

import numpy as np

from sisockdaq.conversion.model import JungfrauModel
from sisockdaq.detector.description import DetectorOptions
from sisockdaq.detector.simulator import Simulation
from sisockdaq.errors import ConfigurationError

__all__ = ["dark_simulation", "model_of", "raw_simulation"]

_DARKS = 16
"""Different darks that are sent in turn: enough for a noise that is right within a fifth."""

_ADC = 0x3FFF


def model_of(detector: DetectorOptions) -> JungfrauModel:
    """Return the maps of the simulated detector, always the same.

    Raises
    ------
    ConfigurationError
        When it is not a JUNGFRAU.
    """
    if detector.model != "jungfrau":
        raise ConfigurationError(f"only a JUNGFRAU has gain stages, not {detector.title}")
    return JungfrauModel.drawn(detector.shape)


def dark_simulation(detector: DetectorOptions, stage: str) -> Simulation:
    """Return a simulation of darks with the detector forced into a stage."""
    model = model_of(detector)
    return Simulation(detector, images=[model.dark(stage, frame) for frame in range(_DARKS)])


def raw_simulation(detector: DetectorOptions, photon_energy: float, seed: int = 0) -> Simulation:
    """Return a simulation of the usual images, each count a photon of that energy [keV], as the ADCs show them."""
    model = model_of(detector)
    plain = Simulation(detector, seed=seed)
    counts = [plain.image(number) & np.uint16(_ADC) for number in range(plain.patterns)]
    return Simulation(detector, images=[model.raw(n * photon_energy, frame) for frame, n in enumerate(counts)])
