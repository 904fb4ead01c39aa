"""The models of ``site.yml``, and how the file is read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from sisockdaq.detector.description import DetectorOptions
from sisockdaq.errors import ConfigurationError
from sisockdaq.site._complaints import complaints, suggestion
from sisockdaq.site._router import RESERVED, RouterOptions, check_certificate, secret_of
from sisockdaq.site._setting import read_setting
from sisockdaq.site._yaml import Document, YamlError, read_yaml
from sisockdaq.state import StateDirectory, find_state

__all__ = ["PartEntry", "RouterOptions", "Site", "installed_types", "load_site", "node_class"]

NODES = "sisockdaq.nodes"
GATEWAYS = "sisockdaq.gateways"
CONTROL_GATEWAYS = "sisockdaq.control_gateways"
IMAGE_SOURCES = "sisockdaq.image_sources"
RESULT_SOURCES = "sisockdaq.result_sources"

_NAME = r"^[A-Za-z][A-Za-z0-9_-]{0,40}$"
"""Of a site and of its parts: safe in a URI, a file name and the name of a unix socket (`StateDirectory`)."""


class PartEntry(BaseModel):
    """A node or gateway as the site file has it: its type, and beside it the options of that type."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="Type, as installed (`sisockdaq join --list` shows all).")

    @property
    def options(self) -> dict[str, Any]:
        """What stands beside ``type``, as written."""
        return dict(self.__pydantic_extra__ or {})


class Site(BaseModel):
    """A site: one network of nodes on one router."""

    model_config = ConfigDict(extra="forbid")

    site: str = Field(pattern=_NAME, description="Name of the site; also of its state directory.")
    realm: str = Field("sisockdaq", pattern=r"^[A-Za-z][A-Za-z0-9_.-]{2,254}$", description="WAMP realm.")
    base_uri: str = Field(
        "sisockdaq", pattern=r"^[a-z0-9_]+(\.[a-z0-9_]+)*$", description="Prefix of all WAMP names of the network."
    )
    data: Path | None = Field(
        None,
        description="Root folder of what nodes write, relative to this file. Default: data/ in the state directory.",
    )
    router: RouterOptions = Field(
        default_factory=lambda: RouterOptions.model_validate({}), description="Where the router listens."
    )
    detector: DetectorOptions | None = Field(None, description="The detector, shared by all nodes that need it.")
    nodes: dict[str, PartEntry] = Field(default_factory=dict, description="The nodes by name.")
    gateways: dict[str, PartEntry] = Field(
        default_factory=dict, description="Faces for other protocols by name; the type defaults to the name."
    )

    _document: Document = PrivateAttr(default_factory=lambda: Document({}))
    _overrides: tuple[str, ...] = PrivateAttr(default=())
    _file: Path = PrivateAttr(default_factory=lambda: Path.cwd() / "site.yml")

    @model_validator(mode="before")
    @classmethod
    def _gateway_types(cls, data: Any) -> Any:
        """Let a gateway's type default to its name."""
        gateways = data.get("gateways") if isinstance(data, dict) else None
        if not isinstance(gateways, dict):
            return data
        filled = {
            name: {"type": name, **(entry or {})} if isinstance(entry, dict | None) else entry
            for name, entry in gateways.items()
        }
        return {**data, "gateways": filled}

    @field_validator("router")
    @classmethod
    def _names_of_ocs(cls, router: RouterOptions, info: ValidationInfo) -> RouterOptions:
        """Keep the names that everybody may use at the plain port apart from the site's own."""
        base = info.data.get("base_uri")
        if router.ocs is not None and base is not None:
            root = router.ocs.address_root
            if f"{base}.".startswith(f"{root}.") or f"{root}.".startswith((f"{base}.", "wamp.")):
                raise ValueError(
                    f'ocs.address_root "{root}" overlaps with base_uri "{base}" or with the router\'s own names; '
                    f"nobody logs in at the port of OCS, so its names must be others"
                )
        return router

    @field_validator("nodes", "gateways")
    @classmethod
    def _good_names(cls, parts: dict[str, PartEntry], info: ValidationInfo) -> dict[str, PartEntry]:
        router: RouterOptions | None = info.data.get("router")
        users, nodes = router.users if router else {}, info.data.get("nodes", {})
        for name in parts:
            if name in users:
                raise ValueError(f'"{name}" is a user under router.users already; choose another name for the part')
            if name in nodes:
                raise ValueError(f'"{name}" is the name of a node already; choose another for the gateway')
            if not re.match(_NAME, name):
                raise ValueError(f'"{name}" is no name for a part: a letter, then letters, digits, _ and -, 41 in all')
            if name in RESERVED:
                raise ValueError(f'"{name}" is the name of a part that every site has; choose another')
        return parts

    @property
    def file(self) -> Path:
        """The site file itself."""
        return self._file

    @property
    def arguments(self) -> list[str]:
        """Command-line arguments by which another process reads this very site."""
        sets = [argument for text in self._overrides for argument in ("--set", text)]
        return ["--site", str(self._file), *sets]

    @property
    def path(self) -> Path:
        """Folder of the site file."""
        return self._file.parent

    @cached_property
    def state(self) -> StateDirectory:
        """Secrets, sockets, logs and default data of this site on this machine."""
        return find_state(self.site)

    @property
    def url(self) -> str:
        """Address of the router's TLS WebSocket, as reached from this machine."""
        host = "127.0.0.1" if self.router.host in ("0.0.0.0", "::") else self.router.host
        return f"wss://{host}:{self.router.port}/ws"

    def resolve_input(self, path: str | Path) -> Path:
        """Return where an input file of the site is: relative paths start at the site file."""
        return (self.path / Path(path).expanduser()).absolute()

    def resolve_output(self, path: str | Path = ".") -> Path:
        """Return where a node writes: relative paths start at the data root."""
        root = self.resolve_input(self.data) if self.data else self.state.data.absolute()
        return (root / Path(path).expanduser()).absolute()

    def image_sources(self) -> list[str]:
        """Names of the nodes that publish images on the frame plane, in the file's order."""
        return self._nodes_of(IMAGE_SOURCES)

    def result_sources(self) -> list[str]:
        """Names of the nodes that publish results (curves, numbers a frame) on the frame plane."""
        return self._nodes_of(RESULT_SOURCES)

    def gateway_roles(self) -> dict[str, str]:
        """Role of each gateway's user: most only read, those of the control group may control nodes."""
        control = installed_types(CONTROL_GATEWAYS)
        return {name: "control" if entry.type in control else "consumer" for name, entry in self.gateways.items()}

    def user_roles(self) -> dict[str, str]:
        """Role of each user that existing programs log in as."""
        return {name: user.role for name, user in self.router.users.items()}

    def user_secrets(self) -> dict[str, str]:
        """Return the secrets that the site takes from the environment, by user; only the router needs them.

        Raises
        ------
        ConfigurationError
            A variable is not set.
        """
        found: dict[str, str] = {}
        for name, user in self.router.users.items():
            if user.secret is not None:
                try:
                    found[name] = secret_of(user.secret)
                except ConfigurationError as error:
                    raise self._at(("router", "users", name, "secret"), str(error)) from None
        return found

    def own_certificate(self) -> tuple[Path, Path] | None:
        """Return paths of the site's own certificate and key, checked; None where the router makes them.

        Raises
        ------
        ConfigurationError
            They cannot be read, are out of date, or do not belong together.
        """
        if self.router.certificate is None or self.router.key is None:
            return None
        certificate, key = self.resolve_input(self.router.certificate), self.resolve_input(self.router.key)
        try:
            check_certificate(certificate, key)
        except ConfigurationError as error:
            raise self._at(("router", "certificate"), str(error)) from None
        return certificate, key

    @property
    def certificate(self) -> Path:
        """The certificate of the router, whether it is there already or not."""
        if self.router.certificate is not None:
            return self.resolve_input(self.router.certificate)
        return self.state.tls / "server_cert.pem"

    def _nodes_of(self, group: str) -> list[str]:
        types = installed_types(group)
        return [name for name, entry in self.nodes.items() if entry.type in types]

    def entry(self, name: str) -> PartEntry:
        """Return the entry of a node or gateway.

        Raises
        ------
        ConfigurationError
            The site has no part of that name.
        """
        parts = {**self.nodes, **self.gateways}
        if name not in parts:
            raise ConfigurationError(
                f"{self.file.name}: no node or gateway is named {name!r}{suggestion(name, parts)}",
                remedy=f"one of {', '.join(parts) or 'none'}; add it under nodes:",
            )
        return parts[name]

    def part_class(self, name: str) -> type[Any]:
        """Return the class that the part's type names; imports its module."""
        section, group = ("gateways", GATEWAYS) if name in self.gateways else ("nodes", NODES)
        entry = self.entry(name)
        try:
            return node_class(entry.type, group)
        except ConfigurationError as error:
            raise self._at((section, name, "type"), str(error)) from None

    def options(self, name: str) -> BaseModel:
        """Return the part's options, checked by the ``Options`` model of its class.

        Raises
        ------
        ConfigurationError
            With one line a mistake in ``problems``.
        """
        section = "gateways" if name in self.gateways else "nodes"
        model: type[BaseModel] = self.part_class(name).Options
        try:
            return model.model_validate(self.entry(name).options)
        except ValidationError as error:
            raise _refusal(self._file, self._document, model, error, (section, name)) from None

    def check(self, names: Iterable[str] | None = None) -> None:
        """Check the options of the named parts (default: of all); raise one error with every mistake."""
        problems: list[str] = []
        for name in names if names is not None else [*self.nodes, *self.gateways]:
            try:
                self.options(name)
            except ConfigurationError as error:
                problems.extend(error.problems)
        if problems:
            raise ConfigurationError("\n".join(problems), problems=problems)

    def _at(self, path: tuple[str | int, ...], reason: str) -> ConfigurationError:
        place = self._document.place(path)
        return ConfigurationError(f"{self.file.name}, {place}: {'.'.join(map(str, path))}: {reason}")


def installed_types(group: str = NODES) -> dict[str, EntryPoint]:
    """Return the installed types of a group by name, without importing them."""
    return {point.name: point for point in entry_points(group=group)}


def node_class(kind: str, group: str = NODES) -> type[Any]:
    """Return the class of a node type.

    Raises
    ------
    ConfigurationError
        No such type is installed, or its module cannot be imported.
    """
    types = installed_types(group)
    if kind not in types:
        listing = ", ".join(sorted(types)) or "none"
        raise ConfigurationError(f'no type "{kind}" is installed{suggestion(kind, types)} (installed: {listing})')
    try:
        loaded: type[Any] = types[kind].load()
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(
            f'type "{kind}" cannot be loaded from {types[kind].value}: {error}',
            remedy="install what it needs, or take the part out of the site file",
        ) from error
    return loaded


def load_site(path: str | Path, *, check: Iterable[str] | None = (), overrides: Sequence[str] = ()) -> Site:
    """Read a site file, or the ``site.yml`` in a folder.

    Parameters
    ----------
    path : path
        The file, or the folder that holds ``site.yml``.
    check : names, optional
        Parts whose options are checked as well, which imports their code; None: all of them. Default: none.
    overrides : sequence of str
        ``key.path=value`` (a YAML value) each, taken over what the file has: ``router.port=8081``.

    Raises
    ------
    ConfigurationError
        The file is missing or has mistakes; ``problems`` holds one line for each.
    """
    file = Path(path).expanduser().absolute()
    if file.is_dir():
        file = file / "site.yml"
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigurationError(
            f"{path}: {reason}", remedy="`sisockdaq init FOLDER` writes a site file to begin with"
        ) from None
    try:
        document = read_yaml(text)
    except YamlError as error:
        raise ConfigurationError(f"{file.name}, line {error.line}: {error}") from None
    for text in overrides:
        _override(document, text)
    try:
        site = Site.model_validate(document.data)
    except ValidationError as error:
        raise _refusal(file, document, Site, error) from None
    site._file = file
    site._document = document
    site._overrides = tuple(overrides)
    site.check(check)
    return site


def _override(document: Document, text: str) -> None:
    path, value = read_setting(text)
    try:
        document.replace(path, value)
    except YamlError as error:
        raise ConfigurationError(f"--set {text}: {error}") from None


def _refusal(
    file: Path, document: Document, model: type[BaseModel], error: ValidationError, prefix: tuple[str, ...] = ()
) -> ConfigurationError:
    """Make one error of all that pydantic found, with the lines of the file."""
    problems = [
        f"{file.name}, {document.place(place)}: {'.'.join(map(str, place)) or 'file'}: {reason}"
        for place, reason in (((*prefix, *path), reason) for path, reason in complaints(model, error))
    ]
    return ConfigurationError("\n".join(problems), problems=problems)
