"""The decorator of the receiver's compiled functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

from numba import njit

__all__ = ["compiled"]

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function to run without the GIL; the machine code is cached beside its source.

    No reference counting (``_nrt``): these functions own no memory, and otherwise each look at an array of a tuple is
    an atomic operation, which together cost half as much as receiving the packet.
    """
    options: Any = {"nogil": True, "cache": True, "_nrt": False}
    return cast("Callable[P, R]", njit(**options)(function))
