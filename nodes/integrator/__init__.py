"""Curves of every frame: the integrator node.

Options and fields are in `node`, the loop over frames is in `sisockdaq.integrate.live`.
"""

from sisockdaq.nodes.integrator.node import Integrator

__all__ = ["Integrator"]
