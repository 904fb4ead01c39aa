"""The acquisition's life as tables and as properties over any order of events."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sisockdaq.acquisition import (
    ARM_DEADLINE,
    SETTLE_DEADLINE,
    STOP_DEADLINE,
    Abandon,
    AcquisitionMachine,
    AcquisitionState,
    ArmSource,
    Drain,
    Drained,
    Event,
    FirstFrame,
    FramesCome,
    Instruction,
    OpenFiles,
    Record,
    Request,
    Seal,
    SendReport,
    Settled,
    SourceEnded,
    SourceLost,
    SourceStarted,
    StopRequested,
    StopSource,
    Tick,
    WriteFailed,
    WriterEnds,
    WriterState,
)
from sisockdaq.errors import AcquisitionRefused

RUN = Request("run", 10)


def play(machine: AcquisitionMachine, *events: Event, now: float = 0.0) -> list[list[str]]:
    """Feed events; return the names of the instructions after each."""
    return [[type(each).__name__ for each in machine.handle(event, now)] for event in events]


def begun() -> AcquisitionMachine:
    machine = AcquisitionMachine()
    machine.start(RUN, 0.0)
    return machine


def test_the_usual_way_from_start_to_ready() -> None:
    machine = AcquisitionMachine()
    assert machine.start(RUN, 5.0) == [OpenFiles(RUN), ArmSource(RUN)]
    record = machine.current
    assert record is not None
    assert (machine.state, record.state) == (WriterState.WRITING, None)  # an image that is sent now would be lost
    assert machine.handle(SourceStarted("run"), 5.1) == []
    assert record.state is AcquisitionState.WAITING_IMAGES
    assert machine.handle(FirstFrame(), 5.2) == []
    assert record.state is AcquisitionState.WRITING
    assert machine.handle(SourceEnded("run", "complete", 10), 6.0) == [Drain(10)]
    assert record.state is AcquisitionState.FLUSHING_IMAGES
    assert machine.handle(Drained(10, 1), 6.1) == [SendReport("run", {"frames_written": 10, "files_closed": 1})]
    assert machine.handle(Settled("run", {"a": 1}), 6.2) == [Seal("complete", {"a": 1})]
    assert (machine.state, record.state, record.message) == ("READY", "FINISHED", "Completed.")
    assert (record.started, record.ended, record.frames_written) == (5.0, 6.2, 10)
    assert list(machine.history) == [record]


@pytest.mark.parametrize(
    ("written", "reason", "message"),
    [
        (10, "complete", "Completed."),
        (8, "complete", "Completed, 2 images are missing."),
        (4, "stopped", "Interrupted."),
    ],
)
def test_the_message_says_what_happened(written: int, reason: str, message: str) -> None:
    machine = begun()
    play(machine, SourceStarted("run"), SourceEnded("run", reason, 10), Drained(written, 1), Settled("run", {}))
    assert machine.current is not None
    assert machine.current.message == message


def test_stop_asks_the_source_once_and_is_harmless_at_any_other_time() -> None:
    machine = AcquisitionMachine()
    assert play(machine, StopRequested()) == [[]]
    machine.start(RUN, 0.0)
    assert machine.handle(StopRequested(), 0.0) == [StopSource("run", False)]
    assert play(machine, StopRequested(), SourceEnded("run", "stopped", 3)) == [[], ["Drain"]]
    assert play(machine, StopRequested(), Drained(3, 1), StopRequested(), Settled("run", {})) == [
        [],
        ["SendReport"],
        [],
        ["Seal"],
    ]
    assert play(machine, StopRequested()) == [[]]


def test_a_failed_write_stops_the_source_and_reports_only_after_its_end() -> None:
    machine = begun()
    play(machine, SourceStarted("run"), FirstFrame())
    assert machine.handle(WriteFailed("no space left"), 1.0) == [StopSource("run", True), Abandon()]
    assert play(machine, WriteFailed("again"), Drained(4, 1)) == [[], []]
    assert play(machine, SourceEnded("run", "failed", 6), Settled("run", {"x": 2})) == [["SendReport"], ["Seal"]]
    record = machine.history[0]
    assert (record.state, record.message, record.ledger) == ("FAILED", "ERROR: no space left", {"x": 2})
    assert record.frames_written == 4


def test_a_source_that_goes_ends_it_without_a_ledger() -> None:
    machine = begun()
    assert play(machine, SourceStarted("run"), SourceLost("killed"), Drained(2, 1)) == [[], ["Drain"], ["Seal"]]
    assert machine.history[0].message == "ERROR: the frame source has gone: killed"
    assert machine.history[0].ledger is None


def test_a_source_that_goes_after_its_end_costs_only_the_ledger() -> None:
    machine = begun()
    play(machine, SourceStarted("run"), SourceEnded("run", "complete", 10), SourceLost("killed"))
    assert play(machine, Drained(10, 1)) == [["Seal"]]
    assert machine.history[0].state is AcquisitionState.FINISHED


@pytest.mark.parametrize(
    ("events", "deadline", "instructions"),
    [
        ([], ARM_DEADLINE, [["StopSource", "Drain"]]),
        ([SourceStarted("run"), StopRequested()], STOP_DEADLINE, [["Drain"]]),
        ([SourceStarted("run"), SourceEnded("run", "complete"), Drained(1, 1)], SETTLE_DEADLINE, [["Seal"]]),
    ],
)
def test_each_wait_has_a_deadline(events: list[Event], deadline: float, instructions: list[list[str]]) -> None:
    machine = begun()
    play(machine, *events)
    assert play(machine, Tick(), now=deadline) == [[]]
    assert play(machine, Tick(), now=deadline + 0.1) == instructions


def test_waiting_for_images_has_none() -> None:
    machine = begun()
    assert play(machine, SourceStarted("run"), Tick(), now=1e6) == [[], []]
    assert machine.state is WriterState.WRITING


def test_a_second_start_names_the_acquisition_under_way() -> None:
    machine = begun()
    with pytest.raises(AcquisitionRefused, match="run is under way"):
        machine.start(Request("other"), 0.0)


def test_a_start_whose_files_cannot_be_made_leaves_no_trace() -> None:
    machine = begun()
    machine.refused()
    assert (machine.state, machine.current, len(machine.history)) == (WriterState.READY, None, 0)


def test_events_of_other_acquisitions_mean_nothing() -> None:
    machine = begun()
    strangers: list[Event] = [SourceStarted("x"), SourceEnded("x", "complete"), Settled("x", {})]
    assert play(machine, *strangers) == [[], [], []]


EVENTS = st.one_of(
    st.sampled_from(["run", "other"]).map(SourceStarted),
    st.just(FramesCome()),
    st.just(FirstFrame()),
    st.just(WriterEnds("the writer ends")),
    st.builds(SourceEnded, st.sampled_from(["run", "other"]), st.sampled_from(["complete", "stopped", "failed"])),
    st.just(SourceLost("gone")),
    st.just(StopRequested()),
    st.just(WriteFailed("disk full")),
    st.builds(Settled, st.sampled_from(["run", "other"]), st.just({"a": 1})),
    st.just(Tick()),
)


class AnyOrder(RuleBasedStateMachine):
    """Whatever happens, each start is sealed once, and only after its files are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = AcquisitionMachine()
        self.now = 0.0
        self.draining = False
        self.counts: dict[str, int] = {}
        self.starts = 0

    def take(self, instructions: list[Instruction]) -> None:
        for instruction in instructions:
            name = type(instruction).__name__
            self.counts[name] = self.counts.get(name, 0) + 1
            if isinstance(instruction, Drain | Abandon):
                self.draining = True
            if isinstance(instruction, SendReport | Seal):
                assert not self.draining
            if isinstance(instruction, Seal):
                record = self.machine.history[0]
                assert record is self.machine.current
                assert record.state in (AcquisitionState.FINISHED, AcquisitionState.FAILED)
                failed = record.state is AcquisitionState.FAILED
                assert failed == record.message.startswith("ERROR:")
                assert failed or record.message.startswith(("Completed", "Interrupted."))

    @precondition(lambda self: self.machine.state is WriterState.READY)
    @rule()
    def start(self) -> None:
        self.counts.clear()
        self.starts += 1
        self.take(self.machine.start(RUN, self.now))

    @precondition(lambda self: self.machine.state is WriterState.READY)
    @rule(lost=st.booleans())
    def begins_again(self, lost: bool) -> None:
        """A new life after a death: what was left is resumed, or recovered, and recorded like any other."""
        history = list(self.machine.history)
        self.machine = AcquisitionMachine()
        self.machine.remember(history)
        self.counts.clear()
        self.starts += 1
        left = Record(RUN, AcquisitionState.WRITING, started=self.now)
        self.machine.leave(left)
        recover = self.machine.recover(left, "died", self.now) if lost else self.machine.resume(left, self.now)
        self.take(recover)

    @rule(event=EVENTS, wait=st.sampled_from([0.0, 1.0, 11.0, 20.0]))
    def happens(self, event: Event, wait: float) -> None:
        self.now += wait
        self.take(self.machine.handle(event, self.now))

    @precondition(lambda self: self.draining)
    @rule()
    def drained(self) -> None:
        self.draining = False
        self.take(self.machine.handle(Drained(3, 1), self.now))

    @invariant()
    def at_most_once(self) -> None:
        for name in ("OpenFiles", "ArmSource", "StopSource", "SendReport", "Seal", "Abandon"):
            assert self.counts.get(name, 0) <= 1, name
        assert self.counts.get("Drain", 0) <= 1

    @invariant()
    def ready_exactly_when_sealed(self) -> None:
        if self.starts:
            assert (self.machine.state is WriterState.READY) == (self.counts.get("Seal", 0) == 1)
            assert len(self.machine.history) == self.starts - (self.machine.state is WriterState.WRITING)

    def teardown(self) -> None:
        """From anywhere, a stop and patience lead back to READY."""
        self.take(self.machine.handle(StopRequested(), self.now))
        for _ in range(6):
            self.now += 30.0
            self.take(self.machine.handle(Tick(), self.now))
            if self.draining:
                self.draining = False
                self.take(self.machine.handle(Drained(0, 0), self.now))
        assert self.machine.state is WriterState.READY


TestAnyOrder: Any = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=50, stateful_step_count=20, deadline=None)


@given(st.lists(EVENTS, max_size=8))
@settings(max_examples=50, deadline=None)
def test_a_ready_machine_is_moved_by_nothing(events: list[Event]) -> None:
    machine = AcquisitionMachine()
    assert all(machine.handle(event, 0.0) == [] for event in events)
    assert machine.state is WriterState.READY


def test_images_that_come_are_told_before_the_first_is_written() -> None:
    machine = begun()
    record = machine.current
    assert record is not None
    states = []
    for event in (SourceStarted("run"), FramesCome(), FirstFrame(), FramesCome()):
        machine.handle(event, 0.0)
        states.append(str(record.state))
    assert states == ["WAITING_IMAGES", "ACQUIRING_IMAGES", "WRITING", "WRITING"]


def test_what_a_dead_writer_left_is_neither_ready_nor_moved_until_it_is_taken_over() -> None:
    machine = AcquisitionMachine()
    left = Record(RUN, AcquisitionState.WRITING, started=3.0)
    machine.leave(left)
    assert (machine.state, machine.left, machine.taking_frames) == (WriterState.WRITING, left, False)
    assert play(machine, SourceEnded("run", "complete"), StopRequested(), Tick(), now=1e6) == [[], [], []]
    with pytest.raises(AcquisitionRefused, match="run is under way"):
        machine.start(Request("other"), 5.0)
    assert machine.resume(left, 6.0) == [OpenFiles(RUN, resume=True)]
    assert machine.taking_frames
    assert play(machine, SourceEnded("run", "complete"), Drained(10, 1), Settled("run", {})) == [
        ["Drain"],
        ["SendReport"],
        ["Seal"],
    ]
    assert (list(machine.history), left.started, left.message) == ([left], 3.0, "Completed.")


def test_what_the_source_has_ended_meanwhile_is_closed_as_failed() -> None:
    machine = AcquisitionMachine()
    left = Record(RUN, AcquisitionState.WRITING, started=3.0)
    machine.leave(left)
    assert machine.recover(left, "the writer died", 9.0) == [OpenFiles(RUN, resume=True), Drain(None)]
    assert machine.handle(Drained(7, 1), 9.1) == [Seal("failed: the writer died", None)]
    assert (left.state, left.message, left.frames_written) == ("FAILED", "ERROR: the writer died", 7)
    assert (left.started, left.ended, machine.state) == (3.0, 9.1, WriterState.READY)


@pytest.mark.parametrize(
    ("events", "instructions", "message"),
    [
        ([SourceStarted("run")], ["StopSource", "Abandon"], "ERROR: the writer ends"),
        ([SourceStarted("run"), StopRequested()], ["Abandon"], "ERROR: the writer ends"),
        ([SourceEnded("run", "complete", 10)], ["Abandon"], "ERROR: the writer ends"),
    ],
)
def test_a_writer_that_ends_closes_what_is_open(events: list[Event], instructions: list[str], message: str) -> None:
    machine = begun()
    play(machine, *events)
    assert play(machine, WriterEnds("the writer ends"), Drained(2, 1)) == [instructions, ["Seal"]]
    assert machine.history[0].message == message


def test_a_writer_that_ends_while_only_the_ledger_is_missing_has_completed() -> None:
    machine = begun()
    play(machine, SourceStarted("run"), SourceEnded("run", "complete", 10), Drained(10, 1))
    assert play(machine, WriterEnds("the writer ends")) == [["Seal"]]
    assert machine.history[0].message == "Completed."
