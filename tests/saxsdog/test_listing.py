from __future__ import annotations

from pathlib import Path

import pytest

from sisockdaq.saxsdog.listing import Allowed


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    (folder / "run1").mkdir(parents=True)
    (folder / "run1" / "a.tif").touch()
    (tmp_path / "secret").mkdir()
    return folder


def test_a_folder_is_listed(base: Path) -> None:
    allowed = Allowed(base)
    listed = allowed.list(["."])
    assert listed == {"dircontent": [{"isdir": True, "path": "run1"}], "directory": str(base).split("/")}
    inner = {"dircontent": [{"isdir": False, "path": "a.tif"}], "directory": [*str(base).split("/"), "run1"]}
    assert allowed.list(["run1"]) == inner
    # A client may send back what it was given.
    assert allowed.list(inner["directory"]) == inner
    assert allowed.list([""]) == listed


@pytest.mark.parametrize("parts", [[".."], ["..", "secret"], ["run1", "..", "..", "secret"], ["", "etc"], ["link"]])
def test_outside_is_refused(base: Path, parts: list[str]) -> None:
    (base / "link").symlink_to(base.parent / "secret")
    with pytest.raises(PermissionError, match="outside of the folders of this server"):
        Allowed(base).list(parts)


def test_further_folders_may_be_allowed(base: Path) -> None:
    more = base.parent / "secret"
    assert Allowed(base, [more]).list(str(more).split("/"))["dircontent"] == []


@pytest.mark.parametrize("parts", ["run1", None, [1], ["a\0b"]])
def test_what_is_no_list_of_names_is_refused(base: Path, parts: object) -> None:
    with pytest.raises(ValueError, match="list of names"):
        Allowed(base).list(parts)
