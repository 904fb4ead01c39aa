"""The folder of a series before it begins: made, and free of files that have its name.

Files of the same name are never mixed with new ones: a series is refused, or they give way where the writer is told to
overwrite. A writer that was killed and started again is in this case, so the reason says how far the files that are
there have come, and what to do.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import h5py

from sisockdaq.errors import AcquisitionRefused, StorageError
from sisockdaq.nexus._opening import open_hdf5
from sisockdaq.nexus.fileset import existing_files
from sisockdaq.nexus.layout import master_name

__all__ = ["prepare_folder"]

_LOOKED_AT = 10
"""Files whose state is looked at: the master, and the data files that a writer may have had open."""


def prepare_folder(folder: Path, prefix: str, *, overwrite: bool, shared: bool) -> None:
    """Make the folder, and room in it for files of that prefix.

    Parameters
    ----------
    folder : Path
    prefix : str
    overwrite : bool
        Remove files of that prefix instead of refusing.
    shared : bool
        Other receivers write data files of the same series, maybe already: only the master is looked at.

    Raises
    ------
    AcquisitionRefused
        When files of that prefix exist; to be overwritten as well, when another writer is at them.
    StorageError
        When the disk refuses.
    """
    found = existing_files(folder, prefix)
    if shared:
        found = [path for path in found if path.name == master_name(prefix)]
    busy = next((path for path in found if _is_written(path)), None)
    if busy is not None:
        raise AcquisitionRefused(
            f"{busy.name} in {folder} is open in another program, which may be writing it",
            remedy="end it, or choose another file_prefix",
        )
    if found and not overwrite:
        raise _refusal(folder, found)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in found:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"{folder} cannot be prepared: {error.strerror or error}") from error


def _refusal(folder: Path, found: list[Path]) -> AcquisitionRefused:
    """Say what is there; the newest data file tells whether its writer came to an end."""
    unfinished = next((path for path in reversed(found[-_LOOKED_AT:]) if not _is_finished(path)), None)
    if unfinished is None:
        return AcquisitionRefused(
            f"{found[0].name} exists in {folder}", remedy="choose another file_prefix, or start the writer --overwrite"
        )
    return AcquisitionRefused(
        f"{unfinished.name} exists in {folder}, left by a writer that died before the end of its series; "
        "the images that it had flushed can be read, and are not added to",
        remedy="choose another file_prefix or move the files away to keep them, or start the writer --overwrite",
    )


def _is_written(path: Path) -> bool:
    """Whether another program has the file open for writing: each data file that is written has a shared lock."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return not _is_finished(path)  # a reader may lock it as well
    except OSError:
        return False
    finally:
        os.close(file)
    return False


def _is_finished(path: Path) -> bool:
    """Whether a writer has closed the file in order; a file that tells nothing counts as finished."""
    try:
        with open_hdf5(path) as hdf5:
            entry = hdf5["entry"]
            if "finished" in entry.attrs:
                return bool(entry.attrs["finished"])
            ended = entry.get("acquisition/ended")
            return not isinstance(ended, h5py.Dataset) or bool(ended[()] == ended[()])
    except (OSError, KeyError, RuntimeError, ValueError):
        return True
