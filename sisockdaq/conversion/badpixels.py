"""Bad pixels on their way from the receiver that converts to whoever makes files of its frames.

The receiver keeps them in the site's state directory, in the bits of an NXmx pixel mask; the description of its frames
(`sisockdaq.frames.Description`) names the file. A description may hold some kilobytes, a mask may have megabytes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from sisockdaq.conversion.pedestal import STAGES, Pedestal, fault_bit
from sisockdaq.errors import MaskError, StorageError
from sisockdaq.frames.messages import Description

__all__ = ["bad_pixel_bits", "find_bad_pixels", "keep_bad_pixels"]

_DEAD, _NOISY, _USER = 1 << 1, 1 << 4, 1 << 8
"""Bits of NXdetector's ``pixel_mask``."""


def bad_pixel_bits(
    pedestal: Pedestal, bad: npt.NDArray[np.bool_], masked: npt.NDArray[np.bool_] | None
) -> npt.NDArray[np.uint32]:
    """Return why pixels have no value, (ny, nx), in the bits of NXmx.

    Parameters
    ----------
    pedestal : Pedestal
    bad : ndarray of bool, (ny, nx)
        All pixels without a value (`Converter.bad`).
    masked : ndarray of bool, (ny, nx), optional
        Those that the site leaves out.
    """
    noise = np.uint32(sum(int(fault_bit(stage, "noisy")) for stage in STAGES))
    noisy = (pedestal.faults & noise) != 0
    other = (pedestal.faults & ~noise) != 0
    user = np.zeros(bad.shape, np.bool_) if masked is None else masked
    bits = np.where(noisy, _NOISY, 0) | np.where(user, _USER, 0)
    found: npt.NDArray[np.uint32] = np.where(bad & (other | (bits == 0)), bits | _DEAD, bits).astype(np.uint32)
    return found


def keep_bad_pixels(folder: Path, node: str, bits: npt.NDArray[np.uint32]) -> str:
    """Write the mask of a node's frames; return the file's name, for the description.

    Raises
    ------
    StorageError
    """
    path = folder / f"bad-pixels-{node}.npy"
    part = path.with_suffix(".part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            np.save(file, bits, allow_pickle=False)
        part.replace(path)
    except OSError as error:
        raise StorageError(f"the bad pixels cannot be kept in {path}: {error.strerror}") from None
    return path.name


def find_bad_pixels(folder: Path, source: Description) -> npt.NDArray[np.uint32] | None:
    """Return the bad pixels of a source's frames, (ny, nx); None where it names none.

    Raises
    ------
    MaskError
        When the file is missing, is no mask, or is of another shape.
    """
    conversion = source.meta.get("conversion")
    name = conversion.get("bad_pixels") if isinstance(conversion, dict) else None
    if name is None:
        return None
    if name != f"bad-pixels-{source.source}.npy" or Path(name).name != name:
        raise MaskError(f"{source.source} names {name!r} as its bad pixels, which is no file of a receiver")
    try:
        with (folder / name).open("rb") as file:
            bits = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise MaskError(f"the bad pixels of {source.source} cannot be read: {error}", remedy="restart it") from None
    if bits.shape != tuple(source.shape) or bits.dtype != np.uint32:
        raise MaskError(
            f"the bad pixels of {source.source} are {bits.shape} of {bits.dtype}, images are {source.shape}"
        )
    found: npt.NDArray[np.uint32] = bits
    return found
