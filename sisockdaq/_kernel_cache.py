"""Where numba may keep machine code. Imported with the package, before any kernel: it imports no numba itself.

Numba keeps it beside the source, else in the user's cache, and refuses to import a kernel where it can write neither:
a package that an administrator installed, run by a service's user without a home. Then it gets a folder here: below
``SISOCKDAQ_STATE`` or the user's state folder where that can be written, else one for this process that goes with it.
"""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

__all__ = ["find_room"]

VARIABLE = "NUMBA_CACHE_DIR"


def find_room() -> Path | None:
    """Have numba keep machine code where this user can write; None when it finds a place by itself."""
    if VARIABLE in os.environ or any(_writable(place) for place in (_beside(), _users_cache())):
        return None
    room = _state_root() / "kernels"
    if not _writable(room):
        room = Path(tempfile.mkdtemp(prefix="sisockdaq-kernels-"))
        atexit.register(shutil.rmtree, room, ignore_errors=True)
    os.environ[VARIABLE] = str(room)
    if "numba" in sys.modules:  # it has read its variables already
        sys.modules["numba"].config.CACHE_DIR = str(room)
    return room


def _beside() -> Path:
    return Path(__file__).parent / "frames" / "__pycache__"


def _users_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "numba"


def _state_root() -> Path:
    if own := os.environ.get("SISOCKDAQ_STATE"):
        return Path(own)
    return Path(os.environ.get("XDG_STATE_HOME") or Path("~/.local/state").expanduser()) / "sisockdaq"


def _writable(folder: Path) -> bool:
    """Say whether the folder can be written, or made."""
    nearest = next(place for place in (folder, *folder.absolute().parents) if _is_there(place))
    return os.access(nearest, os.W_OK | os.X_OK)


def _is_there(place: Path) -> bool:
    try:
        return place.exists()
    except OSError:  # a folder above it cannot be looked into
        return False
