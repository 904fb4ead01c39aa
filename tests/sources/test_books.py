"""The books of whole images, as tables and by property: every wanted image appears once."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sisockdaq.errors import AcquisitionRefused
from sisockdaq.frames.ledger import Ledger
from sisockdaq.frames.messages import NO_ACQUISITION, Arm, End, Start
from sisockdaq.sources.books import Books


def feed(books: Books, numbers, **outcomes) -> list:
    """Bring images; returns marks and indices."""
    out: list = []
    for number in numbers:
        marks, index = books.place(number, {})
        out += marks
        if index is None:
            out.append("again")
            continue
        out.append(index)
        out += books.count(index, outcomes.get(f"n{number}", "published"), {})
    return out


def ends(items) -> list[End]:
    return [item for item in items if isinstance(item, End)]


def test_an_acquisition_takes_the_wanted_images():
    books = Books()
    assert books.arm(Arm("run", 3), {}) == [Start("run", 3, {})]
    out = feed(books, [17, 18, 19, 20])
    assert [item for item in out if not isinstance(item, End)] == [0, 1, 2, NO_ACQUISITION]
    (end,) = ends(out)
    assert (end.reason, end.counts["frames_expected"], end.counts["frames_complete"]) == ("complete", 3, 3)
    assert books.acquisition is None


def test_a_second_acquisition_is_refused():
    books = Books()
    books.arm(Arm("one"), {})
    with pytest.raises(AcquisitionRefused, match='"one" is under way'):
        books.arm(Arm("two"), {})
    with pytest.raises(AcquisitionRefused, match="0 frames"):
        Books().arm(Arm("none", 0), {})


def test_the_first_of_an_announced_series_counts_even_when_it_is_lost():
    books = Books()
    books.arm(Arm("run", 4), {})
    books.begin_series(0, 4)
    assert feed(books, [1, 2]) == [1, 2]
    (end,) = books.end_series("", {})
    assert end.counts["frames_dropped"] == {"not_received": 2}
    assert (end.reason, books.missing) == ("complete", 2)


def test_armed_after_the_announcement_and_before_the_first_image():
    books = Books()
    books.begin_series(0, 2)
    books.arm(Arm("run", 2), {})
    assert feed(books, [1])[0] == 1


def test_armed_within_a_series_what_came_before_is_not_expected():
    books = Books()
    books.begin_series(0, 10)
    feed(books, range(6))
    books.arm(Arm("run"), {})
    assert feed(books, [6, 7]) == [0, 1]
    (end,) = books.end_series("", {})
    assert (end.counts["frames_expected"], end.counts["frames_dropped"]) == (4, {"not_received": 2})


def test_several_series_fill_one_acquisition():
    books = Books()
    books.arm(Arm("run", 5), {})
    for _ in range(2):
        books.begin_series(0, 2)
        feed(books, [0, 1])
        assert books.end_series("", {}) == []
    books.begin_series(0, 2)
    out = feed(books, [0, 1])
    assert out[0] == 4
    assert ends(out)[0].counts["frames_complete"] == 5


def test_in_order_a_gap_at_the_end_is_noticed_with_the_next_image():
    books = Books()
    books.arm(Arm("run", 3), {})
    out = feed(books, [0, 1, 3])
    assert ends(out)[0].counts["frames_dropped"] == {"not_received": 1}
    assert out[-1] == NO_ACQUISITION


def test_out_of_order_an_image_beyond_is_passed_over():
    books = Books(ordered=False)
    books.arm(Arm("run", 3), {})
    books.begin_series(0, 6)
    out = feed(books, [5, 2, 0, 1])
    assert [item for item in out if not isinstance(item, End)] == [NO_ACQUISITION, 2, 0, 1]
    assert ends(out)[0].counts["frames_complete"] == 3


def test_a_series_that_breaks_off_fails_its_acquisition():
    books = Books()
    books.arm(Arm("run", 9), {})
    books.begin_series(0, 9)
    feed(books, [0, 2])
    (end,) = books.end_series("the sender was lost", {})
    assert (end.reason, end.counts["frames_expected"]) == ("failed", 3)


def test_labels_are_counted_as_they_come():
    books = Books(consecutive=False)
    books.arm(Arm("run", 3), {})
    out = feed(books, [900, 100, 500])
    assert out[:3] == [0, 1, 2]


def test_what_could_not_be_published_is_dropped_by_kind():
    books = Books()
    books.arm(Arm("run", 4), {"stray": 2})
    feed(books, [1, 2, 3], n2="ring_full", n3="damaged")
    (end,) = books.stop("run", "stopped", {"stray": 5})
    assert end.counts["frames_dropped"] == {"ring_full": 1, "damaged": 1}
    assert end.counts["messages_refused"] == {"stray": 3}
    assert books.stop("run", "stopped", {}) == []


def test_a_number_out_of_all_reason_takes_no_memory():
    books = Books()
    books.arm(Arm("run"), {})
    books.begin_series(0, None)
    assert feed(books, [0, 2**60, 1]) == [0, NO_ACQUISITION, 1]


@given(
    wanted=st.integers(1, 30),
    announced=st.integers(1, 30),
    arrived=st.lists(
        st.tuples(st.integers(0, 29), st.sampled_from(["published", "ring_full", "damaged"])), max_size=60
    ),
    why=st.sampled_from(["", "the sender was lost"]),
    before=st.booleans(),
)
@settings(max_examples=200)
def test_the_ledger_balances_whatever_comes(wanted, announced, arrived, why, before):
    books = Books(ordered=False)
    if before:
        books.arm(Arm("run", wanted), {})
    books.begin_series(0, announced)
    if not before:
        books.arm(Arm("run", wanted), {})
    marks, indices, seen = [], [], set()
    for number, outcome in arrived:
        if number >= announced:
            continue
        got, index = books.place(number, {})
        marks += got
        assert (index is None) == (number in seen)
        seen.add(number)
        if index is None:
            continue
        indices += [index] if index != NO_ACQUISITION else []
        marks += books.count(index, outcome, {})
    marks += books.end_series(why, {})
    marks += books.stop("run", "stopped", {})
    (end,) = ends(marks)
    assert len(indices) == len(set(indices))
    assert all(0 <= index < wanted for index in indices)
    ledger = Ledger.from_dict({**end.counts, "acquisition": "run"})
    assert ledger.balance() == []
    assert ledger.frames_expected <= wanted
