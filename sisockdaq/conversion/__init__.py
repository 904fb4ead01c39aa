"""From JUNGFRAU's raw pixels to energy or photons: pedestals from dark runs, gain maps, and one pass over the frame.

A raw pixel holds 14 bits of ADC and, in its two highest bits, the gain stage that it chose for itself: 0, 1 or 3
(called G0, G1, G2 here). Its energy is ``(ADC − pedestal) / gain`` with the maps of that stage.

`DarkStatistics` makes a `Pedestal` of dark frames, `Converter` applies it together with `load_gains`' maps.
"""

from __future__ import annotations

from sisockdaq.conversion.converter import Converter, FrameStatistics, Output
from sisockdaq.conversion.darks import DarkLimits, DarkStatistics, stage_of
from sisockdaq.conversion.files import load_gains, load_pedestal, save_gains, save_pedestal
from sisockdaq.conversion.model import JungfrauModel
from sisockdaq.conversion.pedestal import PIXEL_FAULTS, STAGES, Pedestal

__all__ = [
    "PIXEL_FAULTS",
    "STAGES",
    "Converter",
    "DarkLimits",
    "DarkStatistics",
    "FrameStatistics",
    "JungfrauModel",
    "Output",
    "Pedestal",
    "load_gains",
    "load_pedestal",
    "save_gains",
    "save_pedestal",
    "stage_of",
]
