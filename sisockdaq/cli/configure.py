"""``sisockdaq configure``: change how an integrator works while it runs."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from sisockdaq.cli._options import AsJson
from sisockdaq.cli._reading import Network, clock, connect, print_json
from sisockdaq.errors import ConfigurationError
from sisockdaq.site import read_setting

__all__ = ["add_commands"]

_DEADLINE = 120.0
"""Time for a map to be computed and its kernels to be compiled [s]."""


def add_commands(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(configure)


def configure(
    node: Annotated[str, typer.Argument(help="Name of the integrator.")],
    changes: Annotated[
        list[str] | None, typer.Argument(help="New values as in the site file.", metavar="KEY=VALUE...")
    ] = None,
    site: Network = None,
    as_json: AsJson = False,
) -> None:
    """Change geometry, mask or other settings of a running integrator; without changes, show its epochs.

    Files are relative to the site file: `sisockdaq configure integrator geometry=new.poni mask=new.npy`. Whatever is
    wrong is told at once, and nothing has changed then.
    """
    wanted = merged(changes or [])
    with connect(site, control=True) as client:
        if wanted:
            epochs = [client.call_control(node, "configure", wanted, deadline=_DEADLINE)]
        else:
            epochs = client.call_control(node, "epochs")
    if as_json:
        print_json(epochs)
        return
    for epoch in epochs:
        typer.echo(describe(epoch))


def merged(changes: list[str]) -> dict[str, Any]:
    """Put ``key.path=value`` of a command line together as the site file would have them."""
    found: dict[str, Any] = {}
    for text in changes:
        path, value = read_setting(text)
        place = found
        for key in path[:-1]:
            place = place.setdefault(key, {})
            if not isinstance(place, dict):
                raise ConfigurationError(f"{text}: {key} has a value already", remedy="give it once")
        place[path[-1]] = value
    return found


def describe(epoch: dict[str, Any]) -> str:
    """Return an epoch as a line."""
    settings = ", ".join(f"{name}={value}" for name, value in epoch["settings"].items())
    held = f"; axis as before, for {epoch['held']}" if epoch["held"] else ""
    return f"epoch {epoch['number']} since {clock(epoch['since'])}, {epoch['frames']} frames: {settings}{held}"
