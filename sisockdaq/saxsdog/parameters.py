"""The integral parameters of a curve: I0, I1 and I2, the sums of I, I·q and I·q² times the width of a bin."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["IntegralParameters"]

_Floats = npt.NDArray[np.float64]


class IntegralParameters:
    """Sums over the bins from qStart up to qStop, that one left out; a bin without a pixel counts nothing.

    Parameters
    ----------
    axis : ndarray, shape (bins,)
        q in the middle of each bin [nm⁻¹].
    step : float
        Width of a bin [nm⁻¹].
    q_start, q_stop : float
        [nm⁻¹]; a stop beyond the last bin means that bin, which is left out as well.
    """

    def __init__(self, axis: _Floats, step: float, q_start: float, q_stop: float) -> None:
        stop = min(q_stop, float(axis[-1])) if axis.size else 0.0
        self._range = slice(int(np.searchsorted(axis, q_start)), int(np.searchsorted(axis, stop)))
        self._q: _Floats = axis[self._range]
        self._step = float(axis[1] - axis[0]) if axis.size > 1 else step

    def of(self, intensity: _Floats) -> dict[str, float]:
        """Return ``{"I0", "I1", "I2"}`` of a curve."""
        part = intensity[self._range]
        once = part * self._q
        sums = (part, once, once * self._q)
        return {f"I{power}": float(np.nansum(values) * self._step) for power, values in enumerate(sums)}
