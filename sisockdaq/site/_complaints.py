"""Pydantic's findings in a person's words: where, what is wrong, and what was probably meant."""

from __future__ import annotations

import difflib
import json
import re
import types
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

__all__ = ["complaints", "suggestion"]

_MODEL_WORDS = re.compile(r"^(function-|is-instance|tagged-union|constrained-|nullable|union|\w+\[)")
"""Parts of a pydantic location that name its own machinery, not a key of the file."""


def complaints(model: type[BaseModel], error: ValidationError) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield ``(path of keys, reason)`` for each mistake that `error` holds, once a place and reason."""
    seen: set[tuple[tuple[str | int, ...], str]] = set()
    for found in error.errors(include_url=False):
        path = _keys(model, found["loc"])
        reason = _reason(model, path, dict(found))
        if (path, reason) not in seen:
            seen.add((path, reason))
            yield path, reason


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return ``; did you mean "…"?``, or nothing when no known word is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f'; did you mean "{near[0]}"?' if near else ""


def _keys(model: type[BaseModel], location: Sequence[str | int]) -> tuple[str | int, ...]:
    """Drop what pydantic adds for unions and validators, keep what the file has."""
    kinds = {kind.__name__ for kind in _all_models(model)} | {"int", "float", "str", "bool", "none", "list", "dict"}
    return tuple(part for part in location if isinstance(part, int) or not (_MODEL_WORDS.match(part) or part in kinds))


def _reason(model: type[BaseModel], path: tuple[str | int, ...], found: dict[str, Any]) -> str:
    kind, value = found["type"], found["input"]
    if kind == "missing":
        return "is missing"
    if kind == "extra_forbidden":
        known = [name for parent in _models_at(model, path[:-1]) for name in parent.model_fields]
        return f"unknown key{suggestion(str(path[-1]), known)} (one of {', '.join(known)})"
    if kind in ("literal_error", "enum"):
        choices = re.findall(r"'([^']*)'|(-?[0-9]+)", found["ctx"]["expected"])
        names = [text or number for text, number in choices]
        word, meant = _word(path), suggestion(str(value), names)
        return f"{_show(value)} is not {_article(word)} {word}{meant} (one of {', '.join(names)})"
    if kind == "string_pattern_mismatch":
        return f"{_show(value)} is not {_article(_word(path))} {_word(path)} (pattern {found['ctx']['pattern']})"
    if kind == "value_error":
        return str(found["ctx"]["error"])
    text = found["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    return f"{_show(value)} {text[0].lower()}{text[1:]}" if text.startswith("must") else f"{_show(value)}: {text}"


def _word(path: tuple[str | int, ...]) -> str:
    names = [part for part in path if isinstance(part, str)]
    return names[-1].replace("_", " ") if names else "value"


def _article(word: str) -> str:
    # "a unit", not "an unit": a spoken "you" takes "a".
    return "an" if word[:1] in "aeio" else "a"


def _show(value: Any) -> str:
    """Return a value as the file might have it, cut short."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except (TypeError, ValueError):
        text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _models_at(model: type[BaseModel], path: Sequence[str | int]) -> list[type[BaseModel]]:
    """Return the models that may stand at `path` below `model`."""
    found = [model]
    for part in path:
        deeper: list[type[BaseModel]] = []
        for parent in found:
            if isinstance(part, str) and part in parent.model_fields:
                deeper.extend(_models_in(parent.model_fields[part].annotation))
            else:
                deeper.append(parent)  # a list index, or a key of a dict of models
        found = deeper
    return found


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """Return the models inside an annotation, through unions, lists and dicts."""
    if isinstance(annotation, type) and not get_origin(annotation) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Union, types.UnionType, list, dict, tuple) or get_args(annotation):
        return [model for inner in get_args(annotation) for model in _models_in(inner)]
    return []


def _all_models(model: type[BaseModel]) -> set[type[BaseModel]]:
    found, waiting = {model}, [model]
    while waiting:
        for info in waiting.pop().model_fields.values():
            for inner in _models_in(info.annotation):
                if inner not in found:
                    found.add(inner)
                    waiting.append(inner)
    return found
