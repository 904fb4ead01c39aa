"""Drawings in characters: where the dots are, and that no spike is lost."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sisockdaq.drawing import curve, image


def braille(lines: list[str]) -> list[str]:
    return [line[11:] for line in lines[:-1]]


def test_a_rising_line_goes_from_the_lower_left_to_the_upper_right():
    drawn = braille(curve(np.arange(100), np.arange(100), width=31, height=11))
    assert drawn[-1][0] != chr(0x2800)
    assert drawn[0][19] != chr(0x2800)
    assert drawn[0][0] == chr(0x2800)
    assert drawn[-1][19] == chr(0x2800)


def test_the_ends_are_labelled():
    lines = curve(np.array([1.0, 5.0]), np.array([-2.0, 8.0]), width=40, height=6, label="q")
    assert lines[0].split()[0] == "8"
    assert lines[-2].split()[0] == "-2"
    assert lines[-1].split() == ["1", "q", "5"]
    logarithmic = curve(np.arange(3.0), np.array([0.0, 10.0, 1000.0]), width=40, height=6, log=True)
    assert logarithmic[0].split()[0] == "1000"
    assert logarithmic[-2].split()[0] == "10"


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=300), st.integers(20, 90), st.integers(4, 30), st.booleans()
)
def test_any_numbers_fit_in_the_room(values, width, height, log):
    y = np.array(values)
    lines = curve(np.arange(len(y)), y, width=width, height=height, log=log)
    assert len(lines) <= height
    assert all(len(line) <= width for line in lines[:-1])


def test_a_spike_reaches_the_top():
    y = np.zeros(10_000)
    y[1234] = 1
    top = braille(curve(np.arange(10_000), y, width=60, height=10))[0]
    assert any(character != chr(0x2800) for character in top)


def test_what_has_no_values_says_so():
    assert "nothing" in curve(np.arange(2), np.array([np.nan, np.inf]))[0]
    assert "nothing" in image(np.full((3, 3), np.nan))[0]


def test_a_bright_pixel_of_a_large_image_is_seen():
    pixels = np.zeros((3000, 3000), np.uint16)
    pixels[2900:2990, 100:190] = 100
    lines = image(pixels, width=60, height=30)
    assert len(lines) <= 30
    assert "@" in "".join(lines[-3:])
    assert set("".join(lines[:20])) == {" "}
