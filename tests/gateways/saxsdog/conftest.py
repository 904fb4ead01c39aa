from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A server's folder with a folder for images."""
    folder = tmp_path / "data"
    (folder / "run1").mkdir(parents=True)
    return folder
