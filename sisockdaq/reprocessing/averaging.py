"""One set of curves, and one cake, of many frames, as one long exposure would have given."""

from __future__ import annotations

from sisockdaq.integrate.cake import CakeAverager
from sisockdaq.integrate.reduction import Reduced, Reducer
from sisockdaq.integrate.result import Averager

__all__ = ["FrameAverage"]


class FrameAverage:
    """Add up what frames became; holds sums only.

    Parameters
    ----------
    reducer : Reducer
        Of all frames.

    Attributes
    ----------
    frames : int
        That were added.
    """

    def __init__(self, reducer: Reducer) -> None:
        self.frames = 0
        self._monitor = self._factor = 0.0
        self._reducer = reducer
        self._curve = Averager()
        self._sectors = {name: Averager() for name in reducer.integrator.sectors}
        self._cake = None if reducer.cake_axes is None else CakeAverager()

    def add(self, reduced: Reduced) -> None:
        """Add a frame; one without intensities, whose monitor is not known, is left out."""
        if not reduced.has_intensities:
            return
        self._monitor += reduced.numbers.get("monitor", 1.0)
        self._factor += reduced.factor
        self._curve.add(reduced.curve)
        for name, averager in self._sectors.items():
            averager.add(reduced.sectors[name])
        if self._cake is not None and reduced.cake is not None:
            self._cake.add(reduced.cake)
        self.frames += 1

    def result(self) -> Reduced:
        """Return the average; raise `ValueError` when there are no frames.

        Totals, regions and the monitor are sums; the transmission is the mean of what the beam found.
        """
        sectors = {name: averager.result() for name, averager in self._sectors.items()}
        cake = None if self._cake is None else self._cake.result()
        factors = {"monitor": self._monitor, "transmission": self._factor / self._monitor if self.frames else 1.0}
        return self._reducer.reduced(self._curve.result(), sectors, cake, factors)
