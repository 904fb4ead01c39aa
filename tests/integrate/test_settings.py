"""Settings: every wrong value and every wrong file is told at once, and what they make is pyFAI's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from pydantic import ValidationError

from sisockdaq.errors import ConfigurationError, GeometryError, MaskError
from sisockdaq.integrate import Integrator, Sector, load_geometry
from sisockdaq.integrate.settings import IntegrationSettings, file_place, make_integrator

SHAPE = (60, 80)
PIXEL = 1e-4
PLACE = {"distance": 0.1, "poni1": 0.003, "poni2": 0.004, "wavelength": 1e-10}


def picture() -> Any:
    return np.random.default_rng(3).poisson(50, SHAPE).astype(np.uint16)


def settings(**options: Any) -> IntegrationSettings:
    return IntegrationSettings.model_validate({"geometry": PLACE, "bins": 40, **options})


@pytest.mark.parametrize(
    ("options", "place", "reason"),
    [
        ({"unit": "q_nm"}, "unit", "q_nm\\^-1"),
        ({"bins": 0}, "bins", "greater than or equal to 1"),
        ({"split": "half"}, "split", "bbox"),
        ({"method": "mode"}, "method", "sigma_clip"),
        ({"rois": {"not a name": [0, 0, 1, 1]}}, "rois", '"not a name" is no name for a region'),
        ({"rois": {"beam": [5, 0, 5, 1]}}, "rois", "region beam is"),
        ({"sectors": {"": {}}}, "sectors", "is no name for a sector"),
        ({"sectors": {"left": {"angle": 3}}}, "sectors", "not permitted"),
        ({"radial_range": [3, 1]}, "radial_range", "from 3 to 1 is empty"),
        ({"azimuth_range": [3, 3]}, "azimuth_range", "from 3 to 3 is empty"),
        ({"quantiles": [0.7, 0.2]}, "quantiles", "from 0 to 1"),
        ({"delta_dummy": 1.0}, "", "delta_dummy needs dummy"),
        ({"method": "median", "sectors": {"left": {}}}, "", "sectors are integrated by mean only"),
        ({"unit": "2th_deg", "invariants": True}, "", "numbers of curves over q"),
        ({"invariants": {"moments_range": [2, 1]}}, "invariants", "from 2 to 1 is empty"),
        ({"method": "median", "cake": True}, "", "cakes are integrated by mean only"),
        ({"polarization": 2}, "polarization", "less than or equal to 1"),
        ({"threads": 0}, "threads", "greater than or equal to 1"),
        ({"bin": 100}, "bin", "not permitted"),
    ],
)
def test_wrong_values_are_refused(options: dict[str, Any], place: str, reason: str) -> None:
    with pytest.raises(ValidationError, match=reason) as caught:
        settings(**options)
    assert str((*caught.value.errors()[0]["loc"], "")[0]) == place


def test_all_wrong_values_are_told_at_once() -> None:
    with pytest.raises(ValidationError) as caught:
        settings(bins=0, unit="q", rois={"a b": [0, 0, 1, 1], "c": [3, 3, 1, 1]}, threads=1000)
    assert {error["loc"][0] for error in caught.value.errors()} == {"bins", "unit", "rois", "threads"}
    assert "a b" in str(caught.value)
    assert "region c" in str(caught.value)


def test_all_wrong_files_are_told_at_once(tmp_path: Path) -> None:
    np.save(tmp_path / "mask.npy", np.zeros((3, 4), bool))
    wrong = settings(
        geometry="none.poni",
        mask="mask.npy",
        flat="flat.npy",
        background="empty.chi",
        rois={"beam": (0, 0, 81, 10)},
        sectors={"left": {"mask": "left.edf"}},
    )
    with pytest.raises(ConfigurationError) as caught:
        make_integrator(wrong, resolve=tmp_path.joinpath, shape=SHAPE, pixel_size=PIXEL)
    assert len(caught.value.problems) == 6
    for name in ("none.poni", "mask.npy", "flat.npy", "empty.chi", "region beam", "sector left: "):
        assert sum(name in line for line in caught.value.problems) == 1


def test_one_wrong_file_is_the_error_itself(tmp_path: Path) -> None:
    with pytest.raises(MaskError, match=r"mask\.npy: no such mask"):
        make_integrator(settings(mask="mask.npy"), resolve=tmp_path.joinpath, shape=SHAPE, pixel_size=PIXEL)
    with pytest.raises(GeometryError, match="no pixel size"):
        make_integrator(settings())
    with pytest.raises(ConfigurationError, match="there is no geometry"):
        make_integrator(IntegrationSettings())


def test_settings_make_the_integrator_that_they_describe(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    mask, hidden = random.random((2, *SHAPE)) < 0.05
    flat, dark, mine = random.uniform(0.9, 1.1, SHAPE), random.integers(0, 5, SHAPE), random.random(SHAPE) < 0.1
    for name, values in {"mask": mask, "flat": flat, "dark": dark, "mine": mine}.items():
        np.save(tmp_path / f"{name}.npy", values)
    load_geometry(PLACE, shape=SHAPE, pixel_size=PIXEL).save(str(tmp_path / "a.poni"))
    (tmp_path / "empty.dat").write_text("".join(f"{q} {1 + q} 0.1\n" for q in np.linspace(0, 40, 30)))
    text = """
    geometry: a.poni
    mask: mask.npy
    bins: 50
    unit: 2th_deg
    split: full
    radial_range: [0.1, 2.5]
    azimuth_range: [-100, 120]
    polarization: 0.9
    flat: flat.npy
    dark: dark.npy
    background: empty.dat
    background_scale: 0.5
    error_model: azimuthal
    dummy: 3
    delta_dummy: 0.5
    rois: {beam: [1, 2, 30, 40]}
    sectors: {right: {azimuth_range: [-20, 20], bins: 20}, mine: {mask: mine.npy}}
    threads: 2
    """
    given = IntegrationSettings.model_validate(yaml.safe_load(text))
    made = make_integrator(given, resolve=tmp_path.joinpath, shape=SHAPE, hidden=hidden)
    same = Integrator(
        PLACE,
        shape=SHAPE,
        pixel_size=PIXEL,
        mask=mask | hidden,
        bins=50,
        unit="2th_deg",
        split="full",
        radial_range=(0.1, 2.5),
        azimuth_range=(-100, 120),
        polarization=0.9,
        flat=flat,
        dark=dark,
        background=tmp_path / "empty.dat",
        background_scale=0.5,
        error_model="azimuthal",
        dummy=3,
        delta_dummy=0.5,
        rois={"beam": (1, 2, 30, 40)},
        maximum=True,
        sectors={"right": Sector(azimuth_range=(-20, 20), bins=20), "mine": Sector(mask=mine)},
    )
    image = picture()
    one, other = made.integrate(image), same.integrate(image)
    np.testing.assert_array_equal(one.intensity, other.intensity)
    np.testing.assert_array_equal(one.sigma, other.sigma)
    assert (one.total, one.maximum, one.rois) == (other.total, other.maximum, other.rois)
    for name, result in same.integrate_all(image).items():
        np.testing.assert_array_equal(made.integrate_all(image)[name].intensity, result.intensity)
    assert IntegrationSettings.model_validate(given.present()) == given


def test_a_background_image_is_read_as_one(tmp_path: Path) -> None:
    np.save(tmp_path / "empty.npy", np.full(SHAPE, 7, np.uint16))
    made = make_integrator(settings(background="empty.npy"), resolve=tmp_path.joinpath, shape=SHAPE, pixel_size=PIXEL)
    plain = make_integrator(settings(), shape=SHAPE, pixel_size=PIXEL)
    assert made.integrate(picture()).sum_signal.sum() == (plain.integrate(picture() - 7)).sum_signal.sum()


def test_hidden_pixels_stay_hidden_without_a_mask() -> None:
    hidden = np.zeros(SHAPE, bool)
    hidden[:, :10] = True
    made = make_integrator(settings(), shape=SHAPE, pixel_size=PIXEL, hidden=hidden)
    assert made.pixels_used == 60 * 70


def test_only_what_was_said_is_written_down() -> None:
    assert settings(split=False).present() == {"geometry": PLACE, "bins": 40}


def test_datasets_stay_with_their_file() -> None:
    assert file_place("m.h5::/entry/mask", Path("/site").joinpath) == "/site/m.h5::/entry/mask"
    assert file_place("m.npy", Path("/site").joinpath) == "/site/m.npy"


def test_importing_settings_needs_neither_pyfai_nor_a_compiler() -> None:
    code = (
        "import sys, sisockdaq.integrate.settings; print([m for m in ('pyFAI', 'numba', 'fabio') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
