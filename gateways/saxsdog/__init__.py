"""SAXSdog's network: the server behind its ZeroMQ protocol, its feeder and its leash.

`server` is what the commands do, `service` its sockets, `node` the gateway of a site; `feeder` tells of new files,
`leash` asks, `drawing` shows curves; `cli` has the commands ``saxsdogserver``, ``saxsfeeder``, ``saxsleash`` and
``saxsnetconf``. The protocol itself, and what is computed, is `sisockdaq.saxsdog`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sisockdaq.gateways.saxsdog.node import Saxsdog as Saxsdog

__all__ = ["Saxsdog"]


def __getattr__(name: str) -> Any:
    """Import `Saxsdog` when it is first asked for: the leash begins without the network's libraries."""
    if name == "Saxsdog":
        from sisockdaq.gateways.saxsdog.node import Saxsdog

        return Saxsdog
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
