"""JUNGFRAU frames to keV and photons, one thread: `Converter.convert_into` against a straightforward numpy version.

Both make the same: each pixel by the maps of its gain stage, bad pixels and those that tell nothing marked, saturated
ones marked, and of the frame the sum, the maximum and the numbers of such pixels. The numpy version does it as one
writes it: a mask a stage, its memory made once. Both run in turn in one thread; CPU time, medians. The floor is one
pass that reads the raw frame and the maps of G0, and writes the output, and does nothing else.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numba import njit

from benchmarks._turns import in_turns
from sisockdaq.conversion import Converter, JungfrauModel, Pedestal

_SHAPE = (1024, 1024)
_ENERGY = 12.4


@njit(nogil=True, cache=True, error_model="numpy", fastmath=True)
def _touch(raw: Any, pedestal: Any, scale: Any, out: Any) -> None:
    for i in range(raw.size):
        out[i] = out.dtype.type(raw[i] + pedestal[i] + scale[i])


class _Plain:
    """The straightforward numpy version."""

    def __init__(self, pedestal: Any, gain: Any, bad: Any, photon: float | None, dtype: Any) -> None:
        self._pedestal = pedestal
        self._scale = (1 / (gain * (photon or 1.0))).astype(np.float32)
        self._bad, self._dtype = bad, np.dtype(dtype)
        self._value = np.empty(_SHAPE, np.float32)

    def __call__(self, raw: Any, out: Any) -> tuple[float, float, int, int]:
        stage, adc, value = raw >> 14, raw & 0x3FFF, self._value
        for row, code in enumerate((0, 1, 3)):
            here = stage == code
            value[here] = (adc[here] - self._pedestal[row][here]) * self._scale[row][here]
        saturated = (raw == 0xC000) & ~self._bad
        empty = (stage == 2) | (raw == 0xFFFF) | (raw == 0x4000) | self._bad
        good = ~(empty | saturated)
        if self._dtype.kind == "f":
            out[...] = value
            out[empty], out[saturated] = np.nan, np.inf
        else:
            limits = np.iinfo(self._dtype)
            value[~good] = 0
            out[...] = np.floor(value + np.float32(0.5)).clip(max(limits.min, -(2**31 - 256)), limits.max - 2)
            out[empty], out[saturated] = limits.max, limits.max - 1
        kept = out[good]
        return float(kept.sum(dtype=np.float64)), float(kept.max()), int(empty.sum()), int(saturated.sum())


def _frames(model: JungfrauModel) -> dict[str, Any]:
    """Return raw frames by what they hold."""
    generator = np.random.default_rng(1)
    weak = generator.poisson(0.3, _SHAPE)
    y, x = np.indices(_SHAPE) - np.array(_SHAPE)[:, None, None] / 2
    radius = np.hypot(y, x)
    rings = weak + generator.poisson(400 * np.exp(-((radius / 70) ** 2)) + 60 * np.exp(-(((radius - 300) / 4) ** 2)))
    scattered = weak + np.where(generator.random(_SHAPE) < 0.025, 150, 0)
    scattered[generator.random(_SHAPE) < 0.005] = 3000
    named = {"all in G0": weak, "rings, 6 % in G1": rings, "3 % at random in G1 and G2": scattered}
    return {name: model.raw(light * _ENERGY) for name, light in named.items()}


def run(quick: bool = False) -> list[dict[str, Any]]:
    """Measure; return the rows."""
    model = JungfrauModel.drawn(_SHAPE, seed=1)
    bad = np.random.default_rng(2).random(_SHAPE) < 1e-3
    maps = (3, *_SHAPE)
    pedestal = Pedestal(model.pedestal, np.ones(maps, np.float32), np.ones(maps, np.uint32), bad.astype(np.uint32))
    frames = _frames(model)
    rows = []
    for output, dtype in (("keV", np.float32), ("photons", np.int32), ("photons", np.uint16)):
        photon = _ENERGY if output == "photons" else None
        ours = Converter(pedestal, model.gain, output=output, photon_energy=photon, dtype=dtype)  # type: ignore[arg-type]
        plain = _Plain(model.pedestal, model.gain, bad, photon, dtype)
        for name, raw in frames.items():
            rows.append(
                _row(f"1 Mpix to {output} {np.dtype(dtype).name}, {name}", ours, plain, raw, 5 if quick else 15)
            )
    return rows


def _row(case: str, ours: Converter, plain: _Plain, raw: Any, rounds: int) -> dict[str, Any]:
    out, other = np.zeros(_SHAPE, ours.dtype), np.zeros(_SHAPE, ours.dtype)
    _check(ours.convert_into(raw, out), plain(raw, other), out, other)
    flat = np.ascontiguousarray(ours.maps[0]), np.ascontiguousarray(ours.maps[1])
    calls: dict[str, Callable[[], Any]] = {
        "ours": partial(ours.convert_into, raw, out),
        "plain": partial(plain, raw, other),
        "floor": partial(_touch, raw.reshape(-1), *flat, out.reshape(-1)),
    }
    taken = in_turns(calls, rounds)
    return {
        "benchmark": "convert",
        "case": case,
        "value": 1e3 * taken["ours"],
        "unit": "ms",
        "against": f"numpy {1e3 * taken['plain']:.1f} ms",
        "ratio": taken["plain"] / taken["ours"],
        "floor_share": min(1.0, taken["floor"] / taken["ours"]),
    }


def _check(found: Any, plain: tuple[float, float, int, int], out: Any, other: Any) -> None:
    """Two versions that disagree must not be compared."""
    assert (found.empty, found.saturated) == plain[2:]
    assert abs(found.total - plain[0]) <= 1e-5 * abs(plain[0])
    good = np.isfinite(other)
    if out.dtype.kind != "f":
        good = other < np.iinfo(out.dtype).max - 1
    assert np.abs(out[good].astype(float) - other[good]).max() <= max(1.0, 1e-5 * float(found.maximum))


def main() -> None:
    """Print lines for a reader."""
    for row in run("--quick" in sys.argv):
        floor = f"{100 * row['floor_share']:3.0f} % of floor"
        print(f"{row['case']:55} {row['value']:6.2f} ms  {row['ratio']:5.1f} × {row['against']:16} {floor}")


if __name__ == "__main__":
    main()
