"""What stands behind `sisockdaq.session`: connections to the router, and the reactor they live in."""
