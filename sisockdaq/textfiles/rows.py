"""Rows of text turned into arrays, and arrays put in the order of time. Pure.

A row is a line whose first two words are numbers: a time and a value; further words are ignored. Blank lines and lines
that begin with ``#`` are no rows. Any other line is broken: left out, counted, and the first one told.

Numbers are decoded a column of characters at a time for all rows together: digits gather in an integer, which is
divided by a power of ten. While the integer is at most 2⁵³ and the power at most 10²², both are exact and the quotient
is the float64 nearest to the text. Words of any other form (exponents, nan, very many digits) go through `float`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Floats", "Rows", "in_order", "parse"]

Floats = npt.NDArray[np.float64]
_Places = npt.NDArray[np.intp]

_NEWLINE, _HASH, _DOT, _MINUS, _PLUS = 10, 35, 46, 45, 43

_EXACT = 2**53
"""Whole numbers up to this one are float64 without rounding."""

_MOST_CHARACTERS = 18
"""What a longer word gathers may not fit int64."""

_TENS = 10.0 ** np.arange(_MOST_CHARACTERS + 1)


class Rows(NamedTuple):
    """What a stretch of text holds, in its own order."""

    t: Floats
    values: Floats
    broken: int = 0
    first_broken: str = ""


def parse(data: bytes) -> Rows:
    """Decode a stretch of whole lines (the last one may lack its line end).

    Parameters
    ----------
    data : bytes

    Returns
    -------
    Rows
        ``t`` (n,) as written, all finite; ``values`` (n,), where nan and inf are possible.
    """
    text = np.frombuffer(data, np.uint8)
    begins, ends = _words(text)
    if not len(begins):
        return Rows(np.empty(0), np.empty(0))
    line = np.searchsorted(np.flatnonzero(text == _NEWLINE), begins)
    first = np.flatnonzero(np.r_[True, line[1:] != line[:-1]])
    first = first[text[begins[first]] != _HASH]
    paired = np.r_[line[1:] == line[:-1], False][first]
    times = first[paired]
    t, t_good = _numbers(data, text, begins[times], ends[times])
    values, good = _numbers(data, text, begins[times + 1], ends[times + 1])
    good &= t_good & np.isfinite(t)
    broken = len(first) - int(np.count_nonzero(good))
    if not broken:
        return Rows(t, values)
    wrong = ~paired
    wrong[paired] = ~good
    place = int(begins[first[int(np.argmax(wrong))]])
    shown = data[place : place + 60].split(b"\n")[0].decode("utf-8", "replace").rstrip()
    return Rows(t[good], values[good], broken, shown)


def in_order(t: Floats, values: Floats) -> tuple[Floats, Floats]:
    """Sort samples by time; of samples at one time the last stays.

    Parameters
    ----------
    t, values : ndarray of float64, (n,)
    """
    if len(t) < 2 or bool(np.all(t[1:] > t[:-1])):
        return t, values
    if not bool(np.all(t[1:] >= t[:-1])):
        order = np.argsort(t, kind="stable")
        t, values = t[order], values[order]
    last = np.r_[t[1:] != t[:-1], True]
    return t[last], values[last]


def _words(text: npt.NDArray[np.uint8]) -> tuple[_Places, _Places]:
    """Return where words begin and where they end."""
    inside = np.zeros(len(text) + 2, np.bool_)
    np.greater(text, 32, out=inside[1:-1])
    edges = np.flatnonzero(inside[1:] != inside[:-1])
    return edges[0::2], edges[1::2]


def _numbers(
    data: bytes, text: npt.NDArray[np.uint8], begins: _Places, ends: _Places
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Decode words; say which are numbers."""
    length = ends - begins
    longest = int(min(length.max(initial=0), _MOST_CHARACTERS))
    shortest = int(length.min(initial=_MOST_CHARACTERS))
    whole = np.zeros(len(begins), np.int64)
    digits = np.zeros(len(begins), np.int64)
    dot_at = np.full(len(begins), -1, np.int64)
    sign = text[begins]
    signed = (sign == _MINUS) | (sign == _PLUS)
    regular = length <= _MOST_CHARACTERS
    for k in range(longest):
        character = text.take(begins + k, mode="clip")
        digit = character - 48  # uint8: what is below "0" becomes large
        is_digit = digit < 10
        if k < shortest and is_digit.all():  # the usual case in the column of times
            whole *= 10
            whole += digit
            digits += 1
            continue
        here = length > k
        is_digit &= here
        whole = np.where(is_digit, whole * 10 + digit, whole)
        digits += is_digit
        is_dot = (character == _DOT) & here
        regular &= ~(is_dot & (dot_at >= 0))
        dot_at[is_dot] = k
        regular &= is_digit | is_dot | ~here | (signed if k == 0 else False)
    after = np.where(dot_at >= 0, length - dot_at - 1, 0)
    regular &= (digits > 0) & (whole <= _EXACT)
    numbers = whole / _TENS[np.where(regular, after, 0)]
    np.negative(numbers, out=numbers, where=sign == _MINUS)
    for i in np.flatnonzero(~regular).tolist():
        numbers[i], regular[i] = _one(data[begins[i] : ends[i]])
    return numbers, regular


def _one(word: bytes) -> tuple[float, bool]:
    if b"_" in word:  # `float` allows it, no writer of files means it
        return math.nan, False
    try:
        return float(word), True
    except ValueError:
        return math.nan, False
