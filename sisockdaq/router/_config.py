"""The router's configuration, filled in from a site, and its start."""

from __future__ import annotations

import html
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from sisockdaq.errors import ConfigurationError
from sisockdaq.router._certificate import ensure_certificate
from sisockdaq.router._plan import OcsAccess, RouterPlan, RouterSite, rights_warning
from sisockdaq.router._process import RouterProcess, free_port, require_free_port, template_folder
from sisockdaq.state import StateDirectory

__all__ = [
    "OcsAccess",
    "RouterPlan",
    "RouterProcess",
    "RouterSite",
    "free_port",
    "require_free_ports",
    "rights_warning",
    "router_config",
    "start_router",
    "write_router_config",
]

START_DEADLINE = 60.0
"""Longest start of the router that is waited for [s]; on a loaded machine it takes up to 20 s."""

_OCS_RULE = "{ocs_root}"
"""Beginning of the template's rules that are about OCS."""

_NODE_RULES = ("{base}.data_node.", "{base}.consumer.")
"""Beginnings of the rules that nodes of existing sites need."""

_PAGE = """<!doctype html><meta charset="utf-8"><title>sisockdaq: {site}</title>
<p>The router of the site <b>{site}</b> is up. Clients connect to the WebSocket at <code>{path}</code>.</p>
"""


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
        "ocs_host": plan.ocs.host if plan.ocs else "",
        "ocs_root": plan.ocs.address_root if plan.ocs else "",
    }
    worker = json.loads((template_folder() / "router.json").read_text(encoding="utf-8"))["workers"][0]
    realm = worker["realms"][0]
    realm["roles"] = list(_roles(realm["roles"], plan))
    local, network, ocs = worker["transports"]
    users = {user: {"secret": secret(user), "role": role} for user, role in plan.users().items()}
    local["options"]["max_message_size"] = plan.max_message_size
    network["endpoint"]["port"] = plan.port
    for transport in (network, ocs):
        websocket = transport["paths"]["ws"]
        websocket["options"] |= {"max_message_size": plan.max_message_size, "max_frame_size": plan.max_message_size}
    if plan.ocs is None:
        worker["transports"].remove(ocs)
    else:
        ocs["endpoint"]["port"] = plan.ocs.port
    worker = _filled(worker, values)
    # The users come last, so that no secret passes through the filling in of the template.
    for transport in (worker["transports"][0], worker["transports"][1]["paths"]["ws"]):
        transport["auth"]["wampcra"]["users"] = users
    return {"version": 2, "controller": {}, "workers": [worker]}


def write_router_config(site: RouterSite | RouterPlan, state: StateDirectory) -> Path:
    """Write the router's configuration, its secrets and its certificate; return the configuration's path.

    Also stores the router's endpoint, by which clients on this machine find it.

    Raises
    ------
    ConfigurationError
        The site's own certificate, or the secret of one of its users, is not there.
    """
    plan = site if isinstance(site, RouterPlan) else RouterPlan.of(site)
    state.make()
    given, own = ({}, None) if isinstance(site, RouterPlan) else (site.user_secrets(), site.own_certificate())
    certificate, key = own or ensure_certificate(state.tls, [plan.local_host, *plan.certificate_names])
    config = router_config(
        plan,
        secret=lambda user: given.get(user) or state.secret(user),
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
    require_free_ports(plan)
    config = write_router_config(plan, state)
    process = RouterProcess(
        command=router_command(config),
        log=state.logs / "router.log",
        socket=state.router_socket,
        addresses=_local_addresses(plan),
    )
    process.start()
    process.wait_until_ready(deadline)
    return process


def require_free_ports(plan: RouterPlan) -> None:
    """Raise `PortTaken` unless every port of the plan can be listened on."""
    for key, (host, port) in plan.addresses.items():
        require_free_port(host, port, "the router", key)


def _local_addresses(plan: RouterPlan) -> list[tuple[str, int]]:
    """Return where this machine reaches the router's ports."""
    ocs = [(plan.ocs.local_host, plan.ocs.port)] if plan.ocs else []
    return [(plan.local_host, plan.port), *ocs]


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
    """Give each node its own copy of the node role; leave out roles and rules that this site has no use for."""
    roles = {role["name"]: {**role, "permissions": _rules(role, plan)} for role in templates}
    if plan.ocs is not None and plan.ocs.full_rights:
        # What nodes with a shared user have, and not a bit of what is the hub's alone.
        rules = roles["server"]["permissions"]
        roles["ocs"]["permissions"] += [rule for rule in rules if rule["uri"].startswith(_NODE_RULES)]
    wanted = {*plan.users().values(), *(["ocs"] if plan.ocs is not None else [])}
    yield from (_filled(roles["node_{node}"], {"node": node}) for node in plan.nodes)
    yield from (role for name, role in roles.items() if name in wanted)


def _rules(role: Mapping[str, Any], plan: RouterPlan) -> list[dict[str, Any]]:
    """Return a role's rules, without those about OCS where the site has nothing to do with it."""
    return [rule for rule in role["permissions"] if plan.ocs is not None or not rule["uri"].startswith(_OCS_RULE)]


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
