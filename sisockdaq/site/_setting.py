"""One ``key.path=value`` of a command line."""

from __future__ import annotations

from typing import Any

from sisockdaq.errors import ConfigurationError
from sisockdaq.site._yaml import YamlError, read_value

__all__ = ["read_setting"]


def read_setting(text: str) -> tuple[tuple[str, ...], Any]:
    """Return the path of keys and the value, which is YAML.

    Raises
    ------
    ConfigurationError
        It has another form.
    """
    key, equals, value = text.partition("=")
    path = tuple(part.strip() for part in key.split("."))
    if not equals or not all(path):
        raise ConfigurationError(f"--set {text}: not of the form key.path=value", remedy="--set router.port=8081")
    try:
        return path, read_value(value)
    except YamlError as error:
        raise ConfigurationError(f"--set {text}: {error}") from None
