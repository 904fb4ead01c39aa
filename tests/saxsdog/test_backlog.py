"""The rules of waiting: once each, in order, later, alone; nothing is lost."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sisockdaq.saxsdog.backlog import Backlog

NAMES = [f"{number}.tif" for number in range(6)]


def test_a_picture_waits_once_and_only_so_many_do():
    backlog = Backlog(2, 10)
    assert [backlog.admit(name) for name in ("a", "a", "b", "c")] == [True, True, True, False]
    assert backlog.take(5, 0.0) == ["a", "b"]
    assert len(backlog) == 0
    assert backlog.admit("c")


def test_tries_come_later_and_later_until_the_patience_is_over():
    backlog, now, pauses = Backlog(5, 10), 100.0, []
    while backlog.try_again("a", now, now, 0.0):
        pauses.append(backlog.due - now)
        now = backlog.due
        assert backlog.take(1, now - 1e-6) == []
        assert backlog.take(1, now) == ["a"]
    assert 9 < now - 100 <= 10
    assert [round(pause, 6) for pause in pauses[:6]] == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0]
    assert backlog.retries == len(pauses)


def test_a_file_that_still_grows_is_tried_on_and_a_clock_ahead_does_not_last_for_ever():
    backlog = Backlog(5, 10)
    assert backlog.try_again("a", 0.0, 1000.0, 999.0)
    assert backlog.try_again("a", 15.0, 1015.0, 1014.0), "it changed a second ago"
    assert not backlog.try_again("a", 40.0, 1040.0, 1014.0)
    assert backlog.try_again("b", 0.0, 1000.0, 5000.0)


def test_what_a_dead_worker_had_is_tried_alone_and_the_culprit_is_found():
    backlog = Backlog(5, 10)
    assert backlog.lost(["a", "b"]) is None
    assert backlog.take(5, 0.0) == []
    assert backlog.take_alone() == "a"
    assert backlog.is_suspect("a")
    assert backlog.lost(["a"]) == "a"
    assert backlog.take_alone() == "b"
    backlog.settled("b")
    assert not backlog.is_suspect("b")
    assert backlog.lost(["b"]) is None, "the first death over it alone"


class Waiting(RuleBasedStateMachine):
    """Whatever happens, a picture is either in here, in hand, or settled."""

    def __init__(self):
        super().__init__()
        self.backlog, self.now = Backlog(4, 3), 0.0
        self.inside, self.hand = set(), set()

    @rule(name=st.sampled_from(NAMES))
    def admit(self, name):
        if self.backlog.admit(name):
            self.inside.add(name)
        else:
            assert len(self.inside) >= 4

    @rule(count=st.integers(1, 3), passes=st.floats(0, 2))
    def take(self, count, passes):
        self.now += passes
        taken = set(self.backlog.take(count, self.now))
        assert taken <= self.inside
        self.inside -= taken
        self.hand |= taken

    @rule()
    def take_alone(self):
        name = self.backlog.take_alone()
        if name is not None:
            self.inside.remove(name)
            self.hand.add(name)

    @rule(data=st.data())
    def settle(self, data):
        if self.hand:
            name = data.draw(st.sampled_from(sorted(self.hand)))
            self.hand.discard(name)
            if data.draw(st.booleans()):
                if self.backlog.try_again(name, self.now, self.now, 0.0):
                    self.inside.add(name)
            else:
                self.backlog.settled(name)

    @rule()
    def die(self):
        guilty = self.backlog.lost(sorted(self.hand))
        self.inside |= self.hand - {guilty}
        self.hand.clear()

    @invariant()
    def counts(self):
        assert len(self.backlog) == len(self.inside)


TestWaiting = Waiting.TestCase
