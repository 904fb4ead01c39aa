"""Write curves as NXcanSAS (nexusformat/definitions, version 1.1): while they come, or each for itself.

`CansasFile` grows with the frames: one SASdata with ``I`` (frames × bins), which the definition allows and silx and
h5web draw. SasView opens it too, but shows the last frame's curve for every frame (tried with sasdata 0.11). For it
`write_cansas` writes a SASdata a frame, whole at once, as its reader takes it.

::

    /entry                       NXentry, SASentry: definition, title, run
    /entry/sasdata               stacked: I, Idev (frames × bins), Q, Mask (bins), frame, time, epoch, monitor (frames)
    /entry/sasdata00001 …        each for itself: I, Idev, Q, Mask (bins); attribute timestamp
    /entry/sasinstrument         name; sassource with the wavelength
    /entry/sasprocess            program, date, parameters

``I_errors`` is a second name of ``Idev``, by which viewers of any NXdata find it. The attribute ``uncertainties`` of
``I``, which SasView goes by, is not in a stacked file: silx takes it for those of the axes, and draws nothing.

A curve along 2θ is written along q. Bins without pixels are NaN and masked. Only numbers and texts of the reduction's
parameters are written: SasView takes every element of an array for a remark of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sisockdaq.errors import ConfigurationError
from sisockdaq.nexus.master import write_master
from sisockdaq.nexus.reduced._growing import Column, GrowingFile
from sisockdaq.nexus.reduced.content import Axis, Floats, Product, Reduction, iso_now, to_q
from sisockdaq.nexus.tree import Dataset, Group, HardLink

__all__ = ["MOST_SEPARATE", "CansasFile", "cansas_name", "write_cansas"]

MOST_SEPARATE = 2000
"""Frames that may have a group of their own; more are for a stacked file."""

_VERSION = "1.1"
_STACK = "/entry/sasdata"
_MONITOR = f"{_STACK}/monitor"


def cansas_name(prefix: str, epoch: int) -> str:
    """Return the name of the stacked file of an epoch; they sort by it."""
    return f"{prefix}_cansas_{epoch:06d}.h5"


class CansasFile(GrowingFile):
    """A file of one epoch with all frames in one SASdata; ``with`` closes it.

    Parameters
    ----------
    path : Path
    product : Product
        A curve along q or 2θ.
    reduction : Reduction
    epoch : int
    overwrite : bool
        Whether an existing file gives way.

    Raises
    ------
    ConfigurationError
        For a cake, or an axis that is no scattering vector.
    StorageError
        When the file exists, or the disk refuses it; also from every method that writes.
    """

    def __init__(
        self,
        path: Path,
        product: Product,
        reduction: Reduction,
        *,
        epoch: int = 1,
        overwrite: bool = False,
    ) -> None:
        axis = _axis(product, reduction)
        self.product, self.epoch = product, epoch
        columns = [
            Column(f"{_STACK}/frame", "<i8", (), {"description": "Place in the acquisition, from 0.", "units": ""}),
            Column(f"{_STACK}/time", "<f8", (), {"units": "s", "start": "1970-01-01T00:00:00Z"}),
            Column(f"{_STACK}/epoch", "<i8", (), {"description": "Number of the calibration.", "units": ""}),
            Column(f"{_STACK}/I", product.dtype, product.shape, {"units": "arbitrary"}),
        ]
        self._monitor = reduction.monitor
        if reduction.monitor:
            columns.append(Column(_MONITOR, "<f8", (), {"description": "What each frame was divided by.", "units": ""}))
        if product.errors:
            columns.append(Column(f"{_STACK}/Idev", product.dtype, product.shape, {"units": "arbitrary"}))
        group = _sasdata(product, axis, ("frame", "Q"))
        if product.errors:
            group.items["I_errors"] = HardLink(f"{_STACK}/Idev")
        root = _root(reduction, product, axis, {"sasdata": group}, epoch)
        super().__init__(path, root, columns, overwrite=overwrite)

    def append(
        self,
        time: npt.ArrayLike,
        intensity: npt.ArrayLike,
        sigma: npt.ArrayLike | None = None,
        *,
        index: npt.ArrayLike | None = None,
        monitor: npt.ArrayLike | None = None,
    ) -> None:
        """Remember frames for the next `commit`; as `AzintFile.append`."""
        times = np.atleast_1d(np.asarray(time, dtype=np.float64))
        frames = len(times)
        values: dict[str, npt.ArrayLike | None] = {
            f"{_STACK}/time": times,
            f"{_STACK}/frame": np.arange(self.frames, self.frames + frames) if index is None else np.atleast_1d(index),
            f"{_STACK}/epoch": np.full(frames, self.epoch, dtype=np.int64),
            f"{_STACK}/I": intensity,
            f"{_STACK}/Idev": sigma,
        }
        if monitor is not None and self._monitor:
            values[_MONITOR] = np.atleast_1d(monitor)
        self.add(values, frames)


def write_cansas(
    path: Path,
    product: Product,
    reduction: Reduction,
    intensity: npt.ArrayLike,
    sigma: npt.ArrayLike | None = None,
    *,
    times: npt.ArrayLike | None = None,
    epoch: int = 1,
    overwrite: bool = False,
) -> None:
    """Write curves, each a SASdata of its own; the file is there whole, or not at all.

    Parameters
    ----------
    path : Path
    product : Product
        A curve along q or 2θ.
    reduction : Reduction
    intensity : array_like, (n, bins) or (bins,)
    sigma : as `intensity`, optional
        Standard errors; written where the product has them.
    times : array_like, (n,), optional
        UNIX times [s].
    epoch : int
    overwrite : bool
        Whether an existing file gives way.

    Raises
    ------
    ConfigurationError
        For a cake, another axis, another shape, or more than `MOST_SEPARATE` curves.
    StorageError
    """
    axis = _axis(product, reduction)
    curves = np.atleast_2d(np.asarray(intensity, dtype=product.dtype))
    errors = np.atleast_2d(np.asarray(sigma, dtype=product.dtype)) if sigma is not None and product.errors else None
    moments = None if times is None else np.atleast_1d(np.asarray(times, dtype=np.float64))
    if curves.shape[1:] != product.shape or (errors is not None and errors.shape != curves.shape):
        raise ConfigurationError(f"{product.name} has {len(axis)} bins, not curves of shape {curves.shape}")
    if moments is not None and len(moments) != len(curves):
        raise ConfigurationError(f"{len(curves)} curves have {len(curves)} times, not {len(moments)}")
    if not 0 < len(curves) <= MOST_SEPARATE:
        raise ConfigurationError(
            f"{len(curves)} curves in one file are not between 1 and {MOST_SEPARATE}", remedy="write a stacked file"
        )
    groups = {}
    for number, curve in enumerate(curves, 1):
        group, name = _sasdata(product, axis, ("Q",)), f"sasdata{number:05d}"
        group.items["I"] = Dataset(curve, {"units": "arbitrary", "uncertainties": None if errors is None else "Idev"})
        if errors is not None:
            group.items["Idev"] = Dataset(errors[number - 1], {"units": "arbitrary"})
            group.items["I_errors"] = HardLink(f"/entry/{name}/Idev")
        if moments is not None and np.isfinite(moments[number - 1]):
            group.attributes["timestamp"] = datetime.fromtimestamp(moments[number - 1], UTC).isoformat()
        groups[name] = group
    write_master(path, _root(reduction, product, axis, groups, epoch), replace=overwrite)


def _axis(product: Product, reduction: Reduction) -> Axis:
    if product.azimuth is not None:
        raise ConfigurationError(f"{product.name} is a cake", remedy="NXcanSAS is written of curves")
    return to_q(product.radial, reduction.wavelength)


def _sasdata(product: Product, axis: Axis, axes: Sequence[str]) -> Group:
    at = np.array([len(axes) - 1], dtype=np.int64)
    names = np.array([name.encode() for name in axes])
    about = {"canSAS_class": "SASdata", "signal": "I", "I_axes": names, "axes": names}
    about |= {"Q_indices": at, "mask": "Mask", "Mask_indices": at, "interpretation": "spectrum"}
    items: dict[str, Any] = {
        "title": Dataset(product.name),
        "Q": Dataset(axis.values, {"units": axis.unit}),
        "Mask": Dataset(_empty_bins(product), {"description": "True where a bin has no pixel.", "units": ""}),
    }
    return Group("NXdata", items, about)


def _empty_bins(product: Product) -> npt.NDArray[np.bool_]:
    norm: Floats = np.ones(product.shape) if product.norm is None else np.nan_to_num(product.norm)
    empty: npt.NDArray[np.bool_] = norm <= 0
    return empty


def _root(reduction: Reduction, product: Product, axis: Axis, data: dict[str, Any], epoch: int) -> Group:
    about: dict[str, Any] = {"canSAS_class": "SASentry", "version": _VERSION, "default": next(iter(data))}
    about |= {"acquisition": reduction.acquisition, "epoch": np.int64(epoch)}
    source: dict[str, Any] = {"probe": Dataset(reduction.probe), "type": Dataset(reduction.source_type)}
    if reduction.wavelength:
        source["incident_wavelength"] = Dataset(reduction.wavelength_angstrom, {"units": "angstrom"})
    instrument: dict[str, Any] = {
        "name": Dataset(reduction.instrument),
        "sassource": Group("NXsource", source, {"canSAS_class": "SASsource"}),
    }
    entry: dict[str, Any] = {
        "definition": Dataset("NXcanSAS"),
        "title": Dataset(reduction.title or reduction.acquisition),
        "run": Dataset(reduction.acquisition),
        **data,
        "sasinstrument": Group("NXinstrument", instrument, {"canSAS_class": "SASinstrument"}),
        "sasprocess": _process(reduction, product, axis),
    }
    if reduction.sample or reduction.transmission is not None:
        sample: dict[str, Any] = {"name": Dataset(reduction.sample or reduction.acquisition)}
        if reduction.transmission is not None:
            sample["transmission"] = Dataset(reduction.transmission, {"units": ""})
        entry["sassample"] = Group("NXsample", sample, {"canSAS_class": "SASsample"})
    root = Group("NXentry", entry, about)
    return Group("NXroot", {"entry": root}, {"default": "entry", "creator": f"sisockdaq {reduction.made_by}".strip()})


def _process(reduction: Reduction, product: Product, axis: Axis) -> Group:
    given: dict[str, Any] = {
        "curve": product.name,
        "integrated along": product.radial.name,
        "bins": len(axis),
        "polarization factor": reduction.polarization,
        "solid angle corrected": reduction.solid_angle,
        "divided by the monitor": reduction.monitor,
        "files": ", ".join(reduction.files) or None,
        **{name: value for name, value in reduction.parameters.items() if np.ndim(value) == 0},
    }
    items: dict[str, Any] = {
        "name": Dataset(f"{reduction.program} {reduction.made_by}".strip()),
        "date": Dataset(reduction.date or iso_now()),
        "description": Dataset(reduction.reference),
    }
    terms = [f"{name}: {value}" for name, value in given.items() if value is not None]
    if reduction.poni_text:
        terms.append(f"PONI: {reduction.poni_text}")
    items |= {f"term{number:02d}": Dataset(text) for number, text in enumerate(terms, 1)}
    return Group("NXprocess", items, {"canSAS_class": "SASprocess"})
