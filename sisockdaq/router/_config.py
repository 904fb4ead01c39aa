"""The router's configuration, filled in from a site, and its start."""

from __future__ import annotations

import html
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sisockdaq.errors import ConfigurationError
from sisockdaq.router._certificate import ensure_certificate
from sisockdaq.router._process import RouterProcess, free_port, require_free_port, template_folder
from sisockdaq.state import StateDirectory

__all__ = [
    "RouterPlan",
    "RouterProcess",
    "RouterSite",
    "free_port",
    "router_config",
    "start_router",
    "write_router_config",
]

START_DEADLINE = 60.0
"""Longest start of the router that is waited for [s]; on a loaded machine it takes up to 20 s."""

_FIXED_USERS = {"hub": "hub", "consumer": "consumer", "control": "control"}
"""Users that every site has, with their roles."""

_PAGE = """<!doctype html><meta charset="utf-8"><title>sisockdaq: {site}</title>
<p>The router of the site <b>{site}</b> is up. Clients connect to the WebSocket at <code>{path}</code>.</p>
"""

_LARGEST_MESSAGE = 16 * 2**20
"""RawSocket announces its limit as a power of two, at most 2**24 bytes."""


class _RouterOptions(Protocol):
    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int: ...
    @property
    def names(self) -> list[str]: ...
    @property
    def max_message_size(self) -> int: ...


class RouterSite(Protocol):
    """What the router needs to know of a site; `sisockdaq.site.Site` is one."""

    @property
    def site(self) -> str: ...
    @property
    def realm(self) -> str: ...
    @property
    def base_uri(self) -> str: ...
    @property
    def router(self) -> _RouterOptions: ...
    @property
    def nodes(self) -> Mapping[str, Any]: ...


@dataclass(frozen=True, slots=True)
class RouterPlan:
    """Everything that a router's configuration depends on, apart from secrets and paths.

    Attributes
    ----------
    site, realm, base_uri : str
        Names of the site, its realm and the prefix of all its WAMP names.
    nodes : tuple of str
        Names of the nodes; each gets a user of that name, and a role of its own.
    host, port
        Where the TLS WebSocket listens.
    certificate_names : tuple of str
        Further host names and addresses for the certificate.
    max_message_size : int
        Largest message of either transport [bytes].
    servers : tuple of str
        Users with the role ``server``: nodes that share one user, as in existing sisock sites.
    """

    site: str
    realm: str = "sisockdaq"
    base_uri: str = "sisockdaq"
    nodes: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    port: int = 8080
    certificate_names: tuple[str, ...] = ()
    max_message_size: int = _LARGEST_MESSAGE
    servers: tuple[str, ...] = ()

    @classmethod
    def of(cls, site: RouterSite) -> RouterPlan:
        """Return the plan for a site."""
        return cls(
            site=site.site,
            realm=site.realm,
            base_uri=site.base_uri,
            nodes=tuple(site.nodes),
            host=site.router.host,
            port=site.router.port,
            certificate_names=tuple(site.router.names),
            max_message_size=site.router.max_message_size,
        )

    @property
    def url(self) -> str:
        """Address of the TLS WebSocket as reached from this machine."""
        return f"wss://{self.local_host}:{self.port}/ws"

    @property
    def local_host(self) -> str:
        """Address for connections from this machine."""
        return "127.0.0.1" if self.host in ("0.0.0.0", "::", "") else self.host

    def users(self) -> dict[str, str]:
        """Return every user with its role."""
        users = {node: f"node_{node}" for node in self.nodes}
        users.update(dict.fromkeys(self.servers, "server"))
        return {**users, **_FIXED_USERS}


def router_config(
    plan: RouterPlan, *, secret: Callable[[str], str], socket: Path, certificate: Path, key: Path, web: Path
) -> dict[str, Any]:
    """Return crossbar's configuration for a plan.

    Parameters
    ----------
    plan : RouterPlan
    secret : callable
        Gives a user's secret.
    socket, certificate, key : Path
        The unix socket to listen on; certificate and key of the TLS WebSocket.
    web : Path
        Folder of the pages that are served beside the WebSocket.
    """
    values = {
        "realm": plan.realm,
        "base": plan.base_uri,
        "host": plan.host,
        "socket": str(socket),
        "certificate": str(certificate),
        "key": str(key),
        "web": str(web),
    }
    worker = json.loads((template_folder() / "router.json").read_text(encoding="utf-8"))["workers"][0]
    realm = worker["realms"][0]
    realm["roles"] = list(_roles(realm["roles"], plan))
    local, network = worker["transports"]
    users = {user: {"secret": secret(user), "role": role} for user, role in plan.users().items()}
    local["options"]["max_message_size"] = plan.max_message_size
    network["endpoint"]["port"] = plan.port
    websocket = network["paths"]["ws"]
    websocket["options"] |= {"max_message_size": plan.max_message_size, "max_frame_size": plan.max_message_size}
    worker = _filled(worker, values)
    # The users come last, so that no secret passes through the filling in of the template.
    for transport in (worker["transports"][0], worker["transports"][1]["paths"]["ws"]):
        transport["auth"]["wampcra"]["users"] = users
    return {"version": 2, "controller": {}, "workers": [worker]}


def write_router_config(site: RouterSite | RouterPlan, state: StateDirectory) -> Path:
    """Write the router's configuration, its secrets and its certificate; return the configuration's path.

    Also stores the router's endpoint, by which clients on this machine find it.
    """
    plan = site if isinstance(site, RouterPlan) else RouterPlan.of(site)
    state.make()
    certificate, key = ensure_certificate(state.tls, [plan.local_host, *plan.certificate_names])
    config = router_config(
        plan,
        secret=state.secret,
        socket=state.router_socket.absolute(),
        certificate=certificate.absolute(),
        key=key.absolute(),
        web=_web_folder(plan, state),
    )
    path = state.router / "config.json"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        os.fchmod(stream.fileno(), 0o600)
        json.dump(config, stream, indent=1)
    state.write_endpoint(
        {
            "site": plan.site,
            "realm": plan.realm,
            "base_uri": plan.base_uri,
            "url": plan.url,
            "socket": str(state.router_socket.absolute()),
            "certificate": str(certificate),
        }
    )
    return path


def start_router(
    site: RouterSite | RouterPlan, state: StateDirectory, *, deadline: float = START_DEADLINE
) -> RouterProcess:
    """Write the configuration, start the router and wait until it takes connections.

    Raises
    ------
    PortTaken
        Another program listens on the router's port.
    ConfigurationError
        crossbar is not installed.
    DeadlineExceeded, ConnectionFailed
        It did not come up in time, or stopped; the end of its log is in the message.
    """
    plan = site if isinstance(site, RouterPlan) else RouterPlan.of(site)
    require_free_port(plan.host, plan.port, "the router")
    config = write_router_config(plan, state)
    process = RouterProcess(
        command=router_command(config),
        log=state.logs / "router.log",
        socket=state.router_socket,
        address=(plan.local_host, plan.port),
    )
    process.start()
    process.wait_until_ready(deadline)
    return process


def router_command(config: Path) -> list[str]:
    """Return the command line that runs the router in the foreground.

    Raises
    ------
    ConfigurationError
        crossbar is not installed.
    """
    beside = Path(sys.executable).with_name("crossbar")
    program = str(beside) if beside.is_file() else shutil.which("crossbar")
    if program is None:
        raise ConfigurationError("crossbar, the router, is not installed", remedy="pip install 'sisockdaq[router]'")
    return [
        program,
        "start",
        "--cbdir",
        str(config.parent),
        "--config",
        config.name,
        "--loglevel",
        "warn",
        "--color",
        "false",
    ]


def _web_folder(plan: RouterPlan, state: StateDirectory) -> Path:
    """Return the folder of the router's pages, with a page that says whose router this is."""
    folder = (state.router / "web").absolute()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    (folder / "index.html").write_text(_PAGE.format(site=html.escape(plan.site), path="/ws"), encoding="utf-8")
    return folder


def _roles(templates: Iterable[dict[str, Any]], plan: RouterPlan) -> Iterable[dict[str, Any]]:
    """Give each node its own copy of the node role; leave out roles that nobody has."""
    wanted = set(plan.users().values())
    for role in templates:
        if role["name"] == "node_{node}":
            yield from (_filled(role, {"node": node}) for node in plan.nodes)
        elif role["name"] in wanted:
            yield role


def _filled(value: Any, values: Mapping[str, str]) -> Any:
    """Return a copy of nested data with every ``{name}`` in its strings replaced."""
    if isinstance(value, str):
        for name, text in values.items():
            value = value.replace(f"{{{name}}}", text)
        return value
    if isinstance(value, dict):
        return {key: _filled(item, values) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, values) for item in value]
    return value
