"""pyFAI without what it only might need: a node is ready and a command answers a second earlier.

Two of pyFAI's modules import scipy's signal processing, with statistics and more behind it: for the widths of peaks,
and for sensors of some thickness. That is a good third of pyFAI's import, 1 s of processor time in every process that
reads a geometry. Here it is imported when one of them uses it.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import threading
from types import ModuleType
from typing import Any

__all__ = ["import_lightly"]

_SIGNAL = "scipy.signal"
_lock = threading.Lock()


def import_lightly() -> None:
    """Import these modules of pyFAI, if nobody has yet; call it before any other import from pyFAI.

    With a pyFAI that takes more of scipy's signal processing than this knows, its import is the usual one; so it is
    where other threads run, which might import the same meanwhile.
    """
    if threading.active_count() > 1:
        return
    with _lock:
        if "pyFAI.utils.mathutil" in sys.modules or _SIGNAL in sys.modules:
            return
        stand_in: Any = ModuleType(_SIGNAL)
        stand_in.peak_widths = _peak_widths
        sys.modules[_SIGNAL] = stand_in
        try:
            for name in ("pyFAI.utils.mathutil", "pyFAI.parallax"):  # the second takes all by name, from scipy itself
                with contextlib.suppress(ImportError):
                    importlib.import_module(name)
        finally:
            if sys.modules.get(_SIGNAL) is stand_in:
                del sys.modules[_SIGNAL]


def _peak_widths(*args: Any, **kwargs: Any) -> Any:
    """Measure widths of peaks, as scipy does."""
    return importlib.import_module(_SIGNAL).peak_widths(*args, **kwargs)
