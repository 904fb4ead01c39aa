"""Tests of sisockdaq; the folders mirror the source tree."""
