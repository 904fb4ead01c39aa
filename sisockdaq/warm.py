"""Compile every numba kernel once: ``python -m sisockdaq.warm``; their machine code is cached beside the source.

A node must not compile while packets arrive, and a site must be ready seconds after its start. `./run` therefore
calls this once, after installing; nodes call the same ``warm_up`` functions, which then only read the cache.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Iterator
from types import ModuleType

import sisockdaq

__all__ = ["kernel_modules", "warm_up"]


def kernel_modules() -> Iterator[ModuleType]:
    """Yield the library's modules that have a ``warm_up`` function; only those that name it are imported."""
    for info in pkgutil.walk_packages(sisockdaq.__path__, "sisockdaq."):
        if info.name in ("sisockdaq.warm", "sisockdaq.cli.__main__"):
            continue
        spec = importlib.util.find_spec(info.name)
        source = spec.loader.get_source(info.name) if spec and hasattr(spec.loader, "get_source") else None  # type: ignore[union-attr]
        if source and "\ndef warm_up(" in source:
            yield importlib.import_module(info.name)


def warm_up() -> list[str]:
    """Compile all kernels; return the names of their modules."""
    names = []
    for module in kernel_modules():
        module.warm_up()
        names.append(module.__name__)
    return names


if __name__ == "__main__":
    for name in warm_up():
        sys.stdout.write(f"compiled {name}\n")
