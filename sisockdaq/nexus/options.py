"""How the writer's engine writes; what the file writer node makes of its options and its site."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sisockdaq.frames.messages import Description
from sisockdaq.nexus.checks import CheckName, Severity
from sisockdaq.nexus.layout import MasterLayout

__all__ = ["EngineOptions"]


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How the writer writes.

    Attributes
    ----------
    root : Path
        Folder below which all files lie.
    name : str
        Of this writer: an acquisition that it began is taken up again by a writer of the same name.
    images_per_file : int
    compression : Compression
    threads : int
        For packing.
    flush_interval : float
        Time between commits [s]: what a kill may cost.
    overwrite : bool
        Whether files of the same name give way.
    meta : mapping
        Facts for every master file, under Stream V2 names (`nxmx`).
    mask : ndarray of uint32, optional
        Pixel mask for every master file.
    master : MasterLayout
        How master files show the images.
    swmr : bool
        Whether data files are made for readers in HDF5's SWMR mode.
    allowed : sequence of Path
        Folders below which an ``output_file`` may lie; none: `root` only.
    user_id : int, optional
        Whose the files are, where a request does not say.
    checks : mapping
        What becomes of each finding before a start: "refuse", "warn" or "off"; see `checks.CHECKS`.
    mask_of : callable, optional
        Returns the pixel mask for the images of a source, instead of `mask`; raises `MaskError` when none fits.
    geometry_of : callable, optional
        Tries the site's geometry on the images of a source; raises `GeometryError` when it does not fit.
    tables_of : callable, optional
        Returns what the sender of a source's images says of every pixel (`frames.tables`); raises `MaskError`.
    journal : Path, optional
        File that remembers all acquisitions, the one under way included; without it, memory does.
    """

    root: Path
    name: str = "writer"
    images_per_file: int = 1000
    compression: str = "bslz4"
    threads: int = 2
    flush_interval: float = 1.0
    overwrite: bool = False
    meta: Mapping[str, Any] = field(default_factory=dict)
    mask: npt.NDArray[np.uint32] | None = None
    master: MasterLayout = "legacy"
    swmr: bool = False
    allowed: Sequence[Path] = ()
    user_id: int | None = None
    checks: Mapping[CheckName, Severity] = field(default_factory=dict)
    mask_of: Callable[[Description], npt.NDArray[np.uint32] | None] | None = None
    geometry_of: Callable[[Description], None] | None = None
    tables_of: Callable[[Description], Mapping[str, npt.NDArray[Any]]] | None = None
    journal: Path | None = None
