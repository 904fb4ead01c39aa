"""The site's WAMP router: its configuration, made from the site, and its process.

The router is crossbar, run as a process of its own. `write_router_config` fills the template in ``crossbar/`` and
promises: every way in asks for a secret (WAMP-CRA), every node has a role that lets it register its own names and no
others, TLS on every network socket, limits and pings on every transport. `start_router` starts it, and returns once
both transports take connections.

Secrets and certificates are made at the first start and stay in the site's state directory.
"""

from __future__ import annotations

from sisockdaq.router._config import (
    RouterPlan,
    RouterProcess,
    RouterSite,
    free_port,
    router_command,
    router_config,
    start_router,
    write_router_config,
)

__all__ = [
    "RouterPlan",
    "RouterProcess",
    "RouterSite",
    "free_port",
    "router_command",
    "router_config",
    "start_router",
    "write_router_config",
]
