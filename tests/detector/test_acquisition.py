"""Acquisitions of a running receiver: marks in their places, ledgers that balance."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from sisockdaq.detector.description import DetectorOptions
from sisockdaq.detector.receiver import ReceiverSettings
from sisockdaq.detector.simulator import Disturbance, Simulation, simulate
from sisockdaq.errors import AcquisitionRefused
from sisockdaq.frames.ledger import Ledger
from sisockdaq.frames.messages import NO_ACQUISITION, Arm, End, FrameHeader, Start, Stop
from sisockdaq.testing.waiting import wait_until
from tests.detector.rig import DEADLINE, running

SMALL = DetectorOptions(model="jungfrau", modules=2, readout_rows=32)
PATIENT = ReceiverSettings(frame_timeout=30.0)


@pytest.fixture(scope="module")
def simulation():
    return Simulation(SMALL, seed=5)


def kinds(log):
    return [entry.index if isinstance(entry, FrameHeader) else type(entry) for entry in log]


def test_marks_stand_between_the_right_frames(simulation):
    with running(SMALL, settings=PATIENT) as rig:
        rig.send_frame(simulation, 1)
        rig.producer.wait_frames(1)
        rig.send(0, [packet.copy() for packet in simulation.packets(2)[0]])
        rig.settled(24)
        rig.receiver.arm(Arm("run", 2))
        rig.send(1, [packet.copy() for packet in simulation.packets(2)[1]])
        rig.producer.wait_frames(2)
        for number in (3, 4, 5):
            rig.send_frame(simulation, number)
        rig.producer.wait_frames(5)
        no = NO_ACQUISITION
        assert kinds(rig.producer.log) == [no, no, Start, 0, 1, End, no]
        assert rig.producer.ends[0].reason == "complete"


def test_a_lossy_acquisition_balances(simulation):
    trouble = Disturbance(loss=0.05, duplicates=0.1, invalid=0.1, shuffle=True, lost_frames=frozenset({12, 19}))
    with running(SMALL, settings=ReceiverSettings(frame_timeout=0.2)) as rig:
        rig.receiver.arm(Arm("lossy", None))
        sent = simulate(
            SMALL, rig.targets, frames=20, rate=None, first_frame=1, simulation=simulation, disturbance=trouble, seed=9
        )
        rig.settled(sent.packets)
        rig.producer.wait_for(lambda: bool(rig.producer.frames) and rig.producer.frames[-1].header.number == 20)
        rig.receiver.stop_acquisition("lossy")
        assert rig.receiver.counters()["lost"] == sum(map(len, sent.lost.values()))
        (end,) = rig.producer.ends
    counts = end.counts
    assert Ledger.from_dict({"acquisition": "lossy", **counts}).balance() == []
    lost = sum(map(len, sent.lost.values()))
    assert counts["frames_expected"] == 20
    assert counts["packets_lost"] == lost
    assert counts["frames_dropped"] == {"no_packet": 2}
    assert counts["packets_duplicate"] + counts["packets_late"] == sent.duplicates
    assert sum(counts["packets_invalid"].values()) == sent.invalid
    partial = sum(1 for number, packets in sent.lost.items() if packets and number not in (12, 19))
    assert (counts["frames_complete"], counts["frames_partial"]) == (18 - partial, partial)


def test_requests_of_consumers_are_obeyed(simulation):
    with running(SMALL, settings=PATIENT) as rig:
        assert rig.producer.handler is not None
        rig.producer.handler("writer", Arm("far", None))
        rig.producer.wait_for(lambda: bool(rig.producer.log))
        assert rig.receiver.acquisition() == {"acquisition": "far", "frames": 0, "wanted": None}
        rig.send_frame(simulation, 1)
        rig.producer.wait_frames(1)
        rig.producer.handler("writer", Stop("far", "failed"))
        rig.producer.wait_for(lambda: bool(rig.producer.ends))
        assert rig.producer.ends[0].reason == "failed"
        assert rig.receiver.last_counts["frames_complete"] == 1


def test_frames_that_wait_in_the_sockets_are_not_those_of_a_new_acquisition(simulation):
    """A receiver that had no time to read them meets them only after it was armed: they are older nevertheless."""
    shown, go_on = threading.Event(), threading.Event()

    def hold(header, image):
        shown.set()
        assert go_on.wait(DEADLINE)

    with running(SMALL, settings=PATIENT, on_frame=hold) as rig, ThreadPoolExecutor() as pool:
        try:
            rig.send_frame(simulation, 1)
            assert shown.wait(DEADLINE)
            for number in (2, 3):
                rig.send_frame(simulation, number)
            armed = pool.submit(rig.receiver.arm, Arm("run", 1))
            wait_until(lambda: not rig.receiver._requests.empty(), DEADLINE, "the request")
        finally:
            go_on.set()
        armed.result(DEADLINE)
        rig.send_frame(simulation, 4)
        rig.producer.wait_frames(4)
        no = NO_ACQUISITION
        assert kinds(rig.producer.log) == [no, no, no, Start, 0, End]


def test_a_detector_that_never_pauses_does_not_keep_an_acquisition_waiting(simulation):
    stop = threading.Event()
    with running(SMALL, settings=PATIENT) as rig, ThreadPoolExecutor() as pool:
        try:
            pool.submit(simulate, SMALL, rig.targets, frames=None, rate=None, simulation=simulation, stop=stop)
            rig.producer.wait_frames(5)
            rig.receiver.arm(Arm("run", 3))
            rig.producer.wait_for(lambda: bool(rig.producer.ends))
        finally:
            stop.set()
        assert rig.producer.ends[0].reason == "complete"


def test_a_second_acquisition_is_refused(simulation):
    with running(SMALL, settings=PATIENT) as rig:
        rig.receiver.arm(Arm("one"))
        with pytest.raises(AcquisitionRefused, match='"one" is under way'):
            rig.receiver.arm(Arm("two"))


def test_stopping_the_receiver_publishes_what_is_there_and_ends_the_acquisition(simulation):
    with running(SMALL, settings=PATIENT) as rig:
        rig.receiver.arm(Arm("cut"))
        rig.send_frame(simulation, 1)
        rig.send(0, [packet.copy() for packet in simulation.packets(2)[0]])
        rig.settled(24)
    assert kinds(rig.producer.log) == [Start, 0, 1, End]
    assert rig.producer.ends[0].counts["packets_lost"] == 8
    assert rig.producer.status()["slots_free"] == 8
    with pytest.raises(AcquisitionRefused, match="does not run"):
        rig.receiver.arm(Arm("more"))


def test_a_view_that_fails_costs_no_frame(simulation):
    def show(header, image):
        raise RuntimeError("no")

    with running(SMALL, settings=PATIENT, on_frame=show) as rig:
        for number in (1, 2):
            rig.send_frame(simulation, number)
        assert len(rig.producer.wait_frames(2)) == 2
