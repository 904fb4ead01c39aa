"""A sender, and writers that are connected to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401 - its filters
import numpy as np
import numpy.typing as npt
import pytest

from sisockdaq.jungfraujoch import StreamWriter, WriterOptions
from sisockdaq.testing import wait_until
from tests.jungfraujoch.sender import Sender

StartWriter = Callable[..., StreamWriter]


@pytest.fixture
def sender() -> Iterator[Sender]:
    made = Sender()
    yield made
    made.close()


@pytest.fixture
def start_writer(tmp_path: Path, sender: Sender) -> Iterator[StartWriter]:
    writers: list[StreamWriter] = []

    def begin(*more: Sender, **options: Any) -> StreamWriter:
        senders = [sender, *more]
        chosen = {"root": tmp_path, "flush_interval": 0.05, **options}
        writer = StreamWriter(WriterOptions(connect=[each.address for each in senders], **chosen)).start()
        writers.append(writer)
        wait_until(lambda: writer.status()["connected"] == len(senders))
        return writer

    yield begin
    for writer in writers:
        writer.close()


def finished(writer: StreamWriter, prefix: str = "run") -> dict[str, Any]:
    """Wait for the end of a series; return the status."""

    def over() -> Any:
        status = writer.status()
        return status["file_prefix"] == prefix and status["ended"] and status["state"] == "READY" and status

    return dict(wait_until(over))


def images_of(folder: Path, prefix: str = "run") -> npt.NDArray[Any]:
    """Return all rows of a series through its master's links."""
    with h5py.File(folder / f"{prefix}_master.h5") as file:
        links = sorted(name for name in file["entry/data"] if name.startswith("data_0"))
        return np.concatenate([file["entry/data"][name][()] for name in links])
