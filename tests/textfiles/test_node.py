"""A node over files of another kind, as the how-to writes it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sisockdaq.testing import Network
from tests.textfiles.test_file import write

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to" / "serve-text-files.md"


def test_the_node_of_the_how_to(network: Network, tmp_path: Path) -> None:
    code = re.search(r"```python\n(.*?)```", HOW_TO.read_text(), re.DOTALL)
    assert code is not None
    room: dict[str, Any] = {"__name__": "cistern"}
    exec(code[1], room)
    write(tmp_path / "cistern-2026-11.log", "1793491200 1.5\n1796083140 1.25\n")  # November's first and last minute
    write(tmp_path / "cistern-2026-12.log", "1796083200 1.75\n")
    write(tmp_path / "cistern-notes.log", "1 2\n")
    network.start(room["Cistern"], directory=str(tmp_path))
    fields, timelines = network.call("consumer.cistern.get_fields", 1_796_000_000, 1_796_090_000)
    assert fields["level"]["units"] == "m"
    assert timelines["level"] == {"interval": 60.0, "field": ["level"]}
    assert network.client.get("cistern::level", start=1, end=2e9)["cistern::level"].values.tolist() == [1.5, 1.25, 1.75]
