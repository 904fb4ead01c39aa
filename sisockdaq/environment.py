"""Settings from environment variables, for a part that joins a network without a site file.

The containers of a sisock site are configured by variables; the same ones configure our parts here, so that one can
take the place of the other. This module reads a mapping and nothing else but the file that ``WAMP_SECRET_FILE`` names:
it promises that every mistake is named by its variable, that no secret has a default, and that none is ever shown.

An option of a node that a variable sets says so in its field::

    max_points: int | None = Field(None, json_schema_extra={"environment": "MAX_POINTS"})

A variable that is set to nothing counts as not set, as in a compose file's ``MAX_POINTS: ""``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticUndefined

from sisockdaq.errors import ConfigurationError

__all__ = [
    "NETWORK_VARIABLES",
    "NetworkSettings",
    "OptionVariable",
    "Variable",
    "checked_options",
    "network_name",
    "network_settings",
    "option_variables",
]

CERTIFICATE = Path(".crossbar/server_cert.pem")
"""The router's certificate, relative to the working directory: where sisock's containers mount it."""

OLD_NAMES = {"g3_archive": "g3_reader"}
"""Names on the network by which the dashboards of existing sites know a node whose type is called otherwise."""

_AS_IF_NOT_SET = {"MAX_POINTS": "0"}
"""Values that stood for "no limit" in sisock's nodes, as leaving the variable out did."""

_SECRET_WORDS = ("SECRET", "PASSW", "TOKEN")
"""A variable with one of these in its name is never shown."""


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable that every part understands."""

    name: str
    meaning: str
    default: str = ""


NETWORK_VARIABLES = (
    Variable("WAMP_USER", "user of the router that the part logs in as", "server"),
    Variable("WAMP_SECRET", "that user's secret, as the router's configuration has it; there is no default"),
    Variable("WAMP_SECRET_FILE", "a file that holds the secret, instead of WAMP_SECRET"),
    Variable("CROSSBAR_HOST", "host of the router", "sisock-crossbar"),
    Variable("CROSSBAR_TLS_PORT", "port of the router's TLS WebSocket", "8080"),
    Variable("CROSSBAR_OCS_PORT", "port of the router's open WebSocket; used with --ocs only", "8001"),
    Variable("WAMP_REALM", "realm of the network", "test_realm"),
    Variable("WAMP_BASE_URI", "prefix of all names of the network", "org.simonsobservatory"),
    Variable("NAME", "name on the network; default: that of the type"),
    Variable("DESCRIPTION", "what people read beside the name; default: that of the type"),
)
"""What each part takes, apart from the options of its type."""


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """How to join an existing network.

    Attributes
    ----------
    user, secret : str
        Both empty where the part is to join by the open port, which asks for neither.
    host : str
    port : int
        Of the TLS WebSocket, or of the open one.
    realm, base_uri : str
    certificate : Path or None
        Certificate of the router, trusted as it is; None for the open port.
    """

    user: str
    secret: str = field(repr=False)
    host: str
    port: int
    realm: str
    base_uri: str
    certificate: Path | None

    @property
    def url(self) -> str:
        """Address of the router's WebSocket."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'wss' if self.certificate else 'ws'}://{host}:{self.port}/ws"


@dataclass(frozen=True, slots=True)
class OptionVariable:
    """An option of a type that a variable sets."""

    variable: str
    option: str
    meaning: str
    default: str
    required: bool


def network_settings(
    environ: Mapping[str, str],
    *,
    open_port: bool = False,
    realm: str | None = None,
    base_uri: str | None = None,
    certificate: Path | None = None,
) -> NetworkSettings:
    """Return how to join the network.

    Parameters
    ----------
    environ : mapping
        The variables.
    open_port : bool
        Join by the port that asks for no secret (``CROSSBAR_OCS_PORT``).
    realm, base_uri, certificate : optional
        Taken over what the environment has.

    Raises
    ------
    ConfigurationError
        A variable is missing or wrong; ``problems`` holds a line for each.
    """
    problems: list[str] = []
    port_variable = "CROSSBAR_OCS_PORT" if open_port else "CROSSBAR_TLS_PORT"
    port = _port(environ, port_variable, problems)
    user = "" if open_port else _value(environ, "WAMP_USER")
    secret = "" if open_port else _secret(environ, user, problems)
    if problems:
        raise ConfigurationError("\n".join(problems), problems=problems)
    return NetworkSettings(
        user=user,
        secret=secret,
        host=_value(environ, "CROSSBAR_HOST"),
        port=port,
        realm=realm or _value(environ, "WAMP_REALM"),
        base_uri=base_uri or _value(environ, "WAMP_BASE_URI"),
        certificate=None if open_port else certificate or CERTIFICATE,
    )


def network_name(kind: str, declared: Any, environ: Mapping[str, str], given: str | None = None) -> str:
    """Return a part's name: what was given, ``NAME``, what its class declares, or the name of its type.

    Parameters
    ----------
    kind : str
        Name of the type, as installed.
    declared : str or None
        The ``name`` of the class.
    environ : mapping
    given : str, optional
    """
    return given or environ.get("NAME") or (isinstance(declared, str) and declared) or OLD_NAMES.get(kind, kind)


def option_variables(model: type[BaseModel]) -> list[OptionVariable]:
    """Return the variables that set options of a type, in the model's order."""
    found = []
    for option, info in model.model_fields.items():
        extra = info.json_schema_extra
        named = extra.get("environment") if isinstance(extra, Mapping) else None
        for variable in [named] if isinstance(named, str) else named if isinstance(named, Sequence) else ():
            default = info.get_default()
            shown = "" if default is None or default is PydanticUndefined else str(default)
            found.append(OptionVariable(str(variable), option, info.description or "", shown, info.is_required()))
    return found


def checked_options(
    model: type[BaseModel], environ: Mapping[str, str], given: Mapping[str, Any] | None = None
) -> BaseModel:
    """Return the options of a type from the environment and, above it, from what was given.

    Raises
    ------
    ConfigurationError
        With one line a mistake in ``problems``, each naming the variable (or ``--set``) that it is in.
    """
    given = dict(given or {})
    values: dict[str, Any] = {}
    source: dict[str, str] = {}
    for one in option_variables(model):
        text = environ.get(one.variable)
        if text and text != _AS_IF_NOT_SET.get(one.variable) and one.option not in given and one.option not in values:
            values[one.option] = text
            source[one.option] = f"{one.variable}: {_shown(one.variable, text)}"
    try:
        return model.model_validate({**values, **given})
    except ValidationError as error:
        problems = list(dict.fromkeys(_problem(model, source, dict(found)) for found in error.errors()))
        raise ConfigurationError("\n".join(problems), problems=problems) from None


def _problem(model: type[BaseModel], source: Mapping[str, str], found: Mapping[str, Any]) -> str:
    """Say in one line what pydantic found."""
    option = str(found["loc"][0]) if found["loc"] else ""
    variable = next((one for one in option_variables(model) if one.option == option), None)
    reason = str(found["msg"]).removeprefix("Value error, ").replace("Input should be", "must be")
    if found["type"] == "missing" and len(found["loc"]) == 1:
        where = variable.variable if variable is not None else f"--set {option}=…"
        meaning = f": {variable.meaning}" if variable is not None and variable.meaning else ""
        return f"{where} is not set{meaning}"
    if found["type"] == "extra_forbidden":
        return f"--set {option}: there is no such option (one of {', '.join(model.model_fields)})"
    if option in source:
        return f"{source[option]} {reason}"
    if option:
        return f"--set {'.'.join(map(str, found['loc']))}: {reason}"
    known = ", ".join(dict.fromkeys(one.variable for one in option_variables(model)))
    return f"{reason} (variables: {known})" if known else reason


def _value(environ: Mapping[str, str], name: str) -> str:
    return environ.get(name) or next(one.default for one in NETWORK_VARIABLES if one.name == name)


def _port(environ: Mapping[str, str], name: str, problems: list[str]) -> int:
    text = _value(environ, name)
    if text.strip().isdecimal() and 1 <= int(text) <= 65535:
        return int(text)
    problems.append(f'{name}: "{text}" is not a port (1 to 65535)')
    return 0


def _secret(environ: Mapping[str, str], user: str, problems: list[str]) -> str:
    text, file = environ.get("WAMP_SECRET", ""), environ.get("WAMP_SECRET_FILE", "")
    if text and file:
        problems.append("WAMP_SECRET and WAMP_SECRET_FILE are both set; one of them is enough")
    elif file:
        try:
            text = Path(file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            problems.append(f"WAMP_SECRET_FILE: {file}: {reason}")
        else:
            if not text:
                problems.append(f"WAMP_SECRET_FILE: {file} is empty")
    elif not text:
        problems.append(
            f'WAMP_SECRET is not set: the secret of user "{user}", as the router\'s configuration has it. '
            "There is no default; WAMP_SECRET_FILE names a file that holds it"
        )
    return text


def _shown(variable: str, text: str) -> str:
    if any(word in variable.upper() for word in _SECRET_WORDS):
        return "its value"
    return f'"{text}"' if len(text) <= 60 else f'"{text[:57]}…"'
