"""YAML as people mean it, with the line of every key: the ground under the messages about ``site.yml``.

Plain scalars follow YAML 1.2's core schema: ``no``, ``off`` and ``1:30`` stay text, ``1e-3`` is a number; only
``true`` and ``false`` are booleans. A key given twice is an error, not the second value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.reader import ReaderError

__all__ = ["Document", "YamlError", "read_value", "read_yaml"]

KeyPath = tuple[str | int, ...]


class YamlError(ValueError):
    """The text is not YAML; ``line`` counts from 1."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the core schema of YAML 1.2."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (replaced, not shared)


def _resolve(tag: str, pattern: str, first: str) -> None:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(f"^(?:{pattern})$"), list(first))


_resolve("bool", r"true|True|TRUE|false|False|FALSE", "tTfF")
_resolve("null", r"~|null|Null|NULL|", "~nN\0")
_resolve("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789")
_resolve("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789")
_resolve("float", r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", "-+.")
_Loader.yaml_implicit_resolvers[""] = _Loader.yaml_implicit_resolvers.pop("\0")


def _construct_int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node)
    return int(text, 0) if text.lower().startswith(("0o", "0x")) else int(text)


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)


@dataclass(slots=True)
class Document:
    """A YAML mapping and where its parts stand."""

    data: dict[str, Any]
    lines: dict[tuple[str, ...], int] = field(default_factory=dict)
    """Line (from 1) of each key and list item, by the path to it (an item's index as text)."""
    replaced: set[tuple[str, ...]] = field(default_factory=set)
    """Paths whose value was set from outside (`replace`)."""

    def replace(self, path: tuple[str, ...], value: Any) -> None:
        """Set the value at `path`, making mappings on the way; raise `YamlError` where a part is no mapping."""
        here: Any = self.data
        for depth, key in enumerate(path[:-1], start=1):
            here = here.setdefault(key, {})
            if not isinstance(here, dict):
                raise YamlError(f"{'.'.join(path[:depth])} holds no keys", 0)
        here[path[-1]] = value
        self.replaced.add(path)

    def place(self, path: KeyPath) -> str:
        """Return ``line N``, or ``--set`` for a value that was set from outside."""
        texts = tuple(map(str, path))
        inside = any(texts[: len(other)] == other for other in self.replaced)
        around = texts not in self.lines and any(other[: len(texts)] == texts for other in self.replaced)
        if inside or (texts and around):
            return "--set"
        return f"line {self.line(path)}"

    def line(self, path: Sequence[str | int]) -> int:
        """Return the line of the deepest part of `path` that the text has; 1 where it has none of it."""
        for length in range(len(path), 0, -1):
            if line := self.lines.get(tuple(map(str, path[:length]))):
                return line
        return 1


def read_yaml(text: str) -> Document:
    """Read one YAML mapping.

    Raises
    ------
    YamlError
        The text is no YAML, is no mapping, or has a key twice.
    """
    loader = _loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return Document({})
        if not isinstance(node, yaml.MappingNode):
            raise YamlError("a mapping (key: value) is expected", node.start_mark.line + 1)
        lines = dict(_walk(node, ()))
        return Document(loader.construct_document(node), lines)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reason = ", ".join(part for part in (error.problem, error.context) if part)
        raise YamlError(f"not YAML: {reason}", mark.line + 1 if mark else 1) from None
    except yaml.YAMLError as error:
        raise YamlError(f"not YAML: {error}", 1) from None
    finally:
        loader.dispose()


def _loader(text: str) -> _Loader:
    try:
        return _Loader(text)
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise YamlError(f"character #x{ord(text[error.position]):04x} is not allowed", line) from None


def read_value(text: str) -> Any:
    """Read one YAML value, such as ``8081`` or ``[{port: 50000}]``; raise `YamlError` where it is none."""
    loader = _loader(text)
    try:
        return loader.get_single_data()
    except yaml.YAMLError as error:
        raise YamlError(f"{text!r} is not a YAML value: {error}", 1) from None
    finally:
        loader.dispose()


def _walk(node: yaml.Node, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], int]]:
    """Yield the path and line of all keys and items below `node`; refuse doubled keys."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            line = key.start_mark.line + 1
            if name in seen:
                raise YamlError(f"{'.'.join((*path, name))}: the key stands here twice", line)
            seen.add(name)
            yield (*path, name), line
            yield from _walk(value, (*path, name))
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield (*path, str(index)), item.start_mark.line + 1
            yield from _walk(item, (*path, str(index)))
