r"""From what a panel calls a target to full names of fields. Pure.

A target is a full name, ``weather::temperature``. What is more than that comes from a dashboard's variables:
``$name``, ``${name}`` and ``[[name]]`` are replaced by the request's own values; ``{a,b}`` and ``(a|b)`` stand for each
alternative (so Grafana writes a variable of many values), ``\.`` for the character alone; ``*`` and ``?`` match the
known fields.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Collection, Mapping
from typing import Any

from sisockdaq.errors import FieldUnknown

__all__ = ["MOST_NAMES", "expand", "variables"]

MOST_NAMES = 100
"""Fields that one target may stand for."""

_VARIABLE = re.compile(r"\$\{(\w+)(?::[^}]*)?\}|\$(\w+)|\[\[(\w+)(?::[^\]]*)?\]\]")
_ALTERNATIVES = re.compile(r"\{([^{}]*,[^{}]*)\}|\(([^()]*\|[^()]*)\)")
_ESCAPED = re.compile(r"\\(.)")


def variables(scoped: Any) -> dict[str, list[str]]:
    """Read ``scopedVars``: ``{name: {"text", "value"}}``, where a value may be a list; what is odd is left out."""
    if not isinstance(scoped, Mapping):
        return {}
    found = {}
    for name, entry in scoped.items():
        value = entry.get("value") if isinstance(entry, Mapping) else entry
        values = value if isinstance(value, list) else [value]
        texts = [str(one) for one in values if isinstance(one, (str, int, float))]
        if texts:
            found[str(name)] = texts[:MOST_NAMES]
    return found


def expand(
    target: str,
    known: Collection[str],
    scoped: Mapping[str, list[str]] | None = None,
    *,
    may_be_none: bool = False,
) -> list[str]:
    """Return the full names that a target stands for, in order, each once.

    Parameters
    ----------
    target : str
    known : collection of str
        Full names of the known fields, for ``*`` and ``?``.
    scoped : mapping, optional
        Values of variables.
    may_be_none : bool
        Whether a pattern may match nothing.

    Raises
    ------
    FieldUnknown
        A pattern matches nothing and must not, or the target stands for more than `MOST_NAMES` fields.
    """
    texts = [target.strip()]
    if texts[0] in known:
        return texts
    for pattern, choices in ((_VARIABLE, _of_variable), (_ALTERNATIVES, _of_alternatives)):
        texts = _replaced(texts, pattern, choices, scoped or {}, target)
    names: dict[str, None] = {}
    for text in texts:
        name = _ESCAPED.sub(r"\1", text)
        if "*" in name or "?" in name:
            matching = [one for one in known if fnmatch.fnmatchcase(one, name)]
            if not matching and not may_be_none:
                raise FieldUnknown(f'no field matches "{name}"', remedy="POST /search lists all fields")
            names.update(dict.fromkeys(matching))
        else:
            names[name] = None
        _check(len(names), target)
    return list(names)


def _replaced(texts: list[str], pattern: re.Pattern[str], choices: Any, scoped: Any, target: str) -> list[str]:
    """Replace each match of the pattern by each of its choices, from left to right."""
    done: list[str] = []
    waiting = [("", text) for text in reversed(texts)]
    while waiting:
        head, rest = waiting.pop()
        match = pattern.search(rest)
        if match is None:
            done.append(head + rest)
            _check(len(done), target)
            continue
        options = choices(match, scoped)
        _check(len(waiting) + len(options), target)
        before, after = rest[: match.start()], rest[match.end() :]
        waiting += [(head + before + option, after) for option in reversed(options)]
    return done


def _of_variable(match: re.Match[str], scoped: Mapping[str, list[str]]) -> list[str]:
    name = match[1] or match[2] or match[3]
    return scoped.get(name, [match[0]])


def _of_alternatives(match: re.Match[str], _: Any) -> list[str]:
    if match[1] is not None:
        return [part.strip() for part in match[1].split(",")]
    return match[2].split("|")


def _check(count: int, target: str) -> None:
    if count > MOST_NAMES:
        raise FieldUnknown(f'"{target}" stands for more than {MOST_NAMES} fields', remedy="name fewer")
