"""The decorator of the receiver's compiled functions."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from numba import njit

__all__ = ["compiled", "inlined", "inner"]

P = ParamSpec("P")
R = TypeVar("R")


_OPTIONS: dict[str, Any] = {"nogil": True, "cache": True, "_nrt": False}
"""No reference counting (``_nrt``): these functions own no memory, and otherwise each look at an array of a tuple is an
atomic operation, which together cost half as much as receiving the packet."""


_SOURCES = (
    "_jit",
    "_libc",
    "_tables",
    "_assembly",
    "kernel",
    "formats",
    "description",
    "gigafrost",
    "gigafrost_kernel",
)
"""Modules whose code or constants end up in the compiled loop."""


def _stamp() -> str:
    folder = Path(__file__).parent
    return hashlib.sha256(b"".join((folder / f"{name}.py").read_bytes() for name in _SOURCES)).hexdigest()


_STAMP = _stamp()


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


def inlined(function: Callable[P, R]) -> Callable[P, R]:
    """As `inner`, but made a part of each caller: for what runs for every packet.

    A call passes every array of the plan and the state on the stack, some two hundred words.
    """
    made: Callable[P, R] = _with_stamp(njit(forceinline=True, **_INNER)(function))
    return made


def _with_stamp(dispatcher: Any) -> Any:
    """Make the cached code depend on all of `_SOURCES`.

    Numba looks only at the function's own file; after a change in another one it would load code that no longer fits
    the tables. Where this numba keeps its stamp elsewhere, nothing is cached.
    """
    cache_file: Any = getattr(getattr(dispatcher, "_cache", None), "_cache_file", None)
    if not hasattr(cache_file, "_source_stamp"):
        return njit(**{**dispatcher.targetoptions, "cache": False})(dispatcher.py_func)
    cache_file._source_stamp = _STAMP
    return dispatcher
