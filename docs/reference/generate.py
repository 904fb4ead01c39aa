"""Write ``site.md`` from the models that check the site file: ``python docs/reference/generate.py``.

The reference says what the code says: keys, types, defaults and descriptions are read from the pydantic models, the
options of the nodes through their entry points. A test fails when the file is not current.
"""

from __future__ import annotations

import json
import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from sisockdaq.site import Site, installed_types

TARGET = Path(__file__).with_name("site.md")

HEAD = """\
# The site file

<!-- Made by docs/reference/generate.py from the models that check a site file; edit those instead. -->

`site.yml` describes a site. It is YAML; only `true` and `false` are booleans, so `no` and `off` stay words. Input
files (geometry, mask) are relative to the site file, outputs to the data root. Any value can be replaced on the
command line: `--set router.port=8081`.
"""


def main() -> None:
    """Write the file."""
    TARGET.write_text(reference(), encoding="utf-8")


def reference() -> str:
    """Return the whole page."""
    parts = [HEAD, *section("Top level", Site)]
    for title, model in sorted(_inner_models(Site).items()):
        if title != "PartEntry":
            parts.extend(section(f"`{_key_of(Site, model)}`", model))
    for kind, point in sorted(installed_types().items()):
        if point.value.startswith("sisockdaq."):
            node = point.load()
            summary = (node.__doc__ or "").strip().partition("\n")[0]
            parts.extend(section(f"Node type `{kind}`", node.Options, summary))
            for inner in _inner_models(node.Options).values():
                parts.extend(section(f"Node type `{kind}`: `{_key_of(node.Options, inner)}`", inner))
    return "\n".join(parts)


def section(title: str, model: type[BaseModel], summary: str = "") -> Iterator[str]:
    """Yield the lines of one model's table."""
    yield f"\n## {title}\n"
    text = summary or (model.__doc__ or "").strip().partition("\n")[0]
    if text:
        yield f"{text}\n"
    if not model.model_fields:
        yield "No options."
        return
    yield "| Key | Type | Default | Meaning |\n|---|---|---|---|"
    for name, info in model.model_fields.items():
        cells = (f"`{name}`", _type(info.annotation), _default(info), info.description or "")
        yield "| " + " | ".join(re.sub(r"\s+", " ", cell).replace("|", "\\|") for cell in cells) + " |"


def _type(annotation: Any) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin in (Union, types.UnionType):
        return " or ".join(_type(kind) for kind in inner if kind is not type(None))
    if origin is list:
        return f"list of {_type(inner[0])}"
    if origin is tuple:
        return "[" + ", ".join(_type(kind) for kind in inner if kind is not Ellipsis) + "]"
    if origin is dict:
        return f"{_type(inner[0])} → {_type(inner[1])}"
    if hasattr(annotation, "__metadata__"):
        return _type(inner[0])
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation.__name__
    names = {str: "text", int: "whole number", float: "number", bool: "true or false", Path: "path"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    value = info.default_factory() if info.default_factory else info.default  # type: ignore[call-arg]
    if value is None or value is PydanticUndefined:
        return "–"
    if isinstance(value, BaseModel):
        return "–"
    return f"`{json.dumps(value, default=str, ensure_ascii=False)}`"


def _inner_models(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """Return the models that stand in a model's fields, at any depth, by name."""
    found: dict[str, type[BaseModel]] = {}
    for info in model.model_fields.values():
        for inner in _models_of(info.annotation):
            found[inner.__name__] = inner
            found.update(_inner_models(inner))
    return found


def _models_of(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and not get_origin(annotation) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_of(inner)


def _key_of(root: type[BaseModel], model: type[BaseModel]) -> str:
    """Return the path of keys that leads from `root` to `model`."""
    for name, info in root.model_fields.items():
        for inner in _models_of(info.annotation):
            if inner is model:
                return name
            if deeper := _key_of(inner, model):
                return f"{name}.{deeper}"
    return ""


if __name__ == "__main__":
    main()
