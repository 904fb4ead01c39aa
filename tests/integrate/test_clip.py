"""Sigma clipping and the azimuthal variance: what pyFAI gives, for the same pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sisockdaq.errors import ConfigurationError
from sisockdaq.integrate import Integrator
from sisockdaq.integrate.clip import azimuthal, sigma_clip
from sisockdaq.integrate.result import average
from tests.integrate.geometries import Case, cases
from tests.integrate.ring_reference import ask, frame_of, make_rings

MODELS = ("poisson", "azimuthal", "hybrid")
CASE = Case(
    {"distance": 0.02, "poni1": 0.001, "poni2": 0.0015, "rot1": 0.05, "wavelength": 1e-10},
    (60, 70),
    40,
    "q_nm^-1",
    0.9,
    True,
    0.02,
    5,
)


def spotted(case: Case) -> npt.NDArray[Any]:
    """Background with Bragg peaks; no two values are the same."""
    rng = np.random.default_rng(case.seed + 2)
    image = case.image(np.float32, 30) + rng.random(case.shape, np.float32)
    image[rng.random(case.shape) < 0.02] *= 20
    return image


def agrees(ours: Any, theirs: Any) -> None:
    filled = ours.weight2 > 0
    assert np.array_equal(filled, theirs.sum_normalization2 > 0)
    for one, two in ((ours.mean, theirs.intensity), (ours.error, theirs.sem), (ours.deviation, theirs.std)):
        scale = np.abs(theirs.intensity[filled]).max(initial=0)
        np.testing.assert_allclose(one[filled], two[filled], rtol=1e-6, atol=1e-6 * scale)
        assert np.isnan(one[~filled]).all()
    np.testing.assert_allclose(ours.signal[filled], theirs.sum_signal[filled], rtol=1e-6)
    np.testing.assert_allclose(ours.weight[filled], theirs.sum_normalization[filled], rtol=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    cases(),
    st.sampled_from(["no", "bbox", "full"]),
    st.sampled_from(MODELS),
    st.sampled_from([0.0, 1.7, 3.0, 5.0]),
    st.integers(0, 6),
)
def test_the_same_pixels_are_rejected(case: Case, split: str, model: Any, threshold: float, iterations: int) -> None:
    image = spotted(case)
    rings = make_rings(case, split)
    ours = sigma_clip(
        rings, frame_of(image), threshold=threshold, iterations=iterations, error_model=model, want_mask=True
    )
    theirs, rejected = ask(case, "sigma_clip", image, split, error_model=model, thres=threshold, max_iter=iterations)
    assert ours.rejected_mask is not None
    assert np.array_equal(ours.rejected_mask, rejected)
    assert ours.rejected.sum() == rejected.sum()
    agrees(ours, theirs)


@settings(max_examples=15, deadline=None)
@given(cases(), st.sampled_from(["no", "bbox", "full"]), st.sampled_from(MODELS))
def test_unusable_pixels_are_in_no_ring(case: Case, split: str, model: Any) -> None:
    image = spotted(case)
    rng = np.random.default_rng(case.seed)
    image[rng.random(case.shape) < 0.1] = -7
    image[rng.random(case.shape) < 0.1] = np.nan
    image[rng.random(case.shape) < 0.05] = np.inf
    ours = sigma_clip(make_rings(case, split), frame_of(image, -7), error_model=model, threshold=3, want_mask=True)
    theirs, rejected = ask(case, "sigma_clip", image, split, error_model=model, thres=3, dummy=-7)
    assert np.array_equal(ours.rejected_mask, rejected)
    agrees(ours, theirs)


@pytest.mark.parametrize("split", ["no", "bbox", "full"])
@pytest.mark.parametrize("model", MODELS)
def test_dark_and_flat(split: str, model: Any) -> None:
    rng = np.random.default_rng(1)
    dark = rng.random(CASE.shape, np.float32) * 5
    flat = rng.random(CASE.shape, np.float32) + 0.5
    flat[3:6, 10:20] = 0
    image = spotted(CASE)
    plain = make_rings(CASE, split)
    weight = np.zeros(image.size, np.float32)
    weight[plain.pixel] = plain.weight
    rings = make_rings(CASE, split, normalization=weight * flat.ravel(), dark=dark)
    ours = sigma_clip(rings, frame_of(image), error_model=model, threshold=3, want_mask=True)
    theirs, rejected = ask(CASE, "sigma_clip", image, split, error_model=model, thres=3, dark=dark, flat=flat)
    assert np.array_equal(ours.rejected_mask, rejected)
    agrees(ours, theirs)


@settings(max_examples=20, deadline=None)
@given(cases(), st.sampled_from(["no", "bbox", "full"]))
def test_variance_within_a_ring_is_that_of_plain_integration(case: Case, split: str) -> None:
    image = spotted(case)
    agrees(azimuthal(make_rings(case, split), frame_of(image)), case.reference(image, split, error_model="azimuthal"))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.float64])
def test_types_of_images(dtype: Any) -> None:
    image = np.minimum(spotted(CASE), 200).astype(dtype)
    ours = sigma_clip(make_rings(CASE, "no"), frame_of(image), threshold=3)
    theirs, _ = ask(CASE, "sigma_clip", image, "no", error_model="azimuthal", thres=3)
    agrees(ours, theirs)


@pytest.mark.parametrize("model", MODELS)
def test_a_ring_that_is_rejected_whole_is_empty(model: Any) -> None:
    rings = make_rings(CASE, "no")
    image = np.zeros(CASE.shape, np.float32)
    ring = rings.pixel[rings.start[20] : rings.start[21]]
    image.ravel()[ring[::2]] = 1e6
    image.ravel()[ring[1::2]] = -1e6
    ours = sigma_clip(rings, frame_of(image), threshold=0.5, iterations=50, error_model="poisson")
    assert ours.count[20] == ours.weight[20] == 0
    assert np.isnan([ours.mean[20], ours.error[20], ours.deviation[20]]).all()
    assert ours.rejected[20] == ring.size
    everywhere_nan = np.full(CASE.shape, np.nan)
    nothing = sigma_clip(rings, frame_of(everywhere_nan), error_model=model)
    assert np.isnan(nothing.mean).all()
    assert not nothing.count.any()
    assert not nothing.rejected.any()


@pytest.mark.parametrize("split", ["no", "bbox"])
def test_threads_change_nothing(split: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sisockdaq.integrate.rings.BLOCK", 300)
    rings = make_rings(CASE, split)
    assert len(rings.blocks) > 5
    image = spotted(CASE)
    for model in MODELS:
        alone = sigma_clip(rings, frame_of(image), threshold=2, error_model=model)  # type: ignore[arg-type]
        for threads in (2, 5):
            together = sigma_clip(rings, frame_of(image), threshold=2, error_model=model, threads=threads)  # type: ignore[arg-type]
            assert np.array_equal(alone.signal, together.signal)
            assert np.array_equal(alone.variance, together.variance)


def test_wrong_options_are_named() -> None:
    rings, frame = make_rings(CASE, "no"), frame_of(spotted(CASE))
    with pytest.raises(ConfigurationError, match='"gauss" is not an error model'):
        sigma_clip(rings, frame, error_model="gauss")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="threshold is -1"):
        sigma_clip(rings, frame, threshold=-1)
    with pytest.raises(ConfigurationError, match="threshold is nan"):
        sigma_clip(rings, frame, threshold=float("nan"))
    with pytest.raises(ConfigurationError, match="iterations is -1"):
        sigma_clip(rings, frame, iterations=-1)


@pytest.mark.parametrize("split", ["no", "bbox", "full"])
def test_the_integrator_clips_and_takes_medians(split: Any) -> None:
    image = spotted(CASE)
    dark = np.full(CASE.shape, 2.0)
    background = (np.array([0.0, 100.0]), np.array([1.5, 1.5]))
    integrator = Integrator(
        CASE.parameters,
        split=split,
        error_model="azimuthal",
        dark=dark,
        rois={"all": (0, 0, 70, 60)},
        threads=2,
        background=background,
        **CASE.options(),
    )
    plain = integrator.integrate(image, monitor=2.5)
    theirs = CASE.reference(image, split, error_model="azimuthal", dark=dark, normalization_factor=2.5)
    np.testing.assert_allclose(plain.intensity + 1.5, theirs.intensity, rtol=1e-6)
    np.testing.assert_allclose(plain.sigma, theirs.sigma, rtol=1e-6)
    assert integrator.has_errors
    ours = integrator.sigma_clip(image, threshold=3, iterations=4, monitor=2.5, want_mask=True)
    theirs, rejected = ask(
        CASE,
        "sigma_clip",
        image,
        split,
        error_model="azimuthal",
        thres=3,
        max_iter=4,
        dark=dark,
        normalization_factor=2.5,
    )
    assert np.array_equal(ours.rejected_mask, rejected)
    np.testing.assert_allclose(ours.intensity + 1.5, theirs.intensity, rtol=1e-6)
    np.testing.assert_allclose(ours.sigma, theirs.sem, rtol=1e-6)
    np.testing.assert_allclose(ours.deviation, theirs.std, rtol=1e-6)
    assert ours.rois["all"] == plain.rois["all"]
    middle = integrator.median(image, quantiles=(0.3, 0.7), monitor=2.5)
    theirs, _ = ask(CASE, "medfilt1d_ng", image, split, percentile=(30, 70), dark=dark, normalization_factor=2.5)
    np.testing.assert_allclose(middle.intensity + 1.5, theirs.intensity, rtol=1e-6)
    assert average([ours, ours]).count.sum() == 2 * ours.count.sum()
