"""Numbers of curves against closed forms, SAXSdog's own sums, the scatter of noisy curves, and any curve at all."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from sisockdaq.errors import ConfigurationError
from sisockdaq.integrate import _invariants
from sisockdaq.integrate.invariants import NAMES, Invariants
from sisockdaq.saxsdog.parameters import IntegralParameters

Floats = npt.NDArray[np.float64]


def sphere(q: Floats, radius: float) -> Floats:
    """Return the form factor of a sphere, 1 at q = 0 (Rayleigh)."""
    x = q * radius
    curve: Floats = (3 * (np.sin(x) - x * np.cos(x)) / x**3) ** 2
    return curve


def coil(q: Floats, rg: float) -> Floats:
    """Return the form factor of a Gaussian coil, 1 at q = 0 (Debye)."""
    x = (q * rg) ** 2
    curve: Floats = 2 * (np.exp(-x) - 1 + x) / x**2
    return curve


@pytest.mark.parametrize("radius", [3.0, 10.0])
def test_a_sphere(radius: float) -> None:
    q = np.linspace(0.01, 200, 40_000) / radius
    numbers = Invariants(q, guinier_limit=0.5, tail=0.5).of(sphere(q, radius))
    volume = 4 / 3 * math.pi * radius**3
    assert numbers.guinier_valid
    assert numbers["Rg"] == pytest.approx(math.sqrt(3 / 5) * radius, rel=3e-3)
    assert numbers["guinier_I0"] == pytest.approx(1, rel=1e-3)
    assert numbers["correlation_length"] == pytest.approx(1.5 * radius, rel=6e-3)  # of the measured part
    assert numbers["invariant"] == pytest.approx(2 * math.pi**2 / volume, rel=1e-3)
    assert numbers["porod"] == pytest.approx(2 * math.pi * 4 * math.pi * radius**2 / volume**2, rel=1e-2)


def test_a_gaussian_is_guiniers_law_at_any_range() -> None:
    q, rg, scale = np.linspace(0.02, 3.0, 1500), 4.0, 250.0
    curve = scale * np.exp(-((q * rg) ** 2) / 3)
    for limit in (0.7, 1.3, None):
        numbers = Invariants(q, guinier_limit=limit, tail=0).of(curve)
        assert numbers["Rg"] == pytest.approx(rg, rel=1e-9)
        assert numbers["guinier_I0"] == pytest.approx(scale, rel=1e-9)
        if limit is not None:
            assert numbers.guinier_range[1] == pytest.approx(limit / rg, abs=0.003)
    # Closed forms of the whole integrals; the part below the first bin is the line's.
    b = rg**2 / 3
    numbers = Invariants(q, tail=0).of(curve)
    assert numbers["invariant"] == pytest.approx(scale * math.sqrt(math.pi) / (4 * b**1.5), rel=1e-5)
    assert numbers["I1"] == pytest.approx(scale / (2 * b) * math.exp(-b * (q[0] - 0.001) ** 2), rel=1e-4)


def test_a_coil_within_guiniers_range() -> None:
    q = np.linspace(0.01, 2.0, 2000)
    numbers = Invariants(q, guinier_limit=0.6).of(coil(q, 5.0))
    assert numbers.guinier_valid
    assert numbers["Rg"] == pytest.approx(5.0, rel=0.03)


@pytest.mark.parametrize(("start", "stop"), [(0.0, 10.0), (0.35, 1.72), (0.5, 2.0), (0.0, 0.11)])
def test_moments_are_those_of_saxsdog(start: float, stop: float) -> None:
    rng = np.random.default_rng(5)
    q = (np.arange(40) + 0.5) * 0.05
    curve = rng.normal(100, 30, 40)
    curve[[4, 17]] = np.nan
    expected = IntegralParameters(q, 0.05, start, stop).of(curve)
    numbers = Invariants(q, moments_range=(start, stop)).of(curve)
    assert [numbers[name] for name in expected] == pytest.approx(list(expected.values()), rel=1e-13)
    if (start, stop) == (0.0, 10.0):
        assert Invariants(q).of(curve)["I2"] == numbers["I2"]


def test_errors_are_the_scatter_of_noisy_curves() -> None:
    q = np.linspace(0.02, 3.0, 300)
    truth = 2000 * np.exp(-((q * 3) ** 2) / 3) + 30
    noisy = np.random.default_rng(7).poisson(truth, (600, 300)).astype(float)
    numbers = Invariants(q).of(noisy, np.broadcast_to(np.sqrt(truth), noisy.shape))
    assert numbers.guinier_valid.mean() > 0.98
    assert numbers["Rg"].mean() == pytest.approx(3.0, rel=0.02)
    assert numbers.guinier_chi2.mean() == pytest.approx(1, abs=0.1)
    for name in NAMES:
        scatter, said = numbers[name].std(), numbers[f"{name}_sigma"].mean()
        assert said == pytest.approx(scatter, rel=0.2 if "g" in name.lower() else 0.1), name
    # Without σ, Guinier's errors come from the scatter around the line; the others are not known.
    bare = Invariants(q).of(noisy)
    assert bare["Rg_sigma"].mean() == pytest.approx(bare["Rg"].std(), rel=0.25)
    assert np.isnan(bare["I2_sigma"]).all()


def test_the_kernel_is_compiled_once_for_all_inputs() -> None:
    q = np.linspace(0.05, 2.0, 100)
    q.flags.writeable = False
    invariants, curve = Invariants(q), coil(q, 2.0)
    expected = invariants.of(curve, curve).values
    frozen = curve.copy()
    frozen.flags.writeable = False
    for curves in (frozen, np.repeat(curve, 2)[::2], curve.astype(">f8")):
        np.testing.assert_array_equal(invariants.of(curves, curves).values, expected)
        np.testing.assert_array_equal(invariants.of(np.stack([curves] * 2, axis=1).T, None).values[1, :3], expected[:3])
    assert len(_invariants.reduce_curves.signatures) == 1


def test_frames_are_independent_and_single_curves_are_scalars() -> None:
    q = np.linspace(0.05, 2.0, 100)
    curves = np.stack([coil(q, rg) * 100 for rg in (2.0, 3.0, 4.0)])
    sigma = np.sqrt(curves)
    invariants = Invariants(q)
    many = invariants.of(curves, sigma)
    assert (many.values.shape, many.guinier_range.shape, many.guinier_valid.shape) == ((3, 8), (3, 2), (3,))
    for row in range(3):
        one = invariants.of(curves[row], sigma[row])
        np.testing.assert_array_equal(one.values, many.values[row])
        np.testing.assert_array_equal(one.sigma, many.sigma[row])
        found = one.to_dict()
        assert found["Rg"] == many["Rg"][row]
        assert isinstance(found["Rg"], float)
        assert found["guinier_valid"] is True
    assert set(many.to_dict()) == {*NAMES, *(f"{name}_sigma" for name in NAMES), "guinier_valid"}
    assert set(invariants.units) == set(invariants.descriptions) == set(NAMES)
    assert (invariants.units["Rg"], invariants.units["I2"]) == ("nm", "I (nm^-1)^3")
    np.testing.assert_array_equal(invariants.of(curves.astype(np.float32)).values[0].shape, (8,))


@pytest.mark.parametrize("kind", ["rising", "flat", "short", "far"])
def test_what_is_no_guinier_line_is_not_valid(kind: str) -> None:
    q = np.linspace(0.1, 2.0, 100)
    curve = {
        "rising": np.exp(q),
        "flat": 100 + np.random.default_rng(3).normal(0, 10, 100),
        "short": np.where(np.arange(100) < 4, np.exp(-(q**2)), np.nan),
        "far": np.exp(-((q * 30) ** 2) / 3) + 1e-30,
    }[kind]
    numbers = Invariants(q).of(curve, np.full(100, 10.0) if kind == "flat" else None)
    assert not numbers.guinier_valid


def test_a_curve_without_bins_has_no_numbers() -> None:
    q = np.linspace(0.1, 2.0, 100)
    numbers = Invariants(q).of(np.full(100, np.nan), np.full(100, np.nan))
    assert np.isnan(numbers.values).all()
    assert np.isnan(numbers.sigma).all()
    assert (int(numbers.guinier_points), bool(numbers.guinier_valid)) == (0, False)


values = st.floats(-1e6, 1e6) | st.sampled_from([math.nan, math.inf, -math.inf, 0.0])


@settings(max_examples=80, deadline=None)
@given(arrays.arrays(np.float64, (3, 12), elements=values), arrays.arrays(np.float64, (3, 12), elements=values))
def test_any_curve_is_safe(curves: Floats, sigma: Floats) -> None:
    q = np.linspace(0.0, 1.0, 12)
    invariants = Invariants(q)
    for errors in (None, sigma):
        numbers = invariants.of(curves, errors)
        assert numbers.values.shape == (3, 8)
        part = np.where(np.isfinite(curves[:, :11]), curves[:, :11], 0)
        wanted = part @ (q[:11] ** 2) * (q[1] - q[0])
        some = np.isfinite(curves[:, :11]).any(axis=1)
        np.testing.assert_allclose(numbers["I2"][some], wanted[some], rtol=1e-9, atol=1e-6)
        assert np.isnan(numbers["I2"][~some]).all()
        good = numbers.guinier_valid
        assert (numbers["Rg"][good] > 0).all()
        assert (numbers["Rg"][good] * numbers.guinier_range[good, 1] <= 1.301).all()
        assert (numbers.guinier_points[good] >= 6).all()


@settings(max_examples=40, deadline=None)
@given(st.floats(0.5, 20.0), st.floats(1e-3, 1e6), st.floats(0.5, 2.0))
def test_numbers_scale_with_units(rg: float, scale: float, factor: float) -> None:
    """In other units of q and I, the numbers are the same quantities."""
    q = np.linspace(0.01, 6.0, 400) / rg
    curve = coil(q, rg)
    plain, other = Invariants(q).of(curve), Invariants(q * factor).of(curve * scale)
    powers = {
        "I0": 1,
        "I1": 2,
        "I2": 3,
        "correlation_length": -1,
        "porod": 4,
        "invariant": 3,
        "guinier_I0": 0,
        "Rg": -1,
    }
    for name, power in powers.items():
        size = 1.0 if name in ("correlation_length", "Rg") else scale
        assert other[name] == pytest.approx(plain[name] * factor**power * size, rel=1e-6), name


def test_bins_of_unequal_width_have_their_own() -> None:
    q = np.geomspace(0.01, 5.0, 4000)
    numbers = Invariants(q).of(np.exp(-(q**2)))
    assert numbers["I1"] == pytest.approx(0.5, rel=1e-3)


def test_mistakes_are_told() -> None:
    q = np.linspace(0.1, 2.0, 100)
    for axis in (q[::-1], q[:2], -q[::-1], q.reshape(2, 50)):
        with pytest.raises(ConfigurationError, match="rising q"):
            Invariants(axis)
    with pytest.raises(ConfigurationError, match="no bin for moments"):
        Invariants(q, moments_range=(3.0, 4.0))
    with pytest.raises(ConfigurationError, match="Guinier"):
        Invariants(q, guinier_range=(1.0, 0.5))
    with pytest.raises(ConfigurationError, match="make no sense"):
        Invariants(q, fewest=2)
    with pytest.raises(ValueError, match="do not fit"):
        Invariants(q).of(np.zeros(99))
    with pytest.raises(ValueError, match="errors of shape"):
        Invariants(q).of(np.zeros(100), np.zeros(99))
    with pytest.raises(KeyError):
        Invariants(q).of(np.ones(100))["I7"]
