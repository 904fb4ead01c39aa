"""Write integrated frames as NXazint1d (curves) and NXazint2d (cakes) of nexusformat/definitions, while they come.

::

    /entry                          attributes: acquisition, epoch, finished
    /entry/definition               NXazint1d, or NXazint2d
    /entry/data                     NXdata: I (frames × bins), I_errors, radial_axis, radial_axis_edges, norm;
                                    of a cake I (frames × azimuth × radial), azimuthal_axis, azimuthal_axis_edges
    /entry/frames                   index in the acquisition, time, epoch, and numbers such as I0, one row a frame
    /entry/monitor/data             what each frame was divided by
    /entry/instrument, sample       name, wavelength, energy, source
    /entry/reduction                program, version, date, reference; input: PONI, mask, factors, …

Several products of the same frames (masks, sectors, a curve and a cake) stand side by side, each a NXsubentry
``/entry/<product>`` that has all of this, shared by hard links; ``/entry/data`` is then the first one's.

One file is of one epoch: the definitions have room for one calibration only, and a reader that takes a PONI from
``reduction/input`` must find the one that holds for every frame (decision 0014). `EpochFiles` begins the next file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sisockdaq.errors import ConfigurationError, StorageError
from sisockdaq.nexus.filters import Compression
from sisockdaq.nexus.reduced._growing import Column, GrowingFile
from sisockdaq.nexus.reduced.content import HC_KEV_ANGSTROM, Axis, Product, Reduction, iso_now
from sisockdaq.nexus.tree import Dataset, Group, HardLink

__all__ = ["AzintFile", "EpochFiles", "FrameNumber", "azint_name"]

_ARBITRARY = "arbitrary units"

Blocks = Mapping[str, npt.ArrayLike] | npt.ArrayLike
"""Values of some frames: by product, or plain where there is only one product."""


@dataclass(frozen=True, slots=True)
class FrameNumber:
    """A number of each frame beside its curves, such as I0."""

    name: str
    units: str | None = None
    description: str | None = None


def azint_name(prefix: str, epoch: int) -> str:
    """Return the name of the file of an epoch; they sort by it."""
    return f"{prefix}_azint_{epoch:06d}.h5"


class AzintFile(GrowingFile):
    """A file of one epoch; ``with`` closes it.

    Parameters
    ----------
    path : Path
    products : sequence of Product
        What each frame became; at least one, with names of their own.
    reduction : Reduction
    epoch : int
        Number of the calibration that all frames of this file have.
    numbers : sequence of FrameNumber
    compression : str
        Of cakes, see `sisockdaq.nexus.filters`; curves are never packed.
    overwrite : bool
        Whether an existing file gives way.

    Raises
    ------
    ConfigurationError
        When products or numbers cannot stand side by side.
    StorageError
        When the file exists, or the disk refuses it; also from every method that writes.
    """

    def __init__(
        self,
        path: Path,
        products: Sequence[Product],
        reduction: Reduction,
        *,
        epoch: int = 1,
        numbers: Sequence[FrameNumber] = (),
        compression: Compression = "none",
        overwrite: bool = False,
    ) -> None:
        _check_names(products, numbers)
        self.products = {product.name: product for product in products}
        self.epoch = epoch
        self._alone = len(products) == 1
        self._numbers = {number.name for number in numbers}
        self._monitor = reduction.monitor
        columns = [*_frame_columns(numbers), *([_MONITOR] if reduction.monitor else [])]
        for product in products:
            columns += _product_columns(self._place(product.name), product, compression)
        root = _root(products, reduction, epoch)
        super().__init__(path, root, columns, overwrite=overwrite)

    def _place(self, product: str) -> str:
        return "/entry/data" if self._alone else f"/entry/{product}/data"

    def append(
        self,
        time: npt.ArrayLike,
        intensity: Blocks,
        sigma: Blocks | None = None,
        *,
        index: npt.ArrayLike | None = None,
        monitor: npt.ArrayLike | None = None,
        numbers: Mapping[str, npt.ArrayLike] | None = None,
    ) -> None:
        """Remember frames for the next `commit`: one, or n at once.

        Parameters
        ----------
        time : array_like, (n,) or a number
            UNIX times [s].
        intensity : mapping of product → array_like, (n, *bins)
            NaN where a bin is empty; without the first dimension for one frame. What is missing is stored as NaN.
        sigma : as `intensity`, optional
            Standard errors, of products that have them.
        index : array_like, (n,), optional
            Of the frames in their acquisition; by default they are counted.
        monitor : array_like, (n,), optional
        numbers : mapping of name → array_like, (n,), optional

        Raises
        ------
        ValueError
            When a shape does not fit, or a name is not known; nothing is remembered then.
        """
        times = np.atleast_1d(np.asarray(time, dtype=np.float64))
        frames = len(times)
        at = np.arange(self.frames, self.frames + frames) if index is None else np.atleast_1d(index)
        values: dict[str, npt.ArrayLike | None] = {
            "/entry/frames/time": times,
            "/entry/frames/index": at,
            "/entry/frames/epoch": np.full(frames, self.epoch, dtype=np.int64),
        }
        for kind, blocks in (("I", intensity), ("I_errors", sigma)):
            for name, block in self._by_product(blocks).items():
                if kind == "I" or self.products[name].errors:
                    values[f"{self._place(name)}/{kind}"] = block
        for name, number in (numbers or {}).items():
            if name not in self._numbers:
                raise ValueError(f'{self.path.name} has no number "{name}"')
            values[f"/entry/frames/{name}"] = np.atleast_1d(number)
        if monitor is not None and self._monitor:
            values[_MONITOR.path] = np.atleast_1d(monitor)
        self.add(values, frames)

    def _by_product(self, blocks: Blocks | None) -> Mapping[str, npt.ArrayLike]:
        if blocks is None:
            return {}
        if not isinstance(blocks, Mapping):
            if not self._alone:
                raise ValueError(f"{self.path.name} has several products: {', '.join(self.products)}")
            return {next(iter(self.products)): blocks}
        if unknown := set(blocks) - set(self.products):
            raise ValueError(f"{self.path.name} has no product {', '.join(sorted(unknown))}")
        return blocks


class EpochFiles:
    """The files of an acquisition, one an epoch, made as they are needed.

    Parameters
    ----------
    folder : Path
    prefix : str
        Of the names: ``<prefix>_azint_<epoch>.h5``.
    compression, overwrite
        As in `AzintFile`.
    """

    def __init__(
        self,
        folder: Path,
        prefix: str,
        *,
        compression: Compression = "none",
        overwrite: bool = False,
    ) -> None:
        self.folder, self.prefix = folder, prefix
        self.files: list[Path] = []
        self.current: AzintFile | None = None
        self._compression, self._overwrite = compression, overwrite

    def begin(
        self, epoch: int, products: Sequence[Product], reduction: Reduction, numbers: Sequence[FrameNumber] = ()
    ) -> AzintFile:
        """Close the file of the last epoch, and begin that of the next one; the folder is made where it is missing."""
        self.close()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"{self.folder}: {error.strerror}", remedy="choose another folder") from None
        self.current = AzintFile(
            self.folder / azint_name(self.prefix, epoch),
            products,
            reduction,
            epoch=epoch,
            numbers=numbers,
            compression=self._compression,
            overwrite=self._overwrite,
        )
        self.files.append(self.current.path)
        return self.current

    def commit(self) -> None:
        """Make all frames so far readable."""
        if self.current is not None:
            self.current.commit()

    def close(self) -> None:
        """Close the file that is open, whole; it is not open any more even where the disk refuses the rest."""
        file, self.current = self.current, None
        if file is not None:
            file.close()


def _check_names(products: Sequence[Product], numbers: Iterable[FrameNumber]) -> None:
    names = [product.name for product in products]
    taken = {"data", "frames", "instrument", "sample", "monitor", "title"} if len(names) > 1 else set()
    if not names:
        raise ConfigurationError("a file of integrated frames has at least one product")
    if len(set(names)) < len(names) or taken & set(names):
        remedy = f"names of their own, none of {', '.join(sorted(taken))}"
        raise ConfigurationError(f"products {', '.join(names)} cannot stand side by side", remedy=remedy)
    wanted = ["time", "index", "epoch", *(number.name for number in numbers)]
    if len(set(wanted)) < len(wanted) or any("/" in name or not name.strip(".") for name in wanted):
        raise ConfigurationError(f"numbers {', '.join(wanted[3:])} cannot stand beside time, index and epoch")


_MONITOR = Column("/entry/monitor/data", "<f8", (), {"description": "What each frame was divided by."})


def _frame_columns(numbers: Iterable[FrameNumber]) -> list[Column]:
    index = {"description": "Place of the frame in its acquisition, from 0."}
    epoch = {"description": "Number of the calibration."}
    return [
        Column("/entry/frames/time", "<f8", (), {"units": "s", "start": "1970-01-01T00:00:00Z"}),
        Column("/entry/frames/index", "<i8", (), index),
        Column("/entry/frames/epoch", "<i8", (), epoch),
        *(
            Column(f"/entry/frames/{each.name}", "<f8", (), {"units": each.units, "description": each.description})
            for each in numbers
        ),
    ]


def _product_columns(place: str, product: Product, compression: Compression) -> list[Column]:
    packing: Compression = "none" if product.azimuth is None else compression
    about = {"units": _ARBITRARY, "long_name": "intensity"}
    columns = [Column(f"{place}/I", product.dtype, product.shape, about, packing)]
    if product.errors:
        about = {"units": _ARBITRARY, "long_name": "estimated intensity error"}
        columns.append(Column(f"{place}/I_errors", product.dtype, product.shape, about, packing))
    return columns


def _root(products: Sequence[Product], reduction: Reduction, epoch: int) -> Group:
    entry = Group("NXentry", attributes={"default": "data", "acquisition": reduction.acquisition})
    entry.attributes["epoch"] = np.int64(epoch)
    entry.items["title"] = Dataset(reduction.title or reduction.acquisition)
    if reduction.sample:
        entry.items["sample"] = Group("NXsample", {"name": Dataset(reduction.sample)})
    entry.items["instrument"] = _instrument(reduction)
    entry.items["frames"] = Group("NXcollection")
    if reduction.monitor:
        entry.items["monitor"] = Group("NXmonitor")
    if len(products) == 1:
        entry.items |= _method(products[0], reduction, None)
    else:
        for product in products:
            shared = None if product is products[0] else f"/entry/{products[0].name}/reduction/input/mask"
            method = Group("NXsubentry", _method(product, reduction, shared), {"default": "data"})
            method.items["instrument"] = HardLink("/entry/instrument")
            if reduction.monitor:
                method.items["monitor"] = HardLink("/entry/monitor")
            entry.items[product.name] = method
        entry.items["data"] = HardLink(f"/entry/{products[0].name}/data")
    return Group("NXroot", {"entry": entry}, {"default": "entry", "creator": f"sisockdaq {reduction.made_by}".strip()})


def _method(product: Product, reduction: Reduction, mask: str | None) -> dict[str, Any]:
    """Return what stands in the entry, or in the subentry, of a product."""
    return {
        "definition": Dataset(product.definition),
        "solid_angle_applied": Dataset(np.bool_(reduction.solid_angle)),
        "polarization_applied": Dataset(np.bool_(reduction.polarization is not None)),
        "normalization_applied": Dataset(np.bool_(reduction.normalization)),
        "monitor_applied": Dataset(np.bool_(reduction.monitor)),
        "reduction": _process(product, reduction, mask),
        "data": _data(product),
    }


def _instrument(reduction: Reduction) -> Group:
    wavelength = reduction.wavelength_angstrom
    energy = HC_KEV_ANGSTROM / wavelength
    mono: dict[str, Any] = {
        "wavelength": Dataset(wavelength, {"units": "angstrom"}),
        "energy": Dataset(energy, {"units": "keV"}),
    }
    source: dict[str, Any] = {
        "name": Dataset(reduction.laboratory),
        "type": Dataset(reduction.source_type),
        "probe": Dataset(reduction.probe),
    }
    return Group(
        "NXinstrument",
        {
            "name": Dataset(reduction.instrument),
            "monochromator": Group("NXmonochromator", mono),
            "source": Group("NXsource", source),
        },
    )


def _process(product: Product, reduction: Reduction, mask: str | None) -> Group:
    items: dict[str, Any] = {
        "program": Dataset(reduction.program),
        "version": Dataset(reduction.made_by),
        "date": Dataset(reduction.date or iso_now()),
        "reference": Dataset(reduction.reference),
        "note": Dataset(reduction.note),
        "input": Group("NXparameters", _parameters(product, reduction, mask)),
    }
    return Group("NXprocess", items)


def _parameters(product: Product, reduction: Reduction, mask: str | None) -> dict[str, Any]:
    axis = product.radial
    given: dict[str, Any] = {
        "acquisition": reduction.acquisition,
        "files": list(reduction.files) or None,
        "poni": reduction.poni_text or None,
        "polarization_factor": reduction.polarization,
        "solid_angle": reduction.solid_angle,
        "unit": axis.name,
        "bins": len(axis),
        "azimuth_bins": 1 if product.azimuth is None else len(product.azimuth),
        **reduction.parameters,
    }
    items: dict[str, Any] = {name: _parameter(value) for name, value in given.items() if value is not None}
    items["wavelength"] = Dataset(reduction.wavelength_angstrom, {"units": "angstrom"})
    if reduction.mask is not None:
        about = {"description": "Other than 0: the pixel is not used."}
        items["mask"] = HardLink(mask) if mask else Dataset(np.asarray(reduction.mask).astype(np.uint8), about)
    return items


def _parameter(value: Any) -> Dataset:
    """Return a parameter as HDF5 can hold it; what it cannot becomes JSON."""
    if isinstance(value, bool):
        return Dataset(np.bool_(value))
    if isinstance(value, str | int | float | np.generic):
        return Dataset(value)
    if isinstance(value, list | tuple) and all(isinstance(each, str) for each in value):
        return Dataset(np.array(value, dtype=str) if value else "")
    array = np.asarray(value) if not isinstance(value, Mapping) else None
    if array is not None and array.dtype.kind in "biuf":
        return Dataset(array)
    return Dataset(json.dumps(value, default=str))


def _data(product: Product) -> Group:
    axes = [b".", b"radial_axis"] if product.azimuth is None else [b".", b"azimuthal_axis", b"radial_axis"]
    interpretation = "spectrum" if product.azimuth is None else "image"
    about = {"signal": "I", "axes": np.array(axes), "interpretation": interpretation}
    items: dict[str, Any] = {"title": Dataset(product.name)}
    items |= _axis("radial_axis", product.radial, product.radial.quantity, "bin edges")
    if product.azimuth is not None:
        items |= _axis("azimuthal_axis", product.azimuth, "azimuthal bin center", "azimuthal bin edges")
    if product.norm is not None:
        long_name = "effective number of pixels contributing to the corresponding bin"
        items["norm"] = Dataset(np.asarray(product.norm), {"units": _ARBITRARY, "long_name": long_name})
    return Group("NXdata", items, about)


def _axis(name: str, axis: Axis, word: str, edges: str) -> dict[str, Any]:
    items: dict[str, Any] = {name: Dataset(axis.values, {"units": axis.unit, "long_name": word})}
    if axis.edges is not None:
        long_name = edges if name == "azimuthal_axis" else f"{word} {edges}"
        items[f"{name}_edges"] = Dataset(axis.edges, {"units": axis.unit, "long_name": long_name})
    return items
