"""Doors to other protocols, one folder each; found through the ``sisockdaq.gateways`` entry points."""
