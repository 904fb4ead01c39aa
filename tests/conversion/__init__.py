"""Tests of `sisockdaq.conversion`."""
