"""From an image to SAXSdog's curves: one a mask, then one a slice."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from sisockdaq.errors import ConfigurationError, MaskError
from sisockdaq.saxsdog.binning import Binning, make_binning
from sisockdaq.saxsdog.calibration import Calibration, MaskEntry, SliceEntry
from sisockdaq.saxsdog.parameters import IntegralParameters
from sisockdaq.saxsdog.slices import Cut, make_cut

__all__ = ["Curve", "Reduction"]

_COUNTS = ("Intensity (Count/Pixel)", "Error Margin")
_Q = "Scattering Vector  q [$nm^{-1}$]"
_PHI = "Phi Angle [rad]"
_NO_PARAMETERS: dict[str, float] = {"I0": 0, "I1": 0, "I2": 0}


@dataclass(frozen=True, eq=False)
class Curve:
    """One curve of one image.

    Attributes
    ----------
    array : ndarray of float64, shape (3, n)
        Axis, intensity, error.
    columns : list of str
        What the three are called.
    kind : str
        ``Radial`` (also one against the azimuth) or ``Slice``.
    number : int
        Its place among masks and slices, from 0.
    parameters : dict or None
        I0, I1 and I2; a slice has none.
    conf : dict
        The calibration as it was sent.
    entry : dict
        Its entry of ``Masks`` or ``Slices``.
    """

    array: npt.NDArray[np.float64]
    columns: list[str]
    kind: str
    number: int
    parameters: dict[str, float] | None
    conf: Mapping[str, Any] = field(repr=False)
    entry: Mapping[str, Any] = field(repr=False)

    @property
    def key(self) -> str:
        """``R0``, ``S1``, …: the name among integral parameters."""
        return f"{self.kind[0]}{self.number}"

    @property
    def file_key(self) -> str:
        """``Radial0``, ``Slice1``, …: the name among lists of files."""
        return f"{self.kind}{self.number}"

    def to_wire(self, image: str = "") -> dict[str, Any]:
        """Return what ``plot`` answers of a curve; missing intensities stay NaN, as SAXSdog sends them."""
        made: dict[str, Any] = {
            "array": self.array.tolist(),
            "columnLabels": self.columns,
            "kind": self.kind,
            "conf": self.conf,
        }
        if self.kind == "Slice":
            made["slice"] = self.entry
        else:
            made |= {"mask": self.entry, "Integparam": self.parameters}
        return {**made, "Image": image}


@dataclass(frozen=True, eq=False)
class _Radial:
    number: int
    binning: Binning
    entry: Mapping[str, Any]
    columns: list[str]
    parameters: IntegralParameters | None

    kind = "Radial"

    def mark(self, used: npt.NDArray[np.bool_]) -> bool:
        """Set the pixels that count; return whether there are any."""
        used.reshape(-1)[self.binning.cells < self.binning.start.size - 1] = True
        return bool(self.binning.areas.any())

    def curve(self, image: npt.NDArray[Any], conf: Mapping[str, Any]) -> Curve:
        intensity, error = self.binning.integrate(image)
        values = dict(_NO_PARAMETERS) if self.parameters is None else self.parameters.of(intensity)
        array = np.stack([self.binning.axis, intensity, error])
        return Curve(array, self.columns, self.kind, self.number, values, conf, self.entry)


@dataclass(frozen=True, eq=False)
class _Slice:
    number: int
    cut: Cut
    entry: Mapping[str, Any]
    columns: list[str]

    kind = "Slice"

    def mark(self, used: npt.NDArray[np.bool_]) -> bool:
        """Set the pixels that count; return whether there are any."""
        used[self.cut.rows, self.cut.columns] |= self.cut.valid
        return bool(self.cut.valid.any())

    def curve(self, image: npt.NDArray[Any], conf: Mapping[str, Any]) -> Curve:
        array = np.stack([self.cut.axis, *self.cut.integrate(image)])
        return Curve(array, self.columns, self.kind, self.number, None, conf, self.entry)


class Reduction:
    """Everything a calibration asks of an image, ready to run; may be pickled to another process.

    In the GISAXS mode the curve of the first mask is left out, and the others keep their numbers.

    Parameters
    ----------
    calibration : Calibration
        What is asked.
    masks : sequence of ndarray of bool, shape (rows, columns)
        Valid pixels, one array an entry of ``Masks``, in their order.

    Raises
    ------
    MaskError
        A mask is of another shape than the image, or leaves no pixel to a curve.
    ConfigurationError
        The masks are not as many as the entries.

    Attributes
    ----------
    shape : tuple of int
        Rows and columns of the images.
    outputs : list of (str, str)
        For each curve what follows the image's name in its file's name, and the curve's ``file_key``.
    """

    def __init__(self, calibration: Calibration, masks: Sequence[npt.NDArray[np.bool_]]) -> None:
        self.calibration = calibration
        self.shape = calibration.geometry.image_size
        self.header = json.dumps(calibration.raw)
        _check_masks(calibration, masks)
        made: list[_Radial | _Slice] = [
            *(self._radial(number, entry, masks[number]) for number, entry in enumerate(calibration.masks)),
            *(
                self._slice(number, entry, masks)
                for number, entry in enumerate(calibration.slices, len(calibration.masks))
            ),
        ]
        self._parts = made[1:] if calibration.gisaxs_mode else made
        self.outputs = [("" if part.number == 0 else f"_c{part.kind[0]}{part.number}", f"{part.kind}{part.number}")
                        for part in self._parts]  # fmt: skip
        self._used = np.zeros(self.shape, np.bool_)
        for part in self._parts:
            if not part.mark(self._used):
                raise _no_pixel(calibration, part.number, masks)

    def reduce(self, image: npt.NDArray[Any]) -> list[Curve]:
        """Return the curves of an image.

        Parameters
        ----------
        image : ndarray, shape (rows, columns)
            Counts.

        Raises
        ------
        ValueError
            The image is of another shape, or a pixel that counts is no number.
        """
        if image.shape != self.shape:
            raise ValueError(
                f"the image is {_size(image.shape)}, the calibration says {_size(self.shape)}: "
                "is it of another detector, or binned? (Geometry.Imagesize)"
            )
        if image.dtype.kind == "f":
            _demand_numbers(image, self._used)
        return [part.curve(image, self.calibration.raw) for part in self._parts]

    def _radial(self, number: int, entry: MaskEntry, valid: npt.NDArray[np.bool_]) -> _Radial:
        calibration = self.calibration
        binning = make_binning(
            calibration.geometry, calibration.wavelength, entry, np.asarray(valid, np.bool_), calibration.polarization
        )
        parameters = None
        if not entry.phi_mode:
            parameters = IntegralParameters(binning.axis, binning.step, entry.q_start, entry.q_stop)
        raw = calibration.raw["Masks"][number]
        return _Radial(number, binning, raw, [_PHI if entry.phi_mode else _Q, *_COUNTS], parameters)

    def _slice(self, number: int, entry: SliceEntry, masks: Sequence[npt.NDArray[np.bool_]]) -> _Slice:
        valid = np.asarray(masks[entry.mask], np.bool_) if masks and entry.mask >= 0 else None
        cut = make_cut(self.calibration, entry, valid)
        raw = self.calibration.raw["Slices"][number - len(self.calibration.masks)]
        return _Slice(number, cut, raw, [cut.label, *_COUNTS])


def _check_masks(calibration: Calibration, masks: Sequence[npt.NDArray[np.bool_]]) -> None:
    if len(masks) != len(calibration.masks):
        raise ConfigurationError(
            f"Masks: the calibration names {len(calibration.masks)}, {len(masks)} were given",
            remedy="give one mask file for each entry, in their order",
        )
    for number, (entry, mask) in enumerate(zip(calibration.masks, masks, strict=True)):
        if mask.shape != calibration.geometry.image_size:
            name, size = entry.mask_file or entry.name, _size(calibration.geometry.image_size)
            raise MaskError(
                f"Masks.{number} ({name}): is {_size(mask.shape)}, Geometry.Imagesize says {size}",
                remedy="Imagesize is [rows, columns]; take the mask made for this detector",
            )


def _no_pixel(calibration: Calibration, number: int, masks: Sequence[npt.NDArray[np.bool_]]) -> MaskError:
    """Return what is to be said of a curve that no pixel belongs to."""
    first = len(calibration.masks)
    if number >= first:
        entry = calibration.slices[number - first]
        return MaskError(
            f"Slices.{number - first}: no valid pixel within CutPosition {entry.position} ± {entry.margin}",
            remedy="the mask of its MaskRef hides all of it: move the cut, or widen CutMargin",
        )
    mask = calibration.masks[number]
    name = f"Masks.{number} ({mask.mask_file or mask.name})"
    if mask.phi_mode and np.any(masks[number]):
        return MaskError(
            f"{name}: no valid pixel has q from qStart {mask.q_start:g} to qStop {mask.q_stop:g} nm⁻¹",
            remedy="widen that range for the Phi-mode, or look at distance and beam centre",
        )
    return MaskError(
        f"{name}: every pixel is masked", remedy="a pixel that is 0 in the file is valid: are good and bad exchanged?"
    )


def _demand_numbers(image: npt.NDArray[Any], used: npt.NDArray[np.bool_]) -> None:
    """Raise ValueError where a pixel that counts is no number: it would take all of its ring with it."""
    bad = used & ~np.isfinite(image)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        count = int(np.count_nonzero(bad))
        raise ValueError(
            f"{count} of its valid pixels {'is' if count == 1 else 'are'} NaN or infinite, the first in row {row}, "
            f"column {column}: mask what has no value, or have it written as a number"
        )


def _size(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape))
