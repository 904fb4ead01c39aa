"""The file by which SAXSdog's programs find and trust each other: ``~/.saxsdognetwork``.

A JSON list of ``{"Server", "Feeder", "Secret", "Name"}``, the same on every machine of the network. It holds secrets:
it is written for its owner alone, and not read while others can read it.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from sisockdaq.errors import ConfigurationError

__all__ = [
    "FEEDER_PORT",
    "SERVER_PORT",
    "NetworkEntry",
    "choose",
    "default_path",
    "new_secret",
    "read_network",
    "write_network",
]

SERVER_PORT, FEEDER_PORT = 9723, 9823

_URL = re.compile(r"(tcp://[^\s/:]+|tcp://\[[0-9a-fA-F:.]+\]):(\d{1,5})|(ipc|inproc)://\S+")


class NetworkEntry(BaseModel):
    """One server of the network."""

    model_config = ConfigDict(extra="forbid")

    Server: str = Field(f"tcp://localhost:{SERVER_PORT}", description="Where the server takes commands.")
    Feeder: str = Field(f"tcp://localhost:{FEEDER_PORT}", description="Where the feeder tells of new files.")
    Secret: str = Field(min_length=8, repr=False, description="What requests are signed with.")
    Name: str = Field("Queue1", description="What people call it.")

    @field_validator("Server", "Feeder")
    @classmethod
    def _is_url(cls, given: str) -> str:
        found = _URL.fullmatch(given)
        if found is None or (found[2] is not None and not 0 < int(found[2]) < 65536):
            raise ValueError(f'"{given}" is no address of the form tcp://host:port')
        return given

    @property
    def server_port(self) -> int:
        """Port of the server, as the original binds it."""
        return port_of(self.Server)

    @property
    def feeder_port(self) -> int:
        """Port of the feeder."""
        return port_of(self.Feeder)


def port_of(url: str) -> int:
    """Return the port of a ``tcp://`` address."""
    found = _URL.fullmatch(url)
    if found is None or found[2] is None:
        raise ConfigurationError(f'"{url}" has no port', remedy="write tcp://host:port")
    return int(found[2])


def default_path() -> Path:
    """``~/.saxsdognetwork``."""
    return Path.home() / ".saxsdognetwork"


def new_secret() -> str:
    """Return a random secret of 256 bits."""
    return secrets.token_hex(32)


def read_network(path: Path) -> list[NetworkEntry]:
    """Return the entries of a network file.

    Raises
    ------
    ConfigurationError
        It is missing, readable by others, or wrong; names the entry and the key.
    """
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigurationError(
            f"there is no {path}", remedy="make one with `saxsnetconf`, or copy that of the server's machine"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigurationError(
            f"{path} holds secrets, and others can read it (mode {mode & 0o777:o})", remedy=f"chmod 600 {path}"
        )
    try:
        said = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{path} is not JSON: {error}") from None
    if not isinstance(said, list) or not said:
        raise ConfigurationError(f"{path} is not a list of servers", remedy="make a new one with `saxsnetconf --new`")
    return [_entry(path, number, one) for number, one in enumerate(said)]


def write_network(path: Path, entries: Sequence[NetworkEntry]) -> None:
    """Replace a network file whole; at no moment can others read it.

    Raises
    ------
    ConfigurationError
        The folder cannot be written.
    """
    text = json.dumps([entry.model_dump() for entry in entries], indent=4)
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text + "\n")
        Path(temporary).replace(path)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}") from None


def choose(entries: Sequence[NetworkEntry], wanted: str | int = 0) -> NetworkEntry:
    """Return an entry by its number or its name.

    Raises
    ------
    ConfigurationError
        There is none of that number or name.
    """
    known = ", ".join(f"{number} {entry.Name}" for number, entry in enumerate(entries))
    for number, entry in enumerate(entries):
        if str(wanted) in (str(number), entry.Name):
            return entry
    raise ConfigurationError(f"the network file has no server {wanted}", remedy=f"choose one of: {known}")


def _entry(path: Path, number: int, said: object) -> NetworkEntry:
    try:
        return NetworkEntry.model_validate(said)
    except ValidationError as error:
        # Only place and reason: what was given might be a secret.
        problems = [f"{path}, server {number}: {_place(one['loc'])}{one['msg']}" for one in error.errors()]
        raise ConfigurationError("\n".join(problems), problems=problems) from None


def _place(loc: tuple[int | str, ...]) -> str:
    return f"{'.'.join(map(str, loc))}: " if loc else ""
