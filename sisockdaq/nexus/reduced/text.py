r"""One curve a text file: ``.chi`` as Fit2D writes them, ``.dat`` as PRIMUS and the rest of ATSAS read them. Pure.

``.chi``: four lines (title, name of the axis, name of the values, number of points), then two columns, or three with
standard errors. Empty bins stand as ``nan``.

``.dat``: lines of remarks that begin with ``#``, then three columns q, I, σ; ATSAS takes lines that are no three
numbers for remarks. It knows no empty bins, so they are left out, and so are those without an error where there are
errors.

Numbers have ten digits. A file appears under its name only when it is whole. `read_curve` reads both, and any file of
two or three columns, whatever its header.
"""

from __future__ import annotations

import errno
import os
import re
import string
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from sisockdaq.errors import ConfigurationError, FileUnreadable, StorageError

__all__ = ["FORMATS", "CurveFormat", "CurveNames", "TextCurve", "chi_text", "dat_text", "read_curve", "write_curve"]

Floats = npt.NDArray[np.float64]
CurveFormat = Literal["chi", "dat"]

FORMATS: tuple[CurveFormat, ...] = ("chi", "dat")

_NUMBER = "%.9e"

_LABELS = {
    "q_nm^-1": "q (nm^-1)",
    "q_A^-1": "q (A^-1)",
    "2th_deg": "2-Theta Angle (Degrees)",
    "2th_rad": "2-Theta Angle (Radians)",
    "r_mm": "Radial Distance (mm)",
}
"""What an axis is called in a file, by this project's name of its unit."""

_LARGEST = 64 << 20
"""A text file of one curve is never larger."""

_FIELDS = frozenset({"prefix", "frame", "curve", "epoch", "format"})


@dataclass(frozen=True)
class TextCurve:
    """A curve as it stands in a text file.

    Attributes
    ----------
    axis, intensity : ndarray of float64, (n,)
    sigma : ndarray of float64, (n,), or None
    title : str
    unit : str
        Of the axis: ``q_nm^-1`` and so on, or the axis' name as it stands in the file; "" where it has none.
    remarks : tuple of str
        Further lines of the header.
    """

    axis: Floats
    intensity: Floats
    sigma: Floats | None = None
    title: str = ""
    unit: str = ""
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for other in (self.intensity, *(() if self.sigma is None else (self.sigma,))):
            if self.axis.ndim != 1 or other.shape != self.axis.shape:
                raise ConfigurationError(f"columns of shapes {self.axis.shape} and {other.shape} are no curve")


def chi_text(curve: TextCurve) -> str:
    """Return a curve as a ``.chi`` file."""
    label = _LABELS.get(curve.unit, curve.unit or "x")
    head = [_line(curve.title) or "curve", _line(label), "Intensity", f"{curve.axis.size:12d}"]
    return "\n".join([*head, _rows(curve.axis, curve.intensity, curve.sigma)])


def dat_text(curve: TextCurve) -> str:
    """Return a curve as a ``.dat`` file; without errors it has two columns."""
    good = np.isfinite(curve.axis) & np.isfinite(curve.intensity)
    sigma = curve.sigma
    if sigma is not None:
        good &= np.isfinite(sigma)
        sigma = sigma[good]
    label = _LABELS.get(curve.unit, curve.unit or "x")
    columns = f"{label} | I{' | sigma' if sigma is not None else ''}"
    head = [f"# {_line(curve.title)}", *(f"# {_line(remark)}" for remark in curve.remarks), f"# {columns}"]
    return "\n".join([*head, _rows(curve.axis[good], curve.intensity[good], sigma)])


def _line(text: str) -> str:
    """Return a text as one line, which no reader takes for numbers."""
    return " ".join(text.split())


def _rows(axis: Floats, intensity: Floats, sigma: Floats | None) -> str:
    columns = (axis, intensity) if sigma is None else (axis, intensity, sigma)
    row = "  ".join([f"{_NUMBER}"] * len(columns)) + "\n"
    return (row * axis.size) % tuple(np.stack(columns, axis=1).ravel().tolist())


def write_curve(
    path: Path | str, curve: TextCurve, kind: CurveFormat | None = None, *, overwrite: bool = False
) -> None:
    """Write one curve; the file is there whole, or not at all.

    Parameters
    ----------
    path : Path or str
    curve : TextCurve
    kind : str, optional
        ``chi`` or ``dat``; by default what the name ends with.
    overwrite : bool
        Whether an existing file gives way.

    Raises
    ------
    ConfigurationError
        When it is neither.
    StorageError
        When the file exists, or the disk refuses it.
    """
    path = Path(path)
    wanted = kind or path.suffix.removeprefix(".").lower()
    if wanted not in FORMATS:
        raise ConfigurationError(
            f'"{wanted or path.name}" is no format of curves', remedy=f"one of {', '.join(FORMATS)}"
        )
    text = chi_text(curve) if wanted == "chi" else dat_text(curve)
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        partial.write_text(text, encoding="utf-8")
        _show(partial, path, overwrite=overwrite)
    except FileExistsError:
        partial.unlink(missing_ok=True)
        raise StorageError(f"{path} exists", remedy="choose another name, or allow overwriting") from None
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise StorageError(f"{path} cannot be written: {error.strerror or error}") from error


def _show(partial: Path, path: Path, *, overwrite: bool) -> None:
    """Give a file its name; never over another one unless asked, also where two write at once."""
    if not overwrite:
        try:
            path.hardlink_to(partial)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            if path.exists():  # no links here: as good as it gets
                raise FileExistsError(path) from None
        else:
            partial.unlink()
            return
    partial.replace(path)


def read_curve(path: Path | str) -> TextCurve:
    """Read a text file of two or three columns.

    Parameters
    ----------
    path : Path or str
        Of a ``.chi`` or ``.dat`` file, whoever wrote it. The columns are the longest stretch of lines with as many
        numbers each.

    Raises
    ------
    FileUnreadable
        When it is missing, too large, or holds no such columns.
    """
    path = Path(path)
    try:
        if path.stat().st_size > _LARGEST:
            raise FileUnreadable(f"{path} is too large for one curve ({path.stat().st_size >> 20} MB)")
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        raise FileUnreadable(f"{path} does not exist") from None
    except OSError as error:
        raise FileUnreadable(f"{path} cannot be read: {error.strerror or error}") from error
    first, rows = _longest(lines)
    if not rows:
        raise FileUnreadable(f"{path} holds no columns of numbers")
    head = [line.strip().lstrip("#").strip() for line in lines[:first]]
    head = [line for line in head if line]
    if is_chi := _is_chi(head, len(rows)):
        head = head[-4:-1] if len(head) > 3 else head[:-1]
    label = head[1] if is_chi and len(head) > 1 else (head[-1].partition(" | ")[0] if head and "|" in head[-1] else "")
    unit = next((name for name, each in _LABELS.items() if each == label), label)
    remarks = () if is_chi else tuple(head[1 : -1 if label else None])
    table = np.array(rows, dtype=np.float64)
    sigma = table[:, 2] if table.shape[1] > 2 else None
    return TextCurve(table[:, 0], table[:, 1], sigma, head[0] if head else "", unit, remarks)


def _is_chi(head: Sequence[str], points: int) -> bool:
    """Whether a header ends with the number of points."""
    return bool(head) and head[-1].isdecimal() and int(head[-1]) == points


_SPLIT = re.compile(r"[\s,;]+")


def _numbers(line: str) -> list[float]:
    """Return the numbers of a line of two or more; none where it has anything else."""
    words = _SPLIT.split(line.strip())
    if len(words) < 2:
        return []
    try:
        return [float(word) for word in words[:3]]
    except ValueError:
        return []


def _longest(lines: Sequence[str]) -> tuple[int, list[list[float]]]:
    """Return where the longest stretch of lines with as many numbers begins, and its numbers."""
    best: tuple[int, list[list[float]]] = (0, [])
    begin, rows = 0, list[list[float]]()
    for number, line in enumerate(lines):
        found = _numbers(line)
        if rows and (not found or len(found) != len(rows[0])):
            rows = []
        if found:
            begin = number if not rows else begin
            rows.append(found)
            if len(rows) > len(best[1]):
                best = begin, rows
    return best


class CurveNames:
    """Names of the text files of many frames, by a pattern as Python's format strings have it.

    Parameters
    ----------
    folder : Path
    pattern : str
        With ``{prefix}``, ``{frame}`` (needed), ``{curve}``, ``{epoch}`` and ``{format}``, such as
        ``{prefix}_{frame:06d}_{curve}.{format}``; it may have folders.

    Raises
    ------
    ConfigurationError
        When the pattern has other fields or no frame, or leads out of the folder.
    """

    def __init__(self, folder: Path, pattern: str = "{prefix}_{frame:06d}.{format}") -> None:
        self.folder, self.pattern = folder, pattern
        try:
            fields = {name for _, name, _, _ in string.Formatter().parse(pattern) if name is not None}
            first = self.path("run", 0)
        except (ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
            raise self._wrong(str(error)) from error
        if unknown := fields - _FIELDS:
            raise self._wrong(f"{', '.join(sorted(unknown))} is not known")
        if "frame" not in fields or first == self.path("run", 1):
            raise self._wrong("all frames would have the same name")

    def _wrong(self, reason: str) -> ConfigurationError:
        fields = ", ".join(f"{{{name}}}" for name in sorted(_FIELDS))
        return ConfigurationError(
            f'"{self.pattern}" does not name the files of frames: {reason}', remedy=f"a pattern of {fields}"
        )

    def path(self, prefix: str, frame: int, *, curve: str = "curve", epoch: int = 1, kind: CurveFormat = "chi") -> Path:
        """Return the file of a frame's curve; its folder may have to be made.

        Raises
        ------
        ConfigurationError
            When prefix or curve lead out of the folder.
        """
        name = self.pattern.format(prefix=prefix, frame=frame, curve=curve, epoch=epoch, format=kind)
        found = self.folder / name
        if Path(name).is_absolute() or ".." in Path(name).parts or not Path(name).name or "\0" in name:
            raise self._wrong(f"{name!r} is no file in {self.folder}")
        return found
