"""Fixtures of the whole suite: a real network, started once."""

pytest_plugins = ["sisockdaq.testing.fixtures"]
