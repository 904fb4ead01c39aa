"""Masks as SAXSdog takes them, from a file or from a message: True where a pixel is valid.

A pixel that is 0 in the file is valid. Fit2D's ``.msk`` counts rows from the bottom, so it is turned upside down; all
other formats are taken as they stand.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sisockdaq.errors import MaskError
from sisockdaq.integrate.masks import load_mask

__all__ = ["mask_from_attachment", "read_mask"]

_SUFFIXES = (".msk", ".edf", ".tif", ".tiff", ".npy", ".cbf", ".png", ".h5")
_LARGEST = 256 * 2**20
"""No mask of a detector is larger; a message that says so is not unpacked [bytes]."""


def read_mask(path: Path | str) -> npt.NDArray[np.bool_]:
    """Read a mask's file; True where a pixel is valid.

    Raises
    ------
    MaskError
        It is missing, or of no known kind.
    """
    valid: npt.NDArray[np.bool_] = ~load_mask(path)
    if Path(path).suffix.lower() == ".msk":
        valid = np.flipud(valid)
    return np.ascontiguousarray(valid)


def mask_from_attachment(filename: str, data: str) -> npt.NDArray[np.bool_]:
    """Read a mask out of a message.

    Parameters
    ----------
    filename : str
        Only its suffix matters; nothing is read or written at that place.
    data : str
        The file's bytes, each as the character of the same number (latin-1).

    Raises
    ------
    MaskError
        The text is no file of a mask.
    """
    suffix = Path(filename).suffix.lower()
    if suffix not in _SUFFIXES:
        raise MaskError(
            f"{filename}: {suffix or 'no suffix'} is no kind of mask", remedy=f"one of {', '.join(_SUFFIXES)}"
        )
    if len(data) > _LARGEST:
        raise MaskError(f"{filename}: {len(data)} bytes are too many for a mask")
    try:
        content = data.encode("latin-1")
    except UnicodeEncodeError as error:
        raise MaskError(f"{filename}: holds a character that is no byte, at {error.start}") from None
    with tempfile.TemporaryDirectory(prefix="sisockdaq-mask-") as folder:
        path = Path(folder, f"mask{suffix}")
        path.write_bytes(content)
        try:
            return read_mask(path)
        except MaskError as error:
            raise MaskError(error.message.replace(str(path), filename), remedy=error.remedy) from None
