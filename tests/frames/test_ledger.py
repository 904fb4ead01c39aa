"""The ledger's sums, in the examples of the experience document and over random accounts."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sisockdaq.frames.ledger import ConsumerPart, Ledger


def a_ledger(**changes: Any) -> Ledger:
    values: dict[str, Any] = {
        "acquisition": "run_0002",
        "reason": "complete",
        "packets_expected": 256000,
        "packets_received": 255998,
        "packets_lost": 2,
        "frames_expected": 1000,
        "frames_complete": 999,
        "frames_partial": 1,
        "consumers": {
            "writer": ConsumerPart("lossless", taken=1000, counts={"frames_written": 1000, "files_closed": 2}),
            "viewer": ConsumerPart("latest", "gone", taken=300, dropped=600, missed=100),
        },
    }
    return Ledger(**(values | changes))


def test_a_balanced_ledger_has_nothing_to_say() -> None:
    ledger = a_ledger()
    assert ledger.balance() == []
    assert ledger.summary() == (
        "256000 packets = 255998 received + 2 lost; 999 complete + 1 partial = 1000 frames; "
        "writer took 1000, 1000 written, 2 files closed; "
        "viewer took 300 (600 dropped, 100 missed) and is gone; balanced"
    )
    assert ledger.reported("frames_written") == 1000


def test_what_came_besides_is_named() -> None:
    ledger = a_ledger(packets_late=3, packets_invalid={"wrong_size": 1}, frames_dropped={"ring_full": 4})
    assert "255998 received + 2 lost (besides 3 late, 1 wrong size)" in ledger.summary()
    assert "4 dropped (4 ring full)" in ledger.summary()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"packets_lost": 1}, "256000 packets expected, but 255998 received + 1 lost = 255999"),
        ({"frames_partial": 0}, "1000 frames expected, but 999 complete + 0 partial + 0 dropped = 999"),
        ({"frames_published": 998}, "998 frames published, but 999 complete + 1 partial"),
        ({"consumers": {"w": ConsumerPart("lossless", taken=3)}}, "1000 frames published, but w has 3 taken"),
        (
            {"consumers": {"w": ConsumerPart("lossless", taken=1000, counts={"frames_written": 1001})}},
            "w reports 1001 frames_written, but took 1000",
        ),
    ],
)
def test_each_sum_that_fails_is_named(changes: dict[str, Any], words: str) -> None:
    ledger = a_ledger(**changes)
    assert any(words in problem for problem in ledger.balance()), ledger.balance()
    assert "NOT BALANCED" in ledger.summary()


def test_parts_are_merged() -> None:
    source = Ledger.from_dict({"acquisition": "r", "frames_expected": 2, "frames_complete": 2, "unknown": 1})
    first = Ledger("r", consumers={"w": ConsumerPart("lossless", taken=2, counts={"frames_written": 2})})
    second = Ledger("r", consumers={"w": ConsumerPart("lossless", taken=2, counts={"files_closed": 1})})
    merged = source.merge(first).merge(second)
    assert (merged.frames_complete, merged.consumers["w"].counts) == (2, {"frames_written": 2, "files_closed": 1})
    assert merged.balance() == []
    assert second.consumers["w"].counts == {"files_closed": 1}
    with pytest.raises(ValueError, match="cannot be merged"):
        source.merge(Ledger("other"))


@pytest.mark.parametrize("wrong", [1.5, "many", None, True, [1]])
def test_counts_are_whole_numbers(wrong: Any) -> None:
    with pytest.raises(ValueError, match="packets_lost must be a whole number"):
        Ledger.from_dict({"acquisition": "r", "packets_lost": wrong})


counts = st.integers(0, 10**12)
kinds = st.dictionaries(st.sampled_from(["ring_full", "no_packet", "policy"]), counts)


@settings(max_examples=60, deadline=None)
@given(counts, counts, counts, counts, kinds, st.lists(counts, min_size=4, max_size=4))
def test_a_ledger_made_of_parts_balances_and_survives_json(
    received: int, lost: int, complete: int, partial: int, dropped: dict[str, int], parts: list[int]
) -> None:
    published = complete + partial
    left, consumer = published, ConsumerPart("every: 2")
    for name, part in zip(("taken", "dropped", "skipped", "missed"), parts, strict=True):
        setattr(consumer, name, min(part, left))
        left -= min(part, left)
    consumer.held = left
    ledger = Ledger(
        "r",
        "complete",
        packets_expected=received + lost,
        packets_received=received,
        packets_lost=lost,
        frames_expected=published + sum(dropped.values()),
        frames_complete=complete,
        frames_partial=partial,
        frames_dropped=dropped,
        consumers={"c": consumer},
    )
    assert ledger.balance() == []
    assert Ledger.from_dict(json.loads(json.dumps(ledger.to_dict()))) == ledger
    ledger.packets_lost += 1
    assert len(ledger.balance()) == 1
