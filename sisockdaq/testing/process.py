"""``python -m sisockdaq.testing.process module:Class JSON``: a node for `NodeProcess`, in a process of its own."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

from sisockdaq.errors import SisockdaqError
from sisockdaq.session import Credentials, Endpoint, NodeHost, run_until_signal
from sisockdaq.state import StateDirectory


def main(where: str, given: str) -> None:
    """Run the node until SIGTERM."""
    module, _, name = where.partition(":")
    kind = getattr(importlib.import_module(module), name)
    settings = json.loads(given)
    state = StateDirectory(Path(settings["state"]))
    credentials = Credentials(settings["user"], state.secret(settings["user"]))
    host = NodeHost(kind, settings["name"], Endpoint.of_state(state), credentials, settings["options"], state=state)
    run_until_signal(host.start, host.stop)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except SisockdaqError as error:
        sys.exit(str(error))
