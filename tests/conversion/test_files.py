"""Pedestal and gain files: written, read, and laid out as PSI's tools expect."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest

from sisockdaq.conversion import JungfrauModel, Pedestal, load_gains, load_pedestal, save_gains, save_pedestal
from sisockdaq.errors import ConfigurationError

SHAPE = (4, 6)
MODEL = JungfrauModel.drawn(SHAPE)


def pedestal(**origin):
    faults = np.zeros(SHAPE, np.uint32)
    faults[1, 2] = 5
    return Pedestal(MODEL.pedestal, MODEL.pedestal / 500, np.full((3, *SHAPE), 7, np.uint32), faults, origin)


def test_a_pedestal_comes_back_as_it_was(tmp_path):
    path = tmp_path / "below" / "pedestal.h5"
    save_pedestal(pedestal(node="receiver", runs={"G0": {"frames": 7}}), path)
    back = load_pedestal(path)
    for name in ("mean", "noise", "frames", "faults"):
        np.testing.assert_array_equal(getattr(back, name), getattr(pedestal(), name))
    assert back.origin == {"node": "receiver", "runs": {"G0": {"frames": 7}}}
    with h5py.File(path) as file:
        assert file["gains"].shape == file["gainsRMS"].shape == (3, *SHAPE)
        assert json.loads(file["pixel_mask"].attrs["bits"])["0"] == "G0 dead"
        np.testing.assert_array_equal(file["pixel_mask"][()] != 0, pedestal().bad())


def test_a_pedestal_that_is_replaced_is_kept(tmp_path):
    path = tmp_path / "pedestal.h5"
    for number in range(4):
        save_pedestal(pedestal(number=number), path)
    files = sorted(tmp_path.iterdir())
    assert len(files) == 4
    assert {load_pedestal(file).origin["number"] for file in files} == {0, 1, 2, 3}
    assert load_pedestal(path).origin["number"] == 3


def test_files_of_others_are_read(tmp_path):
    path = tmp_path / "psi.h5"
    maps = np.arange(4 * 24.0).reshape(4, *SHAPE)
    with h5py.File(path, "w") as file:
        file["gains"] = maps
        file["pixel_mask"] = np.eye(*SHAPE, dtype=int)
    found = load_pedestal(path)
    np.testing.assert_array_equal(found.mean, maps[:3])
    np.testing.assert_array_equal(found.bad(), np.eye(*SHAPE, dtype=bool))
    np.testing.assert_array_equal(load_pedestal(path, high_gain=True).mean[0], maps[3])
    np.testing.assert_array_equal(load_gains(path), maps[:3])
    np.testing.assert_array_equal(load_gains(path, high_gain=True), maps[[3, 1, 2]])


def test_gains_come_back(tmp_path):
    save_gains(MODEL.gain, tmp_path / "gains.h5")
    np.testing.assert_array_equal(load_gains(tmp_path / "gains.h5"), MODEL.gain)
    with pytest.raises(ConfigurationError, match="high gain"):
        load_gains(tmp_path / "gains.h5", high_gain=True)


def test_what_is_no_such_file_is_named(tmp_path):
    broken, empty, small = (tmp_path / name for name in ("broken.h5", "empty.h5", "small.h5"))
    broken.write_text("hello")
    h5py.File(empty, "w").close()
    with h5py.File(small, "w") as file:
        file["gains"] = np.zeros((2, 3, 3))
    for path, reason in (
        (tmp_path / "none.h5", "no such file"),
        (broken, "not an HDF5 file"),
        (empty, "nothing of that name"),
        (small, "at least 3 maps"),
    ):
        with pytest.raises(ConfigurationError, match=reason):
            load_gains(path)
        with pytest.raises(ConfigurationError, match=reason):
            load_pedestal(path)
    with pytest.raises(ConfigurationError, match="cannot be written"):
        save_pedestal(pedestal(), broken / "below.h5")
    with pytest.raises(ConfigurationError, match="cannot be written"):
        save_gains(MODEL.gain, tmp_path / "nowhere" / "gains.h5")
