"""The hub's registry, by table and by random histories."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from sisockdaq.hub.registry import Announce, Ask, Evict, Registry


def test_the_first_holder_keeps_a_name() -> None:
    registry = Registry()
    assert registry.add("camera", "a camera", 1, 0.0) == (True, [Announce("added", "camera", "a camera")])
    assert registry.add("camera", "another", 2, 1.0) == (False, [])
    assert registry.add("camera", "a camera, again", 1, 2.0) == (True, [])
    assert registry.listing() == [{"name": "camera", "description": "a camera, again"}]
    assert registry.remove("camera", 2) == []
    assert registry.left(1) == [Announce("subtracted", "camera", "a camera, again")]
    assert registry.add("camera", "another", 2, 3.0)[0]


def test_one_session_may_hold_several_names() -> None:
    registry = Registry()
    registry.add("a", "", 1, 0.0)
    registry.add("b", "", 1, 0.0)
    assert {instruction.name for instruction in registry.left(1)} == {"a", "b"}


def test_a_silent_node_is_evicted_and_an_answering_one_stays() -> None:
    registry = Registry(period=1.0, silence=6.0)
    registry.add("frozen", "", 1, 0.0)
    registry.add("alive", "", 2, 0.0)
    gone: list[object] = []
    for now in range(8):
        for instruction in registry.tick(float(now)):
            if instruction == Ask("alive", 2):
                registry.answered("alive", 2, {"type": "t", "version": "1", "started": 0.0}, now + 0.1)
            elif not isinstance(instruction, Ask):
                gone.append((now, instruction))
    assert gone == [
        (6, Evict("frozen", 1, "no answer for 6 s")),
        (6, Announce("subtracted", "frozen", "")),
    ]
    status = registry.status(8.0)
    assert [entry["name"] for entry in status] == ["alive"]
    assert (status[0]["uptime"], status[0]["last_answer"], status[0]["version"]) == (8.0, 6.1, "1")


def test_a_late_answer_of_an_earlier_holder_changes_nothing() -> None:
    registry = Registry(silence=6.0)
    registry.add("camera", "", 1, 0.0)
    registry.tick(0.0)
    registry.left(1)
    registry.add("camera", "", 2, 1.0)
    registry.tick(1.0)
    registry.answered("camera", 1, {}, 2.0)
    assert any(isinstance(instruction, Evict) for instruction in registry.tick(7.0))


def test_a_node_without_ping_is_left_to_the_router() -> None:
    registry = Registry()
    registry.add("old", "", 1, 0.0)
    assert registry.tick(0.0) == [Ask("old", 1)]
    registry.cannot_answer("old", 1)
    assert registry.tick(100.0) == []
    assert registry.listing()


_EVENT = st.one_of(
    st.tuples(st.just("add"), st.sampled_from("abc"), st.integers(1, 4)),
    st.tuples(st.just("remove"), st.sampled_from("abc"), st.integers(1, 4)),
    st.tuples(st.just("left"), st.just(""), st.integers(1, 4)),
    st.tuples(st.just("answer"), st.sampled_from("abc"), st.integers(1, 4)),
    st.tuples(st.just("tick"), st.just(""), st.integers(0, 0)),
)


@given(st.lists(_EVENT, max_size=60))
@settings(max_examples=100)
def test_announcements_always_add_up_to_the_listing(events: list[tuple[str, str, int]]) -> None:
    registry = Registry(period=1.0, silence=3.0)
    seen: dict[str, int] = {}
    for now, (kind, name, session) in enumerate(events):
        instructions = {
            "add": lambda n=name, s=session, t=now: registry.add(n, "", s, float(t))[1],
            "remove": lambda n=name, s=session: registry.remove(n, s),
            "left": lambda s=session: registry.left(s),
            "answer": lambda n=name, s=session, t=now: registry.answered(n, s, {}, float(t)) or [],
            "tick": lambda t=now: registry.tick(float(t)),
        }[kind]()
        for instruction in instructions:
            if isinstance(instruction, Announce):
                step = 1 if instruction.kind == "added" else -1
                seen[instruction.name] = seen.get(instruction.name, 0) + step
                assert seen[instruction.name] in (0, 1)
        assert sorted(n for n, count in seen.items() if count) == [entry["name"] for entry in registry.listing()]
