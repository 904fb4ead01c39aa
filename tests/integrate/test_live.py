"""The loop over frames: marks handed on, every frame accounted for, results laid out as described."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from sisockdaq.frames import (
    Attached,
    Description,
    End,
    FrameHeader,
    Ledger,
    Policy,
    Report,
    Settled,
    Start,
)
from sisockdaq.frames.memory import MemoryBus, MemoryConsumer
from sisockdaq.integrate import _cake, _whole, live
from sisockdaq.integrate.live import LiveIntegration, result_slots, results_description
from sisockdaq.integrate.reduction import Reduced, Reducer
from sisockdaq.integrate.settings import IntegrationSettings, make_integrator

SHAPE = (40, 52)
GEOMETRY = {"distance": 0.1, "poni1": 0.0015, "poni2": 0.0021, "wavelength": 1e-10}
FILL = 65535


def reducer(epoch: int = 1, **options: Any) -> Reducer:
    given = {"geometry": GEOMETRY, "rois": {"beam": (10, 10, 20, 30)}, "bins": 30, **options}
    settings = IntegrationSettings.model_validate(given)
    return Reducer(make_integrator(settings, shape=SHAPE, pixel_size=75e-6), settings, epoch)


_KERNELS: list[Any] = [
    kernel for module in (_cake, _whole) for kernel in vars(module).values() if hasattr(kernel, "signatures")
]


class Rig:
    """A source of images, the loop, and a consumer of its results; all in the test's thread."""

    def __init__(
        self, *, shape: tuple[int, int] = SHAPE, policy: str = "lossless", slots: int = 4, **options: Any
    ) -> None:
        self.reducer = reducer(**options)
        description = Description("receiver", "image", shape, "uint16", packets_per_frame=4, fill_value=FILL)
        self.images = MemoryBus(description, slots=8)
        self.described = results_description("integrator", self.reducer)
        self.results = MemoryBus(self.described, slots=slots)
        self.seen: list[tuple[FrameHeader, Reduced]] = []
        consumer = self.images.consumer("integrator", Policy(policy))  # type: ignore[arg-type]
        self.live = LiveIntegration(self.reducer, consumer, self.results.producer, self.note)
        self.writer: MemoryConsumer = self.results.consumer("writer", Policy("lossless"))
        assert isinstance(self.writer.next(1), Attached)
        self.work()

    def note(self, header: FrameHeader, result: Reduced) -> None:
        self.seen.append((header, result))

    def work(self) -> None:
        while self.live.step(0):
            pass

    def start(self, frames: int | None = None) -> None:
        self.images.producer.start(Start("run", frames))

    def send(self, index: int, image: Any, received: int = 4) -> None:
        slot = self.images.producer.acquire()
        assert slot is not None
        self.images.pixels[slot] = image
        header = FrameHeader(1000 + index, 50.0 + index / 8, 50.1 + index / 8, index, 4, received, timestamp=7)
        self.images.producer.publish(slot, header)

    def end(self, complete: int, partial: int = 0) -> None:
        counts = {"frames_expected": complete + partial, "frames_complete": complete, "frames_partial": partial}
        self.images.producer.end(End("run", "complete", counts))

    def settled(self, bus: MemoryBus, consumer: MemoryConsumer) -> Ledger:
        while not isinstance(item := consumer.next(1), Settled):
            assert item is not None
        return Ledger.from_dict(item.ledger)


def picture(seed: int) -> Any:
    return np.random.default_rng(seed).poisson(6, SHAPE).astype(np.uint16)


def test_an_acquisition_becomes_one_of_results() -> None:
    rig = Rig()
    watcher = rig.images.consumer("watcher", Policy("latest"), reports=False)
    watcher.next(1)
    rig.start(3)
    for index in range(3):
        rig.send(index, picture(index), received=4 if index else 3)
    rig.end(complete=2, partial=1)
    rig.work()
    assert rig.writer.next(1) == Start("run", 3)
    for index in range(3):
        frame: Any = rig.writer.next(1)
        header, values, expected = frame.header, frame.pixels.copy(), rig.reducer.reduce(picture(index))
        frame.release()
        assert (header.number, header.time, header.last) == (1000 + index, 50.0 + index / 8, 50.1 + index / 8)
        assert (header.index, header.timestamp, header.complete) == (index, 7, index > 0)
        layout = rig.described.meta["layout"]
        parts = {name: values[begin:end] for name, (begin, end) in layout.items()}
        np.testing.assert_array_equal(parts["curve"], expected.curve.intensity)
        np.testing.assert_array_equal(parts["sigma"], expected.curve.sigma)
        numbers = {name: part[0] for name, part in parts.items() if name not in ("curve", "sigma")}
        assert numbers == expected.numbers
        assert numbers["roi_beam"] == picture(index)[10:30, 10:20].sum()
        assert (header.total, header.maximum) == (expected.curve.total, expected.curve.maximum)
    end: Any = rig.writer.next(1)
    assert (end.acquisition, end.reason) == ("run", "complete")
    rig.writer.request(Report("run", {"results_written": 3}))
    results = rig.settled(rig.results, rig.writer)
    assert results.balance() == []
    assert (results.frames_complete, results.frames_partial) == (2, 1)
    images = rig.settled(rig.images, watcher)
    assert images.reported("frames_integrated") == 3
    assert images.consumers["integrator"].taken == 3
    assert rig.live.state.acquisition is None
    assert [header.number for header, _ in rig.seen] == [1000, 1001, 1002]


def test_lost_packets_are_left_out() -> None:
    rig = Rig()
    image = picture(1)
    image[10:20] = FILL
    rig.send(-1, image, received=3)
    rig.work()
    (_, result), expected = rig.seen[0], rig.reducer.reduce(image)
    assert result.curve.unusable == 10 * SHAPE[1]
    assert result.curve.total == image[image != FILL].sum()
    np.testing.assert_array_equal(result.curve.intensity, expected.curve.intensity)


def test_a_full_ring_of_results_holds_nothing_back() -> None:
    rig = Rig(slots=2)
    rig.start(5)
    for index in range(5):
        rig.send(index, picture(index))
        rig.work()
    rig.end(complete=5)
    rig.work()
    assert len(rig.seen) == rig.live.state.integrated == 5
    assert rig.live.state.results_dropped == 3
    items = [rig.writer.next(1) for _ in range(4)]
    for item in items:
        if hasattr(item, "release"):
            item.release()
    end: Any = items[-1]
    assert end.counts["frames_dropped"] == {"ring_full": 3}
    rig.writer.request(Report("run", {}))
    assert rig.settled(rig.results, rig.writer).balance() == []


def test_images_of_another_shape_are_refused_and_counted() -> None:
    rig = Rig(shape=(40, 50))
    assert "the geometry is for (40, 52)" in rig.live.state.problem
    rig.start(2)
    for index in range(2):
        rig.send(index, 0)
    rig.end(complete=2)
    rig.work()
    assert rig.seen == []
    assert rig.live.state.dropped == 2
    part = rig.images.producer.status()["consumers"]["integrator"]
    assert (part["taken"], part["dropped"]) == (0, 2)
    assert isinstance(rig.writer.next(1), Start)
    end: Any = rig.writer.next(1)
    assert end.counts["frames_dropped"] == {"not_integrated": 2}


def test_a_source_that_goes_ends_the_acquisition_as_failed() -> None:
    rig = Rig()
    rig.start(100)
    rig.send(0, picture(0))
    rig.work()
    rig.images.producer.close()
    rig.work()
    assert not rig.live.state.attached
    assert rig.live.state.problem.startswith("waiting for frames")
    assert isinstance(rig.writer.next(1), Start)
    frame: Any = rig.writer.next(1)
    frame.release()
    end: Any = rig.writer.next(1)
    assert (end.acquisition, end.reason) == ("run", "failed")


def test_a_late_comer_joins_the_acquisition_under_way() -> None:
    rig = Rig()
    rig.start(10)
    late = LiveIntegration(
        rig.reducer, rig.images.consumer("late", Policy("lossless")), MemoryBus(rig.described).producer, rig.note
    )
    assert late.step(0)
    assert late.state.acquisition == "run"


def test_one_failure_does_not_end_the_loop() -> None:
    rig = Rig()
    stop, called = threading.Event(), []

    def broken(header: FrameHeader, result: Reduced) -> None:
        called.append(header.number)
        if len(called) == 1:
            raise RuntimeError("no room")
        stop.set()

    rig.live._on_result = broken
    rig.send(-1, picture(0))
    rig.send(-1, picture(1))
    thread = threading.Thread(target=rig.live.run, args=(stop,))
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    assert len(called) == 2
    assert rig.live.state.problem == "RuntimeError: no room"


@pytest.mark.parametrize(("bins", "slots"), [(10, 1024), (30_000, 139), (60_000, 69)])
def test_the_ring_of_results_stays_small(bins: int, slots: int) -> None:
    assert result_slots(Description("i", "results", (2 * bins,), "float64")) == slots


def test_a_cake_of_each_frame_goes_to_the_callback_and_not_to_the_writer() -> None:
    rig = Rig(cake={"azimuth_bins": 8, "bins": 20})
    assert "cake" not in rig.described.meta["layout"]
    rig.start(2)
    rng = np.random.default_rng(3)
    images = rng.poisson(9, (2, *SHAPE)).astype(np.uint16)
    images[1, 5:9] = FILL
    for index, image in enumerate(images):
        rig.send(index, image)
        rig.work()
    engine = reducer(cake={"azimuth_bins": 8, "bins": 20})
    engine.follow_fill(FILL)
    for (_, result), image in zip(rig.seen, images, strict=True):
        expected = engine.integrator.integrate2d(image, azimuth_bins=8, bins=20)
        assert result.cake is not None
        np.testing.assert_array_equal(result.cake.intensity, expected.intensity)
        np.testing.assert_array_equal(result.cake.sigma, expected.sigma)
        assert result.cake.unusable == result.numbers["unusable"]


def test_what_lost_packets_need_is_compiled_before_data() -> None:
    made = reducer(cake={"azimuth_bins": 8, "bins": 20})
    made.follow_fill(FILL)
    made.warm_up(np.uint16)
    assert made.integrator.dummy == FILL
    before = [len(kernel.signatures) for kernel in _KERNELS]
    image = np.ones(SHAPE, np.uint16)
    image[3:7] = FILL
    made.reduce(image)
    assert [len(kernel.signatures) for kernel in _KERNELS] == before


def waiting(rig: Rig) -> int:
    return len(rig.live._waiting)


def test_frames_wait_for_their_monitor_and_marks_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: now[0])
    rig = Rig(monitor={"field": "ioc::i0", "match": "linear"}, transmission=0.5)
    rig.start(4)
    for index in range(4):
        rig.send(index, picture(index))
    rig.end(complete=4)
    rig.work()
    assert rig.images.producer.status()["slots_free"] == 8  # pixels are not held while frames wait
    assert (waiting(rig), rig.seen, rig.live.state.acquisition) == (5, [], "run")

    # Frames are at 50, 50.125, 50.25, 50.375: each gets what lies between two samples as soon as the second is there.
    i0 = rig.live.factors.series["ioc::i0"]
    i0.add([50.0, 50.2], [4.0, 6.0])
    rig.work()
    assert [result.numbers["monitor"] for _, result in rig.seen] == pytest.approx([4.0, 5.25])
    expected = rig.reducer.reduce(picture(1), rig.seen[1][1].numbers)
    np.testing.assert_array_equal(rig.seen[1][1].curve.intensity, expected.curve.intensity)
    assert rig.live.state.unknown_factor == ""
    i0.add([50.3], [0.0])
    rig.work()
    assert (waiting(rig), len(rig.seen)) == (2, 3)

    # The last one has waited long enough: it gets no intensities, and that is told; then the acquisition ends.
    now[0] += 0.5
    rig.work()
    assert (waiting(rig), rig.live.state.acquisition, rig.live.state.not_normalized) == (0, None, 1)
    assert rig.live.state.unknown_factor == "the monitor ioc::i0 has no sample within 1 s of the frame"
    last = rig.seen[3][1]
    assert np.isnan(last.numbers["monitor"])
    assert np.isnan(last.curve.intensity).all()
    assert last.numbers["total"] == picture(3).sum()
    kinds = [type(rig.writer.next(1)).__name__ for _ in range(6)]
    assert (kinds[0], kinds[-1]) == ("Start", "End")


def test_what_waits_is_bounded_and_finished_before_anything_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MOST_WAITING", 2)
    monkeypatch.setattr(live.time, "monotonic", lambda: 100.0)
    rig = Rig(slots=8, monitor="ioc::i0")
    for index in range(4):
        rig.send(-1, picture(index))
    rig.work()
    assert (waiting(rig), len(rig.seen)) == (2, 2)
    monkeypatch.setattr(live.time, "monotonic", iter(range(101, 1000)).__next__)
    other = reducer(epoch=2, monitor="ioc::i0", transmission=0.5)
    i0 = rig.live.factors.series["ioc::i0"]
    done = rig.live.between_frames(lambda: rig.live.use(other))
    rig.work()
    assert done.result(0) is None
    assert [result.epoch for _, result in rig.seen] == [1, 1, 1, 1]
    assert rig.live.factors.series["ioc::i0"] is i0  # what is known of the field stays known


def test_a_failure_of_what_waited_loses_neither_the_next_frame_nor_the_end() -> None:
    rig = Rig(monitor={"field": "ioc::i0", "match": "linear"})
    seen: list[int] = []

    def broken(header: FrameHeader, result: Reduced) -> None:
        seen.append(header.number)
        if len(seen) == 1:
            raise RuntimeError("no room")

    rig.live._on_result = broken
    rig.start(2)
    rig.send(0, picture(0))
    rig.work()
    assert waiting(rig) == 1
    rig.live.factors.series["ioc::i0"].add([49.0, 60.0], [4.0, 6.0])
    rig.send(1, picture(1))
    rig.live.step(0)  # the frame that waited fails while the next one is in hand
    rig.end(complete=2)
    rig.work()
    assert (seen, rig.live.state.problem) == ([1000, 1001], "RuntimeError: no room")
    assert rig.images.producer.status()["slots_free"] == 8
    assert rig.live.state.acquisition is None
