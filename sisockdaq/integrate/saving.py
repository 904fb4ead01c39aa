"""Reduced files of an acquisition, while its frames come: curves as NXazint1d, NXcanSAS, ``.chi`` and ``.dat``.

Used by ``sisockdaq integrate`` and by the live integrator alike.

Policy
------
- Cakes are in the NXazint files only (as NXazint2d, beside the curves); the other formats have no room for them.
- A file of HDF5 is of one epoch (decision 0014). What was added is readable a second later, also when the process dies
  then; `ReducedFiles.close` makes the files whole, also after an interruption.
- A text file holds one curve of one frame, and is there whole or not at all.
- Nothing is written over unless that is asked for.
"""

from __future__ import annotations

import time as clock
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, get_args

from sisockdaq.errors import ConfigurationError, StorageError
from sisockdaq.integrate.settings import FACTORS
from sisockdaq.nexus.reduced import (
    Axis,
    AzintFile,
    CansasFile,
    FrameNumber,
    Product,
    Reduction,
    axis_of,
    azint_name,
    bin_edges,
    cansas_name,
)
from sisockdaq.nexus.reduced.text import CurveFormat, CurveNames, TextCurve, write_curve

if TYPE_CHECKING:
    from sisockdaq.integrate.cake import Cake
    from sisockdaq.integrate.reduction import Reduced, Reducer
    from sisockdaq.integrate.result import Result

__all__ = ["FORMATS", "Format", "ReducedFiles", "describe_reduction"]

Format = Literal["nxazint", "nxcansas", "chi", "dat"]

FORMATS: tuple[Format, ...] = get_args(Format)

_COMMIT_AFTER = 1.0
"""Longest time that what was added stays unreadable while more is added [s]."""

_WHOLE = "curve"
"""The whole image's curve; its files need not be named by it."""

_CAKE = "cake"
"""The whole image's cake."""

_TAKEN = frozenset({"epoch", "index", "time"})
"""Numbers of a frame that NXazint files have anyway."""

_NOT_PARAMETERS = ("geometry", "mask", "polarization", "solid_angle", "unit", "bins", "cake", "threads")
"""Settings that have places of their own in the files, or change no number."""


class ReducedFiles:
    """The files of one acquisition; for one thread. ``with`` closes them, after an error too.

    Parameters
    ----------
    folder : Path
        Made where it is missing.
    stem : str
        Begins all names.
    formats : collection of str
        Some of `FORMATS`.
    overwrite : bool
        Whether files of these names give way.

    Attributes
    ----------
    files : list of Path
        Files of HDF5 that were begun.
    texts : int
        Text files that were written.
    frames : int
        That were added.
    """

    def __init__(self, folder: Path, stem: str, formats: Collection[str], *, overwrite: bool = False) -> None:
        if unknown := set(formats) - set(FORMATS):
            raise ConfigurationError(
                f"{', '.join(sorted(unknown))} is no format of reduced files", remedy=f"one of {', '.join(FORMATS)}"
            )
        self.folder, self.stem = folder, stem
        self.files: list[Path] = []
        self.frames = self.texts = 0
        self._overwrite = overwrite
        self._formats = frozenset(formats)
        self._kinds: list[CurveFormat] = [kind for kind in ("chi", "dat") if kind in self._formats]
        self._names = CurveNames(folder)
        self._about: Reduction | None = None
        self._azint: AzintFile | None = None
        self._cansas: dict[str, CansasFile] = {}
        self._committed = 0.0

    def check(self, epoch: int = 1) -> None:
        """Say what is in the way of the files of an epoch.

        Raises
        ------
        StorageError
            When there is anything that may not be written over.
        """
        if self._overwrite:
            return
        wanted = {"nxazint": azint_name(self.stem, epoch), "nxcansas": cansas_name(self.stem, epoch)}
        wanted |= {kind: f"{self.stem}_[0-9]*.{kind}" for kind in self._kinds}
        for kind in sorted(self._formats):
            found = next(iter(sorted(self.folder.glob(wanted[kind]))), None)
            if found is not None:
                raise StorageError(f"{found} is there already", remedy="choose another folder, or --overwrite")

    def begin(self, reducer: Reducer, about: Reduction) -> None:
        """Close the files of the last epoch, and begin those of a reducer's.

        Parameters
        ----------
        reducer : Reducer
            Of all frames to come; its epoch goes into names and files.
        about : Reduction
            As `describe_reduction` makes it.

        Raises
        ------
        StorageError
            When a file is there already, or the disk refuses it.
        ConfigurationError
            When a format cannot hold these curves, as NXcanSAS those along mm.
        """
        self.close()
        self._about = about
        products = _products(reducer)
        self._names = CurveNames(
            self.folder,
            "{prefix}_{frame:06d}.{format}" if len(products) == 1 else "{prefix}_{frame:06d}_{curve}.{format}",
        )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"{self.folder}: {error.strerror}", remedy="choose another folder") from None
        try:
            self._begin(reducer, products, about)
        except BaseException:
            self.abandon()
            raise
        self._committed = clock.monotonic()

    def _begin(self, reducer: Reducer, products: list[Product], about: Reduction) -> None:
        epoch = max(reducer.epoch, 1)
        if "nxazint" in self._formats:
            numbers = [
                FrameNumber("frame_number", None, "The detector's number of the frame."),
                *(
                    FrameNumber(name, number.unit, number.description)
                    for name, number in reducer.numbers.items()
                    if name not in _TAKEN
                ),
            ]
            path = self.folder / azint_name(self.stem, epoch)
            products_and_cake = [*products, *_cakes(reducer)]
            self._azint = AzintFile(
                path, products_and_cake, about, epoch=epoch, numbers=numbers, overwrite=self._overwrite
            )
            self.files.append(path)
        if "nxcansas" in self._formats:
            for product in products:
                stem = self.stem if product.name == _WHOLE else f"{self.stem}_{product.name}"
                path = self.folder / cansas_name(stem, epoch)
                file = CansasFile(path, product, about, epoch=epoch, overwrite=self._overwrite)
                self._cansas[product.name] = file
                self.files.append(path)

    def add(self, index: int, time: float, reduced: Reduced, *, number: int = -1) -> None:
        """Add a frame.

        Parameters
        ----------
        index : int
            Its place in the acquisition, from 0.
        time : float
            UNIX time [s].
        reduced : Reduced
            By the reducer that was begun with.
        number : int
            The detector's.

        Raises
        ------
        StorageError
            When the disk refuses it.
        """
        curves = reduced.curves()
        if self._azint is not None:
            self._append(self._azint, index, time, reduced, number)
        for name, file in self._cansas.items():
            file.append(time, curves[name].intensity, curves[name].sigma, index=index, monitor=reduced.factor)
        for kind in self._kinds:
            for name, curve in curves.items():
                self._write(kind, name, index, reduced, curve)
        self.frames += 1
        if clock.monotonic() - self._committed >= _COMMIT_AFTER:
            self.commit()

    @staticmethod
    def _append(file: AzintFile, index: int, time: float, reduced: Reduced, number: int) -> None:
        products: dict[str, Result | Cake] = {**reduced.curves(), **_cake(reduced)}
        sigmas = {name: each.sigma for name, each in products.items() if each.sigma is not None}
        numbers = {"frame_number": number, **reduced.numbers}
        file.append(
            time,
            {name: each.intensity for name, each in products.items()},
            sigmas or None,
            index=index,
            monitor=reduced.factor,
            numbers={name: value for name, value in numbers.items() if name not in _TAKEN},
        )

    def _write(self, kind: CurveFormat, name: str, index: int, reduced: Reduced, curve: Result) -> None:
        factors = [f"{each}: {reduced.numbers[each]:.9g}" for each in FACTORS if each in reduced.numbers]
        about = self._about
        acquisition = self.stem if about is None else about.acquisition
        made_by = "" if about is None else f"{about.program} {about.made_by}".strip()
        text = TextCurve(
            curve.axis,
            curve.intensity,
            curve.sigma,
            f"{acquisition}, frame {index}",
            curve.unit,
            (f"curve: {name}", f"epoch: {reduced.epoch}", *factors, f"program: {made_by}"),
        )
        path = self._names.path(self.stem, index, curve=name, epoch=reduced.epoch, kind=kind)
        write_curve(path, text, kind, overwrite=self._overwrite)
        self.texts += 1

    def commit(self) -> None:
        """Make all frames so far readable, for good."""
        for file in self._open():
            file.commit()
        self._committed = clock.monotonic()

    def close(self) -> None:
        """Close what is open, whole: all frames that were added are in it. Another epoch may begin then."""
        files = self._open()
        self._azint, self._cansas = None, {}
        _close_all(files)

    def abandon(self) -> None:
        """Close what is open as the last commit left it."""
        files = self._open()
        self._azint, self._cansas = None, {}
        for file in files:
            file.abandon()

    def _open(self) -> list[AzintFile | CansasFile]:
        return [*([] if self._azint is None else [self._azint]), *self._cansas.values()]

    def __enter__(self) -> ReducedFiles:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, StorageError):
            self.abandon()  # what cannot be written cannot be made whole
        else:
            self.close()


def _close_all(files: Iterable[AzintFile | CansasFile]) -> None:
    """Close every file, also where one cannot be; then raise the first error."""
    problem: StorageError | None = None
    for file in files:
        try:
            file.close()
        except StorageError as error:
            file.abandon()
            problem = problem or error
    if problem is not None:
        raise problem


def _products(reducer: Reducer) -> list[Product]:
    """Describe the curves of a reducer, with the pixels that each bin has where none is lost."""
    integrator = reducer.integrator
    counts = [integrator.count_of(), *(integrator.count_of(name) for name in integrator.sectors)]
    return [
        Product(
            name,
            axis_of(axis.unit.name, axis.values, bin_edges(axis.values)),
            errors=reducer.has_errors,
            norm=count,
        )
        for (name, axis), count in zip(reducer.curves.items(), counts, strict=True)
    ]


def _cakes(reducer: Reducer) -> list[Product]:
    """Describe the cakes of a reducer, if it makes any; only NXazint has them."""
    if reducer.cake_axes is None:
        return []
    radial, azimuth = reducer.cake_axes
    axis = axis_of(radial.unit.name, radial.values, bin_edges(radial.values))
    around = Axis("azimuth", "deg", azimuth, bin_edges(azimuth))
    return [Product(_CAKE, axis, around, errors=reducer.has_errors, norm=reducer.cake_count())]


def _cake(reduced: Reduced) -> dict[str, Cake]:
    return {} if reduced.cake is None else {_CAKE: reduced.cake}


def describe_reduction(
    reducer: Reducer,
    *,
    acquisition: str,
    files: Collection[str] = (),
    parameters: Mapping[str, Any] | None = None,
    **about: Any,
) -> Reduction:
    """Say how a reducer's curves come about, for their files.

    Parameters
    ----------
    reducer : Reducer
    acquisition : str
    files : collection of str
        Files that the frames were read from.
    parameters : mapping, optional
        What else is to stand in the files.
    **about
        Further attributes of `Reduction`, as ``instrument`` or ``sample``.
    """
    settings, integrator = reducer.settings, reducer.integrator
    given = {name: value for name, value in settings.present().items() if name not in _NOT_PARAMETERS}
    if isinstance(settings.geometry, str):
        given["geometry_file"] = settings.geometry
    given |= {"split": settings.split, "error_model": settings.error_model, "method": settings.method}
    return Reduction(
        acquisition=acquisition,
        files=tuple(files),
        wavelength=integrator.geometry.get("wavelength"),
        poni=integrator.poni,
        mask=integrator.mask,
        polarization=settings.polarization,
        solid_angle=settings.solid_angle,
        monitor=bool(settings.factors),
        transmission=settings.transmission if isinstance(settings.transmission, float) else None,
        parameters={**given, "mask_file": settings.mask, "dummy": integrator.dummy, **(parameters or {})},
        **about,
    )
