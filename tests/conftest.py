"""Fixtures of the whole suite: a real network, started once; and properties that are not judged by the clock."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

pytest_plugins = ["sisockdaq.testing.fixtures", "tests.lanes"]

# A machine that does much else is slow now and then: that says nothing about the code.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")
