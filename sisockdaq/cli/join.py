"""``sisockdaq join``: one part of a network that has no site file, configured by environment variables.

It takes the place of a container of a sisock site: a node, the hub or a gateway, at the router that is there.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sisockdaq.environment import (
    NETWORK_VARIABLES,
    NetworkSettings,
    checked_options,
    network_name,
    network_settings,
    option_variables,
)
from sisockdaq.errors import ConfigurationError
from sisockdaq.state import StateDirectory, find_state

if TYPE_CHECKING:
    from sisockdaq.session import Credentials, Endpoint

__all__ = ["add_commands", "types"]

HUB = "hub"

_GROUPS = ("sisockdaq.nodes", "sisockdaq.gateways")

_EPILOG = "\n\n".join(
    ["Variables of every part:"]
    + [f"{one.name}: {one.meaning}" + (f" (default {one.default})" if one.default else "") for one in NETWORK_VARIABLES]
)


def add_commands(app: typer.Typer) -> None:
    """Add ``join``."""
    app.command(epilog=_EPILOG)(join)


def join(
    kind: Annotated[
        str, typer.Argument(metavar="TYPE", help="A type of node or gateway, or hub; --list shows them.")
    ] = "",
    name: Annotated[str | None, typer.Option(help="Name on the network, instead of NAME.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="An option of the type, above its variable; may be repeated."),
    ] = None,
    realm: Annotated[str | None, typer.Option(help="Realm, instead of WAMP_REALM.")] = None,
    base_uri: Annotated[str | None, typer.Option(help="Prefix of all names, instead of WAMP_BASE_URI.")] = None,
    certificate: Annotated[
        Path | None, typer.Option(help="The router's certificate, instead of .crossbar/server_cert.pem.")
    ] = None,
    ocs: Annotated[
        bool, typer.Option("--ocs", help="Join by the open port that OCS agents use, without a secret.")
    ] = False,
    listing: Annotated[
        bool, typer.Option("--list", help="Show the variables and options of the type, or all.")
    ] = False,
) -> None:
    """Run one part in an existing sisock network, without a site file, until SIGTERM or Ctrl-C.

    It reads the variables that sisock's containers read, so it can take the place of one: a node, the hub, or the
    Grafana gateway. Secrets come from the environment or a file only, never from the command line.
    """
    kind = kind.replace("-", "_")
    if listing:
        _print_types([kind] if kind else [HUB, *types()])
        return
    if not kind:
        raise ConfigurationError("join what? a TYPE is missing", remedy=f"one of {', '.join([HUB, *types()])}")
    if kind != HUB:
        _group(kind)  # a mistyped type comes before a missing secret
    network = network_settings(os.environ, open_port=ocs, realm=realm, base_uri=base_uri, certificate=certificate)
    _require_certificate(network)
    if kind == HUB:
        _run_hub(network, settings or [])
    else:
        _run_part(kind, network, name, settings or [])


def types() -> list[str]:
    """Return the installed types of nodes and gateways."""
    from sisockdaq.site import installed_types

    return sorted(kind for group in _GROUPS for kind in installed_types(group))


def _group(kind: str) -> str:
    """Return the entry-point group that has a type."""
    from sisockdaq.site import installed_types

    for group in _GROUPS:
        if kind in installed_types(group):
            return group
    raise ConfigurationError(
        f'no type "{kind}" is installed',
        remedy=f"one of {', '.join([HUB, *types()])}; `sisockdaq join --list` explains",
    )


def _run_part(kind: str, network: NetworkSettings, name: str | None, settings: list[str]) -> None:
    from sisockdaq.session import NodeHost, run_host
    from sisockdaq.site import node_class

    group = _group(kind)
    part = node_class(kind, group)
    options = checked_options(part.Options, os.environ, _given(settings))
    called = network_name(kind, getattr(part, "name", None), os.environ, name)
    endpoint, credentials = _way_in(network)
    state = _made(find_state(f"joined-{called}"))
    if group == _GROUPS[0]:
        description = os.environ.get("DESCRIPTION") or None
        run_host(NodeHost(part, called, endpoint, credentials, options, None, state, description))
    else:
        from sisockdaq.gateway import run_gateway

        run_gateway(part, called, endpoint, credentials, options, state=state)


def _run_hub(network: NetworkSettings, settings: list[str]) -> None:
    from sisockdaq.hub import HubHost
    from sisockdaq.session import run_until_signal

    if settings:
        raise ConfigurationError(f"--set {settings[0]}: the hub has no options")
    endpoint, credentials = _way_in(network)
    state = _made(find_state("joined-hub"))
    memory = state.path / "hub.json" if state is not None else None
    host = HubHost(endpoint, credentials, memory, undisclosed=True)
    run_until_signal(host.start, host.stop)


def _made(state: StateDirectory) -> StateDirectory | None:
    """Make a state directory; None where nothing can be written, as in a read-only container."""
    try:
        return state.make()
    except OSError:
        return None


def _way_in(network: NetworkSettings) -> tuple[Endpoint, Credentials]:
    from sisockdaq.session import Credentials, Endpoint

    endpoint = Endpoint(network.url, network.realm, network.base_uri, certificate=network.certificate, any_host=True)
    return endpoint, Credentials(network.user, network.secret)


def _require_certificate(network: NetworkSettings) -> None:
    if network.certificate is None or network.certificate.is_file():
        return
    raise ConfigurationError(
        f"the router's certificate is not there: {network.certificate.absolute()}",
        remedy="it is the file that the router's `tls` names; mount its folder, as `-v ./.crossbar:/app/.crossbar:ro`, "
        "or name it with --certificate",
    )


def _given(settings: list[str]) -> dict[str, Any]:
    """Read ``key=value`` pairs; a value is YAML, a dotted key reaches into a group of options."""
    from sisockdaq.site import read_setting

    given: dict[str, Any] = {}
    for text in settings:
        path, value = read_setting(text)
        place = given
        for key in path[:-1]:
            if not isinstance(place.get(key), dict):
                place[key] = {}
            place = place[key]
        place[path[-1]] = value
    return given


def _print_types(kinds: list[str]) -> None:
    """Print for each type which variables and options it takes."""
    from sisockdaq.site import node_class

    typer.echo("every part")
    for variable in NETWORK_VARIABLES:
        typer.echo(_line(variable.name, variable.meaning, variable.default))
    for kind in kinds:
        typer.echo(f"\n{kind}")
        if kind == HUB:
            typer.echo("    no options")
            continue
        try:
            model = node_class(kind, _group(kind)).Options
        except ConfigurationError as error:
            typer.echo(f"    {error}")
            continue
        variables = option_variables(model)
        for one in variables:
            meaning = f"{one.meaning} (option {one.option})"
            typer.echo(_line(one.variable, meaning, "must be set" if one.required else one.default))
        others = [option for option in model.model_fields if option not in {one.option for one in variables}]
        if others:
            typer.echo(f"    --set: {', '.join(others)}")


def _line(name: str, meaning: str, default: str) -> str:
    return f"    {name:<20} {meaning}" + (f" [{default}]" if default else "")
