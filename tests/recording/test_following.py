"""A feed that loses events, a node that restarts, a queue that refuses: each sample once, and all that can be had."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sisockdaq.recording import following as module
from sisockdaq.recording.following import Following, Rows
from sisockdaq.schema import Samples
from sisockdaq.wire import FeedEvent


class Node:
    """A node with a cache and a feed; its events reach the follower late, or never."""

    def __init__(self) -> None:
        self.clock, self.lives = 0.0, 0
        self.restart()

    def restart(self) -> None:
        self.lives += 1
        self.cache: list[float] = []
        self.sequence = -1
        self.unpublished: list[float] = []

    def append(self) -> None:
        self.clock += 1.0
        self.cache.append(self.clock)
        self.unpublished.append(self.clock)

    def publish(self) -> FeedEvent | None:
        t, self.unpublished = np.array(self.unpublished), []
        if not len(t):
            return None
        self.sequence += 1
        return FeedEvent(f"life {self.lives}", self.sequence, t, {"x": t.copy(), "other": t.copy()})

    def answer(self, start: float) -> Samples:
        t = np.array([t for t in self.cache if t >= start])
        return Samples(t, t.copy(), "line", None, self.cache[0] if self.cache else None)


class Rig:
    def __init__(self) -> None:
        self.node, self.on_way, self.taken = Node(), [], []
        self.following = Following("node", "line", {"x"})
        self.full = False

    def hand_over(self, rows: list[Rows]) -> None:
        refused = False
        for t, data in rows:
            refused = refused or self.full
            if refused:
                self.following.refused(len(t), data)
            else:
                self.taken += t.tolist()
                self.following.handed(t, data)

    def ask(self) -> None:
        """Ask until there is nothing to be asked."""
        self.full = False
        while self.following.asking:
            samples = self.node.answer(self.following.ask_from("x"))
            self.following.answered({"x": samples})
            if len(samples):
                self.hand_over([(samples.t, {"x": samples.values})])
            self.hand_over(self.following.caught_up())

    def do(self, action: str) -> None:
        if action == "append":
            self.node.append()
        elif action == "publish" and (event := self.node.publish()):
            self.on_way.append(event)
        elif action == "drop" and self.on_way:
            self.on_way.pop(0)
        elif action == "arrive" and self.on_way:
            self.hand_over(self.following.event(self.on_way.pop(0)))
        elif action == "ask":
            self.ask()
        elif action == "login":
            self.on_way.clear()
            self.following.begin()
        elif action == "full":
            self.full = True


ACTIONS = st.sampled_from(["append"] * 4 + ["publish"] * 3 + ["arrive"] * 3 + ["drop", "ask", "ask", "login", "full"])


@settings(max_examples=300, deadline=None)
@given(st.lists(ACTIONS, max_size=80))
def test_every_sample_of_a_node_that_lives_is_taken_once(actions: list[str]) -> None:
    rig = Rig()
    for action in actions:
        rig.do(action)
    for action in ("append", "publish", "login", "ask"):
        rig.do(action)
    assert rig.taken == rig.node.cache
    assert (rig.following.lost, rig.following.gaps) == (0, [])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(ACTIONS, st.just("restart")), max_size=80))
def test_a_node_that_restarts_loses_only_its_own_cache(actions: list[str]) -> None:
    rig = Rig()
    for action in actions:
        if action == "restart":
            rig.node.restart()
        else:
            rig.do(action)
    for action in ("append", "publish", "login", "ask"):
        rig.do(action)
    assert rig.taken == sorted(set(rig.taken))
    assert set(rig.node.cache) <= set(rig.taken)


def event(sequence: int, *t: float, epoch: str = "e", **fields: Any) -> FeedEvent:
    return FeedEvent(epoch, sequence, np.array(t), {"x": np.array(t), **fields})


def caught_up(**more: Any) -> Following:
    following = Following("node", "line", {"x"}, **more)
    following.answered({"x": Samples.empty()})
    assert following.caught_up() == []
    return following


def test_what_the_node_no_longer_has_is_a_gap_and_refused_samples_are_lost() -> None:
    following = caught_up()
    assert len(following.event(event(0, 1.0, 2.0))) == 1
    following.handed(np.array([1.0, 2.0]), ["x"])
    following.event(event(1, 3.0, 4.0))
    following.refused(2, ["x"])
    assert following.asking
    assert following.ask_from("x") == math.nextafter(2.0, 3.0)
    following.answered({"x": Samples(np.array([4.0, 5.0]), np.zeros(2), "line", None, 4.0)})
    assert following.lost == 0
    following.refused(5, ["x"])
    following.answered({"x": Samples(np.array([9.0]), np.zeros(1), "line", None, 9.0)})
    assert following.lost == 4
    assert following.gaps == [
        "node::x: samples from 2.000 to 4.000 may be lost", "node::x: samples from 2.000 to 9.000 may be lost"
    ]  # fmt: skip


def test_a_feed_that_runs_on_while_the_node_is_asked_is_bounded() -> None:
    following = Following("node", "line", {"x"})
    for number in range(module.WAITING + 1):
        assert following.event(event(number, float(number))) == []
    following.answered({"x": Samples.empty()})
    assert following.caught_up() == []
    assert following.asking
    known = np.arange(module.WAITING + 1.0)
    following.answered({"x": Samples(known, known, "line")})
    assert following.caught_up() == []
    assert not following.asking


def test_samples_that_came_late_are_taken_too() -> None:
    following = caught_up()
    following.event(event(0, 5.0))
    (rows,) = following.event(event(1, 4.0, 6.0))
    assert rows[0].tolist() == [4.0, 6.0]
    assert following.event(FeedEvent("e", 2, np.array([7.0]), {"other": np.array([7.0])})) == []
