"""The sensors of the machine that the node runs on.

`readings` reads them, `node` makes them fields.
"""

from sisockdaq.nodes.sensors.node import Sensors

__all__ = ["Sensors"]
