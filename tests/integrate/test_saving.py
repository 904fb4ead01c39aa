"""Reduced files: all formats of the same curves, whole after an error, and never over others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from sisockdaq.errors import ConfigurationError, StorageError
from sisockdaq.integrate import load_geometry
from sisockdaq.integrate.reduction import Reducer
from sisockdaq.integrate.saving import FORMATS, ReducedFiles, describe_reduction
from sisockdaq.integrate.settings import IntegrationSettings, make_integrator
from sisockdaq.nexus.check import check_file
from sisockdaq.nexus.reduced import read_curve, read_reduced

SHAPE = (60, 80)
PLACE = {"distance": 0.2, "poni1": 0.0021, "poni2": 0.003, "wavelength": 1.0e-10}
RNG = np.random.default_rng(1)
IMAGES = RNG.poisson(20, (4, *SHAPE)).astype(np.uint16)


def reducer(epoch: int = 1, **options: Any) -> Reducer:
    settings = IntegrationSettings(geometry=PLACE, bins=40, **options)
    return Reducer(make_integrator(settings, shape=SHAPE, pixel_size=75e-6), settings, epoch)


def fill(files: ReducedFiles, by: Reducer, indices: range) -> list[Any]:
    files.begin(by, describe_reduction(by, acquisition="run_1", files=("run_1_master.h5",)))
    reduced = [by.reduce(image) for image in IMAGES[: len(indices)]]
    for index, each in zip(indices, reduced, strict=True):
        files.add(index, 1.7e9 + index, each, number=100 + index)
    return reduced


def test_every_format_has_every_curve(tmp_path: Path) -> None:
    mask = np.zeros(SHAPE, np.uint8)
    mask[5:9, 7] = 1
    np.save(tmp_path / "mask.npy", mask)
    sectors = {"left": {"azimuth_range": (150, -150)}, "wide": {"bins": 10, "unit": "2th_deg"}}
    by = reducer(mask=str(tmp_path / "mask.npy"), sectors=sectors, rois={"beam": (30, 20, 40, 30)}, polarization=0.9)
    with ReducedFiles(tmp_path / "new" / "folder", "run_1", FORMATS) as files:
        reduced = fill(files, by, range(3, 6))
    assert (files.frames, files.texts) == (3, 3 * 3 * 2)
    azint, *cansas = files.files
    assert [path.name for path in files.files] == [
        "run_1_azint_000001.h5",
        "run_1_cansas_000001.h5",
        "run_1_curve_left_cansas_000001.h5",
        "run_1_curve_wide_cansas_000001.h5",
    ]
    found = read_reduced(azint)
    assert found.state == "finished"
    assert found.index.tolist() == [3, 4, 5]
    assert found.time.tolist() == [1.7e9 + index for index in (3, 4, 5)]
    assert found.numbers["frame_number"].tolist() == [103, 104, 105]
    assert found.numbers["total"].tolist() == [each.curve.total for each in reduced]
    assert found.numbers["roi_beam"].tolist() == [int(image[20:30, 30:40].sum()) for image in IMAGES[:3]]
    for name in ("curve", "curve_left", "curve_wide"):
        expected = [each.curves()[name] for each in reduced]
        np.testing.assert_array_equal(found.products[name].radial.values, expected[0].axis)
        np.testing.assert_array_equal(found.products[name].intensity, [each.intensity for each in expected])
        np.testing.assert_array_equal(found.products[name].sigma, [each.sigma for each in expected])
        np.testing.assert_array_equal(found.products[name].norm, expected[0].count)
        text = read_curve(files.folder / f"run_1_000004_{name}.chi")
        np.testing.assert_allclose(text.axis, expected[1].axis, rtol=1e-9)
        np.testing.assert_allclose(text.intensity, expected[1].intensity, rtol=1e-9)
        assert text.unit == expected[1].unit
        assert (files.folder / f"run_1_000004_{name}.dat").exists()
    for path in files.files:
        assert not check_file(path).failed
    stacked = read_reduced(cansas[0]).product
    np.testing.assert_array_equal(stacked.intensity, [each.curve.intensity for each in reduced])
    np.testing.assert_array_equal(found.parameters["mask"], mask)
    assert found.parameters["polarization_factor"] == 0.9
    assert found.parameters["files"] in ("run_1_master.h5", ["run_1_master.h5"])


def test_the_geometry_in_a_file_makes_the_same_integrator(tmp_path: Path) -> None:
    by = reducer()
    with ReducedFiles(tmp_path, "run", ["nxazint"]) as files:
        fill(files, by, range(1))
    poni = tmp_path / "again.poni"
    poni.write_text(str(read_reduced(files.files[0]).parameters["poni"]))
    again = load_geometry(poni, shape=SHAPE)
    assert (again.dist, again.poni1, again.poni2, again.wavelength) == tuple(PLACE.values())
    settings = IntegrationSettings(geometry=str(poni), bins=40)
    curve = Reducer(make_integrator(settings), settings).reduce(IMAGES[0]).curve
    np.testing.assert_array_equal(curve.intensity, by.reduce(IMAGES[0]).curve.intensity)


def test_another_epoch_is_another_file(tmp_path: Path) -> None:
    with ReducedFiles(tmp_path, "run", ["nxazint"]) as files:
        fill(files, reducer(1), range(2))
        fill(files, reducer(2, unit="2th_deg"), range(2, 4))
    assert [path.name for path in files.files] == ["run_azint_000001.h5", "run_azint_000002.h5"]
    both = [read_reduced(path) for path in files.files]
    assert [(each.epoch, each.index.tolist(), each.state) for each in both] == [
        (1, [0, 1], "finished"),
        (2, [2, 3], "finished"),
    ]


def test_files_are_whole_after_an_error_between_frames(tmp_path: Path) -> None:
    def fail() -> None:
        with ReducedFiles(tmp_path, "run", ["nxazint", "nxcansas"]) as files:
            fill(files, reducer(), range(3))
            raise RuntimeError("something else")

    with pytest.raises(RuntimeError):
        fail()
    for path in tmp_path.glob("*.h5"):
        found = read_reduced(path)
        assert (len(found), found.state) == (3, "finished")


@pytest.mark.parametrize("kind", FORMATS)
def test_nothing_is_written_over_unless_asked(tmp_path: Path, kind: str) -> None:
    by = reducer()
    for overwrite in (False, True):
        files = ReducedFiles(tmp_path, "run", [kind], overwrite=overwrite)
        files.check()
        with files:
            fill(files, by, range(2))
        before = {path: path.read_bytes() for path in tmp_path.iterdir()}
        again = ReducedFiles(tmp_path, "run", [kind])
        with pytest.raises(StorageError, match="is there already"):
            again.check()
        with pytest.raises(StorageError, match="exist"), again:
            fill(again, by, range(2))
        assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    ReducedFiles(tmp_path, "run_2", [kind]).check()


def test_what_a_format_cannot_hold_is_refused(tmp_path: Path) -> None:
    by = reducer(unit="r_mm")
    with (
        pytest.raises(ConfigurationError, match="no scattering vector"),
        ReducedFiles(tmp_path, "run", ["nxcansas"]) as files,
    ):
        fill(files, by, range(1))
    with pytest.raises(ConfigurationError, match="xls is no format"):
        ReducedFiles(tmp_path, "run", ["xls"])


def test_cakes_stand_beside_the_curves_in_nxazint_only(tmp_path: Path) -> None:
    by = reducer(cake={"azimuth_bins": 9, "bins": 25}, sectors={"left": {"azimuth_range": (150, -150)}})
    with ReducedFiles(tmp_path, "run", FORMATS) as files:
        reduced = fill(files, by, range(3))
    found = read_reduced(files.files[0])
    assert set(found.products) == {"curve", "curve_left", "cake"}
    cake = found.products["cake"]
    expected = [by.integrator.integrate2d(image, azimuth_bins=9, bins=25) for image in IMAGES[:3]]
    assert cake.azimuth is not None
    np.testing.assert_array_equal(cake.radial.values, expected[0].axis)
    np.testing.assert_array_equal(cake.azimuth.values, expected[0].azimuth)
    np.testing.assert_array_equal(cake.intensity, [each.intensity for each in expected])
    np.testing.assert_array_equal(cake.sigma, [each.sigma for each in expected])
    np.testing.assert_array_equal(cake.norm, expected[0].count)
    np.testing.assert_array_equal(found.products["curve"].intensity, [each.curve.intensity for each in reduced])
    assert files.texts == 2 * 2 * 3
    for path in files.files:
        assert not check_file(path).findings


def test_monitor_and_transmission_have_their_places(tmp_path: Path) -> None:
    by = reducer(monitor="ioc::i0", transmission=0.5)
    with ReducedFiles(tmp_path, "run", ["nxazint", "nxcansas", "dat"]) as files:
        files.begin(by, describe_reduction(by, acquisition="run"))
        for index, monitor in enumerate((4.0, 8.0, 0.0)):
            files.add(index, 1e9 + index, by.reduce(IMAGES[index], {"monitor": monitor}))
    for path in files.files:
        assert not check_file(path).failed, path
    found = read_reduced(files.files[0])
    assert found.monitor is not None
    assert found.monitor.tolist() == [2.0, 4.0, 0.0]
    assert found.numbers["transmission"].tolist() == [0.5] * 3
    assert np.isnan(found.product.intensity[2]).all()
    with h5py.File(files.files[1]) as file:
        assert file["entry/sasdata/monitor"][()].tolist() == [2.0, 4.0, 0.0]
        assert file["entry/sassample/transmission"][()] == 0.5
    assert "# monitor: 8\n# transmission: 0.5\n" in (tmp_path / "run_000001.dat").read_text()
