"""``sisockdaq run``: one part of a site in this process, as the supervisor, systemd or a container starts it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from sisockdaq.cli._options import Set, SiteFile
from sisockdaq.site import Site, load_site
from sisockdaq.supervisor import end_with_parent

__all__ = ["add_commands", "run_part"]


def add_commands(app: typer.Typer) -> None:
    """Add ``run``."""
    app.command()(run)


def run(
    name: Annotated[str, typer.Argument(help="router, hub, or the name of a node or gateway in the site file.")],
    site: SiteFile = Path("site.yml"),
    settings: Set = None,
) -> None:
    """Run one part of a site here, until SIGTERM or Ctrl-C.

    `sisockdaq up` does this for all parts; by hand it serves to debug a node, or to run it on another machine.
    """
    end_with_parent()
    run_part(load_site(site, overrides=settings or []), name)


def run_part(site: Site, name: str) -> None:
    """Become the part of that name; returns when it has ended."""
    if name == "router":
        _run_router(site)
    elif name == "hub":
        from sisockdaq.hub import run_hub

        run_hub(site)
    elif name in site.gateways:
        from sisockdaq.gateway import run_site_gateway

        run_site_gateway(site.part_class(name), name, site, site.options(name))
    else:
        from sisockdaq.session import run_node

        run_node(site.part_class(name), name, site, site.options(name))


def _run_router(site: Site) -> None:
    """Become the router: this process turns into crossbar."""
    from sisockdaq.router import RouterPlan, require_free_ports, rights_warning, router_command, write_router_config
    from sisockdaq.router._process import router_environment

    require_free_ports(RouterPlan.of(site))
    if warning := rights_warning(site.router.ocs):
        print(f"warning: {warning}", file=sys.stderr, flush=True)
    command = router_command(write_router_config(site, site.state))
    site.state.router_socket.unlink(missing_ok=True)  # what a killed router left behind
    os.execve(command[0], command, router_environment())
