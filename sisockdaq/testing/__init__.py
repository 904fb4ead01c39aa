"""What tests of nodes need: a real router, a network in one fixture, and fakes.

In a test suite's ``conftest.py``::

    pytest_plugins = ["sisockdaq.testing.fixtures"]

and a test asks for ``network`` (a `Network`)::

    def test_pressure_is_served(network):
        node = network.start(Pressure, port="loop://", interval=0.1)
        network.wait_for("pressure::pressure", samples=3)

The router is started once for the whole run; nodes and what a test starts besides end with the test.
"""

from sisockdaq.testing.network import Caller, Network, NodeProcess, RunningNode
from sisockdaq.testing.waiting import wait_until

__all__ = ["Caller", "Network", "NodeProcess", "RunningNode", "wait_until"]
