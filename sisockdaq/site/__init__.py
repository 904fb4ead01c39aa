"""``site.yml``: what runs at a site, checked before anything starts.

One file describes a site: its name, its router, its detector and its nodes. `load_site` reads it and promises that
what comes back is whole and valid; every mistake is one line with the place, the reason and the remedy::

    site.yml, line 6: nodes.integrator.unit: "q_nm" is not a unit; did you mean "q_nm^-1"? (one of q_nm^-1, …)

A node's type is found by entry point (group ``sisockdaq.nodes``, gateways ``sisockdaq.gateways``) and its options
are checked by that class's own ``Options`` model: built-in nodes have no other door than a third party's. Which node
types publish frames is said by entry points too (``sisockdaq.image_sources``, ``sisockdaq.result_sources``), so
that no part has to import another part's code to know it.

Paths: inputs (geometry, mask) are relative to the site file; outputs are relative to the data root (``data:``, or
``data/`` in the state directory).
"""

from __future__ import annotations

from sisockdaq.site._setting import read_setting
from sisockdaq.site._site import (
    PartEntry,
    RouterOptions,
    Site,
    installed_types,
    load_site,
    node_class,
)

__all__ = [
    "PartEntry",
    "RouterOptions",
    "Site",
    "installed_types",
    "load_site",
    "node_class",
    "read_setting",
]
