"""Which fields share a table of a series file. Pure.

Fields whose samples came together so far share their times. When a block has only some of a table's fields, the table
is split into those and the rest: tables only get finer, so this settles after a few blocks, and the worst that can
come of it is a table for each field. A file's tables are fixed; so a block that does not fit means a new file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from sisockdaq.nexus.series_plan import SeriesPlan, TablePlan, plan_for, widened
from sisockdaq.schema import Field

__all__ = ["Block", "Structure"]


@dataclass(slots=True)
class Block:
    """Samples of one timeline: each of the fields has a value at each of the times.

    Attributes
    ----------
    node, timeline : str
    t : ndarray of float64, (n,)
    data : mapping of str to ndarray, (n, *shape)
        Prepared values by field (`series_plan.prepare`).
    entries : mapping of str to Field
        What the node says of its fields.
    """

    node: str
    timeline: str
    t: npt.NDArray[np.float64]
    data: Mapping[str, npt.NDArray[Any]]
    entries: Mapping[str, Field]

    @property
    def samples(self) -> int:
        """Samples of all fields."""
        return len(self.t) * len(self.data)

    @property
    def nbytes(self) -> int:
        """Memory that the block takes, about: a string counts as 64 bytes."""
        return self.t.nbytes + sum(64 * v.size if v.dtype.kind == "O" else v.nbytes for v in self.data.values())


@dataclass(slots=True, eq=False)
class _Table:
    node: str
    timeline: str
    interval: float
    plans: dict[str, SeriesPlan] = field(default_factory=dict)


class Structure:
    """The tables of the next file."""

    def __init__(self) -> None:
        self._tables: list[_Table] = []
        self._table_of: dict[tuple[str, str], _Table] = {}

    def plans(self) -> tuple[TablePlan, ...]:
        """Return all tables."""
        return tuple(TablePlan(t.node, t.timeline, tuple(t.plans.values()), t.interval) for t in self._tables)

    def places(self, block: Block) -> list[tuple[int, list[str]]]:
        """Return the tables (by their place in `plans`) that a fitting block goes to, with their fields."""
        touched = {id(t): t for name in block.data if (t := self._table_of.get((block.node, name))) is not None}
        return [(self._tables.index(table), list(table.plans)) for table in touched.values()]

    def fits(self, block: Block) -> bool:
        """Say whether the tables can take a block as they are."""
        for name, values in block.data.items():
            table = self._table_of.get((block.node, name))
            if table is None or table.timeline != block.timeline or not table.plans.keys() <= block.data.keys():
                return False
            plan = table.plans[name]
            if not plan.fits(values) or (name in block.entries and not plan.says(block.entries[name])):
                return False
        return True

    def admit(self, block: Block) -> None:
        """Change the tables so that a block fits."""
        new: list[str] = []
        for name in block.data:
            table = self._table_of.get((block.node, name))
            if table is not None and table.timeline != block.timeline:
                self._remove(table, name)
                table = None
            if table is None:
                new.append(name)
        for table in {id(t): t for n in block.data if (t := self._table_of.get((block.node, n))) is not None}.values():
            self._split(table, block)
        if new:
            made = _Table(block.node, block.timeline, _interval(block.t))
            for name in new:
                made.plans[name] = plan_for(name, block.entries[name], block.data[name])
                self._table_of[block.node, name] = made
            self._tables.append(made)

    def _split(self, table: _Table, block: Block) -> None:
        inside = [name for name in table.plans if name in block.data]
        if len(inside) < len(table.plans):
            made = _Table(table.node, table.timeline, table.interval)
            made.plans = {name: table.plans.pop(name) for name in inside}
            self._tables.append(made)
            self._table_of.update({(table.node, name): made for name in inside})
            table = made
        for name in inside:
            plan, values = table.plans[name], block.data[name]
            entry = block.entries.get(name) or plan.entry(table.timeline)
            if not plan.fits(values) or not plan.says(entry):
                table.plans[name] = widened(plan, entry, values)

    def _remove(self, table: _Table, name: str) -> None:
        del table.plans[name], self._table_of[table.node, name]
        if not table.plans:
            self._tables.remove(table)


def _interval(t: npt.NDArray[np.float64]) -> float:
    """Return the spacing of samples that is to be expected; a second where nothing is known."""
    span = float(t.max() - t.min()) if len(t) > 1 else 0.0
    return span / (len(t) - 1) if span > 0 else 1.0
