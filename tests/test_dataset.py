"""What a client returns prints itself, and becomes xarray where that is installed."""

from __future__ import annotations

import numpy as np
import pytest

from sisockdaq.client._dataset import Dataset, FieldData, FieldRow, Image, NodeRow, Table
from sisockdaq.errors import ConfigurationError
from sisockdaq.schema import Axis, Field


def data() -> Dataset:
    t = np.array([1.0, 2.0])
    axis = Axis(axis="q", unit="nm^-1", values=(0.5, 1.0, 1.5))
    return Dataset(
        {
            "a::x": FieldData("a::x", t, np.array([1.0, 2.0]), Field(timeline="l", units="K"), 2.0, ("a",)),
            "a::c": FieldData("a::c", t, np.ones((2, 3)), Field(timeline="l", type="array", axes=(axis,))),
            "a::none": FieldData("a::none", np.empty(0), np.empty(0), Field(timeline="m")),
        },
        ["b: did not answer"],
    )


def test_a_dataset_says_what_it_holds_and_what_is_missing():
    text = repr(data())
    assert "<a::x: 2 samples [K], 1.000 … 2.000>" in text
    assert "each (3,)" in text
    assert "no samples" in text
    assert "! b: did not answer" in text


def test_an_axis_is_an_array():
    axis = data()["a::c"].axis
    assert axis is not None
    assert axis.tolist() == [0.5, 1.0, 1.5]
    assert data()["a::x"].axis is None


def test_tables_show_the_columns_that_say_something():
    table = Table([NodeRow("a", "first", uptime=3.25), NodeRow("bb")], ["c is broken"])
    assert repr(table).splitlines() == ["name  description  uptime", "a     first        3.25", "bb                 -", "! c is broken"]  # fmt: skip  # noqa: E501
    assert table.names == ["a", "bb"]
    fields = Table([FieldRow("x", "array", None, "l", 0.5, None, (2, 3))])
    assert "2 × 3" in repr(fields)
    assert repr(Table([])) == "name"


def test_an_image_is_an_array_with_its_losses():
    mask = np.zeros((2, 2), np.bool_)
    mask[0, 1] = True
    image = Image("r::image", np.arange(4).reshape(2, 2), 1.0, mask, "run", 17, 29512)
    assert np.asarray(image).sum() == 6
    assert np.asarray(image, np.float32).dtype == np.float32
    assert repr(image) == "<r::image: (2, 2) int64, frame 17 of run, 1 pixels lost>"


def test_to_xarray_keeps_units_and_axes():
    pytest.importorskip("xarray", reason="xarray is an extra")
    found = data().to_xarray()
    assert found["a::x"].attrs["units"] == "K"
    assert found["a::x"].attrs["finalized_until"] == 2.0
    assert found["a::c"].dims == ("time", "a::c/q")
    assert found["a::none"].dims == ("time_1",)


def test_without_xarray_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "xarray", None)
    with pytest.raises(ConfigurationError, match="pip install xarray"):
        data().to_xarray()
