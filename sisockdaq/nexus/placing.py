"""Where the files of an acquisition go: by its name below the writer's folder, or exactly where a path says.

- By name: ``<root>/[<directory>/]<acquisition>_master.h5``, folders made as needed.
- By ``output_file``, as std-daq's clients ask: the master is that very file. ``/x/run.h5`` has its data files
  beside it as ``/x/run_data_000001.h5`` …; ``/x/run_master.h5`` has the same. The folder must exist, and lie below one
  of the folders that the site allows.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from sisockdaq.acquisition import Request
from sisockdaq.errors import AcquisitionRefused
from sisockdaq.nexus.layout import acquisition_of, data_name, master_name, resolve_prefix

__all__ = ["Place", "find_place", "is_named_master", "name_of"]

_SUFFIXES = (".h5", ".hdf5", ".hdf", ".nxs")

_LONGEST_NAME = 200
"""Bytes of a file name that leave room for what data files and hidden files add to it; Linux allows 255."""


@dataclass(frozen=True, slots=True)
class Place:
    """Folder, prefix of the data files' names, and name of the master file."""

    folder: Path
    prefix: str
    master: str

    @property
    def path(self) -> Path:
        """Path of the master file."""
        return self.folder / self.master


def find_place(root: Path, allowed: Sequence[Path], request: Request) -> Place:
    """Return where the files of an acquisition go.

    Parameters
    ----------
    root : Path
        The writer's own folder, for names.
    allowed : sequence of Path
        Folders below which an ``output_file`` may lie.
    request : Request

    Raises
    ------
    AcquisitionRefused
        When a name or path is impossible, or leads out of its folder.
    """
    if request.output_file is None:
        folder, prefix = resolve_prefix(root, request.acquisition, request.directory)
        return Place(folder, prefix, master_name(prefix))
    path = _checked_path(request.output_file, request.directory)
    real = Path(os.path.realpath(path.parent))
    if not any(real.is_relative_to(os.path.realpath(place)) for place in allowed):
        shown = ", ".join(str(place) for place in allowed)
        raise AcquisitionRefused(
            f"{path} is not below a folder that this writer may use ({shown})",
            remedy="choose a path there, or add the folder to `allowed` of the writer",
        )
    if not real.is_dir():
        raise AcquisitionRefused(f"there is no folder {path.parent}", remedy="make it, or use another one")
    return Place(real, name_of(request.output_file), path.name)


def name_of(output_file: str) -> str:
    """Return the prefix of the data files that belong to a master file of that path."""
    name = PurePosixPath(output_file).name
    found = acquisition_of(name)
    if found is not None and found[1] == 0:
        return found[0]
    path = PurePosixPath(name)
    return path.stem if path.suffix.lower() in _SUFFIXES else name


def is_named_master(path: Path) -> bool:
    """Say whether a file is a master of a name of its own: its first data file stands beside it."""
    if path.suffix.lower() not in _SUFFIXES or acquisition_of(path.name) is not None:
        return False
    return path.with_name(data_name(name_of(path.name), 1)).exists()


def _checked_path(output_file: str, directory: str | None) -> Path:
    path = PurePosixPath(output_file)
    reason = ""
    if directory is not None:
        reason = "names the folder already: leave out the directory"
    elif any(ord(letter) < 32 for letter in output_file):
        reason = "contains a control character"
    elif not path.is_absolute():
        reason = "is not absolute"
    elif ".." in path.parts:
        reason = 'contains ".."'
    elif not path.name or output_file.endswith("/"):
        reason = "names no file"
    elif path.name.startswith("."):
        reason = "is the name of a hidden file"
    elif len(os.fsencode(path.name)) > _LONGEST_NAME:
        reason = "is too long for a file name"
    elif (acquisition_of(path.name) or ("", 0))[1] != 0:
        reason = "is the name of a data file"
    if reason:
        shown = "".join(letter if ord(letter) >= 32 else f"\\x{ord(letter):02x}" for letter in output_file)
        raise AcquisitionRefused(f'output_file "{shown}" {reason}', remedy="an absolute path such as /data/run_0001.h5")
    return Path(path)
