"""The books of an acquisition as tables, and by property: they always balance."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sisockdaq.detector.account import Account
from sisockdaq.errors import AcquisitionRefused
from sisockdaq.frames.ledger import Ledger
from sisockdaq.frames.messages import NO_ACQUISITION, Arm, End, Start

NOTHING: dict[str, int] = {"late": 0, "duplicate": 0, "size": 0}


def feed(account, frames, packets=4):
    """Pass frames ``(number, received, outcome)`` through; return marks and indices in order."""
    log = []
    for number, received, outcome in frames:
        marks, index = account.place(number, NOTHING)
        log += [*marks, index, *account.count(index, received, outcome, NOTHING)]
    return log


def whole(*numbers):
    return [(number, 4, "published") for number in numbers]


def ends(log):
    return [entry for entry in log if isinstance(entry, End)]


def test_outside_an_acquisition_frames_have_no_index():
    assert feed(Account(4), whole(1, 2)) == [NO_ACQUISITION] * 2


def test_a_simple_acquisition():
    account = Account(4)
    assert account.arm(Arm("a", 2, {"k": 1}), [], NOTHING) == [Start("a", 2, {"k": 1})]
    log = feed(account, whole(17, 18, 19))
    assert log[:2] == [0, 1]
    assert log[2] == End("a", "complete", log[2].counts)
    assert log[3] == NO_ACQUISITION
    assert log[2].counts["frames_complete"] == 2


def test_frames_being_assembled_when_armed_do_not_belong():
    account = Account(4)
    assert account.arm(Arm("a", 1), [5, 6], NOTHING) == []
    log = feed(account, whole(5, 6, 7))
    assert log[:4] == [NO_ACQUISITION, NO_ACQUISITION, Start("a", 1, {}), 0]
    assert ends(log)


def test_a_chosen_first_frame():
    account = Account(4)
    assert account.arm(Arm("a", 2, {"first_frame": 10}), [8], NOTHING) == []
    log = feed(account, whole(8, 9, 11))
    assert log[:2] == [NO_ACQUISITION] * 2
    assert isinstance(log[2], Start)
    assert log[3] == 1
    assert ends(log)[0].counts["frames_dropped"] == {"no_packet": 1}


def test_frames_that_never_came_are_dropped():
    account = Account(4)
    account.arm(Arm("a", 6), [], NOTHING)
    (end,) = ends(feed(account, [*whole(1), (4, 3, "published"), (5, 4, "ring_full"), *whole(9)]))
    assert end.counts["frames_dropped"] == {"no_packet": 3, "ring_full": 1}
    assert (end.counts["frames_complete"], end.counts["frames_partial"]) == (1, 1)
    assert (end.counts["packets_expected"], end.counts["packets_received"]) == (24, 11)


def test_bunch_ids_are_counted_not_subtracted():
    account = Account(4, consecutive=False)
    account.arm(Arm("a", 3), [], NOTHING)
    log = feed(account, whole(1000, 1004, 1100))
    assert log[:3] == [0, 1, 2]
    assert ends(log)[0].counts["frames_dropped"] == {}


def test_the_index_goes_on_when_the_detector_begins_anew():
    account = Account(4)
    account.arm(Arm("a"), [], NOTHING)
    assert feed(account, whole(100, 101, 1, 2)) == [0, 1, 2, 3]


def test_stopping():
    account = Account(4)
    account.arm(Arm("a", 10), [3], NOTHING)
    assert account.stop("b", "stopped", NOTHING) == []
    start, end = account.stop("a", "stopped", {**NOTHING, "late": 2, "size": 1})
    assert isinstance(start, Start)
    assert (end.reason, end.counts["frames_expected"]) == ("stopped", 0)
    assert (end.counts["packets_late"], end.counts["packets_invalid"]) == (2, {"size": 1})
    assert account.acquisition is None


@pytest.mark.parametrize("arm", [Arm("b", 0), Arm("b", 5, {"first_frame": "x"}), Arm("b", 5, {"first_frame": -1})])
def test_senseless_requests_are_refused(arm):
    account = Account(4)
    with pytest.raises(AcquisitionRefused):
        account.arm(arm, [], NOTHING)
    assert account.acquisition is None


def test_one_at_a_time():
    account = Account(4)
    account.arm(Arm("a"), [], NOTHING)
    with pytest.raises(AcquisitionRefused, match='"a" is under way'):
        account.arm(Arm("b"), [], NOTHING)


steps = st.tuples(st.integers(1, 5), st.integers(0, 4), st.sampled_from(["published", "ring_full", "policy"]))


@given(st.one_of(st.none(), st.integers(1, 12)), st.lists(steps, max_size=20), st.booleans(), st.integers(0, 3))
def test_the_books_balance(frames, moves, consecutive, before):
    account = Account(4, consecutive=consecutive)
    log = account.arm(Arm("a", frames), range(1, before), NOTHING)
    number, published = 0, 0
    for step, received, outcome in moves:
        number += step
        marks, index = account.place(number, NOTHING)
        log += marks
        published += outcome == "published" and index != NO_ACQUISITION
        log += account.count(index, received, outcome, NOTHING)
    log += account.stop("a", "stopped", NOTHING)
    assert [type(mark) for mark in log] == [Start, End]
    counts = log[-1].counts
    ledger = Ledger.from_dict({"acquisition": "a", **counts})
    assert ledger.balance() == []
    assert counts["frames_complete"] + counts["frames_partial"] == published
    if log[-1].reason == "complete":
        assert counts["frames_expected"] == frames
