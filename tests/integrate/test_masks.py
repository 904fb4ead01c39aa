"""Masks of every kind of file, and what is said of those that cannot be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fabio
import h5py
import numpy as np
import pytest

from sisockdaq.errors import MaskError
from sisockdaq.integrate import load_mask

SHAPE = (37, 64)


@pytest.fixture
def mask() -> Any:
    return np.random.default_rng(0).random(SHAPE) < 0.2


def write(path: Path, mask: Any) -> Path:
    values = mask.astype(np.uint8)
    match path.suffix:
        case ".npy":
            np.save(path, mask)
        case ".edf":
            fabio.edfimage.EdfImage(data=values).write(str(path))
        case ".tif":
            fabio.tifimage.TifImage(data=values).write(str(path))
        case ".msk":
            fabio.fit2dmaskimage.Fit2dMaskImage(data=values).write(str(path))
        case ".h5":
            with h5py.File(path, "w") as file:
                file["entry/mask"] = values
    return path


@pytest.mark.parametrize("suffix", [".npy", ".edf", ".tif", ".msk", ".h5"])
def test_every_kind_of_file_is_read(tmp_path: Path, mask: Any, suffix: str) -> None:
    np.testing.assert_array_equal(load_mask(write(tmp_path / f"mask{suffix}", mask), SHAPE), mask)


def test_anything_but_zero_is_masked(tmp_path: Path) -> None:
    values = np.array([[0.0, -1.0, np.nan], [256.0, 0.25, -0.0]])
    np.save(tmp_path / "mask.npy", values)
    np.testing.assert_array_equal(load_mask(tmp_path / "mask.npy"), [[False, True, True], [True, True, False]])


def test_a_dataset_may_be_named_or_found(tmp_path: Path, mask: Any) -> None:
    path = tmp_path / "run_master.h5"
    with h5py.File(path, "w") as file:
        file["entry/other"] = np.zeros(SHAPE)
        file["entry/chosen"] = mask
    np.testing.assert_array_equal(load_mask(f"{path}::/entry/chosen", SHAPE), mask)
    with pytest.raises(MaskError, match=r"does not tell which .*/entry/chosen, /entry/other"):
        load_mask(path)
    with pytest.raises(MaskError, match=r"has no dataset /entry/none"):
        load_mask(f"{path}::/entry/none")
    with h5py.File(path, "a") as file:
        file["entry/instrument/detector/pixel_mask"] = mask.astype(np.uint32) << 8
    np.testing.assert_array_equal(load_mask(path, SHAPE), mask)


def test_what_cannot_be_a_mask_is_refused_by_name(tmp_path: Path, mask: Any) -> None:
    (tmp_path / "broken.edf").write_bytes(b"\x00garbage" * 10)
    (tmp_path / "text.npy").write_text("not numpy")
    (tmp_path / "empty.h5").touch()
    np.save(tmp_path / "line.npy", np.zeros(5))
    write(tmp_path / "small.npy", mask[:10])
    cases = {
        "absent.edf": "no such mask",
        ".": "is not a file",
        "broken.edf": "cannot be read as a mask",
        "text.npy": "cannot be read as a mask",
        "empty.h5": "cannot be read as a mask",
        "line.npy": r"an array of shape \(5,\)",
        "small.npy": r"has 10 × 64 pixels .* the images have 37 × 64",
    }
    for name, message in cases.items():
        with pytest.raises(MaskError, match=message) as refusal:
            load_mask(tmp_path / name, SHAPE)
        assert str(tmp_path) in refusal.value.message
