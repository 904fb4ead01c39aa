"""Try all rules on a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import hdf5plugin  # noqa: F401 - registers the filters with HDF5

from sisockdaq.errors import ConfigurationError
from sisockdaq.nexus._opening import open_hdf5, reading
from sisockdaq.nexus.check._nxmx import NXMX_RULES
from sisockdaq.nexus.check._readers import FILE_RULES, READER_RULES
from sisockdaq.nexus.check._rules import Finding, Report, Rule
from sisockdaq.nexus.check._view import View
from sisockdaq.nexus.filters import compression_of

__all__ = ["APPLICATIONS", "READERS", "check_file", "rules"]

APPLICATIONS: dict[str, tuple[Rule, ...]] = {"NXmx": NXMX_RULES}
"""Application definitions, and their rules."""

READERS = ("neggia", "durin", "fabio", "Albula", "CrystFEL", "nxmx")
"""Programs and libraries whose demands are known."""

_MOST_PLACES = 20
"""Places that one rule names at most."""


def rules() -> tuple[Rule, ...]:
    """Return all rules for master files."""
    return (*(rule for each in APPLICATIONS.values() for rule in each), *READER_RULES)


def check_file(path: Path, asked: Sequence[str] = ()) -> Report:
    """Check one file.

    Parameters
    ----------
    path : Path
        A master file, or a file with everything in it; of a data file only what concerns every file is checked.
    asked : sequence of str
        Definitions and readers to check for, upper or lower case; default: all that are known.

    Raises
    ------
    ConfigurationError
        When one of `asked` is not known.
    FileUnreadable
        When the file is missing or broken.
    """
    names = _known(asked)
    with reading(path), open_hdf5(path) as hdf5:
        view = View(hdf5, path)
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


def _known(asked: Sequence[str]) -> tuple[str, ...]:
    every = (*APPLICATIONS, *READERS)
    if not asked:
        return every
    found: list[str] = []
    for name in asked:
        exact = [each for each in every if each == name] or [each for each in every if each.lower() == name.lower()]
        if not exact:
            raise ConfigurationError(f'"{name}" is not known here', remedy=f"one of {', '.join(every)}")
        found.append(exact[0])
    return tuple(dict.fromkeys(found))


def _about(view: View) -> str:
    images = [dataset for dataset in view.images.values() if dataset.ndim == 3]
    kind = "data file" if view.is_data_file else "master file"
    if not images:
        return f"{kind} without images"
    first, files = images[0], view.image_files
    total = sum(dataset.shape[0] for dataset in images)
    packing = "virtual dataset" if first.is_virtual else compression_of(first) or "another compression"
    place = "in it" if view.path in files else f"in {len(files)} file{'s' if len(files) > 1 else ''}"
    return f"{kind}, {total} images of {first.shape[1]} × {first.shape[2]} {first.dtype} ({packing}) {place}"
