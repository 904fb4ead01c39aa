"""The conversion written down once more, plainly and in float64: what the kernels must agree with."""

from __future__ import annotations

import numpy as np

CODES = (0, 1, 3)
NOTHING = (0x4000, 0xFFFF)
SATURATED = 0xC000


def energies(raw, pedestal, gain, bad):
    """Return keV: NaN where a pixel tells nothing, infinite where it is saturated."""
    code, adc = raw >> 14, (raw & 0x3FFF).astype(float)
    result = np.full(raw.shape, np.nan)
    for row, value in enumerate(CODES):
        here = code == value
        result[here] = ((adc - pedestal[row]) / gain[row])[here]
    result[np.isin(raw, NOTHING)] = np.nan
    result[raw == SATURATED] = np.inf
    result[bad] = np.nan
    return result


def photons(energies, energy, dtype, threshold, fill):
    """Return rounded photons of an integer type; saturated pixels get the mark below the fill, or the highest."""
    limits = np.iinfo(dtype)
    mark = limits.max if limits.min < 0 else limits.max - 1
    lowest = limits.min + 1 if limits.min < 0 else 0
    values = energies / energy
    values = np.where(values >= threshold, values, np.where(np.isnan(values), values, 0.0))
    rounded = np.floor(values + 0.5)
    result = np.clip(np.nan_to_num(rounded, nan=0, posinf=0), lowest, min(mark - 1, 2**31 - 256)).astype(dtype)
    result[np.isposinf(values)] = mark
    result[np.isnan(values)] = fill
    return result
