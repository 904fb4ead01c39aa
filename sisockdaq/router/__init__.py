"""The site's WAMP router: its configuration, made from the site, and its process.

The router is crossbar, run as a process of its own. `write_router_config` fills the template in ``crossbar/`` and
promises: every way in asks for a secret (WAMP-CRA), every node has a role that lets it register its own names and no
others, TLS on every network socket, limits and pings on every transport. The one exception is asked for by name: with
``router.ocs`` the agents of OCS have a plain port without a login, which gives rights on OCS's own names only.
`start_router` starts the router, and returns once all transports take connections.

Secrets and certificates are made at the first start and stay in the site's state directory, unless the site names some
that exist.
"""

from __future__ import annotations

from sisockdaq.router._config import (
    OcsAccess,
    RouterPlan,
    RouterProcess,
    RouterSite,
    free_port,
    require_free_ports,
    rights_warning,
    router_command,
    router_config,
    start_router,
    write_router_config,
)

__all__ = [
    "OcsAccess",
    "RouterPlan",
    "RouterProcess",
    "RouterSite",
    "free_port",
    "require_free_ports",
    "rights_warning",
    "router_command",
    "router_config",
    "start_router",
    "write_router_config",
]
