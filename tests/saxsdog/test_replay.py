from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sisockdaq.saxsdog.replay import ReplayMemory

WINDOW = 900.0


@given(st.lists(st.tuples(st.integers(0, 30), st.floats(0, 60)), max_size=60), st.integers(1, 8))
def test_nothing_is_let_in_twice_and_the_memory_is_bounded(asked: list[tuple[int, float]], most: int) -> None:
    """The stamp belongs to the signature, as in a request."""
    memory = ReplayMemory(WINDOW, most)
    let_in: set[int] = set()
    now = 0.0
    for stamp, step in asked:
        now += step
        if abs(stamp - now) >= WINDOW or memory.too_old(stamp):
            continue
        new = memory.admit(f"{stamp}", stamp, now)
        assert not (new and stamp in let_in)
        let_in.add(stamp)
        assert len(memory) <= most


def test_what_is_too_old_to_be_used_again_is_forgotten() -> None:
    memory = ReplayMemory(WINDOW)
    for n in range(1000):
        assert memory.admit(str(n), float(n), float(n))
    memory.admit("x", 2500.0, 2500.0)
    assert len(memory) == 1


def test_a_full_memory_forgets_the_oldest_and_refuses_its_like() -> None:
    memory = ReplayMemory(WINDOW, most=2)
    for n in (1, 2, 3):
        assert memory.admit(str(n), float(n), 3.0)
    assert memory.too_old(1.0)
    assert not memory.too_old(1.5)
    assert not memory.admit("2", 2.0, 3.0)
