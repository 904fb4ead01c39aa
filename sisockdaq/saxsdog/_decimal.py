"""Numbers as ``%.18e`` writes them, digit for digit, some thirty times faster.

Nineteen digits of a number m·2ᵉ are the integer nearest to m·2ᵉ·10ᵖ. The powers of ten are at hand with 128 bits, which
the smaller ones need not even fill, so the product is known to 2⁻⁶² of the last digit. Where that leaves open which
way to round, the text is left to Python. Everything compiled is in this one file.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

__all__ = ["rows_text"]

_LOWEST, _HIGHEST = -291, 343
"""The powers of ten that take any float64 to 19 digits."""

_WIDTH = 27
"""Longest number and what follows it: ``-1.000000000000000000e-300`` and a blank [bytes]."""


def rows_text(columns: npt.NDArray[np.float64]) -> bytes:
    r"""Return the rows of a table as ``numpy.savetxt(fmt="%.18e", newline="\n ")`` writes them.

    Parameters
    ----------
    columns : ndarray, shape (columns, rows)
        The table, one column of the text a row.
    """
    values = np.ascontiguousarray(columns, dtype=np.float64)
    count, rows = values.shape
    out = np.empty(rows * (count * _WIDTH + 1) + 1, np.uint8)
    length = _write(values.view(np.uint64), _HIGH, _LOW, _SHIFT, _PAIRS, out)
    if length < 0:
        return slow_text(values)
    return out[:length].tobytes()


def slow_text(columns: npt.NDArray[np.float64]) -> bytes:
    """Do what `rows_text` does, by Python's own formatting."""
    line = " ".join(["%.18e"] * columns.shape[0]) + "\n "
    return "".join(line % tuple(row) for row in columns.T.tolist()).encode("ascii")


def _powers() -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """Return 10ᵖ = (high·2⁶⁴ + low)·2^shift, cut off, with the highest bit of ``high`` set."""
    high, low, shift = [], [], []
    for power in range(_LOWEST, _HIGHEST + 1):
        if power >= 0:
            value = 10**power
            move = value.bit_length() - 128
            mantissa = value >> move if move >= 0 else value << -move
        else:
            divisor = 10**-power
            move = -(divisor.bit_length() + 127)
            mantissa = (1 << -move) // divisor
            extra = mantissa.bit_length() - 128
            mantissa, move = (mantissa >> extra, move + extra) if extra > 0 else (mantissa, move)
        high.append(mantissa >> 64)
        low.append(mantissa & (2**64 - 1))
        shift.append(move)
    return np.array(high, np.uint64), np.array(low, np.uint64), np.array(shift, np.int64)


_HIGH, _LOW, _SHIFT = _powers()
_PAIRS = np.frombuffer("".join(f"{n:02d}" for n in range(100)).encode(), np.uint8).copy()

_U = np.uint64
_HALF = _U(1 << 63)
_LOW32 = _U(0xFFFFFFFF)
_E18, _E19, _E9 = _U(10**18), _U(10**19), _U(10**9)
_LAST_EXACT = 55
"""The highest power of ten that 128 bits hold exactly."""


@njit(nogil=True, cache=True, inline="always")
def _product(a: Any, b: Any) -> Any:
    """Multiply two words of 64 bits; return the high and the low word."""
    s32 = np.uint64(32)
    a1, a0, b1, b0 = a >> s32, a & _LOW32, b >> s32, b & _LOW32
    middle = a1 * b0 + ((a0 * b0) >> s32)
    other = a0 * b1 + (middle & _LOW32)
    return a1 * b1 + (middle >> s32) + (other >> s32), a * b


@njit(nogil=True, cache=True)
def _digits(mantissa: Any, exponent: Any, power: Any, high: Any, low: Any, shift: Any) -> Any:
    """Return the integer nearest to mantissa·2^exponent·10^power, and whether it is certain."""
    one = np.uint64(1)
    index = power - _LOWEST
    t2, t1 = _product(mantissa, high[index])
    carry, t0 = _product(mantissa, low[index])
    t1 = t1 + carry
    if t1 < carry:
        t2 = t2 + one
    down = -(exponent + shift[index]) - 128
    if down < -1 or (down < 0 and t2 >= _HALF):  # above 19 digits
        return np.uint64(0xFFFFFFFFFFFFFFFF), True
    if down > 63:  # far below
        return np.uint64(0), True
    if down < 0:
        whole = (t2 << one) | (t1 >> np.uint64(63))
        part = (t1 << one) | (t0 >> np.uint64(63))
        rest = t0 << one
    elif down == 0:
        whole, part, rest = t2, t1, t0
    else:
        right, left = np.uint64(down), np.uint64(64 - down)
        whole = t2 >> right
        part = (t2 << left) | (t1 >> right)
        rest = (t1 << left) | t0  # only whether it is 0 matters
    exact = 0 <= power <= _LAST_EXACT
    if part > _HALF or (part == _HALF and (not exact or rest != np.uint64(0))):
        return whole + one, True
    if part == _HALF:
        return whole + (whole & one), True
    return whole, exact or part < _HALF - np.uint64(4)


@njit(nogil=True, cache=True)
def _write(bits: Any, high: Any, low: Any, shift: Any, pairs: Any, out: Any) -> Any:
    """Write all rows; return the length, or -1 when a number's last digit is uncertain."""
    at = 0
    columns, rows = bits.shape
    exponent: Any
    upper: Any
    for row in range(rows):
        for column in range(columns):
            word = bits[column, row]
            field = np.int64((word >> np.uint64(52)) & np.uint64(0x7FF))
            mantissa: Any = word & np.uint64(0xFFFFFFFFFFFFF)
            if field == 0x7FF and mantissa != np.uint64(0):
                out[at], out[at + 1], out[at + 2], out[at + 3] = 110, 97, 110, 32  # nan
                at += 4
                continue
            if word >= _HALF:
                out[at] = 45
                at += 1
            if field == 0x7FF:
                out[at], out[at + 1], out[at + 2], out[at + 3] = 105, 110, 102, 32  # inf
                at += 4
                continue
            number, ten = np.uint64(0), 0
            if field != 0 or mantissa != np.uint64(0):
                if field != 0:
                    mantissa = (mantissa | np.uint64(1 << 52)) << np.uint64(11)
                    exponent = field - 1086
                else:
                    exponent = -1074
                    while mantissa < _HALF:
                        mantissa = mantissa << np.uint64(1)
                        exponent -= 1
                ten = ((exponent + 63) * 78913) >> 18
                number, certain = _digits(mantissa, exponent, 18 - ten, high, low, shift)
                while number >= _E19:
                    ten += 1
                    number, certain = _digits(mantissa, exponent, 18 - ten, high, low, shift)
                while number < _E18:
                    ten -= 1
                    number, certain = _digits(mantissa, exponent, 18 - ten, high, low, shift)
                if not certain:
                    return -1
            first = number // _E18
            number = number - first * _E18
            out[at] = np.uint8(48) + np.uint8(first)
            out[at + 1] = 46
            upper = number // _E9
            lower = np.uint32(number - upper * _E9)
            upper = np.uint32(upper)
            at += 2
            for nine in (upper, lower):
                top = nine // np.uint32(100000000)
                out[at] = np.uint8(48) + np.uint8(top)
                left = np.uint32(nine - top * np.uint32(100000000))
                for place in range(7, 0, -2):
                    quotient = np.uint32(left // np.uint32(100))
                    pair = np.int64(left - quotient * np.uint32(100)) * 2
                    out[at + place] = pairs[pair]
                    out[at + place + 1] = pairs[pair + 1]
                    left = quotient
                at += 9
            out[at] = 101
            out[at + 1] = 43 if ten >= 0 else 45
            at += 2
            size = abs(ten)
            if size >= 100:
                out[at] = 48 + size // 100
                at += 1
                size = size % 100
            out[at], out[at + 1] = pairs[2 * size], pairs[2 * size + 1]
            out[at + 2] = 32
            at += 3
        out[at - 1] = 10
        out[at] = 32
        at += 1
    return at
