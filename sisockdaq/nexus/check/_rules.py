"""What a rule is, and what comes of trying it on a file."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from sisockdaq.nexus.check._view import View

__all__ = ["Demand", "Finding", "Problem", "Report", "Rule"]

Demand = Literal["required", "recommended"]

Problem = tuple[str, str]
"""Where it is (a path in the file), and what is wrong there."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that a file is to have or to be.

    Attributes
    ----------
    key : str
        By which reports name it.
    by : dict of str to Demand
        Who demands it: a definition ("NXmx") or a reader ("neggia"), and how much.
    problems : callable
        Tries it on a file.
    """

    key: str
    by: dict[str, Demand]
    problems: Callable[[View], Iterable[Problem]]


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule that a file breaks, and where."""

    rule: str
    where: str
    what: str
    by: dict[str, Demand]

    @property
    def required_by(self) -> tuple[str, ...]:
        """Who cannot do without it."""
        return tuple(name for name, demand in self.by.items() if demand == "required")

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {"rule": self.rule, "where": self.where, "what": self.what, "by": dict(self.by)}


@dataclass(slots=True)
class Report:
    """What was found in one file.

    ``about`` says in a few words what the file holds; ``asked`` are definition and readers that it was checked for.
    """

    path: str
    about: str
    asked: tuple[str, ...]
    findings: list[Finding] = field(default_factory=list)

    @property
    def failed(self) -> tuple[str, ...]:
        """Those whose requirements are not met."""
        return tuple(name for name in self.asked if any(name in each.required_by for each in self.findings))

    @property
    def passed(self) -> tuple[str, ...]:
        """Those who find all that they require."""
        return tuple(name for name in self.asked if name not in self.failed)

    def to_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "path": self.path,
            "about": self.about,
            "passed": list(self.passed),
            "failed": list(self.failed),
            "findings": [each.to_dict() for each in self.findings],
        }
