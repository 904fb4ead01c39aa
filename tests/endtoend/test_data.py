"""What goes in comes out: across files and live, with packets lost on the way, and each pixel where it belongs."""

from __future__ import annotations

import numpy as np

from sisockdaq.detector.simulator import Disturbance
from tests.endtoend.house import House, check_images, series_of

FIELDS = ("receiver::frame_number", "receiver::sum", "integrator::total", "integrator::curve")


def test_a_span_from_files_to_live_has_every_sample_once(house: House) -> None:
    """The integrator remembers 3 s: what is older can only come from files, of which one is open all the time."""
    run = house.start(None, "span")
    sending = house.send(None, rate=100)
    begun = run.status()["started"]
    seen = 0
    for frames in range(60, 661, 60):
        sending.reach(frames)
        data = house.client.get(*FIELDS, start=begun)
        assert data.problems == []
        numbers = data["receiver::frame_number"]
        first = sending.sent.first_frame
        assert numbers.values.tolist() == list(range(first, first + len(numbers)))
        assert len(numbers) > seen
        seen = len(numbers)
        for name in FIELDS:
            # Asked in parallel: each field may be a few frames behind another, but has no hole and nothing twice.
            shared = min(len(data[name]), seen)
            assert shared > seen // 2
            np.testing.assert_array_equal(data[name].t[:shared], numbers.t[:shared], name)
        assert data["integrator::curve"].values.shape[1:] == (200,)
    assert set(data["integrator::total"].sources) == {"archive", "integrator"}
    sending.stop()
    ledger = run.stop().ledger
    frames = ledger.frames_expected
    house.archived(run, frames)
    data = house.client.get(*FIELDS, start=begun)
    master = run.status()["master"]
    assert ledger.balance() == []
    for name in FIELDS:
        node, field = name.split("::")
        assert len(data[name]) == frames
        np.testing.assert_array_equal(data[name].values, series_of(master, node, field))
        np.testing.assert_array_equal(data[name].t, series_of(master, node, "time"))


def test_half_a_span_is_half_a_span(house: House) -> None:
    run, sent = house.acquire(60)
    house.archived(run, 60)
    times = series_of(run.status()["master"], "receiver", "time")
    found = house.client.get("receiver::frame_number", start=times[10], end=times[50])["receiver::frame_number"]
    assert found.values.tolist() == list(range(sent.first_frame + 10, sent.first_frame + 50))


def test_exactly_the_lost_packets_pixels_are_filled(house: House) -> None:
    first = house.next_frame
    gone = frozenset({first + 7, first + 30})
    run, sent = house.acquire(
        40, disturbance=Disturbance(loss=0.02, duplicates=0.01, invalid=0.01, shuffle=True, lost_frames=gone)
    )
    ledger = run.ledger
    packets = house.detector.packets_per_frame
    lost = {number: len(which) for number, which in sent.lost.items()}
    assert ledger.balance() == []
    assert ledger.packets_expected == 40 * packets
    assert ledger.packets_lost == sum(lost.values()) > 2 * packets
    assert ledger.packets_duplicate == sent.duplicates > 0
    assert sum(ledger.packets_invalid.values()) == sent.invalid > 0
    assert ledger.frames_dropped == {"no_packet": 2}
    assert ledger.frames_partial == len(lost) - 2
    assert ledger.frames_complete == 40 - len(lost)
    assert ledger.reported("frames_written") == ledger.reported("frames_integrated") == 38
    house.archived(run, 40)
    for number in range(first, first + 40):
        if number in gone:
            continue
        image = house.client.image("receiver::image", run, number - first)
        expected = house.simulation.image(number).copy()
        filled = house.pixels_of(sent.lost.get(number, []))
        expected[filled] = house.detector.fill
        assert image.number == number
        np.testing.assert_array_equal(image.values, expected)
        if number in lost:
            assert image.mask is not None
            np.testing.assert_array_equal(image.mask, filled)
        else:
            assert image.mask is None
    counted = house.client.get("receiver::packets_lost", start=run.status()["started"])["receiver::packets_lost"]
    assert counted.values.tolist() == [lost.get(number, 0) for number in range(first, first + 40) if number not in gone]


def test_acquisitions_follow_each_other_without_a_pause(house: House) -> None:
    for _ in range(3):
        run, sent = house.acquire(20)
        assert run.ledger.balance() == []
        check_images(house.simulation, run.status()["master"], range(sent.first_frame, sent.first_frame + 20))
