"""Where a definition of integrated frames stands in a file, and rules for its fields and attributes as a table.

Such a definition may stand in the entry itself or, beside others, in subentries; a rule looks at each of them, and a
problem names its path. The same rule serves several definitions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import h5py
import numpy as np

from sisockdaq.nexus._strings import as_text
from sisockdaq.nexus.check._fields import is_time
from sisockdaq.nexus.check._rules import Demand, Problem, Rule
from sisockdaq.nexus.check._view import View, attribute_text, child

__all__ = [
    "Home",
    "Role",
    "Test",
    "a_number",
    "a_text",
    "a_time",
    "a_truth",
    "attribute",
    "field",
    "group",
    "homes",
    "in_units",
    "is_named",
    "positive",
    "texts",
]

Test = Callable[[h5py.Dataset], Iterable[str]]
"""Says what is wrong with a dataset."""


class Role(NamedTuple):
    """A group of a definition: whose child it is ("" is the definition's own group), name and classes.

    ``exact``: by that name only; else any group of the class will do, one of that name first. ``many``: all of them.
    """

    parent: str
    name: str
    nx_class: str
    exact: bool = False
    many: bool = False
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Home:
    """The entry or subentry that holds a definition."""

    group: h5py.Group
    roles: dict[str, Role]

    def path(self, role: str) -> str:
        """Return where a group of that role is expected."""
        if not role:
            return str(self.group.name)
        found = self.find(role)
        return str(found[0].name) if found else f"{self.path(self.roles[role].parent)}/{self.roles[role].name}"

    def find(self, role: str) -> list[h5py.Group]:
        """Return the groups of a role; most roles have one."""
        if not role:
            return [self.group]
        about = self.roles[role]
        found: list[h5py.Group] = []
        for parent in self.find(about.parent):
            named = child(parent, about.name)
            if isinstance(named, h5py.Group) and _is(named, about) and not about.many:
                found.append(named)
            elif not about.exact:
                members = (child(parent, name) for name in parent)
                same = [each for each in members if isinstance(each, h5py.Group) and _is(each, about)]
                found += same if about.many else same[:1]
        return found


def _is(group: h5py.Group, role: Role) -> bool:
    """Whether a group is of that class; SASdata and SAStransmission_spectrum are both NXdata."""
    other = attribute_text(group, "canSAS_class") == "SAStransmission_spectrum"
    return attribute_text(group, "NX_class") == role.nx_class and not other


def homes(view: View, names: Iterable[str], roles: dict[str, Role]) -> list[Home]:
    """Return where definitions stand; the entry where there is none, so that the rules tell what is missing."""
    there = view.definitions
    found = [each for name in names for each in there.get(name, ())]
    if not found and view.entry is not None:
        found = [view.entry]
    return [Home(each, roles) for each in found]


def is_named(places: Iterable[Home], name: str) -> Iterator[Problem]:
    """Test that the field ``definition`` says so."""
    for home in places:
        found = child(home.group, "definition")
        if not isinstance(found, h5py.Dataset):
            yield f"{home.group.name}/definition", "is missing"
        elif as_text(found) != name:
            yield str(found.name), f'is "{as_text(found)}", not {name}'


def a_text(found: h5py.Dataset) -> Iterator[str]:
    """Test for a text that is not empty."""
    if found.dtype.kind not in "SO":
        yield "is no text"
    elif found.shape == () and not as_text(found).strip():
        yield "is empty"


def a_time(found: h5py.Dataset) -> Iterator[str]:
    """Test for a time in ISO 8601."""
    if found.dtype.kind not in "SO":
        yield "is no text"
    elif not is_time(text := as_text(found)):
        yield f'"{text}" is no time in ISO 8601'


def a_truth(found: h5py.Dataset) -> Iterator[str]:
    """Test for a boolean: HDF5's enumeration of h5py, or an integer 0 or 1."""
    if found.dtype.kind not in "biu" or found.shape not in ((), (1,)) or int(np.ravel(found[()])[0]) not in (0, 1):
        yield "is not true or false"


def a_number(found: h5py.Dataset) -> Iterator[str]:
    """Test for numbers."""
    if found.dtype.kind not in "iuf":
        yield f"is {found.dtype}, not a number"


def positive(found: h5py.Dataset) -> Iterator[str]:
    """Test for numbers above zero."""
    if found.dtype.kind not in "iuf":
        yield f"is {found.dtype}, not a number"
    elif not np.all(found[()] > 0):
        yield f"is {found[()]}, not above zero"


def in_units(*units: str) -> Test:
    """Return a test for the attribute ``units``."""

    def test(found: h5py.Dataset) -> Iterator[str]:
        given = attribute_text(found, "units")
        if given is None:
            yield f"has no units; {units[0]}"
        elif given not in units:
            yield f'has units "{given}", not {units[0]}'

    return test


def field(key: str, roles: dict[str, Role], by: dict[str, Demand], place: str, *tests: Test) -> Rule:
    """Return the rule for a field ``role/name``; a name that ends with ``?`` may be missing."""
    role, _, name = place.rpartition("/")
    optional, name = name.endswith("?"), name.rstrip("?")

    def problems(view: View) -> Iterator[Problem]:
        for home in homes(view, by, roles):
            for parent in home.find(role):
                found = child(parent, name)
                where = f"{parent.name.rstrip('/')}/{name}"
                if isinstance(found, h5py.Dataset):
                    yield from ((where, what) for test in tests for what in test(found))
                elif not optional:
                    yield where, "is missing"

    return Rule(f"{key}.{place.rstrip('?').replace('/', '.')}", by, problems)


def attribute(
    key: str, roles: dict[str, Role], by: dict[str, Demand], place: str, name: str, allowed: tuple[Any, ...] = ()
) -> Rule:
    """Return the rule for an attribute of a field ``role/name`` or, with ``role/`` alone, of a group."""
    role, _, item = place.rpartition("/")

    def problems(view: View) -> Iterator[Problem]:
        for home in homes(view, by, roles):
            for parent in home.find(role):
                found = child(parent, item) if item else parent
                if found is None:
                    continue
                given = texts(found.attrs[name]) if name in found.attrs else None
                where = f"{found.name}/@{name}"
                if given is None:
                    yield where, f"is missing{_one_of(allowed)}"
                elif allowed and given not in [texts(each) for each in allowed]:
                    yield where, f"is {_shown(given)}{_one_of(allowed)}"

    return Rule(f"{key}.{place.strip('/').replace('/', '.')}@{name}".replace(".@", "@"), by, problems)


def group(key: str, roles: dict[str, Role], by: dict[str, Demand], role: str) -> Rule:
    """Return the rule for a group; where its parent is missing, that one's rule tells."""

    def problems(view: View) -> Iterator[Problem]:
        about = roles[role]
        for home in homes(view, by, roles):
            if home.find(about.parent) and not home.find(role):
                called = ", by this name" if about.exact else ""
                yield home.path(role), f"is missing (a group of class {about.nx_class}{called})"

    return Rule(f"{key}.{role}", by, problems)


def texts(value: Any) -> list[str]:
    """Return an attribute of one text or several as a list."""
    return [as_text(each) for each in np.atleast_1d(np.asarray(value, dtype=object)).ravel()]


def _one_of(allowed: tuple[Any, ...]) -> str:
    if not allowed:
        return ""
    shown = [_shown(texts(each)) for each in allowed]
    return f"; {shown[0]} is needed" if len(shown) == 1 else f"; one of {', '.join(shown)}"


def _shown(items: list[str]) -> str:
    return f'"{items[0]}"' if len(items) == 1 else str(items)
