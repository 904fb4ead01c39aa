"""Decoding text: the same numbers as `float` finds line by line."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sisockdaq.textfiles.cache import BlockCache
from sisockdaq.textfiles.rows import Rows, in_order, parse

numbers = st.one_of(
    st.floats(allow_nan=False).map(repr),
    st.integers(-(10**25), 10**25).map(str),
    st.tuples(st.integers(0, 10**12), st.integers(0, 10**9)).map(lambda pair: f"{pair[0]}.{pair[1]}"),
    st.tuples(st.integers(-999, 999), st.integers(0, 6)).map(lambda pair: f"{pair[0] / 7:+.{pair[1]}f}"),
    st.sampled_from([".5", "5.", "-0", "-0.0", "+3", "nan", "NaN", "inf", "1e5", "-1E-300"]),
)
words = st.one_of(
    numbers, st.sampled_from(["#", "#1", "x", ".", "-", "1..2", "1-2", "1_0", "0x10", "--1", "1.2.3", "é"])
)
spaces = st.sampled_from([" ", "  ", "\t", " \t "])


@st.composite
def texts(draw: st.DrawFn) -> bytes:
    lines = []
    for _ in range(draw(st.integers(0, 12))):
        space = draw(spaces)
        lines.append(draw(st.sampled_from(["", space])) + space.join(draw(st.lists(words, max_size=4))))
    end = draw(st.sampled_from(["\n", "\r\n"]))
    return (end.join(lines) + draw(st.sampled_from(["", end]))).encode()


def by_line(text: bytes) -> tuple[list[tuple[float, float]], int]:
    """The rule in its plainest form."""
    rows, broken = [], 0
    for line in text.split(b"\n"):
        found = line.split()
        if not found or found[0].startswith(b"#"):
            continue
        try:
            assert b"_" not in found[0] + found[1]
            t, value = float(found[0]), float(found[1])
            assert math.isfinite(t)
        except (ValueError, IndexError, AssertionError):
            broken += 1
        else:
            rows.append((t, value))
    return rows, broken


@given(texts())
def test_every_row_is_what_float_says(text: bytes) -> None:
    rows, broken = by_line(text)
    found = parse(text)
    np.testing.assert_array_equal(found.t, [t for t, _ in rows])
    np.testing.assert_array_equal(found.values, [value for _, value in rows])
    assert (
        np.array_equal(np.signbit(found.values), np.signbit([value for _, value in rows]))
        or np.isnan(found.values).any()
    )
    assert found.broken == broken
    assert bool(found.first_broken) == bool(broken)


def test_the_first_broken_line_is_told() -> None:
    found = parse(b"# time value\n1 2\n\n3 oops\n4\n5 6\n")
    assert (found.t.tolist(), found.broken, found.first_broken) == ([1.0, 5.0], 2, "3 oops")


@pytest.mark.parametrize("digits", range(14, 23))
def test_long_words_lose_nothing(digits: int) -> None:
    for text in ("9" * digits, "-" + "9" * digits, "1." + "7" * digits, "9" * digits + ".5", "0" * digits + "1"):
        assert parse(f"{text} {text}".encode()).values.tolist() == [float(text)]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 99))))
def test_order_by_time_and_the_last_of_equals(samples: list[tuple[int, int]]) -> None:
    t, values = in_order(np.array([t for t, _ in samples], float), np.array([v for _, v in samples], float))
    assert list(zip(t.tolist(), values.tolist(), strict=True)) == sorted(dict(samples).items())


def test_the_cache_is_bounded_and_lets_the_least_used_go() -> None:
    cache = BlockCache(100)
    block = Rows(np.zeros(3), np.zeros(3))  # 48 bytes
    cache.put("a", block)
    cache.put("b", block)
    assert cache.get("a") is block
    cache.put("c", block)
    assert cache.get("b") is None
    assert cache.get("a") is block
    cache.put("huge", Rows(np.zeros(50), np.zeros(50)))
    assert cache.bytes <= 100
    assert cache.get("huge") is None


@pytest.mark.parametrize("text", [b"", b"\n\n", b"#", b"   ", b"# only\n# comments"])
def test_nothing_is_no_rows(text: bytes) -> None:
    found = parse(text)
    assert (len(found.t), found.broken) == (0, 0)
