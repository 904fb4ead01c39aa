"""`Client`: the whole network for scripts, notebooks and the command line.

::

    with Client("demo") as site:
        data = site.get("integrator::total", start=-3600, max_points=2000)
        data["integrator::total"].t, data["integrator::total"].values

It blocks, so nothing of WAMP, Twisted or chunks shows. It promises: every call ends, with an answer or with an error of
`sisockdaq.errors` that says why; archived and live samples come as one answer, each once; what could not be had is
named in ``problems``; a lost connection is made again, and calls wait for that within their deadline.

Reading is done as the user ``consumer``; starting and stopping acquisitions, as ``control``, on a connection of its own
that is made when it is first needed.
"""

from __future__ import annotations

from sisockdaq.client._client import (
    Client,
    Dataset,
    FieldData,
    Image,
    Run,
    Sample,
    Table,
    Watch,
    is_running,
    known_sites,
)
from sisockdaq.client._serving import ServingClient

__all__ = [
    "Client",
    "Dataset",
    "FieldData",
    "Image",
    "Run",
    "Sample",
    "ServingClient",
    "Table",
    "Watch",
    "is_running",
    "known_sites",
]
