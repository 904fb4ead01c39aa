"""Azimuthal integration: geometry to bin maps, and the kernels that use them."""
