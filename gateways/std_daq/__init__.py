"""The gateway to programs that speak std-daq: its REST interface, its Redis streams and its live image stream.

`pages` is the HTTP; `models` checks requests and makes the `openapi` document; `daq` asks writer and receiver, and
`words` and `deploying` (both pure) say it in std-daq's words; `streams` is Redis, `live` the live images, `images` the
recorded ones, `simulation` the simulated detector; `cli` has the ``std_cli_*`` commands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sisockdaq.gateways.std_daq.node import StdDaq as StdDaq

__all__ = ["StdDaq"]


def __getattr__(name: str) -> Any:
    """Import `StdDaq` when it is first asked for: the commands of `cli` begin without the network's libraries."""
    if name == "StdDaq":
        from sisockdaq.gateways.std_daq.node import StdDaq

        return StdDaq
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
