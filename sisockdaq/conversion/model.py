"""A made-up JUNGFRAU: what its ADCs would show of darks and of photons, from maps that are known.

For the simulator and for tests: whoever knows the maps can work out what must come back.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sisockdaq.conversion.pedestal import STAGE_CODES, STAGES, stage_index

__all__ = ["JungfrauModel"]

_USUAL_PEDESTAL = (3000.0, 14_800.0, 14_200.0)
_USUAL_GAIN = (41.0, -1.42, -0.105)
"""ADU/keV; the lower stages count down from their pedestal."""

_USUAL_NOISE = (12.0, 5.0, 4.0)
_PIXEL_SPREAD = 0.02
_SWITCH_UP, _SWITCH_DOWN = 14_000, 1_500
"""ADC values beyond which G0, and G1, hand over to the next stage."""

_MOST = 0x3FFF


@dataclass(frozen=True)
class JungfrauModel:
    """Pedestals, gains and noise of each pixel in each stage.

    Attributes
    ----------
    pedestal : ndarray of float32, (3, ny, nx)
        [ADU]
    gain : ndarray of float32, (3, ny, nx)
        [ADU/keV]
    noise : tuple of float
        Standard deviation of each stage [ADU].
    seed : int
    """

    pedestal: npt.NDArray[np.float32]
    gain: npt.NDArray[np.float32]
    noise: tuple[float, float, float] = (12.0, 5.0, 4.0)
    seed: int = 0

    @classmethod
    def drawn(cls, shape: tuple[int, int], seed: int = 0) -> JungfrauModel:
        """Draw a detector: pixels differ by some per cent."""
        generator = np.random.default_rng([seed, 3])
        spread = 1 + _PIXEL_SPREAD * generator.standard_normal((2, len(STAGES), *shape), np.float32)
        pedestal = np.array(_USUAL_PEDESTAL, np.float32)[:, None, None] * spread[0]
        gain = np.array(_USUAL_GAIN, np.float32)[:, None, None] * spread[1]
        return cls(np.minimum(pedestal, 15_800), gain, _USUAL_NOISE, seed)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        ny, nx = self.pedestal.shape[1:]
        return ny, nx

    def dark(self, stage: str, frame: int = 0) -> npt.NDArray[np.uint16]:
        """Return a dark frame with the detector forced into a stage; another number, other noise."""
        row = stage_index(stage)
        generator = np.random.default_rng([self.seed, 4 + row, frame])
        noise = self.noise[row] * generator.standard_normal(self.shape, np.float32)
        adc = np.rint(self.pedestal[row] + noise).clip(1, _MOST).astype(np.uint16)
        raw: npt.NDArray[np.uint16] = adc | np.uint16(STAGE_CODES[row] << 14)
        return raw

    def raw(self, energy: npt.ArrayLike, frame: int = 0) -> npt.NDArray[np.uint16]:
        """Return the raw frame of energies, (ny, nx) [keV]: each pixel in the stage that it chooses by itself.

        A pixel too bright for G2 gives 0xC000.
        """
        light = np.asarray(energy, np.float32)
        generator = np.random.default_rng([self.seed, 8, frame])
        noise = generator.standard_normal(self.shape, np.float32)
        adc = [self.pedestal[row] + self.gain[row] * light + self.noise[row] * noise for row in range(len(STAGES))]
        row = np.where(adc[0] <= _SWITCH_UP, 0, np.where(adc[1] >= _SWITCH_DOWN, 1, 2))
        chosen = np.rint(np.choose(row, adc)).clip(0, _MOST)
        codes = np.array(STAGE_CODES, np.uint16)[row] << np.uint16(14)
        raw: npt.NDArray[np.uint16] = chosen.astype(np.uint16) | codes
        return raw
