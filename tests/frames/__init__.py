"""Tests of the frame plane."""
