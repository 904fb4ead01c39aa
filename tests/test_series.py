"""The live cache: against a plain dictionary, and its bounds and costs."""

from __future__ import annotations

import statistics
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sisockdaq import series
from sisockdaq.series import SeriesStore


def test_samples_are_served_in_their_interval():
    store = SeriesStore()
    a = store.series("a", units="V")
    for i in range(10):
        a.append(i, i * 2)
    found = a.query(3, 6)
    np.testing.assert_array_equal(found.t, [3, 4, 5])
    np.testing.assert_array_equal(found.values, [6, 8, 10])
    assert found.finalized_until is None
    assert a.query(3, 100).finalized_until == 9
    assert len(a.query(100, 200)) == 0
    assert a.latest() == (9.0, 18.0)
    assert len(a) == 10


times = st.integers(0, 60)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from("ab"), times, st.integers(-5, 5)),
            st.lists(st.tuples(times, st.integers(-5, 5)), min_size=1, max_size=12),
        ),
        max_size=40,
    ),
    times,
    times,
)
def test_any_order_of_appending_gives_the_rows_of_a_dictionary(actions, start, end):
    """Late, repeated and interleaved samples, one by one and in blocks, with blocks of four rows."""
    store = SeriesStore()
    made = {"a": store.series("a", timeline="x", keep=1e9), "b": store.series("b", timeline="x", dtype="int32")}
    expected: dict[str, dict[float, int]] = {"a": {}, "b": {}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(series, "BLOCK_ROWS", 4)
        for action in actions:
            if isinstance(action, tuple):
                name, t, value = action
                made[name].append(t, value)
                expected[name][t] = value
            else:
                made["a"].append_block([t for t, _ in action], [float(v) for _, v in action])
                expected["a"].update(action)
    for name, rows in expected.items():
        inside = sorted(t for t in rows if start <= t < end)
        found = made[name].query(start, end)
        assert found.t.tolist() == inside
        assert found.values.tolist() == [rows[t] for t in inside]
        assert len(made[name]) == len(rows)
        assert (made[name].latest() or (None,))[0] == (max(rows) if rows else None)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.integers(0, 800).map(lambda n: n / 8), min_size=1, max_size=60, unique=True),
    st.floats(1, 50),
    st.integers(1, 30),
)
def test_age_and_count_bound_the_cache(offsets, keep, most):
    store = SeriesStore()
    a = store.series("a", keep=keep, max_samples=most)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(series, "BLOCK_ROWS", 4)
        for t in sorted(offsets):
            a.append(1000 + t, 0)
    kept = a.query(1, 1e9)
    in_age = [1000 + t for t in sorted(offsets) if 1000 + t >= 1000 + max(offsets) - keep]
    assert kept.t.tolist() == in_age[-most:]
    assert a.timeline.forgotten == len(offsets) - len(kept)
    assert kept.covers_from is not None
    assert kept.covers_from <= kept.t[0]
    if a.timeline.forgotten:
        assert kept.covers_from > sorted(offsets)[len(offsets) - len(kept) - 1]


def test_arrays_are_copied_and_bounded_by_bytes():
    store = SeriesStore()
    image = store.series("image", type="array", shape=(4, 5), dtype="uint16", keep=1e9)
    image.timeline.max_bytes = 3 * 40
    pixels = np.zeros((4, 5), np.uint16)
    for i in range(10):
        pixels[:] = i
        image.append(i, pixels)
    found = image.query(0, 100)
    assert found.values.shape == (3, 4, 5)
    assert found.values[:, 0, 0].tolist() == [7, 8, 9]
    assert found.values.dtype == np.uint16
    with pytest.raises(ValueError, match="shape"):
        image.append(11, np.zeros((5, 4)))


def test_fields_of_a_timeline_share_rows():
    store = SeriesStore()
    a, b = store.series("a", timeline="x"), store.series("b", timeline="x", type="bool")
    a.append(1, 10)
    b.append(1, True)
    a.append(2, 20)
    a.timeline.append(3, {"a": 30, "b": False})
    assert len(a.timeline) == 3
    assert a.query(0, 9).t.tolist() == [1, 2, 3]
    assert b.query(0, 9).t.tolist() == [1, 3]
    assert b.query(0, 9).values.tolist() == [True, False]
    assert store.get(["a", "b"], 0, 9).to_plain()["data"] == {"a": [10, 20, 30], "b": [True, None, False]}


def test_a_repeated_time_replaces_and_is_counted():
    a = SeriesStore().series("a")
    a.append(1, 10)
    a.append(1, 11)
    assert a.query(0, 9).values.tolist() == [11]
    assert a.timeline.replaced == 1


def test_nan_is_a_value_and_none_among_numbers_is_nan():
    a = SeriesStore().series("a")
    a.append(1, float("nan"))
    a.append(2, None)
    assert len(a.query(0, 9)) == 2
    assert a.query(0, 9).values.dtype == np.float64


@pytest.mark.parametrize(
    ("kind", "value"),
    [("number", "1.5"), ("string", 3), ("bool", 2), ("bool", None), ("bool", "yes")],
)
def test_a_value_of_another_type_is_refused(kind, value):
    a = SeriesStore().series("a", type=kind)
    with pytest.raises(TypeError, match="a holds"):
        a.append(1, value)
    with pytest.raises(TypeError, match="a holds"):
        a.append_block([1, 2], [value, value])
    assert len(a) == 0


def test_whole_numbers_are_exact_and_checked():
    a = SeriesStore().series("a", dtype="uint64")
    a.append(1, 2**63 + 1)
    assert a.query(0, 9).values.tolist() == [2**63 + 1]
    with pytest.raises(ValueError, match="does not fit"):
        a.append(2, -1)
    with pytest.raises(TypeError, match="whole"):
        a.append(2, 1.5)
    with pytest.raises(ValueError, match="does not fit"):
        a.append_block([2, 3], [5, -5])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_time_must_be_finite(bad):
    a = SeriesStore().series("a")
    with pytest.raises(ValueError, match="time"):
        a.append(bad, 1)
    with pytest.raises(ValueError, match="times"):
        a.append_block([bad], [1])


def test_wrong_declarations_are_refused():
    store = SeriesStore()
    store.series("a")
    with pytest.raises(ValueError, match="already"):
        store.series("a")
    with pytest.raises(ValueError, match="shape"):
        store.series("b", type="array")
    with pytest.raises(ValueError, match="can be kept"):
        store.series("c", dtype="complex64")
    with pytest.raises(ValueError, match="no field"):
        store.timelines["a"].append(1, {"z": 1})
    with pytest.raises(ValueError, match="values for"):
        store.timelines["a"].append_block([1, 2], {"a": [1]})


def test_a_field_added_later_has_no_value_in_older_rows():
    store = SeriesStore()
    store.series("a", timeline="x").append(1, 1)
    b = store.series("b", timeline="x", type="string")
    b.append(2, "two")
    assert b.query(0, 9).t.tolist() == [2]


def test_the_listing_names_what_may_have_data():
    store = SeriesStore()
    store.series("a", units="K", description="cold").append_block(np.arange(10) / 2, np.arange(10))
    store.series("b")
    listing = store.fields(0, 3)
    assert set(listing.fields) == {"a", "b"}
    assert listing.timelines["a"].interval == pytest.approx(0.5)
    assert set(store.fields().fields) == {"a", "b"}
    assert set(store.fields(50, 60).fields) == {"b"}
    assert store.get(["a", "zz"], 0, 9).unknown == ["zz"]
    field = store.field("a")
    assert field is not None
    assert field.units == "K"
    assert store.field("zz") is None


def test_an_irregular_spacing_has_no_interval():
    a = SeriesStore().series("a")
    a.append_block([0, 0.001, 0.002, 100, 100.001, 300], np.zeros(6))
    assert a.timeline.interval is None


def test_what_is_new_is_drained_once_and_in_order():
    store = SeriesStore()
    a = store.series("a", timeline="x")
    b = store.series("b", timeline="x", type="string")
    store.series("silent", timeline="x", feed=False)
    called: list[str] = []
    a.append(0, 0)
    a.timeline.on_append = lambda line: called.append(line.name)
    a.append(1, 1)
    a.append_block([2, 3], [2, 3])
    b.append(3, "three")
    a.timeline.append(4, {"silent": 1})
    blocks = a.timeline.drain()
    assert called == ["x"] * 4
    assert [(t.tolist(), {k: v.tolist() for k, v in data.items()}) for t, data in blocks] == [
        ([1, 2, 3], {"a": [1, 2, 3]}),
        ([3], {"b": ["three"]}),
    ]
    assert a.timeline.drain() == []


def test_a_feed_that_nobody_drains_is_bounded_and_counted(monkeypatch):
    monkeypatch.setattr(series, "DRAIN_LIMIT", 10)
    a = SeriesStore().series("a")
    a.timeline.on_append = lambda line: None
    for i in range(25):
        a.append(i, i)
    ((t, _),) = a.timeline.drain()
    assert t.tolist() == list(range(15, 25))
    assert a.timeline.feed_skipped == 15


def test_threads_may_append_and_ask_at_once():
    store = SeriesStore()
    made = [store.series(f"s{i}", timeline="x") for i in range(4)]
    errors: list[BaseException] = []

    def work(index: int) -> None:
        try:
            for i in range(500):
                made[index].append(i + index / 10, i)
                made[index].query(0, 1000, max_points=10)
        except BaseException as error:  # a thread's failure must reach the test
            errors.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert [len(one) for one in made] == [500] * 4


def test_the_cost_does_not_grow_with_the_cache():
    """720,000 samples, as a day at 8 Hz: an append takes < 1 ms, a query of ten seconds < 5 ms."""
    a = SeriesStore().series("a", keep=1e9, max_samples=720_000)
    a.append_block(np.arange(720_000) / 10, np.zeros(720_000))
    appends, queries = [], []
    for i in range(2000):
        begun = time.perf_counter()
        a.append(72_000 + i / 10, 1.0)
        appends.append(time.perf_counter() - begun)
    for i in range(50):
        begun = time.perf_counter()
        assert len(a.query(1000 + i, 1010 + i)) == 100
        queries.append(time.perf_counter() - begun)
    assert statistics.median(appends) < 1e-3
    assert statistics.median(queries) < 5e-3
    assert len(a) == 720_000


def test_a_new_field_takes_no_memory_in_the_rows_before_it():
    store = SeriesStore()
    store.series("a", timeline="x", keep=1e9).append_block(np.arange(200_000.0), np.arange(200_000.0))
    late = store.series("late", timeline="x", type="string")
    (line,) = store.timelines.values()
    late.append(200_000.0, "new")
    assert sum("late" in block.columns for block in line._blocks) == 1
    assert late.query(0, 1e6).values.tolist() == ["new"]
    late.append(5.0, "old")
    assert late.query(0, 1e6).t.tolist() == [5.0, 200_000.0]
    assert late.latest() == (200_000.0, "new")
    assert len(late) == 2
