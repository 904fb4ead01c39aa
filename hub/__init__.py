"""The hub: which nodes are on the network.

`registry` is the pure part, `session` joins it to the router. `run_hub` runs a site's hub in this process.
"""

from sisockdaq.hub.registry import Registry
from sisockdaq.hub.session import HubHost, HubSession, run_hub

__all__ = ["HubHost", "HubSession", "Registry", "run_hub"]
