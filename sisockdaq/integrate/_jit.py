"""The decorators of the integration's compiled functions, and when their cached code is out of date.

Numba keeps compiled code beside the source and looks, before it loads it, at the function's own file only; a function
of another file that was made a part of it may have changed. Here the cached code belongs to the text of the function's
file and of every file of this folder that it imports from, directly or not.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from numba import njit

__all__ = ["compiled", "inner"]

P = ParamSpec("P")
R = TypeVar("R")

_FOLDER = Path(__file__).parent
_PACKAGE = __name__.rpartition(".")[0]
_IMPORT = re.compile(
    rf"^from {re.escape(_PACKAGE)}(?:\.(?P<module>\w+) import|"
    r" import (?:\((?P<block>[^)]*)\)|(?P<line>[^(\n]*)$))",
    re.MULTILINE,
)

_OPTIONS: dict[str, Any] = {"nogil": True, "cache": True}
_INNER: dict[str, Any] = {**_OPTIONS, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
"""For functions that only compiled code calls: a way in from Python takes longer to compile than most of them."""


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function that Python calls; it runs without the GIL, and its code is cached beside its source."""
    made: Callable[P, R] = _with_stamp(njit(**_OPTIONS)(function))
    return made


def inner(function: Callable[P, R]) -> Callable[P, R]:
    """As `compiled`, but called by compiled functions only."""
    made: Callable[P, R] = _with_stamp(njit(**_INNER)(function))
    return made


def _with_stamp(dispatcher: Any) -> Any:
    """Make the cached code depend on all files; where this numba keeps its stamp elsewhere, nothing is cached."""
    cache_file: Any = getattr(getattr(dispatcher, "_cache", None), "_cache_file", None)
    if not hasattr(cache_file, "_source_stamp"):
        return njit(**{**dispatcher.targetoptions, "cache": False})(dispatcher.py_func)
    cache_file._source_stamp = stamp(Path(dispatcher.py_func.__code__.co_filename))
    return dispatcher


def stamp(path: Path) -> str:
    """Return a digest of a file of this folder and of those that it imports from."""
    seen = {Path(__file__): _read(Path(__file__))[0]}
    waiting = [path]
    while waiting:
        source = waiting.pop()
        if source not in seen and source.is_file():
            seen[source], imported = _read(source)
            waiting += imported
    return hashlib.sha256("".join(seen[source] for source in sorted(seen)).encode()).hexdigest()


@cache
def _read(path: Path) -> tuple[str, list[Path]]:
    """Return a file's digest, and the files of this folder that it names in its imports."""
    text = path.read_text("utf-8")
    names: list[str] = []
    for found in _IMPORT.finditer(text):
        listed = found["module"] or found["block"] or found["line"]
        names += [name.split()[0] for name in listed.split(",") if name.strip()]
    return hashlib.sha256(text.encode()).hexdigest(), [_FOLDER / f"{name}.py" for name in names]
