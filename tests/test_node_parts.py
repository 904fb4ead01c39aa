"""What a node is made of: worker threads, timers, feeds, and the checks of what it answers."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from sisockdaq._node.feed import EVENT_BYTES, PERIOD, Feeds
from sisockdaq._node.serving import PLAIN_BYTES, plain_data
from sisockdaq._node.workers import Workers
from sisockdaq._wamp.reactor import in_reactor
from sisockdaq.base import DataNodeServer
from sisockdaq.errors import DeadlineExceeded
from sisockdaq.series import SeriesStore
from sisockdaq.testing import Network, wait_until
from sisockdaq.wire import FeedEvent

# Worker threads.


def test_workers_return_results_and_errors() -> None:
    workers = Workers(2)
    assert in_reactor(workers.run, sorted, [3, 1], reverse=True) == [3, 1]
    with pytest.raises(ZeroDivisionError):
        in_reactor(workers.run, lambda: 1 / 0)
    workers.stop()


def test_a_late_job_fails_its_caller_and_its_result_is_dropped() -> None:
    workers = Workers(1)
    release = threading.Event()
    with pytest.raises(DeadlineExceeded, match=r"wait took longer than 0\.1 s"):
        in_reactor(lambda: workers.run(release.wait, 10, deadline=0.1))
    # The one thread is still busy: the next job waits, and is never begun once its own time is over.
    done: list[int] = []
    with pytest.raises(DeadlineExceeded):
        in_reactor(lambda: workers.run(done.append, 1, deadline=0.1))
    release.set()
    assert in_reactor(workers.run, lambda: 7) == 7
    assert done == []
    workers.stop()


def test_a_full_queue_refuses_at_once() -> None:
    workers = Workers(1, waiting=2)
    release = threading.Event()
    begun = threading.Event()

    def job() -> None:
        begun.set()
        release.wait(10)

    def fill() -> None:
        for _ in range(3):
            workers.run(job).addErrback(lambda _: None)

    in_reactor(lambda: workers.run(job).addErrback(lambda _: None) and None)
    assert begun.wait(5)
    in_reactor(fill)
    with pytest.raises(DeadlineExceeded, match="2 requests are waiting"):
        in_reactor(workers.run, job)
    release.set()
    workers.stop()


# Feeds.


def make_feeds(accept: bool = True) -> tuple[Feeds, list[FeedEvent]]:
    events: list[FeedEvent] = []

    def publish(timeline: str, event: dict[str, Any]) -> bool:
        if accept:
            events.append(FeedEvent.parse(event))
        return accept

    return Feeds(publish), events


def test_a_fast_series_costs_at_most_one_event_a_period() -> None:
    feeds, events = make_feeds()
    series = SeriesStore().series("x")
    feeds.watch(series.timeline)
    clock = in_reactor(lambda: __import__("twisted.internet.reactor", fromlist=["x"]).seconds())
    for i in range(5000):
        series.append(float(i), float(i))
    wait_until(lambda: sum(len(event.t) for event in events) == 5000, what="all samples")
    elapsed = in_reactor(lambda: __import__("twisted.internet.reactor", fromlist=["x"]).seconds()) - clock
    assert len(events) <= elapsed / PERIOD + 2
    assert np.concatenate([event.t for event in events]).tolist() == [float(i) for i in range(5000)]


def test_large_blocks_are_cut_into_events() -> None:
    feeds, events = make_feeds()
    image = np.arange(300_000, dtype=np.float64).reshape(3, 100_000)
    feeds.send("image", [1.0, 2.0, 3.0], {"image": image})
    assert [event.sequence for event in events] == [0, 1, 2]
    assert all(event.data["image"].nbytes <= EVENT_BYTES for event in events)
    np.testing.assert_array_equal(np.concatenate([event.data["image"] for event in events]), image)


def test_events_that_cannot_be_sent_leave_a_gap_in_the_sequence() -> None:
    feeds, _ = make_feeds(accept=False)
    feeds.send("x", [1.0], {"x": [1.0]})
    feeds.send("x", [2.0], {"x": [2.0]})
    assert feeds.dropped == 2
    seen: list[FeedEvent] = []
    feeds._publish = lambda _, event: seen.append(FeedEvent.parse(event)) or True  # type: ignore[func-returns-value]
    feeds.send("x", [3.0], {"x": [3.0]})
    assert seen[0].sequence == 2


def test_a_sample_too_large_for_an_event_is_dropped_and_counted() -> None:
    feeds, events = make_feeds()
    feeds.send("image", [1.0], {"image": np.zeros((1, 2000, 3000), np.uint16)})
    assert (events, feeds.dropped) == ([], 1)


def test_scalars_and_strings_make_a_block_of_one() -> None:
    feeds, events = make_feeds()
    feeds.send("files", 5.0, {"name": "a.h5", "size": 3})
    assert events[0].t.tolist() == [5.0]
    assert events[0].data["name"].tolist() == ["a.h5"]
    assert events[0].data["size"].tolist() == [3]


# What a reply may be.


def test_replies_are_plain_or_false() -> None:
    reply = {"data": {"x": np.array([1.0, np.nan]), "s": ["a", None]}, "timeline": {"l": {"t": (1, 2)}}}
    assert plain_data(reply) == {"data": {"x": [1.0, None], "s": ["a", None]}, "timeline": {"l": {"t": [1, 2]}}}
    assert plain_data(False) is False
    assert plain_data(None) is False
    many = PLAIN_BYTES // 20 + 1
    assert plain_data({"data": {"x": np.zeros(many)}, "timeline": {}}) is False
    assert plain_data({"data": {"x": [0.0] * many}, "timeline": {}}) is False
    assert plain_data({"data": {"s": ["x" * 1000] * 10_000}, "timeline": {}}) is False
    assert plain_data({"data": {"image": [[[0] * 1000] * 1000]}, "timeline": {}}) is False


# Timers and setup.


class Timed(DataNodeServer):
    def setup(self) -> Any:
        self.counts = {"thread": 0, "reactor": 0}
        self.threads: set[str] = set()
        self.every(0.01, self.in_a_thread, in_thread=True)
        self.every(0.01, self.in_the_reactor)
        self.ready = True  # timers must not run before this

    def in_a_thread(self) -> None:
        self.threads.add(threading.current_thread().name)
        self.counts["thread"] += 1
        raise OSError("no answer from the gauge")

    async def in_the_reactor(self) -> None:
        assert self.ready
        self.counts["reactor"] += 1
        raise OSError("nor here")


def test_timers_go_on_after_errors_and_end_with_the_node(network: Network) -> None:
    running = network.start(Timed)
    node = running.node
    wait_until(lambda: min(node.counts.values()) >= 3, what="three calls of each timer")
    assert node.threads == {"timed-in_a_thread"}
    assert network.call("consumer.timed.ping")["errors"] >= 6
    network.stop(running)
    assert all(not thread.name.startswith("timed-in_a_thread") or not thread.is_alive() for thread in after(node))


def after(node: Any) -> list[threading.Thread]:
    """Return the threads once the node's timer thread had its chance to end."""
    wait_until(lambda: not any(t.name == "timed-in_a_thread" for t in threading.enumerate()), what="the thread's end")
    return threading.enumerate()
