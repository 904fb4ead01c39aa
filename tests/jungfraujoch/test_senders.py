"""Several sockets: start and end come from all, images are split by file, calibration comes to the first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from sisockdaq.jungfraujoch import StreamWriter, WriterOptions
from sisockdaq.testing import wait_until
from tests.jungfraujoch.conftest import StartWriter, finished, images_of
from tests.jungfraujoch.sender import SHAPE, Message, Sender, end, frame, image, start, tagged

PER_FILE = 4
COUNT = 22


@pytest.fixture
def other() -> Iterator[Sender]:
    made = Sender()
    yield made
    made.close()


def send_split(senders: list[Sender], *, says_master: bool, images: list[int] | None = None) -> None:
    """Send a series as Jungfraujoch does with several sockets."""
    for number, each in enumerate(senders):
        more: Message = {"write_master_file": number == 0} if says_master else {}
        each.send(start(images=COUNT, per_file=PER_FILE, **more))
    senders[0].send({"type": "calibration", "data": {"pedestal": tagged(np.ones(SHAPE, "<u2"))}})
    for index in range(COUNT) if images is None else images:
        senders[index // PER_FILE % len(senders)].send(frame(index))
    for each in senders:
        each.send(end())


def assert_whole(folder: Path) -> None:
    np.testing.assert_array_equal(images_of(folder), [image(index) for index in range(COUNT)])
    with h5py.File(folder / "run_master.h5") as file:
        detector = file["entry/instrument/detector"]
        assert detector["calibration/pedestal"][0, 0] == 1
        assert detector["detectorSpecific/nimages"][()] == COUNT


@pytest.mark.parametrize("says_master", [True, False])
def test_one_writer_of_several_sockets(
    sender: Sender, other: Sender, start_writer: StartWriter, tmp_path: Path, says_master: bool
) -> None:
    writer = start_writer(other)
    send_split([sender, other], says_master=says_master)
    status = finished(writer)
    assert (status["message"], status["images"]["written"]) == ("Completed.", COUNT)
    assert_whole(tmp_path)


def test_several_writers_of_one_socket_each(sender: Sender, other: Sender, tmp_path: Path) -> None:
    """Each writes its own files; the first makes the master, which links to all of them."""
    writers = [StreamWriter(WriterOptions(tmp_path, [each.address])).start() for each in (sender, other)]
    try:
        wait_until(lambda: all(writer.status()["connected"] for writer in writers))
        send_split([sender, other], says_master=True)
        statuses = [finished(writer) for writer in writers]
    finally:
        for writer in writers:
            writer.close()
    assert [status["images"]["written"] for status in statuses] == [12, 10]
    assert [status["images"]["missing"] for status in statuses] == [0, 0]
    assert_whole(tmp_path)


def test_a_lost_file_of_one_of_two_writers_is_made_by_its_own(sender: Sender, other: Sender, tmp_path: Path) -> None:
    """Files 1, 3, 5 … are the first writer's: a gap between them may belong to the other, or may not."""
    writer = StreamWriter(WriterOptions(tmp_path, [sender.address])).start()
    try:
        wait_until(lambda: writer.status()["connected"])
        sender.send(start(images=36, per_file=PER_FILE, write_master_file=True))
        sender.send(*(frame(index) for index in (0, 8, 24, 32)), end())
        finished(writer)
    finally:
        writer.close()
    numbers = sorted(int(path.stem[-6:]) for path in tmp_path.glob("run_data_*.h5"))
    assert numbers == [1, 3, 5, 7, 9]


def test_the_next_series_of_one_waits_for_the_end_of_the_other(
    sender: Sender, other: Sender, start_writer: StartWriter, tmp_path: Path
) -> None:
    writer = start_writer(other)
    second: dict[str, Any] = {"series_unique_id": "two"}
    sender.send(start("first", COUNT, PER_FILE), frame(0), frame(1), frame(2), frame(3), end())
    sender.send({**start("second", 4), **second}, *({**frame(i), **second} for i in range(4)), end(**second))
    other.send(start("first", COUNT, PER_FILE))
    other.send(*(frame(index) for index in range(4, COUNT)), end())
    other.send({**start("second", 4), **second}, end(**second))
    assert finished(writer, "second")["message"] == "Completed."
    assert [record.message for record in writer.machine.history] == ["Completed.", "Completed."]
    np.testing.assert_array_equal(images_of(tmp_path, "first"), [image(index) for index in range(COUNT)])
    np.testing.assert_array_equal(images_of(tmp_path, "second"), [image(index) for index in range(4)])


def test_the_end_of_one_sender_is_lost(
    sender: Sender, other: Sender, start_writer: StartWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sisockdaq.jungfraujoch.service._OTHERS_WAIT", 0.2)
    writer = start_writer(other)
    for each in (sender, other):
        each.send(start(images=8, per_file=PER_FILE))
    sender.send(*(frame(index) for index in range(4)), end())
    other.send(*(frame(index) for index in range(4, 8)))
    status = finished(writer)
    assert (status["message"], status["messages"]["ends_lost"]) == ("Completed.", 1)
