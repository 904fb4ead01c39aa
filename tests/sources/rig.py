"""A source's node, its consumers and the way of a frame to the archive, for all kinds of sources."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from sisockdaq.nodes.file_writer import FileWriter
from sisockdaq.nodes.hdf5_archive import Hdf5Archive

from sisockdaq.frames import make_consumer
from sisockdaq.testing.network import Network
from sisockdaq.testing.waiting import wait_until

DEADLINE = 20.0


def picture(number: int, shape: tuple[int, int] = (20, 30), dtype: str = "uint16") -> np.ndarray:
    """The image of a number."""
    values = np.random.default_rng(number).integers(0, 100, shape)
    return values.astype(dtype)


def take(consumer: Any, until: type) -> list[Any]:
    """Return all marks and frames, as (header, pixels), up to a mark of that kind."""
    seen: list[Any] = []
    for _ in range(2000):
        item = consumer.next(DEADLINE)
        assert item is not None, f"nothing came for {DEADLINE} s after {seen[-3:]}"
        if hasattr(item, "pixels"):
            with item as frame:
                seen.append((frame.header, frame.pixels.copy()))
        else:
            seen.append(item)
            if isinstance(item, until):
                return seen
    raise AssertionError("no end")


def frames_of(seen: list[Any]) -> list[Any]:
    return [item for item in seen if isinstance(item, tuple)]


def consumer_of(running: Any, name: str = "test") -> Any:
    return make_consumer(running.node.frames_address, name=name, reports=False)


def record_to_archive(
    network: Network,
    source: str,
    folder: Path,
    frames: int | None,
    send: Callable[[], None],
    *,
    meta: dict[str, Any] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Write an acquisition of what `send` sends, and open it with the archive; returns the writer's last status."""
    writer = network.start(FileWriter, directory=str(folder), frames=source, results=[], **options)
    wait_until(lambda: writer.node.engine is not None and writer.node.engine.sources == [source], DEADLINE, "attaching")
    network.call("control.file_writer.start", user="control", acquisition="run_1", frames=frames, meta=meta)
    send()

    def status() -> dict[str, Any]:
        return dict(network.call("control.file_writer.status", user="control"))

    wait_until(lambda: status()["state"] == "READY", DEADLINE, "the end of the acquisition")
    network.start(Hdf5Archive, directory=str(folder))
    return status()
