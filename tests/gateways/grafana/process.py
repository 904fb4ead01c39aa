"""A gateway in a process of its own, as the user ``consumer``: started by a test with JSON as its only argument."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from sisockdaq.gateways.grafana import Grafana

from sisockdaq.gateway import run_gateway
from sisockdaq.session import Credentials, Endpoint
from sisockdaq.state import StateDirectory

if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    state = StateDirectory(Path(given["state"]))
    user = Credentials("consumer", state.secret("consumer"))
    run_gateway(Grafana, "grafana", Endpoint.of_state(state), user, {"port": given["port"]}, state=state)
