"""Parts of a running site are killed: the network is whole again without a hand, and no frame is unaccounted for."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from sisockdaq.errors import StorageError
from sisockdaq.nexus.reader import DataFileReader
from sisockdaq.testing.waiting import wait_until
from tests.endtoend.house import DEADLINE, House, check_images, series_of, wait_for

FRAMES = 150


@pytest.mark.parametrize("part", ["router", "hub", "archive"])
def test_an_acquisition_outlives_what_carries_no_frames(house: House, part: str) -> None:
    run = house.start(FRAMES, part)
    sending = house.send(FRAMES)
    sending.reach(FRAMES // 3)
    killed = house.kill(part)
    first = sending.wait().first_frame
    house.wait_back(part, killed)
    house.wait_whole()
    run.wait(DEADLINE, progress=False)
    ledger = run.ledger
    assert ledger.balance() == []
    assert (ledger.frames_complete, ledger.packets_lost) == (FRAMES, 0)
    assert ledger.reported("frames_written") == ledger.reported("frames_integrated") == FRAMES
    master = run.status()["master"]
    assert series_of(master, "receiver", "frame_number").tolist() == list(range(first, first + FRAMES))
    assert not np.isnan(series_of(master, "integrator", "total")).any()
    check_images(house.simulation, master, range(first, first + FRAMES))
    house.archived(run, FRAMES)


def test_without_the_integrator_only_curves_are_missing(house: House) -> None:
    run = house.start(None, "integrator")
    sending = house.send(None, rate=30)  # no frame is to be lost while the machine starts a process
    sending.reach(50)
    killed = house.kill("integrator")
    house.wait_back("integrator", killed)
    wait_for(lambda: house.consumers()["integrator"]["state"] == "attached", "the integrator to be attached again")
    integrated = house.client.call_control("integrator", "status")["frames_integrated"]
    wait_for(
        lambda: house.client.call_control("integrator", "status")["frames_integrated"] > integrated,
        "it to integrate again",
    )
    first = sending.stop().first_frame
    house.wait_whole()
    ledger = run.stop().ledger
    frames = ledger.frames_expected
    assert ledger.balance() == []
    assert ledger.frames_complete == ledger.reported("frames_written") == frames
    integrator = ledger.consumers["integrator"]
    assert integrator.missed > 0
    assert integrator.taken + integrator.dropped + integrator.missed + integrator.held == frames
    status = run.status()
    assert "results of integrator are interrupted" in status["message"]
    check_images(house.simulation, status["master"], range(first, first + frames))
    curves = ~np.isnan(series_of(status["master"], "integrator", "total"))
    assert curves[0]
    assert 0 < np.count_nonzero(curves) < frames


def test_a_killed_writer_goes_on_where_it_was(house: House) -> None:
    run = house.start(None, "writer")
    sending = house.send(None, rate=30)  # the ring holds more than comes while the writer takes up its work
    sending.reach(60)
    written = run.status()["frames_written"]
    killed = house.kill("writer")
    files = house.files(run.name)
    closed = [path for path in files if path.name.endswith(".h5")]
    assert len(closed) >= written // house.images_per_file
    for path in files:  # before anybody has come back to mend them
        with DataFileReader(path) as reader:
            summary = reader.summary()
            times = reader.times("receiver")
            assert summary.rows > 0 or path is files[-1]
            for row in np.flatnonzero(~np.isnan(times)).tolist():
                number = int(reader.series("receiver", "frame_number", row, row + 1)[0])
                assert (reader.image(row) == house.simulation.image(number)).all()
    house.wait_back("writer", killed)
    wait_for(lambda: run.status()["frames_written"] > written, "the writer to go on")
    sending.stop()
    house.wait_whole()
    ledger = run.stop().ledger
    assert ledger.balance() == []
    assert (ledger.frames_complete, ledger.packets_lost) == (ledger.frames_expected, 0)
    assert ledger.reported("frames_integrated") == ledger.frames_expected
    writer = ledger.consumers["writer"]
    there = ~np.isnan(series_of(run.status()["master"], "receiver", "time"))
    assert writer.missed > 0
    assert writer.counts["frames_written"] == np.count_nonzero(there)
    assert len(there) == ledger.frames_expected
    numbers = series_of(run.status()["master"], "receiver", "frame_number")[there]
    assert (numbers == sending.sent.first_frame + np.flatnonzero(there)).all()
    house.archived(run, ledger.frames_expected)
    after, _ = house.acquire(30)
    assert after.ledger.balance() == []
    assert after.ledger.reported("frames_written") == 30


def test_who_waits_for_an_acquisition_bears_the_writers_death(house: House) -> None:
    run = house.start(None, "patience")
    ended: list[Any] = []

    def wait() -> None:
        try:
            ended.append(run.wait(DEADLINE, progress=False))
        except Exception as error:  # the edge of a thread; compared below
            ended.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    sending = house.send(None, rate=30)
    sending.reach(20)
    written = run.status()["frames_written"]
    house.wait_back("writer", house.kill("writer"))
    wait_for(lambda: run.status()["frames_written"] > written, "the writer to go on")
    sending.stop()
    run.stop()
    waiting.join(DEADLINE)
    assert ended == [run]
    assert run.ledger.balance() == []


def test_a_killed_receiver_ends_the_acquisition_with_its_reason(house: House) -> None:
    run = house.start(400, "receiver")
    sending = house.send(400, rate=100)
    sending.reach(60)
    killed = house.kill("receiver")
    with pytest.raises(StorageError, match="the frame source has gone"):
        run.wait(DEADLINE, progress=False)
    first = sending.stop().first_frame
    house.wait_back("receiver", killed)
    house.wait_whole()
    status = run.status()
    assert 0 < status["frames_written"] < 400
    check_images(house.simulation, status["master"], range(first, first + status["frames_written"]))
    house.archived(run, status["frames_written"])
    after, _ = house.acquire(30)
    assert after.ledger.balance() == []
    assert after.ledger.reported("frames_written") == after.ledger.reported("frames_integrated") == 30


def test_a_hung_consumer_is_thrown_out_and_named_and_the_others_get_every_frame(house: House) -> None:
    run = house.start(None, "hung")
    sending = house.send(None, rate=40)
    sending.reach(5)
    with house.stopped("integrator"):
        wait_for(lambda: house.consumers()["integrator"]["state"] == "evicted", "the hung one to be thrown out")
        went = sending.sent.frames
        sending.reach(went + 10)
        wait_for(lambda: run.status()["frames_written"] > went, "the writer to get more")
    first = sending.stop().first_frame
    ledger = run.stop().ledger
    assert ledger.balance() == []
    integrator, writer = ledger.consumers["integrator"], ledger.consumers["writer"]
    assert integrator.dropped > 0
    assert integrator.missed > 0
    assert writer.taken == ledger.frames_expected == ledger.frames_complete
    check_images(house.simulation, run.status()["master"], range(first, first + ledger.frames_expected))
    wait_until(lambda: house.part("integrator").state == "up", DEADLINE, "the integrator to be up")
    house.wait_whole()
    after, _ = house.acquire(30)
    assert after.ledger.reported("frames_integrated") == 30


def test_a_writer_that_is_back_too_late_seals_its_files_and_says_why(house: House) -> None:
    run = house.start(120, "late")
    ended: list[Any] = []

    def wait() -> None:
        try:
            ended.append(run.wait(DEADLINE, progress=False))
        except Exception as error:  # the edge of a thread; compared below
            ended.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    sending = house.send(120, rate=200)  # what is left of it is over long before a process is up again
    sending.reach(60)
    written = run.status()["frames_written"]
    killed = house.kill("writer")
    first = sending.wait().first_frame
    house.wait_back("writer", killed)
    waiting.join(DEADLINE)
    assert len(ended) == 1
    assert isinstance(ended[0], StorageError)
    assert "the writer died" in str(ended[0])
    status = run.status()
    assert (status["acquisition_state"], status["state"]) == ("FAILED", "READY")
    assert written <= status["frames_written"] < 120
    assert run.ledger.balance() == []
    check_images(house.simulation, status["master"], range(first, first + status["frames_written"]))
    house.archived(run, status["frames_written"])
    newest = house.client.call_control("writer", "log", 1)[0]
    assert (newest["acquisition"], newest["state"]) == (run.name, "FAILED")
    house.wait_whole()
    after, _ = house.acquire(30)
    assert after.ledger.reported("frames_written") == 30
