"""``sisockdaq up``: all parts of a site on this machine, with a live table."""

from __future__ import annotations

import contextlib
import fcntl
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from sisockdaq.cli._options import AsJson, Plain, Set
from sisockdaq.errors import ConfigurationError
from sisockdaq.notify import notify_ready
from sisockdaq.router import write_router_config
from sisockdaq.site import Site, load_site
from sisockdaq.supervisor import Part, Supervisor

__all__ = ["add_commands", "prepared", "site_parts", "until_signal"]

READY_DEADLINE = 90.0
"""Longest start of a site that is waited for [s]; a loaded machine takes tens of seconds for the router alone."""


def add_commands(app: typer.Typer) -> None:
    """Add ``up``."""
    app.command()(up)


def up(
    where: Annotated[Path, typer.Argument(help="The site file, or its folder.", metavar="SITE")] = Path("site.yml"),
    settings: Set = None,
    plain: Plain = False,
    as_json: AsJson = False,
) -> None:
    """Run all parts of a site on this machine: router, hub and every node, each in its own process.

    A part that dies is started again. Ctrl-C ends all in order. Logs are in the site's state directory.
    """
    from sisockdaq.cli.table import chosen_style, show_site

    site = load_site(where, check=None, overrides=settings or [])
    with until_signal() as stop, prepared(site), Supervisor(site_parts(site), site.state.logs) as supervisor:
        style = chosen_style(plain=plain, as_json=as_json)
        show_site(site, supervisor, stop, style=style, on_ready=notify_ready)


def site_parts(site: Site) -> list[Part]:
    """Return the processes of a site: router, hub, then every node in the file's order."""
    base = (sys.executable, "-m", "sisockdaq.cli", "run", *site.arguments)
    entries = {**site.nodes, **site.gateways}
    return [
        Part("router", "crossbar", (*base, "router"), stage=0),
        Part("hub", "hub", (*base, "hub"), stage=1),
        *(Part(name, entry.type, (*base, name), stage=2) for name, entry in entries.items()),
    ]


@contextlib.contextmanager
def prepared(site: Site) -> Iterator[None]:
    """Hold the site's lock, with its secrets, certificate and router configuration in place.

    All secrets are made here, before any part runs, so that no two processes make the same one.

    Raises
    ------
    ConfigurationError
        The site is running already.
    """
    state = site.state.make()
    lock = state.path / "lock"
    with lock.open("a+") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(
                f"site {site.site} is running already, with its state in {state.path}",
                remedy="stop it with Ctrl-C in its terminal, or give this one another name with --set site=NAME",
            ) from None
        write_router_config(site, state)
        yield


@contextlib.contextmanager
def until_signal() -> Iterator[threading.Event]:
    """Yield an event that Ctrl-C, SIGTERM and SIGHUP set; a second Ctrl-C interrupts at once."""
    stop = threading.Event()

    def ask_to_stop(number: int, _frame: FrameType | None) -> None:
        if stop.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, ask_to_stop) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
