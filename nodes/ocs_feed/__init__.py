"""Live data of OCS agents, as a node.

Options and fields are in `node`; `messages` reads what an agent published, `addresses` says which feeds are meant, and
`cache` keeps names, types and limits.
"""

from sisockdaq.nodes.ocs_feed.node import OcsFeed

__all__ = ["OcsFeed"]
