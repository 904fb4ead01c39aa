"""Python's own settings for the router's processes; found by them because this folder is on their ``PYTHONPATH``.

Garbage: the router holds some 250,000 objects that live as long as it does. A full collection over them stops every
message for about 100 ms, and with the interpreter's defaults one comes every few thousand messages. Young objects are
collected as before, only in larger lots; full collections become rare.

Start: crossbar imports a client for Ethereum, for a market of data that no site here takes part in. It is half of what
its two processes load, curves of numbers that are computed at import among it: 2 s of processor time each, before
which no node can join. They get hollow modules instead: every name can be imported, and nothing can be decided by one.
"""

import gc
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

gc.set_threshold(10_000, 20, 100)

HOLLOW = ("web3", "eth_keyfile")
"""Packages that crossbar only imports: its client for Ethereum, and the files that hold keys for one."""


class Absent(type):
    """The class of everything that a hollow module has: its attributes and answers are absent, too."""

    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Absent(name, (), {"__module__": f"{cls.__module__}.{cls.__qualname__}"})

    def __call__(cls, *args, **kwargs):
        """Answer with what is absent."""
        return cls.answer

    def __bool__(cls):
        raise NotImplementedError(f"{cls.__module__}.{cls.__qualname__} is left out of this router: see {__file__}")


class HollowModule(ModuleType):
    """A module in which every name is found."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        found = Absent(name, (), {"__module__": self.__name__})
        setattr(self, name, found)
        return found


class HollowPackages:
    """Finds the hollow packages, with every module in them; it stands before Python's own finders."""

    def find_spec(self, name, path=None, target=None):
        """Answer for the hollow packages only."""
        return ModuleSpec(name, self, is_package=True) if name.partition(".")[0] in HOLLOW else None

    def create_module(self, spec):
        """Make the module."""
        return HollowModule(spec.name)

    def exec_module(self, module):
        """Leave it hollow."""


sys.meta_path.insert(0, HollowPackages())
