"""Curves that go into NXcanSAS files come out again, stacked and each for itself."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import silx.io
from silx.io import nxdata

from sisockdaq.errors import ConfigurationError, StorageError
from sisockdaq.nexus.check import check_file
from sisockdaq.nexus.reduced import (
    MOST_SEPARATE,
    CansasFile,
    Product,
    axis_of,
    cansas_name,
    read_reduced,
    to_q,
    write_cansas,
)
from tests.nexus.reduced import content


@pytest.mark.parametrize("errors", [True, False])
def test_stacked_curves(tmp_path: Path, errors: bool) -> None:
    path, product = tmp_path / cansas_name("run", 2), content.curve(errors=errors)
    values = content.intensity(product, 0, 6)
    with CansasFile(path, product, content.reduction(), epoch=2) as file:
        file.append(content.times(0, 5), values[:5], values[:5] / 10, index=np.arange(5) + 7)
        file.commit()
        file.append(content.times(5, 1)[0], values[5], values[5] / 10, index=12)
    found = read_reduced(path)
    assert (found.epoch, found.acquisition, found.product.name) == (2, "run_0001", "curve")
    assert found.index.tolist() == list(range(7, 13))
    np.testing.assert_array_equal(found.time, content.times(0, 6))
    np.testing.assert_array_equal(found.product.intensity, values)
    assert (found.product.sigma is not None) == errors
    assert found.product.radial.name == "q_nm^-1"
    assert found.parameters["error_model"] == "poisson"
    report = check_file(path)
    assert (report.findings, report.passed) == ([], ("NXcanSAS",))
    with h5py.File(path) as file:
        assert np.flatnonzero(file["/entry/sasdata/Mask"][()]).tolist() == [3]
    with silx.io.open(str(path)) as opened:
        plot = nxdata.get_default(opened)
        assert plot.is_valid, plot.issues
        assert plot.axes_dataset_names == ["frame", "Q"]


def test_separate_curves(tmp_path: Path) -> None:
    path, product = tmp_path / "run.h5", content.curve()
    values = content.intensity(product, 0, 12)
    write_cansas(path, product, content.reduction(), values, values / 10, times=content.times(0, 12))
    found = read_reduced(path)
    assert (len(found), list(found.products), found.state) == (12, ["curve"], "finished")
    np.testing.assert_allclose(found.time, content.times(0, 12), atol=1e-6, rtol=0)
    np.testing.assert_array_equal(found.product.intensity, values)
    np.testing.assert_array_equal(found.product.sigma, values / 10)
    np.testing.assert_array_equal(read_reduced(path, slice(10, None)).product.intensity, values[10:])
    assert check_file(path).findings == []
    with silx.io.open(str(path)) as opened:
        plot = nxdata.get_default(opened)
        assert plot.is_valid, plot.issues
        np.testing.assert_array_equal(plot.errors[()], values[0] / 10)
    with pytest.raises(StorageError, match="exists"):
        write_cansas(path, product, content.reduction(), values)
    write_cansas(path, product, content.reduction(), values[0], overwrite=True)
    assert read_reduced(path).product.sigma is None


def test_angles_become_q(tmp_path: Path) -> None:
    degrees = np.linspace(0.1, 60, 50)
    product = Product("curve", axis_of("2th_deg", degrees))
    write_cansas(tmp_path / "run.h5", product, content.reduction(wavelength=1.5e-10), np.ones(50))
    found = read_reduced(tmp_path / "run.h5").product.radial
    np.testing.assert_allclose(found.values, 4 * np.pi / 0.15 * np.sin(np.deg2rad(degrees) / 2), rtol=1e-12)
    radians = to_q(axis_of("2th_rad", np.deg2rad(degrees), np.deg2rad(np.linspace(0, 60.1, 51))), 1.5e-10)
    np.testing.assert_allclose(radians.values, found.values, rtol=1e-12)
    assert radians.edges is not None


def test_what_is_no_curve_along_q_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    with pytest.raises(ConfigurationError, match="is a cake"):
        CansasFile(path, content.cake(), content.reduction())
    with pytest.raises(ConfigurationError, match="no scattering vector"):
        write_cansas(path, Product("curve", axis_of("r_mm", content.Q)), content.reduction(), content.Q)
    with pytest.raises(ConfigurationError, match="only with a wavelength"):
        write_cansas(path, Product("c", axis_of("2th_deg", content.Q)), content.reduction(wavelength=None), content.Q)
    with pytest.raises(ConfigurationError, match="stacked"):
        write_cansas(path, content.curve(), content.reduction(), np.zeros((MOST_SEPARATE + 1, content.BINS)))
    with pytest.raises(ConfigurationError, match="shape"):
        write_cansas(path, content.curve(), content.reduction(), np.zeros((2, 5)))
    with pytest.raises(ConfigurationError, match="times"):
        write_cansas(path, content.curve(), content.reduction(), np.zeros((2, content.BINS)), times=[1.0])
    with pytest.raises(ConfigurationError, match="not a unit"):
        axis_of("q", content.Q)
    assert list(tmp_path.iterdir()) == []
