"""Try all rules on a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401 - registers the filters with HDF5

from sisockdaq.errors import ConfigurationError
from sisockdaq.nexus._opening import open_hdf5, reading
from sisockdaq.nexus.check._azint import AZINT_RULES
from sisockdaq.nexus.check._cansas import CANSAS_RULES
from sisockdaq.nexus.check._epochs import EPOCH_RULES, used_epochs
from sisockdaq.nexus.check._nxmx import NXMX_RULES
from sisockdaq.nexus.check._readers import FILE_RULES, READER_RULES
from sisockdaq.nexus.check._rules import Finding, Report, Rule
from sisockdaq.nexus.check._view import View, attribute_text, child
from sisockdaq.nexus.filters import compression_of

__all__ = ["APPLICATIONS", "READERS", "REDUCED", "check_file", "rules"]

REDUCED = ("NXazint1d", "NXazint2d", "NXcanSAS")
"""Application definitions of integrated frames; a file that says it is by one is checked for that."""

APPLICATIONS = ("NXmx", *REDUCED)
"""Application definitions that are known."""

READERS = ("neggia", "durin", "fabio", "Albula", "CrystFEL", "nxmx")
"""Programs and libraries whose demands are known."""

_MOST_PLACES = 20
"""Places that one rule names at most."""


def rules() -> tuple[Rule, ...]:
    """Return all rules for master files and files of integrated frames."""
    return (*NXMX_RULES, *EPOCH_RULES, *READER_RULES, *AZINT_RULES, *CANSAS_RULES)


def check_file(path: Path, asked: Sequence[str] = ()) -> Report:
    """Check one file.

    Parameters
    ----------
    path : Path
        A master file, a file with everything in it, or one of integrated frames; of a data file only what concerns
        every file is checked.
    asked : sequence of str
        Definitions and readers to check for, upper or lower case; default: for integrated frames what the file says
        it is by, for any other file NXmx and all readers.

    Raises
    ------
    ConfigurationError
        When one of `asked` is not known.
    FileUnreadable
        When the file is missing or broken.
    """
    known = _known(asked)
    with reading(path), open_hdf5(path) as hdf5:
        view = View(hdf5, path)
        names = known or tuple(name for name in REDUCED if name in view.definitions) or ("NXmx", *READERS)
        if view.is_data_file:  # definitions are about the master
            names = tuple(name for name in names if name not in APPLICATIONS)
        report = Report(str(path), _about(view), names)
        for rule in FILE_RULES if view.is_data_file else rules():
            by = {name: demand for name, demand in rule.by.items() if name in names}
            if by:
                places = list(rule.problems(view))
                found = [Finding(rule.key, where, what, by) for where, what in places[:_MOST_PLACES]]
                if len(places) > _MOST_PLACES:
                    found.append(Finding(rule.key, "…", f"the same at {len(places) - _MOST_PLACES} more places", by))
                report.findings += found
    return report


def _curves(group: h5py.Group) -> str:
    """Say what a group of integrated frames holds."""
    members = [child(group, name) for name in group]
    data = [each for each in members if isinstance(each, h5py.Group) and attribute_text(each, "NX_class") == "NXdata"]
    found = [each for each in (child(each, "I") for each in data) if isinstance(each, h5py.Dataset)]
    if not found:
        return "no intensities"
    shape = found[0].shape
    if len(found) > 1 or len(shape) < 2:
        return f"{len(found)} of {' × '.join(map(str, shape))} bins"
    return f"{shape[0]} frames of {' × '.join(map(str, shape[1:]))} bins"


def _known(asked: Sequence[str]) -> tuple[str, ...]:
    every = (*APPLICATIONS, *READERS)
    found: list[str] = []
    for name in asked:
        exact = [each for each in every if each == name] or [each for each in every if each.lower() == name.lower()]
        if not exact:
            raise ConfigurationError(f'"{name}" is not known here', remedy=f"one of {', '.join(every)}")
        found.append(exact[0])
    return tuple(dict.fromkeys(found))


def _about(view: View) -> str:
    reduced = {name: groups for name, groups in view.definitions.items() if name in REDUCED}
    if reduced:
        return "; ".join(f"{name}: {_curves(group)}" for name, groups in reduced.items() for group in groups)
    images = [dataset for dataset in view.images.values() if dataset.ndim == 3]
    kind = "data file" if view.is_data_file else "master file"
    if not images:
        return f"{kind} without images"
    first, files = images[0], view.image_files
    total = sum(dataset.shape[0] for dataset in images)
    packing = "virtual dataset" if first.is_virtual else compression_of(first) or "another compression"
    place = "in it" if view.path in files else f"in {len(files)} file{'s' if len(files) > 1 else ''}"
    epochs = "".join(f"; {source} in {_epochs(numbers)}" for source, numbers in used_epochs(view).items() if numbers)
    return f"{kind}, {total} images of {first.shape[1]} × {first.shape[2]} {first.dtype} ({packing}) {place}{epochs}"


def _epochs(numbers: Sequence[int]) -> str:
    return f"epoch{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"
