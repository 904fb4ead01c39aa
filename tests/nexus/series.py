"""Series for tests: fields of every type, and their values."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from sisockdaq.nexus.series_plan import prepare
from sisockdaq.recording.structure import Block
from sisockdaq.schema import Axis, Field

ENTRIES = {
    "voltage": Field(timeline="fast", units="V", description="Höhe / 1"),
    "count": Field(timeline="fast"),
    "a/b %2F.": Field(timeline="fast", units="°C"),
    "state": Field(timeline="slow", type="string"),
    "open": Field(timeline="slow", type="bool"),
    "curve": Field(
        timeline="slow",
        type="array",
        shape=(3,),
        dtype="<f4",
        axes=(Axis(axis="q", unit="1/nm", values=(1.0, 2.0, 3.0)),),
    ),
}

texts = st.one_of(
    st.none(), st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\x1a"), max_size=40)
)


def value(name: str) -> st.SearchStrategy[Any]:
    """Return values of a field."""
    kind = ENTRIES[name]
    if kind.type == "string":
        return texts
    if kind.type == "bool":
        return st.booleans()
    if kind.type == "array":
        return st.lists(st.floats(width=32), min_size=3, max_size=3)
    return st.integers(-(2**60), 2**60) if name == "count" else st.floats()


def values(name: str, items: list[Any]) -> npt.NDArray[Any]:
    """Return prepared values as a feed brings them."""
    kind = ENTRIES[name]
    if kind.type == "string":
        raw = np.empty(len(items), dtype=object)
        raw[:] = items
    else:
        dtype = {"count": "<i8", "open": "?", "curve": "<f4"}.get(name, "<f8")
        raw = np.array(items, dtype=dtype).reshape(len(items), *(kind.shape or ()))
    return prepare(kind, raw)


def block(names: list[str], t: list[float], items: dict[str, list[Any]], node: str = "lab") -> Block:
    """Return a block of one timeline."""
    timeline = ENTRIES[names[0]].timeline
    data = {name: values(name, items[name]) for name in names}
    return Block(node, timeline, np.array(t, np.float64), data, ENTRIES)


@st.composite
def blocks(draw: st.DrawFn, most: int = 8) -> list[Block]:
    """Blocks of two nodes with any of a timeline's fields, in the order of time."""
    made, t = [], 1_700_000_000.0
    for _ in range(draw(st.integers(1, most))):
        timeline = draw(st.sampled_from(["fast", "slow"]))
        known = [name for name, entry in ENTRIES.items() if entry.timeline == timeline]
        names = draw(st.lists(st.sampled_from(known), min_size=1, unique=True))
        rows = draw(st.integers(1, 4))
        times = [t + draw(st.floats(1e-3, 10.0)) * (i + 1) for i in range(rows)]
        times.sort()
        t = times[-1] + 1e-3
        items = {name: draw(st.lists(value(name), min_size=rows, max_size=rows)) for name in names}
        made.append(block(names, times, items, draw(st.sampled_from(["lab", "other.node"]))))
    return made
