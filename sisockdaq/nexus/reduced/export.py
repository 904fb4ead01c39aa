"""Give the curves of a file to other programs: NXcanSAS with a group a curve, and text files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from sisockdaq.errors import ConfigurationError
from sisockdaq.nexus.reduced.cansas import write_cansas
from sisockdaq.nexus.reduced.content import Product, Reduction
from sisockdaq.nexus.reduced.reading import ReducedFile, ReducedProduct
from sisockdaq.nexus.reduced.text import CurveFormat, CurveNames, TextCurve, write_curve

__all__ = ["export_cansas", "export_text", "reduction_of"]

_OWN = ("acquisition", "files", "poni", "mask", "polarization_factor", "solid_angle", "wavelength")
"""Parameters that a reduction has by themselves; the rest is the integrator's."""

_OF_PRODUCT = ("unit", "bins", "azimuth_bins")


def reduction_of(found: ReducedFile) -> Reduction:
    """Return what a file of ours says of how its frames came about, as it was given when it was written."""
    given = found.parameters
    wavelength = given.get("wavelength")
    known = isinstance(wavelength, float) and math.isfinite(wavelength)
    told: dict[str, Any] = {**found.names}
    told |= {key: found.process[key] for key in ("date", "reference", "note") if key in found.process}
    if found.process.get("program"):
        told |= {"program": found.process["program"], "program_version": found.process.get("version", "")}
    files = given.get("files", ())
    return Reduction(
        found.acquisition,
        files=(files,) if isinstance(files, str) else tuple(files),
        wavelength=wavelength * 1e-10 if known and wavelength is not None else None,
        poni=str(given.get("poni", "")),
        mask=given.get("mask"),
        polarization=given.get("polarization_factor"),
        solid_angle=bool(given.get("solid_angle", True)),
        monitor=found.monitor is not None,
        parameters={name: value for name, value in given.items() if name not in (*_OWN, *_OF_PRODUCT)},
        **told,
    )


def export_cansas(found: ReducedFile, path: Path, *, product: str | None = None, overwrite: bool = False) -> None:
    """Write the curves of a NXazint1d file as NXcanSAS for SasView, a group each.

    Parameters
    ----------
    found : ReducedFile
        As read, all frames or some.
    path : Path
    product : str, optional
        Of those in the file; by default the first curve.
    overwrite : bool

    Raises
    ------
    ConfigurationError
        When there is no such curve, or too many (`MOST_SEPARATE`).
    StorageError
    """
    curves = _curves(found, product)
    plan = Product(curves.name, curves.radial, errors=curves.sigma is not None, norm=curves.norm)
    write_cansas(
        path,
        plan,
        reduction_of(found),
        curves.intensity,
        curves.sigma,
        times=found.time,
        epoch=found.epoch or 1,
        overwrite=overwrite,
    )


def export_text(
    found: ReducedFile,
    names: CurveNames,
    *,
    prefix: str | None = None,
    kind: CurveFormat = "chi",
    product: str | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Write the curves of a file as text, a file each; folders are made.

    Parameters
    ----------
    found : ReducedFile
    names : CurveNames
    prefix : str, optional
        Of the names; by default the acquisition.
    kind : str
        ``chi`` or ``dat``.
    product : str, optional
        Of those in the file; by default the first curve.
    overwrite : bool

    Returns
    -------
    list of Path
        What was written, in the order of the frames.

    Raises
    ------
    ConfigurationError
        When there is no such curve.
    StorageError
        At the first file that cannot be written; those before it stay.
    """
    curves = _curves(found, product)
    title = found.names.get("title") or found.acquisition
    about = [f"{name}: {value}" for name, value in found.process.items() if name in ("program", "version", "date")]
    written = []
    for row, frame in enumerate(found.index.tolist()):
        epoch = int(found.epochs[row])
        sigma = None if curves.sigma is None else curves.sigma[row]
        remarks = (f"acquisition: {found.acquisition}", f"frame: {frame}", f"epoch: {epoch}", *about)
        text = TextCurve(
            curves.radial.values, curves.intensity[row], sigma, f"{title}, frame {frame}", curves.radial.name, remarks
        )
        path = names.path(
            prefix or found.acquisition or found.path.stem, frame, curve=curves.name, epoch=epoch, kind=kind
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        write_curve(path, text, kind, overwrite=overwrite)
        written.append(path)
    return written


def _curves(found: ReducedFile, product: str | None) -> ReducedProduct:
    curves = [name for name, each in found.products.items() if each.azimuth is None]
    if product is None and curves:
        return found.products[curves[0]]
    if product not in curves:
        wanted = "no curve" if product is None else f'no curve "{product}"'
        raise ConfigurationError(f"{found.path.name} has {wanted}", remedy=f"one of {', '.join(curves) or 'none'}")
    return found.products[product]
