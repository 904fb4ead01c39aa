"""Pedestal and gain files (HDF5).

A pedestal file has the datasets that PSI's tools look for, and beside them what they leave out:

``gains`` (3, ny, nx)
    Mean dark value of G0, G1, G2 [ADU]; so called by those tools.
``gainsRMS`` (3, ny, nx)
    Its standard deviation [ADU].
``frames`` (3, ny, nx)
    Samples.
``pixel_mask`` (ny, nx)
    Bits of `PIXEL_FAULTS`; 0: good.

Attributes of the file say where it comes from: ``origin``, JSON with the detector, and times and frames of each run.

A gain file has ``gains`` (3 or 4, ny, nx) [ADU/keV]. A fourth map, in either file, is that of G0 in the high gain
setting.
"""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from sisockdaq.conversion.pedestal import PIXEL_FAULTS, STAGES, Pedestal
from sisockdaq.errors import ConfigurationError

__all__ = ["load_gains", "load_pedestal", "save_gains", "save_pedestal"]

_MORE = ("", *(f"-{number}" for number in range(2, 1000)))
"""What tells files apart that were replaced within the same second."""


def save_pedestal(pedestal: Pedestal, path: Path) -> None:
    """Write a pedestal file, whole or not at all; one that is there is kept, under the time of its last change.

    Raises
    ------
    ConfigurationError
        When it cannot be written.
    """
    new = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(new, "w") as file:
            for name, maps, units in (
                ("gains", pedestal.mean, "ADU"),
                ("gainsRMS", pedestal.noise, "ADU"),
                ("frames", pedestal.frames, ""),
                ("pixel_mask", pedestal.faults, ""),
            ):
                data = file.create_dataset(name, data=maps, chunks=True, compression="gzip", shuffle=True)
                data.attrs["units"] = units
            file["pixel_mask"].attrs["bits"] = json.dumps(PIXEL_FAULTS)
            file.attrs["origin"] = json.dumps(dict(pedestal.origin))
            file.attrs["stages"] = ",".join(STAGES)
        if path.exists():
            path.rename(_aside(path))
        new.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)
        raise ConfigurationError(f"the pedestal file {path} cannot be written: {error}") from None


def save_gains(gains: npt.NDArray[np.float32], path: Path) -> None:
    """Write gain maps, (3 or 4, ny, nx) [ADU/keV], as PSI's tools read them.

    Raises
    ------
    ConfigurationError
        When they cannot be written.
    """
    try:
        with h5py.File(path, "w") as file:
            file.create_dataset("gains", data=gains, chunks=True, compression="gzip", shuffle=True)
            file["gains"].attrs["units"] = "ADU/keV"
    except OSError as error:
        raise ConfigurationError(f"the gain file {path} cannot be written: {error}") from None


def load_pedestal(path: Path, *, high_gain: bool = False) -> Pedestal:
    """Read a pedestal file, ours or one with ``gains`` only.

    Parameters
    ----------
    path : Path
    high_gain : bool
        Whether the detector is in its high gain setting: the file's fourth map, where it has one, is then G0's.

    Raises
    ------
    ConfigurationError
        When it is missing or not such a file.
    """
    with _opened(path, "pedestal") as file:
        mean = _stages(file, path, "gains", high_gain)
        noise = _stages(file, path, "gainsRMS", high_gain) if "gainsRMS" in file else np.zeros_like(mean)
        frames = np.isfinite(mean).astype(np.uint32)
        if "frames" in file:
            frames = np.asarray(file["frames"][: len(STAGES)], np.uint32)
        faults = np.zeros(mean.shape[1:], np.uint32)
        if "pixel_mask" in file:
            faults = np.asarray(file["pixel_mask"][()], np.uint32)
        try:
            origin = json.loads(file.attrs.get("origin", "{}"))
        except ValueError:
            origin = {}
        return Pedestal(mean, noise, frames, faults, origin if isinstance(origin, dict) else {})


def load_gains(path: Path, *, high_gain: bool = False) -> npt.NDArray[np.float32]:
    """Read a gain file.

    Parameters
    ----------
    path : Path
    high_gain : bool
        Whether the detector is in its high gain setting, whose map of G0 is the file's fourth.

    Returns
    -------
    ndarray of float32, (3, ny, nx)
        [ADU/keV]

    Raises
    ------
    ConfigurationError
        When it is missing or not such a file.
    """
    with _opened(path, "gain") as file:
        if high_gain and "gains" in file and len(file["gains"]) <= len(STAGES):
            raise ConfigurationError(f"{path} has no map for the high gain setting")
        return _stages(file, path, "gains", high_gain)


def _opened(path: Path, what: str) -> h5py.File:
    try:
        return h5py.File(path, "r")
    except OSError as error:
        reason = "there is no such file" if not path.exists() else f"it is not an HDF5 file ({error})"
        raise ConfigurationError(f"the {what} file {path} cannot be read: {reason}") from None


def _stages(file: h5py.File, path: Path, name: str, high_gain: bool) -> npt.NDArray[np.float32]:
    found = file.get(name)
    if not isinstance(found, h5py.Dataset) or found.ndim != 3 or len(found) < len(STAGES):
        what = "nothing of that name" if found is None else f"{getattr(found, 'shape', 'a group')}"
        raise ConfigurationError(f"{path}: {name} must hold at least {len(STAGES)} maps; found {what}")
    maps = np.asarray(found[: len(STAGES)], np.float32)
    if high_gain and len(found) > len(STAGES):
        maps[0] = np.asarray(found[len(STAGES)], np.float32)
    return maps


def _aside(path: Path) -> Path:
    """Return a free name for a file that is replaced, with the time of its last change (UTC)."""
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(path.stat().st_mtime))
    names = (path.with_name(f"{path.stem}-{stamp}{more}{path.suffix}") for more in _MORE)
    return next(name for name in names if not name.exists())
