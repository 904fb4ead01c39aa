"""Curves and cakes that go into NXazint files come out again, for our reader and for silx, at every moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import silx.io
from silx.io import nxdata

from sisockdaq.errors import ConfigurationError, FileUnreadable, StorageError
from sisockdaq.nexus.check import check_file
from sisockdaq.nexus.reduced import (
    Axis,
    AzintFile,
    EpochFiles,
    FrameNumber,
    Product,
    azint_name,
    bin_edges,
    read_epochs,
    read_reduced,
)
from tests.nexus.reduced import content
from tests.nexus.test_ordered_file import Recorder, apply

NUMBERS = (FrameNumber("I0", "counts", "Sum of the intensities."), FrameNumber("Rg", "nm"))


def write(file: AzintFile, first: int, frames: int) -> None:
    blocks = {name: content.intensity(product, first, frames) for name, product in file.products.items()}
    file.append(
        content.times(first, frames),
        blocks,
        {name: block / 10 for name, block in blocks.items()},
        index=np.arange(first, first + frames) + 100,
        monitor=np.arange(first, first + frames) + 0.5,
        numbers={"I0": np.arange(first, first + frames) * 2.0},
    )


@pytest.fixture
def products(request: pytest.FixtureRequest) -> list[Product]:
    known = {"curve": [content.curve()], "cake": [content.cake()], "both": [content.curve(), content.cake()]}
    return known[request.param]


@pytest.mark.parametrize("products", ["curve", "cake", "both"], indirect=True)
def test_what_was_written_is_read(tmp_path: Path, products: list[Product]) -> None:
    path = tmp_path / azint_name("run_0001", 3)
    with AzintFile(path, products, content.reduction(), epoch=3, numbers=NUMBERS) as file:
        write(file, 0, 5)
        file.commit()
        write(file, 5, 3)
    found = read_reduced(path)
    assert (found.state, found.acquisition, found.epoch, len(found)) == ("finished", "run_0001", 3, 8)
    np.testing.assert_array_equal(found.time, content.times(0, 8))
    assert found.index.tolist() == list(range(100, 108))
    assert found.epochs.tolist() == [3] * 8
    assert found.monitor is not None
    assert found.monitor.tolist() == [n + 0.5 for n in range(8)]
    assert found.numbers["I0"].tolist() == [n * 2.0 for n in range(8)]
    assert np.isnan(found.numbers["Rg"]).all()
    assert list(found.products) == [product.name for product in products]
    for product in products:
        read = found.products[product.name]
        assert read.definition == product.definition
        assert (read.radial.name, read.azimuth is None) == (product.radial.name, product.azimuth is None)
        np.testing.assert_array_equal(read.radial.values, product.radial.values)
        np.testing.assert_array_equal(read.radial.edges, product.radial.edges)
        np.testing.assert_array_equal(read.norm, product.norm)
        np.testing.assert_array_equal(read.intensity, content.intensity(product, 0, 8))
        np.testing.assert_array_equal(read.sigma, content.intensity(product, 0, 8) / 10)
    assert found.parameters["error_model"] == "poisson"
    assert found.parameters["dummy"] == 65535
    assert found.parameters["polarization_factor"] == 0.95
    assert "Distance: 0.2\n" in found.parameters["poni"]
    np.testing.assert_array_equal(found.parameters["mask"], np.eye(5, 6))
    assert found.parameters["sectors"] == '{"a": [1, 2]}'
    assert "dark" not in found.parameters
    assert found.process["program"] == "sisockdaq"
    part = read_reduced(path, slice(2, 4))
    assert part.index.tolist() == [102, 103]
    np.testing.assert_array_equal(part.product.intensity, content.intensity(products[0], 2, 2))
    assert read_reduced(path, slice(None, None, -3)).index.tolist() == [107, 104, 101]
    report = check_file(path)
    assert report.findings == []
    assert report.passed == tuple(sorted(product.definition for product in products))


@pytest.mark.parametrize("products", ["curve", "cake", "both"], indirect=True)
def test_silx_draws_the_first_product_with_its_errors(tmp_path: Path, products: list[Product]) -> None:
    path = tmp_path / "run.h5"
    with AzintFile(path, products, content.reduction(), numbers=NUMBERS) as file:
        write(file, 0, 4)
    with silx.io.open(str(path)) as opened:
        plot = nxdata.get_default(opened)
        assert plot.is_valid, plot.issues
        assert plot.interpretation == ("spectrum" if products[0].azimuth is None else "image")
        assert plot.axes_dataset_names[-1] == "radial_axis"
        np.testing.assert_array_equal(plot.signal[()], content.intensity(products[0], 0, 4))
        np.testing.assert_array_equal(plot.errors[()], content.intensity(products[0], 0, 4) / 10)


def test_single_frames_are_appended_as_they_come(tmp_path: Path) -> None:
    product = content.curve(errors=False)
    with AzintFile(tmp_path / "run.h5", [product], content.reduction(monitor=False)) as file:
        for n in range(3):
            file.append(content.START + n, content.intensity(product, n, 1)[0])
        file.append(content.START + 3, {})
        assert (file.frames, file.committed) == (4, 0)
    found = read_reduced(tmp_path / "run.h5")
    assert found.index.tolist() == [0, 1, 2, 3]
    assert found.monitor is None
    assert found.product.sigma is None
    np.testing.assert_array_equal(found.product.intensity[:3], content.intensity(product, 0, 3))
    assert np.isnan(found.product.intensity[3]).all()
    assert check_file(tmp_path / "run.h5").failed == ()


def test_packed_cakes_of_short_floats(tmp_path: Path) -> None:
    plain = content.cake()
    product = Product(plain.name, plain.radial, plain.azimuth, dtype="<f4")
    with AzintFile(tmp_path / "run.h5", [product], content.reduction(), compression="bslz4") as file:
        file.append(content.times(0, 9), content.intensity(product, 0, 9))
    found = read_reduced(tmp_path / "run.h5").product.intensity
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, content.intensity(product, 0, 9).astype(np.float32))


def test_every_moment_leaves_the_committed_frames_readable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(monkeypatch)
    product = content.curve()
    file = AzintFile(tmp_path / "run.h5", [product], content.reduction(), numbers=NUMBERS)
    committed = {len(recorder.changes): 0}
    for first in range(0, 600, 60):
        write(file, first, 60)
        file.commit()
        committed[len(recorder.changes)] = first + 60
    file.close()
    monkeypatch.undo()
    content_so_far, copy, frames, begun = bytearray(), tmp_path / "copy.h5", 0, min(committed)
    for number, change in enumerate(recorder.changes, 1):
        apply(content_so_far, change)
        frames = committed.get(number, frames)
        if number < begun or (number % 7 and number not in committed):
            continue
        copy.write_bytes(content_so_far)
        found = read_reduced(copy)
        assert len(found) >= frames
        have = len(found)
        np.testing.assert_array_equal(found.time, content.times(0, have))
        np.testing.assert_array_equal(found.product.intensity, content.intensity(product, 0, have))
        assert found.numbers["I0"].tolist() == [n * 2.0 for n in range(have)]


def test_a_growing_file_is_read_and_a_left_one_told(tmp_path: Path) -> None:
    file = AzintFile(tmp_path / "run.h5", [content.curve()], content.reduction())
    assert len(read_reduced(tmp_path / "run.h5")) == 0
    write_some = content.intensity(content.curve(), 0, 2)
    file.append(content.times(0, 2), write_some, write_some)
    assert len(read_reduced(tmp_path / "run.h5")) == 0
    file.commit()
    found = read_reduced(tmp_path / "run.h5")
    assert (len(found), found.state) == (2, "growing")
    file.append(content.times(2, 1), write_some[:1])
    file.abandon()
    found = read_reduced(tmp_path / "run.h5")
    assert (len(found), found.state) == (2, "left")
    assert check_file(tmp_path / "run.h5").failed == ()


def test_another_epoch_goes_to_another_file(tmp_path: Path) -> None:
    files = EpochFiles(tmp_path, "run_0001")
    short = Product("curve", Axis("q", "1/nm", content.Q[:30], bin_edges(content.Q[:30])))
    for epoch, product in ((1, content.curve(errors=False)), (2, short), (10, short)):
        file = files.begin(epoch, [product], content.reduction(poni=f"Distance: {epoch}\n"))
        file.append(content.times(epoch, 4), content.intensity(content.curve(), 0, 4)[:, : len(product.radial)])
        files.commit()
    with pytest.raises(StorageError, match="exists"):
        files.begin(10, [short], content.reduction())
    files.close()
    assert [path.name for path in files.files] == [azint_name("run_0001", epoch) for epoch in (1, 2, 10)]
    found = read_epochs(reversed(files.files))
    assert [each.epoch for each in found] == [1, 2, 10]
    assert [len(each.product.radial) for each in found] == [40, 30, 30]
    assert [each.parameters["poni"] for each in found] == ["Distance: 1\n", "Distance: 2\n", "Distance: 10\n"]
    assert [each.state for each in found] == ["finished"] * 3


@pytest.mark.parametrize(
    "values",
    [
        {"intensity": np.zeros((3, 5))},
        {"intensity": {"other": np.zeros((3, content.BINS))}},
        {"intensity": np.zeros((3, content.BINS)), "sigma": np.zeros((2, content.BINS))},
        {"intensity": {}, "numbers": {"I7": np.zeros(3)}},
        {"intensity": {}, "index": np.arange(4)},
    ],
)
def test_what_does_not_fit_is_refused_whole(tmp_path: Path, values: dict[str, Any]) -> None:
    file = AzintFile(tmp_path / "run.h5", [content.curve()], content.reduction(), numbers=NUMBERS)
    with pytest.raises(ValueError, match=r"takes|has no|run.h5"):
        file.append(content.times(0, 3), **values)
    file.append(content.times(0, 1), {})
    file.close()
    assert len(read_reduced(tmp_path / "run.h5")) == 1


def test_impossible_plans_are_refused(tmp_path: Path) -> None:
    for products, numbers in (
        ([], ()),
        ([content.curve("a"), content.curve("a")], ()),
        ([content.curve("data"), content.curve("a")], ()),
        ([content.curve()], [FrameNumber("time")]),
        ([content.curve()], [FrameNumber("a/b")]),
    ):
        with pytest.raises(ConfigurationError):
            AzintFile(tmp_path / "run.h5", products, content.reduction(), numbers=numbers)
    with pytest.raises(ConfigurationError, match="edges"):
        Axis("q", "1/nm", content.Q, content.Q)
    with pytest.raises(ConfigurationError, match="no name"):
        content.curve("a/b")
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_another_kind_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileUnreadable, match="does not exist"):
        read_reduced(tmp_path / "gone.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file.create_group("entry")
    with pytest.raises(FileUnreadable, match="none of NXazint1d"):
        read_reduced(tmp_path / "other.h5")


@pytest.mark.parametrize("name", ["I", "I_errors", "radial_axis"])
@pytest.mark.parametrize("what", ["group", "number", "nothing"])
def test_a_file_of_another_layout_is_said(tmp_path: Path, name: str, what: str) -> None:
    with AzintFile(tmp_path / "run.h5", [content.curve()], content.reduction()):
        pass
    with h5py.File(tmp_path / "run.h5", "r+") as file:
        del file[f"/entry/data/{name}"]
        if what == "group":
            file.create_group(f"/entry/data/{name}")
        elif what == "number":
            file[f"/entry/data/{name}"] = 7.0
    if (name, what) == ("I_errors", "nothing"):
        assert read_reduced(tmp_path / "run.h5").product.sigma is None
    else:
        with pytest.raises(FileUnreadable):
            read_reduced(tmp_path / "run.h5")
        assert check_file(tmp_path / "run.h5").failed or name == "I_errors"


def test_a_strangers_file_is_read(tmp_path: Path) -> None:
    """As other writers of NXazint1d make it: no frames, no errors, texts of any length, soft links."""
    with h5py.File(tmp_path / "azint.h5", "w") as file:
        entry = file.create_group("entry")
        entry.attrs["NX_class"] = "NXentry"
        sub = entry.create_group("azint1d")
        sub.attrs["NX_class"] = "NXsubentry"
        sub["definition"] = "NXazint1d"
        data = sub.create_group("data")
        data.attrs.update({"NX_class": "NXdata", "signal": "I", "axes": [".", "radial_axis"]})
        data["I"] = np.ones((3, 5))
        data["radial_axis"] = np.arange(5.0)
        data["radial_axis"].attrs.update({"units": "degrees", "long_name": "tth"})
        entry["data"] = h5py.SoftLink("/entry/azint1d/data")
    found = read_reduced(tmp_path / "azint.h5")
    assert (found.state, found.epoch, len(found), list(found.products)) == ("finished", None, 3, ["azint1d"])
    assert np.isnan(found.time).all()
    assert found.index.tolist() == [0, 1, 2]
    assert (found.product.radial.quantity, found.product.radial.unit) == ("2theta", "degrees")
    missing = {finding.where for finding in check_file(tmp_path / "azint.h5").findings}
    assert {"/entry/azint1d/solid_angle_applied", "/entry/azint1d/instrument", "/entry/azint1d/reduction"} <= missing
