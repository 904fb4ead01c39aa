r"""``.chi`` files as SAXSdog writes them, byte for byte.

Line 1 is the calibration's JSON, line 2 the integral parameters, line 3 the columns' names, line 4 their length; a
slice has its columns' names in line 2 and the word ``Intensity`` in line 3. Rows follow as ``numpy.savetxt`` makes
them with ``%.18e`` and ``newline="\n "``. A file appears under its name only when it is whole.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from sisockdaq.saxsdog._decimal import rows_text
from sisockdaq.saxsdog.integration import Curve

__all__ = ["chi_text", "write_chi"]


def chi_text(curve: Curve, header: str = "") -> bytes:
    """Return a curve's file.

    Parameters
    ----------
    header : str, optional
        The calibration's JSON as text, where that is at hand.
    """
    lines = [header or json.dumps(curve.conf)]
    if curve.kind == "Slice":
        lines += [json.dumps(curve.columns), "Intensity"]
    else:
        lines += [json.dumps(curve.parameters), json.dumps(curve.columns)]
    lines.append(f"   {curve.array.shape[1]}\n ")
    return "\n".join(lines).encode("ascii") + rows_text(curve.array)


def write_chi(path: Path | str, content: bytes) -> None:
    """Write a file whole, over an older one of its name.

    Raises
    ------
    OSError
        It cannot be written; nothing is left then.
    """
    name = os.fspath(path)
    folder, base = os.path.split(name)
    partial = os.path.join(folder, f".{base}.{os.getpid()}.part")  # noqa: PTH118  (runs for every picture)
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
    try:
        try:
            left = memoryview(content)
            while left:
                left = left[os.write(handle, left) :]
        finally:
            os.close(handle)
        os.replace(partial, name)  # noqa: PTH105
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(partial)  # noqa: PTH108
        raise
