"""The ``sisockdaq`` command."""
