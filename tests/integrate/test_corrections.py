"""Dark, flat, absorption, dummy with delta, ranges and monitor, alone and together, against pyFAI; and bad images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fabio
import h5py
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sisockdaq.errors import ConfigurationError
from sisockdaq.integrate import Integrator
from sisockdaq.integrate.corrections import mark_unusable
from tests.integrate.geometries import PIXEL, Case, cases

SHAPE = (61, 87)
SMALL = {"distance": 0.1, "poni1": 0.002, "poni2": 0.0031, "rot1": 0.05, "wavelength": 1e-10}
TYPES = [np.uint8, np.uint16, np.uint32, np.int16, np.int32, np.float32, np.float64]
SPLITS = ["no", "bbox", "full"]


def small(**options: Any) -> Integrator:
    return Integrator(SMALL, **{"shape": SHAPE, "pixel_size": PIXEL, "bins": 40, **options})


@dataclass(frozen=True)
class Options:
    """A random choice of all that a user may ask for at once."""

    split: str
    dtype: Any
    dark: str | None
    flat: bool
    absorption: bool
    dummy: str | None
    nan: bool
    poisson: bool
    monitor: float
    transmission: float
    radial: tuple[float, float] | None
    azimuth: tuple[float, float] | None

    def image(self, case: Case) -> npt.NDArray[Any]:
        image = case.image(self.dtype, mean=100.0)
        rng = np.random.default_rng(case.seed + 2)
        if self.dummy is not None:
            near = rng.random(case.shape) < 0.1
            wide = self.dummy == "near"
            image[near] = self._dummy + rng.integers(-2 * wide, 2 * wide + 1, case.shape)[near]
        if self.nan and image.dtype.kind == "f":
            image[rng.random(case.shape) < 0.05] = np.nan
        return image

    @property
    def _dummy(self) -> int:
        return 250 if self.dtype == np.uint8 else 30000

    def ours(self, case: Case) -> dict[str, Any]:
        rng = np.random.default_rng(case.seed + 3)
        given: dict[str, Any] = {}
        if self.dark is not None:
            dark = rng.integers(0, 9, case.shape) / (1 if self.dark == "whole" else 4)
            given["dark"] = np.where(rng.random(case.shape) < 0.03, np.nan, dark) if self.dark == "nan" else dark
        for name in ("flat", "absorption"):
            if getattr(self, name):
                image = rng.uniform(0.5, 1.5, case.shape)
                image[rng.random(case.shape) < 0.03] = 0
                image[rng.random(case.shape) < 0.03] = np.nan
                given[name] = image
        if self.dummy is not None:
            given |= {"dummy": self._dummy, "delta_dummy": 2.5 if self.dummy == "near" else None}
        return given | {"radial_range": self._ends(case), "azimuth_range": self.azimuth}

    def _ends(self, case: Case) -> tuple[float, float] | None:
        if self.radial is None:
            return None
        axis = Integrator(case.parameters, **case.options()).axis
        begin, length = self.radial
        return axis[0] + begin * (axis[-1] - axis[0]), axis[0] + (begin + length) * (axis[-1] - axis[0])


@st.composite
def choices(draw: st.DrawFn) -> Options:
    degrees = st.floats(-180, 180)
    azimuth = draw(st.none() | st.tuples(degrees, degrees).map(sorted).filter(lambda ends: ends[1] - ends[0] > 20))
    return Options(
        draw(st.sampled_from(SPLITS)),
        draw(st.sampled_from(TYPES)),
        draw(st.sampled_from([None, "whole", "quarters", "nan"])),
        draw(st.booleans()),
        draw(st.booleans()),
        draw(st.sampled_from([None, "one", "near"])),
        draw(st.booleans()),
        draw(st.booleans()),
        draw(st.sampled_from([1.0, 3.7e4])),
        draw(st.sampled_from([1.0, 0.31])),
        draw(st.none() | st.tuples(st.floats(0, 0.6), st.floats(0.1, 0.6))),
        None if azimuth is None else (azimuth[0], azimuth[1]),
    )


@settings(max_examples=40, deadline=None)
@given(cases(), choices())
def test_every_combination_of_options_is_pyfais(case: Case, options: Options) -> None:
    given_ours = options.ours(case)
    image = options.image(case)
    model = "poisson" if options.poisson else None
    integrator = Integrator(case.parameters, **case.options(split=options.split, error_model=model, **given_ours))
    ours = integrator.integrate(image, monitor=options.monitor, transmission=options.transmission)
    theirs = case.reference(
        image,
        options.split,
        error_model=model,
        normalization_factor=options.monitor * options.transmission,
        **given_ours,
    )
    np.testing.assert_allclose(ours.axis, theirs.radial, rtol=1e-14)
    used = theirs.count > 1e-6
    agree(ours.count, theirs.count, used, 1e-6 if options.split == "no" else 1e-5)
    agree(ours.intensity, theirs.intensity, used, 1e-6)
    agree(ours.sum_normalization, theirs.sum_normalization, used, 1e-6 if options.split == "no" else 1e-5)
    if options.split == "no":
        np.testing.assert_array_equal(np.isnan(ours.intensity), theirs.count == 0)
        np.testing.assert_array_equal(ours.sum_signal.astype(np.float64), theirs.sum_signal)
        whole = np.dtype(options.dtype).kind != "f" and options.dark in (None, "whole")
        assert (ours.sum_signal.dtype.kind != "f") == whole
    if options.poisson:
        agree(ours.sigma, theirs.sigma, used, 1e-6)
    else:
        assert ours.sigma is None


def agree(ours: Any, theirs: Any, used: Any, relative: float) -> None:
    np.testing.assert_allclose(np.asarray(ours)[used], np.asarray(theirs)[used], rtol=relative, atol=0)


@pytest.mark.parametrize("split", SPLITS)
def test_a_bin_that_loses_all_its_pixels_is_empty_whatever_its_dark(split: Any) -> None:
    image = np.full(SHAPE, 9.0, np.float32)
    image[:, 30:] = np.nan
    dark = np.random.default_rng(0).uniform(0, 5, SHAPE)
    result = small(split=split, dark=dark, flat=dark + 1, error_model="poisson").integrate(image)
    empty = result.count == 0
    assert empty.any()
    assert np.isnan(result.intensity[empty]).all()
    assert np.isfinite(result.intensity[~empty]).all()
    assert (result.sum_signal[empty] == 0).all()


def test_a_flat_and_a_dark_leave_totals_and_regions_raw() -> None:
    image = np.random.default_rng(0).poisson(9, SHAPE).astype(np.uint16)
    result = small(dark=np.ones(SHAPE), flat=np.full(SHAPE, 2.0), rois={"all": (0, 0, 87, 61)}).integrate(image)
    assert result.total == result.rois["all"] == image.sum()


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.uint64, np.float32])
@pytest.mark.parametrize(("dummy", "delta"), [(-1, 1.5), (7, 2), (7.5, 0.4), (7.5, 0.5), (250, 10), (-300, 3), (7, 0)])
def test_pixels_near_the_dummy_are_marked(dtype: Any, dummy: float, delta: float) -> None:
    image = np.arange(256).astype(dtype).reshape(16, 16)
    marked, marker = mark_unusable(image, dummy, delta)
    unusable = np.zeros(image.shape, bool) if marker is None else marked.astype(np.float64) == marker
    np.testing.assert_array_equal(unusable, np.abs(image.astype(np.float64) - dummy) <= delta)
    np.testing.assert_array_equal(marked[~unusable], image[~unusable])
    assert marked.dtype == image.dtype
    swapped = image.astype(image.dtype.newbyteorder(">"))
    again, _ = mark_unusable(swapped, dummy, delta)
    np.testing.assert_array_equal(again, marked)


def test_the_image_is_not_copied_where_one_value_marks_its_pixels() -> None:
    image = np.zeros((4, 4), np.uint16)
    for dummy, delta in ((None, None), (65535, None), (65535, 0.0), (65535.2, 0.9), (-5, 2)):
        assert mark_unusable(image, dummy, delta)[0] is image


@pytest.mark.parametrize("suffix", [".npy", ".edf", ".tif", ".h5"])
def test_corrections_are_read_from_files(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(5)
    dark, flat = rng.integers(0, 4, SHAPE).astype(np.uint16), rng.uniform(0.5, 1.5, SHAPE).astype(np.float32)
    image = rng.poisson(50, SHAPE).astype(np.uint32)
    expected = small(dark=dark, flat=flat).integrate(image)
    paths = {"dark": write(tmp_path / f"dark{suffix}", dark), "flat": write(tmp_path / f"flat{suffix}", flat)}
    np.testing.assert_array_equal(small(**paths).integrate(image).intensity, expected.intensity)


def write(path: Path, values: Any) -> Path:
    match path.suffix:
        case ".npy":
            np.save(path, values)
        case ".edf":
            fabio.edfimage.EdfImage(data=values).write(str(path))
        case ".tif":
            fabio.tifimage.TifImage(data=values).write(str(path))
        case ".h5":
            with h5py.File(path, "w") as file:
                file["entry/data/data"] = values
    return path


def test_several_dark_frames_are_averaged(tmp_path: Path) -> None:
    frames = np.random.default_rng(5).integers(0, 9, (5, *SHAPE)).astype(np.uint16)
    image = np.full(SHAPE, 100, np.uint16)
    expected = small(dark=frames.mean(0)).integrate(image).intensity
    paths = [write(tmp_path / "dark.h5", frames), write(tmp_path / "dark.npy", frames)]
    for source in (frames, *paths, f"{paths[0]}::/entry/data/data"):
        np.testing.assert_allclose(small(dark=source).integrate(image).intensity, expected, rtol=1e-6)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"dark": np.zeros((3, 4))}, r"the dark image: has 3 × 4 pixels .*the images have 61 × 87"),
    ({"flat": np.zeros((87, 61))}, r"the flat image: has 87 × 61 pixels"),
    ({"flat": np.zeros(SHAPE)}, "the flat leaves no pixel"),
    ({"absorption": np.full(SHAPE, np.nan)}, "the absorption leaves no pixel"),
    ({"dark": np.full(SHAPE, np.nan)}, "the dark leaves no pixel: all are NaN"),
    ({"dark": "nowhere.edf"}, r"nowhere\.edf: no such dark image"),
    ({"dark": np.array(["a"])}, "not an image but an array of type"),
    ({"dark": np.zeros(7)}, r"not an image but an array of shape \(7,\)"),
    ({"delta_dummy": 1.0}, "there is no dummy"),
    ({"dummy": 3, "delta_dummy": -1.0}, r"delta_dummy is -1\.0"),
    ({"dummy": 3, "delta_dummy": float("nan")}, "delta_dummy is nan"),
    ({"threads": 0}, "threads is 0"),
    ({"background": np.zeros((3, 4))}, r"the background image: has 3 × 4"),
    ({"background": np.zeros(SHAPE), "background_scale": float("nan")}, "background_scale is nan"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_bad_corrections_are_refused_with_the_reason(options: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        small(**options)


def test_broken_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "dark.edf").write_bytes(b"\x00garbage" * 10)
    with pytest.raises(ConfigurationError, match=r"dark\.edf: cannot be read as a dark image"):
        small(dark=tmp_path / "dark.edf")
    with h5py.File(tmp_path / "dark.h5", "w") as file:
        file["one"] = file["two"] = np.zeros(SHAPE)
    with pytest.raises(ConfigurationError, match=r"which dataset is the dark image .*one of /one, /two"):
        small(dark=tmp_path / "dark.h5")


@pytest.mark.parametrize("bad", [0, -1, float("nan"), float("inf")])
def test_a_frame_without_beam_makes_no_curve(bad: float) -> None:
    image = np.zeros(SHAPE, np.uint16)
    with pytest.raises(ValueError, match=f"the monitor is {bad}, and must be a number above 0"):
        small().integrate(image, monitor=bad)
    with pytest.raises(ValueError, match=f"the transmission is {bad}"):
        small().integrate_all(image, transmission=bad)
