"""The decorator of the receiver's compiled functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

from numba import njit

__all__ = ["compiled", "inlined"]

P = ParamSpec("P")
R = TypeVar("R")


_OPTIONS: dict[str, Any] = {"nogil": True, "cache": True, "_nrt": False}
"""No reference counting (``_nrt``): these functions own no memory, and otherwise each look at an array of a tuple is an
atomic operation, which together cost half as much as receiving the packet."""


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Compile a function to run without the GIL; the machine code is cached beside its source."""
    return cast("Callable[P, R]", njit(**_OPTIONS)(function))


def inlined(function: Callable[P, R]) -> Callable[P, R]:
    """As `compiled`, but made a part of each caller: for what runs for every packet.

    A call passes every array of the plan and the state on the stack, some two hundred words.
    """
    return cast("Callable[P, R]", njit(forceinline=True, **_OPTIONS)(function))
