"""The how-to's examples run as they stand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "integrate-images.md"


def test_the_examples_run() -> None:
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    for block in blocks[1:]:  # the first one needs a PONI file and an image of its reader
        exec(compile(block, str(GUIDE), "exec"), names)
    assert names["batch"].intensity.shape == (10, 300)
    right, left = names["curves"]["right"], names["curves"]["left"]
    assert np.nansum(right.count) > 1000
    np.testing.assert_allclose(left.count.sum(), right.count.sum(), rtol=0.1)  # the beam is not quite in the middle
    assert names["together"].total == names["images"].sum()
