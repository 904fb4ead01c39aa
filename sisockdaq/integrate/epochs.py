"""Epochs: which frames were integrated with which calibration, mask and settings. Pure, but for one file.

An epoch begins when an integrator starts and whenever anything of what it does is changed. Its number goes with every
result; the book says what the number means, and how many frames have it. Numbers go on where the last start of the same
node ended, as long as its file is there: two epochs of a site never share one.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from sisockdaq.integrate.reduction import Reducer
    from sisockdaq.integrate.settings import IntegrationSettings

__all__ = ["Epoch", "EpochBook", "hold_axes", "mask_digest"]

_log = logging.getLogger(__name__)

_MOST_EPOCHS = 1000
"""Epochs that are remembered; the oldest leave."""


@dataclass(slots=True)
class Epoch:
    """What frames of one epoch have in common.

    Attributes
    ----------
    number : int
        From 1.
    since : float
        When it began (UNIX time, s).
    settings : dict
        What differs from the defaults of `IntegrationSettings`, the detector's geometry and mask named; enough to make
        the same integrator again.
    geometry : dict
        The geometry's parameters (m, rad), as they were read.
    poni : str
        The geometry as text of a PONI file.
    mask : str
        Digest of the pixels that are left out (`mask_digest`), whatever hid them; "" where none are.
    masked : int
        How many these are.
    held : str
        The acquisition that the axes were taken over for; "" where they are the settings' own.
    frames : int
        Frames that were integrated.
    """

    number: int
    since: float
    settings: dict[str, Any]
    geometry: dict[str, Any]
    held: str = ""
    frames: int = 0
    poni: str = ""
    mask: str = ""
    masked: int = 0

    def about(self) -> dict[str, Any]:
        """Return what the number means, as plain values: all but the frames so far."""
        return {name: value for name, value in asdict(self).items() if name != "frames"}


@dataclass(slots=True)
class EpochBook:
    """All epochs of a node; any thread may ask.

    Parameters
    ----------
    path : Path, optional
        File that keeps the book over starts. Where it cannot be read or written, a line in the log says so and the
        numbers begin at 1.
    """

    path: Path | None = None
    _epochs: list[Epoch] = field(default_factory=list)
    _lock: Any = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        if self.path is not None:
            self._epochs = _read(self.path)

    @property
    def number(self) -> int:
        """Of the present epoch; 0 before the first."""
        return self._epochs[-1].number if self._epochs else 0

    def begin(self, reducer: Reducer, since: float, held: str = "") -> Epoch:
        """Begin an epoch of what a reducer does, and give the reducer its number."""
        with self._lock:
            integrator, mask = reducer.integrator, reducer.integrator.mask
            epoch = Epoch(
                self.number + 1,
                since,
                reducer.settings.present(),
                dict(integrator.geometry),
                held,
                poni=integrator.poni,
                mask=mask_digest(mask),
                masked=0 if mask is None else int(np.count_nonzero(mask)),
            )
            self._epochs = [*self._epochs, epoch][-_MOST_EPOCHS:]
        reducer.epoch = epoch.number
        self.keep()
        return epoch

    def count(self, number: int) -> None:
        """Count a frame of that epoch."""
        with self._lock:
            for epoch in reversed(self._epochs):
                if epoch.number == number:
                    epoch.frames += 1
                    return

    def listing(self) -> list[dict[str, Any]]:
        """Return all epochs as plain values, the oldest first."""
        with self._lock:
            return [asdict(epoch) for epoch in self._epochs]

    def newest(self, most: int = 16) -> list[dict[str, Any]]:
        """Return what the newest numbers mean, the oldest of them first, for those who get results."""
        with self._lock:
            return [epoch.about() for epoch in self._epochs[-most:]]

    def keep(self) -> None:
        """Write the file, if there is one: whole or not at all."""
        if self.path is None:
            return
        try:
            _write(self.path, json.dumps(self.listing(), indent=1))
        except OSError as error:
            _log.warning("epochs cannot be kept in %s: %s", self.path, error.strerror)


def mask_digest(mask: npt.NDArray[Any] | None) -> str:
    """Return a digest of the pixels that are left out, by which masks can be compared; "" where none are.

    ``sha256:`` and the digest of one bit a pixel, in the image's order (`numpy.packbits`).
    """
    if mask is None or not np.any(mask):
        return ""
    return f"sha256:{hashlib.sha256(np.packbits(np.asarray(mask) != 0).tobytes()).hexdigest()}"


def hold_axes(settings: IntegrationSettings, running: Reducer) -> IntegrationSettings:
    """Return settings whose curves get the points that those of a running reducer have, where nothing is said of them.

    For the whole image and each sector that both have and that keeps its number of bins: the ends of the running axis
    become the range, so that curves of both can be compared and stand in one dataset. A curve of a single bin has no
    ends to be known; it stays as it is.
    """
    changes: dict[str, Any] = {}
    curves = running.curves
    if settings.radial_range is None:
        changes["radial_range"] = _ends(curves["curve"].values)
    sectors = {}
    for name, sector in settings.sectors.items():
        axis = curves.get(f"curve_{name}")
        ends = None if axis is None or sector.radial_range is not None else _ends(axis.values)
        sectors[name] = sector if ends is None else sector.model_copy(update={"radial_range": ends})
    return settings.model_copy(update={**changes, "sectors": sectors})


def _ends(axis: Any) -> tuple[float, float] | None:
    from sisockdaq.integrate.maps import RANGE_STEP

    if axis.size < 2:
        return None
    half = (float(axis[-1]) - float(axis[0])) / (axis.size - 1) / 2
    # A map's last bin ends one step of float32 behind the range.
    return float(axis[0]) - half, (float(axis[-1]) + half) / RANGE_STEP


def _read(path: Path) -> list[Epoch]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return [_epoch(row) for row in rows]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError) as error:
        _log.warning("the epochs in %s cannot be read, and begin again at 1: %s", path, error)
        return []


def _epoch(row: Mapping[str, Any]) -> Epoch:
    epoch = Epoch(
        int(row["number"]), float(row["since"]), dict(row["settings"]), dict(row["geometry"]), str(row["held"])
    )
    epoch.frames = int(row["frames"])
    epoch.poni, epoch.mask = str(row.get("poni", "")), str(row.get("mask", ""))
    epoch.masked = int(row.get("masked", 0))
    return epoch


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).replace(path)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise
