"""Azimuthal integration: pyFAI's geometry, our own kernels. Needs no network."""

from sisockdaq.integrate.geometry import UNITS, RadialUnit, load_geometry, radial_unit
from sisockdaq.integrate.integrator import Box, Integrator, Result
from sisockdaq.integrate.masks import load_mask

__all__ = ["UNITS", "Box", "Integrator", "RadialUnit", "Result", "load_geometry", "load_mask", "radial_unit"]
