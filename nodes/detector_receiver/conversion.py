"""The receiver's JUNGFRAU part: frames converted on their way into the ring, and pedestals from dark runs.

Dark runs are taken by control calls, with conversion or without: raw frames are at hand in either case. A pedestal
that was saved is applied from the next frame on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, model_validator

from sisockdaq.conversion import Converter, Pedestal, load_gains, load_pedestal, save_pedestal
from sisockdaq.conversion.badpixels import bad_pixel_bits, keep_bad_pixels
from sisockdaq.conversion.live import RAW_FILL, ConvertingProducer, Shown
from sisockdaq.conversion.runs import DarkRuns
from sisockdaq.detector.description import DetectorOptions, Geometry
from sisockdaq.errors import AcquisitionRefused, ConfigurationError
from sisockdaq.frames import Producer
from sisockdaq.integrate import load_mask
from sisockdaq.site import Site

__all__ = ["ConversionOptions", "JungfrauPart"]

_SPARE = 6
"""Raw frames in hand beyond those that can be incomplete: two in the receiver's, the rest wait to be converted."""


class ConversionOptions(BaseModel):
    """What becomes of a JUNGFRAU's raw pixels before anybody sees them."""

    model_config = ConfigDict(extra="forbid")

    output: Literal["raw", "keV", "photons"] = Field("raw", description="What the frames' pixels are.")
    gain: Path | None = Field(
        None, description="File of gain maps (HDF5, gains, ADU/keV), relative to the site file; raw needs none."
    )
    pedestal: Path = Field(
        Path("pedestal.h5"),
        description="File of the pedestal, relative to the data root; `sisockdaq pedestal` writes it.",
    )
    photon_energy: PositiveFloat | None = Field(
        None, description="Energy of a photon [keV]. Default: from the geometry's wavelength."
    )
    dtype: Literal["float32", "int32", "uint16"] | None = Field(
        None,
        description="Type of the converted pixels; integers are rounded photons. Default: float32 for keV, int32 for "
        "photons.",
    )
    threshold: float | None = Field(None, description="Values below it become 0 [keV or photons]. Default: none.")
    saturated: Literal["fill", "mark"] = Field(
        "fill",
        description="What a saturated pixel becomes: the fill value, so that no curve counts it; or a mark of its own "
        "(infinite, 65534, or 2147483647).",
    )
    high_gain: bool = Field(False, description="The detector is in its high gain setting: the maps' fourth is G0's.")
    mask: Path | None = Field(None, description="Further bad pixels, relative to the site file. Default: none.")
    threads: int = Field(1, ge=1, le=16, description="Threads that convert a frame.")

    @model_validator(mode="after")
    def _whole(self) -> ConversionOptions:
        if self.output != "raw" and self.gain is None:
            raise ValueError(f"output {self.output} needs gain: the file of the detector's gain maps")
        if self.output == "keV" and self.dtype not in (None, "float32"):
            raise ValueError("energies in keV are float32; photons may be integers")
        return self


class JungfrauPart:
    """Conversion and dark runs of one receiver.

    Parameters
    ----------
    name : str
        The node's.
    detector : DetectorOptions
    options : ConversionOptions or None
        None: raw frames.
    site : Site or None
        For where files are.
    geometry : Geometry or None
        For the energy of a photon.
    state : Path, optional
        Folder in which the bad pixels are kept for the writers of files.

    Raises
    ------
    ConfigurationError
        When options do not fit the detector.
    """

    def __init__(
        self,
        name: str,
        detector: DetectorOptions,
        options: ConversionOptions | None,
        site: Site | None,
        geometry: Geometry | None,
        state: Path | None = None,
    ) -> None:
        self._name, self._detector, self._site, self._geometry = name, detector, site, geometry
        self._state = state
        self.options = options or ConversionOptions.model_validate({})
        if detector.model != "jungfrau" and self.options.output != "raw":
            raise ConfigurationError(
                f"nodes.{name}.conversion: only a JUNGFRAU's pixels are converted, not {detector.title}'s"
            )
        self.warning: str | None = None
        self.producer: ConvertingProducer | None = None
        self.runs = DarkRuns(detector.shape) if detector.model == "jungfrau" else None
        self._pedestal: Pedestal | None = None
        self._gains: Any = None
        self._converter: Converter | None = None
        self._bad_pixels: str | None = None
        self._saving = threading.Lock()

    @property
    def converts(self) -> bool:
        """Whether frames are converted."""
        return self.options.output != "raw"

    @property
    def raw_detector(self) -> DetectorOptions:
        """The detector as the receiver has to assemble it."""
        if not self.converts:
            return self._detector
        return self._detector.model_copy(update={"gap_value": RAW_FILL, "fill_value": RAW_FILL})

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the pixels of published frames."""
        if not self.converts:
            return self._detector.dtype
        return np.dtype(self.options.dtype or ("float32" if self.options.output == "keV" else "int32"))

    @property
    def fill(self) -> float:
        """Value of pixels that were lost, or have no value."""
        if not self.converts:
            return self._detector.fill
        if self.dtype.kind == "f":
            return float("nan")
        limits = np.iinfo(self.dtype)
        return int(limits.min if limits.min < 0 else limits.max)

    def meta(self) -> dict[str, Any]:
        """Return what consumers learn beyond the detector's description; JSON-able."""
        if not self.converts:
            return {}
        known: dict[str, Any] = {"output": self.options.output, "photon_energy": self._photon_energy()}
        if self._pedestal is not None:
            known["pedestal_runs"] = self._pedestal.origin.get("runs", {})
        if self._bad_pixels is not None:
            known["bad_pixels"] = self._bad_pixels
        whole = self.dtype.kind != "f"
        limits = self._converter.limits() if self._converter is not None else None
        lowest, highest = (None, None) if limits is None else limits
        return {
            "conversion": known,
            "gap_value": int(self.fill) if whole else None,
            "fill_value": int(self.fill) if whole else None,
            "underload_value": lowest,
            "saturation_value": highest,
        }

    def prepare(self) -> None:
        """Read maps; compile. A pedestal that is not there yet is a warning, as it is this node that takes one.

        Raises
        ------
        ConfigurationError
            When a file cannot be used.
        """
        if not self.converts:
            return
        assert self.options.gain is not None
        self._gains = load_gains(self._input(self.options.gain), high_gain=self.options.high_gain)
        path = self.pedestal_path
        if path.exists():
            self._pedestal = load_pedestal(path, high_gain=self.options.high_gain)
            if self._pedestal.shape != self._detector.shape:
                raise ConfigurationError(
                    f"the pedestal {path} is of {_size(self._pedestal.shape)} pixels, {self._detector.title} has "
                    f"{_size(self._detector.shape)}",
                    remedy="move it away, or name another file: conversion.pedestal; then sisockdaq pedestal",
                )
        self._make_converter()

    def keep(self) -> None:
        """Leave the bad pixels where writers of files find them.

        Raises
        ------
        StorageError
        """
        converter, pedestal = self._converter, self._pedestal
        self._bad_pixels = None
        if converter is not None and pedestal is not None and self._state is not None:
            bits = bad_pixel_bits(pedestal, converter.bad, self._mask())
            self._bad_pixels = keep_bad_pixels(self._state, self._name, bits)

    def wrap(self, ring: Producer, overtaken_by: int, show: Shown) -> Producer:
        """Return what the receiver publishes to: the ring itself, or a conversion before it."""
        if not self.converts:
            return ring
        assert self._converter is not None
        self.producer = ConvertingProducer(ring, self._converter, overtaken_by + _SPARE, show=show)
        return self.producer

    def flush(self) -> None:
        """Wait for frames that are still to be converted."""
        if self.producer is not None:
            self.producer.flush()

    @property
    def pedestal_path(self) -> Path:
        """The pedestal's file."""
        return self._output(self.options.pedestal)

    def _mask(self) -> Any:
        mask = self.options.mask
        return None if mask is None else load_mask(self._input(mask), self._detector.shape)

    def _make_converter(self) -> Converter:
        options = self.options
        self.warning = None
        if self._pedestal is None:
            self.warning = f"no pedestal yet ({self.pedestal_path}): frames have no values   → sisockdaq pedestal"
        self._converter = Converter(
            self._pedestal or Pedestal.unknown(self._detector.shape),
            self._gains,
            output="photons" if options.output == "photons" else "keV",
            photon_energy=self._photon_energy(),
            dtype=self.dtype,
            threshold=options.threshold,
            mark_saturated=options.saturated == "mark",
            mask=self._mask(),
            threads=options.threads,
        )
        return self._converter

    def _photon_energy(self) -> float | None:
        """Return the energy of a photon [keV]; None where nobody said."""
        if self.options.photon_energy is not None or self._geometry is None:
            return self.options.photon_energy
        return float(self._geometry.to_meta(self._detector.pixel_size)["incident_energy"]) * 1e-3

    def _input(self, path: Path) -> Path:
        return self._site.resolve_input(path) if self._site is not None else path

    def _output(self, path: Path) -> Path:
        return self._site.resolve_output(path) if self._site is not None else path

    # Control calls.

    def controls(self, busy: Callable[[], str | None], changed: Callable[[], None]) -> dict[str, Callable[..., Any]]:
        """Return the control calls of dark runs by name; all may take a while.

        Parameters
        ----------
        busy : callable
            Returns the name of the acquisition under way.
        changed : callable
            Called when another pedestal is in use.
        """
        runs = self.runs
        if runs is None:
            return {}

        def refuse_while_busy() -> None:
            if name := busy():
                raise AcquisitionRefused(f'"{name}" is under way', remedy="stop it, or wait for its end")

        def take_dark(stage: str, frames: int = 1000) -> dict[str, Any]:
            refuse_while_busy()
            runs.take(stage, frames)
            return {**runs.status(), "detector": self._detector.model_dump(mode="json", exclude_none=True)}

        def stop_dark() -> dict[str, Any]:
            runs.stop()
            return runs.status()

        def clear_darks() -> dict[str, Any]:
            runs.clear()
            return runs.status()

        def store(file: str | None = None, update: bool = False, window: int | None = None) -> dict[str, Any]:
            refuse_while_busy()
            with self._saving:
                found = self._save(runs, file, update, window)
            changed()
            return found

        return {
            "take_dark": take_dark,
            "dark_status": runs.status,
            "stop_dark": stop_dark,
            "clear_darks": clear_darks,
            "save_pedestal": store,
        }

    def _save(self, runs: DarkRuns, file: str | None, update: bool, window: int | None) -> dict[str, Any]:
        """Make a pedestal of the darks taken, store and apply it; return where it is, and its summary."""
        path = self.pedestal_path if file is None else self._output(_inside(file))
        origin = {
            "node": self._name,
            "detector": self._detector.title,
            "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "high_gain": self.options.high_gain,
        }
        pedestal = runs.pedestal(origin)
        if path.exists():
            old = load_pedestal(path, high_gain=self.options.high_gain)
            if old.shape == pedestal.shape:
                pedestal = old.updated(pedestal, window=window) if update else old.joined(pedestal)
        save_pedestal(pedestal, path)
        applied = self.converts and path == self.pedestal_path
        if applied:
            self._pedestal = pedestal
            converter = self._make_converter()
            self.keep()
            if self.producer is not None:
                self.producer.converter = converter
        return {"file": str(path), "applied": applied, **pedestal.summary()}


def _size(shape: tuple[int, int]) -> str:
    return f"{shape[1]}×{shape[0]}"


def _inside(file: str) -> Path:
    """Check a file name that came over the network."""
    path = Path(file)
    if path.is_absolute() or ".." in path.parts or path.suffix not in (".h5", ".hdf5"):
        raise ConfigurationError(
            f'"{file}" is no file name for a pedestal', remedy="a relative path below the data root that ends in .h5"
        )
    return path
