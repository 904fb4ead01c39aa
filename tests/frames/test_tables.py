"""Masks and flat fields on their way to files: kept whole, found by name, never from elsewhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sisockdaq.errors import MaskError, StorageError
from sisockdaq.frames.messages import Description
from sisockdaq.frames.tables import KEY, find_tables, keep_tables

SHAPE = (4, 6)
MASK = np.arange(24, dtype=np.uint32).reshape(SHAPE)
FLAT = np.linspace(0.5, 2, 24, dtype=np.float32).reshape(SHAPE)


def frames(name: object) -> Description:
    return Description("receiver", "image", SHAPE, "<u2", meta={} if name is None else {KEY: name})


def test_what_is_kept_is_found(tmp_path: Path) -> None:
    name = keep_tables(tmp_path, "receiver", {"pixel_mask": MASK, "flatfield": FLAT[::-1].T.copy().T})
    found = find_tables(tmp_path, frames(name))
    np.testing.assert_array_equal(found["pixel_mask"], MASK)
    np.testing.assert_array_equal(found["flatfield"], FLAT[::-1])
    assert find_tables(tmp_path, frames(None)) == {}
    assert keep_tables(tmp_path, "receiver", {"pixel_mask": MASK, "flatfield": FLAT[::-1]}) == name
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_the_last_two_of_each_source_stay(tmp_path: Path) -> None:
    other = keep_tables(tmp_path, "receiver-2", {"pixel_mask": MASK})
    names = [keep_tables(tmp_path, "receiver", {"pixel_mask": MASK + np.uint32(n)}) for n in range(4)]
    assert {path.name for path in tmp_path.iterdir()} == {other, *names[-2:]}


@pytest.mark.parametrize(
    "name", ["../pixels-receiver-0.npz", "pixels-other-0.npz", "/etc/passwd", 7, "pixels-receiver-0.npz"]
)
def test_a_name_of_no_such_file_is_refused(tmp_path: Path, name: object) -> None:
    with pytest.raises(MaskError, match="receiver"):
        find_tables(tmp_path, frames(name))


def test_damaged_files_and_other_shapes_are_named(tmp_path: Path) -> None:
    name = keep_tables(tmp_path, "receiver", {"flatfield": FLAT[:2]})
    with pytest.raises(MaskError, match=r"flatfield that receiver got is \(2, 6\)"):
        find_tables(tmp_path, frames(name))
    whole = (tmp_path / name).read_bytes()
    for broken in (b"", b"nothing", whole[: len(whole) // 2]):
        (tmp_path / name).write_bytes(broken)
        with pytest.raises(MaskError, match="cannot be read"):
            find_tables(tmp_path, frames(name))


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be kept"):
        keep_tables(tmp_path / "file" / "folder", "receiver", {"pixel_mask": MASK})
