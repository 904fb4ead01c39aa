"""Files that appear in folders, to a subscriber that shares no code with the feeder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq
from sisockdaq.gateways.saxsdog.feeder import Feeder

from sisockdaq.errors import ConfigurationError, PortTaken
from sisockdaq.testing import wait_until


@contextmanager
def heard(*folders: Path, **options: Any) -> Iterator[tuple[Feeder, list[Any]]]:
    """Run a feeder; the list gets what a subscriber hears, at each look."""
    feeder = Feeder(folders, "tcp://127.0.0.1:*", **options)
    feeder.start()
    socket: Any = zmq.Context.instance().socket(zmq.SUB)
    socket.set(zmq.SUBSCRIBE, b"")
    socket.connect(feeder.address)
    said: list[Any] = []

    def look() -> list[Any]:
        feeder.publish_waiting(0.02)
        while socket.poll(20):
            said.append(json.loads(socket.recv())["argument"])
        return said

    def subscribed() -> bool:
        feeder._notice(folders[0] / "hello.tif")
        return bool(look())

    try:
        wait_until(subscribed, 10, "the subscription")
        said.clear()
        yield feeder, _Looking(look)
    finally:
        socket.close(0)
        feeder.close()


class _Looking(list[Any]):
    def __init__(self, look: Any) -> None:
        super().__init__()
        self._look = look

    def wait(self, *paths: str) -> None:
        wait_until(lambda: set(paths) <= set(self._look()), 10, f"{paths}")
        assert set(self._look()) - {p for p in self._look() if p.endswith("hello.tif")} == set(paths)


def test_whole_images_of_several_folders_are_told_of(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    (one / "deep").mkdir(parents=True)
    two.mkdir()
    with heard(one, two) as (feeder, said):
        writing = (one / "half.tif").open("wb")
        writing.write(b"half")
        writing.flush()
        (one / "deep" / "a.tif").write_bytes(b"x")
        (two / "b.CBF").write_bytes(b"x")
        (two / "note.txt").write_bytes(b"x")
        (two / ".hidden.tif").write_bytes(b"x")
        (two / "moved.part").write_bytes(b"x")
        (two / "moved.part").rename(two / "moved.tif")
        whole = [one / "deep" / "a.tif", two / "b.CBF", two / "moved.tif"]
        said.wait(*map(str, whole))
        writing.close()
        said.wait(*map(str, [*whole, one / "half.tif"]))
        # What is made in a folder that is made is told of too.
        (two / "later").mkdir()

        def seen() -> bool:
            (two / "later" / "c.tif").write_bytes(b"x")
            return str(two / "later" / "c.tif") in said._look()

        wait_until(seen, 10, "a file in a new folder")
        assert feeder.published >= 5
        assert feeder.dropped == 0


def test_a_prefix_stands_for_the_folder(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    with heard(tmp_path, prefix="images") as (_, said):
        (tmp_path / "deep" / "a.tif").write_bytes(b"x")
        said.wait("images/deep/a.tif")


def test_polling_waits_until_a_file_has_settled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sisockdaq.gateways.saxsdog.watch._SETTLED", 0.3)
    with heard(tmp_path, polling=0.05) as (_, said):
        (tmp_path / "a.tif").write_bytes(b"x")
        said.wait(str(tmp_path / "a.tif"))


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="none is no folder"):
        Feeder([tmp_path / "none"], "tcp://127.0.0.1:*").start()
    with heard(tmp_path) as (feeder, _), pytest.raises(PortTaken, match="cannot publish at"):
        Feeder([tmp_path], feeder.address).start()
