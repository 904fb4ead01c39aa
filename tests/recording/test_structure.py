"""Tables only get finer, and always take what they were changed for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sisockdaq.nexus.series_plan import MISSING, prepare
from sisockdaq.recording.structure import Block, Structure
from sisockdaq.schema import Field
from tests.nexus.series import blocks

NUMBER = Field(timeline="line")


def numbers(*names: str, timeline: str = "line") -> Block:
    data = {name: np.array([1.0, 2.0]) for name in names}
    return Block("node", timeline, np.array([1.0, 1.5]), data, dict.fromkeys(names, NUMBER))


def tables(structure: Structure) -> list[list[str]]:
    return sorted(sorted(plan.name for plan in table.fields) for table in structure.plans())


@settings(max_examples=30)  # each is many blocks
@given(st.lists(blocks(), max_size=3))
def test_after_a_change_a_block_fits_and_earlier_ones_still_do_in_finer_tables(many: list[list[Block]]) -> None:
    structure, seen = Structure(), []
    for block in [each for some in many for each in some]:
        if not structure.fits(block):
            structure.admit(block)
        seen.append(block)
        assert structure.fits(block)
        taken = [name for _, names in structure.places(block) for name in names]
        assert sorted(taken) == sorted(block.data)
    assert all(structure.fits(block) for block in seen)


def test_fields_that_come_together_share_a_table_until_they_do_not() -> None:
    structure = Structure()
    structure.admit(numbers("a", "b", "c"))
    assert tables(structure) == [["a", "b", "c"]]
    assert structure.plans()[0].interval == 0.5
    assert not structure.fits(numbers("a", "b"))
    structure.admit(numbers("a", "b"))
    assert tables(structure) == [["a", "b"], ["c"]]
    assert structure.fits(numbers("a", "b", "c"))
    structure.admit(numbers("c", "d"))
    assert tables(structure) == [["a", "b"], ["c"], ["d"]]
    structure.admit(numbers("c", timeline="new"))
    assert tables(structure) == [["a", "b"], ["c"], ["d"]]


def test_other_types_units_and_longer_strings_need_another_file() -> None:
    structure = Structure()
    text = Field(timeline="line", type="string")
    whole = Block("node", "line", np.ones(1), {"n": np.array([3])}, {"n": NUMBER})
    structure.admit(whole)
    real = Block("node", "line", np.ones(1), {"n": np.array([3.5])}, {"n": NUMBER})
    assert not structure.fits(real)
    structure.admit(real)
    assert structure.fits(whole) is False or structure.plans()[0].fields[0].dtype == "<f8"
    renamed = Block("node", "line", np.ones(1), {"n": np.array([3.5])}, {"n": Field(timeline="line", units="V")})
    assert not structure.fits(renamed)
    structure.admit(renamed)
    assert structure.plans()[0].fields[0].units == "V"
    for length, width in ((3, 64), (65, 128), (4, 128)):
        values = prepare(text, np.array(["x" * length, None], dtype=object))
        block = Block("other", "line", np.ones(2), {"s": values}, {"s": text})
        structure.admit(block)
        assert structure.plans()[-1].fields[0].dtype == f"S{width}"
    assert MISSING == "\x1a"


@pytest.mark.parametrize(
    ("entry", "values"),
    [
        (Field(timeline="t"), ["a"]),
        (Field(timeline="t", type="bool"), [True, None]),
        (Field(timeline="t", type="bool"), [2]),
        (Field(timeline="t", type="array", shape=(2,)), [1.0]),
        (Field(timeline="t"), np.ones((2, 2))),
    ],
)
def test_values_of_another_type_are_refused(entry: Field, values: list[object]) -> None:
    with pytest.raises(ValueError, match="are no"):
        prepare(entry, values)


def test_values_are_made_their_fields_type() -> None:
    assert prepare(Field(timeline="t"), [1, None]).tolist()[0] == 1.0
    assert prepare(Field(timeline="t"), np.array([True])).dtype == np.float64
    assert prepare(Field(timeline="t", type="bool"), [0, 1]).tolist() == [False, True]
    assert prepare(Field(timeline="t", type="string"), [1, None, "x"]).tolist() == ["1", None, "x"]
