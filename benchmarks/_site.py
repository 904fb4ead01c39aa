"""The demo site for a benchmark: on free ports, with its state in a temporary folder."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from unittest import mock

from sisockdaq.cli._trial import Trial, example_site, private_site, trial

__all__ = ["demo_site"]


@contextlib.contextmanager
def demo_site(overrides: Sequence[str] = ()) -> Iterator[Trial]:
    """Run the demo site until the block ends; nothing of it stays."""
    with (
        tempfile.TemporaryDirectory(prefix="sisockdaq-bench-") as folder,
        mock.patch.dict(os.environ, {"SISOCKDAQ_STATE": folder}),
        trial(private_site(example_site("demo"), "bench", overrides)) as running,
    ):
        yield running
